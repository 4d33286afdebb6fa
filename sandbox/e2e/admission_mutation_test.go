package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// checkEachValidationNeeded takes the policy's validations away, one at a time, and finds a forbidden request that then
// passes, or whose refusal no longer says why: each from the first on is needed, and has a case that fails without it. An
// attempt returns nil while it is refused as it should be; it is made many times and stores nothing.
func (s *apiServer) checkEachValidationNeeded(t *testing.T, policy string, first int, attempts map[string]func() error) {
	t.Helper()
	whole, err := s.core.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), policy, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := first; i < len(whole.Spec.Validations); i++ {
		s.setValidations(t, policy, slices.Delete(slices.Clone(whole.Spec.Validations), i, i+1))
		eventually(t, fmt.Sprintf("without validation %d a request passes", i), func() error {
			for _, name := range slices.Sorted(maps.Keys(attempts)) {
				if err := attempts[name](); err != nil {
					t.Logf("without validation %d: %s: %v", i, name, err)
					return nil
				}
			}
			return fmt.Errorf("all %d are still refused as before", len(attempts))
		})
		s.setValidations(t, policy, whole.Spec.Validations)
		eventually(t, "the whole policy is enforced again", func() error {
			for name, attempt := range attempts {
				if err := attempt(); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		})
	}
}

// attempt makes the request and says how the answer differs from the refusal that is wanted.
func (r refused) attempt(t *testing.T, client kubernetes.Interface) func() error {
	t.Helper()
	return func() error {
		_, err := r.call.do(t.Context(), client)
		return wantRefusal(err, r.want)
	}
}

// agentAttempts are all requests forbidden to the agent of node-a.
func (s *apiServer) agentAttempts(t *testing.T, agent kubernetes.Interface) map[string]func() error {
	t.Helper()
	unbound := s.serviceAccount(t, config.AgentServiceAccount, controlplane.Binding{})
	attempts := map[string]func() error{
		"a token without a node": func() error {
			_, err := mayDo["its health, by merge patch"].dryRun().do(t.Context(), unbound)
			return wantRefusal(err, "this token names no node")
		},
		// Created behind the agent's back: its token is for another UID than this NodeHealth's.
		"a NodeHealth of another Node of that name": func() error {
			return wantRefusal(s.tryOtherUID(t, agent), "was created anew")
		},
	}
	for _, table := range []map[string]refused{byPolicy, byRole} {
		for name, r := range table {
			r.call = r.call.dryRun()
			attempts[name] = r.attempt(t, agent)
		}
	}
	return attempts
}

// setValidations replaces a policy's validations.
func (s *apiServer) setValidations(t *testing.T, name string, validations []admissionv1.Validation) {
	t.Helper()
	client := s.core.AdmissionregistrationV1().ValidatingAdmissionPolicies()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		policy, err := client.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		policy.Spec.Validations = validations
		_, err = client.Update(t.Context(), policy, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tryOtherUID gives node-a's NodeHealth another Node's UID, lets the agent try to write it, and puts it back.
func (s *apiServer) tryOtherUID(t *testing.T, agent kubernetes.Interface) error {
	t.Helper()
	node, err := s.core.CoreV1().Nodes().Get(t.Context(), "node-a", metav1.GetOptions{})
	if err != nil {
		return err
	}
	s.replaceNodeHealth(t, "00000000-0000-0000-0000-000000000000")
	_, err = mayDo["its health, by merge patch"].dryRun().do(t.Context(), agent)
	s.replaceNodeHealth(t, string(node.UID))
	return err
}

// replaceNodeHealth deletes node-a's NodeHealth and creates one for a Node of this UID.
func (s *apiServer) replaceNodeHealth(t *testing.T, uid string) {
	t.Helper()
	call{http.MethodDelete, nodeHealths + "node-a", ""}.must(t, s.core)
	call{http.MethodPost, nodeHealths, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth",
		"metadata":{"name":"node-a"},"spec":{"nodeUID":%q,"fence":1}}`, uid)}.must(t, s.core)
}
