package custom

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Bounds of configurations.
const (
	// MaxFiles and MaxFile bound a directory and one of its files, in bytes.
	MaxFiles = 64
	MaxFile  = 64 << 10
	// MaxExpression is the length of an expression in bytes.
	MaxExpression = 4096
	minEvery      = 5 * time.Second
	maxEvery      = 24 * time.Hour
	maxTimeout    = 10 * time.Minute
	maxArgs       = 64
	maxArg        = 4096
	maxMessage    = 256
)

// What each element of a list is for an expression with each.
const (
	EachDevices = "devices"
	EachGPUs    = "gpus"
)

// Config is one check: exactly one of Exec and CEL is set.
type Config struct {
	// File is where it was read from.
	File string `json:"-"`
	// Name is lower-case letters, digits and dashes, at most 50; the check is called custom-<name>.
	Name string `json:"name"`
	// Every is the time between two runs, 5s to 24h; a minute when left out.
	Every metav1.Duration `json:"every,omitzero"`
	// Timeout is when a run is given up, at most 10m; 10s when left out.
	Timeout metav1.Duration `json:"timeout,omitzero"`
	Exec    *Exec           `json:"exec,omitempty"`
	CEL     *CEL            `json:"cel,omitempty"`
	// Finding is what is found when the program exits with 1 and gives no findings of its own, or when the expression is
	// true.
	Finding Finding `json:"finding,omitzero"`
}

// Exec is a program.
type Exec struct {
	// Path is the program's file within Root.
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
	// Root is the program's root directory: where an image's root file system is mounted. Empty is the agent's own.
	Root string `json:"root,omitempty"`
}

// CEL is an expression that is true when something is wrong.
type CEL struct {
	Expression string `json:"expression"`
	// Each asks the expression of each element of a list: EachDevices with the variable device, EachGPUs with gpu.
	Each string `json:"each,omitempty"`
}

// Finding is what a check finds where nothing else says.
type Finding struct {
	// Code is a CamelCase word; made of the check's name when left out.
	Code string `json:"code,omitempty"`
	// Class is Hardware, Driver, Fabric, Host, Application or Unknown; Host when left out.
	Class v1alpha1.FaultClass `json:"class,omitempty"`
	// Severity is Warning when left out, and Recommended None.
	Severity    v1alpha1.Severity       `json:"severity,omitempty"`
	Recommended v1alpha1.Recommendation `json:"recommended,omitempty"`
	// Message is the evidence of an expression.
	Message string `json:"message,omitempty"`
}

var (
	nameForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$`)
	codeForm = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,63}$`)
	classes  = []v1alpha1.FaultClass{
		v1alpha1.ClassHardware, v1alpha1.ClassDriver, v1alpha1.ClassFabric, v1alpha1.ClassHost, v1alpha1.ClassApplication, v1alpha1.ClassUnknown,
	}
	severities      = []v1alpha1.Severity{v1alpha1.SeverityCritical, v1alpha1.SeverityWarning, v1alpha1.SeverityInfo}
	recommendations = []v1alpha1.Recommendation{
		v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendRestartDriver,
		v1alpha1.RecommendResetDevice, v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle, v1alpha1.RecommendReplace,
		v1alpha1.RecommendHuman,
	}
)

// Load reads every .yaml, .yml and .json file of a directory, by name. Hidden files are passed over: a mounted ConfigMap has
// some. One file that cannot be used is an error, so that nobody believes in a check that does not run.
func Load(dir fs.FS) ([]Config, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("reading custom checks: %w", err)
	}
	var out []Config
	var errs []error
	from := make(map[string]string)
	for _, e := range entries {
		name := e.Name()
		if ext := path.Ext(name); strings.HasPrefix(name, ".") || ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		if len(out) == MaxFiles {
			return nil, fmt.Errorf("reading custom checks: more than %d files; give fewer", MaxFiles)
		}
		c, err := loadFile(dir, name)
		if err == nil && from[c.Name] != "" {
			err = fmt.Errorf("%s: name: %q is that of %s too; give each check a name of its own", name, c.Name, from[c.Name])
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		from[c.Name] = name
		out = append(out, c)
	}
	return out, errors.Join(errs...)
}

func loadFile(dir fs.FS, name string) (Config, error) {
	info, err := fs.Stat(dir, name)
	if err == nil && info.Size() > MaxFile {
		err = fmt.Errorf("has %d bytes, at most %d are allowed", info.Size(), MaxFile)
	}
	var data []byte
	if err == nil {
		data, err = fs.ReadFile(dir, name)
	}
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return Parse(name, data)
}

// Parse reads one file, fills in what is left out, and checks all of it.
func Parse(file string, data []byte) (Config, error) {
	c := Config{File: file}
	if len(data) > MaxFile {
		return c, fmt.Errorf("%s: has %d bytes, at most %d are allowed", file, len(data), MaxFile)
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, fmt.Errorf("%s: %s", file, clip(strings.Join(strings.Fields(err.Error()), " "), 300))
	}
	c.fill()
	if field, err := c.check(); err != nil {
		return c, fmt.Errorf("%s: %s: %w", file, field, err)
	}
	return c, nil
}

func (c *Config) fill() {
	if c.Every.Duration == 0 {
		c.Every.Duration = time.Minute
	}
	if c.Timeout.Duration == 0 {
		c.Timeout.Duration = 10 * time.Second
	}
	f := &c.Finding
	if f.Code == "" {
		f.Code = camel(c.Name)
	}
	if f.Class == "" {
		f.Class = v1alpha1.ClassHost
	}
	if f.Severity == "" {
		f.Severity = v1alpha1.SeverityWarning
	}
	if f.Recommended == "" {
		f.Recommended = v1alpha1.RecommendNone
	}
}

// camel makes a code of a name: nfs-latency is NfsLatency.
func camel(name string) string {
	var b strings.Builder
	for word := range strings.SplitSeq(name, "-") {
		if word != "" {
			b.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	code := b.String()
	if code != "" && code[0] >= '0' && code[0] <= '9' {
		code = "Check" + code
	}
	return code
}

// check names the field that is wrong and the fix.
func (c *Config) check() (field string, err error) {
	switch {
	case !nameForm.MatchString(c.Name):
		return "name", fmt.Errorf("%q: write lower-case letters, digits and dashes, at most 50", clip(c.Name, 60))
	case c.Every.Duration < minEvery || c.Every.Duration > maxEvery:
		return "every", fmt.Errorf("%s: write %s to %s", c.Every.Duration, minEvery, maxEvery)
	case c.Timeout.Duration <= 0 || c.Timeout.Duration > maxTimeout:
		return "timeout", fmt.Errorf("%s: write more than zero and at most %s", c.Timeout.Duration, maxTimeout)
	case (c.Exec == nil) == (c.CEL == nil):
		return "exec", errors.New("write either exec or cel, and not both")
	}
	if c.Exec != nil {
		field, err = c.Exec.check()
	} else {
		field, err = c.CEL.check()
	}
	if err != nil {
		return field, err
	}
	return c.Finding.check()
}

func (e *Exec) check() (field string, err error) {
	if !path.IsAbs(e.Path) || len(e.Path) > maxArg {
		return "exec.path", fmt.Errorf("%q: write a path that begins with /", clip(e.Path, 60))
	}
	if e.Root != "" && (!path.IsAbs(e.Root) || len(e.Root) > maxArg) {
		return "exec.root", fmt.Errorf("%q: write the directory where the image is mounted, which begins with /", clip(e.Root, 60))
	}
	if len(e.Args) > maxArgs {
		return "exec.args", fmt.Errorf("%d arguments: at most %d are allowed", len(e.Args), maxArgs)
	}
	for i, a := range append([]string{e.Path, e.Root}, e.Args...) {
		if len(a) > maxArg || strings.ContainsRune(a, 0) {
			return "exec", fmt.Errorf("argument %d: write at most %d bytes without a zero among them", i-2, maxArg)
		}
	}
	return "", nil
}

func (e *CEL) check() (field string, err error) {
	switch {
	case strings.TrimSpace(e.Expression) == "":
		return "cel.expression", errors.New("is missing; write an expression that is true when something is wrong")
	case len(e.Expression) > MaxExpression:
		return "cel.expression", fmt.Errorf("has %d bytes, at most %d are allowed", len(e.Expression), MaxExpression)
	case e.Each != "" && e.Each != EachDevices && e.Each != EachGPUs:
		return "cel.each", fmt.Errorf("%q: write %s or %s, or leave it out", clip(e.Each, 60), EachDevices, EachGPUs)
	}
	return "", nil
}

func (f *Finding) check() (field string, err error) {
	switch {
	case !codeForm.MatchString(f.Code):
		return "finding.code", fmt.Errorf("%q: write a CamelCase word of at most 64 letters and digits", clip(f.Code, 80))
	case oneOf(f.Class, classes) != nil:
		return "finding.class", oneOf(f.Class, classes)
	case oneOf(f.Severity, severities) != nil:
		return "finding.severity", oneOf(f.Severity, severities)
	case oneOf(f.Recommended, recommendations) != nil:
		return "finding.recommended", oneOf(f.Recommended, recommendations)
	case len(f.Message) > maxMessage:
		return "finding.message", fmt.Errorf("has %d bytes, at most %d are allowed", len(f.Message), maxMessage)
	}
	return "", nil
}

// oneOf is an error that lists what is allowed.
func oneOf[T ~string](s T, allowed []T) error {
	names := make([]string, 0, len(allowed))
	for _, a := range allowed {
		if a == s {
			return nil
		}
		names = append(names, string(a))
	}
	return fmt.Errorf("%q: write one of %s", clip(string(s), 60), strings.Join(names, ", "))
}

// clip bounds what of the input an error repeats.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
