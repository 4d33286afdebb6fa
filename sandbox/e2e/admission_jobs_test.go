package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// Paths of what a remedy runs.
const (
	jobs   = "/apis/batch/v1/namespaces/" + config.Namespace + "/jobs/"
	claims = "/apis/resource.k8s.io/v1/namespaces/" + config.Namespace + "/resourceclaims/"
)

// jobAs is a Job that runs as a service account.
func jobAs(name, account string) call {
	return call{http.MethodPost, jobs, fmt.Sprintf(`{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":%q},"spec":{"template":{"spec":{
		"serviceAccountName":%q,"restartPolicy":"Never","containers":[{"name":"main","image":"example.test/x"}]}}}}`, name, account)}
}

// TestControllersJobs tries what Jobs the controller may make: as the leader, as one that was, and as another account.
func TestControllersJobs(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	s.lead(t, "pod-1")
	controller := s.serviceAccount(t, config.ControllerServiceAccount, controlplane.Binding{})
	claim := call{http.MethodPost, claims, `{"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"name":"run-1"},
		"spec":{"devices":{"requests":[{"name":"gpu","exactly":{"deviceClassName":"gpu.example.com","allocationMode":"ExactCount","count":1}}]}}}`}
	const stale = "this controller does not lead: the write is by roundhouse-pod-2, the leader is roundhouse-pod-1"
	forbidden := map[string]refused{
		"a Job as itself":              {jobAs("x", config.ControllerServiceAccount).as("pod-1"), "as service account roundhouse-job only"},
		"a Job as nobody":              {jobAs("x", "").as("pod-1"), "as service account roundhouse-job only"},
		"a former leader's Job":        {jobAs("x", config.JobServiceAccount).as("pod-2"), stale},
		"a former leader's claim":      {claim.as("pod-2"), stale},
		"a Job of nobody":              {jobAs("x", config.JobServiceAccount), "the write is by nobody"},
		"a Job's deletion by its name": {call{http.MethodDelete, jobs + "run-1", ""}, "deletes by UID only"},
	}
	eventually(t, "the policy is enforced", func() error {
		_, err := forbidden["a Job as itself"].call.dryRun().do(t.Context(), controller)
		return wantRefusal(err, forbidden["a Job as itself"].want)
	})
	jobAs("run-1", config.JobServiceAccount).as("pod-1").must(t, controller)
	claim.as("pod-1").must(t, controller)
	for name, r := range forbidden {
		t.Run("the controller does not make "+name, func(t *testing.T) { checkRefused(t, controller, r) })
	}
	t.Run("each validation of the policy is needed", func(t *testing.T) {
		attempts := map[string]func() error{}
		for name, r := range forbidden {
			r.call = r.call.dryRun()
			attempts[name] = r.attempt(t, controller)
		}
		s.checkEachValidationNeeded(t, "roundhouse-jobs", 0, attempts)
	})
	t.Run("others make Jobs as they like", func(t *testing.T) { jobAs("theirs", "default").must(t, s.core) })
	for _, path := range []string{jobs + "run-1", claims + "run-1"} {
		var object metav1.PartialObjectMetadata
		if err := json.Unmarshal(call{http.MethodGet, path, ""}.must(t, controller), &object); err != nil {
			t.Fatal(err)
		}
		call{http.MethodDelete, path, fmt.Sprintf(`{"preconditions":{"uid":%q}}`, object.UID)}.must(t, controller)
	}
}
