package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// notLeading is what a stale leader reads.
const notLeading = "this controller does not lead: the write is by roundhouse-pod-1, the leader is roundhouse-pod-2"

// fenced is every kind of write that the controller makes. theirs are the taints that node-a has: the list is atomic,
// and what a patch leaves out it removes.
func fenced(pod *corev1.Pod, theirs []corev1.Taint) map[string]call {
	remediation := `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"Remediation","metadata":{"name":"node-a-new"},
		"spec":{"node":"node-a","nodeUID":"1","root":{"code":"Xid79","firstSeen":"2026-11-23T10:00:00Z"}}}`
	rule := `{"apiVersion":"resource.k8s.io/v1","kind":"DeviceTaintRule","metadata":{"name":%q},
		"spec":{"deviceSelector":{"driver":"gpu.nvidia.com","pool":"node-a","device":"gpu-3"},
		"taint":{"key":"roundhouse.dev/quarantined","effect":"NoSchedule"}}}`
	return map[string]call{
		"a taint and a claim on a Node": {http.MethodPatch, nodes + "node-a", `{"metadata":{"annotations":{
			"roundhouse.dev/claim":"r/1","karpenter.sh/do-not-disrupt":"true"}},
			"spec":{"taints":` + taintList(theirs, quarantined) + `}}`},
		"a condition of a Node":        {http.MethodPatch, nodes + "node-a/status", condition("RoundhouseReporting", "True")},
		"an eviction":                  eviction(pod, string(pod.UID)),
		"a new DeviceTaintRule":        {http.MethodPost, taintRules, fmt.Sprintf(rule, "node-a-new")},
		"a change of a rule":           {http.MethodPatch, taintRules + "node-a-old", `{"metadata":{"labels":{"a":"b"}}}`},
		"a NodeHealth's action":        {http.MethodPatch, nodeHealths + "node-a", `{"spec":{"fence":7}}`},
		"a new NodeHealth":             {http.MethodPost, nodeHealths, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth","metadata":{"name":"node-c"},"spec":{"nodeUID":"1","fence":1}}`},
		"a new Remediation":            {http.MethodPost, remediations, remediation},
		"a Remediation's status":       {http.MethodPatch, remediations + "node-a-old/status", `{"status":{"phase":"Draining"}}`},
		"a Remediation's finalizer":    {http.MethodPatch, remediations + "node-a-old", `{"metadata":{"finalizers":["roundhouse.dev/release"]}}`},
		"a budget's reservations":      {http.MethodPatch, budgets + "fleet/status", `{"status":{"rebuiltFor":"1"}}`},
		"a new DeviceRecord":           {http.MethodPost, records, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"DeviceRecord","metadata":{"name":"gpu-1"}}`},
		"a policy's status":            {http.MethodPatch, policies + "training/status", `{"status":{"matchedNodes":3}}`},
		"a whole Remediation's update": {http.MethodPut, remediations + "node-a-old", ""}, // the body is read live
	}
}

// eviction is the eviction of a pod with a UID precondition.
func eviction(pod *corev1.Pod, uid string) call {
	return call{http.MethodPost, "/api/v1/namespaces/" + pod.Namespace + "/pods/" + pod.Name + "/eviction",
		fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q},
		"deleteOptions":{"preconditions":{"uid":%q}}}`, pod.Name, pod.Namespace, uid)}
}

// bareEviction is the eviction of whatever pod has the name.
func bareEviction(pod *corev1.Pod) call {
	c := eviction(pod, "")
	c.body = strings.ReplaceAll(c.body, `{"preconditions":{"uid":""}}`, `{}`)
	return c
}

// as makes the call with the field manager of a leader.
func (c call) as(holder string) call {
	c.path += "?fieldManager=" + config.FieldManagerPrefix + holder
	return c
}

// TestLeaderFence makes every kind of write of the controller as the present leader, as a former one and as nobody.
func TestLeaderFence(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	s.addNode(t, "node-a")
	pod := s.addPod(t, "default", "work", "default", "node-a")
	s.applyObjectsOfFence(t)
	controller := s.serviceAccount(t, config.ControllerServiceAccount, controlplane.Binding{})
	writes := fenced(pod, s.taints(t, "node-a"))
	probe := writes["a condition of a Node"]

	eventually(t, "without a leader nothing is written", func() error {
		_, err := probe.as("").dryRun().do(t.Context(), controller)
		return wantRefusal(err, "no controller leads")
	})
	s.lead(t, "pod-2")
	eventually(t, "the leader writes", func() error {
		_, err := probe.as("pod-2").dryRun().do(t.Context(), controller)
		return err
	})
	for name, c := range writes {
		if c.method == http.MethodPut {
			c.body = string(call{http.MethodGet, c.path, ""}.must(t, s.core))
		}
		t.Run("the leader writes "+name, func(t *testing.T) { c.as("pod-2").dryRun().must(t, controller) })
		t.Run("a former leader does not write "+name, func(t *testing.T) {
			checkRefused(t, controller, refused{c.as("pod-1"), notLeading})
		})
		t.Run("nobody in particular does not write "+name, func(t *testing.T) {
			checkRefused(t, controller, refused{c, "this controller does not lead: the write is by"})
		})
	}
	t.Run("deletes and evictions name a UID", func(t *testing.T) { checkUIDs(t, controller, pod) })
	t.Run("each validation of the policy is needed", func(t *testing.T) {
		attempts := map[string]func() error{}
		for name, r := range map[string]refused{
			"a former leader's write": {probe.as("pod-1").dryRun(), notLeading},
			"a DELETE without a UID":  {call{http.MethodDelete, nodeHealths + "node-a", ""}.dryRun(), "deletes by UID only"},
			"an eviction without one": {bareEviction(pod).as("pod-2").dryRun(), "evicts by UID only"},
		} {
			attempts[name] = r.attempt(t, controller)
		}
		// The first, for a Lease without a holder, is seen at work at the beginning.
		s.checkEachValidationNeeded(t, "roundhouse-leader-fence", 1, attempts)
	})
	t.Run("others are not asked", func(t *testing.T) { probe.dryRun().must(t, s.core) })
	t.Run("a leader is seen within a second", func(t *testing.T) { s.measureFence(t, controller, probe) })
	t.Run("without a Lease others write on", func(t *testing.T) { s.checkWithoutLease(t, probe) })
}

// applyObjectsOfFence creates one object of each kind that the controller changes.
func (s *apiServer) applyObjectsOfFence(t *testing.T) {
	t.Helper()
	for path, body := range map[string]string{
		remediations: `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"Remediation","metadata":{"name":"node-a-old"},
			"spec":{"node":"node-a","nodeUID":"1","root":{"code":"Xid79","firstSeen":"2026-11-23T10:00:00Z"}}}`,
		budgets: `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeDisruptionBudget","metadata":{"name":"fleet"},
			"spec":{"nodeSelector":{},"maxUnavailable":1}}`,
		policies: `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"RemediationPolicy","metadata":{"name":"training"},
			"spec":{"nodeSelector":{}}}`,
		taintRules: `{"apiVersion":"resource.k8s.io/v1","kind":"DeviceTaintRule","metadata":{"name":"node-a-old"},
			"spec":{"deviceSelector":{"driver":"gpu.nvidia.com","pool":"node-a","device":"gpu-4"},
			"taint":{"key":"roundhouse.dev/quarantined","effect":"NoSchedule"}}}`,
	} {
		call{http.MethodPost, path, body}.must(t, s.core)
	}
}

// lead writes the Lease as a won election does.
func (s *apiServer) lead(t *testing.T, holder string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"spec":{"holderIdentity":%q}}`, holder)
	_, err := s.core.CoordinationV1().Leases(config.Namespace).Patch(t.Context(), config.LeaderLease,
		"application/merge-patch+json", patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// checkUIDs deletes and evicts without a UID, with another's and with the right one. An eviction with another's is left
// out: the server tries it for ten seconds before it gives up.
func checkUIDs(t *testing.T, controller kubernetes.Interface, pod *corev1.Pod) {
	t.Helper()
	const path = remediations + "node-a-old"
	checkRefused(t, controller, refused{call{http.MethodDelete, path, ""}, "deletes by UID only"})
	checkRefused(t, controller, refused{call{http.MethodDelete, path, `{"preconditions":{"uid":"1"}}`}, "the UID in the precondition"})
	var object metav1.PartialObjectMetadata
	if err := json.Unmarshal(call{http.MethodGet, path, ""}.must(t, controller), &object); err != nil {
		t.Fatal(err)
	}
	call{http.MethodDelete, path, fmt.Sprintf(`{"preconditions":{"uid":%q}}`, object.UID)}.must(t, controller)
	call{http.MethodDelete, taintRules + "node-a-old", ""}.must(t, controller) // its name is one incident's alone
	checkRefused(t, controller, refused{bareEviction(pod).as("pod-2"), "evicts by UID only"})
	eviction(pod, string(pod.UID)).as("pod-2").must(t, controller)
}

// measureFence changes the leader again and again, and measures how long the API server still believes the former one.
func (s *apiServer) measureFence(t *testing.T, controller kubernetes.Interface, probe call) {
	t.Helper()
	const rounds = 50
	var stale []time.Duration
	former := "pod-2"
	for i := range rounds {
		leader := fmt.Sprintf("leader-%d", i)
		s.lead(t, leader)
		since := time.Now() // the answer to the Lease's write is the earliest a new leader knows
		for accepted := true; accepted; {
			_, err := probe.as(former).dryRun().do(t.Context(), controller)
			accepted = err == nil
			if time.Since(since) > 5*time.Second {
				t.Fatalf("the former leader still writes after %s", time.Since(since))
			}
		}
		stale = append(stale, time.Since(since))
		probe.as(leader).dryRun().must(t, controller)
		former = leader
	}
	slices.Sort(stale)
	t.Logf("from the answer to the Lease's write to the former leader's refusal, that request included: p50 %s, p90 %s, max %s of %d",
		stale[rounds/2], stale[rounds*9/10], stale[rounds-1], rounds)
	if worst := stale[rounds-1]; worst > time.Second {
		t.Errorf("the former leader wrote for %s", worst)
	}
}

// checkWithoutLease deletes the Lease: nobody else's write may suffer.
func (s *apiServer) checkWithoutLease(t *testing.T, probe call) {
	t.Helper()
	err := s.core.CoordinationV1().Leases(config.Namespace).Delete(t.Context(), config.LeaderLease, metav1.DeleteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		probe.dryRun().must(t, s.core)
		time.Sleep(100 * time.Millisecond)
	}
}
