package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// planned is a cluster of a node whose one job was given its second device, and of another node.
func planned(t *testing.T, funcs interceptor.Funcs) *cluster {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	slice := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: resourcev1.ResourceSliceSpec{Driver: "gpu.example.com", NodeName: ptr.To("n"),
		Pool: resourcev1.ResourcePool{Name: "n", Generation: 1}}}
	for i := range 2 {
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{Name: fmt.Sprintf("gpu-%d", i),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To(fmt.Sprintf("GPU-%d", i))}}})
	}
	pod := func(name, node string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name),
			OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: name, Controller: ptr.To(true)}}},
			Spec: corev1.PodSpec{NodeName: node, ResourceClaims: []corev1.PodResourceClaim{{Name: "a", ResourceClaimName: ptr.To(name)}, {Name: "b", ResourceClaimName: ptr.To("gone")}}}}
	}
	claim := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "train"}}
	claim.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Driver: "gpu.example.com", Pool: "n", Device: "gpu-1"}}}}
	policy := &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "p"}, Spec: v1alpha1.RemediationPolicySpec{Mode: v1alpha1.ModeRemediate,
		Rules: []v1alpha1.Rule{{Name: "all", Match: v1alpha1.RuleMatch{Any: true}, Response: v1alpha1.ResponseRepair, Ladder: []string{"job", "reboot"}}},
		Rungs: []v1alpha1.Rung{{Name: "job", Action: v1alpha1.RungRunJob, Drain: v1alpha1.DrainDevices}, {Name: "reboot", Action: v1alpha1.RungReboot}}}}
	c := fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(funcs).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithIndex(&v1alpha1.Remediation{}, "spec.node", func(o client.Object) []string { return []string{o.(*v1alpha1.Remediation).Spec.Node} }).
		WithIndex(&resourcev1.ResourceSlice{}, "spec.nodeName", func(o client.Object) []string { return []string{*o.(*resourcev1.ResourceSlice).Spec.NodeName} }).
		WithObjects(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "u"}}, slice, pod("train", "n"), pod("elsewhere", "m"), claim, policy,
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ml", Labels: map[string]string{"team": "x"}}}).Build()
	return &cluster{Client: c}
}

// TestThePlansKindsHaveResources: the fake server knows every kind, the client that people use only those that it is told.
func TestThePlansKindsHaveResources(t *testing.T) {
	for kind, want := range map[schema.GroupVersionKind]string{
		corev1.SchemeGroupVersion.WithKind("Namespace"): "namespaces", corev1.SchemeGroupVersion.WithKind("Pod"): "pods",
		resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"): "resourceclaims",
	} {
		m, err := newMapper().RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil || m.Resource.Resource != want {
			t.Errorf("%s: %v, %v", kind, m, err)
		}
	}
}

// ofTeam has a class that asks for a label of the namespace.
func ofTeam(spec *v1alpha1.RemediationPolicySpec) {
	spec.Drain = &v1alpha1.Drain{Classes: []v1alpha1.WorkloadClass{{Name: "team", Cost: v1alpha1.CostFree,
		Match: v1alpha1.WorkloadMatch{Expression: "namespaceObject.labels['team'] == 'x'"}}}}
}

// namespaces cannot be read, for a reason.
func namespaces(why error) interceptor.Funcs {
	return interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		if _, ok := o.(*corev1.Namespace); ok {
			return why
		}
		return c.Get(ctx, key, o, opts...)
	}}
}

func TestPlanReadsWhatRunsOnTheNode(t *testing.T) {
	for name, tc := range map[string]struct {
		funcs interceptor.Funcs
		flags planFlags
		node  string
		// policy is changed by it, where there is one.
		policy func(*v1alpha1.RemediationPolicySpec)
		says   []string
		err    string
	}{
		"the job that holds the device moves": {flags: planFlags{devices: []string{"GPU-1"}}, node: "n",
			says: []string{"job     RunJob  Devices  1 pod", "Devices: ml/train", "Node: ml/train\n"}},
		"another device is free": {flags: planFlags{devices: []string{"GPU-0"}}, node: "n", says: []string{"job     RunJob  Devices  0 pods", "Node: ml/train\n"}},
		"the server is asked": {flags: planFlags{devices: []string{"GPU-1"}, server: true}, node: "n", funcs: interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
				says(o.(*resourcev1.DeviceTaintRule))
				return c.Create(ctx, o, opts...)
			}}, says: []string{"it says: " + wouldEvict, "we see:  1 pod holds it by a claim: ml/train (moved)"}},
		"there is no such node":   {node: "x", err: `there is no node "x"`},
		"there is no such device": {flags: planFlags{devices: []string{"GPU-7"}}, node: "n", err: "--device GPU-7: node n has no such device; it has GPU-0, GPU-1"},
		"the server knows no slices": {node: "n", says: []string{"Node: ml/train\n"}, funcs: interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
				if _, ok := l.(*resourcev1.ResourceSliceList); ok {
					return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "resource.k8s.io", Kind: "ResourceSlice"}}
				}
				return c.List(ctx, l, opts...)
			}}},
		"a class asks for the namespace's labels": {flags: planFlags{devices: []string{"GPU-1"}}, node: "n", policy: ofTeam,
			says: []string{"Node: ml/train\n"}},
		"a class asks for labels that may not be read": {flags: planFlags{devices: []string{"GPU-1"}}, node: "n", policy: ofTeam,
			says:  []string{"ml/train: class untold: class team may be meant for it, so only a human stops it: the labels of namespace ml could not be read"},
			funcs: namespaces(apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, "ml", errors.New("no")))},
		"the namespace cannot be read for now": {node: "n", policy: ofTeam, err: "reading namespace ml: refused", funcs: namespaces(errors.New("refused"))},
		"no class asks for it":                 {node: "n", says: []string{"Node: ml/train\n"}, funcs: namespaces(errors.New("refused"))},
		"a claim cannot be read": {node: "n", err: "reading claim train of pod ml/train", funcs: interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				if _, ok := o.(*resourcev1.ResourceClaim); ok {
					return errors.New("refused")
				}
				return c.Get(ctx, key, o, opts...)
			}}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{Options: Options{Out: &out, Now: func() time.Time { return now }, Zone: tokyo}.withDefaults()}
			c := planned(t, tc.funcs)
			if tc.policy != nil {
				var p v1alpha1.RemediationPolicy
				if err := c.Get(t.Context(), client.ObjectKey{Name: "p"}, &p); err != nil {
					t.Fatal(err)
				}
				tc.policy(&p.Spec)
				if err := c.Update(t.Context(), &p); err != nil {
					t.Fatal(err)
				}
			}
			err := a.plan(t.Context(), c, &output{}, &tc.flags, tc.node)
			switch {
			case tc.err == "" && err != nil, tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)):
				t.Fatalf("error %v, want %q", err, tc.err)
			}
			for _, says := range tc.says {
				if !strings.Contains(out.String(), says) {
					t.Errorf("does not say %q:\n%s", says, out.String())
				}
			}
			if strings.Contains(out.String(), "elsewhere") {
				t.Error("another node's pod is in it")
			}
		})
	}
}
