package node

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
)

const (
	// idle is how long nothing must happen on a machine on which nothing happens.
	idle = 30 * time.Second
	// unmoved is how long nothing must happen after a line that is not the kernel's.
	unmoved = 10 * time.Second
	// settles is how long the writes may take that follow a node's becoming healthy.
	settles = 2 * time.Second
	// maxResident is what the agent may keep resident.
	maxResident = 20 << 20
	// codeOffBus is the fault of the line that the tests inject.
	codeOffBus = "Xid79"
)

// TestNothingChangesNothingHappens is not parallel: what it measures is an idle machine.
func TestNothingChangesNothingHappens(t *testing.T) {
	r := newRig(t, "vm-idle")
	sleep(r.ctx, settles)
	r.expectQuiet(idle)
	kib := r.resident()
	r.say("resident: %.1f MiB", float64(kib)/1024)
	if kib<<10 > maxResident {
		t.Errorf("resident: %d KiB, want at most %d", kib, maxResident>>10)
	}
	if n := r.vm.Boots(); n != 1 {
		t.Errorf("%d boots, want 1", n)
	}
}

func TestAnInjectedLine(t *testing.T) {
	t.Parallel()
	t.Run("is not believed, and nothing happens", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "vm-forged")
		sleep(r.ctx, settles)
		refused := r.metric("roundhouse_agent_kernel_log_refused_total")
		r.inject()
		r.expectQuiet(unmoved)
		if got := r.metric("roundhouse_agent_kernel_log_refused_total"); got != "1" || refused != "0" {
			t.Errorf("lines refused: %q before and %q after, want 0 and 1", refused, got)
		}
		if n := r.vm.Boots(); n != 1 {
			t.Errorf("%d boots, want 1", n)
		}
	})
	t.Run("is believed with the test flag, and the loop closes", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, "vm-believed", acceptInjected)
		if got := r.metric("roundhouse_agent_accepts_injected_kernel_lines"); got != "1" {
			t.Errorf("the metric that shows the flag is %q, want 1", got)
		}
		boot := r.bootID()
		r.inject()
		r.expectRound(codeOffBus, boot)
	})
}

func TestARealNodeGoesRound(t *testing.T) {
	t.Parallel()
	r := newRig(t, "vm-round")
	boot := r.bootID()
	if err := r.vm.ReturnAtReset(gpu); err != nil {
		t.Fatal(err)
	}
	if err := r.vm.DeviceDel(r.ctx, gpu); err != nil {
		t.Fatal(err)
	}
	r.say("%s, %s, is off the bus", r.device, r.address)
	r.expectRound(pci.CodeMissing, boot)
	names, err := r.vm.ReadDir(r.ctx, "/sys/bus/pci/devices")
	if err != nil || !slices.Contains(names, r.address) {
		t.Errorf("%s is not back on the bus: %v (%v)", r.address, names, err)
	}
}

// inject writes the line of a GPU that fell off the bus into the machine's own kernel log, as a process there could.
func (r *rig) inject() {
	r.t.Helper()
	slot, _, _ := strings.Cut(r.address, ".") // the driver names no function
	line := fmt.Sprintf("<3>NVRM: Xid (PCI:%s): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", slot)
	if err := r.vm.Kmsg(r.ctx, line); err != nil {
		r.t.Fatal(err)
	}
	r.say("injected: %s", line)
}

// expectQuiet fails the test where anything about the node is written for so long.
func (r *rig) expectQuiet(d time.Duration) {
	r.t.Helper()
	before := r.history.latest()
	began := time.Now()
	sleep(r.ctx, d)
	if took := time.Since(began); took < d {
		r.t.Fatalf("waited %s of %s", took, d)
	}
	writes, err := r.history.after(before)
	if err != nil {
		r.t.Error(err)
	}
	for _, e := range writes {
		r.t.Errorf("written although nothing changed: %s", e)
	}
	var incidents v1alpha1.RemediationList
	if err := shared.admin.List(r.ctx, &incidents, client.MatchingFields{"spec.node": r.name}); err != nil {
		r.t.Fatal(err)
	}
	if len(incidents.Items) > 0 {
		r.t.Errorf("%d incidents, want none", len(incidents.Items))
	}
	h := &v1alpha1.NodeHealth{}
	if err := shared.admin.Get(r.ctx, client.ObjectKey{Name: r.name}, h); err != nil {
		r.t.Fatal(err)
	}
	if !whole(h, r.bootID()) {
		r.t.Errorf("the node is not healthy any more: %+v", h.Status)
	}
	r.say("nothing was written for %s", d)
}

// resident is what the guest's kernel counts as the agent's resident memory, in KiB.
func (r *rig) resident() int {
	r.t.Helper()
	agent, err := r.vm.AgentStatus(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	if agent.Starts != 1 || agent.PID == 0 {
		r.t.Errorf("the agent's process: %+v, want one that never ended", agent)
	}
	raw, err := r.vm.ReadFile(r.ctx, path.Join("/proc", strconv.Itoa(agent.PID), "status"))
	if err != nil {
		r.t.Fatal(err)
	}
	var total int
	for line := range strings.Lines(string(raw)) {
		name, value, _ := strings.Cut(line, ":")
		if !slices.Contains([]string{"VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem"}, name) {
			continue
		}
		kib, err := strconv.Atoi(strings.Fields(value)[0])
		if err != nil {
			r.t.Fatal(err)
		}
		r.say("%s %.1f MiB", name, float64(kib)/1024)
		if name == "VmRSS" {
			total = kib
		}
	}
	if total == 0 {
		r.t.Fatalf("no VmRSS in %s", raw)
	}
	return total
}

// milestone is something that must happen.
type milestone struct {
	what string
	is   func(event) bool
}

// round lists, in order, what a node goes through that a reboot repairs. Each must be written to the API after the one
// before it: work is kept out before it is stopped, and stopped before the node is.
func (r *rig) round(code, boot string) []milestone {
	isFault := func(f v1alpha1.Fault) bool { return f.Code == code && f.Device == r.device }
	return []milestone{
		{"the fault, in NodeHealth", onHealth(func(h *v1alpha1.NodeHealth) bool {
			return h.Status.Summary == v1alpha1.SummaryFaulty && slices.ContainsFunc(h.Status.Faults, isFault)
		})},
		{"an incident", onIncident(func(rem *v1alpha1.Remediation) bool {
			return rem.Spec.Root.Code == code && slices.Contains(rem.Spec.Devices, r.device)
		})},
		{"quarantine", onNode(func(n *corev1.Node) bool { return slices.Contains(keysOf(n.Spec.Taints), v1alpha1.TaintQuarantined) })},
		{"the drain of the pod", func(e event) bool { return e.obj.GetName() == r.workPod() && e.obj.GetDeletionTimestamp() != nil }},
		{"the pod gone", func(e event) bool { return e.obj.GetName() == r.workPod() && e.gone }},
		{"a reboot asked for", onHealth(func(h *v1alpha1.NodeHealth) bool {
			a := h.Spec.Action
			return a != nil && a.Type == v1alpha1.ActionReboot && a.BootID == boot
		})},
		{"the reboot started", onHealth(func(h *v1alpha1.NodeHealth) bool {
			a := h.Status.Action
			return a != nil && a.State == v1alpha1.ActionStarted && h.Status.BootID == boot
		})},
		{"another boot, by Roundhouse", onHealth(func(h *v1alpha1.NodeHealth) bool {
			n := len(h.Status.Boots)
			return h.Status.BootID != boot && n > 0 && h.Status.Boots[n-1].ID == h.Status.BootID &&
				h.Status.Boots[n-1].Cause == v1alpha1.BootByRoundhouse && h.Status.Boots[n-1].Action != ""
		})},
		{"a whole round of checks with the device back", onHealth(func(h *v1alpha1.NodeHealth) bool {
			return h.Status.BootID != boot && whole(h, h.Status.BootID)
		})},
		{"back in service, on probation", onIncident(func(rem *v1alpha1.Remediation) bool { return rem.Status.Phase == v1alpha1.PhaseProbation })},
		{"the end", onIncident(func(rem *v1alpha1.Remediation) bool { return rem.Status.Phase.Over() })},
	}
}

// expectRound waits for the whole round and fails the test where its order is another, where the machine was rebooted
// more than once, or where anything is left on the node.
func (r *rig) expectRound(code, boot string) {
	r.t.Helper()
	began := time.Now()
	var before uint64
	for _, m := range r.round(code, boot) {
		e := r.await(m.what, m.is)
		r.t.Logf("%6.2fs after the fault: %s", e.at.Sub(began).Seconds(), m.what)
		if e.revision < before {
			r.t.Errorf("%s came before what it should follow", m.what)
		}
		before = e.revision
	}
	// The agent writes this itself, beside the controller's writes.
	r.await("the node's condition", onNode(func(n *corev1.Node) bool {
		c := condition(n, v1alpha1.ConditionHealthy)
		return c.Status == corev1.ConditionFalse && c.Reason == code
	}))
	rem := r.await("the incident let go of", onIncident(func(rem *v1alpha1.Remediation) bool {
		return rem.Status.Phase.Over() && len(rem.Finalizers) == 0
	})).obj.(*v1alpha1.Remediation)
	r.expectOnce(rem, boot)
	r.expectClean()
}

// expectOnce fails the test unless one reboot did it, by everybody's account.
func (r *rig) expectOnce(rem *v1alpha1.Remediation, boot string) {
	r.t.Helper()
	if rem.Status.Phase != v1alpha1.PhaseSucceeded || len(rem.Status.Attempts) != 1 || rem.Status.Attempts[0].Result != v1alpha1.AttemptRepaired {
		r.t.Errorf("not repaired at the first attempt: %s; attempts %+v", timeline(rem), rem.Status.Attempts)
	}
	var incidents v1alpha1.RemediationList
	if err := shared.admin.List(r.ctx, &incidents, client.MatchingFields{"spec.node": r.name}); err != nil {
		r.t.Fatal(err)
	}
	if len(incidents.Items) != 1 {
		r.t.Errorf("%d incidents, want 1", len(incidents.Items))
	}
	now := r.bootID()
	if n := r.vm.Boots(); n != 2 || now == boot {
		r.t.Errorf("the machine has come up %d times, want 2; boot %s, and %s before", n, now, boot)
	}
	h := &v1alpha1.NodeHealth{}
	if err := shared.admin.Get(r.ctx, client.ObjectKey{Name: r.name}, h); err != nil {
		r.t.Fatal(err)
	}
	if boots := h.Status.Boots; len(boots) != 2 || boots[0].ID != boot || boots[0].Cause != v1alpha1.BootByOther || boots[1].ID != now ||
		boots[1].Cause != v1alpha1.BootByRoundhouse || boots[1].Action != rem.Status.Attempts[0].ActionID {
		r.t.Errorf("boots as published: %+v, want %s by another and %s by Roundhouse", boots, boot, now)
	}
	if !whole(h, now) {
		r.t.Errorf("the node is not whole: %+v", h.Status)
	}
}

// expectClean fails the test where anything of ours is left.
func (r *rig) expectClean() {
	r.t.Helper()
	node := &corev1.Node{}
	if err := shared.admin.Get(r.ctx, client.ObjectKey{Name: r.name}, node); err != nil {
		r.t.Fatal(err)
	}
	if len(node.Spec.Taints) > 0 || len(node.Annotations) > 0 {
		r.t.Errorf("left on the node: taints %v, annotations %v", node.Spec.Taints, node.Annotations)
	}
	for _, kind := range []corev1.NodeConditionType{v1alpha1.ConditionHealthy, v1alpha1.ConditionReporting} {
		if c := condition(node, kind); c.Status != corev1.ConditionTrue {
			r.t.Errorf("condition %s is %s (%s: %s)", kind, c.Status, c.Reason, c.Message)
		}
	}
	budget := budget()
	if err := shared.admin.Get(r.ctx, client.ObjectKeyFromObject(budget), budget); err != nil {
		r.t.Fatal(err)
	}
	for _, slot := range budget.Status.Reservations {
		if slot.Node == r.name {
			r.t.Errorf("the budget still holds a slot: %+v", slot)
		}
	}
}
