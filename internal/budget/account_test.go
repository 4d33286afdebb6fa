package budget

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

func reservedFor(rem *v1alpha1.Remediation, domain string, devices int32) func(*v1alpha1.NodeDisruptionBudget) {
	return func(b *v1alpha1.NodeDisruptionBudget) {
		b.Status.Reservations = append(b.Status.Reservations, v1alpha1.Reservation{
			Node: rem.Spec.Node, NodeUID: rem.Spec.NodeUID, Remediation: rem.Name, RemediationUID: string(rem.UID),
			Domain: domain, Devices: devices, Since: metav1.NewTime(start),
		})
	}
}

func cordoned(node *corev1.Node) { node.Spec.Unschedulable = true }

func annotated(key, value string) func(*corev1.Node) {
	return func(node *corev1.Node) {
		node.Annotations = map[string]string{key: value}
	}
}

func tainted(key, value string) func(*corev1.Node) {
	return func(node *corev1.Node) {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffectNoSchedule})
	}
}

func gpus(n int64) func(*corev1.Node) {
	return func(node *corev1.Node) {
		node.Status.Capacity = corev1.ResourceList{"nvidia.com/gpu": *resource.NewQuantity(n, resource.DecimalSI)}
	}
}

func maxDevicesOf(n int32) func(*v1alpha1.NodeDisruptionBudget) {
	return func(b *v1alpha1.NodeDisruptionBudget) {
		b.Spec.MaxUnavailable, b.Spec.MaxUnavailableDevices = nil, &n
	}
}

func counting(match v1alpha1.TaintMatch) func(*v1alpha1.NodeDisruptionBudget) {
	return func(b *v1alpha1.NodeDisruptionBudget) { b.Spec.CountTaints = []v1alpha1.TaintMatch{match} }
}

func TestDecide(t *testing.T) {
	rack := func(name string) map[string]string { return map[string]string{"topology.example.com/rack": name} }
	other := newNode("b", rack("r1"))
	otherRem := newRemediation(other)
	one := intstr.FromInt32(1)
	cases := map[string]struct {
		budget  *v1alpha1.NodeDisruptionBudget
		nodes   []*corev1.Node
		devices int32
		want    Verdict
	}{
		"nothing is out: granted": {
			budget: newBudget("fleet", one), nodes: []*corev1.Node{other},
			want: Verdict{Granted: true, Reason: ReasonGranted},
		},
		"another remediation holds the only slot": {
			budget: newBudget("fleet", one, reservedFor(otherRem, "", 8)), nodes: []*corev1.Node{other},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet",
				Message:     "fleet: 1 of 1 nodes is out (b, remediation b-r, since 2026-11-23T10:00:00Z)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"the reservation of a node that is gone still counts": {
			budget: newBudget("fleet", one, reservedFor(otherRem, "", 8)),
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet",
				Message:     "fleet: 1 of 1 nodes is out (b, remediation b-r, since 2026-11-23T10:00:00Z)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"the asking node is not counted against itself, whatever its state": {
			budget: newBudget("fleet", one),
			nodes:  []*corev1.Node{newNode("a", rack("r1"), notReadyNode, cordoned)},
			want:   Verdict{Granted: true, Reason: ReasonGranted},
		},
		"a node that is reserved and not Ready is one node": {
			budget: newBudget("fleet", intstr.FromInt32(2), reservedFor(otherRem, "", 8)),
			nodes:  []*corev1.Node{newNode("b", nil, notReadyNode)},
			want:   Verdict{Granted: true, Reason: ReasonGranted},
		},
		"a node that is not Ready is out": {
			budget: newBudget("fleet", one), nodes: []*corev1.Node{newNode("b", nil, notReadyNode)},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet",
				Message:     "fleet: 1 of 1 nodes is out (b, not Ready: KubeletNotReady, since 2026-11-23T10:00:00Z)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"a node that has not reported yet is out": {
			budget: newBudget("fleet", one),
			nodes:  []*corev1.Node{newNode("b", nil, func(n *corev1.Node) { n.Status.Conditions = nil })},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet",
				Message:     "fleet: 1 of 1 nodes is out (b, not Ready: it has not reported yet)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"a cordoned node is out": {
			budget: newBudget("fleet", one), nodes: []*corev1.Node{newNode("b", nil, cordoned)},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet", Message: "fleet: 1 of 1 nodes is out (b, cordoned)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"a claim of ours without a slot here is out": {
			budget: newBudget("fleet", one), nodes: []*corev1.Node{newNode("b", nil, annotated(v1alpha1.AnnotationClaim, "b-r/uid"))},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet",
				Message:     "fleet: 1 of 1 nodes is out (b, claimed by remediation b-r without a slot here)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"another system's work is out": {
			budget: newBudget("fleet", one),
			nodes:  []*corev1.Node{newNode("b", map[string]string{claim.LabelDriverUpgrade: "drain-required"})},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet",
				Message:     "fleet: 1 of 1 nodes is out (b, GPU operator driver upgrade (nvidia.com/gpu-driver-upgrade-state=drain-required))",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"a node we are told to keep off is in service": {
			budget: newBudget("fleet", one),
			nodes:  []*corev1.Node{newNode("b", map[string]string{claim.LabelExcludeFromRemediation: "true"})},
			want:   Verdict{Granted: true, Reason: ReasonGranted},
		},
		"a counted taint is out, by its key": {
			budget: newBudget("fleet", one, counting(v1alpha1.TaintMatch{Key: "down", Operator: corev1.TolerationOpExists})),
			nodes:  []*corev1.Node{newNode("b", nil, tainted("down", "x"))},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet", Message: "fleet: 1 of 1 nodes is out (b, taint down=x:NoSchedule)",
				WouldChange: "b returns, or fleet allows 2",
			},
		},
		"a counted taint with another value is not": {
			budget: newBudget("fleet", one, counting(v1alpha1.TaintMatch{Key: "down", Operator: corev1.TolerationOpEqual, Value: "y"})),
			nodes:  []*corev1.Node{newNode("b", nil, tainted("down", "x"))},
			want:   Verdict{Granted: true, Reason: ReasonGranted},
		},
		"an outage in another rack does not count": {
			budget: newBudget("per-rack", one, perRack), nodes: []*corev1.Node{newNode("b", rack("r2"), notReadyNode)},
			want: Verdict{Granted: true, Reason: ReasonGranted},
		},
		"an outage in the same rack does": {
			budget: newBudget("per-rack", one, perRack), nodes: []*corev1.Node{newNode("b", rack("r1"), cordoned)},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "per-rack", Message: "per-rack: 1 of 1 nodes of rack r1 is out (b, cordoned)",
				WouldChange: "b returns, or per-rack allows 2",
			},
		},
		"a slot taken in this rack counts though its node moved": {
			budget: newBudget("per-rack", one, perRack, reservedFor(otherRem, "r1", 8)), nodes: []*corev1.Node{newNode("b", rack("r2"))},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "per-rack",
				Message:     "per-rack: 1 of 1 nodes of rack r1 is out (b, remediation b-r, since 2026-11-23T10:00:00Z)",
				WouldChange: "b returns, or per-rack allows 2",
			},
		},
		"a node without the label is a domain of its own": {
			budget: newBudget("per-rack", one, perRack), nodes: []*corev1.Node{newNode("b", nil, cordoned)},
			want: Verdict{Granted: true, Reason: ReasonGranted},
		},
		"a percentage rounds down": {
			budget: newBudget("fleet", intstr.FromString("49%")),
			nodes:  []*corev1.Node{newNode("a", rack("r1")), other},
			want: Verdict{
				Reason: ReasonExhausted, Budget: "fleet", Message: "fleet: 49% of the 2 nodes rounds down to none",
				WouldChange: "fleet allows 1",
			},
		},
		"a percentage is of the domain's nodes": {
			budget: newBudget("per-rack", intstr.FromString("50%"), perRack),
			nodes:  []*corev1.Node{newNode("a", rack("r1")), other, newNode("c", rack("r2"), cordoned)},
			want:   Verdict{Granted: true, Reason: ReasonGranted},
		},
		"maxUnavailable 0 grants nothing": {
			budget: newBudget("freeze", intstr.FromInt32(0)),
			want: Verdict{
				Reason: ReasonExhausted, Budget: "freeze", Message: "freeze: it allows no node to be out", WouldChange: "freeze allows 1",
			},
		},
		"devices: the node's own and those of reservations count": {
			budget: newBudget("power", one, maxDevicesOf(16), reservedFor(otherRem, "", 8)), nodes: []*corev1.Node{other}, devices: 8,
			want: Verdict{Granted: true, Reason: ReasonGranted},
		},
		"devices: one too many": {
			budget: newBudget("power", one, maxDevicesOf(15), reservedFor(otherRem, "", 8)), nodes: []*corev1.Node{other}, devices: 8,
			want: Verdict{
				Reason: ReasonExhausted, Budget: "power",
				Message:     "power: 8 of 15 devices are out, and this node takes 8 more (b, remediation b-r, since 2026-11-23T10:00:00Z)",
				WouldChange: "b returns, or power allows 16 devices",
			},
		},
		"devices: a cordoned node takes out all that it has": {
			budget: newBudget("power", one, maxDevicesOf(10)), nodes: []*corev1.Node{newNode("b", nil, cordoned, gpus(4))}, devices: 8,
			want: Verdict{
				Reason: ReasonExhausted, Budget: "power",
				Message:     "power: 4 of 10 devices are out, and this node takes 8 more (b, cordoned)",
				WouldChange: "b returns, or power allows 12 devices",
			},
		},
		"devices: a node whose number is not known counts as one like the asking one": {
			budget: newBudget("power", one, maxDevicesOf(15)), nodes: []*corev1.Node{newNode("b", nil, cordoned)}, devices: 8,
			want: Verdict{
				Reason: ReasonExhausted, Budget: "power",
				Message:     "power: 8 of 15 devices are out, and this node takes 8 more (b, cordoned)",
				WouldChange: "b returns, or power allows 16 devices",
			},
		},
		"a budget without any maximum allows nothing": {
			budget: newBudget("odd", one, func(b *v1alpha1.NodeDisruptionBudget) { b.Spec.MaxUnavailable = nil }),
			want: Verdict{
				Reason: ReasonInvalid, Budget: "odd", Message: "odd sets no maximum",
				WouldChange: "odd sets maxUnavailable or maxUnavailableDevices",
			},
		},
		"a maximum that cannot be read allows nothing": {
			budget: newBudget("odd", intstr.FromString("half")),
			want: Verdict{
				Reason: ReasonInvalid, Budget: "odd",
				Message:     `odd: maxUnavailable cannot be read: reading "half": invalid value for IntOrString: invalid type: string is not a percentage`,
				WouldChange: "odd is corrected",
			},
		},
		"a slot that is held already is granted again": {
			budget: newBudget("fleet", one, reservedFor(newRemediation(newNode("a", nil)), "", 8)),
			nodes:  []*corev1.Node{newNode("b", nil, cordoned)},
			want:   Verdict{Granted: true, Reason: ReasonGranted, Message: "fleet: held already"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			node := newNode("a", rack("r1"))
			got := decide(snapshot{
				budget: c.budget, selects: func(*corev1.Node) bool { return true }, seen: newView(c.nodes, capacityOf), node: node,
				holder: holderOf(newRemediation(node)), devices: c.devices,
			})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

func BenchmarkATallyServesAThousandWaiting(b *testing.B) {
	nodes := make([]*corev1.Node, 0, 30_000)
	for i := range 30_000 {
		nodes = append(nodes, newNode(fmt.Sprintf("n%d", i), map[string]string{"topology.example.com/rack": fmt.Sprintf("r%d", i/16)}))
	}
	budget := newBudget("per-rack", intstr.FromInt32(1), perRack)
	for b.Loop() {
		seen := newView(nodes, capacityOf)
		for i := range 1000 {
			decide(snapshot{
				budget: budget, selects: func(*corev1.Node) bool { return true }, seen: seen, node: nodes[i],
				holder: holderOf(newRemediation(nodes[i])), devices: 8,
			})
		}
	}
}
