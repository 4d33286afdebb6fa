package claim

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestPatchData(t *testing.T) {
	cases := map[string]struct {
		before *corev1.Node
		change func(*corev1.Node)
		want   string
	}{
		"no difference: nothing is sent": {before: newNode(map[string]string{"a": "b"}, foreignTaint), change: func(*corev1.Node) {}},
		"annotations": {
			before: newNode(map[string]string{"a": "b", "gone": "x", "same": "y"}),
			change: func(n *corev1.Node) { n.Annotations = map[string]string{"a": "c", "new": "z", "same": "y"} },
			want:   `{"metadata":{"resourceVersion":"7","uid":"node-uid","annotations":{"a":"c","gone":null,"new":"z"}}}`,
		},
		"taints go as a whole": {
			before: newNode(nil, foreignTaint),
			change: func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, ours("r")) },
			want:   `{"metadata":{"resourceVersion":"7","uid":"node-uid"},"spec":{"taints":[{"key":"example.com/x","value":"y","effect":"NoExecute"},{"key":"roundhouse.dev/quarantined","value":"r","effect":"NoSchedule"}]}}`,
		},
		"the last taint goes": {
			before: newNode(nil, ours("r")),
			change: func(n *corev1.Node) { n.Spec.Taints = nil },
			want:   `{"metadata":{"resourceVersion":"7","uid":"node-uid"},"spec":{"taints":null}}`,
		},
		"what is not ours to write is not sent": {
			before: newNode(nil),
			change: func(n *corev1.Node) { n.Spec.Unschedulable = true; n.Labels = map[string]string{"a": "b"} },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			after := c.before.DeepCopy()
			c.change(after)
			got, err := patchData(c.before, after)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPatchWithoutAResourceVersionIsRefused(t *testing.T) {
	node := newNode(nil)
	node.ResourceVersion = ""
	if _, err := patchData(node, node); err == nil {
		t.Error("a patch without a guard was made")
	}
}

func TestPatchIsGuardedAndSentOnce(t *testing.T) {
	sent := 0
	stored := newNode(nil)
	stored.ResourceVersion = ""
	c := interceptor.NewClient(fake.NewClientBuilder().WithObjects(stored).Build(), interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			sent++
			return c.Patch(ctx, obj, patch, opts...)
		},
	})
	before := &corev1.Node{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: "n"}, before); err != nil {
		t.Fatal(err)
	}
	claimed, err := Put(before, "r", "u", nil)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Patch(t.Context(), c, before, claimed)
	if err != nil {
		t.Fatal(err)
	}
	if name, _, ok := Ours(after); !ok || name != "r" || after.ResourceVersion == before.ResourceVersion {
		t.Errorf("stored is %+v", after.ObjectMeta)
	}
	other, err := Put(before, "s", "v", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Patch(t.Context(), c, before, other); !apierrors.IsConflict(errors.Unwrap(err)) && !apierrors.IsConflict(err) {
		t.Errorf("error is %v, want a conflict", err)
	}
	if sent != 2 {
		t.Errorf("%d patches were sent, want 2: a conflict is not tried again", sent)
	}
}
