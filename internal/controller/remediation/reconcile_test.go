package remediation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

func TestADeviceThatIsNotOfferedAnyMoreIsRepaired(t *testing.T) {
	dropped := aNode()
	dropped.Status.Capacity = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("2")}
	dropped.Status.Allocatable = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("1")}
	slice := pool(2, "GPU-1")
	for name, objects := range map[string][]client.Object{
		"its plugin has dropped it":             {dropped, aPolicy(), aHealth(aFault("Xid79", bad)), aBudget("a", "a")},
		"its ResourceSlice does not list it":    {aNode(), aPolicy(), aHealth(aFault("Xid79", bad)), aBudget("a", "a"), &slice},
		"it is offered, and a rule goes before": faulty(aFault("Xid79", bad)),
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, objects...)
			c.turns(2, time.Minute)
			if st := c.incident().Status; st.Phase != v1alpha1.PhaseRepairing || c.health().Spec.Action == nil {
				t.Errorf("%s, %s: %s; asked %v", st.Phase, st.Reason, st.Message, c.health().Spec.Action)
			}
		})
	}
}

// What a Reconcile put on just before it failed may not be in the cache when the incident ends; nothing is listed then
// where the device was not offered.
func TestAnIncidentEndsOnANodeThatWasReadLive(t *testing.T) {
	slice := pool(2, "GPU-1")
	c := newCluster(t, aNode(), aPolicy(), aHealth(aFault("Xid79", bad)), aBudget("a", "a"), &slice)
	before := c.node()
	var budgets v1alpha1.NodeDisruptionBudgetList
	c.must(c.server.List(t.Context(), &budgets))
	c.refuse = func(_ string, o client.Object) error {
		if rem, ok := o.(*v1alpha1.Remediation); ok && rem.Status.Phase == v1alpha1.PhaseDraining {
			return apierrors.NewTimeoutError("try again", 1)
		}
		return nil
	}
	if _, err := c.turn(); err == nil || c.node().Annotations[v1alpha1.AnnotationClaim] == "" {
		t.Fatalf("to begin with, the node is claimed and the status is not written: %v", err)
	}
	c.refuse = nil
	c.cancel()
	c.oldNode, c.oldBudgets = before, budgets.Items
	c.turns(1, 0)
	c.oldNode, c.oldBudgets = nil, nil
	c.turns(2, time.Minute)
	if rem := c.incident(); rem.Status.Phase != v1alpha1.PhaseCancelled || len(rem.Finalizers) > 0 {
		t.Errorf("%s, finalizers %v", rem.Status.Phase, rem.Finalizers)
	}
	if node := c.node(); len(node.Annotations) > 0 || len(node.Spec.Taints) > 0 {
		t.Errorf("left on the node: %v %v", node.Annotations, node.Spec.Taints)
	}
}

func TestACancelTakesBackWhatTheCacheDoesNotShow(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	before := c.health()
	c.turns(1, 0)
	if c.health().Spec.Action == nil {
		t.Fatal("to begin with, the agent is asked")
	}
	c.cancel()
	c.oldHealth = before
	c.turns(1, 0)
	rem, spec := c.incident(), c.health().Spec
	if rem.Status.Phase != v1alpha1.PhaseCancelled || spec.Action != nil || spec.Fence != 2 {
		t.Errorf("%s, fence %d, and the agent is still asked for %v", rem.Status.Phase, spec.Fence, spec.Action)
	}
	if node := c.node(); len(node.Annotations) > 0 || len(node.Spec.Taints) > 0 || len(c.rules()) > 0 || c.slots() > 0 {
		t.Errorf("left: %v %v, rules %v, %d slots", node.Annotations, node.Spec.Taints, c.rules(), c.slots())
	}
}

func TestACancelIsNotHeldUpByANodeHealthThatIsGone(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.turns(1, 0)
	c.must(c.server.Delete(t.Context(), c.health()))
	c.cancel()
	c.turns(1, 0)
	if phase := c.incident().Status.Phase; phase != v1alpha1.PhaseCancelled {
		t.Errorf("%s", phase)
	}
}

func TestRulesFollowTheirDevices(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*cluster)
		on     string
	}{
		"the names have shifted": {func(c *cluster) {
			slice := &resourcev1.ResourceSlice{}
			c.read("n-slice", slice)
			slice.Spec = pool(2, "GPU-1", bad).Spec
			c.must(c.server.Update(c.t.Context(), slice))
		}, "gpu-1"},
		"somebody has deleted the rule": {func(c *cluster) {
			c.must(c.server.DeleteAllOf(c.t.Context(), &resourcev1.DeviceTaintRule{}))
		}, "gpu-0"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(aFault("Xid79", bad))...)
			c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeQuarantine })
			c.turns(1, time.Minute)
			tc.change(c)
			before := len(c.done)
			if c.turns(1, 0); len(c.done) != before {
				t.Errorf("nothing calls for a look yet: %v", c.done[before:])
			}
			h := c.health()
			h.Status.BootID = "b2"
			c.must(c.server.Status().Update(t.Context(), h))
			c.turns(1, 0)
			q := c.incident().Status.Quarantined
			if on := c.rules(); !slices.Equal(on, []string{tc.on}) || len(q) != 1 || q[0].Device != tc.on {
				t.Errorf("on %v, want %s; listed %v", on, tc.on, q)
			}
			before = len(c.done)
			if c.turns(1, 0); len(c.done) != before {
				t.Errorf("it was looked at a moment ago: %v", c.done[before:])
			}
			c.restart()
			if c.turns(2, 0); c.count("list DeviceTaintRuleList") != 2 {
				t.Errorf("a controller that knows nothing looks once: %v", c.done[before:])
			}
		})
	}
}

// A budget may be edited, deleted or made anew while its slot is held: nothing is asked for without a slot of each that
// selects the node now.
func TestASlotThatIsLostIsTakenAnew(t *testing.T) {
	for name, tc := range map[string]struct {
		taken bool
		want  v1alpha1.Phase
	}{
		"the other budget has a slot": {false, v1alpha1.PhaseRepairing},
		"the other budget has none":   {true, v1alpha1.PhasePending},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "x", UID: "x"}, Spec: corev1.PodSpec{NodeName: "n"},
				Status: corev1.PodStatus{Phase: corev1.PodRunning}}
			c := newCluster(t, append(faulty(aFault("Xid79", bad)), pod)...)
			c.turns(1, 0)
			if phase := c.incident().Status.Phase; phase != v1alpha1.PhaseDraining {
				t.Fatalf("to begin with, the pod is waited for: %s", phase)
			}
			other := aBudget("b", "a")
			if tc.taken {
				other.Status.Reservations = []v1alpha1.Reservation{{Node: "m", NodeUID: "m", Remediation: "other", RemediationUID: "other"}}
			}
			status := other.Status
			c.must(c.server.Create(t.Context(), other))
			other.Status = status
			other.Status.RebuiltFor = string(other.UID)
			c.must(c.server.Status().Update(t.Context(), other))
			c.must(c.server.Delete(t.Context(), pod))
			before := len(c.done)
			c.turns(2, time.Second)
			rem := c.incident()
			if rem.Status.Phase != tc.want || (c.health().Spec.Action != nil) != (tc.want == v1alpha1.PhaseRepairing) {
				t.Errorf("%s, %s: %s; asked %v", rem.Status.Phase, rem.Status.Reason, rem.Status.Message, c.health().Spec.Action)
			}
			for _, a := range rem.Status.Attempts {
				if a.Result != v1alpha1.AttemptWithdrawn {
					t.Errorf("nothing was tried, yet an attempt is %s", a.Result)
				}
			}
			if n := len(c.done) - before; n > 40 {
				t.Errorf("%d requests: %v", n, c.done[before:])
			}
		})
	}
}

// Kubernetes 1.34 to 1.36 have ResourceSlices and no DeviceTaintRules in resource.k8s.io/v1.
func TestWithoutRulesTheNodeIsKeptOut(t *testing.T) {
	for name, refusal := range map[string]error{
		"the server does not know the path": apierrors.NewNotFound(schema.GroupResource{Group: "resource.k8s.io", Resource: "devicetaintrules"}, ""),
		"discovery does not list the kind":  &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "resource.k8s.io", Kind: "DeviceTaintRule"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(aFault("Xid79", bad))...)
			c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeQuarantine })
			c.refuse = func(_ string, o client.Object) error {
				if _, ok := o.(*resourcev1.DeviceTaintRule); ok {
					return refusal
				}
				return nil
			}
			c.turns(2, time.Minute)
			rem := c.incident()
			says := slices.ContainsFunc(rem.Status.Timeline, func(e v1alpha1.TimelineEntry) bool {
				return strings.Contains(e.Message, "has no DeviceTaintRules")
			})
			if taints := c.node().Spec.Taints; len(taints) != 1 || rem.Status.Phase != v1alpha1.PhaseQuarantined || !says {
				t.Errorf("%s, taints %v, timeline %v", rem.Status.Phase, taints, rem.Status.Timeline)
			}
			c.faults()
			c.turns(2, time.Minute)
			if taints := c.node().Spec.Taints; len(taints) > 0 {
				t.Errorf("taints are left: %v", taints)
			}
		})
	}
}

func TestAnIncidentThatIsOverIsFollowedByAnother(t *testing.T) {
	respond := func(c *cluster, how v1alpha1.Response) {
		c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Rules[0].Response = how })
		c.turns(2, time.Minute)
	}
	for name, tc := range map[string]struct {
		meanwhile func(*cluster)
		behind    bool // the cache shows no incident.
		want      int
		out       bool
	}{
		"the policy moves on, and back": {func(c *cluster) { respond(c, v1alpha1.ResponseIgnore); respond(c, v1alpha1.ResponseQuarantine) }, false, 2, true},
		"the same, three times over": {func(c *cluster) {
			for range 3 {
				respond(c, v1alpha1.ResponseIgnore)
				respond(c, v1alpha1.ResponseQuarantine)
			}
		}, false, 4, true},
		"the fault goes, and is there again as it was": {func(c *cluster) { c.faults(); c.turns(2, time.Minute); c.faults(aFault("Xid79", bad)) }, false, 2, true},
		"the same, and the cache is behind":            {func(c *cluster) { c.faults(); c.turns(2, time.Minute); c.faults(aFault("Xid79", bad)) }, true, 2, true},
		"a human cancels":                              {func(c *cluster) { c.cancel(); c.turns(2, time.Minute) }, false, 1, false},
		"a human cancels, and the cache is behind":     {func(c *cluster) { c.cancel(); c.turns(2, time.Minute) }, true, 1, false},
		"the fault has gone, and the cache shows it still": {func(c *cluster) {
			before := c.health()
			c.faults()
			c.turns(2, time.Minute)
			c.oldHealth = before
		}, false, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(aFault("Xid79", bad))...)
			c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Rules[0].Response = v1alpha1.ResponseQuarantine })
			c.turns(2, time.Minute)
			tc.meanwhile(c)
			c.noIncidents = tc.behind
			c.turns(2, time.Minute)
			if n, out := len(c.incidents()), len(c.rules()) == 1; n != tc.want || out != tc.out {
				t.Errorf("%d incidents, want %d; kept out %v, want %v", n, tc.want, out, tc.out)
			}
		})
	}
}

func TestANodeHasOneIncidentThoughTheCacheIsBehind(t *testing.T) {
	for name, between := range map[string]func(*cluster){
		"the same controller": func(*cluster) {},
		"a new leader":        func(c *cluster) { c.restart() },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(aFault("Xid45", bad))...)
			c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeQuarantine })
			c.turns(1, time.Minute)
			c.faults(aFault("Xid79", "GPU-1"), aFault("Xid45", bad))
			between(c)
			c.noIncidents = true
			c.turns(2, 0)
			c.noIncidents = false
			c.turns(2, time.Minute)
			if devices := c.incident().Spec.Devices; len(devices) != 2 {
				t.Errorf("the second fault has not joined: %v", devices)
			}
		})
	}
}

func TestTwoIncidentsOfOneSecondAreTakenInOneOrder(t *testing.T) {
	a, b := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "b"}}
	if !before(a, b) || before(b, a) {
		t.Error("the order depends on which is seen first")
	}
}

// What a bad device waits for is counted: an incident, a look where it is, and a rule on it.
func TestThreeRequestsKeepABadDeviceOut(t *testing.T) {
	c := newCluster(t, aNode(), aPolicy(), aHealth(), aBudget("a", "a"))
	slice := pool(1, bad, "GPU-1")
	c.must(c.server.Create(t.Context(), &slice))
	c.turns(1, time.Minute)
	c.faults(aFault("Xid79", bad))
	c.done = nil
	c.turns(1, 0)
	want := []string{"list ResourceSliceList", "create Remediation", "create DeviceTaintRule"}
	if diff := cmp.Diff(want, c.done[:min(3, len(c.done))]); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// The API server's cache may go on for a while to tell of names that have shifted: a current look is not thrown away for it.
func TestAGoodDeviceIsTaintedOnceAtMost(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.Live = interceptor.NewClient(c.server, interceptor.Funcs{
		List: func(ctx context.Context, api client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			slices, ok := list.(*resourcev1.ResourceSliceList)
			if !ok {
				return api.List(ctx, list, opts...)
			}
			o := client.ListOptions{}
			o.ApplyOptions(opts)
			slices.Items = []resourcev1.ResourceSlice{pool(2, "GPU-1", bad)}
			if o.Raw != nil && o.Raw.ResourceVersion == "0" {
				slices.Items = []resourcev1.ResourceSlice{pool(1, bad, "GPU-1")}
			}
			return nil
		},
	})
	c.turns(1, 0)
	if n := c.count("create DeviceTaintRule"); n != 2 || !slices.Equal(c.rules(), []string{"gpu-1"}) {
		t.Errorf("%d rules were made, and are on %v", n, c.rules())
	}
}

// An incident that was removed by force leaves its rule behind, and the next of the same fault has its name, and so the rule.
func TestARuleThatWasLeftBehindComesOff(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeQuarantine })
	c.turns(1, time.Minute)
	rem := c.incident()
	rem.Finalizers = nil
	c.must(c.server.Update(t.Context(), rem))
	c.must(c.server.Delete(t.Context(), rem))
	c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeObserve })
	c.turns(1, time.Minute)
	if on, st := c.rules(), c.incident().Status; len(on) > 0 || len(st.Timeline) != 1 {
		t.Errorf("only observed, and rules are on %v; timeline %v", on, st.Timeline)
	}
}

func TestACancelStandsForAsLongAsItsFaultIsThere(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeQuarantine })
	c.turns(1, time.Minute)
	c.cancel()
	c.turns(1, DefaultRetention+time.Hour)
	c.turns(3, time.Minute)
	if phase := c.incident().Status.Phase; phase != v1alpha1.PhaseCancelled || len(c.rules()) > 0 {
		t.Errorf("%s, rules on %v", phase, c.rules())
	}
	other := aFault("Xid79", "GPU-1")
	c.faults(aFault("Xid79", bad), other)
	c.turns(1, time.Minute)
	if n := len(c.incidents()); n != 2 || !slices.Equal(c.rules(), []string{"gpu-1"}) {
		t.Errorf("another fault is another incident: %d, rules on %v", n, c.rules())
	}
	c.faults()
	c.turns(4, time.Minute)
	if rem := c.incident(); rem.Spec.Devices[0] != "GPU-1" {
		t.Errorf("its fault has gone, and the incident is kept: %s", rem.Name)
	}
}

func TestAnotherIncidentsClaimIsSeenInEveryPhase(t *testing.T) {
	for _, phase := range []v1alpha1.Phase{v1alpha1.PhasePending, v1alpha1.PhaseDraining, v1alpha1.PhaseRepairing} {
		node := aNode()
		node.Annotations = map[string]string{v1alpha1.AnnotationClaim: "other/uid"}
		rem := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "r", UID: "r"},
			Spec: v1alpha1.RemediationSpec{Node: "n", NodeUID: "node-uid"}, Status: v1alpha1.RemediationStatus{Phase: phase}}
		c := newCluster(t, node, aPolicy(), aHealth(), rem)
		w, err := c.begin(t.Context(), "n")
		c.must(err)
		s, err := c.gather(t.Context(), w)
		c.must(err)
		want := []decide.Claim{{By: "Remediation other", What: "its claim is on the node"}}
		if diff := cmp.Diff(want, s.Foreign); diff != "" || s.ClaimHeld {
			t.Errorf("%s: held %v (-want +got):\n%s", phase, s.ClaimHeld, diff)
		}
	}
}

// A claim that a human took off by hand a moment ago may still be in the cache.
func TestNoPodIsMovedWithoutTheClaim(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "x", UID: "x",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "x", UID: "rs", Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: "n"}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
	c := newCluster(t, append(faulty(aFault("Xid79", bad)), pod)...)
	tries := 0
	c.refuse = func(verb string, _ client.Object) error {
		if verb != "eviction" {
			return nil
		}
		tries++
		if c.node().Annotations[v1alpha1.AnnotationClaim] == "" {
			t.Error("a pod is moved without the claim")
		}
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, "x", errors.New("it changes"))
	}
	c.turns(1, time.Minute)
	c.oldNode = c.node()
	node := c.node()
	node.Annotations = nil
	c.must(c.server.Update(t.Context(), node))
	c.turns(1, time.Minute)
	if tries != 2 || c.node().Annotations[v1alpha1.AnnotationClaim] == "" {
		t.Errorf("tried %d times, want once with each claim; %v", tries, c.node().Annotations)
	}
}

func TestARuleComesOffWithItsOwnFault(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad), aFault("Xid79", "GPU-1"))...)
	c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Mode = v1alpha1.ModeQuarantine })
	c.turns(2, time.Minute)
	if on := c.rules(); len(on) != 2 {
		t.Fatalf("on %v", on)
	}
	become := func(health v1alpha1.DeviceHealth, faults ...v1alpha1.Fault) {
		t.Helper()
		h := c.health()
		h.Status.Faults, h.Status.Devices[0].Health = faults, health
		c.must(c.server.Status().Update(t.Context(), h))
		c.turns(2, time.Minute)
	}
	become(v1alpha1.DeviceHealthy, aFault("Xid79", "GPU-1"))
	rem := c.incident()
	if on := c.rules(); !slices.Equal(on, []string{"gpu-1"}) || len(rem.Status.Quarantined) != 1 {
		t.Errorf("on %v, listed %v", on, rem.Status.Quarantined)
	}
	if !slices.ContainsFunc(rem.Status.Timeline, func(e v1alpha1.TimelineEntry) bool { return e.Reason == decide.ReasonReleased }) {
		t.Errorf("nobody is told: %v", rem.Status.Timeline)
	}
	become(v1alpha1.DeviceUnhealthy, aFault("Xid79", bad), aFault("Xid79", "GPU-1"))
	if on := c.rules(); len(on) != 2 {
		t.Errorf("it is back, and on are %v", on)
	}
}
