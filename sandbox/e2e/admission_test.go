package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// refused is a request that must not succeed.
type refused struct {
	call call
	want string // part of the message that the caller reads
}

// byPolicy are the requests of node-a's agent that RBAC must let through, because RBAC knows no node of one's own; only
// config/admission/agent.yaml stands against them.
var byPolicy = map[string]refused{
	"another node's health": {
		call{http.MethodPatch, nodeHealths + "node-b/status", `{"status":{"summary":"Healthy"}}`},
		"the agent of node node-a may not write nodehealths/status of node-b"},
	"another node's condition": {
		call{http.MethodPatch, nodes + "node-b/status", condition("RoundhouseHealthy", "False")},
		"the agent of node node-a may not write nodes/status of node-b"},
	"its own node's Ready": {
		call{http.MethodPatch, nodes + "node-a/status", condition("Ready", "False")},
		"every other type belongs to somebody else"},
	"a condition that others would add": {
		call{http.MethodPatch, nodes + "node-a/status", condition("KernelDeadlock", "True")},
		"every other type belongs to somebody else"},
	"the controller's condition": {
		call{http.MethodPatch, nodes + "node-a/status", condition("RoundhouseReporting", "True")},
		"every other type belongs to somebody else"},
	"its own condition, with another's in the same patch": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"conditions":[
			{"type":"RoundhouseHealthy","status":"True"},{"type":"Ready","status":"False"}]}}`},
		"every other type belongs to somebody else"},
	"the removal of another's condition": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"conditions":[{"type":"Ready","$patch":"delete"}]}}`},
		"every other type belongs to somebody else"},
	"the removal of all conditions": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"conditions":null}}`},
		"every other type belongs to somebody else"},
	"the order of conditions": {
		call{http.MethodPatch, nodes + "node-a/status",
			`{"status":{"$setElementOrder/conditions":[{"type":"DiskPressure"},{"type":"Ready"}]}}`},
		"every other type belongs to somebody else"},
	"capacity": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"capacity":{"nvidia.com/gpu":"64"}}}`},
		"may change its own condition only, not: capacity"},
	"allocatable": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"allocatable":{"nvidia.com/gpu":"0"}}}`},
		"may change its own condition only, not: allocatable"},
	"the removal of allocatable": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"allocatable":null}}`},
		"may change its own condition only, not: allocatable"},
	"addresses, to which the API server would connect": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.66"}]}}`},
		"may change its own condition only, not: addresses"},
	"the kubelet's port": {
		call{http.MethodPatch, nodes + "node-a/status", `{"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":6666}}}}`},
		"may change its own condition only, not: daemonEndpoints"},
	"a label, through nodes/status": {
		call{http.MethodPatch, nodes + "node-a/status", `{"metadata":{"labels":{"pool":"secret"}}}`},
		"may not change labels, annotations, finalizers or owners"},
	"the removal of a label, through nodes/status": {
		call{http.MethodPatch, nodes + "node-a/status", `{"metadata":{"labels":null}}`},
		"may not change labels, annotations, finalizers or owners"},
	"an annotation, through nodes/status": {
		call{http.MethodPatch, nodes + "node-a/status", `{"metadata":{"annotations":{"roundhouse.dev/claim":"x/y"}}}`},
		"may not change labels, annotations, finalizers or owners"},
	"a finalizer, through nodes/status": {
		call{http.MethodPatch, nodes + "node-a/status", `{"metadata":{"finalizers":["example.com/stay"]}}`},
		"may not change labels, annotations, finalizers or owners"},
	"an owner, through nodes/status": {
		call{http.MethodPatch, nodes + "node-a/status",
			`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"1"}]}}`},
		"may not change labels, annotations, finalizers or owners"},
}

// byRole are the requests that RBAC refuses, and that the policy refuses all the same (the text in want) where
// somebody gave the agent a role too many.
var byRole = map[string]refused{
	"the spec of its own NodeHealth": {
		call{http.MethodPatch, nodeHealths + "node-a", `{"spec":{"fence":9}}`}, "UPDATE of nodehealths is refused"},
	"a NodeHealth of its making": {
		call{http.MethodPost, nodeHealths, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth",
			"metadata":{"name":"node-c"},"spec":{"nodeUID":"1","fence":1}}`}, "CREATE of nodehealths is refused"},
	"the deletion of its NodeHealth": {
		call{http.MethodDelete, nodeHealths + "node-a", ""}, "DELETE of nodehealths is refused"},
	"a label on its own node": {
		call{http.MethodPatch, nodes + "node-a", `{"metadata":{"labels":{"pool":"secret"}}}`}, "UPDATE of nodes is refused"},
	"a taint on its own node": {
		call{http.MethodPatch, nodes + "node-a", `{"spec":{"taints":[{"key":"k","effect":"NoSchedule"}]}}`},
		"UPDATE of nodes is refused"},
	"the deletion of a node": {call{http.MethodDelete, nodes + "node-b", ""}, "DELETE of nodes is refused"},
	"a hold": {
		call{http.MethodPost, holds, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"RemediationHold",
			"metadata":{"name":"h"},"spec":{"nodeSelector":{},"reason":"r","requestedBy":"agent"}}`},
		"CREATE of remediationholds is refused"},
	"the end of a hold": {call{http.MethodDelete, holds + "night-run", ""}, "DELETE of remediationholds is refused"},
	"a Remediation": {
		call{http.MethodPost, remediations, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"Remediation","metadata":{"name":"r"},
			"spec":{"node":"node-b","nodeUID":"1","root":{"code":"Xid79","firstSeen":"2026-11-23T10:00:00Z"}}}`},
		"CREATE of remediations is refused"},
}

// byRoleAlone are requests that only RBAC stands against: the policy does not look at these resources.
var byRoleAlone = map[string]call{
	"an eviction": {http.MethodPost, "/api/v1/namespaces/default/pods/work/eviction",
		`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"work","namespace":"default"}}`},
	"the deletion of a pod":      {http.MethodDelete, "/api/v1/namespaces/default/pods/work", ""},
	"a list of pods":             {http.MethodGet, "/api/v1/pods", ""},
	"a pod of its making":        {http.MethodPost, "/api/v1/namespaces/default/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"}}`},
	"reading Secrets":            {http.MethodGet, "/api/v1/secrets", ""},
	"reading its own Secrets":    {http.MethodGet, "/api/v1/namespaces/roundhouse-system/secrets", ""},
	"reading ConfigMaps":         {http.MethodGet, "/api/v1/configmaps", ""},
	"another token":              {http.MethodPost, "/api/v1/namespaces/roundhouse-system/serviceaccounts/roundhouse-controller/token", `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`},
	"an Event":                   {http.MethodPost, "/api/v1/namespaces/default/events", `{"apiVersion":"v1","kind":"Event","metadata":{"name":"e"},"involvedObject":{"namespace":"default"}}`},
	"a DeviceTaintRule":          {http.MethodPost, taintRules, `{"apiVersion":"resource.k8s.io/v1","kind":"DeviceTaintRule","metadata":{"name":"all"},"spec":{"deviceSelector":{},"taint":{"key":"k","effect":"NoExecute"}}}`},
	"the leader's Lease":         {http.MethodGet, "/apis/coordination.k8s.io/v1/namespaces/roundhouse-system/leases/roundhouse-controller", ""},
	"a role for itself":          {http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"x"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"}}`},
	"the end of its own policy":  {http.MethodDelete, "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/roundhouse-agent", ""},
	"the kubelet, through proxy": {http.MethodGet, "/api/v1/nodes/node-a/proxy/pods", ""},
	"all nodes at once":          {http.MethodGet, "/api/v1/nodes", ""},
}

// mayDo is what the agent lives on.
var mayDo = map[string]call{
	"its own condition, added":   {http.MethodPatch, nodes + "node-a/status", condition("RoundhouseHealthy", "False")},
	"its own condition, changed": {http.MethodPatch, nodes + "node-a/status", condition("RoundhouseHealthy", "True")},
	"its health, by merge patch": {http.MethodPatch, nodeHealths + "node-a/status", `{"status":{"summary":"Faulty"}}`},
	"reading its node":           {http.MethodGet, nodes + "node-a", ""},
	"reading its NodeHealth":     {http.MethodGet, nodeHealths + "node-a", ""},
	"listing holds":              {http.MethodGet, holds, ""},
}

// condition is a strategic merge patch of one Node condition.
func condition(kind, status string) string {
	return fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":%q,"reason":"Test","message":"by the agent of node-a",
		"lastTransitionTime":"2026-11-23T10:00:00Z","lastHeartbeatTime":"2026-11-23T10:00:00Z"}]}}`, kind, status)
}

// TestAgentCredential tries everything the agent must not do, with the token that its pod on node-a would have.
func TestAgentCredential(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	s.addNode(t, "node-a")
	s.addNode(t, "node-b")
	s.addPod(t, "default", "work", "default", "node-a")
	s.addPod(t, config.Namespace, "agent-a", config.AgentServiceAccount, "node-a")
	call{http.MethodPost, holds, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"RemediationHold",
		"metadata":{"name":"night-run"},"spec":{"nodeSelector":{},"reason":"r","requestedBy":"y.sato"}}`}.must(t, s.core)
	agent := s.serviceAccount(t, config.AgentServiceAccount, controlplane.ToPod("agent-a"))
	waitForPolicy(t, agent)

	for name, c := range mayDo {
		t.Run("the agent may do: "+name, func(t *testing.T) { c.must(t, agent) })
	}
	for name, r := range byPolicy {
		t.Run("the policy refuses "+name, func(t *testing.T) { checkRefused(t, agent, r) })
	}
	for name, r := range byRole {
		t.Run("RBAC refuses "+name, func(t *testing.T) { checkRefused(t, agent, refused{r.call, "cannot "}) })
	}
	for name, c := range byRoleAlone {
		t.Run("RBAC refuses "+name, func(t *testing.T) { checkRefused(t, agent, refused{c, "cannot "}) })
	}
	t.Run("nodehealths/status carries neither spec nor labels", func(t *testing.T) { s.checkStatusOnly(t, agent) })
	t.Run("a token without a node is refused", func(t *testing.T) {
		unbound := s.serviceAccount(t, config.AgentServiceAccount, controlplane.Binding{})
		checkRefused(t, unbound, refused{mayDo["its own condition, changed"], "this token names no node"})
		checkRefused(t, unbound, refused{mayDo["its health, by merge patch"], "this token names no node"})
	})
	s.grantEverything(t, config.AgentServiceAccount)
	for name, r := range byRole {
		t.Run("without RBAC the policy refuses "+name, func(t *testing.T) { checkRefused(t, agent, r) })
	}
	t.Run("each validation of the policy is needed", func(t *testing.T) {
		// With every right, or RBAC would hide what the policy does.
		s.checkEachValidationNeeded(t, "roundhouse-agent", 0, s.agentAttempts(t, agent))
	})
	t.Run("a node of the same name created anew is another node", func(t *testing.T) { s.checkNodeAnew(t, agent) })
}

// checkRefused makes a request and compares the refusal with what it should say.
func checkRefused(t *testing.T, client kubernetes.Interface, r refused) {
	t.Helper()
	_, err := r.call.do(t.Context(), client)
	if err := wantRefusal(err, r.want); err != nil {
		t.Errorf("%s %s: %v", r.call.method, r.call.path, err)
	}
}

// waitForPolicy waits until the API server enforces the agent's policy.
func waitForPolicy(t *testing.T, agent kubernetes.Interface) {
	t.Helper()
	first := byPolicy["another node's health"]
	eventually(t, "the policy is enforced", func() error {
		_, err := first.call.dryRun().do(t.Context(), agent)
		return wantRefusal(err, first.want)
	})
}

// addNode creates a Node as a kubelet would leave it, and its NodeHealth.
func (s *apiServer) addNode(t *testing.T, name string) *corev1.Node {
	t.Helper()
	answer := call{http.MethodPost, nodes, fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":%q,
		"labels":{"pool":"h200"},"annotations":{"example.com/note":"theirs"}},
		"spec":{"taints":[{"key":"example.com/theirs","effect":"NoSchedule"}]}}`, name)}.must(t, s.core)
	node := &corev1.Node{}
	if err := json.Unmarshal(answer, node); err != nil {
		t.Fatal(err)
	}
	call{http.MethodPatch, nodes + name + "/status", `{"status":{"capacity":{"nvidia.com/gpu":"8","cpu":"192"},
		"allocatable":{"nvidia.com/gpu":"8","cpu":"190"},"addresses":[{"type":"InternalIP","address":"192.0.2.1"}],
		"conditions":[{"type":"Ready","status":"True"},{"type":"DiskPressure","status":"False"}]}}`}.must(t, s.core)
	call{http.MethodPost, nodeHealths, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth",
		"metadata":{"name":%q},"spec":{"nodeUID":%q,"fence":1}}`, name, node.UID)}.must(t, s.core)
	return node
}

// addPod creates a pod that is already bound to a node.
func (s *apiServer) addPod(t *testing.T, namespace, name, account, node string) *corev1.Pod {
	t.Helper()
	if account == "default" {
		call{http.MethodPost, "/api/v1/namespaces/" + namespace + "/serviceaccounts",
			`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`}.must(t, s.core)
	}
	answer := call{http.MethodPost, "/api/v1/namespaces/" + namespace + "/pods", fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod",
		"metadata":{"name":%q},"spec":{"serviceAccountName":%q,"nodeName":%q,"tolerations":[{"operator":"Exists"}],
		"containers":[{"name":"c","image":"example.com/c"}]}}`, name, account, node)}.must(t, s.core)
	pod := &corev1.Pod{}
	if err := json.Unmarshal(answer, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

// serviceAccount is a client with a real token of one of Roundhouse's service accounts.
func (s *apiServer) serviceAccount(t *testing.T, name string, bound controlplane.Binding) kubernetes.Interface {
	t.Helper()
	restConfig, err := s.ServiceAccountConfig(t.Context(), config.Namespace, name, bound)
	if err != nil {
		t.Fatal(err)
	}
	return coreClient(t, restConfig)
}

// grantEverything is the mistake that the policy is a second line against.
func (s *apiServer) grantEverything(t *testing.T, account string) {
	t.Helper()
	_, err := s.core.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "mistake"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: config.Namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client := s.serviceAccount(t, account, controlplane.Binding{})
	eventually(t, "the role is granted", func() error {
		_, err := client.CoreV1().Secrets(config.Namespace).List(t.Context(), metav1.ListOptions{})
		return err
	})
}

// checkStatusOnly writes spec and labels through the status subresource and finds them unchanged.
func (s *apiServer) checkStatusOnly(t *testing.T, agent kubernetes.Interface) {
	t.Helper()
	call{http.MethodPatch, nodeHealths + "node-a/status",
		`{"metadata":{"labels":{"a":"b"}},"spec":{"fence":99},"status":{"summary":"Unknown"}}`}.must(t, agent)
	var got struct {
		Metadata metav1.ObjectMeta
		Spec     struct{ Fence int64 }
		Status   struct{ Summary string }
	}
	if err := json.Unmarshal(call{http.MethodGet, nodeHealths + "node-a", ""}.must(t, agent), &got); err != nil {
		t.Fatal(err)
	}
	if got.Spec.Fence != 1 || len(got.Metadata.Labels) != 0 || got.Status.Summary != "Unknown" {
		t.Errorf("got fence %d, labels %v, summary %q; want 1, none, Unknown", got.Spec.Fence, got.Metadata.Labels, got.Status.Summary)
	}
}

// checkNodeAnew deletes node-a and creates another of that name: the old pod's token is good for nothing.
func (s *apiServer) checkNodeAnew(t *testing.T, agent kubernetes.Interface) {
	t.Helper()
	for _, path := range []string{nodes + "node-a", nodeHealths + "node-a"} {
		call{http.MethodDelete, path, ""}.must(t, s.core)
	}
	s.addNode(t, "node-a")
	checkRefused(t, agent, refused{mayDo["its own condition, changed"], "node node-a was created anew"})
	checkRefused(t, agent, refused{mayDo["its health, by merge patch"], "node node-a was created anew"})
}
