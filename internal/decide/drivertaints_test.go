package decide

import (
	"strings"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestWhatADriversTaintSays(t *testing.T) {
	taint := DriverTaint{Driver: "gpu.nvidia.com", Device: "gpu-3", Key: "gpu.nvidia.com/xid", Value: "79"}
	for effect, want := range map[resourcev1.DeviceTaintEffect]string{
		resourcev1.DeviceTaintEffectNoSchedule: "the DRA driver gpu.nvidia.com itself taints gpu-3: gpu.nvidia.com/xid=79:NoSchedule",
		resourcev1.DeviceTaintEffectNoExecute:  "the DRA driver gpu.nvidia.com itself taints gpu-3: gpu.nvidia.com/xid=79:NoExecute (it evicts the device's pods past every PodDisruptionBudget)",
		resourcev1.DeviceTaintEffectNone:       "the DRA driver gpu.nvidia.com itself taints gpu-3: gpu.nvidia.com/xid=79:None (information only)",
		"Later":                                "the DRA driver gpu.nvidia.com itself taints gpu-3: gpu.nvidia.com/xid=79:Later (information only)",
	} {
		if taint.Effect = effect; taint.Text() != want {
			t.Errorf("%s: %s", effect, taint.Text())
		}
	}
}

// byDriver is a taint of the driver's on the bad device, since then.
func byDriver(since time.Time) DriverTaint {
	return DriverTaint{DeviceID: bad, Driver: "gpu.example.com", Device: "gpu-3", Key: "gpu.example.com/xid", Value: "79",
		Effect: resourcev1.DeviceTaintEffectNoSchedule, Since: since}
}

// TestADeviceThatItsDriverKeepsIsNotBack repairs a device whose driver's taint stays, and that no rule names.
func TestADeviceThatItsDriverKeepsIsNotBack(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	w.run()
	w.reboot("boot-2", true)
	w.run()
	w.pass(time.Minute)
	s := w.snapshot()
	if !Look(s).Taints {
		t.Fatalf("in %s, about to end, nobody looks at what the driver says", w.rem.Status.Phase)
	}
	s.DriverTaints = []DriverTaint{byDriver(w.now)}
	d := Next(s)
	if d.Phase != v1alpha1.PhaseProbation || !strings.Contains(d.Message, "not back in service before its driver says so: the DRA driver gpu.example.com itself taints gpu-3") {
		t.Errorf("with its driver's taint on: %s, %s", d.Phase, d.Message)
	}
	s.DriverTaints = []DriverTaint{}
	if d := Next(s); d.Phase != v1alpha1.PhaseProbation || strings.Contains(d.Message, "driver") {
		t.Errorf("without: %s, %s", d.Phase, d.Message)
	}
	if Look(s).Taints {
		t.Error("what was looked at is looked at again")
	}
}

func TestWhileAFaultIsThereNobodyLooksForDriversTaints(t *testing.T) {
	w := newWorld(t)
	w.fault("Xid79", bad)
	w.run()
	if Look(w.snapshot()).Taints {
		t.Error("nothing is about to end")
	}
}

// TestADriversOldWordDoesNotDisproveARepair has a rule name the driver's taint. A driver may take it back only when it
// starts anew, some time after its node: what it said before the proof began keeps the proof waiting, and what it says
// after disproves.
func TestADriversOldWordDoesNotDisproveARepair(t *testing.T) {
	for name, since := range map[string]time.Duration{"old": -time.Hour, "new": time.Second} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fault("Xid79", bad)
			w.run()
			w.run()
			w.reboot("boot-2", true)
			w.run()
			if w.rem.Status.Phase != v1alpha1.PhaseVerifying {
				t.Fatal(w.rem.Status.Phase)
			}
			began := w.rem.Status.Since.Time
			w.fault("DeviceTaint/gpu.example.com/xid=79", bad)
			f := &w.health.Status.Faults[len(w.health.Status.Faults)-1]
			f.Check, f.Evidence = v1alpha1.CheckDeviceTaint, "gpu.example.com/xid=79:NoSchedule of the DRA driver gpu.example.com on gpu-3"
			f.FirstSeen.Time = began.Add(since)
			w.setHealth(bad, v1alpha1.DeviceHealthy)
			w.pass(time.Minute)
			d := Next(w.snapshot())
			switch name {
			case "old":
				if d.Phase != v1alpha1.PhaseVerifying || !strings.Contains(d.Message, "xid=79:NoSchedule of the DRA driver gpu.example.com on gpu-3 is still on") {
					t.Errorf("%s: %s", d.Phase, d.Message)
				}
				w.pass(24 * time.Hour)
				if d := Next(w.snapshot()); d.Attempt == nil || d.Attempt.Result != v1alpha1.AttemptNotRepaired {
					t.Errorf("when the time of verification is up: %s, %s", d.Phase, d.Message)
				}
			case "new":
				if d.Attempt == nil || d.Attempt.Result != v1alpha1.AttemptNotRepaired {
					t.Errorf("%s: %s", d.Phase, d.Message)
				}
			}
		})
	}
}
