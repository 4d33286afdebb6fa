package loop

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourcev1 "k8s.io/api/resource/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// driverSays is the DRA driver: it publishes these taints on the devices of its slice, by slot, and no other. It gives the slice
// as the API server stored it.
func (r *rig) driverSays(taints map[int]resourcev1.DeviceTaint) *resourcev1.ResourceSlice {
	r.t.Helper()
	slice := r.slice()
	for i := range slice.Spec.Devices {
		slice.Spec.Devices[i].Taints = nil
		if t, ok := taints[i]; ok {
			slice.Spec.Devices[i].Taints = []resourcev1.DeviceTaint{t}
		}
	}
	slice.Spec.Pool.Generation++
	r.must(r.admin.Update(r.ctx, slice))
	return slice
}

func (r *rig) slice() *resourcev1.ResourceSlice {
	r.t.Helper()
	slice := &resourcev1.ResourceSlice{}
	r.must(r.admin.Get(r.ctx, client.ObjectKey{Name: r.node.Name + "-gpus"}, slice))
	return slice
}

// untouched fails the test where anybody has written to the driver's slice.
func (r *rig) untouched(slice *resourcev1.ResourceSlice) {
	r.t.Helper()
	if diff := cmp.Diff(slice, r.slice()); diff != "" {
		r.t.Errorf("somebody wrote to the driver's ResourceSlice: %s", diff)
	}
}

func (r *rig) ruledDevices() []string {
	r.t.Helper()
	var list resourcev1.DeviceTaintRuleList
	r.must(r.admin.List(r.ctx, &list))
	var names []string
	for i := range list.Items {
		names = append(names, *list.Items[i].Spec.DeviceSelector.Device)
	}
	return names
}

// lostByDriver is what NVIDIA's driver says of a GPU that fell off the bus, with this driver's name; mereInformation of one
// whose application failed.
var (
	lostByDriver    = resourcev1.DeviceTaint{Key: "gpu.example.com/xid", Value: "79", Effect: resourcev1.DeviceTaintEffectNoSchedule}
	mereInformation = resourcev1.DeviceTaint{Key: "gpu.example.com/xid", Value: "43", Effect: resourcev1.DeviceTaintEffectNone}
)

// TestADriversOwnTaintIsASignal has the driver taint a device of which the agent sees nothing.
func TestADriversOwnTaintIsASignal(t *testing.T) {
	r := newRig(t, rigOptions{dra: true})
	r.startController()
	r.healthy()
	a := r.asker()
	said := r.driverSays(map[int]resourcev1.DeviceTaint{badSlot: lostByDriver, 2: mereInformation})
	a.why(`HEALTHY`, `the DRA driver gpu.example.com itself taints gpu-3: gpu.example.com/xid=79:NoSchedule`+sinceTime, `gpu-2: gpu.example.com/xid=43:None \(information only\)`,
		`7 of 8 devices serving`, `a rule that names the driver's taint \(match.deviceTaints\)`)
	if n := len(r.remediations()); n > 0 {
		t.Fatalf("no rule names the taint, and there are %d incidents", n)
	}

	a.patchPolicy(`{"spec":{"rules":[{"name":"driver-says","match":{"deviceTaints":[{"key":"gpu.example.com/xid"}]},"response":"Quarantine"}]}}`)
	rem := r.waitFor("quarantine", inPhase(v1alpha1.PhaseQuarantined))
	if diff := cmp.Diff([]string{r.devices[badSlot].UUID}, rem.Spec.Devices); diff != "" {
		t.Errorf("of exactly the device that keeps pods out: %s", diff)
	}
	if root := rem.Spec.Root; root.Code != "DeviceTaint/gpu.example.com/xid=79" || root.Check != v1alpha1.CheckDeviceTaint ||
		!root.FirstSeen.Equal(said.Spec.Devices[badSlot].Taints[0].TimeAdded) {
		t.Errorf("root fault %+v", root)
	}
	if diff := cmp.Diff([]string{"gpu-3"}, r.ruledDevices()); diff != "" {
		t.Errorf("our own rule is put on all the same: %s", diff)
	}
	if !slices.ContainsFunc(rem.Status.Timeline, func(e v1alpha1.TimelineEntry) bool {
		return strings.Contains(e.Message, "the DRA driver gpu.example.com itself taints gpu-3: gpu.example.com/xid=79:NoSchedule since ")
	}) {
		t.Errorf("the timeline does not say it: %s", r.describe(rem))
	}
	a.why(`QUARANTINED`, `^What      DeviceTaint/gpu.example.com/xid=79 on .*`+r.devices[badSlot].UUID, `driver's taint gpu.example.com/xid: quarantine`,
		`device-taint: "gpu.example.com/xid=79:NoSchedule of the DRA driver gpu.example.com on gpu-3"`, `by DeviceTaintRule`, `the DRA driver gpu.example.com itself taints gpu-3`)
	r.untouched(said)

	r.driverSays(nil)
	end := r.waitFor("the end", over)
	if end.Name != rem.Name || end.Status.Phase != v1alpha1.PhaseSucceeded || end.Status.Reason != decide.ReasonFaultCleared && !happened(end, decide.ReasonFaultCleared) {
		t.Errorf("the driver takes its taint back, and the incident ends: %s", r.describe(end))
	}
	r.expectReboots(0)
	r.clean()
}

func happened(rem *v1alpha1.Remediation, reason string) bool {
	return slices.ContainsFunc(rem.Status.Timeline, func(e v1alpha1.TimelineEntry) bool { return e.Reason == reason })
}

// TestADeviceIsNotBackBeforeItsDriverSaysSo repairs a device whose driver's taint stays on, and that no rule names.
func TestADeviceIsNotBackBeforeItsDriverSaysSo(t *testing.T) {
	r := newRig(t, rigOptions{dra: true})
	r.startController()
	r.healthy()
	said := r.driverSays(map[int]resourcev1.DeviceTaint{badSlot: lostByDriver})
	r.fault(1)
	rem := r.waitFor("the end", over)
	if rem.Status.Phase != v1alpha1.PhaseSucceeded || !strings.Contains(rem.Status.Message, "not back in service before its driver says so") {
		t.Errorf("%s", r.describe(rem))
	}
	if !slices.ContainsFunc(rem.Status.Timeline, func(e v1alpha1.TimelineEntry) bool {
		return e.Reason == decide.ReasonVerified && strings.Contains(e.Message, "not back in service before its driver says so")
	}) {
		t.Errorf("probation does not say it: %s", r.describe(rem))
	}
	r.asker().why(`SUCCEEDED`, `repaired and proved, but not in service before its DRA driver takes its own taint off`, `7 of 8 devices serving`)
	r.expectReboots(1)
	r.untouched(said)
	r.clean()
}

// TestADriversTaintIsNotForgottenByANewLeader has another controller take over while the driver's taint is on: it has to look
// before it believes that the taint has gone.
func TestADriversTaintIsNotForgottenByANewLeader(t *testing.T) {
	r := newRig(t, rigOptions{dra: true})
	first := r.startController()
	r.healthy()
	r.asker().patchPolicy(`{"spec":{"rules":[{"name":"driver-says","match":{"deviceTaints":[{"key":"gpu.example.com/xid","values":["79"]}]},"response":"Quarantine"}]}}`)
	r.driverSays(map[int]resourcev1.DeviceTaint{badSlot: lostByDriver})
	rem := r.waitFor("quarantine", inPhase(v1alpha1.PhaseQuarantined))
	first.kill(t)
	r.forgetLeader()
	r.waitForLeader(r.startController())
	// The policy's change makes the new leader look at the node.
	r.asker().patchPolicy(`{"spec":{"rules":[{"name":"again","match":{"deviceTaints":[{"key":"gpu.example.com/xid"}]},"response":"Quarantine"}]}}`)
	now := r.waitFor("the new rule", func(now *v1alpha1.Remediation) bool { return now.Status.Rule == "again" || now.Status.Phase.Over() })
	if now.Name != rem.Name || now.Status.Phase != v1alpha1.PhaseQuarantined {
		t.Errorf("the driver's taint is on still: %s", r.describe(now))
	}
	r.driverSays(nil)
	r.waitFor("the end", over)
	r.clean()
}
