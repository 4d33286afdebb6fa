package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// deviceFile is the device's in the machine, and probed what its driver logs when it is given one.
const (
	deviceFile = "/dev/nvme0"
	probed     = "nvme nvme0: pci function "
)

// TestARealDeviceIsReset asks the agent for a reset through the API, while a process in the machine holds the device and
// when none does any more. The hardware itself says whether it was reset: QEMU traces that.
func TestARealDeviceIsReset(t *testing.T) {
	t.Parallel()
	r := newRig(t, "vm-reset")
	boot, resets, probes := r.bootID(), r.deviceResets(), r.kernelLines(probed)
	pid, err := r.vm.Hold(r.ctx, deviceFile)
	if err != nil {
		t.Fatal(err)
	}
	refused := r.askReset("held", boot)
	want := fmt.Sprintf("%s at %s is held by init (pid %d, %s)", r.device, r.address, pid, deviceFile)
	if refused.Result != v1alpha1.ResultRefused || refused.Reason != remedy.ReasonDeviceInUse || refused.Message != want {
		t.Errorf("while it is held: %+v, want %s", refused, want)
	}
	if got := r.deviceResets(); got != resets {
		t.Fatalf("the device was reset %d times while a process held it", got-resets)
	}
	if err := r.vm.Free(r.ctx); err != nil {
		t.Fatal(err)
	}
	done := r.askReset("free", boot)
	if done.Result != v1alpha1.ResultSucceeded || done.Reason != remedy.ReasonDeviceReset || !strings.Contains(done.Message, r.device+" at "+r.address) {
		t.Errorf("when nobody holds it: %+v", done)
	}
	r.say("%s", done.Message)
	if got := r.deviceResets(); got <= resets {
		t.Error("the agent says that the device was reset, and the hardware knows nothing of it")
	}
	if got := r.kernelLines(probed); got != probes+1 {
		t.Errorf("its driver took it %d times anew, want once", got-probes)
	}
	r.await("a whole round of checks after it, all well", onHealth(func(h *v1alpha1.NodeHealth) bool {
		return whole(h, boot) && h.Status.CompletedRound.AfterAction == "free"
	}))
	if n := r.vm.Boots(); n != 1 || r.bootID() != boot {
		t.Errorf("%d boots, want 1", n)
	}
	for _, e := range r.faulty() {
		t.Errorf("a fault came of our own reset: %s", e)
	}
}

// askReset writes the action as the controller would, and returns how it ended.
func (r *rig) askReset(id, boot string) *v1alpha1.ActionStatus {
	r.t.Helper()
	h := &v1alpha1.NodeHealth{}
	if err := shared.admin.Get(r.ctx, client.ObjectKey{Name: r.name}, h); err != nil {
		r.t.Fatal(err)
	}
	before := h.DeepCopy()
	h.Spec.Fence++
	h.Spec.Action = &v1alpha1.Action{
		ID: id, Type: v1alpha1.ActionResetDevice, Devices: []string{r.device}, BootID: boot,
		NotAfter: metav1.NewTime(time.Now().Add(within)),
	}
	if err := shared.admin.Patch(r.ctx, h, client.MergeFrom(before)); err != nil {
		r.t.Fatal(err)
	}
	e := r.await("the end of the action "+id, onHealth(func(h *v1alpha1.NodeHealth) bool {
		a := h.Status.Action
		return a != nil && a.ID == id && a.State == v1alpha1.ActionDone
	}))
	return e.obj.(*v1alpha1.NodeHealth).Status.Action
}

// deviceResets is how often the device has been reset, by the hardware's own word.
func (r *rig) deviceResets() int {
	r.t.Helper()
	n, err := r.vm.DeviceResets()
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// kernelLines counts the lines of the machine's kernel log with the text.
func (r *rig) kernelLines(text string) int {
	r.t.Helper()
	log, err := r.vm.KernelLog(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Count(log, text)
}

// faulty lists the writes in which the node had a fault.
func (r *rig) faulty() []event {
	r.t.Helper()
	all, err := r.history.all()
	if err != nil {
		r.t.Fatal(err)
	}
	var out []event
	for _, e := range all {
		if onHealth(func(h *v1alpha1.NodeHealth) bool { return len(h.Status.Faults) > 0 })(e) {
			out = append(out, e)
		}
	}
	return out
}
