package neighbours

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/replace"
)

// byKarpenter is the rung.
var byKarpenter = v1alpha1.Rung{Name: "replace", Action: v1alpha1.RungReplace, Replace: &v1alpha1.Replace{By: v1alpha1.ReplaceByKarpenter}}

const nodeClass = "{group: karpenter.k8s.aws, kind: EC2NodeClass, name: gpu}"

func (r *rig) nodePool(name string) *unstructured.Unstructured {
	r.t.Helper()
	return r.make(fmt.Sprintf(`apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {name: %s}
spec: {template: {spec: {nodeClassRef: %s, requirements: []}}}
`, name, nodeClass))
}

// nodeClaim makes the NodeClaim of a node, and names it as the Node's owner, as Karpenter does.
func (r *rig) nodeClaim(pool, node, providerID string) *unstructured.Unstructured {
	r.t.Helper()
	return r.make(fmt.Sprintf(`apiVersion: karpenter.sh/v1
kind: NodeClaim
metadata: {name: %[1]s-x7k2p, labels: {karpenter.sh/nodepool: %[1]s}, finalizers: [karpenter.sh/termination]}
spec: {nodeClassRef: %[2]s, requirements: []}
status: {nodeName: %[3]s, providerID: %[4]q}
`, pool, nodeClass, node, providerID))
}

// own makes the NodeClaim the Node's owner, as Karpenter does.
func (r *rig) own(a *remedy.Attempt, nodeClaim *unstructured.Unstructured) {
	r.t.Helper()
	owned := a.Node.DeepCopy()
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "karpenter.sh/v1", Kind: "NodeClaim", Name: nodeClaim.GetName(), UID: nodeClaim.GetUID()}}
	if err := r.admin.Update(r.t.Context(), owned); err != nil {
		r.t.Fatal(err)
	}
	a.Node = owned
}

// TestKarpenterReplacesANode walks through a replacement with Karpenter's part played: the steps of its termination, and
// the end of Node and NodeClaim. The node is under our claim all the while.
func TestKarpenterReplacesANode(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("karpenter-1", "test:///karpenter-1", byKarpenter)
	r.nodePool("pool-1")
	nodeClaim := r.nodeClaim("pool-1", "karpenter-1", "test:///karpenter-1")
	r.own(&a, nodeClaim)
	claimed, err := claim.Put(a.Node, a.Remediation.Name, a.Remediation.UID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.admin.Update(t.Context(), claimed); err != nil {
		t.Fatal(err)
	}
	a.Node = claimed
	by := replace.New(r.controller)
	r.refuses(by, a, "")
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "NodeClaim pool-1-x7k2p is deleted; Karpenter drains the Node and ends its machine")
	if r.live(nodeClaim).GetDeletionTimestamp() == nil {
		t.Fatal("it is not being deleted")
	}
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "is being deleted: its Node is being drained")
	r.say(nodeClaim, "Drained", "True", "Drained", "")
	r.step(a, by.Look, v1alpha1.RemedyRunning, "its volumes are being detached")
	if err := by.End(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	r.erase(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "karpenter-1"}})
	a.Node = nil
	r.step(a, by.Look, v1alpha1.RemedySucceeded, "the Node is gone")
}

// TestKarpenterRefusals changes one thing after the other that Karpenter's own objects say.
func TestKarpenterRefusals(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("karpenter-2", "test:///karpenter-2", byKarpenter)
	by := replace.New(r.controller)
	r.refuses(by, a, "no NodeClaim of Karpenter has the Node's providerID and name in its status")
	nodeClaim := r.nodeClaim("pool-2", "karpenter-2", "test:///karpenter-2")
	r.refuses(by, a, "NodePool pool-2 of NodeClaim pool-2-x7k2p is not there, and nobody would make another node")
	pool := r.nodePool("pool-2")
	r.refuses(by, a, "")
	r.say(pool, "Ready", "False", "NodeClassNotReady", "no AMI")
	r.refuses(by, a, "NodePool pool-2 is not ready, and would make no other node: NodeClassNotReady: no AMI")
	r.say(pool, "Ready", "True", "Ready", "")
	r.refuses(by, a, "")
	r.patch(nodeClaim, `{"metadata":{"labels":null}}`)
	r.refuses(by, a, "is of no NodePool")
}

// TestKarpenterHasNoOtherRight tries what the controller's role and the fence keep it from.
func TestKarpenterHasNoOtherRight(t *testing.T) {
	r := newRig(t, shared)
	nodeClaim := r.nodeClaim("pool-3", "karpenter-3", "test:///karpenter-3")
	r.await("a deletion by name is refused", within, func() error {
		return wantRefusal(r.controller.Delete(t.Context(), nodeClaim.DeepCopy(), client.DryRunAll), "the controller deletes by UID only: set preconditions.uid")
	})
	other := types.UID("other")
	if err := wantRefusal(r.controller.Delete(t.Context(), nodeClaim.DeepCopy(), client.Preconditions{UID: &other}), "the UID in the precondition (other) does not match the UID in record"); err != nil {
		t.Error(err)
	}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`))
	if err := wantRefusal(r.controller.Patch(t.Context(), nodeClaim.DeepCopy(), patch), "cannot patch resource"); err != nil {
		t.Error(err)
	}
}
