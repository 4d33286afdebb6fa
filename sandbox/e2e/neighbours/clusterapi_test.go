package neighbours

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/replace"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// clusterAPICRDs are files of Cluster API's module.
var clusterAPICRDs = []string{
	"core/config/crd/bases/cluster.x-k8s.io_machines.yaml",
	"core/config/crd/bases/cluster.x-k8s.io_machinesets.yaml",
	"core/config/crd/bases/cluster.x-k8s.io_machinehealthchecks.yaml",
	"core/config/crd/bases/cluster.x-k8s.io_clusters.yaml",
	"controlplane/kubeadm/config/crd/bases/controlplane.cluster.x-k8s.io_kubeadmcontrolplanes.yaml",
}

const mark = replace.AnnotationRemediate

// byClusterAPI is the rung.
var byClusterAPI = v1alpha1.Rung{Name: "replace", Action: v1alpha1.RungReplace, Replace: &v1alpha1.Replace{By: v1alpha1.ReplaceByClusterAPI}}

// fleet is a Cluster with a MachineSet, and what it takes to replace one Machine.
type fleet struct {
	version                      string
	cluster, set, check, machine *unstructured.Unstructured
}

// machineOf makes the fleet whose one Machine is the node of the attempt.
func (r *rig) machineOf(version, name, providerID string) fleet {
	r.t.Helper()
	f := fleet{version: version}
	ref := "{apiGroup: infrastructure.cluster.x-k8s.io, kind: DockerMachine, name: m}"
	if version == "v1beta1" {
		ref = "{apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerMachine, name: m}"
	}
	head := func(kind string) string {
		return fmt.Sprintf("apiVersion: cluster.x-k8s.io/%s\nkind: %s\nmetadata: {name: %s, namespace: default}\n", version, kind, name)
	}
	f.cluster = r.make(head("Cluster") + "spec: {infrastructureRef: " + strings.ReplaceAll(ref, "DockerMachine", "DockerCluster") + "}\n")
	f.set = r.make(head("MachineSet") + fmt.Sprintf(`spec:
  clusterName: %[1]s
  selector: {matchLabels: {pool: %[1]s}}
  template:
    metadata: {labels: {pool: %[1]s}}
    spec: {clusterName: %[1]s, bootstrap: {dataSecretName: s}, infrastructureRef: %[2]s}
`, name, ref))
	f.check = r.make(head("MachineHealthCheck") + fmt.Sprintf("spec: {clusterName: %[1]s, selector: {matchLabels: {pool: %[1]s}}}\n", name))
	f.machine = r.make(fmt.Sprintf(`apiVersion: cluster.x-k8s.io/%[1]s
kind: Machine
metadata:
  name: %[2]s
  namespace: default
  labels: {pool: %[2]s, cluster.x-k8s.io/cluster-name: %[2]s}
  finalizers: [machine.cluster.x-k8s.io]
  ownerReferences: [{apiVersion: cluster.x-k8s.io/%[1]s, kind: MachineSet, name: %[2]s, uid: %[3]s, controller: true}]
spec: {clusterName: %[2]s, providerID: %[4]q, bootstrap: {dataSecretName: s}, infrastructureRef: %[5]s}
status: {nodeRef: {name: %[2]s}}
`, version, name, f.set.GetUID(), providerID, ref))
	return f
}

// TestClusterAPIReplacesAMachine walks through a replacement with Cluster API's part played: the MachineHealthCheck's
// and the MachineSet's conditions, the deletion, the end of the Node.
func TestClusterAPIReplacesAMachine(t *testing.T) {
	newRig(t, shared).walk("v1beta2")
}

// TestAnOlderServer has Cluster API in v1beta1 alone, and no Karpenter until later: what appears is found without a restart.
func TestAnOlderServer(t *testing.T) {
	r := newRig(t, olderServer(t))
	r.walk("v1beta1")
	a := r.attempt("karpenter-4", "test:///karpenter-4", byKarpenter)
	by := replace.New(r.controller)
	r.refuses(by, a, "Karpenter's NodeClaims are not served by the API server")
	files, err := karpenterModule.files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cp.Apply(t.Context(), files, "pkg/apis/crds/karpenter.sh_nodeclaims.yaml"); err != nil {
		t.Fatal(err)
	}
	r.refuses(by, a, "no NodeClaim of Karpenter has the Node's providerID")
}

func (r *rig) walk(version string) {
	r.t.Helper()
	a := r.attempt("capi-1", "test:///capi-1", byClusterAPI)
	f := r.machineOf(version, "capi-1", "test:///capi-1")
	by := replace.New(r.controller)
	r.refuses(by, a, "")
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "Machine default/capi-1 is marked for remediation")
	if got := r.live(f.machine).GetAnnotations()[mark]; got != a.ID {
		r.t.Fatalf("the mark is %q", got)
	}
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "its MachineHealthCheck has not seen the mark yet")
	r.say(f.machine, "HealthCheckSucceeded", "False", "HasRemediateAnnotation", "marked")
	r.step(a, by.Look, v1alpha1.RemedyRunning, "has not handed it to its owner")
	r.say(f.machine, "OwnerRemediated", "False", "WaitingForRemediation", "Waiting for remediation")
	r.step(a, by.Look, v1alpha1.RemedyRunning, "waits for its owner: WaitingForRemediation: Waiting for remediation")
	if err := r.admin.Delete(r.t.Context(), f.machine); err != nil {
		r.t.Fatal(err)
	}
	r.say(f.machine, "Deleting", "True", "DrainingNode", "Drain not completed yet")
	r.step(a, by.Look, v1alpha1.RemedyRunning, "is being deleted; its Node is still there (DrainingNode: Drain not completed yet)")
	if err := by.End(r.t.Context(), a); err != nil {
		r.t.Fatal(err)
	}
	if got := r.live(f.machine).GetAnnotations()[mark]; got != a.ID {
		r.t.Errorf("the mark of a Machine that is being deleted is %q", got)
	}
	a.Node = nil
	r.step(a, by.Look, v1alpha1.RemedySucceeded, "the Node is gone, and its Machine gone or being deleted")
	r.erase(f.machine)
	r.step(a, by.Look, v1alpha1.RemedySucceeded, "the Node is gone")
	if err := by.End(r.t.Context(), a); err != nil {
		r.t.Fatal(err)
	}
}

// TestClusterAPIRefusedByItsOwner is a replacement that the owner does not make: it fails at once, and the mark goes.
func TestClusterAPIRefusedByItsOwner(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("capi-2", "test:///capi-2", byClusterAPI)
	f := r.machineOf("v1beta2", "capi-2", "test:///capi-2")
	by := replace.New(r.controller)
	r.step(a, by.Begin, v1alpha1.RemedyRunning, "is marked")
	r.say(f.machine, "OwnerRemediated", "False", "CannotBeRemediated", "pending removal due to rollout")
	r.step(a, by.Look, v1alpha1.RemedyFailed, "the owner of Machine default/capi-2 does not replace it: CannotBeRemediated: pending removal due to rollout")
	for range 2 {
		if err := by.End(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if got, there := r.live(f.machine).GetAnnotations()[mark]; there {
		t.Errorf("the mark %q is still there", got)
	}
	r.refuses(by, a, "MachineSet default/capi-2 does not replace Machine default/capi-2: CannotBeRemediated")
}

// TestClusterAPIRefusals changes one thing after the other that Cluster API's own objects say.
func TestClusterAPIRefusals(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("capi-3", "test:///capi-3", byClusterAPI)
	by := replace.New(r.controller)
	r.refuses(by, a, "no Machine of Cluster API has capi-3 in status.nodeRef")
	f := r.machineOf("v1beta2", "capi-3", "test:///capi-3")
	r.refuses(by, a, "")
	for _, step := range []struct {
		on          *unstructured.Unstructured
		patch, back string
		want        string
	}{
		{f.machine, `{"metadata":{"annotations":{"cluster.x-k8s.io/skip-remediation":""}}}`, `{"metadata":{"annotations":null}}`, "has the annotation cluster.x-k8s.io/skip-remediation"},
		{f.machine, `{"metadata":{"annotations":{"cluster.x-k8s.io/remediate-machine":""}}}`, `{"metadata":{"annotations":null}}`, "from somebody else already"},
		{f.cluster, `{"spec":{"paused":true}}`, `{"spec":{"paused":false}}`, "Cluster default/capi-3 is paused"},
		{f.check, `{"spec":{"selector":{"matchLabels":{"pool":"other"}}}}`, `{"spec":{"selector":{"matchLabels":{"pool":"capi-3"}}}}`, "no MachineHealthCheck in namespace default selects Machine default/capi-3"},
		{f.check, `{"spec":{"remediation":{"templateRef":{"apiVersion":"a.b/v1","kind":"FenceTemplate","name":"n"}}}}`, `{"spec":{"remediation":null}}`, "hands Machines to an external remediator (FenceTemplate)"},
		{f.check, `{"status":{"remediationsAllowed":0,"conditions":[{"type":"RemediationAllowed","status":"False","reason":"TooManyUnhealthy","message":"3 of 4","lastTransitionTime":"2026-11-23T10:00:00Z"}]}}`,
			`{"status":{"remediationsAllowed":1,"conditions":[]}}`, "allows no remediation now: TooManyUnhealthy: 3 of 4"},
	} {
		r.patch(step.on, step.patch)
		r.refuses(by, a, step.want)
		r.patch(step.on, step.back)
		r.refuses(by, a, "")
	}
	r.patch(f.machine, `{"metadata":{"labels":{"cluster.x-k8s.io/control-plane":""}}}`)
	r.refuses(by, a, "is a control plane's, and no KubeadmControlPlane's")
	kcp := r.make(`apiVersion: controlplane.cluster.x-k8s.io/v1beta2
kind: KubeadmControlPlane
metadata: {name: capi-3, namespace: default}
spec:
  version: v1.37.2
  machineTemplate: {spec: {infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: DockerMachineTemplate, name: m}}}
`)
	r.patch(f.machine, fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"controlplane.cluster.x-k8s.io/v1beta2","kind":"KubeadmControlPlane",
		"name":"capi-3","uid":%q,"controller":true}]}}`, kcp.GetUID()))
	r.refuses(by, a, "is the only machine of its control plane")
}

// TestClusterAPIHasNoOtherRight tries what the controller's role would let it do to Machines, and the admission policies do
// not: to change anything but the mark, and to write when another leads.
func TestClusterAPIHasNoOtherRight(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("capi-4", "test:///capi-4", byClusterAPI)
	f := r.machineOf("v1beta2", "capi-4", "test:///capi-4")
	for patch, want := range map[string]string{
		`{"spec":{"providerID":"test:///other"}}`:         "the controller may not change a Machine's spec or status",
		`{"metadata":{"labels":{"pool":"other"}}}`:        "the controller may not change labels, finalizers or owners of a Machine",
		`{"metadata":{"finalizers":[]}}`:                  "the controller may not change labels, finalizers or owners of a Machine",
		`{"metadata":{"ownerReferences":null}}`:           "the controller may not change labels, finalizers or owners of a Machine",
		`{"metadata":{"annotations":{"a":"b"}}}`:          "of a Machine's annotations the controller may change cluster.x-k8s.io/remediate-machine only",
		`{"metadata":{"annotations":{"kept":null}}}`:      "of a Machine's annotations the controller may change cluster.x-k8s.io/remediate-machine only",
		`{"metadata":{"annotations":{"kept":"changed"}}}`: "of a Machine's annotations the controller may change cluster.x-k8s.io/remediate-machine only",
	} {
		r.patch(f.machine, `{"metadata":{"annotations":{"kept":"as it is"}}}`)
		r.await(patch, within, func() error {
			return wantRefusal(r.controller.Patch(t.Context(), f.machine.DeepCopy(), client.RawPatch("application/merge-patch+json", []byte(patch)), client.DryRunAll), want)
		})
	}
	if err := wantRefusal(r.controller.Delete(t.Context(), f.machine.DeepCopy(), client.DryRunAll), "cannot delete resource"); err != nil {
		t.Error(err)
	}
	stale := replace.New(r.as("pod-0"))
	_, err := stale.Begin(t.Context(), a)
	if err := wantRefusal(err, "this controller does not lead: the write is by roundhouse-pod-0, the leader is roundhouse-pod-1"); err != nil {
		t.Error(err)
	}
}

func wantRefusal(err error, text string) error {
	if err == nil {
		return fmt.Errorf("want a refusal that says %q, got none", text)
	}
	if !strings.Contains(err.Error(), text) {
		return fmt.Errorf("want a refusal that says %q, got: %w", text, err)
	}
	return nil
}

// TestClusterAPIWithoutARight is the refusal where the chart was installed without remedies.clusterAPI.
func TestClusterAPIWithoutARight(t *testing.T) {
	r := newRig(t, shared)
	a := r.attempt("capi-5", "test:///capi-5", byClusterAPI)
	binding := r.unbind("roundhouse-controller-clusterapi")
	by := replace.New(r.controller)
	r.await("the right is gone", within, func() error {
		why, err := by.Check(t.Context(), a)
		if err != nil || why != "the controller may not use Cluster API's objects here: install the chart with remedies.clusterAPI=true" {
			return fmt.Errorf("got %q, %w", why, err)
		}
		return nil
	})
	binding()
	r.await("the right is back", within, func() error {
		why, err := by.Check(t.Context(), a)
		if err != nil || !strings.HasPrefix(why, "no Machine") {
			return fmt.Errorf("got %q, %w", why, err)
		}
		return nil
	})
}

// olderServer is an API server of its own, to which Cluster API's CRDs were applied without v1beta2; it has no Karpenter.
func olderServer(t *testing.T) *controlplane.ControlPlane {
	t.Helper()
	cp := controlplane.ForTest(t, controlplane.Options{})
	if err := cp.Apply(t.Context(), config.Files, "crd", "rbac", "admission"); err != nil {
		t.Fatal(err)
	}
	files, err := clusterAPIModule.files(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var crds []*unstructured.Unstructured
	for _, name := range clusterAPICRDs {
		crds = append(crds, older(t, files, name))
	}
	if err := cp.ApplyObjects(t.Context(), crds...); err != nil {
		t.Fatal(err)
	}
	if err := lead(t.Context(), cp); err != nil {
		t.Fatal(err)
	}
	return cp
}

// older reads a CRD and takes v1beta2 out.
func older(t *testing.T, files fs.FS, name string) *unstructured.Unstructured {
	t.Helper()
	data, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(data, &crd.Object); err != nil {
		t.Fatal(err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		version := v.(map[string]any)
		if version["name"] == "v1beta1" {
			version["storage"] = true
			if err := unstructured.SetNestedSlice(crd.Object, []any{version}, "spec", "versions"); err != nil {
				t.Fatal(err)
			}
			return crd
		}
	}
	t.Fatalf("%s has no v1beta1", name)
	return nil
}
