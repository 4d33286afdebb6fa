package scenario

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// Cluster is what a scenario is played on.
type Cluster interface {
	// AdminConfig is an administrator's client configuration.
	AdminConfig() *rest.Config
	// Apply and Delete do so with objects; deleting what is not there is no error.
	Apply(ctx context.Context, objects ...*unstructured.Unstructured) error
	Delete(ctx context.Context, objects ...*unstructured.Unstructured) error
	// StartWorkload and EndWorkload start and delete what tenants run.
	StartWorkload(ctx context.Context, w Workload) error
	EndWorkload(ctx context.Context, w Workload) error
	// Finish lets the pods of an app, or of a workload, end as done.
	Finish(ctx context.Context, pods PodRef) error
	// DeviceOf finds the device that a pod on a node holds: its slot, and its name in the ResourceSlice.
	DeviceOf(ctx context.Context, node string, pod PodRef) (slot int, name string, err error)
	// Break injects a fault into one node.
	Break(ctx context.Context, node string, slot int, f Fault) error
	// KillController ends the leading controller by SIGKILL, StartController starts another.
	KillController(ctx context.Context) error
	StartController(ctx context.Context) error
	// FollowAlerts calls f for each alert that begins to fire or is resolved, until stop is called.
	FollowAlerts(f func(name, node, state, message string)) (stop func())
	// Roundhouse runs a command line of kubectl-roundhouse and returns what it printed.
	Roundhouse(ctx context.Context, args ...string) (string, error)
}

// Narrator tells people what happens. Its methods are called one after the other, never at the same time.
type Narrator interface {
	// Began is told first; words are the roles' nodes, and count says at any time how things are.
	Began(s *Scenario, words map[string]string, count func(State) (int, string))
	// Step is told when a step begins, with its words put in.
	Step(at time.Duration, s *Step)
	// Fact is told each fact, in order.
	Fact(f Fact)
	// Outcome is told each expectation when it is known.
	Outcome(o Outcome)
	// Ended is told last.
	Ended(r *Report)
}

// Runner plays one scenario.
type Runner struct {
	scenario *Scenario
	cluster  Cluster
	narrator Narrator
	now      func() time.Time
	record   func(context.Context, *Tape) (stop func(), err error)

	tape     *Tape
	voice    *voice
	words    words
	cursors  cursors
	marks    map[string]int // how many facts there were when a step was done
	guards   []*guard
	injected map[string]time.Duration
	cleanup  []func(context.Context) error
	report   *Report
}

// NewRunner makes a runner of one scenario. narrator may be nil.
func NewRunner(s *Scenario, c Cluster, narrator Narrator) *Runner {
	r := &Runner{scenario: s, cluster: c, narrator: narrator, now: time.Now}
	r.record = func(ctx context.Context, tape *Tape) (func(), error) {
		recorder, err := Record(ctx, c.AdminConfig(), tape)
		if err != nil {
			return nil, err
		}
		return recorder.Stop, nil
	}
	return r
}

// cleanTimeout bounds the deletion of what a scenario applied.
const cleanTimeout = 30 * time.Second

// Run plays the scenario to its end, or to the first expectation that is not seen. The report is there also when the
// error is not nil; the error says that the scenario could not be played, not that something was not seen.
func (r *Runner) Run(ctx context.Context) (*Report, error) {
	began := r.now()
	r.report = &Report{Scenario: r.scenario.Name, Title: r.scenario.Title, Began: began.UTC(), Compressed: r.scenario.Compressed}
	r.words, r.cursors, r.injected, r.marks = words{}, cursors{}, map[string]time.Duration{}, map[string]int{}
	r.tape = NewTape(began, r.now, r.guard)
	err := r.play(ctx)
	if err != nil {
		r.report.Error = err.Error()
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	if e := r.clean(clean); e != nil {
		err = errors.Join(err, e)
		r.report.Error = err.Error()
	}
	r.conclude()
	return r.report, err
}

// play does the steps under the scenario's timeout.
func (r *Runner) play(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, r.scenario.Timeout.Of(),
		fmt.Errorf("the scenario's timeout of %s has passed", r.scenario.Timeout.Of()))
	defer cancel()
	stop, err := r.record(ctx, r.tape)
	if err != nil {
		return err
	}
	defer stop()
	defer r.cluster.FollowAlerts(func(name, node, state, message string) {
		r.tape.Add(fact(KindAlert, "name", name, "node", node, "state", state, "message", message))
	})()
	if err := r.cast(); err != nil {
		return err
	}
	r.voice = newVoice(ctx, r.narrator, r.tape)
	defer r.voice.stop()
	r.voice.say(func(n Narrator) { n.Began(r.scenario, r.words, r.tape.Count) })
	if err := r.arm(); err != nil {
		return err
	}
	done, err := r.steps(ctx)
	if err == nil && done {
		err = r.finally(ctx)
	}
	if cause := context.Cause(ctx); cause != nil && err == nil {
		err = cause
	}
	return errors.Join(err, r.tape.Err())
}

// cast gives each role its node. A node that an earlier scenario left with an open incident gets none.
func (r *Runner) cast() error {
	var nodes []*corev1.Node
	r.tape.View(func(_ []Fact, w *World) {
		busy := map[string]bool{}
		for _, rem := range w.incidents {
			busy[rem.Spec.Node] = busy[rem.Spec.Node] || !rem.Status.Phase.Over()
		}
		for name, n := range w.nodes {
			if !busy[name] {
				nodes = append(nodes, n)
			}
		}
	})
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	taken := map[string]bool{}
	// Those that prefer a node come first, so that no other role takes it.
	names := slices.SortedFunc(maps.Keys(r.scenario.Roles), func(a, b string) int {
		pa, pb := r.scenario.Roles[a].Prefer == "", r.scenario.Roles[b].Prefer == ""
		if pa != pb {
			if pa {
				return 1
			}
			return -1
		}
		return cmp.Compare(a, b)
	})
	for _, name := range names {
		role := r.scenario.Roles[name]
		chosen := choose(nodes, role, taken)
		if want := max(1, role.Count); len(chosen) < want {
			return fmt.Errorf("role %s wants %d nodes with labels %v, and %d of the fleet are left for it", name, want, role.Labels, len(chosen))
		}
		r.words[name] = strings.Join(chosen, ",")
	}
	r.report.Roles = maps.Clone(r.words)
	return nil
}

func choose(nodes []*corev1.Node, role Role, taken map[string]bool) []string {
	var chosen []string
	for _, preferred := range []bool{true, false} {
		for _, n := range nodes {
			if taken[n.Name] || (n.Name == role.Prefer) != preferred || len(chosen) == max(1, role.Count) || !hasAll(n.Labels, role.Labels) {
				continue
			}
			taken[n.Name] = true
			chosen = append(chosen, n.Name)
		}
	}
	return chosen
}

func hasAll(labels, want map[string]string) bool {
	for k, v := range want {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// arm sets up what must never be seen; those without From count from here.
func (r *Runner) arm() error {
	var guards []*guard
	for _, e := range r.scenario.Never {
		g := &guard{Expect: r.words.expect(e), armed: e.From == ""}
		if err := g.See.Validate(); err != nil {
			return fmt.Errorf("never %q: %w", e.Name, err)
		}
		guards = append(guards, g)
	}
	// The tape is recording already, and tells guard under its lock, which View holds too.
	r.tape.View(func([]Fact, *World) { r.guards = guards })
	return nil
}

// guard is told each fact while the tape is locked.
func (r *Runner) guard(f Fact) {
	for _, g := range r.guards {
		g.take(f)
	}
}

// mark arms and disarms guards at a step: Until before it begins, From when it is done.
func (r *Runner) mark(id string, done bool) {
	if id == "" {
		return
	}
	r.tape.View(func(facts []Fact, _ *World) {
		if done {
			r.marks[id] = len(facts)
		}
		for _, g := range r.guards {
			if done && g.From == id {
				g.armed = true
			}
			if !done && g.Until == id {
				g.armed = false
			}
		}
	})
}

// steps does one step after the other; false where an expectation was not seen, and the rest makes no sense.
func (r *Runner) steps(ctx context.Context) (bool, error) {
	for i := range r.scenario.Steps {
		s := &r.scenario.Steps[i]
		if err := pause(ctx, s.After.Of()); err != nil {
			return false, err
		}
		r.mark(s.ID, false)
		said := r.words.step(*s)
		r.voice.say(func(n Narrator) { n.Step(r.tape.Since(), &said) })
		seen, err := r.step(ctx, i, s)
		if err != nil {
			return false, fmt.Errorf("step %d: %w", i+1, err)
		}
		r.mark(s.ID, true)
		if !seen {
			r.skip(i+1, "not reached")
			return false, nil
		}
	}
	return true, nil
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (r *Runner) step(ctx context.Context, i int, s *Step) (bool, error) {
	switch {
	case len(s.Apply) > 0:
		return true, r.apply(ctx, s.Apply)
	case len(s.Delete) > 0:
		objects, err := r.words.objects(s.Delete)
		if err != nil {
			return false, err
		}
		return true, r.cluster.Delete(ctx, objects...)
	case s.Workload != nil:
		return true, r.workload(ctx, *s.Workload)
	case s.Finish != nil:
		return true, r.cluster.Finish(ctx, *s.Finish)
	case s.Fault != nil:
		return true, r.breakIt(ctx, *s.Fault)
	case s.Controller == "kill":
		return true, r.cluster.KillController(ctx)
	case s.Controller == "start":
		return true, r.cluster.StartController(ctx)
	case len(s.Roundhouse) > 0:
		return true, r.roundhouse(ctx, s.Roundhouse)
	case s.Expect != nil:
		e := r.words.expect(*s.Expect)
		o, err := await(ctx, r.tape, &e, r.marks[e.From], r.cursors)
		o.Part = fmt.Sprintf("step %d", i+1)
		r.known(o)
		return o.Seen, err
	}
	return true, nil
}

func (r *Runner) apply(ctx context.Context, list []Object) error {
	objects, err := r.words.objects(list)
	if err != nil {
		return err
	}
	if err := r.cluster.Apply(ctx, objects...); err != nil {
		return err
	}
	r.cleanup = append(r.cleanup, func(ctx context.Context) error { return r.cluster.Delete(ctx, objects...) })
	return nil
}

func (r *Runner) workload(ctx context.Context, w Workload) error {
	w.Node, w.Prefer, w.NodeSelector = r.words.text(w.Node), r.words.text(w.Prefer), r.words.where(w.NodeSelector)
	r.cleanup = append(r.cleanup, func(ctx context.Context) error { return r.cluster.EndWorkload(ctx, w) })
	return r.cluster.StartWorkload(ctx, w)
}

// breakIt injects a fault into each of its nodes at the same time.
func (r *Runner) breakIt(ctx context.Context, f Fault) error {
	nodes := strings.Split(r.words.text(f.Node), ",")
	broken := make(chan error, len(nodes))
	for _, node := range nodes {
		slot, err := r.slot(ctx, node, f)
		if err != nil {
			return err
		}
		if _, again := r.injected[node]; !again {
			r.injected[node] = r.tape.Since()
		}
		go func() { broken <- r.cluster.Break(ctx, node, slot, f) }()
	}
	var errs []error
	for range nodes {
		errs = append(errs, <-broken)
	}
	return errors.Join(errs...)
}

// slot finds the device to break, and remembers its name for ${device}.
func (r *Runner) slot(ctx context.Context, node string, f Fault) (int, error) {
	if f.DeviceOf != nil {
		slot, name, err := r.cluster.DeviceOf(ctx, node, *f.DeviceOf)
		r.words[varDevice] = name
		return slot, err
	}
	if f.Device == "" {
		return 0, nil
	}
	var slot int
	if _, err := fmt.Sscanf(r.words.text(f.Device), "%d", &slot); err != nil {
		return 0, fmt.Errorf("device %q is no slot: %w", f.Device, err)
	}
	return slot, nil
}

func (r *Runner) roundhouse(ctx context.Context, args []string) error {
	put := make([]string, len(args))
	for i := range args {
		put[i] = r.words.text(args[i])
	}
	if out, err := r.cluster.Roundhouse(ctx, put...); err != nil {
		return fmt.Errorf("kubectl roundhouse %s: %w: %s", strings.Join(put, " "), err, out)
	}
	return nil
}

// known takes an outcome into the report and tells it.
func (r *Runner) known(o Outcome) {
	r.report.Expectations = append(r.report.Expectations, o)
	r.voice.say(func(n Narrator) { n.Outcome(o) })
}

// skip reports the expectations of the steps from i on, and the final ones, as not seen.
func (r *Runner) skip(from int, why string) {
	add := func(part string, e Expect) {
		r.report.Expectations = append(r.report.Expectations, Outcome{Name: r.words.text(e.Name), Part: part, Why: why, At: seconds(r.tape.Since())})
	}
	for i := from; i < len(r.scenario.Steps); i++ {
		if e := r.scenario.Steps[i].Expect; e != nil {
			add(fmt.Sprintf("step %d", i+1), *e)
		}
	}
	for _, e := range r.scenario.Finally {
		add("finally", e)
	}
}

// finally looks at what must be true at the end. Facts are counted over the whole scenario.
func (r *Runner) finally(ctx context.Context) error {
	for _, e := range r.scenario.Finally {
		e := r.words.expect(e)
		if e.Within == 0 {
			e.Within = Duration(time.Second)
		}
		o, err := await(ctx, r.tape, &e, 0, cursors{})
		o.Part = "finally"
		r.known(o)
		if err != nil {
			return err
		}
	}
	return nil
}

// clean deletes what was applied, the last first.
func (r *Runner) clean(ctx context.Context) error {
	if r.scenario.Leave {
		return nil
	}
	var errs []error
	for _, f := range slices.Backward(r.cleanup) {
		errs = append(errs, f(ctx))
	}
	return errors.Join(errs...)
}

// conclude fills in the report and tells that it is over.
func (r *Runner) conclude() {
	var facts []Fact
	r.tape.View(func(f []Fact, _ *World) {
		facts = slices.Clone(f)
		for _, g := range r.guards {
			r.report.Expectations = append(r.report.Expectations, g.outcome(r.tape.Since()))
		}
	})
	r.report.Seconds = seconds(r.tape.Since())
	r.report.Nodes = times(facts, r.injected)
	r.report.sum(facts)
	if r.narrator != nil {
		for _, o := range r.report.Expectations {
			if o.Part == "never" {
				r.narrator.Outcome(o)
			}
		}
		r.narrator.Ended(r.report)
	}
}
