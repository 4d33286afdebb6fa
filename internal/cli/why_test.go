package cli

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
)

// TestWhyAsksForPodsWhereOnlyClaimsTell: it reads what each pod of the node was given, and answers all the same where the human
// may not read that.
func TestWhyAsksForPodsWhereOnlyClaimsTell(t *testing.T) {
	claimName := "train-gpu"
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "train", UID: "train"},
		Spec: corev1.PodSpec{NodeName: "n", ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: &claimName}}}}
	given := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: claimName}, Status: resourcev1.ResourceClaimStatus{
		Allocation: &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{
			Results: []resourcev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "n", Device: "gpu-3"}}}}}}
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		kind                   v1alpha1.QuarantineKind
		forbidden              string
		asked, pods, untoldWhy bool
	}{
		"a device that DRA offers":     {v1alpha1.QuarantineDeviceTaintRule, "", true, true, false},
		"a node of a device plugin":    {v1alpha1.QuarantineNodeTaint, "", false, false, false},
		"pods may not be listed":       {v1alpha1.QuarantineDeviceTaintRule, "pods", true, false, true},
		"their claims may not be read": {v1alpha1.QuarantineDeviceTaintRule, "resourceclaims", true, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			asked := false
			no := func(resource string) error {
				if resource == tc.forbidden {
					return apierrors.NewForbidden(resourcev1.Resource(resource), "", nil)
				}
				return nil
			}
			c := &cluster{Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(pod, given).
				WithIndex(pod, "spec.nodeName", func(o client.Object) []string { return []string{"n"} }).
				WithInterceptorFuncs(interceptor.Funcs{
					List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, o ...client.ListOption) error {
						asked = true
						if err := no("pods"); err != nil {
							return err
						}
						return c.List(ctx, l, o...)
					},
					Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, more ...client.GetOption) error {
						if err := no("resourceclaims"); err != nil {
							return err
						}
						return c.Get(ctx, k, o, more...)
					},
				}).Build()}
			s := explain.Snapshot{Name: "n", Remediations: []v1alpha1.Remediation{{Status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseDraining,
				Quarantined: []v1alpha1.Quarantined{{Kind: tc.kind}}}}}}
			if err := c.readHolders(t.Context(), &s); err != nil {
				t.Fatal(err)
			}
			if asked != tc.asked || tc.pods != (len(s.Pods) == 1 && len(s.Claims["train"]) == 1) || tc.untoldWhy != (s.ClaimsUntold != "") {
				t.Errorf("asked %t, pods %d, claims %v, untold %q", asked, len(s.Pods), s.Claims, s.ClaimsUntold)
			}
		})
	}
}
