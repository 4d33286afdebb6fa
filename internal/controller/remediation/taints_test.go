package remediation

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func sliceOf(name string, generation int64, taints ...resourcev1.DeviceTaint) *resourcev1.ResourceSlice {
	return &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourcev1.ResourceSliceSpec{Driver: "gpu.example.com", NodeName: ptr.To("gpu-17"), Pool: resourcev1.ResourcePool{Name: "gpu-17", Generation: generation},
			Devices: []resourcev1.Device{
				{Name: "gpu-2", Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To("GPU-2")}}},
				{Name: "gpu-3", Taints: taints, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To("GPU-3")}}},
			}},
	}
}

// TestDriversTaintsAreToldOfOnceAndNothingElseIsKept writes to the store as a reflector does.
func TestDriversTaintsAreToldOfOnceAndNothingElseIsKept(t *testing.T) {
	xid := resourcev1.DeviceTaint{Key: "gpu.example.com/xid", Value: "79", Effect: resourcev1.DeviceTaintEffectNoSchedule}
	ours := resourcev1.DeviceTaint{Key: "roundhouse.dev/quarantined", Effect: resourcev1.DeviceTaintEffectNoSchedule}
	d := newDriverTaints(nil, nil)
	store := taintStore{d, context.Background()}
	if _, known := d.of("gpu-17"); known {
		t.Error("before the first list nothing is known")
	}
	network := sliceOf("network", 1, xid)
	network.Spec.NodeName = nil
	for i, step := range []struct {
		what  string
		do    func() error
		told  int
		holds []string
	}{
		{"a first list with nothing wrong", func() error { return store.Replace([]any{sliceOf("a", 1)}, "1") }, 0, nil},
		{"a taint", func() error { return store.Update(sliceOf("a", 2, xid)) }, 1, []string{"GPU-3"}},
		{"the same again", func() error { return store.Update(sliceOf("a", 3, xid)) }, 0, []string{"GPU-3"}},
		{"another slice, without", func() error { return store.Add(sliceOf("b", 3)) }, 0, []string{"GPU-3"}},
		{"one of no node", func() error { return store.Add(network) }, 0, []string{"GPU-3"}},
		{"one of a newer generation, without", func() error { return store.Add(sliceOf("c", 4)) }, 1, nil},
		{"our own key", func() error { return store.Update(sliceOf("c", 5, ours)) }, 0, nil},
		{"a taint once more", func() error { return store.Update(sliceOf("c", 6, xid)) }, 1, []string{"GPU-3"}},
		{"its slice goes", func() error { return store.Delete(sliceOf("c", 6)) }, 1, nil},
		{"a list that has an older generation too", func() error { return store.Replace([]any{sliceOf("d", 8), sliceOf("c", 7, xid)}, "9") }, 0, nil},
		{"a list with a taint", func() error { return store.Replace([]any{sliceOf("d", 9, xid)}, "10") }, 1, []string{"GPU-3"}},
		{"no policy asks any more", func() error { d.forget(t.Context()); return nil }, 1, nil},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		var holds []string
		taints, known := d.of("gpu-17")
		for _, taint := range taints {
			holds = append(holds, taint.DeviceID)
		}
		if diff := cmp.Diff(step.holds, holds); diff != "" {
			t.Errorf("%d %s: %s", i, step.what, diff)
		}
		told := 0
		for len(d.events) > 0 {
			if e := <-d.events; e.Object.GetName() == "gpu-17" {
				told++
			}
		}
		if told != step.told {
			t.Errorf("%d %s: told %d times, want %d", i, step.what, told, step.told)
		}
		if len(holds) == 0 && len(d.rows) > 0 {
			t.Errorf("%d %s: %d rows are kept for nothing", i, step.what, len(d.rows))
		}
		if wantKnown := step.what != "no policy asks any more"; known != wantKnown {
			t.Errorf("%d %s: known is %v", i, step.what, known)
		}
	}
}

func TestASliceIsStrippedToItsTaints(t *testing.T) {
	whole := sliceOf("a", 1, resourcev1.DeviceTaint{Key: "k"})
	whole.ManagedFields, whole.ResourceVersion = []metav1.ManagedFieldsEntry{{Manager: "kubelet-plugin"}}, "7"
	slim, err := stripSlice(whole)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := slim.(*resourcev1.ResourceSlice)
	if !ok || len(got.Spec.Devices) != 1 || got.Spec.Devices[0].Name != "gpu-3" || len(got.ManagedFields) > 0 || got.ResourceVersion != "7" {
		t.Errorf("%+v", slim)
	}
	if slices.Compare([]string{fmt.Sprint(rowOf(whole))}, []string{fmt.Sprint(rowOf(got))}) != 0 {
		t.Error("what is left says something else")
	}
}
