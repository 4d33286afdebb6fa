package policy

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newPolicy(name string, priority int32, expression string) *v1alpha1.RemediationPolicy {
	p := &v1alpha1.RemediationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 3},
		Spec: v1alpha1.RemediationPolicySpec{
			Priority: priority,
			Brake:    &v1alpha1.Brake{SameSignature: &v1alpha1.SameSignature{Nodes: intstr.FromInt32(3)}},
		},
	}
	if expression != "" {
		p.Spec.Rules = []v1alpha1.Rule{{Name: "r", Match: v1alpha1.RuleMatch{Expression: expression}, Response: v1alpha1.ResponseIgnore}}
	}
	return p
}

func newIncident(node string) *v1alpha1.Remediation {
	return &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Spec:       v1alpha1.RemediationSpec{Node: node, Policy: "good", Root: v1alpha1.RootFault{Code: "Xid79", FirstSeen: metav1.NewTime(now)}},
		Status:     v1alpha1.RemediationStatus{Phase: v1alpha1.PhasePending},
	}
}

// newBench is a loop on an API, and how often it wrote.
func newBench(t *testing.T, objects ...client.Object) (*loop, client.Client, *testclock.FakePassiveClock, *int) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	writes := 0
	api := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.RemediationPolicy{}, &v1alpha1.Remediation{}).Build(), interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			writes++
			return c.SubResource(sub).Update(ctx, obj, opts...)
		},
	})
	counts, err := metrics.NewController(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	clock := testclock.NewFakePassiveClock(now)
	return &loop{Options: Options{Clock: clock, Metrics: counts}, client: api}, api, clock, &writes
}

func turn(t *testing.T, l *loop) {
	t.Helper()
	if _, err := l.Reconcile(t.Context(), reconcile.Request{}); err != nil {
		t.Fatal(err)
	}
}

func statusFor(t *testing.T, api client.Client, name string) v1alpha1.RemediationPolicyStatus {
	t.Helper()
	p := &v1alpha1.RemediationPolicy{}
	if err := api.Get(t.Context(), client.ObjectKey{Name: name}, p); err != nil {
		t.Fatal(err)
	}
	for i := range p.Status.Conditions {
		p.Status.Conditions[i].LastTransitionTime = metav1.NewTime(p.Status.Conditions[i].LastTransitionTime.UTC())
	}
	return p.Status
}

func TestStatusIsWrittenOnceForEachState(t *testing.T) {
	nodes := []client.Object{
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}},
	}
	l, api, clock, writes := newBench(t, append(nodes, newPolicy("good", 2, "fault.count > 1"), newPolicy("bad", 1, "fault.cuont > 1"))...)
	turn(t, l)
	clock.SetTime(now.Add(time.Hour))
	turn(t, l)
	if *writes != 2 {
		t.Errorf("%d writes, want one for each policy", *writes)
	}
	want := v1alpha1.RemediationPolicyStatus{
		ObservedGeneration: 3, MatchedNodes: 2, Brake: &v1alpha1.BrakeStatus{State: v1alpha1.BrakeReleased},
		Conditions: []metav1.Condition{{
			Type: "Accepted", Status: "True", Reason: "Valid", ObservedGeneration: 3, Message: "every rule can be followed",
			LastTransitionTime: metav1.NewTime(now),
		}},
	}
	if diff := cmp.Diff(want, statusFor(t, api, "good")); diff != "" {
		t.Errorf("good (-want +got):\n%s", diff)
	}
	want = v1alpha1.RemediationPolicyStatus{
		ObservedGeneration: 3, Brake: &v1alpha1.BrakeStatus{State: v1alpha1.BrakeReleased},
		Conditions: []metav1.Condition{{
			Type: "Accepted", Status: "False", Reason: "Invalid", ObservedGeneration: 3, LastTransitionTime: metav1.NewTime(now),
			Message: "spec.rules[0](r).match.expression: is not valid CEL: at character 6: undefined field 'cuont'",
		}},
	}
	if diff := cmp.Diff(want, statusFor(t, api, "bad")); diff != "" {
		t.Errorf("bad (-want +got):\n%s", diff)
	}
}

func TestTheBrakeHoldsAndLetsGoByItself(t *testing.T) {
	l, api, clock, writes := newBench(t, newPolicy("good", 2, ""), newIncident("n1"), newIncident("n2"), newIncident("n3"))
	turn(t, l)
	since := metav1.NewTime(now)
	want := &v1alpha1.BrakeStatus{
		State: v1alpha1.BrakeHolding, Signature: "Xid79", Nodes: 3, Since: &since,
		ReleaseWhen: "fewer than 3 nodes show Xid79 that began within 10m0s of each other",
	}
	got := statusFor(t, api, "good").Brake
	got.Since = &metav1.Time{Time: got.Since.UTC()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("brake (-want +got):\n%s", diff)
	}
	clock.SetTime(now.Add(time.Minute))
	turn(t, l)
	if *writes != 1 {
		t.Errorf("%d writes, want 1: nothing changed", *writes)
	}
	over := newIncident("n2")
	if err := api.Get(t.Context(), client.ObjectKey{Name: "n2"}, over); err != nil {
		t.Fatal(err)
	}
	over.Status.Phase = v1alpha1.PhaseCancelled
	if err := api.Status().Update(t.Context(), over); err != nil {
		t.Fatal(err)
	}
	turn(t, l)
	if got := statusFor(t, api, "good").Brake.State; got != v1alpha1.BrakeReleased {
		t.Errorf("brake is %s, want %s", got, v1alpha1.BrakeReleased)
	}
}

func TestTheConditionsTimeMovesWithItsStatusOnly(t *testing.T) {
	l, api, clock, _ := newBench(t, newPolicy("good", 1, ""), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	turn(t, l)
	clock.SetTime(now.Add(time.Minute))
	other := newPolicy("other", 1, "")
	if err := api.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	turn(t, l)
	condition := statusFor(t, api, "good").Conditions[0]
	if condition.Reason != "Conflicted" || !condition.LastTransitionTime.Time.Equal(now.Add(time.Minute)) {
		t.Errorf("after the tie: %s since %v", condition.Reason, condition.LastTransitionTime)
	}
}
