package controlplane

import (
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const nodeNameClaim = "authentication.kubernetes.io/node-name"

// addNode makes a Node as a kubelet would register it, ready and with room.
func addNode(t *testing.T, name string) *corev1.Node {
	t.Helper()
	nodes := shared.client.CoreV1().Nodes()
	room := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("64"),
		corev1.ResourceMemory: resource.MustParse("256Gi"),
		corev1.ResourcePods:   resource.MustParse("110"),
	}
	node, err := nodes.Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nodes.Delete(contextOf(t), name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("deleting node %s: %v", name, err)
		}
	})
	return node
}

// whoAmI asks the server as whom it sees the owner of config.
func whoAmI(t *testing.T, config *rest.Config) authenticationv1.UserInfo {
	t.Helper()
	client := clientFor(t, config)
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func clientFor(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestServiceAccountTokensNameTheNodeTheyAreBoundTo(t *testing.T) {
	node := addNode(t, "token-node")
	pod := addPod(t, "token-pod", node.Name)
	tests := map[string]struct {
		binding  Binding
		wantNode string
	}{
		"bound to a pod of the node": {binding: ToPod(pod.Name), wantNode: node.Name},
		"bound to the node itself":   {binding: ToNode(node.Name), wantNode: node.Name},
		"bound to nothing":           {binding: Binding{}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			config, err := shared.ServiceAccountConfig(t.Context(), metav1.NamespaceDefault, "default", tc.binding)
			if err != nil {
				t.Fatal(err)
			}
			user := whoAmI(t, config)
			if user.Username != "system:serviceaccount:default:default" {
				t.Errorf("user = %q", user.Username)
			}
			if got := strings.Join(user.Extra[nodeNameClaim], ","); got != tc.wantNode {
				t.Errorf("%s = %q, want %q", nodeNameClaim, got, tc.wantNode)
			}
		})
	}
}

func TestATokenNeedsAnAccountAndAnObjectThatExist(t *testing.T) {
	tests := map[string]struct {
		account string
		binding Binding
	}{
		"an account that is not there": {account: "nobody"},
		"a pod that is not there":      {account: "default", binding: ToPod("nothing")},
		"a node that is not there":     {account: "default", binding: ToNode("nothing")},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := shared.ServiceAccountConfig(t.Context(), metav1.NamespaceDefault, tc.account, tc.binding)
			if !apierrors.IsNotFound(err) {
				t.Errorf("error = %v, want NotFound", err)
			}
		})
	}
}

func TestAUserMayDoWhatItsRolesSayAndNoMore(t *testing.T) {
	own, other := addNode(t, "own-node"), addNode(t, "other-node")
	stranger, err := shared.UserConfig("stranger", "visitors")
	if err != nil {
		t.Fatal(err)
	}
	kubelet, err := shared.UserConfig("system:node:"+own.Name, "system:nodes")
	if err != nil {
		t.Fatal(err)
	}
	patch := []byte(`{"status":{"nodeInfo":{"kubeletVersion":"v1.37.2"}}}`)
	tests := map[string]struct {
		config      *rest.Config
		node        string
		wantAllowed bool
	}{
		"a stranger may change no node":       {config: stranger, node: own.Name},
		"a kubelet may change its own node":   {config: kubelet, node: own.Name, wantAllowed: true},
		"a kubelet may not change another's":  {config: kubelet, node: other.Name},
		"the administrator may change either": {config: shared.AdminConfig(), node: other.Name, wantAllowed: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := clientFor(t, tc.config).CoreV1().Nodes().PatchStatus(t.Context(), tc.node, patch)
			if tc.wantAllowed != (err == nil) || (err != nil && !apierrors.IsForbidden(err)) {
				t.Errorf("error = %v, want allowed: %t, else Forbidden", err, tc.wantAllowed)
			}
		})
	}
}
