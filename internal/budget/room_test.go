package budget

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestThroughWhichRoomsNodesGo(t *testing.T) {
	node := func(name, rack string, ready bool) *corev1.Node {
		status := corev1.ConditionFalse
		if ready {
			status = corev1.ConditionTrue
		}
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"rack": rack, "pool": "a"}},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}}}
	}
	perRack := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "per-rack"}, Spec: v1alpha1.NodeDisruptionBudgetSpec{
		NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": "a"}}, TopologyKey: "rack", MaxUnavailable: ptr.To(intstr.FromString("50%"))}}
	all := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(3))},
		Status: v1alpha1.NodeDisruptionBudgetStatus{Reservations: []v1alpha1.Reservation{{Node: "a1", Domain: "", Devices: 8}}}}
	devices := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "devices"}, Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailableDevices: ptr.To(int32(8))}}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	objects := []client.Object{perRack, all, devices, node("a1", "r1", true), node("a2", "r1", true), node("b1", "r2", false), node("b2", "r2", true)}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).Build()
	k := NewKeeper(Options{Client: c, Live: c, Now: func() time.Time { return time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC) }})
	of, rooms, err := k.Rooms(t.Context(), []string{"a2", "b1", "b2", "gone"})
	if err != nil {
		t.Fatal(err)
	}
	// b1 is not ready: it is counted as out in both of its rooms, and needs no slot more there.
	wantOf := map[string][]string{"a2": {"all/", "per-rack/r1"}, "b2": {"all/", "per-rack/r2"}}
	wantRooms := map[string]Room{"all/": {Free: 1, Slots: 3}, "per-rack/r1": {Free: 1, Slots: 1}, "per-rack/r2": {Free: 0, Slots: 1}}
	if diff := cmp.Diff(wantOf, of); diff != "" {
		t.Errorf("rooms of nodes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantRooms, rooms); diff != "" {
		t.Errorf("rooms (-want +got):\n%s", diff)
	}
}
