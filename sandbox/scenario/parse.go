package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of a scenario: a file is read whole, and every wait ends.
const (
	maxFile    = 1 << 20
	maxSteps   = 200
	maxTimeout = time.Hour
	maxWait    = 30 * time.Minute
)

// nameShape is what names, roles and IDs look like.
var nameShape = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// Parse reads a scenario from a file's content. Unknown fields, unbounded waits and patterns that could never match are
// errors; each names the file, the field and what would be right, and all of them are reported at once.
func Parse(file string, data []byte) (*Scenario, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes; split it into several scenarios", file, maxFile)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	s := &Scenario{}
	if err := decoder.Decode(s); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: empty; a scenario needs name, title, timeout and steps", file)
		}
		return nil, fmt.Errorf("%s: %w", file, explain(err))
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document; a file holds one scenario", file)
	}
	c := &checker{file: file}
	c.scenario(s)
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	return s, nil
}

// goType matches how the decoder names the Go types, which mean nothing to whoever wrote the file.
var goType = regexp.MustCompile(`field (\S+) not found in type scenario\.(\w+)`)

// explain rewrites the decoder's words into the file's.
func explain(err error) error {
	text := goType.ReplaceAllStringFunc(err.Error(), func(m string) string {
		parts := goType.FindStringSubmatch(m)
		return fmt.Sprintf("%s: no such field in %s; use one of %s", parts[1], strings.ToLower(parts[2]), strings.Join(fieldsOf(parts[2]), ", "))
	})
	return errors.New(strings.TrimPrefix(text, "yaml: "))
}

// fieldsOf are a type's fields as the file writes them.
func fieldsOf(typeName string) []string {
	switch typeName {
	case "Scenario":
		return []string{"name", "title", "about", "fleet", "roles", "timeout", "compressed", "steps", "never", "finally", "leave"}
	case "Fleet":
		return []string{"nodes", "gpus", "devicePlugin", "reboot"}
	case "Role":
		return []string{"prefer", "labels", "count"}
	case "Step":
		return append([]string{"id", "say", "after"}, verbs...)
	case "Fault":
		return []string{"kind", "node", "device", "deviceOf", "lines", "healsAfter", "relapses", "relapseAfter"}
	case "Workload":
		return []string{"kind", "name", "namespace", "count", "gpus", "runFor", "minAvailable", "node", "prefer", "nodeSelector", "devicePlugin", "labels", "annotations"}
	case "PodRef":
		return []string{"namespace", "app"}
	case "Expect":
		return []string{"name", "see", "state", "atLeast", "atMost", "exactly", "within", "from", "until"}
	}
	return nil
}

// verbs are what a step can do, one of them each.
var verbs = []string{"apply", "delete", "workload", "finish", "fault", "controller", "roundhouse", "expect"}

// checker gathers what is wrong.
type checker struct {
	file  string
	names []string // roles and other words that ${...} may hold
	ids   []string
	errs  []error
}

func (c *checker) errorf(path, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %s: %s", c.file, path, fmt.Sprintf(format, args...)))
}

func (c *checker) scenario(s *Scenario) {
	if !nameShape.MatchString(s.Name) {
		c.errorf("name", "%q must be lower case letters, digits and hyphens, such as one-of-eight", s.Name)
	}
	if s.Title == "" {
		c.errorf("title", "missing; say in a line what is shown")
	}
	if t := s.Timeout.Of(); t <= 0 || t > maxTimeout {
		c.errorf("timeout", "%s; every scenario ends: write one of at most %s, such as 3m", t, maxTimeout)
	}
	if s.Fleet.Nodes < 0 || s.Fleet.Nodes > 1000 || s.Fleet.GPUs < 0 || s.Fleet.GPUs > 64 {
		c.errorf("fleet", "nodes goes from 0 to 1000 and gpus from 0 to 64")
	}
	if s.Fleet.DevicePlugin < 0 || s.Fleet.DevicePlugin > s.Fleet.Nodes {
		c.errorf("fleet.devicePlugin", "%d of %d nodes; write from 0 to as many as there are", s.Fleet.DevicePlugin, s.Fleet.Nodes)
	}
	c.roles(s.Roles)
	if len(s.Steps) == 0 || len(s.Steps) > maxSteps {
		c.errorf("steps", "%d of them; a scenario has from 1 to %d", len(s.Steps), maxSteps)
		return
	}
	for i := range s.Steps {
		if id := s.Steps[i].ID; id != "" {
			if slices.Contains(c.ids, id) {
				c.errorf(fmt.Sprintf("steps[%d].id", i), "%q is another step's too; give it one of its own", id)
			}
			c.ids = append(c.ids, id)
		}
	}
	for i := range s.Steps {
		c.step(fmt.Sprintf("steps[%d]", i), &s.Steps[i])
	}
	for i := range s.Never {
		c.never(fmt.Sprintf("never[%d]", i), &s.Never[i])
	}
	for i := range s.Finally {
		c.expect(fmt.Sprintf("finally[%d]", i), &s.Finally[i])
	}
}

func (c *checker) roles(roles map[string]Role) {
	for name, r := range roles {
		path := "roles." + name
		if !nameShape.MatchString(name) || name == varDevice {
			c.errorf(path, "a role is called by lower case letters, digits and hyphens, and not %q", varDevice)
		}
		if r.Count < 0 || r.Count > 1000 {
			c.errorf(path+".count", "%d; write from 1 to 1000", r.Count)
		}
		c.names = append(c.names, name)
	}
	c.names = append(c.names, varDevice)
}

func (c *checker) step(path string, s *Step) {
	var done []string
	for verb, set := range map[string]bool{
		"apply": len(s.Apply) > 0, "delete": len(s.Delete) > 0, "workload": s.Workload != nil, "finish": s.Finish != nil, "fault": s.Fault != nil,
		"controller": s.Controller != "", "roundhouse": len(s.Roundhouse) > 0, "expect": s.Expect != nil,
	} {
		if set {
			done = append(done, verb)
		}
	}
	slices.Sort(done)
	if len(done) > 1 {
		c.errorf(path, "%s in one step; write a step for each", strings.Join(done, " and "))
	}
	if len(done) == 0 && s.Say == "" && s.After == 0 {
		c.errorf(path, "does nothing; use one of %s", strings.Join(verbs, ", "))
	}
	if s.After.Of() > maxWait {
		c.errorf(path+".after", "%s; write at most %s", s.After.Of(), maxWait)
	}
	if s.Controller != "" && s.Controller != "kill" && s.Controller != "start" {
		c.errorf(path+".controller", "%q; write kill or start", s.Controller)
	}
	c.verb(path, s)
}

// verb checks what a step does.
func (c *checker) verb(path string, s *Step) {
	for i, o := range s.Apply {
		c.object(fmt.Sprintf("%s.apply[%d]", path, i), o)
	}
	for i, o := range s.Delete {
		c.object(fmt.Sprintf("%s.delete[%d]", path, i), o)
	}
	for i, a := range s.Roundhouse {
		c.text(fmt.Sprintf("%s.roundhouse[%d]", path, i), a)
	}
	if s.Workload != nil {
		c.workload(path+".workload", s.Workload)
	}
	if s.Finish != nil && (s.Finish.Namespace == "" || s.Finish.App == "") {
		c.errorf(path+".finish", "namespace and app are needed")
	}
	if s.Fault != nil {
		c.fault(path+".fault", s.Fault)
	}
	if s.Expect != nil {
		c.expect(path+".expect", s.Expect)
		if s.Expect.Within == 0 {
			c.errorf(path+".expect.within", "missing; every wait ends: write for example within: 10s")
		}
	}
}

func (c *checker) object(path string, o Object) {
	meta, _ := o["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	if o["apiVersion"] == nil || o["kind"] == nil || name == "" {
		c.errorf(path, "apiVersion, kind and metadata.name are needed")
	}
	if _, err := toUnstructured(o); err != nil {
		c.errorf(path, "not an object: %v", err)
	}
	walk(path, o, c.text)
}

func (c *checker) workload(path string, w *Workload) {
	if !nameShape.MatchString(w.Name) {
		c.errorf(path+".name", "%q must be lower case letters, digits and hyphens", w.Name)
	}
	if !slices.Contains(workloadKinds, w.Kind) {
		c.errorf(path+".kind", "%q; use one of %s", w.Kind, strings.Join(workloadKinds, ", "))
	}
	if w.Count < 0 || w.Count > 10_000 || w.GPUs < -1 || w.GPUs > 64 {
		c.errorf(path, "count goes from 0 to 10000, gpus from -1 (none) to 64")
	}
	c.text(path+".node", w.Node)
	c.text(path+".prefer", w.Prefer)
	if w.Node != "" && w.Prefer != "" {
		c.errorf(path, "node and prefer; give one of them")
	}
	for key, v := range w.NodeSelector {
		c.text(path+".nodeSelector."+key, v)
	}
}

// workloadKinds are those of package workload.
var workloadKinds = []string{"Jobs", "Gang", "Service", "Prewarmed"}

func (c *checker) fault(path string, f *Fault) {
	if f.Kind == "" {
		c.errorf(path+".kind", "missing; roundhouse-sandbox inject --help lists the faults")
	}
	if f.Node == "" {
		c.errorf(path+".node", "missing; name a node or a role, such as ${broken}")
	}
	if f.Device != "" && f.DeviceOf != nil {
		c.errorf(path, "device and deviceOf; give one of them")
	}
	if f.Lines < 0 || f.Lines > 1_000_000 {
		c.errorf(path+".lines", "%d; write from 0 to 1000000", f.Lines)
	}
	c.text(path+".node", f.Node)
	c.text(path+".device", f.Device)
}

func (c *checker) never(path string, e *Expect) {
	if e.State != nil {
		c.errorf(path+".state", "a state that must never be cannot be missed only if it is a fact; use see")
	}
	if e.AtLeast != nil || e.Exactly != nil {
		c.errorf(path, "never takes atMost, the number from which it is too many")
	}
	c.expect(path, e)
}

func (c *checker) expect(path string, e *Expect) {
	if e.Name == "" {
		c.errorf(path+".name", "missing; say in words what is expected")
	}
	c.text(path+".name", e.Name)
	if e.Within.Of() > maxWait {
		c.errorf(path+".within", "%s; write at most %s", e.Within.Of(), maxWait)
	}
	for _, n := range []*int{e.AtLeast, e.AtMost, e.Exactly} {
		if n != nil && (*n < 0 || *n > 1_000_000) {
			c.errorf(path, "%d is no number of things; write from 0 to 1000000", *n)
		}
	}
	if e.Exactly != nil && (e.AtLeast != nil || e.AtMost != nil) {
		c.errorf(path, "exactly stands alone; drop atLeast and atMost")
	}
	for name, id := range map[string]string{"from": e.From, "until": e.Until} {
		if id != "" && !slices.Contains(c.ids, id) {
			c.errorf(path+"."+name, "no step has the id %q; the ids are: %s", id, strings.Join(c.ids, ", "))
		}
	}
	switch {
	case (e.See == nil) == (e.State == nil):
		c.errorf(path, "give see (facts) or state (how things are), one of them")
	case e.See != nil:
		if err := e.See.Validate(); err != nil {
			c.errorf(path+".see", "%v", err)
		}
		for name, v := range e.See.Where {
			c.text(path+".see."+name, v)
		}
	default:
		c.state(path+".state", e.State)
	}
}

func (c *checker) state(path string, s *State) {
	fields, ok := states[s.Kind]
	if !ok {
		c.errorf(path+".kind", "%q; use pods, incidents, leftovers, healthy, policies or occurrences", s.Kind)
		return
	}
	for name, v := range s.Where {
		if !slices.Contains(fields, name) {
			c.errorf(path+"."+name, "no such field; %s takes %s", s.Kind, strings.Join(fields, ", "))
		}
		c.text(path+"."+name, v)
	}
}

// text checks the ${...} of a text.
func (c *checker) text(path, text string) {
	for _, m := range variable.FindAllStringSubmatch(text, -1) {
		if !slices.Contains(c.names, m[1]) {
			c.errorf(path, "${%s} is no role of this scenario; the words are: %s", m[1], strings.Join(sorted(c.names), ", "))
		}
	}
}

func sorted(names []string) []string {
	out := slices.Clone(names)
	slices.Sort(out)
	return out
}
