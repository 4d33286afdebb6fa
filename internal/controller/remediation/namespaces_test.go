package remediation

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

func namespace(name string, labels map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
}

func TestTheLabelsOfNamespacesAreReadNowAndThen(t *testing.T) {
	c := newCluster(t, namespace("ml", map[string]string{"team": "x"}), namespace("bare", nil))
	want := map[string]map[string]string{"ml": {"team": "x"}, "bare": {}}
	for _, step := range []struct {
		after time.Duration
		reads int
	}{{0, 2}, {namespaceMaxAge - time.Second, 2}, {time.Second, 4}} {
		c.clock.SetTime(c.clock.Now().Add(step.after))
		got, err := c.namespaceLabels(t.Context(), []string{"ml", "bare"})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v, labels (-want +got):\n%s", err, diff)
		}
		if n := c.count("get Namespace"); n != step.reads {
			t.Errorf("%d reads, want %d", n, step.reads)
		}
	}
}

func TestANamespaceThatCannotBeReadIsNotOneWithoutLabels(t *testing.T) {
	c := newCluster(t)
	answers := func(err error) (map[string]map[string]string, error) {
		c.Live = interceptor.NewClient(c.server, interceptor.Funcs{
			Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
				return err
			}})
		return c.namespaceLabels(t.Context(), []string{"ml"})
	}
	resource := schema.GroupResource{Resource: "namespaces"}
	for name, err := range map[string]error{"gone": apierrors.NewNotFound(resource, "ml"), "not ours to read": apierrors.NewForbidden(resource, "ml", nil)} {
		if got, err := answers(err); len(got) > 0 || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := answers(errors.New("no answer")); err == nil || !strings.Contains(err.Error(), "reading namespace ml: no answer") {
		t.Errorf("a server that does not answer: %v", err)
	}
}

// TestADrainFollowsTheLabelsOfNamespaces: they are asked for where a class needs them, and not otherwise.
func TestADrainFollowsTheLabelsOfNamespaces(t *testing.T) {
	other := onPlugin("other", "1")
	other.Namespace = "web"
	c := newCluster(t, append(faulty(aFault("Xid79", bad)), onPlugin("spare", "1"), other, namespace("ml", map[string]string{"tier": "spare"}), namespace("web", nil))...)
	c.policy(func(p *v1alpha1.RemediationPolicySpec) {
		p.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{
			{Name: "spare", Cost: v1alpha1.CostFree, Match: v1alpha1.WorkloadMatch{Expression: "namespaceObject.labels['tier'] == 'spare'"}}}}
	})
	c.turns(4, time.Second)
	var pods corev1.PodList
	c.must(c.server.List(t.Context(), &pods))
	if len(pods.Items) != 1 || pods.Items[0].Name != "other" {
		t.Errorf("%d pods are left, want the one whose class is not known", len(pods.Items))
	}
	want := []v1alpha1.Blocker{{Pod: "web/other", Reason: drain.ReasonClassUntold,
		Message: "class spare may be meant for it, so only a human stops it: evaluating its expression: no such key: tier"}}
	if d := c.incident().Status.Drain; d == nil || cmp.Diff(want, d.Blockers) != "" {
		t.Errorf("drain %+v", d)
	}
	c = newCluster(t, append(faulty(aFault("Xid79", bad)), onPlugin("spare", "1"))...)
	c.turns(4, time.Second)
	if n := c.count("get Namespace"); n != 0 {
		t.Errorf("no class asks, and %d namespaces were read", n)
	}
}
