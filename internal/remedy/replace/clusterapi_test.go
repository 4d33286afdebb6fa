package replace_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/replace"
)

// capi is a kind of Cluster API's in the version.
func capi(version, kind string) schema.GroupVersionKind {
	group := "cluster.x-k8s.io"
	if kind == "KubeadmControlPlane" {
		group = "controlplane.cluster.x-k8s.io"
	}
	return schema.GroupVersionKind{Group: group, Version: version, Kind: kind}
}

// clusterOf is a worker of a MachineSet with all that it takes to be replaced.
func clusterOf(version string) map[string]*unstructured.Unstructured {
	return map[string]*unstructured.Unstructured{
		"machine": object(capi(version, "Machine"), "fleet", "worker-1", map[string]any{
			"metadata": map[string]any{
				"labels": map[string]any{"pool": "gpu", "cluster.x-k8s.io/cluster-name": "prod"},
				"ownerReferences": []any{map[string]any{
					"apiVersion": "cluster.x-k8s.io/" + version, "kind": "MachineSet", "name": "workers", "uid": "uid-of-workers", "controller": true}},
			},
			"spec":   map[string]any{"clusterName": "prod", "providerID": "aws:///a/i-1"},
			"status": map[string]any{"nodeRef": map[string]any{"name": node}},
		}),
		"set":     object(capi(version, "MachineSet"), "fleet", "workers", map[string]any{}),
		"cluster": object(capi(version, "Cluster"), "fleet", "prod", map[string]any{}),
		"check": object(capi(version, "MachineHealthCheck"), "fleet", "gpu-check", map[string]any{
			"spec": map[string]any{"clusterName": "prod", "selector": map[string]any{"matchLabels": map[string]any{"pool": "gpu"}}},
		}),
	}
}

func kindsOf(version string) (kinds []schema.GroupVersionKind) {
	for _, kind := range []string{"Machine", "MachineSet", "Cluster", "MachineHealthCheck", "KubeadmControlPlane"} {
		kinds = append(kinds, capi(version, kind))
	}
	return kinds
}

func clusterWorld(t *testing.T, changes ...change) *world {
	t.Helper()
	return newWorld(t, v1alpha1.ReplaceByClusterAPI, clusterOf("v1beta2"), kindsOf("v1beta2"), changes...)
}

// controlPlane makes the machine one of a KubeadmControlPlane of as many.
func controlPlane(size int) change {
	return func(w *world) {
		w.objects["kcp"] = object(capi("v1beta2", "KubeadmControlPlane"), "fleet", "cp", map[string]any{})
		set("machine", []any{map[string]any{"apiVersion": "controlplane.cluster.x-k8s.io/v1beta2", "kind": "KubeadmControlPlane",
			"name": "cp", "uid": "uid-of-cp", "controller": true}}, "metadata", "ownerReferences")(w)
		set("machine", "", "metadata", "labels", "cluster.x-k8s.io/control-plane")(w)
		for i := 1; i < size; i++ {
			peer := w.objects["machine"].DeepCopy()
			peer.SetName(fmt.Sprintf("cp-%d", i))
			set("machine", peer.GetName(), "status", "nodeRef", "name")(&world{t: w.t, objects: map[string]*unstructured.Unstructured{"machine": peer}})
			w.objects[peer.GetName()] = peer
		}
	}
}

// copyOf puts a second object beside the first, changed.
func copyOf(key, name string, changes ...change) change {
	return func(w *world) {
		second := w.objects[key].DeepCopy()
		second.SetName(name)
		second.SetUID(types.UID("uid-of-" + name))
		w.objects[name] = second
		for _, c := range changes {
			c(w)
		}
	}
}

const mark = replace.AnnotationRemediate

// clusterRefusals are the worlds in which marking the Machine would do nothing, or harm, and what is said of it.
var clusterRefusals = map[string]struct {
	changes []change
	want    string
}{
	"Cluster API is not there":           {[]change{unserved("Machine")}, "Machines are not in this cluster"},
	"the Node is gone":                   {[]change{gone}, "the Node is gone"},
	"the Node is another":                {[]change{another}, "the Node is gone"},
	"no Machine names the node":          {[]change{named("gpu-0001")}, "no Machine of Cluster API has gpu-0001 in status.nodeRef"},
	"the Machine is another instance":    {[]change{set("machine", "aws:///a/i-2", "spec", "providerID")}, "no Machine of Cluster API has gpu-0417"},
	"the Machine names another node UID": {[]change{set("machine", "old", "status", "nodeRef", "uid")}, "no Machine of Cluster API has gpu-0417"},
	"two Machines name the node":         {[]change{copyOf("machine", "worker-2")}, "both have gpu-0417 in status.nodeRef"},
	"another has marked it":              {[]change{annotate("machine", mark, "by-hand")}, "Machine fleet/worker-1 has the annotation cluster.x-k8s.io/remediate-machine from somebody else already"},
	"an earlier attempt has marked it":   {[]change{annotate("machine", mark, "gpu-0417-k3q7x2m9aa-0")}, "from somebody else already"},
	"it is to be skipped":                {[]change{annotate("machine", "cluster.x-k8s.io/skip-remediation", "")}, "has the annotation cluster.x-k8s.io/skip-remediation"},
	"it is paused":                       {[]change{annotate("machine", "cluster.x-k8s.io/paused", "")}, "has the annotation cluster.x-k8s.io/paused"},
	"its Cluster is not there":           {[]change{without("cluster")}, "Cluster prod of Machine fleet/worker-1 is not there"},
	"its Cluster is not served":          {[]change{unserved("Cluster")}, "Cluster.cluster.x-k8s.io is not served"},
	"its Cluster is paused":              {[]change{set("cluster", true, "spec", "paused")}, "Cluster fleet/prod is paused (spec.paused)"},
	"it has no owner":                    {[]change{unset("machine", "metadata", "ownerReferences")}, "has no owner that would make another"},
	"its owner is no MachineSet": {[]change{set("machine", []any{map[string]any{"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachinePool",
		"name": "pool", "uid": "1", "controller": true}}, "metadata", "ownerReferences")}, "is of MachinePool pool: Cluster API replaces those of a MachineSet"},
	"its owner has the name of a MachineSet in another group": {[]change{set("machine", []any{map[string]any{"apiVersion": "example.com/v1", "kind": "MachineSet",
		"name": "workers", "uid": "uid-of-workers", "controller": true}}, "metadata", "ownerReferences")}, "is of MachineSet workers: Cluster API replaces"},
	"its MachineSet is gone":           {[]change{without("set")}, "MachineSet workers of Machine fleet/worker-1 is not there"},
	"its MachineSet was created anew":  {[]change{set("set", "new", "metadata", "uid")}, "was created anew"},
	"its MachineSet is being deleted":  {[]change{deleting("set")}, "MachineSet fleet/workers is being deleted, and would make no other machine"},
	"its MachineSet is paused":         {[]change{annotate("set", "cluster.x-k8s.io/paused", "")}, "MachineSet fleet/workers has the annotation cluster.x-k8s.io/paused"},
	"its owner has refused before":     {[]change{condition("machine", "OwnerRemediated", "False", "CannotBeRemediated", "pending removal due to rollout")}, "MachineSet fleet/workers does not replace Machine fleet/worker-1: CannotBeRemediated: pending removal"},
	"a control plane of one":           {[]change{controlPlane(1)}, "is the only machine of its control plane"},
	"a control plane with one left":    {[]change{controlPlane(2), deleting("cp-1")}, "is the only machine of its control plane"},
	"a control plane of no kubeadm":    {[]change{set("machine", "", "metadata", "labels", "cluster.x-k8s.io/control-plane")}, "is a control plane's, and no KubeadmControlPlane's"},
	"no MachineHealthCheck":            {[]change{without("check")}, "no MachineHealthCheck in namespace fleet selects Machine fleet/worker-1"},
	"MachineHealthCheck is not served": {[]change{unserved("MachineHealthCheck")}, "MachineHealthCheck.cluster.x-k8s.io is not served"},
	"one for other labels":             {[]change{set("check", "cpu", "spec", "selector", "matchLabels", "pool")}, "no MachineHealthCheck"},
	"one for another cluster":          {[]change{set("check", "test", "spec", "clusterName")}, "no MachineHealthCheck"},
	"one in another namespace":         {[]change{set("check", "other", "metadata", "namespace")}, "no MachineHealthCheck"},
	"one with an empty selector":       {[]change{set("check", map[string]any{}, "spec", "selector")}, "no MachineHealthCheck"},
	"one with a selector of no shape":  {[]change{set("check", "all", "spec", "selector")}, "no MachineHealthCheck"},
	"one with labels of no shape":      {[]change{set("check", int64(1), "spec", "selector", "matchLabels")}, "no MachineHealthCheck"},
	"one with an unknown operator":     {[]change{set("check", []any{map[string]any{"key": "a", "operator": "Like"}}, "spec", "selector", "matchExpressions")}, "no MachineHealthCheck"},
	"one that is paused":               {[]change{annotate("check", "cluster.x-k8s.io/paused", "")}, "MachineHealthCheck fleet/gpu-check has the annotation cluster.x-k8s.io/paused"},
	"one with a remediator of its own": {[]change{set("check", "Metal3RemediationTemplate", "spec", "remediation", "templateRef", "kind")}, "hands Machines to an external remediator (Metal3RemediationTemplate)"},
	"the same in v1beta1":              {[]change{set("check", "Metal3RemediationTemplate", "spec", "remediationTemplate", "kind")}, "hands Machines to an external remediator"},
	"one of two has a remediator":      {[]change{copyOf("check", "b", set("b", "XTemplate", "spec", "remediation", "templateRef", "kind"))}, "MachineHealthCheck fleet/b hands Machines"},
	"one that allows none":             {[]change{condition("check", "RemediationAllowed", "False", "TooManyUnhealthy", "3 of 4")}, "allows no remediation now: TooManyUnhealthy: 3 of 4"},
	"one that allows no more":          {[]change{condition("check", "RemediationAllowed", "True", "RemediationAllowed", ""), set("check", int64(0), "status", "remediationsAllowed")}, "allows no more unhealthy Machines than it has"},
	"no right to Machines":             {[]change{fails("list Machine", forbidden())}, "the controller may not use Cluster API's objects here: install the chart with remedies.clusterAPI=true"},
	"no right to MachineHealthChecks":  {[]change{fails("list MachineHealthCheck", forbidden())}, "remedies.clusterAPI=true"},
	"every MachineHealthCheck is held": {[]change{annotate("check", "cluster.x-k8s.io/paused", ""), copyOf("check", "b")}, "has the annotation cluster.x-k8s.io/paused"},
}

func TestClusterAPIRefusesInWordsWhatWouldDoNothing(t *testing.T) {
	for name, tt := range clusterRefusals {
		t.Run(name, func(t *testing.T) {
			w := clusterWorld(t, tt.changes...)
			got, err := w.remedy().Check(t.Context(), w.attempt)
			if err != nil || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, %v\nwant %q", got, err, tt.want)
			}
			progress, err := w.remedy().Begin(t.Context(), w.attempt)
			want{v1alpha1.RemedyRefused, tt.want}.hold(t, progress, err)
			if slices.Contains(w.Calls, "patch Machine") {
				t.Error("it was marked all the same")
			}
		})
	}
}

func TestClusterAPIMarksTheMachine(t *testing.T) {
	tests := map[string][]change{
		"a worker of a MachineSet":                   nil,
		"found by the node's annotations":            {hint("fleet", "worker-1"), fails("list Machine", errors.New("not needed"))},
		"the hint names a Machine that is not there": {hint("fleet", "worker-9")},
		"the hint names another node's Machine":      {copyOf("machine", "worker-2", set("worker-2", "gpu-0418", "status", "nodeRef", "name")), hint("fleet", "worker-2")},
		"a Node without a providerID":                {func(w *world) { w.attempt.Node.Spec.ProviderID = "" }},
		"a Machine with the Node's UID":              {set("machine", nodeUID, "status", "nodeRef", "uid")},
		"one of a control plane of three":            {controlPlane(3)},
		"a control plane of two":                     {controlPlane(2)},
		"one check of two is held":                   {copyOf("check", "b"), annotate("check", "cluster.x-k8s.io/paused", "")},
		"a check that allows one more": {condition("check", "RemediationAllowed", "True", "RemediationAllowed", ""),
			set("check", int64(1), "status", "remediationsAllowed")},
		"a check that allows no more, of which it is one": {condition("check", "RemediationAllowed", "True", "RemediationAllowed", ""),
			set("check", int64(0), "status", "remediationsAllowed"), condition("machine", "HealthCheckSucceeded", "False", "UnhealthyNode", "")},
		"a check that acts within a range": {condition("check", "RemediationAllowed", "False", "TooManyUnhealthy", ""),
			set("check", "[3-5]", "spec", "remediation", "triggerIf", "unhealthyInRange")},
		"the same in v1beta1":                       {condition("check", "RemediationAllowed", "False", "TooManyUnhealthy", ""), set("check", "[3-5]", "spec", "unhealthyRange")},
		"a Cluster that says that it is not paused": {set("cluster", false, "spec", "paused")},
		"with annotations of others":                {annotate("machine", "a", "b")},
	}
	for name, changes := range tests {
		t.Run(name, func(t *testing.T) {
			w := clusterWorld(t, changes...)
			if why, err := w.remedy().Check(t.Context(), w.attempt); err != nil || why != "" {
				t.Fatalf("refused: %q, %v", why, err)
			}
			if slices.Contains(w.Calls, "patch Machine") {
				t.Error("Check has marked it")
			}
			got, err := w.remedy().Begin(t.Context(), w.attempt)
			want{v1alpha1.RemedyRunning, "Machine fleet/worker-1 is marked for remediation"}.hold(t, got, err)
			annotations := w.live("machine").GetAnnotations()
			if annotations[mark] != attempt {
				t.Errorf("the mark is %q", annotations[mark])
			}
			if w.objects["machine"].GetAnnotations()["a"] != annotations["a"] {
				t.Error("another's annotation is gone")
			}
			calls := len(w.Calls)
			got, err = w.remedy().Begin(t.Context(), w.attempt)
			want{v1alpha1.RemedyRunning, "Machine fleet/worker-1"}.hold(t, got, err)
			if slices.Contains(w.Calls[calls:], "patch Machine") {
				t.Error("it was marked twice")
			}
		})
	}
}

// hint puts Cluster API's annotations on the node.
func hint(namespace, machine string) change {
	return func(w *world) {
		w.attempt.Node.Annotations = map[string]string{"cluster.x-k8s.io/cluster-namespace": namespace, "cluster.x-k8s.io/machine": machine}
	}
}

func TestClusterAPIInItsOlderVersion(t *testing.T) {
	w := newWorld(t, v1alpha1.ReplaceByClusterAPI, clusterOf("v1beta1"), kindsOf("v1beta1"))
	got, err := w.remedy().Begin(t.Context(), w.attempt)
	want{v1alpha1.RemedyRunning, "is marked"}.hold(t, got, err)
	if w.live("machine").GetAnnotations()[mark] != attempt {
		t.Error("it is not marked")
	}
}

func TestClusterAPISaysHowFarItIs(t *testing.T) {
	marked := annotate("machine", mark, attempt)
	tests := map[string]struct {
		changes []change
		want    want
	}{
		"marked, and not seen":                        {[]change{running, marked}, want{v1alpha1.RemedyRunning, "its MachineHealthCheck has not seen the mark yet"}},
		"seen, and not handed on":                     {[]change{running, marked, condition("machine", "HealthCheckSucceeded", "False", "HasRemediateAnnotation", "")}, want{v1alpha1.RemedyRunning, "has not handed it to its owner"}},
		"its owner waits":                             {[]change{running, marked, condition("machine", "OwnerRemediated", "False", "RemediationDeferred", "too many in progress")}, want{v1alpha1.RemedyRunning, "waits for its owner: RemediationDeferred: too many in progress"}},
		"its owner refuses":                           {[]change{running, marked, condition("machine", "OwnerRemediated", "False", "CannotBeRemediated", "etcd would lose quorum")}, want{v1alpha1.RemedyFailed, "the owner of Machine fleet/worker-1 does not replace it: CannotBeRemediated: etcd"}},
		"its owner refuses, v1beta1":                  {[]change{running, marked, condition("machine", "OwnerRemediated", "False", "RemediationFailed", "m")}, want{v1alpha1.RemedyFailed, "RemediationFailed: m"}},
		"its owner has done its part":                 {[]change{running, marked, condition("machine", "OwnerRemediated", "True", "Done", "")}, want{v1alpha1.RemedyRunning, "is marked"}},
		"being deleted":                               {[]change{running, marked, deleting("machine"), condition("machine", "Deleting", "True", "DrainingNode", "2 pods left")}, want{v1alpha1.RemedyRunning, "is being deleted; its Node is still there (DrainingNode: 2 pods left)"}},
		"being deleted without a word":                {[]change{running, deleting("machine")}, want{v1alpha1.RemedyRunning, "is being deleted; its Node is still there"}},
		"the Machine is gone":                         {[]change{running, without("machine")}, want{v1alpha1.RemedyRunning, "the Machine is gone, and its Node is still there"}},
		"the mark was taken off":                      {[]change{running}, want{v1alpha1.RemedyFailed, "somebody took the mark for remediation off Machine fleet/worker-1"}},
		"the mark is another's":                       {[]change{running, annotate("machine", mark, "x")}, want{v1alpha1.RemedyFailed, "somebody took the mark"}},
		"the Node is gone, the Machine being deleted": {[]change{running, gone, marked, deleting("machine")}, want{v1alpha1.RemedySucceeded, "the Node is gone, and its Machine gone or being deleted"}},
		"both are gone":                               {[]change{running, gone, without("machine")}, want{v1alpha1.RemedySucceeded, "the Node is gone"}},
		"a new Machine has the old name":              {[]change{running, another}, want{v1alpha1.RemedySucceeded, "the Node is gone"}},
		"the Node is gone, the Machine is not":        {[]change{running, gone, marked}, want{v1alpha1.RemedyRunning, "the Node is gone, and Machine fleet/worker-1 is still there"}},
		"died before the mark":                        {nil, want{v1alpha1.RemedyRunning, "is marked for remediation"}},
		"died after the mark":                         {[]change{marked}, want{v1alpha1.RemedyRunning, "is marked for remediation"}},
		"died before, and must not any more":          {[]change{annotate("machine", "cluster.x-k8s.io/skip-remediation", "")}, want{v1alpha1.RemedyRefused, "skip-remediation"}},
		"died after, and it is being deleted":         {[]change{marked, deleting("machine")}, want{v1alpha1.RemedyRunning, "is being deleted"}},
		"nothing is written of the attempt":           {[]change{func(w *world) { w.attempt.Remediation.Status.Step = nil }}, want{v1alpha1.RemedyRunning, "is marked for remediation"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := clusterWorld(t, tt.changes...)
			got, err := w.remedy().Look(t.Context(), w.attempt)
			tt.want.hold(t, got, err)
		})
	}
}

func TestClusterAPITakesOffItsOwnMarkOnly(t *testing.T) {
	tests := map[string]struct {
		changes []change
		want    string
	}{
		"our mark":                              {[]change{annotate("machine", mark, attempt)}, ""},
		"our mark, found by the annotations":    {[]change{annotate("machine", mark, attempt), hint("fleet", "worker-1")}, ""},
		"our mark on a Machine without a Node":  {[]change{annotate("machine", mark, attempt), gone}, ""},
		"our mark, and the nodeRef is another":  {[]change{annotate("machine", mark, attempt), set("machine", "x", "status", "nodeRef", "name")}, ""},
		"another's":                             {[]change{annotate("machine", mark, "by-hand")}, "by-hand"},
		"another attempt's, without a Node":     {[]change{annotate("machine", mark, "by-hand"), gone}, "by-hand"},
		"our mark on one that is being deleted": {[]change{annotate("machine", mark, attempt), deleting("machine")}, attempt},
		"none":                                  {nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := clusterWorld(t, append(tt.changes, annotate("machine", "a", "b"))...)
			for range 2 {
				if err := w.remedy().End(t.Context(), w.attempt); err != nil {
					t.Fatal(err)
				}
			}
			annotations := w.live("machine").GetAnnotations()
			if _, there := annotations[mark]; annotations[mark] != tt.want || there != (tt.want != "") || annotations["a"] != "b" {
				t.Errorf("the annotations are %v, want the mark %q", annotations, tt.want)
			}
		})
	}
	for name, w := range map[string]*world{
		"Cluster API is gone": clusterWorld(t, unserved("Machine")),
		"the Machine is gone": clusterWorld(t, without("machine")),
	} {
		if err := w.remedy().End(t.Context(), w.attempt); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClusterAPIPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, call := range []string{"list Machine", "get Machine", "get Cluster", "get MachineSet", "list MachineHealthCheck", "patch Machine"} {
		t.Run("begin: "+call, func(t *testing.T) {
			w := clusterWorld(t, hint("fleet", "worker-9"), fails(call, broken))
			if _, err := w.remedy().Begin(t.Context(), w.attempt); !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, changes := range map[string][]change{
		"with its Node":    {fails("list Machine", broken)},
		"without its Node": {fails("list Machine", broken), gone},
	} {
		w := clusterWorld(t, append(changes, running)...)
		if _, err := w.remedy().Look(t.Context(), w.attempt); !errors.Is(err, broken) {
			t.Errorf("look %s: %v", name, err)
		}
		if err := w.remedy().End(t.Context(), w.attempt); !errors.Is(err, broken) {
			t.Errorf("end %s: %v", name, err)
		}
	}
	w := clusterWorld(t, annotate("machine", mark, attempt), fails("patch Machine", broken))
	if err := w.remedy().End(t.Context(), w.attempt); !errors.Is(err, broken) {
		t.Errorf("end: %v", err)
	}
	w = clusterWorld(t, fails("list Machine", broken), controlPlane(3), hint("fleet", "worker-1"))
	if _, err := w.remedy().Check(t.Context(), w.attempt); !errors.Is(err, broken) {
		t.Errorf("counting the control plane: %v", err)
	}
	w = clusterWorld(t, running, gone, unserved("Machine"))
	if _, err := w.remedy().Look(t.Context(), w.attempt); err == nil {
		t.Error("a Machine that cannot be looked for is not gone")
	}
}

func TestARungWithoutAReplacerIsAnError(t *testing.T) {
	for name, given := range map[string]*v1alpha1.Replace{"none": nil, "another": {By: "Hand"}} {
		t.Run(name, func(t *testing.T) {
			w := clusterWorld(t)
			w.attempt.Rung.Replace = given
			r := w.remedy()
			_, check := r.Check(t.Context(), w.attempt)
			_, begin := r.Begin(t.Context(), w.attempt)
			_, look := r.Look(t.Context(), w.attempt)
			for _, err := range []error{check, begin, look, r.End(t.Context(), w.attempt)} {
				if !errors.Is(err, replace.ErrNoReplace) || !strings.Contains(err.Error(), `rung "replace"`) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}
