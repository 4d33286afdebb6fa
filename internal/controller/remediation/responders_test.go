package remediation

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	lifecyclev1alpha1 "k8s.io/api/lifecycle/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// responding is a pod on the node that names a responder.
func responding() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "train", UID: "train-uid",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "train", UID: "rs", Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: "n", EvictionResponders: []corev1.EvictionResponder{
			{Name: "example.com/snapshot", Priority: ptr.To[int32](10000)}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning}}
}

func (c *cluster) requests() int {
	c.t.Helper()
	var list lifecyclev1alpha1.EvictionRequestList
	c.must(c.server.List(c.t.Context(), &list))
	return len(list.Items)
}

// draining is a cluster that waits for a pod's responders.
func draining(t *testing.T, change ...func(*v1alpha1.RemediationPolicySpec)) *cluster {
	t.Helper()
	c := newCluster(t, append(faulty(aFault("Xid79", "")), responding())...)
	for _, f := range change {
		c.policy(f)
	}
	c.turns(1, time.Second)
	return c
}

func TestThePodsRespondersAreAskedBeforeItIsEvicted(t *testing.T) {
	c := draining(t)
	if rem := c.incident(); rem.Status.Reason != decide.ReasonEvictionRequested || len(rem.Status.Drain.Blockers) != 1 ||
		rem.Status.Drain.Blockers[0].Reason != decide.ReasonEvictionRequested {
		t.Fatalf("%s: %s, %+v", rem.Status.Reason, rem.Status.Message, rem.Status.Drain)
	}
	if c.requests() != 1 || c.count("eviction Pod") > 0 {
		t.Errorf("%d requests, and %d evictions", c.requests(), c.count("eviction Pod"))
	}
	c.turns(3, 9*time.Second)
	if c.count("eviction Pod") > 0 {
		t.Error("evicted before its responders' time to answer was over")
	}
	c.turns(2, 9*time.Second)
	if c.count("eviction Pod") != 1 {
		t.Errorf("nobody answers: %d evictions, want 1", c.count("eviction Pod"))
	}
}

func TestARequestIsTakenBackWhereTheDrainIs(t *testing.T) {
	for name, stop := range map[string]func(*cluster){
		"by a human's cancel": func(c *cluster) { c.cancel() },
		"by a hold": func(c *cluster) {
			c.must(c.server.Create(c.t.Context(), &v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: "h"},
				Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{"n"}, Holds: v1alpha1.HoldDisruption, Reason: "r", RequestedBy: "b"}}))
		},
		"by the fault that has gone": func(c *cluster) { c.faults() },
	} {
		t.Run(name, func(t *testing.T) {
			c := draining(t)
			stop(c)
			c.turns(2, time.Second)
			if rem := c.incident(); rem.Status.Phase == v1alpha1.PhaseDraining {
				t.Fatalf("it drains on: %s", rem.Status.Message)
			}
			if c.requests() > 0 {
				t.Error("the responders are still asked")
			}
			if c.count("eviction Pod") > 0 {
				t.Error("the pod was evicted")
			}
		})
	}
}

func TestWhereRespondersAreNotAsked(t *testing.T) {
	for name, set := range map[string]func(*v1alpha1.RemediationPolicySpec){
		"where the policy asks none": func(p *v1alpha1.RemediationPolicySpec) {
			p.Drain = &v1alpha1.Drain{Responders: &v1alpha1.DrainResponders{Deadline: &metav1.Duration{}}}
		},
		"where the drain has come to something harder": func(p *v1alpha1.RemediationPolicySpec) {
			p.Drain = &v1alpha1.Drain{Escalate: []v1alpha1.DrainEscalation{{By: v1alpha1.DrainByDelete}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := draining(t, set)
			if c.requests() > 0 || c.count("eviction Pod") != 1 {
				t.Errorf("%d requests, and %d evictions", c.requests(), c.count("eviction Pod"))
			}
		})
	}
}
