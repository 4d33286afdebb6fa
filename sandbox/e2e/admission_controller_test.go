package e2e

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// quarantined is the taint that Roundhouse puts on a node.
var quarantined = corev1.Taint{Key: "roundhouse.dev/quarantined", Value: "r", Effect: corev1.TaintEffectNoSchedule}

// taints are those that a node has now: the API server itself gives a new one not-ready.
func (s *apiServer) taints(t *testing.T, node string) []corev1.Taint {
	t.Helper()
	live, err := s.core.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return live.Spec.Taints
}

// taintList is the JSON of a node's taints and some more.
func taintList(theirs []corev1.Taint, more ...corev1.Taint) string {
	list, err := json.Marshal(append(slices.Clone(theirs), more...))
	if err != nil {
		panic(err) // taints always encode
	}
	return string(list)
}

// TestControllerKeepsToItsOwnKeys tries what no controller of ours should ever write on a Node, as the leader that it is.
func TestControllerKeepsToItsOwnKeys(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	s.addNode(t, "node-a")
	s.lead(t, "pod-1")
	call{http.MethodPatch, nodes + "node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":"true",
		"nvidia.com/gpu.deploy.dcgm":"own","example.com/agent":"true"}}}`}.must(t, s.core)
	controller := s.serviceAccount(t, config.ControllerServiceAccount, controlplane.Binding{})
	theirs := s.taints(t, "node-a")
	noExecute := slices.Clone(theirs)
	noExecute[0].Effect = corev1.TaintEffectNoExecute
	foreign := corev1.Taint{Key: "example.com/new", Effect: corev1.TaintEffectNoExecute}
	patch := func(path, body string) call { return call{http.MethodPatch, nodes + path, body}.as("pod-1") }
	forbidden := map[string]refused{
		"a label":                   {patch("node-a", `{"metadata":{"labels":{"a":"b"}}}`), "may not change labels"},
		"a label's removal":         {patch("node-a", `{"metadata":{"labels":null}}`), "may not change labels"},
		"an operand's own value":    {patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":"false"}}}`), "may not change labels"},
		"an operand's removal":      {patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":null}}}`), "may not change labels"},
		"a new operand":             {patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.new":"paused-for-driver-upgrade"}}}`), "may not change labels"},
		"another label's pause":     {patch("node-a", `{"metadata":{"labels":{"example.com/agent":"paused-for-driver-upgrade"}}}`), "may not change labels"},
		"a pause and a label":       {patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":"paused-for-driver-upgrade","a":"b"}}}`), "may not change labels"},
		"a finalizer":               {patch("node-a", `{"metadata":{"finalizers":["example.com/f"]}}`), "may not change finalizers"},
		"another's annotation":      {patch("node-a", `{"metadata":{"annotations":{"example.com/note":"ours"}}}`), "the controller may change roundhouse.dev/*"},
		"its removal":               {patch("node-a", `{"metadata":{"annotations":{"example.com/note":null}}}`), "the controller may change roundhouse.dev/*"},
		"a new annotation":          {patch("node-a", `{"metadata":{"annotations":{"example.com/new":"x"}}}`), "the controller may change roundhouse.dev/*"},
		"a cordon":                  {patch("node-a", `{"spec":{"unschedulable":true}}`), "it never cordons"},
		"another's taint's removal": {patch("node-a", `{"spec":{"taints":`+taintList(theirs[1:], quarantined)+`}}`), "a taint of others"},
		"another's new taint":       {patch("node-a", `{"spec":{"taints":`+taintList(theirs, foreign)+`}}`), "a taint of others"},
		"another's taint's effect":  {patch("node-a", `{"spec":{"taints":`+taintList(noExecute)+`}}`), "a taint of others"},
		"another's condition":       {patch("node-a/status", condition("Ready", "False")), "every other belongs to somebody else"},
		"the agent's condition":     {patch("node-a/status", condition("RoundhouseHealthy", "True")), "every other belongs to somebody else"},
		"allocatable":               {patch("node-a/status", `{"status":{"allocatable":{"nvidia.com/gpu":"0"}}}`), "its own condition only"},
	}
	allowed := []struct {
		name string
		call call
	}{
		{"its taint and claim", patch("node-a", `{"metadata":{"annotations":{"roundhouse.dev/claim":"r/1",
			"karpenter.sh/do-not-disrupt":"true","cluster-autoscaler.kubernetes.io/scale-down-disabled":"true"}},
			"spec":{"taints":`+taintList(theirs, quarantined)+`}}`)},
		{"both taken off", patch("node-a", `{"metadata":{"annotations":{"roundhouse.dev/claim":null,
			"karpenter.sh/do-not-disrupt":null}},"spec":{"taints":`+taintList(theirs)+`}}`)},
		{"an operand's pause", patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":"paused-for-driver-upgrade",
			"nvidia.com/gpu.deploy.dcgm":"own_paused-for-driver-upgrade"},"annotations":{"roundhouse.dev/paused":"{}"}}}`)},
		{"both put back", patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":"true",
			"nvidia.com/gpu.deploy.dcgm":"own"},"annotations":{"roundhouse.dev/paused":null}}}`)},
		{"its condition", patch("node-a/status", condition("RoundhouseReporting", "True"))},
	}
	eventually(t, "the policy is enforced", func() error {
		_, err := forbidden["a cordon"].call.dryRun().do(t.Context(), controller)
		return wantRefusal(err, forbidden["a cordon"].want)
	})
	for _, a := range allowed {
		t.Run("the controller writes "+a.name, func(t *testing.T) { a.call.must(t, controller) })
	}
	for name, r := range forbidden {
		t.Run("the controller does not write "+name, func(t *testing.T) { checkRefused(t, controller, r) })
	}
	t.Run("each validation of the policy is needed", func(t *testing.T) {
		attempts := map[string]func() error{}
		for name, r := range forbidden {
			r.call = r.call.dryRun()
			attempts[name] = r.attempt(t, controller)
		}
		s.checkEachValidationNeeded(t, "roundhouse-controller", 0, attempts)
	})
	t.Run("it pauses nothing without the right to", func(t *testing.T) {
		call{http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/roundhouse-controller-operands", ""}.must(t, s.core)
		pause := refused{patch("node-a", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.device-plugin":"paused-for-driver-upgrade"}}}`).dryRun(), "may not change labels"}
		eventually(t, "the right is gone", pause.attempt(t, controller))
	})
	t.Run("without the right to delete, it evicts by the API alone", func(t *testing.T) {
		call{http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/roundhouse-controller-delete", ""}.must(t, s.core)
		eventually(t, "the right is gone", refused{call{http.MethodDelete, "/api/v1/namespaces/default/pods/work", ""}.dryRun(), "cannot "}.attempt(t, controller))
	})
	t.Run("the controller's rights end there", func(t *testing.T) {
		for _, c := range []call{
			{http.MethodGet, "/api/v1/secrets", ""},
			{http.MethodDelete, nodes + "node-a", ""},
			{http.MethodPatch, policies + "training", `{"spec":{"mode":"Remediate"}}`},
			{http.MethodDelete, holds + "night-run", ""},
		} {
			checkRefused(t, controller, refused{c, "cannot "})
		}
	})
}
