package drain

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func step(after time.Duration, by v1alpha1.DrainBy, grace time.Duration) v1alpha1.DrainEscalation {
	s := v1alpha1.DrainEscalation{After: metav1.Duration{Duration: after}, By: by}
	if grace > 0 {
		s.GracePeriod = &metav1.Duration{Duration: grace}
	}
	return s
}

var (
	hurryStep  = step(10*time.Minute, v1alpha1.DrainByEvict, time.Minute)
	deleteStep = step(30*time.Minute, v1alpha1.DrainByDelete, 2*time.Minute)
	forceStep  = step(45*time.Minute, v1alpha1.DrainByForceDelete, 0)
)

func TestStepsOfADrainAddUp(t *testing.T) {
	all := []v1alpha1.DrainEscalation{forceStep, deleteStep, hurryStep}
	tests := map[string]struct {
		steps  []v1alpha1.DrainEscalation
		lasted time.Duration
		want   Means
		next   *v1alpha1.DrainEscalation
	}{
		"without steps it only evicts":                      {nil, 10 * time.Hour, Means{By: v1alpha1.DrainByEvict}, nil},
		"before the first it evicts":                        {all, 10*time.Minute - 1, Means{By: v1alpha1.DrainByEvict}, &hurryStep},
		"the first step counts from its moment on":          {all, 10 * time.Minute, Means{v1alpha1.DrainByEvict, time.Minute, -time.Minute}, &deleteStep},
		"a shorter grace than the step's stays":             {all, 30 * time.Minute, Means{v1alpha1.DrainByDelete, time.Minute, 19 * time.Minute}, &forceStep},
		"the last has none behind it":                       {all, time.Hour, Means{v1alpha1.DrainByForceDelete, time.Minute, 49 * time.Minute}, nil},
		"a step back to kinder means changes nothing":       {[]v1alpha1.DrainEscalation{step(0, v1alpha1.DrainByDelete, 0), step(1, v1alpha1.DrainByEvict, 0)}, time.Hour, Means{By: v1alpha1.DrainByDelete}, nil},
		"a step at once is taken at once":                   {[]v1alpha1.DrainEscalation{step(0, v1alpha1.DrainByDelete, 0)}, 0, Means{By: v1alpha1.DrainByDelete}, nil},
		"a clock that went back is a drain that just began": {all, -time.Hour, Means{By: v1alpha1.DrainByEvict}, &hurryStep},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, next := MeansAfter(tc.lasted, tc.steps)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("means (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.next, next); diff != "" {
				t.Errorf("next (-want +got):\n%s", diff)
			}
		})
	}
}

// A drain never becomes kinder as it lasts, whatever order its steps are written in.
func TestADrainOnlyEscalates(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		steps := []v1alpha1.DrainEscalation{hurryStep, deleteStep, forceStep}
		for i := range steps {
			steps[i].After.Duration = time.Duration(r.IntN(60)) * time.Minute
		}
		r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		before := Means{}
		for lasted := range 61 {
			got, next := MeansAfter(time.Duration(lasted)*time.Minute, steps)
			if meansRank(got.By) < meansRank(before.By) || (before.Grace > 0 && (got.Grace == 0 || got.Grace > before.Grace)) {
				t.Fatalf("after %d minutes %+v follows %+v, of %+v", lasted, got, before, steps)
			}
			if next != nil && next.After.Duration <= time.Duration(lasted)*time.Minute {
				t.Fatalf("after %d minutes the next step is at %s", lasted, next.After.Duration)
			}
			before = got
		}
	}
}

func grace(seconds int64) change {
	return func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = ptr.To(seconds) }
}

// leaving is a pod that was asked to go so long ago, with so long to end.
func leaving(ago time.Duration, seconds int64) change {
	return func(p *corev1.Pod) {
		p.DeletionTimestamp = &metav1.Time{Time: now.Add(-ago).Add(time.Duration(seconds) * time.Second)}
		p.DeletionGracePeriodSeconds = ptr.To(seconds)
	}
}

func TestHowLongAPodIsGivenToEnd(t *testing.T) {
	tests := map[string]struct {
		means Means
		pod   corev1.Pod
		want  time.Duration
	}{
		"its own where nothing bounds it":                 {Means{}, pod("a", "Job", grace(600)), 0},
		"the bound where its own is longer":               {Means{Grace: time.Minute}, pod("a", "Job", grace(600)), time.Minute},
		"its own where that is shorter":                   {Means{Grace: time.Minute}, pod("a", "Job", grace(59)), 0},
		"its own where that is the same":                  {Means{Grace: time.Minute}, pod("a", "Job", grace(60)), 0},
		"the server's default is 30s":                     {Means{Grace: 29 * time.Second}, pod("a", "Job"), 29 * time.Second},
		"whole seconds, and never none":                   {Means{Grace: 1900 * time.Millisecond}, pod("a", "Job"), time.Second},
		"one that is going has what it was given":         {Means{Grace: time.Minute}, pod("a", "Job", grace(30), leaving(time.Second, 600)), time.Minute},
		"but not before it has had the whole bound":       {Means{Grace: time.Minute, Late: -1}, pod("a", "Job", grace(30), leaving(time.Second, 600)), 0},
		"one that nobody has asked has it from now on":    {Means{Grace: time.Minute, Late: -1}, pod("a", "Job", grace(600)), time.Minute},
		"one that is going soon enough is not hurried":    {Means{Grace: time.Minute}, pod("a", "Job", grace(600), leaving(time.Second, 60)), 0},
		"one that was forced already has nothing to lose": {Means{Grace: time.Minute}, pod("a", "Job", grace(600), leaving(time.Second, 0)), 0},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tc.means.Shorter(&tc.pod); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestWhoIsHurried(t *testing.T) {
	force := Means{By: v1alpha1.DrainByForceDelete}
	tests := map[string]struct {
		means Means
		pod   corev1.Pod
		want  bool
	}{
		"nobody, while a drain only evicts":                          {Means{By: v1alpha1.DrainByEvict}, pod("a", "Job", leaving(time.Hour, 30)), false},
		"nobody, while a drain deletes without a bound":              {Means{By: v1alpha1.DrainByDelete}, pod("a", "Job", leaving(time.Hour, 30)), false},
		"one with longer to end than the bound":                      {Means{Grace: time.Minute}, pod("a", "Job", leaving(time.Minute, 600)), true},
		"not one that only a human stops: it has the human's time":   {Means{Grace: time.Minute}, pod("a", "", leaving(time.Minute, 600)), false},
		"by force, one that has outlasted its grace":                 {force, pod("a", "Job", leaving(61*time.Second, 30)), true},
		"by force, also one that a human has stopped and that hangs": {force, pod("a", "", leaving(61*time.Second, 30)), true},
		"not by force, one that still has time":                      {force, pod("a", "Job", leaving(29*time.Second, 30)), false},
		"nor one whose kubelet may be about to report":               {force, pod("a", "Job", leaving(60*time.Second, 30)), false},
		"not by force, one that has been forced and has a finalizer": {force, pod("a", "Job", leaving(time.Hour, 0)), false},
		"never one of a DaemonSet":                                   {force, pod("a", "DaemonSet", leaving(time.Hour, 30)), false},
		"never one that nobody asked to go":                          {force, pod("a", "Job"), false},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := Make(Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{tc.pod}})
			got := p.Hurry(tc.means, now)
			if (len(got) == 1) != tc.want {
				t.Errorf("hurried %d, want %t", len(got), tc.want)
			}
		})
	}
	plan := Make(Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{
		pod("b", "Job", leaving(time.Hour, 30)), pod("a", "Job", leaving(time.Hour, 30)), pod("c", "Job")}})
	var names []string
	for _, m := range plan.Hurry(force, now) {
		names = append(names, m.Pod.Name)
	}
	if !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("hurried %v", names)
	}
}

// What a drain would leave alone it does not hurry either, though it waits for it.
func TestWhatTheDrainWouldLeaveIsNotHurried(t *testing.T) {
	own := pod("own", "Job", labelled(v1alpha1.LabelRemediation, "r"), leaving(time.Hour, 30))
	own.Namespace, own.OwnerReferences[0].APIVersion = "home", "batch/v1"
	in := Input{Now: now, Scope: ScopeDevice, BadDevices: []string{"GPU-1"}, Incident: "r", Home: "home",
		Pods: []corev1.Pod{pod("bad", "Job", leaving(time.Hour, 30)), pod("both", "Job", leaving(time.Hour, 30)), pod("untold", "Job", leaving(time.Hour, 30)), own}}
	in.Holding = map[types.UID][]string{"bad": {"GPU-1"}, "both": {"GPU-1", "GPU-2"}, "own": {"GPU-1"}}
	in.Untold = map[types.UID]bool{"untold": true}
	names := func(in Input) (out []string) {
		for _, m := range Make(in).Hurry(Means{By: v1alpha1.DrainByForceDelete}, now) {
			out = append(out, m.Pod.Name)
		}
		return out
	}
	if got := names(in); !slices.Equal(got, []string{"bad"}) {
		t.Errorf("of the device: %v", got)
	}
	if n := len(Make(in).Terminating); n != 4 {
		t.Errorf("waits for %d, want all four", n)
	}
	in.Whole = true
	if got := names(in); !slices.Equal(got, []string{"bad", "both", "untold"}) {
		t.Errorf("of the whole device: %v", got)
	}
}

func TestWhatIsForcedIsWaitedForNoLonger(t *testing.T) {
	kept := func(p *corev1.Pod) { p.Finalizers = []string{"batch.kubernetes.io/job-tracking"} }
	for name, tt := range map[string]struct {
		pod  corev1.Pod
		left int
	}{
		"a finalizer keeps its object":                    {pod("a", "Job", kept, leaving(time.Second, 0)), 0},
		"it is on its way out by itself":                  {pod("a", "Job", leaving(time.Second, 0)), 1},
		"it has its time still, and a finalizer":          {pod("a", "Job", kept, leaving(time.Second, 30)), 1},
		"it has outlasted its time, and nobody forced it": {pod("a", "Job", kept, leaving(time.Hour, 30)), 1},
	} {
		t.Run(name, func(t *testing.T) {
			p := Make(Input{Now: now, Scope: ScopeNode, Pods: []corev1.Pod{tt.pod}}).WithoutForced(now)
			if len(p.Terminating) != tt.left || p.Empty() != (tt.left == 0) {
				t.Errorf("%d left", len(p.Terminating))
			}
		})
	}
}
