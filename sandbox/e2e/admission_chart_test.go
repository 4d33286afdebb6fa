package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/roundhouse-dev/roundhouse/config"
)

// chartNamespace is another one than the manifests name, so that a forgotten replacement shows.
const chartNamespace = "gpu-ops"

// rights are what the controller may do from which mode on; the empty mode is never.
var rights = []struct {
	from, verb, group, resource, sub string
}{
	{"observe", "list", "", "nodes", ""},
	{"observe", "list", "", "pods", ""},
	{"observe", "patch", "", "nodes", "status"},
	{"observe", "list", "resource.k8s.io", "resourceslices", ""},
	{"observe", "create", "roundhouse.dev", "remediations", ""},
	{"observe", "update", "roundhouse.dev", "remediations", "status"},
	{"observe", "create", "roundhouse.dev", "nodehealths", ""},
	{"observe", "create", "events.k8s.io", "events", ""},
	{"quarantine", "patch", "", "nodes", ""},
	{"quarantine", "create", "resource.k8s.io", "devicetaintrules", ""},
	{"quarantine", "delete", "resource.k8s.io", "devicetaintrules", ""},
	{"remediate", "create", "", "pods", "eviction"},
	{"", "create", "batch", "jobs", ""},
	{"", "pause", "roundhouse.dev", "operands", ""},
	{"", "get", "", "pods", "log"},
	{"", "delete", "", "pods", ""},
	{"", "create", "", "pods", ""},
	{"", "delete", "", "nodes", ""},
	{"", "get", "", "secrets", ""},
	{"", "update", "roundhouse.dev", "nodehealths", "status"},
	{"", "update", "roundhouse.dev", "remediationpolicies", ""},
	{"", "delete", "roundhouse.dev", "remediationholds", ""},
	{"", "create", "", "serviceaccounts", "token"},
	{"", "escalate", "rbac.authorization.k8s.io", "clusterroles", ""},
	{"", "list", "cluster.x-k8s.io", "machines", ""},
	{"", "list", "karpenter.sh", "nodeclaims", ""},
}

// remedyRights are what each remedy adds that asks others; they have no mode.
var remedyRights = map[string][]authorizationv1.ResourceAttributes{
	"clusterAPI": {
		{Verb: "list", Group: "cluster.x-k8s.io", Resource: "machines"},
		{Verb: "patch", Group: "cluster.x-k8s.io", Resource: "machines"},
		{Verb: "list", Group: "cluster.x-k8s.io", Resource: "machinehealthchecks"},
		{Verb: "get", Group: "cluster.x-k8s.io", Resource: "clusters"},
		{Verb: "get", Group: "cluster.x-k8s.io", Resource: "machinesets"},
		{Verb: "get", Group: "controlplane.cluster.x-k8s.io", Resource: "kubeadmcontrolplanes"},
	},
	"karpenter": {
		{Verb: "list", Group: "karpenter.sh", Resource: "nodeclaims"},
		{Verb: "delete", Group: "karpenter.sh", Resource: "nodeclaims"},
		{Verb: "get", Group: "karpenter.sh", Resource: "nodepools"},
	},
	"external": nil, // What remediators grant, gathered by the controller manager: TestExternalRightsAreGathered.
}

// neverByRemedies are rights that no remedy adds.
var neverByRemedies = []authorizationv1.ResourceAttributes{
	{Verb: "delete", Group: "cluster.x-k8s.io", Resource: "machines"},
	{Verb: "patch", Group: "cluster.x-k8s.io", Resource: "machines", Subresource: "status"},
	{Verb: "patch", Group: "cluster.x-k8s.io", Resource: "machinesets"},
	{Verb: "patch", Group: "karpenter.sh", Resource: "nodeclaims"},
	{Verb: "delete", Group: "karpenter.sh", Resource: "nodepools"},
	{Verb: "delete", Resource: "nodes"},
}

// TestChart renders the chart in each mode, applies it to a real API server and asks what its controller may do.
func TestChart(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: chartNamespace}}
	if _, err := s.core.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	modes := []string{"observe", "quarantine", "remediate"}
	for i, mode := range modes {
		objects := renderChart(t, "--set", "mode="+mode, "--set", "samplePolicy=true")
		if err := s.ApplyObjects(t.Context(), objects...); err != nil {
			t.Fatalf("mode %s: %v", mode, err)
		}
		for _, right := range rights {
			from := slices.Index(modes, right.from)
			want := from >= 0 && from <= i
			name := strings.TrimSuffix(fmt.Sprintf("mode %s: %s %s %s/%s", mode, right.verb, right.group, right.resource, right.sub), "/")
			t.Run(name, func(t *testing.T) {
				attributes := authorizationv1.ResourceAttributes{Verb: right.verb, Group: right.group, Resource: right.resource, Subresource: right.sub}
				eventually(t, fmt.Sprintf("allowed is %t", want), func() error { return s.checkRight(t, attributes, want) })
			})
		}
		t.Run("mode "+mode+": the agent's pod", func(t *testing.T) { checkAgentPod(t, mode, findObject[appsv1.DaemonSet](t, objects, "DaemonSet")) })
	}
	t.Run("the Secrets of BMCs that are named, and no other", func(t *testing.T) {
		objects := renderChart(t, "--set", "mode=remediate,remedies.redfish.secrets={bmc}")
		if err := s.ApplyObjects(t.Context(), objects...); err != nil {
			t.Fatal(err)
		}
		for _, right := range []struct {
			verb, namespace, name string
			want                  bool
		}{
			{"get", chartNamespace, "bmc", true},
			{"get", chartNamespace, "other", false},
			{"get", "default", "bmc", false},
			{"list", chartNamespace, "", false},
			{"watch", chartNamespace, "bmc", false},
			{"update", chartNamespace, "bmc", false},
		} {
			attributes := authorizationv1.ResourceAttributes{Verb: right.verb, Resource: "secrets", Namespace: right.namespace, Name: right.name}
			eventually(t, fmt.Sprintf("%+v", right), func() error { return s.checkRight(t, attributes, right.want) })
		}
	})
	s.checkRemedies(t)
	t.Run("pods are deleted only where the chart says so", func(t *testing.T) {
		if err := s.ApplyObjects(t.Context(), renderChart(t, "--set", "mode=remediate,drain.deletePods=true")...); err != nil {
			t.Fatal(err)
		}
		for verb, want := range map[string]bool{"delete": true, "deletecollection": false, "create": false, "patch": false} {
			attributes := authorizationv1.ResourceAttributes{Namespace: "default", Verb: verb, Resource: "pods"}
			eventually(t, fmt.Sprintf("%s pods: %t", verb, want), func() error { return s.checkRight(t, attributes, want) })
		}
	})
	t.Run("remedies that ask others", func(t *testing.T) { s.checkNeighbours(t) })
	t.Run("no policy is installed unless asked for", func(t *testing.T) {
		for _, object := range renderChart(t) {
			if object.GetKind() == "RemediationPolicy" {
				t.Errorf("found %s", object.GetName())
			}
		}
	})
	for values, want := range map[string]string{
		"mode=aggressive":                          "value must be one of 'observe', 'quarantine', 'remediate'",
		"mode=remediate,agent.privileged=false":    "mode remediate needs agent.privileged",
		"agent.dailyLimit=1000":                    "maximum: got 1,000, want 64",
		"agent.npdConfigMap=npd":                   "agent.npdConfigMap needs agent.privileged",
		"mode=quarantine,remedies.jobs=true":       "remedies.jobs needs mode remediate",
		"drain.deletePods=true":                    "drain.deletePods needs mode remediate: in mode observe nothing is drained",
		"drain.delete=true":                        "additional properties 'delete' not allowed",
		"remedies.pauseOperands=true":              "remedies.pauseOperands needs mode remediate",
		"remedies.everything=true":                 "additional properties 'everything' not allowed",
		"agent.podResources=var/lib/kubelet":       "does not match pattern",
		"agent.nvml=perhaps":                       "got string, want boolean",
		"remedies.redfish.secrets=bmc":             "got string, want array",
		"remedies.redfish.secrets={*}":             "does not match pattern",
		"remedies.redfish.secrets={bmc}":           "remedies.redfish.secrets needs mode remediate: in mode observe nothing is repaired",
		"controller.redfish.secrets={bmc}":         "additional properties 'redfish' not allowed",
		"remedies.karpenter=true":                  "remedies.karpenter needs mode remediate: in mode observe nothing is repaired",
		"mode=quarantine,remedies.external=true":   "remedies.external needs mode remediate: in mode quarantine nothing is repaired",
		"remedies.karpentr=true":                   "additional properties 'karpentr' not allowed",
		"controller.alertmanagerURL=http://a.test": "additional properties 'alertmanagerURL' not allowed",
	} {
		t.Run("refused: "+values, func(t *testing.T) {
			if _, err := helmTemplate(t, "--set", values); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// checkRemedies installs what remedies need beyond mode remediate, which is given in the controller's namespace or not at all.
func (s *apiServer) checkRemedies(t *testing.T) {
	t.Helper()
	if err := s.ApplyObjects(t.Context(), renderChart(t, "--set", "mode=remediate,remedies.jobs=true,remedies.pauseOperands=true")...); err != nil {
		t.Fatal(err)
	}
	for _, right := range []struct {
		verb, group, resource, sub string
		here, elsewhere            bool
	}{
		{"create", "batch", "jobs", "", true, false},
		{"delete", "batch", "jobs", "", true, false},
		{"update", "batch", "jobs", "", false, false},
		{"get", "", "podtemplates", "", true, false},
		{"create", "", "podtemplates", "", false, false},
		{"get", "", "pods", "log", true, false},
		{"create", "resource.k8s.io", "resourceclaims", "", true, false},
		{"create", "", "pods", "", false, false},
		{"delete", "", "pods", "", false, false},
		{"pause", "roundhouse.dev", "operands", "", true, true},
	} {
		for namespace, want := range map[string]bool{chartNamespace: right.here, "default": right.elsewhere} {
			t.Run(fmt.Sprintf("remedies: %s %s/%s in %s", right.verb, right.resource, right.sub, namespace), func(t *testing.T) {
				attributes := authorizationv1.ResourceAttributes{Namespace: namespace, Verb: right.verb, Group: right.group, Resource: right.resource, Subresource: right.sub}
				eventually(t, fmt.Sprintf("allowed is %t", want), func() error { return s.checkRight(t, attributes, want) })
			})
		}
	}
}

// checkNeighbours installs the chart with one remedy that asks others after the other, and asks what each adds.
func (s *apiServer) checkNeighbours(t *testing.T) {
	args := []string{"--set", "mode=remediate"}
	for _, remedy := range slices.Sorted(maps.Keys(remedyRights)) {
		for _, right := range remedyRights[remedy] {
			if err := s.checkRight(t, right, false); err != nil {
				t.Errorf("%s %s before remedies.%s: %v", right.Verb, right.Resource, remedy, err)
			}
		}
		args = append(args, "--set", "remedies."+remedy+"=true")
		objects := renderChart(t, args...)
		if err := s.ApplyObjects(t.Context(), objects...); err != nil {
			t.Fatal(err)
		}
		for _, right := range remedyRights[remedy] {
			eventually(t, fmt.Sprintf("remedies.%s: %s %s", remedy, right.Verb, right.Resource), func() error { return s.checkRight(t, right, true) })
		}
	}
	for _, right := range neverByRemedies {
		if err := s.checkRight(t, right, false); err != nil {
			t.Errorf("%s %s/%s: %v", right.Verb, right.Resource, right.Subresource, err)
		}
	}
}

// checkRight asks the API server what the controller's service account may do.
func (s *apiServer) checkRight(t *testing.T, attributes authorizationv1.ResourceAttributes, want bool) error {
	t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               "system:serviceaccount:" + chartNamespace + ":" + config.ControllerServiceAccount,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + chartNamespace, "system:authenticated"},
		ResourceAttributes: &attributes,
	}}
	answer, err := s.core.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if answer.Status.Allowed != want {
		return fmt.Errorf("allowed is %t: %s", answer.Status.Allowed, answer.Status.Reason)
	}
	return nil
}

// checkAgentPod holds the agent's pod to what its mode needs.
func checkAgentPod(t *testing.T, mode string, set *appsv1.DaemonSet) {
	t.Helper()
	pod := set.Spec.Template.Spec
	container := pod.Containers[0]
	acts := mode == "remediate"
	if pod.HostPID != acts || *container.SecurityContext.Privileged != acts {
		t.Errorf("hostPID %t, privileged %t; want %t for both", pod.HostPID, *container.SecurityContext.Privileged, acts)
	}
	if slices.Contains(container.Args, "--observe-only") == acts {
		t.Errorf("args %v: --observe-only goes with every mode but remediate", container.Args)
	}
	// A device is reset through sysfs.
	for _, m := range container.VolumeMounts {
		if m.MountPath == "/sys" && m.ReadOnly == acts {
			t.Errorf("/sys is mounted read-only: %t", m.ReadOnly)
		}
	}
	// The host's root is there for NVIDIA's library, and only for an agent that may open its devices.
	host := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil && v.HostPath.Path == "/" })
	if host != acts || slices.Contains(container.Args, "--no-nvml") == acts || slices.Contains(container.Args, "--host-root=/host") != acts {
		t.Errorf("the host's root is mounted: %t, args %v; want both where the agent is privileged", host, container.Args)
	}
	asks := slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool {
		return v.HostPath != nil && v.HostPath.Path == "/var/lib/kubelet/pod-resources"
	})
	if !asks || !slices.Contains(container.Args, "--pod-resources=/var/lib/kubelet/pod-resources/kubelet.sock") {
		t.Errorf("the kubelet's directory is mounted: %t, args %v; want both in every mode", asks, container.Args)
	}
	if pod.HostNetwork || pod.HostIPC || *pod.AutomountServiceAccountToken {
		t.Error("the agent needs neither the host's network nor its IPC nor a token besides the one that is projected")
	}
	if c := container.SecurityContext.Capabilities; !acts && (len(c.Add) != 0 || c.Drop[0] != "ALL") {
		t.Errorf("capabilities %v; want none", c)
	}
	if slices.Contains(container.Args, "--no-kernel-log") == acts {
		t.Errorf("args %v: the kernel log is read where the agent is privileged", container.Args)
	}
	for _, mount := range container.VolumeMounts {
		if !mount.ReadOnly && mount.MountPath != "/var/lib/roundhouse" && (!acts || mount.MountPath != "/sys") {
			t.Errorf("%s can be written", mount.MountPath)
		}
	}
	if set.Spec.Template.Labels["app.kubernetes.io/name"] != "roundhouse-agent" {
		t.Error("the controller would not find the agents by their label")
	}
}

// renderChart renders the chart with its CRDs.
func renderChart(t *testing.T, args ...string) []*unstructured.Unstructured {
	t.Helper()
	data, err := helmTemplate(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(config.Namespace)) {
		t.Errorf("the chart names %s although it is installed in %s", config.Namespace, chartNamespace)
	}
	var objects []*unstructured.Unstructured
	decoder := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 1<<16)
	for {
		object := &unstructured.Unstructured{}
		if err := decoder.Decode(&object.Object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// helmTemplate runs helm, which make lint builds.
func helmTemplate(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	helm := os.Getenv("HELM")
	if helm == "" {
		helm = "../../.cache/tools/helm"
	}
	helm, err := filepath.Abs(helm)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(helm); err != nil {
		t.Fatalf("helm is not built: run make lint once: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, helm, append([]string{
		"template", "roundhouse", "../../charts/roundhouse", "--namespace", chartNamespace, "--include-crds", "--kube-version", "1.37.2",
	}, args...)...)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("rendering the chart: %w: %s", err, problems.String())
	}
	return out.Bytes(), nil
}

// findObject is the first object of a kind, typed.
func findObject[T any](t *testing.T, objects []*unstructured.Unstructured, kind string) *T {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() != kind {
			continue
		}
		typed := new(T)
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, typed, true); err != nil {
			t.Fatal(err)
		}
		return typed
	}
	t.Fatalf("the chart has no %s", kind)
	return nil
}
