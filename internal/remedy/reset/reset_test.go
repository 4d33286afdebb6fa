package reset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

const (
	boot = "0fc70fad-6980-4f05-acf8-5f6c56122bb4"
	gpu0 = "0000:18:00.0"
	gpu1 = "0000:28:00.0"
)

// rig is a machine of three GPUs and an executor on it.
type rig struct {
	*fake.Machine
	devices  []fake.Device
	executor *Executor
}

func newRig() *rig {
	r := &rig{devices: fake.H200s(3, 7)}
	r.Machine = fake.New(fake.Options{Devices: r.devices, BootID: boot})
	r.executor = New(r, r.locate, nil)
	r.executor.poll = time.Millisecond
	return r
}

func (r *rig) locate(ctx context.Context, ids []string) ([]machine.PCIDevice, error) {
	all, err := r.PCIDevices(ctx, nil)
	if err != nil {
		return nil, err
	}
	var out []machine.PCIDevice
	for _, id := range ids {
		i := slices.IndexFunc(r.devices, func(d fake.Device) bool { return d.UUID == id })
		if i < 0 {
			return nil, fmt.Errorf("%s is not on the bus of this machine now", id)
		}
		at := slices.IndexFunc(all, func(d machine.PCIDevice) bool { return d.Address == r.devices[i].Address })
		if at < 0 {
			return nil, fmt.Errorf("%s is not on the bus of this machine now", id)
		}
		out = append(out, all[at])
	}
	return out, nil
}

func (r *rig) id(slot int) string { return r.devices[slot].UUID }

func held(address string, kind machine.HolderKind, pid int, name string) machine.Holder {
	return machine.Holder{Address: address, Kind: kind, PID: pid, Name: name, Path: "/dev/nvidia0"}
}

func TestDo(t *testing.T) {
	tests := map[string]struct {
		setUp   func(*rig)
		devices []int // slots
		boot    string
		want    []fake.Reset
		reason  string   // of the refusal; "-" for a failure
		says    []string // parts of the message
	}{
		"the driver resets its own": {
			devices: []int{0}, want: []fake.Reset{{Address: gpu0, Way: machine.ResetByNVIDIA}},
			says: []string{"GPU-00000007-0000-4000-8000-000000000000 at 0000:18:00.0 reset by nvidia-smi in ", "answers"},
		},
		"several, each once": {
			devices: []int{1, 0, 1},
			want:    []fake.Reset{{Address: gpu0, Way: machine.ResetByNVIDIA}, {Address: gpu1, Way: machine.ResetByNVIDIA}},
		},
		"another driver's by the kernel": {
			setUp: func(r *rig) { r.SetDriver(gpu0, "amdgpu") }, devices: []int{0},
			want: []fake.Reset{{Address: gpu0, Way: machine.ResetByFunction}},
		},
		"by a rescan where the kernel cannot reset it": {
			setUp: func(r *rig) { r.SetDriver(gpu0, ""); r.SetResetWays(machine.ResetByRescan) }, devices: []int{0},
			want: []fake.Reset{{Address: gpu0, Way: machine.ResetByRescan}},
		},
		"one that does not answer, and does after": {
			setUp:   func(r *rig) { r.Break(gpu0, fake.Break{Kind: fake.Dead, HealedByReset: true}) },
			devices: []int{0}, want: []fake.Reset{{Address: gpu0, Way: machine.ResetByNVIDIA}},
		},
		"the persistence daemon alone is nvidia-smi's to move": {
			setUp: func(r *rig) { r.SetHolders(held(gpu0, machine.HolderPersistence, 8, "nvidia-persistenced")) }, devices: []int{0},
			want: []fake.Reset{{Address: gpu0, Way: machine.ResetByNVIDIA}},
		},
		"who holds another device is not in the way": {
			setUp: func(r *rig) { r.SetHolders(held(gpu1, machine.HolderProcess, 4711, "train.py")) }, devices: []int{0},
			want: []fake.Reset{{Address: gpu0, Way: machine.ResetByNVIDIA}},
		},

		"another boot": {boot: "other", devices: []int{0}, reason: v1alpha1.ActionReasonOtherBoot, says: []string{"decided on boot other"}},
		"no device":    {reason: remedy.ReasonNoDevices, says: []string{"spec.action.devices"}},
		"a device that is gone": {
			setUp: func(r *rig) { r.RemoveDevice(gpu1) }, devices: []int{0, 1}, reason: remedy.ReasonUnknownDevice,
			says: []string{"GPU-00000007-0000-4000-8000-000000000001 is not on the bus"},
		},
		"one of a virtual machine": {
			setUp: func(r *rig) { r.SetDriver(gpu1, "vfio-pci") }, devices: []int{0, 1}, reason: remedy.ReasonPassedThrough,
			says: []string{"at 0000:28:00.0 is bound to vfio-pci"},
		},
		"no way": {
			setUp: func(r *rig) { r.SetResetWays(machine.ResetByFunction, machine.ResetByRescan) }, devices: []int{0},
			reason: remedy.ReasonNoResetWay, says: []string{"nvidia-smi: "},
		},
		"a process, and all others are named with it": {
			setUp: func(r *rig) {
				r.SetHolders(
					held(gpu0, machine.HolderPersistence, 8, "nvidia-persistenced"), held(gpu0, machine.HolderHelper, 9, "roundhouse-nvml"),
					held(gpu1, machine.HolderProcess, 12, "other"), held(gpu0, machine.HolderProcess, 4711, "train.py"),
				)
			},
			devices: []int{0}, reason: remedy.ReasonDeviceInUse,
			says: []string{
				"at 0000:18:00.0 is held by nvidia-persistenced (pid 8, /dev/nvidia0), this agent's own roundhouse-nvml (pid 9, " +
					"/dev/nvidia0), train.py (pid 4711, /dev/nvidia0)",
			},
		},
		"the second of two is held, and the first is not touched": {
			setUp:   func(r *rig) { r.SetHolders(held(gpu1, machine.HolderProcess, 4711, "train.py")) },
			devices: []int{0, 1}, reason: remedy.ReasonDeviceInUse, says: []string{"at 0000:28:00.0 is held by train.py (pid 4711"},
		},
		"the persistence daemon of a device that nvidia-smi does not reset": {
			setUp: func(r *rig) {
				r.SetDriver(gpu0, "amdgpu")
				r.SetHolders(held(gpu0, machine.HolderPersistence, 8, "nvidia-persistenced"))
			},
			devices: []int{0}, reason: remedy.ReasonDeviceInUse,
		},
		"a crowd is counted": {
			setUp: func(r *rig) {
				var all []machine.Holder
				for pid := range 20 {
					all = append(all, held(gpu0, machine.HolderProcess, pid, "train.py"))
				}
				r.SetHolders(all...)
			},
			devices: []int{0}, reason: remedy.ReasonDeviceInUse, says: []string{"(pid 5, /dev/nvidia0), 14 more"},
		},
		"holders that nobody can see": {
			setUp: func(r *rig) { r.Fail(fake.DoorHolders, errors.New("operation not permitted")) }, devices: []int{0},
			reason: remedy.ReasonCannotSeeHolders, says: []string{"operation not permitted"},
		},
		"our own helper does not end": {
			setUp: func(r *rig) { r.Fail(fake.DoorReset, errors.New("stuck")) }, devices: []int{0}, reason: remedy.ReasonNoResetWay,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			if tt.setUp != nil {
				tt.setUp(r)
			}
			action := v1alpha1.Action{ID: "x", Type: v1alpha1.ActionResetDevice, BootID: boot}
			if tt.boot != "" {
				action.BootID = tt.boot
			}
			for _, slot := range tt.devices {
				action.Devices = append(action.Devices, r.id(slot))
			}
			report, err := r.executor.Do(t.Context(), action)
			text := report.Message
			var refusal *remedy.Refusal
			if errors.As(err, &refusal) {
				text = refusal.Message
			}
			if got := reasonOf(err); got != tt.reason {
				t.Errorf("got %s: %v, want %s", got, err, tt.reason)
			}
			for _, part := range tt.says {
				if !strings.Contains(text, part) {
					t.Errorf("says %q, want %q in it", text, part)
				}
			}
			if diff := cmp.Diff(tt.want, r.Resets()); diff != "" {
				t.Errorf("resets (-want +got):\n%s", diff)
			}
			if len(report.Reset) != len(tt.want) {
				t.Errorf("reported as reset: %v", report.Reset)
			}
		})
	}
}

// reasonOf is the reason of a refusal, or "-" for any other error.
func reasonOf(err error) string {
	var refusal *remedy.Refusal
	switch {
	case errors.As(err, &refusal):
		return refusal.Reason
	case err != nil:
		return "-"
	}
	return ""
}

// meddled is a machine on which something happens at each reset.
type meddled struct {
	*rig
	during func(address string) error
}

func (m meddled) ResetDevices(ctx context.Context, addresses []string, way machine.ResetWay) (string, error) {
	if err := m.during(strings.Join(addresses, ",")); err != nil {
		return "", err
	}
	return m.rig.ResetDevices(ctx, addresses, way)
}

func TestWhatGoesWrongOnTheWayIsAFailureThatSaysWhatWasDone(t *testing.T) {
	tests := map[string]struct {
		during func(r *rig, address string) error
		reset  []string
		says   []string
	}{
		"the first reset fails, and no other way is tried": {
			during: func(*rig, string) error { return errors.New("GPU is lost") },
			says:   []string{"at 0000:18:00.0 by nvidia-smi: GPU is lost"},
		},
		"somebody opens the second meanwhile": {
			during: func(r *rig, _ string) error {
				r.SetHolders(held(gpu1, machine.HolderProcess, 4711, "train.py"))
				return nil
			},
			reset: []string{gpu0}, says: []string{"held by train.py (pid 4711", "done before: ", "at 0000:18:00.0 reset by nvidia-smi"},
		},
		"the second fails": {
			during: func(_ *rig, address string) error {
				if address == gpu1 {
					return errors.New("GPU is lost")
				}
				return nil
			},
			reset: []string{gpu0}, says: []string{"0000:28:00.0 by nvidia-smi: GPU is lost; done before: "},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			r.executor.machine = meddled{r, func(address string) error { return tt.during(r, address) }}
			report, err := r.executor.Do(t.Context(), v1alpha1.Action{BootID: boot, Devices: []string{r.id(0), r.id(1)}})
			if reasonOf(err) != "-" {
				t.Fatalf("got %v, want a failure that is no refusal", err)
			}
			for _, part := range tt.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("says %q, want %q in it", err, part)
				}
			}
			if diff := cmp.Diff(tt.reset, report.Reset); diff != "" {
				t.Errorf("reported as reset (-want +got):\n%s", diff)
			}
		})
	}
}

func TestADeviceThatDoesNotComeBackHasFailed(t *testing.T) {
	tests := map[string]struct {
		after func(*rig)
		says  string
	}{
		"off the bus":           {func(r *rig) { r.RemoveDevice(gpu0) }, "it is not on the bus"},
		"silent":                {func(r *rig) { r.Break(gpu0, fake.Break{Kind: fake.Dead}) }, "reads all ones"},
		"without its driver":    {func(r *rig) { r.SetDriver(gpu0, "") }, `driver nvidia does not have it: bound to ""`},
		"nobody can look at it": {func(r *rig) { r.Fail(fake.DoorPCI, errors.New("no sysfs")) }, "no sysfs"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			r.executor.machine = broken{r, tt.after}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := r.executor.Do(ctx, v1alpha1.Action{BootID: boot, Devices: []string{r.id(0)}})
			if reasonOf(err) != "-" || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want a failure with %q", err, tt.says)
			}
		})
	}
}

func TestADeviceMayTakeAWhileToAnswer(t *testing.T) {
	r := newRig()
	r.executor.machine = broken{r, func(r *rig) {
		r.Break(gpu0, fake.Break{Kind: fake.Dead})
		time.AfterFunc(20*time.Millisecond, func() { r.Break(gpu0, fake.Break{}) })
	}}
	if _, err := r.executor.Do(t.Context(), v1alpha1.Action{BootID: boot, Devices: []string{r.id(0)}}); err != nil {
		t.Error(err)
	}
}

// broken is a machine on which something happens after a reset.
type broken struct {
	*rig
	after func(*rig)
}

func (b broken) ResetDevices(ctx context.Context, addresses []string, way machine.ResetWay) (string, error) {
	said, err := b.rig.ResetDevices(ctx, addresses, way)
	b.after(b.rig)
	return said, err
}

func TestOurOwnHelperIsKeptAwayWhileItIsDone(t *testing.T) {
	r := newRig()
	q := &quiet{rig: r}
	r.executor.machine = q
	if _, err := r.executor.Do(t.Context(), v1alpha1.Action{BootID: boot, Devices: []string{r.id(0)}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"quiesce", "holders", "reset", "resume"}, q.calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// quiet notes in which order the machine is asked.
type quiet struct {
	*rig
	calls []string
}

func (q *quiet) Quiesce(context.Context) (func(), error) {
	q.calls = append(q.calls, "quiesce")
	return func() { q.calls = append(q.calls, "resume") }, nil
}

func (q *quiet) Holders(ctx context.Context, addresses []string) ([]machine.Holder, error) {
	q.calls = append(q.calls, "holders")
	return q.rig.Holders(ctx, addresses)
}

func (q *quiet) ResetDevices(ctx context.Context, addresses []string, way machine.ResetWay) (string, error) {
	q.calls = append(q.calls, "reset")
	return q.rig.ResetDevices(ctx, addresses, way)
}

func TestWhatCanOnlyBeResetTogetherIs(t *testing.T) {
	const gpu2 = "0000:38:00.0"
	pair := map[string]string{gpu0: "nvlink-a", gpu1: "nvlink-a"}
	both := []fake.Reset{{Address: gpu0 + "," + gpu1, Way: machine.ResetByNVIDIA}}
	tests := map[string]struct {
		domains map[string]string
		devices []int
		setUp   func(*rig)
		want    []fake.Reset
		reset   []string
		reason  string
		says    string
	}{
		"two, by one command": {
			domains: pair, devices: []int{0, 1}, want: both, reset: []string{gpu0, gpu1}, says: "at 0000:28:00.0 reset by nvidia-smi in ",
		},
		"a third that hangs together with none, by itself": {
			domains: pair, devices: []int{2, 1, 0}, want: append(slices.Clone(both), fake.Reset{Address: gpu2, Way: machine.ResetByNVIDIA}),
			reset: []string{gpu0, gpu1, gpu2}, says: "they answer: done; ",
		},
		"two of different domains, one after the other": {
			domains: map[string]string{gpu0: "a", gpu1: "b"}, devices: []int{0, 1}, reset: []string{gpu0, gpu1},
			want: []fake.Reset{{Address: gpu0, Way: machine.ResetByNVIDIA}, {Address: gpu1, Way: machine.ResetByNVIDIA}},
		},
		"one of two is refused, and nothing is touched": {
			domains: pair, devices: []int{2, 0}, reason: remedy.ReasonResetDomain,
			says: "at 0000:18:00.0 can only be reset together with 0000:28:00.0, which spec.action.devices does not name",
		},
		"one whose partner is off the bus is refused": {
			domains: pair, devices: []int{0}, setUp: func(r *rig) { r.RemoveDevice(gpu1) }, reason: remedy.ReasonResetDomain, says: gpu1,
		},
		"a pair of which another driver has one is refused": {
			domains: pair, devices: []int{0, 1}, setUp: func(r *rig) { r.SetDriver(gpu1, "amdgpu") }, reason: remedy.ReasonNoResetWay,
			says: "no way does both",
		},
		"somebody at work on the partner is in the way": {
			domains: pair, devices: []int{0, 1}, setUp: func(r *rig) { r.SetHolders(held(gpu1, machine.HolderProcess, 4711, "train.py")) },
			reason: remedy.ReasonDeviceInUse, says: "at 0000:28:00.0 is held by train.py",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			r.executor = New(r, r.locate, func() map[string]string { return tt.domains })
			r.executor.poll = time.Millisecond
			if tt.setUp != nil {
				tt.setUp(r)
			}
			action := v1alpha1.Action{BootID: boot}
			for _, slot := range tt.devices {
				action.Devices = append(action.Devices, r.id(slot))
			}
			report, err := r.executor.Do(t.Context(), action)
			text := report.Message
			var refusal *remedy.Refusal
			if errors.As(err, &refusal) {
				text = refusal.Message
			}
			if got := reasonOf(err); got != tt.reason || !strings.Contains(text, tt.says) {
				t.Errorf("got %q: %q (%v), want %q with %q", got, text, err, tt.reason, tt.says)
			}
			if diff := cmp.Diff(tt.want, r.Resets()); diff != "" {
				t.Errorf("resets (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.reset, report.Reset); diff != "" {
				t.Errorf("reported as reset (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPairOfWhichOneDoesNotComeBackHasFailed(t *testing.T) {
	r := newRig()
	r.executor = New(broken{r, func(r *rig) { r.RemoveDevice(gpu1) }}, r.locate, func() map[string]string {
		return map[string]string{gpu0: "a", gpu1: "a"}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.executor.Do(ctx, v1alpha1.Action{BootID: boot, Devices: []string{r.id(0), r.id(1)}})
	if reasonOf(err) != "-" || !strings.Contains(err.Error(), "at 0000:28:00.0: ") || !strings.Contains(err.Error(), "not on the bus") {
		t.Errorf("got %v", err)
	}
}
