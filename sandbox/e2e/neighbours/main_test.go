// Package neighbours tests the remedies that ask others for a repair, against a real API server with the CRDs that those
// others publish, as the controller's own service account under its own roles and admission policies. The tests play the
// neighbours' controllers, as those document what they do.
package neighbours

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/controller"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// leader holds the Lease; its writes pass the fence.
const leader = "pod-1"

// within bounds each wait.
const within = 20 * time.Second

// shared is the control plane of the package's tests, with every neighbour's CRDs.
var shared *controlplane.ControlPlane

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	options := controlplane.Options{WithControllerManager: true, WithoutNodeLifecycle: true}
	os.Exit(controlplane.RunTests(m, options, func(cp *controlplane.ControlPlane) error {
		shared = cp
		ctx := context.Background()
		if err := cp.Apply(ctx, config.Files, "crd", "rbac", "admission"); err != nil {
			return err
		}
		capi, err := clusterAPIModule.files(ctx)
		if err != nil {
			return err
		}
		if err := cp.Apply(ctx, capi, clusterAPICRDs...); err != nil {
			return err
		}
		karpenter, err := karpenterModule.files(ctx)
		if err != nil {
			return err
		}
		if err := cp.Apply(ctx, karpenter, "pkg/apis/crds/karpenter.sh_nodeclaims.yaml", "pkg/apis/crds/karpenter.sh_nodepools.yaml"); err != nil {
			return err
		}
		if err := installRemediator(ctx, cp); err != nil {
			return err
		}
		return lead(ctx, cp)
	}))
}

// lead makes the leader hold the Lease.
func lead(ctx context.Context, cp *controlplane.ControlPlane) error {
	admin, err := adminClient(cp)
	if err != nil {
		return err
	}
	lease := &coordinationv1.Lease{}
	if err := admin.Get(ctx, client.ObjectKey{Namespace: config.Namespace, Name: config.LeaderLease}, lease); err != nil {
		return err
	}
	lease.Spec.HolderIdentity = ptr.To(leader)
	return admin.Update(ctx, lease)
}

func adminClient(cp *controlplane.ControlPlane) (client.Client, error) {
	scheme, err := controller.Scheme()
	if err != nil {
		return nil, err
	}
	return client.New(cp.AdminConfig(), client.Options{Scheme: scheme})
}

// rig is one test's view of the cluster: as its administrator, who plays the neighbours, and as the controller.
type rig struct {
	t          *testing.T
	cp         *controlplane.ControlPlane
	admin      client.Client
	controller client.Client
}

func newRig(t *testing.T, cp *controlplane.ControlPlane) *rig {
	t.Helper()
	admin, err := adminClient(cp)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, cp: cp, admin: admin}
	r.controller = r.as(leader)
	return r
}

// as is the controller with an identity of its own, which leads or does not.
func (r *rig) as(identity string) client.Client {
	r.t.Helper()
	restConfig, err := r.cp.ServiceAccountConfig(r.t.Context(), config.Namespace, config.ControllerServiceAccount, controlplane.Binding{})
	if err != nil {
		r.t.Fatal(err)
	}
	scheme, err := controller.Scheme()
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := client.New(restConfig, client.Options{Scheme: scheme, FieldOwner: config.FieldManagerPrefix + identity})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// make creates an object as its administrator would; where it has a status, that too. After the test it is gone.
func (r *rig) make(text string) *unstructured.Unstructured {
	r.t.Helper()
	o := &unstructured.Unstructured{}
	if err := yaml.UnmarshalStrict([]byte(text), &o.Object); err != nil {
		r.t.Fatalf("%v:\n%s", err, text)
	}
	status, told := o.Object["status"]
	if err := r.admin.Create(r.t.Context(), o); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.erase(o) })
	if told {
		o.Object["status"] = status
		if err := r.admin.Status().Update(r.t.Context(), o); err != nil {
			r.t.Fatal(err)
		}
	}
	return o
}

// erase takes an object away, whatever holds it.
func (r *rig) erase(o client.Object) {
	ctx := context.WithoutCancel(r.t.Context())
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`))
	for _, err := range []error{r.admin.Patch(ctx, o, patch), r.admin.Delete(ctx, o)} {
		if err != nil && !apierrors.IsNotFound(err) {
			r.t.Errorf("cleaning up %s: %v", o.GetName(), err)
		}
	}
}

// live is the object as it is now, or nil.
func (r *rig) live(o *unstructured.Unstructured) *unstructured.Unstructured {
	r.t.Helper()
	now := &unstructured.Unstructured{}
	now.SetGroupVersionKind(o.GroupVersionKind())
	err := r.admin.Get(r.t.Context(), client.ObjectKeyFromObject(o), now)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		r.t.Fatal(err)
	}
	return now
}

// patch changes an object, or its status, as its own controller would.
func (r *rig) patch(o *unstructured.Unstructured, text string) {
	r.t.Helper()
	patch := client.RawPatch("application/merge-patch+json", []byte(text))
	var err error
	if strings.HasPrefix(text, `{"status"`) {
		err = r.admin.Status().Patch(r.t.Context(), o.DeepCopy(), patch)
	} else {
		err = r.admin.Patch(r.t.Context(), o.DeepCopy(), patch)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// say puts the one condition on an object, as its own controller would.
func (r *rig) say(o *unstructured.Unstructured, kind, status, reason, message string) {
	r.t.Helper()
	r.patch(o, fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":%q,"reason":%q,"message":%q,"lastTransitionTime":"2026-11-23T10:00:00Z"}]}}`,
		kind, status, reason, message))
}

// attempt makes a Node and a Remediation of it, and an attempt at a rung.
func (r *rig) attempt(name, providerID string, rung v1alpha1.Rung) remedy.Attempt {
	r.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: providerID}}
	if err := r.admin.Create(r.t.Context(), node); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.erase(node) })
	incident := &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-k3q7"},
		Spec: v1alpha1.RemediationSpec{Node: name, NodeUID: string(node.UID), Root: v1alpha1.RootFault{
			Code: "Xid79", FirstSeen: metav1.NewTime(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))}},
	}
	if err := r.admin.Create(r.t.Context(), incident); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.erase(incident) })
	incident.Status.Step = &v1alpha1.Step{Remedy: &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun}}
	return remedy.Attempt{ID: incident.Name + "-1", Remediation: incident, Node: node, Rung: rung}
}

// step is the answer of Begin or Look, written into the incident as the controller would.
func (r *rig) step(a remedy.Attempt, does func(context.Context, remedy.Attempt) (remedy.Progress, error), state v1alpha1.RemedyState, text string) {
	r.t.Helper()
	got, err := does(r.t.Context(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	if got.State != state || !strings.Contains(got.Message, text) {
		r.t.Fatalf("got %s: %s\nwant %s: %s", got.State, got.Message, state, text)
	}
	a.Remediation.Status.Step.Remedy.State = got.State
}

// refuses holds Check to a refusal.
func (r *rig) refuses(does remedy.Remedy, a remedy.Attempt, text string) {
	r.t.Helper()
	why, err := does.Check(r.t.Context(), a)
	if err != nil || !strings.Contains(why, text) || (text == "") != (why == "") {
		r.t.Fatalf("got %q, %v\nwant %q", why, err, text)
	}
}

// await waits until check is happy.
func (r *rig) await(what string, within time.Duration, check func() error) {
	r.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(50 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s: not within %s: %v", what, within, err)
		}
	}
}

// role binds the controller to a ClusterRole beside its own.
func (r *rig) role(role *rbacv1.ClusterRole) {
	r.t.Helper()
	if err := r.admin.Create(r.t.Context(), role); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.erase(role) })
}

// unbind takes a ClusterRoleBinding away, and returns what puts it back.
func (r *rig) unbind(name string) (back func()) {
	r.t.Helper()
	binding := &rbacv1.ClusterRoleBinding{}
	if err := r.admin.Get(r.t.Context(), client.ObjectKey{Name: name}, binding); err != nil {
		r.t.Fatal(err)
	}
	if err := r.admin.Delete(r.t.Context(), binding); err != nil {
		r.t.Fatal(err)
	}
	ctx := context.WithoutCancel(r.t.Context())
	done := false
	back = func() {
		if done {
			return
		}
		done = true
		again := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: binding.RoleRef, Subjects: binding.Subjects}
		if err := r.admin.Create(ctx, again); err != nil {
			r.t.Error(err)
		}
	}
	r.t.Cleanup(back)
	return back
}
