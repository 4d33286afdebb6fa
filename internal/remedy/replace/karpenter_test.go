package replace_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

var (
	nodeClaim = schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodeClaim"}
	nodePool  = schema.GroupVersionKind{Group: "karpenter.sh", Version: "v1", Kind: "NodePool"}
)

func karpenterWorld(t *testing.T, changes ...change) *world {
	t.Helper()
	return newWorld(t, v1alpha1.ReplaceByKarpenter, map[string]*unstructured.Unstructured{
		"claim": object(nodeClaim, "", "gpu-x7k2p", map[string]any{
			"metadata": map[string]any{"labels": map[string]any{"karpenter.sh/nodepool": "gpu"}, "finalizers": []any{"karpenter.sh/termination"}},
			"status":   map[string]any{"nodeName": node, "providerID": "aws:///a/i-1"},
		}),
		"pool": object(nodePool, "", "gpu", map[string]any{}),
	}, []schema.GroupVersionKind{nodeClaim, nodePool}, changes...)
}

// ownedBy makes the Node name its NodeClaim, as Karpenter does.
func ownedBy(apiVersion, kind, name string) change {
	return func(w *world) {
		w.attempt.Node.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name}}
	}
}

func TestKarpenterRefusesInWordsWhatWouldBringNoOtherNode(t *testing.T) {
	tests := map[string]struct {
		changes []change
		want    string
	}{
		"Karpenter is not there":             {[]change{unserved("NodeClaim")}, "Karpenter's NodeClaims are not served"},
		"the Node is gone":                   {[]change{gone}, "the Node is gone"},
		"the Node has no providerID":         {[]change{func(w *world) { w.attempt.Node.Spec.ProviderID = "" }, set("claim", "", "status", "providerID")}, "the Node has no spec.providerID"},
		"no NodeClaim":                       {[]change{without("claim")}, "no NodeClaim of Karpenter has the Node's providerID"},
		"one of another machine":             {[]change{set("claim", "aws:///a/i-2", "status", "providerID")}, "no NodeClaim"},
		"one of another node":                {[]change{set("claim", "gpu-0418", "status", "nodeName")}, "no NodeClaim"},
		"the Node names another's NodeClaim": {[]change{set("claim", "gpu-0418", "status", "nodeName"), ownedBy("karpenter.sh/v1", "NodeClaim", "gpu-x7k2p")}, "no NodeClaim"},
		"two NodeClaims":                     {[]change{copyOf("claim", "gpu-second")}, "both have the Node's providerID"},
		"a NodeClaim of no NodePool":         {[]change{unset("claim", "metadata", "labels")}, "NodeClaim gpu-x7k2p is of no NodePool, and nobody would make another node"},
		"NodePools are not served":           {[]change{unserved("NodePool")}, "Karpenter's NodePools are not served"},
		"its NodePool is gone":               {[]change{without("pool")}, "NodePool gpu of NodeClaim gpu-x7k2p is not there"},
		"its NodePool is being deleted":      {[]change{deleting("pool")}, "NodePool gpu is being deleted, and would make no other node"},
		"its NodePool is not ready":          {[]change{condition("pool", "Ready", "False", "NodeClassNotReady", "no AMI")}, "NodePool gpu is not ready, and would make no other node: NodeClassNotReady: no AMI"},
		"no right to NodeClaims":             {[]change{fails("list NodeClaim", forbidden())}, "the controller may not use Karpenter's objects here: install the chart with remedies.karpenter=true"},
		"no right to NodePools":              {[]change{fails("get NodePool", forbidden())}, "remedies.karpenter=true"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := karpenterWorld(t, tt.changes...)
			got, err := w.remedy().Check(t.Context(), w.attempt)
			if err != nil || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
			progress, err := w.remedy().Begin(t.Context(), w.attempt)
			want{v1alpha1.RemedyRefused, tt.want}.hold(t, progress, err)
			if slices.Contains(w.Calls, "delete NodeClaim") {
				t.Error("it was deleted all the same")
			}
		})
	}
}

func TestKarpenterDeletesTheNodeClaimOnce(t *testing.T) {
	tests := map[string][]change{
		"as it is":                  nil,
		"found by the Node's owner": {ownedBy("karpenter.sh/v1", "NodeClaim", "gpu-x7k2p"), fails("list NodeClaim", errors.New("not needed"))},
		"the Node's owner is gone":  {ownedBy("karpenter.sh/v1", "NodeClaim", "gpu-old")},
		"the Node's owner is of another group": {ownedBy("example.com/v1", "NodeClaim", "gpu-x7k2p"),
			fails("get NodeClaim", errors.New("not asked for"))},
		"the NodePool is ready":           {condition("pool", "Ready", "True", "Ready", "")},
		"the node is under our own claim": {func(w *world) { w.attempt.Node.Annotations = map[string]string{claim.KarpenterDoNotDisrupt: "true"} }},
		"the NodePool does not know yet":  {condition("pool", "Ready", "Unknown", "", "")},
	}
	for name, changes := range tests {
		t.Run(name, func(t *testing.T) {
			w := karpenterWorld(t, changes...)
			if why, err := w.remedy().Check(t.Context(), w.attempt); err != nil || why != "" {
				t.Fatalf("refused: %q, %v", why, err)
			}
			if slices.Contains(w.Calls, "delete NodeClaim") {
				t.Error("Check has deleted it")
			}
			got, err := w.remedy().Begin(t.Context(), w.attempt)
			want{v1alpha1.RemedyRunning, "NodeClaim gpu-x7k2p is deleted; Karpenter drains the Node"}.hold(t, got, err)
			delete(w.Fail, "get NodeClaim")
			if w.live("claim").GetDeletionTimestamp() == nil {
				t.Error("it is not being deleted")
			}
			if diff := cmp.Diff([]metav1.Preconditions{{UID: ptr.To(types.UID("uid-of-gpu-x7k2p"))}}, w.Deleted); diff != "" {
				t.Errorf("deleted by:\n%s", diff)
			}
			for range 2 {
				got, err = w.remedy().Begin(t.Context(), w.attempt)
				want{v1alpha1.RemedyRunning, "NodeClaim gpu-x7k2p is being deleted"}.hold(t, got, err)
			}
			if len(w.Deleted) != 1 {
				t.Errorf("it was deleted %d times", len(w.Deleted))
			}
		})
	}
}

func TestKarpenterSaysHowFarItIs(t *testing.T) {
	tests := map[string]struct {
		changes []change
		want    want
	}{
		"just deleted":                          {[]change{running, deleting("claim")}, want{v1alpha1.RemedyRunning, "NodeClaim gpu-x7k2p is being deleted: its Node is being drained"}},
		"draining":                              {[]change{running, deleting("claim"), condition("claim", "Drained", "Unknown", "Draining", "")}, want{v1alpha1.RemedyRunning, "its Node is being drained"}},
		"detaching":                             {[]change{running, deleting("claim"), condition("claim", "Drained", "True", "", ""), condition("claim", "VolumesDetached", "Unknown", "", "")}, want{v1alpha1.RemedyRunning, "its volumes are being detached"}},
		"not detached in time":                  {[]change{running, deleting("claim"), condition("claim", "Drained", "True", "", ""), condition("claim", "VolumesDetached", "False", "", "")}, want{v1alpha1.RemedyRunning, "its machine is being ended"}},
		"ending the machine":                    {[]change{running, deleting("claim"), condition("claim", "Drained", "True", "", ""), condition("claim", "VolumesDetached", "True", "", ""), condition("claim", "InstanceTerminating", "True", "", "")}, want{v1alpha1.RemedyRunning, "its machine is being ended"}},
		"the Node is gone":                      {[]change{running, gone, deleting("claim")}, want{v1alpha1.RemedySucceeded, "the Node is gone"}},
		"another Node has its name":             {[]change{running, another, without("claim")}, want{v1alpha1.RemedySucceeded, "the Node is gone"}},
		"the NodeClaim is gone first":           {[]change{running, without("claim")}, want{v1alpha1.RemedyRunning, "the NodeClaim is gone, and its Node is still there"}},
		"another has taken its place":           {[]change{running}, want{v1alpha1.RemedyFailed, "is not being deleted, though it was asked for"}},
		"died before the deletion":              {nil, want{v1alpha1.RemedyRunning, "NodeClaim gpu-x7k2p is deleted"}},
		"died after the deletion":               {[]change{deleting("claim")}, want{v1alpha1.RemedyRunning, "is being deleted"}},
		"died before, and the NodePool is gone": {[]change{without("pool")}, want{v1alpha1.RemedyRefused, "NodePool gpu"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := karpenterWorld(t, tt.changes...)
			got, err := w.remedy().Look(t.Context(), w.attempt)
			tt.want.hold(t, got, err)
			calls := len(w.Calls)
			if err := w.remedy().End(t.Context(), w.attempt); err != nil || len(w.Calls) != calls {
				t.Errorf("End did %v, %v; a deletion cannot be taken back", w.Calls[calls:], err)
			}
		})
	}
}

func TestKarpenterPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, call := range []string{"list NodeClaim", "get NodeClaim", "get NodePool", "delete NodeClaim"} {
		t.Run(call, func(t *testing.T) {
			w := karpenterWorld(t, ownedBy("karpenter.sh/v1", "NodeClaim", "gpu-old"), fails(call, broken))
			if _, err := w.remedy().Begin(t.Context(), w.attempt); !errors.Is(err, broken) {
				t.Errorf("begin: %v", err)
			}
		})
	}
	w := karpenterWorld(t, running, fails("list NodeClaim", broken))
	if _, err := w.remedy().Look(t.Context(), w.attempt); !errors.Is(err, broken) {
		t.Errorf("look: %v", err)
	}
	w = karpenterWorld(t, fails("delete NodeClaim", notFound()))
	got, err := w.remedy().Begin(t.Context(), w.attempt)
	want{v1alpha1.RemedyRunning, "is deleted"}.hold(t, got, err)
}
