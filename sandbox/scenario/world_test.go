package scenario

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// clock is a tape's clock that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time          { return c.at }
func (c *clock) forward(d time.Duration) { c.at = c.at.Add(d) }

func newTestTape(follow func(Fact)) (*Tape, *clock) {
	c := &clock{at: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)}
	return NewTape(c.at, c.now, follow), c
}

// pod builds a version of a pod.
type podChange func(*corev1.Pod)

func pod(uid, node string, changes ...podChange) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "infer-" + uid, UID: types.UID(uid), Labels: map[string]string{"app": "infer"}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
	for _, c := range changes {
		c(p)
	}
	return p
}

func phase(ph corev1.PodPhase) podChange { return func(p *corev1.Pod) { p.Status.Phase = ph } }

func going(p *corev1.Pod) {
	p.DeletionTimestamp = &metav1.Time{Time: time.Date(2026, 11, 23, 10, 0, 1, 0, time.UTC)}
}

func evicted(p *corev1.Pod) {
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI"})
}

func added(o metav1.Object) Change    { return Change{Type: watch.Added, Object: o} }
func modified(o metav1.Object) Change { return Change{Type: watch.Modified, Object: o} }
func deleted(o metav1.Object) Change  { return Change{Type: watch.Deleted, Object: o} }
func initial(o metav1.Object) Change  { return Change{Type: watch.Added, Object: o, Initial: true} }

// lines are facts as text, so that a test reads as what happened.
func lines(facts []Fact) []string {
	var out []string
	for _, f := range facts {
		out = append(out, f.String())
	}
	return out
}

func play(changes ...Change) []string {
	tape, _ := newTestTape(nil)
	for _, c := range changes {
		tape.Record(c)
	}
	return lines(tape.Facts(0))
}

func TestWhatBecomesOfPods(t *testing.T) {
	for name, test := range map[string]struct {
		changes []Change
		want    []string
	}{
		"a pod that was there before the scenario is no fact": {
			changes: []Change{initial(pod("a", "gpu-01"))},
		},
		"a pod evicted and replaced elsewhere": {
			changes: []Change{
				initial(pod("a", "gpu-01")),
				modified(pod("a", "gpu-01", evicted)),
				modified(pod("a", "gpu-01", evicted, going)),
				added(pod("b", "", phase(corev1.PodPending))),
				modified(pod("b", "gpu-02", phase(corev1.PodPending))),
				deleted(pod("a", "gpu-01", evicted, going)),
				modified(pod("b", "gpu-02")),
			},
			want: []string{
				"eviction node=gpu-01 pod=ml/infer-a uid=a app=infer namespace=ml by=EvictionByEvictionAPI left=0",
				"placed node=gpu-02 pod=ml/infer-b uid=b app=infer namespace=ml",
				"running node=gpu-02 pod=ml/infer-b uid=b app=infer namespace=ml",
			},
		},
		"a pod moved by mistake and put back on the same node is seen to have been moved": {
			changes: []Change{
				initial(pod("a", "gpu-01")), initial(pod("z", "gpu-03")),
				modified(pod("a", "gpu-01", going)),
				deleted(pod("a", "gpu-01", going)),
				added(pod("b", "gpu-01")),
			},
			want: []string{
				"eviction node=gpu-01 pod=ml/infer-a uid=a app=infer namespace=ml by=Deleted left=1",
				"placed node=gpu-01 pod=ml/infer-b uid=b app=infer namespace=ml",
				"running node=gpu-01 pod=ml/infer-b uid=b app=infer namespace=ml",
			},
		},
		"a pod that is gone without notice was evicted too": {
			changes: []Change{initial(pod("a", "gpu-01")), deleted(pod("a", "gpu-01"))},
			want:    []string{"eviction node=gpu-01 pod=ml/infer-a uid=a app=infer namespace=ml by=Deleted left=0"},
		},
		"a pod that finished and is then deleted was disturbed by nobody": {
			changes: []Change{
				initial(pod("a", "gpu-01")),
				modified(pod("a", "gpu-01", phase(corev1.PodSucceeded))),
				modified(pod("a", "gpu-01", phase(corev1.PodSucceeded), going)),
				deleted(pod("a", "gpu-01", phase(corev1.PodSucceeded), going)),
			},
			want: []string{"finished node=gpu-01 pod=ml/infer-a uid=a app=infer namespace=ml"},
		},
		"a pod that ends badly while it goes was told to go once": {
			changes: []Change{
				initial(pod("a", "gpu-01")),
				modified(pod("a", "gpu-01", going)),
				modified(pod("a", "gpu-01", going, phase(corev1.PodFailed))),
				deleted(pod("a", "gpu-01", going, phase(corev1.PodFailed))),
			},
			want: []string{"eviction node=gpu-01 pod=ml/infer-a uid=a app=infer namespace=ml by=Deleted left=0"},
		},
		"a pod that fails by itself was disturbed": {
			changes: []Change{initial(pod("a", "gpu-01")), modified(pod("a", "gpu-01", phase(corev1.PodFailed)))},
			want:    []string{"eviction node=gpu-01 pod=ml/infer-a uid=a app=infer namespace=ml by=Failed left=0"},
		},
		"a pod that was never placed is told to go without anything being lost": {
			changes: []Change{
				added(pod("a", "", phase(corev1.PodPending))),
				deleted(pod("a", "", phase(corev1.PodPending))),
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, play(test.changes...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func node(changes ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-01"}}
	for _, c := range changes {
		c(n)
	}
	return n
}

func tainted(n *corev1.Node) {
	n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: "gpu-01-x", Effect: corev1.TaintEffectNoSchedule})
}

func claimed(n *corev1.Node) {
	n.Annotations = map[string]string{v1alpha1.AnnotationClaim: "gpu-01-x/uid"}
}

func owned(manager, fields string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.ManagedFields = append(n.ManagedFields, metav1.ManagedFieldsEntry{Manager: manager, FieldsV1: metav1.NewFieldsV1(fields)})
	}
}

func TestWhatBecomesOfNodes(t *testing.T) {
	const condition = `{"f:status":{"f:conditions":{"k:{\"type\":\"RoundhouseReporting\"}":{".":{},"f:status":{}}}}}`
	const taints = `{"f:spec":{"f:taints":{}}}`
	for name, test := range map[string]struct {
		changes []Change
		want    []string
	}{
		"taint and claim are put on and taken off": {
			changes: []Change{initial(node()), modified(node(tainted, claimed)), modified(node())},
			want: []string{
				"quarantine name=gpu-01-x node=gpu-01 how=NodeTaint state=on", "claim node=gpu-01 state=on by=gpu-01-x/uid",
				"quarantine name=gpu-01-x node=gpu-01 how=NodeTaint state=off", "claim node=gpu-01 state=off by=gpu-01-x/uid",
			},
		},
		"our own condition on a Node is not a touch": {
			changes: []Change{initial(node()), modified(node(owned("roundhouse-controller-1", condition)))},
		},
		"a field of the Node's that the controller wrote is a touch, once": {
			changes: []Change{
				initial(node()), modified(node(owned("roundhouse-controller-1", taints))), modified(node(owned("roundhouse-controller-1", taints))),
			},
			want: []string{"touched node=gpu-01 object=node/gpu-01 by=roundhouse-controller-1 field=.f:spec.f:taints"},
		},
		"others may write what they like": {
			changes: []Change{initial(node()), modified(node(owned("kubelet", taints)))},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, play(test.changes...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func nodeHealth(changes ...func(*v1alpha1.NodeHealth)) *v1alpha1.NodeHealth {
	h := &v1alpha1.NodeHealth{ObjectMeta: metav1.ObjectMeta{Name: "gpu-01"}, Status: v1alpha1.NodeHealthStatus{BootID: "boot-1", Summary: v1alpha1.SummaryHealthy}}
	for _, c := range changes {
		c(h)
	}
	return h
}

func TestWhatBecomesOfANodesHealth(t *testing.T) {
	asked := func(h *v1alpha1.NodeHealth) { h.Spec.Action = &v1alpha1.Action{ID: "x-1", Type: v1alpha1.ActionReboot} }
	booted := func(h *v1alpha1.NodeHealth) {
		h.Status.BootID = "boot-2"
		h.Status.Boots = []v1alpha1.Boot{{ID: "boot-2", Cause: v1alpha1.BootByRoundhouse}}
	}
	faulty := func(h *v1alpha1.NodeHealth) {
		h.Status.Summary = v1alpha1.SummaryFaulty
		h.Status.Devices = []v1alpha1.Device{{ID: "GPU-3", Slot: "3"}}
		h.Status.Faults = []v1alpha1.Fault{{Code: "Xid79", Device: "GPU-3", Class: v1alpha1.ClassHardware, Check: "kernel-log"}}
	}
	for name, test := range map[string]struct {
		changes []Change
		want    []string
	}{
		"a fault comes and goes": {
			changes: []Change{initial(nodeHealth()), modified(nodeHealth(faulty)), modified(nodeHealth())},
			want: []string{
				"published node=gpu-01", "fault node=gpu-01 code=Xid79 device=GPU-3 slot=3 class=Hardware check=kernel-log state=reported", "health node=gpu-01 summary=Faulty",
				"published node=gpu-01", "fault node=gpu-01 code=Xid79 device=GPU-3 class=Hardware check=kernel-log state=cleared", "health node=gpu-01 summary=Healthy",
			},
		},
		"an action is asked for, and the node boots": {
			changes: []Change{initial(nodeHealth()), modified(nodeHealth(asked)), modified(nodeHealth(asked, booted))},
			want: []string{
				"action node=gpu-01 type=Reboot id=x-1 state=Asked", "published node=gpu-01", "reboot node=gpu-01 boot=boot-2 cause=Roundhouse",
			},
		},
		"what was asked for is taken back": {
			changes: []Change{initial(nodeHealth(asked)), modified(nodeHealth())},
			want:    []string{"action node=gpu-01 type=Reboot id=x-1 state=Withdrawn"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, play(test.changes...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func rule(name string) *resourcev1.DeviceTaintRule {
	return &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelRemediation: "gpu-01-x"}},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Pool: ptr.To("gpu-01"), Device: ptr.To("gpu-3")},
			Taint:          resourcev1.DeviceTaint{Key: v1alpha1.DeviceTaintQuarantined},
		},
	}
}

func TestLeftoversAreNamed(t *testing.T) {
	asked := func(h *v1alpha1.NodeHealth) { h.Spec.Action = &v1alpha1.Action{ID: "x-1"} }
	answered := func(h *v1alpha1.NodeHealth) {
		h.Status.Action = &v1alpha1.ActionStatus{ID: "x-1", State: v1alpha1.ActionDone}
	}
	budget := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "fleet"},
		Status: v1alpha1.NodeDisruptionBudgetStatus{Reservations: []v1alpha1.Reservation{{Node: "gpu-01", Remediation: "gpu-01-x"}}}}
	for name, test := range map[string]struct {
		changes []Change
		where   map[string]string
		want    int
	}{
		"nothing":                           {changes: []Change{initial(node())}},
		"a node's taint and claim":          {changes: []Change{initial(node(tainted, claimed))}, want: 2},
		"a device's rule":                   {changes: []Change{initial(rule("r"))}, want: 1},
		"a rule that was taken off again":   {changes: []Change{initial(rule("r")), deleted(rule("r"))}},
		"a budget's slot":                   {changes: []Change{initial(budget)}, want: 1},
		"an action nobody answered":         {changes: []Change{initial(nodeHealth(asked))}, want: 1},
		"an action that is over is history": {changes: []Change{initial(nodeHealth(asked, answered))}},
		"what is on another node":           {changes: []Change{initial(node(tainted)), initial(rule("r"))}, where: map[string]string{"node": "gpu-02"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWorld()
			for _, c := range test.changes {
				w.Observe(c)
			}
			if got, text := w.Count(State{Kind: StateLeftovers, Where: test.where}); got != test.want {
				t.Errorf("got %d (%s), want %d", got, text, test.want)
			}
		})
	}
}

func TestWhatAKubeletOffers(t *testing.T) {
	node := func(allocatable, capacity string) *corev1.Node {
		of := func(n string) corev1.ResourceList {
			return corev1.ResourceList{"nvidia.com/gpu": resource.MustParse(n), corev1.ResourcePods: resource.MustParse(n)}
		}
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-17"}, Status: corev1.NodeStatus{Allocatable: of(allocatable), Capacity: of(capacity)}}
	}
	for name, test := range map[string]struct {
		changes []Change
		want    []string
	}{
		"a node that comes is no change": {changes: []Change{added(node("8", "8"))}},
		"one device fewer, and it comes back": {
			changes: []Change{initial(node("8", "8")), modified(node("7", "8")), modified(node("7", "8")), modified(node("8", "8"))},
			want:    []string{"offered node=gpu-17 resource=nvidia.com/gpu count=7 of=8", "offered node=gpu-17 resource=nvidia.com/gpu count=8 of=8"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, play(test.changes...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestADeviceThatJoinsAnIncidentIsAFact(t *testing.T) {
	incident := func(devices ...string) *v1alpha1.Remediation {
		return &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: v1alpha1.RemediationSpec{Node: "gpu-17", Devices: devices}}
	}
	got := play(added(incident("a")), modified(incident("a")), modified(incident("a", "b")))
	want := []string{"remediation name=r node=gpu-17 attempts=0 devices=1 opened=yes", "remediation name=r node=gpu-17 attempts=0 devices=2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
