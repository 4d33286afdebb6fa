package claim

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func TestForeign(t *testing.T) {
	labelled := func(key, value string) *corev1.Node {
		node := newNode(nil)
		node.Labels = map[string]string{key: value}
		return node
	}
	maintained := func(status corev1.ConditionStatus) *corev1.Node {
		node := newNode(nil)
		node.Status.Conditions = []corev1.NodeCondition{{
			Type: corev1.NodeMaintenanceInProgress, Status: status, Reason: "Firmware", LastTransitionTime: metav1.NewTime(now),
		}}
		return node
	}
	added := metav1.NewTime(now)
	upgrading := func(state string) []ForeignClaim {
		return []ForeignClaim{{By: "GPU operator driver upgrade", What: "nvidia.com/gpu-driver-upgrade-state=" + state, InProgress: true}}
	}
	cases := map[string]struct {
		node *corev1.Node
		want []ForeignClaim
	}{
		"nobody":                              {node: newNode(map[string]string{"a": "b"}, foreignTaint)},
		"another's maintenance":               {node: maintained(corev1.ConditionTrue), want: []ForeignClaim{{By: "maintenance", What: "condition MaintenanceInProgress is True: Firmware", Since: now, InProgress: true}}},
		"a maintenance that is over":          {node: maintained(corev1.ConditionFalse)},
		"kured":                               {node: newNode(map[string]string{AnnotationKuredReboot: "2026-11-23T10:00:00Z"}), want: []ForeignClaim{{By: "kured", What: "annotation weave.works/kured-reboot-in-progress", Since: now, InProgress: true}}},
		"kured, at a time nobody can read":    {node: newNode(map[string]string{AnnotationKuredReboot: "soon"}), want: []ForeignClaim{{By: "kured", What: "annotation weave.works/kured-reboot-in-progress", InProgress: true}}},
		"Cluster API":                         {node: newNode(map[string]string{AnnotationClusterAPIRemediate: ""}), want: []ForeignClaim{{By: "Cluster API", What: "annotation cluster.x-k8s.io/remediate-machine", InProgress: true}}},
		"Karpenter":                           {node: newNode(nil, corev1.Taint{Key: TaintKarpenterDisrupted, Effect: "NoSchedule", TimeAdded: &added}), want: []ForeignClaim{{By: "Karpenter", What: "taint karpenter.sh/disrupted", Since: now, InProgress: true}}},
		"Karpenter before its first version":  {node: newNode(nil, corev1.Taint{Key: TaintKarpenterDisruption, Value: "disrupting"}), want: []ForeignClaim{{By: "Karpenter", What: "taint karpenter.sh/disruption", InProgress: true}}},
		"the Cluster Autoscaler":              {node: newNode(nil, corev1.Taint{Key: TaintAutoscalerDelete, Value: "1795428000"}), want: []ForeignClaim{{By: "Cluster Autoscaler", What: "taint ToBeDeletedByClusterAutoscaler", Since: time.Unix(1795428000, 0), InProgress: true}}},
		"a driver upgrade":                    {node: labelled(LabelDriverUpgrade, "drain-required"), want: upgrading("drain-required")},
		"a driver upgrade of a later version": {node: labelled(LabelDriverUpgrade, "something-new"), want: upgrading("something-new")},
		"a driver upgrade that is done":       {node: labelled(LabelDriverUpgrade, "upgrade-done")},
		"a driver upgrade that waits":         {node: labelled(LabelDriverUpgrade, "upgrade-required")},
		"a driver upgrade that has failed":    {node: labelled(LabelDriverUpgrade, "upgrade-failed")},
		"a human says hands off":              {node: labelled(LabelExcludeFromRemediation, "true"), want: []ForeignClaim{{By: "a human", What: "label remediation.medik8s.io/exclude-from-remediation"}}},
		"a human said hands off":              {node: labelled(LabelExcludeFromRemediation, "false")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Foreign(c.node)); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
		})
	}
}

func newLease(holder string, renewed time.Time, seconds int32) *coordinationv1.Lease {
	micro := metav1.NewMicroTime(renewed)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: LeaseNamespace, Name: "node-n"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &holder, AcquireTime: &micro, RenewTime: &micro, LeaseDurationSeconds: &seconds,
		},
	}
}

func TestForeignLease(t *testing.T) {
	timeless := newLease("self-node-remediation", now.Add(-time.Hour), 0)
	timeless.Spec.LeaseDurationSeconds = nil
	cases := map[string]struct {
		lease *coordinationv1.Lease
		held  bool
		text  string
	}{
		"no lease":                      {},
		"a lease that nobody holds":     {lease: newLease("", now, 60)},
		"a lease that is held":          {lease: newLease("self-node-remediation", now.Add(-time.Minute), 120), held: true, text: "self-node-remediation (Lease medik8s-leases/node-n, since 2026-11-23T09:59:00Z)"},
		"a lease that has just lapsed":  {lease: newLease("self-node-remediation", now.Add(-time.Minute), 60)},
		"a lease that says no duration": {lease: timeless, held: true, text: "self-node-remediation (Lease medik8s-leases/node-n, since 2026-11-23T09:00:00Z)"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, held := ForeignLease(c.lease, now)
			if held != c.held || (held && got.String() != c.text) {
				t.Errorf("got %v, %q; want %v, %q", held, got, c.held, c.text)
			}
		})
	}
}
