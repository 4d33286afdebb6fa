package fleet

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
)

// named is an API that writes down in whose name it was asked.
type named struct {
	agent.API
	name string
	log  *[]string
}

func (n named) PutStatus(_ context.Context, h *v1alpha1.NodeHealth) (*v1alpha1.NodeHealth, error) {
	*n.log = append(*n.log, n.name+" writes "+string(h.Status.Summary))
	return h.DeepCopy(), nil
}

func (n named) Node(context.Context) (*corev1.Node, error) {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "live"}}, nil
}

func TestOnlyAHealthyFirstWordIsWrittenInTheAdministratorsName(t *testing.T) {
	healthy := &v1alpha1.NodeHealth{Status: v1alpha1.NodeHealthStatus{Summary: v1alpha1.SummaryHealthy}}
	faulty := &v1alpha1.NodeHealth{Status: v1alpha1.NodeHealthStatus{Summary: v1alpha1.SummaryFaulty}}
	asked := healthy.DeepCopy()
	asked.Spec.Action = &v1alpha1.Action{ID: "a"}
	tests := map[string]struct {
		words []*v1alpha1.NodeHealth
		want  []string
	}{
		"the first of two": {
			[]*v1alpha1.NodeHealth{healthy, healthy}, []string{"administrator writes Healthy", "agent writes Healthy"},
		},
		"a fault never is, and nothing after it": {
			[]*v1alpha1.NodeHealth{faulty, healthy}, []string{"agent writes Faulty", "agent writes Healthy"},
		},
		"nothing is while something is asked of the node": {
			[]*v1alpha1.NodeHealth{asked}, []string{"agent writes Healthy"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var log []string
			g := &gate{API: named{name: "agent", log: &log}}
			g.seed.Store(&seeding{
				first: named{name: "administrator", log: &log},
				node:  &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "as registered"}},
			})
			if node, err := g.Node(t.Context()); err != nil || node.Name != "as registered" {
				t.Errorf("before the first word: node %v, error %v", node, err)
			}
			for _, word := range tc.words {
				if _, err := g.PutStatus(t.Context(), word); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(tc.want, log); diff != "" {
				t.Errorf("writes (-want +got):\n%s", diff)
			}
			// A stale Node would let an act begin on labels that a hold no longer selects.
			if node, err := g.Node(t.Context()); err != nil || node.Name != "live" {
				t.Errorf("after the first word: node %v, error %v", node, err)
			}
		})
	}
}
