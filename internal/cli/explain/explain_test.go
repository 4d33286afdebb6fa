package explain

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

var (
	// Asked at 10:14 in Tokyo.
	now  = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)
	zone = time.FixedZone("JST", 9*60*60)
)

func ago(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }

func in(d time.Duration) *metav1.Time { return &metav1.Time{Time: now.Add(d)} }

const bad = "GPU-6a1f0c52"

// healthy is a node with eight devices, all of them good, under a policy, a budget and nothing else.
func healthy() Snapshot {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-0417", UID: "77aa", Labels: map[string]string{"pool": "training", "rack": "r26"}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: v1alpha1.ConditionReporting, Status: corev1.ConditionTrue, LastTransitionTime: ago(96 * time.Hour)},
		}},
	}
	health := &v1alpha1.NodeHealth{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-0417", CreationTimestamp: ago(400 * time.Hour)},
		Status: v1alpha1.NodeHealthStatus{
			Summary: v1alpha1.SummaryHealthy, AgentVersion: "v0.1.0", BootID: "b1",
			SupportedActions: []v1alpha1.ActionType{v1alpha1.ActionReboot, v1alpha1.ActionResetDevice},
			CompletedRound:   &v1alpha1.Round{BootID: "b1", AfterAction: "gpu-0417-old-1", At: ago(96*time.Hour - 3*time.Minute)},
			Boots: []v1alpha1.Boot{
				{ID: "b0", At: ago(300 * time.Hour), Cause: v1alpha1.BootByOther},
				{ID: "b1", At: ago(96 * time.Hour), Cause: v1alpha1.BootByRoundhouse, Action: "gpu-0417-old-1"},
			},
		},
	}
	ids := []string{"GPU-0", "GPU-1", "GPU-2", bad, "GPU-4", "GPU-5", "GPU-6", "GPU-7"}
	for i, id := range ids {
		health.Status.Devices = append(health.Status.Devices, v1alpha1.Device{
			ID: id, Model: "H200", Serial: "132400" + string(rune('0'+i)), Slot: string(rune('0' + i)), Health: v1alpha1.DeviceHealthy,
		})
	}
	two := intstr.FromInt32(1)
	three, window := int32(3), metav1.Duration{Duration: 720 * time.Hour}
	return Snapshot{
		Now: now, Name: "gpu-0417", Node: node, Health: health,
		Policies: []v1alpha1.RemediationPolicy{{
			ObjectMeta: metav1.ObjectMeta{Name: "training", Generation: 14},
			Spec: v1alpha1.RemediationPolicySpec{
				Mode: v1alpha1.ModeRemediate, NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": "training"}},
				Rules: []v1alpha1.Rule{
					{Name: "application-errors", Match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}, Response: v1alpha1.ResponseIgnore},
					{
						Name: "one-bad-device", Match: v1alpha1.RuleMatch{Scope: v1alpha1.ScopeDevice, Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
						Response: v1alpha1.ResponseRepair, When: v1alpha1.WhenIdle, Deadline: &metav1.Duration{Duration: 12 * time.Hour},
						AtDeadline: v1alpha1.DeadlineEscalate, Ladder: []string{"reset-device", "reboot", "send-back"},
					},
				},
				Rungs: []v1alpha1.Rung{
					{Name: "reset-device", Action: v1alpha1.RungResetDevice},
					{Name: "reboot", Action: v1alpha1.RungReboot, Attempts: new(int32(2))},
					{Name: "send-back", Action: v1alpha1.RungEscalate, Message: "replace the device and send the old one back"},
				},
				Verify: &v1alpha1.Verify{Settle: &metav1.Duration{Duration: 2 * time.Minute}},
				Loop:   &v1alpha1.Loop{MaxRepairs: &three, Window: &window},
			},
			Status: v1alpha1.RemediationPolicyStatus{
				Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue, Reason: "Valid"}},
				Brake:      &v1alpha1.BrakeStatus{State: v1alpha1.BrakeReleased},
			},
		}},
		Budgets: []v1alpha1.NodeDisruptionBudget{
			{
				ObjectMeta: metav1.ObjectMeta{Name: "per-rack"},
				Spec: v1alpha1.NodeDisruptionBudgetSpec{
					NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": "training"}}, TopologyKey: "rack", MaxUnavailable: &two,
				},
				Status: v1alpha1.NodeDisruptionBudgetStatus{Reservations: []v1alpha1.Reservation{
					{Node: "gpu-0419", Domain: "r26", Since: ago(33 * time.Minute)}, {Node: "gpu-0777", Domain: "r30", Since: ago(time.Hour)},
				}},
			},
		},
	}
}

// faulty adds the fault of the examples.
func faulty() Snapshot {
	s := healthy()
	st := &s.Health.Status
	st.Summary = v1alpha1.SummaryFaulty
	st.Devices[3].Health = v1alpha1.DeviceUnhealthy
	st.Faults = []v1alpha1.Fault{
		{
			Code: "Xid79", Check: "kernel-log", Device: bad, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
			Recommended: v1alpha1.RecommendReboot, FirstSeen: ago(14 * time.Minute), Count: 1, Root: true,
			Evidence: "NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus.",
		},
		{
			Code: "Xid45", Check: "kernel-log", Device: bad, Class: v1alpha1.ClassApplication, Severity: v1alpha1.SeverityWarning,
			FirstSeen: ago(14 * time.Minute), Count: 64, CausedBy: "Xid79", Evidence: "NVRM: Xid (PCI:0000:18:00): 45, pid=4711, \x1b[31mChannel ID 00000008",
		},
	}
	st.Checks = []v1alpha1.CheckStatus{{Name: "nvml", Result: "Unknown", Reason: "HelperTimedOut", Since: ago(13 * time.Minute)}}
	return s
}

// incident adds the open Remediation, in a phase.
func incident(phase v1alpha1.Phase, reason, message, wouldChange string, change ...func(*Snapshot, *v1alpha1.Remediation)) Snapshot {
	s := faulty()
	since := ago(10 * time.Minute)
	r := v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-0417-k3q7x2m9aa", CreationTimestamp: ago(14 * time.Minute)},
		Spec: v1alpha1.RemediationSpec{
			Node: "gpu-0417", NodeUID: "77aa", Devices: []string{bad}, Policy: "training",
			Root:       v1alpha1.RootFault{Code: "Xid79", Device: bad, Check: "kernel-log", FirstSeen: ago(14 * time.Minute)},
			Quarantine: []v1alpha1.QuarantineIntent{{Kind: v1alpha1.QuarantineDeviceTaintRule, Name: "gpu-0417-k3q7x2m9aa-0", DeviceID: bad}},
		},
		Status: v1alpha1.RemediationStatus{
			Phase: phase, Reason: reason, Message: message, WouldChange: wouldChange, Since: &since, Rule: "one-bad-device", PolicyGeneration: 14,
			Timeline: []v1alpha1.TimelineEntry{
				{At: ago(14 * time.Minute), Phase: v1alpha1.PhasePending, Reason: decide.ReasonFaultsReported, Message: "Xid79 on slot 3 (" + bad + ")"},
				{At: ago(14 * time.Minute), Phase: v1alpha1.PhasePending, Reason: decide.ReasonDeviceQuarantined, Message: "1 of 8 devices kept from new work; 7 keep serving"},
			},
			Quarantined: []v1alpha1.Quarantined{{
				Kind: v1alpha1.QuarantineDeviceTaintRule, Name: "gpu-0417-k3q7x2m9aa-0", DeviceID: bad, Driver: "gpu.nvidia.com", Pool: "gpu-0417", Device: "gpu-3",
			}},
		},
	}
	for _, c := range change {
		c(&s, &r)
	}
	s.Remediations = append(s.Remediations, r)
	return s
}

func step(rung string, index, attempt int32) func(*Snapshot, *v1alpha1.Remediation) {
	return func(_ *Snapshot, r *v1alpha1.Remediation) {
		r.Status.Step = &v1alpha1.Step{Rung: rung, Index: index, Attempt: attempt, ActionID: r.Name + "-1", Deadline: in(10 * time.Minute)}
	}
}

func happened(at time.Duration, phase v1alpha1.Phase, reason, message string) func(*Snapshot, *v1alpha1.Remediation) {
	return func(_ *Snapshot, r *v1alpha1.Remediation) {
		r.Status.Timeline = append(r.Status.Timeline, v1alpha1.TimelineEntry{At: ago(at), Phase: phase, Reason: reason, Message: message})
	}
}

func until(d time.Duration) func(*Snapshot, *v1alpha1.Remediation) {
	return func(_ *Snapshot, r *v1alpha1.Remediation) { r.Status.Deadline = in(d) }
}

// repaired is how the node looks once the fault is gone and nothing of ours is on.
func repaired(s *Snapshot, r *v1alpha1.Remediation) {
	good := healthy()
	s.Health = good.Health
	r.Status.Quarantined = nil
	r.Status.Evidence = &v1alpha1.Evidence{At: ago(9 * time.Minute), SHA256: "77ab01c2d3e4f5060708", Faults: faulty().Health.Status.Faults[:1], Devices: good.Health.Status.Devices[3:4]}
	r.Status.Attempts = []v1alpha1.Attempt{{Rung: "reboot", Index: 1, At: ago(5 * time.Minute), Result: v1alpha1.AttemptRepaired}}
}

func remembered(s *Snapshot, _ *v1alpha1.Remediation) {
	s.Records = []v1alpha1.DeviceRecord{{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-6a1f0c52"},
		Status: v1alpha1.DeviceRecordStatus{
			Identity:  v1alpha1.DeviceIdentity{UUID: bad, Serial: "1324003", Model: "H200"},
			Totals:    v1alpha1.DeviceTotals{Incidents: 4, Repairs: 3, Relapses: 2, OutHours: "7.50"},
			Suspicion: &v1alpha1.Suspicion{Level: "Lemon", Because: []string{"4 incidents in 28 days", "follows the device, not the slot"}},
		},
	}}
}

func cases() map[string]Snapshot {
	all := otherCases()
	maps.Copy(all, observedCases())
	maps.Copy(all, heldCases())
	return all
}

func otherCases() map[string]Snapshot {
	off := func(change func(*Snapshot)) Snapshot { s := healthy(); change(&s); return s }
	idle := "a reboot would kill 7 job pods (18.5 device-hours): waiting for idle until 2026-11-23T13:14:00Z"
	return map[string]Snapshot{
		"healthy": healthy(),
		"healthy-and-held": off(func(s *Snapshot) {
			s.Holds = []v1alpha1.RemediationHold{{
				ObjectMeta: metav1.ObjectMeta{Name: "night-run", CreationTimestamp: ago(time.Hour)},
				Spec:       v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-0417"}, Holds: v1alpha1.HoldDisruption, Reason: "demo on Monday", RequestedBy: "y.sato"},
			}}
		}),
		"unknown-could-not-look": off(func(s *Snapshot) {
			s.Health.Status.Summary = v1alpha1.SummaryUnknown
			s.Health.Status.Checks = []v1alpha1.CheckStatus{{Name: "pci", Result: "Unknown", Reason: "PermissionDenied", Message: "open /sys/bus/pci/devices: permission denied", Since: ago(time.Hour)}}
		}),
		"unknown-silent-agent": off(func(s *Snapshot) {
			s.Node.Status.Conditions[0].Status = corev1.ConditionUnknown
			s.Node.Status.Conditions[0].LastTransitionTime = ago(20 * time.Minute)
			s.Node.Status.Conditions[0].Message = "no word from the agent for 3m"
		}),
		"unknown-without-controller": off(func(s *Snapshot) { s.Node.Status.Conditions = nil }),
		"healthy-and-somebody-elses": off(func(s *Snapshot) {
			s.Node.Annotations = map[string]string{claim.AnnotationKuredReboot: "2026-11-23T01:00:00Z"}
		}),
		"no-agent":                off(func(s *Snapshot) { s.Health.Status = v1alpha1.NodeHealthStatus{}; s.Node.Status.Conditions = nil }),
		"no-nodehealth":           off(func(s *Snapshot) { s.Health = nil; s.Node.Status.Conditions = nil }),
		"unknown-acting":          off(func(s *Snapshot) { s.Health.Status.Summary = v1alpha1.SummaryActing }),
		"unknown-new-boot":        off(func(s *Snapshot) { s.Health.Status.Summary, s.Health.Status.BootID = v1alpha1.SummaryUnknown, "b2" }),
		"faulty-policies-tie":     twoPoliciesAndAFault(),
		"faulty-just-now":         justNow(),
		"no-policy":               off(func(s *Snapshot) { s.Policies = nil }),
		"no-such-node":            {Now: now, Name: "gpu-041", Similar: []string{"gpu-0417", "gpu-0418"}},
		"faulty-ignored":          ignored(),
		"faulty-without-a-policy": noPolicy(),
		"pending-observe": incident(v1alpha1.PhasePending, decide.ReasonModeObserve,
			"observing only; would quarantine 1 device, move 1 pod, reboot when idle (rule one-bad-device)", "mode Quarantine or Remediate in the node's policy",
			observing),
		"pending-policy-not-accepted": incident(v1alpha1.PhasePending, decide.ReasonPolicyNotAccepted,
			"the node is observed: spec.rules[0](x).match.expression: undeclared reference", "a valid policy, without a tie of priorities",
			observing, invalid),
		"pending-budget-exhausted": incident(v1alpha1.PhasePending, decide.ReasonBudgetExhausted,
			"per-rack: 1 of 1 nodes in rack r26 are out (gpu-0419, GPU operator driver upgrade)", "gpu-0419 returns, or per-rack allows 2", until(12*time.Hour), remembered),
		"pending-waiting-for-idle": incident(v1alpha1.PhasePending, decide.ReasonWaitingForIdle, idle, "the jobs end, or kubectl roundhouse approve gpu-0417 --skip-idle",
			until(12*time.Hour), func(_ *Snapshot, r *v1alpha1.Remediation) {
				r.Status.Drain = &v1alpha1.DrainStatus{PodsLeft: 7, WorkAtRisk: "18.5 device-hours", Scope: "Node"}
			}),
		"pending-held": incident(v1alpha1.PhasePending, decide.ReasonHeld, "held by y.sato until 2026-11-24T01:00:00Z: demo on Monday", "RemediationHold night-run deleted or lapsed",
			func(s *Snapshot, _ *v1alpha1.Remediation) {
				s.Holds = []v1alpha1.RemediationHold{{
					ObjectMeta: metav1.ObjectMeta{Name: "night-run", CreationTimestamp: ago(time.Hour)},
					Spec:       v1alpha1.RemediationHoldSpec{NodeSelector: &metav1.LabelSelector{}, Holds: v1alpha1.HoldEverything, Reason: "demo on Monday", RequestedBy: "y.sato", Until: in(24 * time.Hour)},
				}}
			}),
		"pending-braked": incident(v1alpha1.PhasePending, decide.ReasonBrakeHolding, "the brake holds: 31 nodes show Xid79 at once", "fewer than 3 nodes of the policy show Xid79 within 10m",
			until(12*time.Hour), func(s *Snapshot, _ *v1alpha1.Remediation) {
				since := ago(5 * time.Minute)
				s.Policies[0].Status.Brake = &v1alpha1.BrakeStatus{State: v1alpha1.BrakeHolding, Signature: "Xid79", Nodes: 31, Since: &since, ReleaseWhen: "fewer than 3 nodes show it"}
			}),
		"pending-held-without-end": incident(v1alpha1.PhasePending, decide.ReasonHeld, "held by y.sato until it is deleted: demo on Monday", "RemediationHold night-run deleted or lapsed", until(12*time.Hour),
			held(v1alpha1.HoldDisruption, nil)),
		"pending-not-reporting": incident(v1alpha1.PhasePending, decide.ReasonNotReporting, "the agent's word is not fresh: "+notReady, "the agent reports again", until(12*time.Hour), silent),
		"pending-foreign-claim": incident(v1alpha1.PhasePending, decide.ReasonForeignClaim, "kured is working on the node: annotation weave.works/kured-reboot-in-progress", "kured lets go of the node", until(12*time.Hour),
			func(s *Snapshot, _ *v1alpha1.Remediation) {
				s.Node.Annotations = map[string]string{claim.AnnotationKuredReboot: "2026-11-23T01:00:00Z"}
			}),
		"pending-waiting-for-window": incident(v1alpha1.PhasePending, decide.ReasonWaitingForWindow, "waiting for a window; the next opens 2026-11-23T13:00:00Z", "kubectl roundhouse approve gpu-0417 --skip-window",
			until(12*time.Hour), inWindow),
		"pending-relapsed": incident(v1alpha1.PhasePending, decide.ReasonRelapsed, "Xid79 on slot 3 ("+bad+") within probation", "", step("reboot", 1, 1), func(_ *Snapshot, r *v1alpha1.Remediation) {
			r.Status.Quarantined, r.Status.Attempts = nil, []v1alpha1.Attempt{{Rung: "reboot", Index: 1, At: ago(2 * time.Hour), Result: v1alpha1.AttemptRelapsed}}
			r.Status.Timeline = append(r.Status.Timeline, v1alpha1.TimelineEntry{At: ago(time.Minute), Phase: v1alpha1.PhasePending, Reason: decide.ReasonRelapsed, Message: "Xid79 on slot 3 (" + bad + ") within probation"})
		}),
		"pending-retry-approved": incident(v1alpha1.PhasePending, decide.ReasonRetryApproved, "retry approved by y.sato", "", relapses, func(_ *Snapshot, r *v1alpha1.Remediation) {
			r.Status.Timeline, r.Status.Restart = r.Status.Timeline[:2], &v1alpha1.Restart{At: ago(time.Minute), ApprovedUntil: *in(time.Hour)}
		}),
		"pending-undecided":            incident("", "", "", "", func(_ *Snapshot, r *v1alpha1.Remediation) { r.Status = v1alpha1.RemediationStatus{} }),
		"pending-for-a-new-reason":     incident(v1alpha1.PhasePending, "MoonInTheWrongHouse", "the moon is in the wrong house", "the moon moves"),
		"pending-being-cancelled":      incident(v1alpha1.PhasePending, decide.ReasonBudgetExhausted, "per-rack: 1 of 1 nodes are out", "", func(_ *Snapshot, r *v1alpha1.Remediation) { r.Spec.Cancel = true }),
		"pending-for-a-node-condition": incident(v1alpha1.PhasePending, decide.ReasonBudgetExhausted, "per-rack: 1 of 1 nodes are out", "gpu-0419 returns", deadlocked),
		"two-policies-tie": off(func(s *Snapshot) {
			other := *s.Policies[0].DeepCopy()
			other.Name = "also"
			s.Policies = append(s.Policies, other)
		}),
		"quarantined":               incident(v1alpha1.PhaseQuarantined, decide.ReasonQuarantineOnly, "policy training is in mode Quarantine", "mode Remediate and a rule with response Repair, or the fault's end"),
		"draining-with-blockers":    draining(),
		"repairing":                 repairing(),
		"verifying":                 verifying(),
		"verifying-in-the-old-boot": verifying(func(s *Snapshot, _ *v1alpha1.Remediation) { s.Health = healthy().Health }),
		"verifying-with-the-fault": verifying(func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.Health.Status.Faults, s.Health.Status.Devices = faulty().Health.Status.Faults, faulty().Health.Status.Devices
		}),
		"verifying-silent": verifying(silent),
		"probation":        probation(),
		"probation-silent": probation(silent),
		"escalated":        incident(v1alpha1.PhaseEscalated, decide.ReasonAttemptsSpent, "replace the device and send the old one back", wayOut, step("reboot", 1, 2), remembered, relapses),
		"escalated-limit": incident(v1alpha1.PhaseEscalated, decide.ReasonRepairLimit, "3 repairs in 30d: no more; it follows the hardware", wayOut, step("reboot", 1, 1), remembered,
			repaired, func(s *Snapshot, _ *v1alpha1.Remediation) { s.Health = faulty().Health }),
		"escalated-with-another-fault": incident(v1alpha1.PhaseEscalated, decide.ReasonAttemptsSpent, "replace the device and send the old one back", wayOut, step("reboot", 1, 2), repaired,
			func(s *Snapshot, r *v1alpha1.Remediation) {
				s.Health = faulty().Health
				s.Health.Status.Faults = []v1alpha1.Fault{{Code: "PCIDeviceDead", Check: "pci", Device: bad, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
					FirstSeen: ago(8 * time.Minute), Count: 1, Evidence: "PCI configuration space of 0000:18:00.0 reads all ones"}}
				r.Status.Attempts[0].Result = v1alpha1.AttemptNotRepaired
			}),
		"escalated-and-silent": incident(v1alpha1.PhaseEscalated, decide.ReasonNotRepaired, "no proof in time: the agent does not report", wayOut, step("reboot", 1, 1), silent),
		"escalated-waits-for-a-slot": incident(v1alpha1.PhaseEscalated, decide.ReasonBudgetExhausted, "per-rack: 1 of 1 nodes of rack r26 is out (gpu-0419, cordoned)", "gpu-0419 returns",
			step("reboot", 1, 2), happened(30*time.Minute, v1alpha1.PhaseEscalated, decide.ReasonAttemptsSpent, "replace the device and send the old one back"), repaired),
		"succeeded": incident(v1alpha1.PhaseSucceeded, decide.ReasonProbationClean, "no relapse within 24h", "", repaired),
		"succeeded-and-tidying": incident(v1alpha1.PhaseSucceeded, decide.ReasonFaultCleared, "the fault is gone without a repair", "", func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.Health = healthy().Health
		}),
		"succeeded-and-back": incident(v1alpha1.PhaseSucceeded, decide.ReasonProbationClean, "no relapse within 24h", "", repaired, func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.Health = faulty().Health
		}),
		"succeeded-by-itself": incident(v1alpha1.PhaseSucceeded, decide.ReasonFaultCleared, "the fault is gone without a repair", "", repaired,
			func(_ *Snapshot, r *v1alpha1.Remediation) { r.Status.Attempts, r.Status.Evidence = nil, nil }),
		"succeeded-long-ago": incident(v1alpha1.PhaseSucceeded, decide.ReasonProbationClean, "", "", repaired, func(_ *Snapshot, r *v1alpha1.Remediation) {
			r.Status.Since = &metav1.Time{Time: now.Add(-72 * time.Hour)}
		}),
		"cancelled-still-faulty": incident(v1alpha1.PhaseCancelled, decide.ReasonCancelled, "cancelled by a human; what was put on is taken off", "", func(_ *Snapshot, r *v1alpha1.Remediation) { r.Status.Quarantined = nil }),
		"cancelled-and-back": incident(v1alpha1.PhaseCancelled, decide.ReasonCancelled, "cancelled by a human; what was put on is taken off", "", func(s *Snapshot, r *v1alpha1.Remediation) {
			s.Health.Status.Faults[0].FirstSeen, r.Status.Quarantined = ago(3*time.Minute), nil
		}),
		"cancelled-by-the-policy": incident(v1alpha1.PhaseCancelled, decide.ReasonPolicyMovedOn, "policy training no longer asks for anything about this fault", "",
			func(s *Snapshot, r *v1alpha1.Remediation) {
				s.Policies[0].Spec.Rules[1].Response, r.Status.Quarantined = v1alpha1.ResponseIgnore, nil
			}),
		"cancelled-by-the-policy-that-asks-again": incident(v1alpha1.PhaseCancelled, decide.ReasonPolicyMovedOn, "policy training no longer asks for anything about this fault", "",
			func(_ *Snapshot, r *v1alpha1.Remediation) { r.Status.Quarantined = nil }),
		"cancelled-and-healthy":     incident(v1alpha1.PhaseCancelled, decide.ReasonCancelled, "cancelled by a human; what was put on is taken off", "", repaired),
		"node-gone":                 incident(v1alpha1.PhaseNodeGone, decide.ReasonNodeGone, "the Node gpu-0417 was deleted, or is another one of the same name", "", func(s *Snapshot, r *v1alpha1.Remediation) { s.Node, s.Health, r.Status.Quarantined = nil, nil, nil }),
		"new-node-of-the-same-name": incident(v1alpha1.PhaseNodeGone, decide.ReasonNodeGone, "", "", repaired, func(s *Snapshot, r *v1alpha1.Remediation) { s.Node.UID = "99cc" }),
	}
}

const (
	wayOut   = "the part replaced; kubectl roundhouse approve NODE --retry; or kubectl roundhouse release NODE"
	notReady = "the agent's Pod is not Ready; its last word about the node may be old"
)

// verifying is a repair of two minutes ago that is being proved in a new boot.
func verifying(change ...func(*Snapshot, *v1alpha1.Remediation)) Snapshot {
	change = append([]func(*Snapshot, *v1alpha1.Remediation){step("reboot", 1, 1), until(15 * time.Minute), repaired, func(s *Snapshot, r *v1alpha1.Remediation) {
		r.Status.Attempts, r.Status.Step.BootID, *r.Status.Since = nil, "b1", ago(2*time.Minute)
		st := &s.Health.Status
		st.BootID, st.Boots = "b2", append(st.Boots, v1alpha1.Boot{ID: "b2", At: ago(3 * time.Minute), Cause: v1alpha1.BootByRoundhouse, Action: r.Status.Step.ActionID})
		st.CompletedRound = &v1alpha1.Round{BootID: "b2", AfterAction: r.Status.Step.ActionID, At: ago(time.Minute)}
	}}, change...)
	return incident(v1alpha1.PhaseVerifying, decide.ReasonActionDone, "the node started anew: boot b2", "", change...)
}

func probation(change ...func(*Snapshot, *v1alpha1.Remediation)) Snapshot {
	change = append([]func(*Snapshot, *v1alpha1.Remediation){step("reboot", 1, 1), until(24 * time.Hour), repaired}, change...)
	return incident(v1alpha1.PhaseProbation, decide.ReasonVerified, "boot b1, 8 of 8 devices healthy, x16 at 32 GT/s", "a relapse before 2026-11-24T01:14:00Z", change...)
}

// silent is an agent that has not reported for a while.
func silent(s *Snapshot, _ *v1alpha1.Remediation) {
	c := &s.Node.Status.Conditions[0]
	c.Status, c.LastTransitionTime, c.Message = corev1.ConditionFalse, ago(5*time.Minute), notReady
}

func held(kind v1alpha1.HoldKind, until *metav1.Time) func(*Snapshot, *v1alpha1.Remediation) {
	return func(s *Snapshot, _ *v1alpha1.Remediation) {
		s.Holds = append(s.Holds, v1alpha1.RemediationHold{
			ObjectMeta: metav1.ObjectMeta{Name: "night-run", CreationTimestamp: ago(time.Hour)},
			Spec:       v1alpha1.RemediationHoldSpec{Nodes: []string{"gpu-0417"}, Holds: kind, Reason: "demo on Monday", RequestedBy: "y.sato", Until: until},
		})
	}
}

func braked(s *Snapshot, _ *v1alpha1.Remediation) {
	since := ago(5 * time.Minute)
	s.Policies[0].Status.Brake = &v1alpha1.BrakeStatus{State: v1alpha1.BrakeHolding, Signature: "Xid79", Nodes: 31, Since: &since, ReleaseWhen: "fewer than 3 nodes show it"}
}

// inWindow lets the rule wait for a window, which opens at 22:00 of Tokyo.
func inWindow(s *Snapshot, _ *v1alpha1.Remediation) {
	p := &s.Policies[0].Spec
	p.Rules[1].When = v1alpha1.WhenWindow
	p.Windows = []v1alpha1.Window{{Days: []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}, Start: "22:00", End: "23:00", TimeZone: "Asia/Tokyo"}}
}

// observing is an incident under a policy that only observes.
func observing(s *Snapshot, r *v1alpha1.Remediation) {
	s.Policies[0].Spec.Mode = v1alpha1.ModeObserve
	r.Status.Quarantined, r.Status.Timeline = nil, r.Status.Timeline[:1]
}

// invalid is a policy with an expression that cannot be read.
func invalid(s *Snapshot, _ *v1alpha1.Remediation) {
	s.Policies[0].Spec.Rules[0].Match = v1alpha1.RuleMatch{Expression: "fault.nonsense > 3"}
	s.Policies[0].Status.Conditions[0] = metav1.Condition{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionFalse, Reason: "Invalid", Message: "spec.rules[0](application-errors).match.expression: undefined field 'nonsense'"}
}

// tied adds a policy of the same priority.
func tied(s *Snapshot, _ *v1alpha1.Remediation) {
	other := *s.Policies[0].DeepCopy()
	other.Name = "zzz-other"
	s.Policies = append(s.Policies, other)
}

// observedCases are incidents that are only observed, for one reason or another, and would do this or that.
func observedCases() map[string]Snapshot {
	type change = func(*Snapshot, *v1alpha1.Remediation)
	observe := func(message string, more ...change) Snapshot {
		return incident(v1alpha1.PhasePending, decide.ReasonModeObserve, "observing only; would "+message+" (rule one-bad-device)", "mode Quarantine or Remediate in the node's policy",
			append([]change{observing}, more...)...)
	}
	const would = "quarantine 1 device, move 1 pod, reboot when idle"
	rule := func(change func(*v1alpha1.Rule)) change {
		return func(s *Snapshot, _ *v1alpha1.Remediation) { change(&s.Policies[0].Spec.Rules[1]) }
	}
	intents := func(q ...v1alpha1.QuarantineIntent) change {
		return func(_ *Snapshot, r *v1alpha1.Remediation) { r.Spec.Quarantine = q }
	}
	none := func(reason, message, change string) func(...change) Snapshot {
		return func(more ...func(*Snapshot, *v1alpha1.Remediation)) Snapshot {
			return incident(v1alpha1.PhasePending, reason, message, change, append([]func(*Snapshot, *v1alpha1.Remediation){observing}, more...)...)
		}
	}
	nobody := none(decide.ReasonNoPolicy, "no policy governs this node, so it is observed", "a RemediationPolicy that selects the node")
	return map[string]Snapshot{
		"observe-braked-and-held":      observe(would, braked, held(v1alpha1.HoldDisruption, in(24*time.Hour)), silent),
		"observe-held-from-all":        observe(would, held(v1alpha1.HoldEverything, nil)),
		"observe-a-device-not-offered": observe(would, intents()),
		"observe-by-node-taint": observe("keep new work off the node, reboot when idle",
			intents(v1alpha1.QuarantineIntent{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined})),
		"observe-quarantine-only": observe("quarantine 1 device", rule(func(r *v1alpha1.Rule) { r.Response, r.Ladder = v1alpha1.ResponseQuarantine, nil })),
		"observe-at-once":         observe("quarantine 1 device, reboot at once", rule(func(r *v1alpha1.Rule) { r.When, r.Deadline = v1alpha1.WhenNow, nil })),
		"observe-in-a-window":     observe("quarantine 1 device, reboot in a window", inWindow),
		"observe-repair-limit": observe(would, remembered, func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.Records[0].Status.Incidents = []v1alpha1.DeviceIncident{{Remediation: "old", Code: "Xid79", Repairs: 3, At: ago(200 * time.Hour)}}
		}),
		"observe-boot-limit": observe(would, func(s *Snapshot, _ *v1alpha1.Remediation) {
			s.Policies[0].Spec.Loop.MaxBoots = new(int32(2))
		}),
		"observe-a-fault-no-rule-matches": observe(would, rule(func(r *v1alpha1.Rule) { r.Match = v1alpha1.RuleMatch{Codes: []string{"Xid48"}} })),
		"no-policy-with-an-incident":      nobody(func(s *Snapshot, _ *v1alpha1.Remediation) { s.Policies = nil }),
		"no-policy-selects-it-now":        nobody(func(s *Snapshot, r *v1alpha1.Remediation) { s.Node.Labels, r.Status.Rule = nil, "" }),
		"pending-policy-that-never-was": none(decide.ReasonPolicyNotAccepted, "the node is observed: spec.rules[0](application-errors).match.expression: undefined field 'nonsense'",
			"a valid policy, without a tie of priorities")(invalid, func(_ *Snapshot, r *v1alpha1.Remediation) { r.Status.Rule = "" }),
		"pending-policies-tie": none(decide.ReasonPolicyNotAccepted, "the node is observed: policies training and zzz-other of priority 0 select this node: it is in Observe until one has another priority",
			"a valid policy, without a tie of priorities")(tied),
	}
}

// deadlocked is a fault that somebody else's condition shows.
func deadlocked(s *Snapshot, r *v1alpha1.Remediation) {
	s.Health = healthy().Health
	s.Node.Status.Conditions = append(s.Node.Status.Conditions, corev1.NodeCondition{
		Type: "KernelDeadlock", Status: corev1.ConditionTrue, Reason: "DockerHung", Message: "task docker:1 blocked for more than 300 seconds", LastTransitionTime: ago(20 * time.Minute),
	})
	s.Policies[0].Spec.Rules = append(s.Policies[0].Spec.Rules, v1alpha1.Rule{
		Name: "what-npd-says", Response: v1alpha1.ResponseRepair, Ladder: []string{"reboot", "send-back"},
		Match: v1alpha1.RuleMatch{NodeConditions: []v1alpha1.NodeConditionMatch{{Type: "KernelDeadlock", Status: corev1.ConditionTrue, For: metav1.Duration{Duration: 2 * time.Minute}}}},
	})
	r.Spec.Devices, r.Status.Rule, r.Status.Quarantined = nil, "what-npd-says", nil
	r.Spec.Root = v1alpha1.RootFault{Code: "NodeCondition/KernelDeadlock", Check: "node-condition", FirstSeen: ago(20 * time.Minute)}
}

func ignored() Snapshot {
	s := faulty()
	s.Health.Status.Faults = s.Health.Status.Faults[1:]
	s.Health.Status.Devices[3].Health = v1alpha1.DeviceHealthy
	return s
}

func justNow() Snapshot {
	s := faulty()
	s.Health.Status.Faults[0].FirstSeen = ago(2 * time.Second)
	return s
}

func twoPoliciesAndAFault() Snapshot {
	s := faulty()
	tied(&s, nil)
	return s
}

func noPolicy() Snapshot {
	s := faulty()
	s.Policies = nil
	return s
}

func draining() Snapshot {
	return incident(v1alpha1.PhaseDraining, decide.ReasonEvictionBlocked, "ml/infer-3: PodDisruptionBudget ml/infer allows no more", "the PodDisruptionBudget lets the pod go",
		step("reboot", 1, 0), until(50*time.Minute), happened(10*time.Minute, v1alpha1.PhaseDraining, decide.ReasonDrainStarted, "moving 3 pods off the node; 2 stay"),
		func(_ *Snapshot, r *v1alpha1.Remediation) {
			r.Status.Drain = &v1alpha1.DrainStatus{
				PodsLeft: 2, PodsMoved: 1, WorkAtRisk: "0.2 device-hours", Scope: "Node",
				Blockers: []v1alpha1.Blocker{
					{Pod: "ml/infer-3", Reason: "DisruptionBudget", Message: "PodDisruptionBudget ml/infer allows no more"},
					{Pod: "vm/virt-launcher-x", Reason: "CannotMigrate"},
				},
			}
		})
}

func repairing() Snapshot {
	return incident(v1alpha1.PhaseRepairing, decide.ReasonActionAsked, "the agent has started the reboot", "the agent answers", step("reboot", 1, 1),
		happened(4*time.Minute, v1alpha1.PhaseRepairing, decide.ReasonActionAsked, "reboot asked for"),
		func(s *Snapshot, r *v1alpha1.Remediation) {
			s.Health.Spec.Action = &v1alpha1.Action{ID: r.Name + "-1", Type: v1alpha1.ActionReboot}
			s.Health.Status.Action = &v1alpha1.ActionStatus{ID: r.Name + "-1", State: v1alpha1.ActionStarted}
			s.Node.Spec.Taints = []corev1.Taint{{Key: v1alpha1.TaintQuarantined, Value: r.Name, Effect: corev1.TaintEffectNoSchedule}}
			r.Status.Drain = &v1alpha1.DrainStatus{PodsMoved: 7, WorkAtRisk: "0.0 device-hours", Scope: "Node"}
		})
}

func relapses(s *Snapshot, r *v1alpha1.Remediation) {
	r.Status.Attempts = []v1alpha1.Attempt{
		{Rung: "reboot", Index: 1, Result: v1alpha1.AttemptRelapsed}, {Rung: "reboot", Index: 1, Result: v1alpha1.AttemptNotRepaired},
	}
	old := *r.DeepCopy()
	old.Name, old.Status.Phase, old.Spec.Root.FirstSeen = "gpu-0417-before", v1alpha1.PhaseSucceeded, ago(200*time.Hour)
	s.Remediations = append(s.Remediations, old)
	for i := range 20 {
		happened(time.Duration(600-i)*time.Second, v1alpha1.PhaseEscalated, decide.ReasonRelapsed, "relapse")(s, r)
	}
}

// golden compares with a file; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; UPDATE_GOLDEN=1 go test writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; UPDATE_GOLDEN=1 go test accepts it):\n%s", file, diff)
	}
}

func TestWhyReadsAsItShould(t *testing.T) {
	for name, s := range cases() {
		t.Run(name, func(t *testing.T) {
			w := Explain(s)
			p := &text.Page{Clock: text.Clock{Now: now, Zone: zone}}
			w.Render(p, false)
			golden(t, name+".txt", []byte(p.String()))
		})
	}
}

func TestWhyAsJSONIsStable(t *testing.T) {
	for _, name := range []string{"pending-budget-exhausted", "draining-with-blockers", "healthy", "observe-braked-and-held"} {
		t.Run(name, func(t *testing.T) {
			data, err := json.MarshalIndent(Explain(cases()[name]), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", append(data, '\n'))
		})
	}
}

func TestEveryPhaseHasAStateAndAMeaning(t *testing.T) {
	seen := map[v1alpha1.Phase]bool{}
	for name, s := range cases() {
		w := Explain(s)
		if w.State == "" || w.Meaning == "" {
			t.Errorf("%s: state %q, meaning %q", name, w.State, w.Meaning)
		}
		seen[w.Phase] = true
	}
	for _, p := range []v1alpha1.Phase{
		v1alpha1.PhasePending, v1alpha1.PhaseQuarantined, v1alpha1.PhaseDraining, v1alpha1.PhaseRepairing, v1alpha1.PhaseVerifying,
		v1alpha1.PhaseProbation, v1alpha1.PhaseEscalated, v1alpha1.PhaseSucceeded, v1alpha1.PhaseCancelled, v1alpha1.PhaseNodeGone,
	} {
		if !seen[p] {
			t.Errorf("no case shows phase %s", p)
		}
	}
}

func TestEveryAnswerSaysWhatIsWaitedForAndUntilWhen(t *testing.T) {
	for name, s := range cases() {
		w := Explain(s)
		if w.State == NoSuchNode {
			continue
		}
		if len(w.Waiting) == 0 {
			t.Errorf("%s: nothing said about what it waits for", name)
		}
		over := w.Phase.Over() || w.State == Healthy || w.State == Faulty
		if ends := w.Deadline != nil || w.NoDeadline != ""; ends == over {
			t.Errorf("%s is %s: deadline %v, no deadline %q", name, w.State, w.Deadline, w.NoDeadline)
		}
		if (w.State == Observing) != (len(w.WouldDo) > 0) && w.State != Faulty {
			t.Errorf("%s is %s and would do %q", name, w.State, w.WouldDo)
		}
		for _, line := range w.Changes {
			if strings.Contains(line, "NODE") {
				t.Errorf("%s: the node has a name: %q", name, line)
			}
		}
		if s.Node != nil && (w.Policy == nil) == (len(s.Policies) > 0) {
			t.Errorf("%s: policy %+v", name, w.Policy)
		}
	}
}

func TestAnAnswerChangesNothingOfWhatWasRead(t *testing.T) {
	for name, s := range cases() {
		before, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		Explain(s)
		if after, err := json.Marshal(s); err != nil || string(after) != string(before) {
			t.Errorf("%s was changed: %v", name, err)
		}
	}
}

// TestThereIsAnAnswerWhateverIsMissing leaves out one part after another of each case: what the API server does not have,
// or has not yet.
func TestThereIsAnAnswerWhateverIsMissing(t *testing.T) {
	without := map[string]func(*Snapshot){
		"the Node":               func(s *Snapshot) { s.Node = nil },
		"the NodeHealth":         func(s *Snapshot) { s.Health = nil },
		"the NodeHealth's words": func(s *Snapshot) { s.Health.Status = v1alpha1.NodeHealthStatus{} },
		"conditions":             func(s *Snapshot) { s.Node.Status.Conditions = nil },
		"policies":               func(s *Snapshot) { s.Policies = nil },
		"rules":                  func(s *Snapshot) { s.Policies[0].Spec.Rules, s.Policies[0].Spec.Rungs = nil, nil },
		"all but the phase": func(s *Snapshot) {
			r := &s.Remediations[0]
			r.Status = v1alpha1.RemediationStatus{Phase: r.Status.Phase}
		},
		"the spec's lists": func(s *Snapshot) {
			s.Remediations[0].Spec.Devices, s.Remediations[0].Spec.Quarantine, s.Remediations[0].Spec.Root = nil, nil, v1alpha1.RootFault{}
		},
	}
	for name, s := range cases() {
		if s.Node == nil || s.Health == nil || len(s.Policies) == 0 || len(s.Remediations) == 0 {
			continue
		}
		for what, leaveOut := range without {
			t.Run(name+" without "+what, func(t *testing.T) {
				less := cases()[name]
				leaveOut(&less)
				w := Explain(less)
				p := &text.Page{Clock: text.Clock{Now: now, Zone: zone}}
				w.Render(p, true)
				if w.State == "" || w.Meaning == "" || !strings.Contains(p.String(), s.Name) {
					t.Errorf("state %q, meaning %q", w.State, w.Meaning)
				}
			})
		}
	}
}

func TestTheListsOfAnAnswerAreBounded(t *testing.T) {
	s := cases()["pending-held"]
	for i := range 100 {
		hold, budget := *s.Holds[0].DeepCopy(), *s.Budgets[0].DeepCopy()
		hold.Name, budget.Name = fmt.Sprint("hold-", i), fmt.Sprint("budget-", i)
		s.Holds, s.Budgets = append(s.Holds, hold), append(s.Budgets, budget)
	}
	w := Explain(s)
	p := &text.Page{Clock: text.Clock{Now: now, Zone: zone}}
	w.Render(p, true)
	if lines := strings.Count(p.String(), "\n"); lines > 40 {
		t.Errorf("%d lines:\n%s", lines, p)
	}
	if !strings.Contains(p.String(), "and 96 more holds") {
		t.Errorf("nobody says how many holds there are:\n%s", p)
	}
}

// TestWhatWouldBeDoneIsWhatIsDone takes one incident through both: what Observe says of the repair is what comes next
// in mode Remediate.
func TestWhatWouldBeDoneIsWhatIsDone(t *testing.T) {
	attempt := func(rung string, index int32, result v1alpha1.AttemptResult) v1alpha1.Attempt {
		return v1alpha1.Attempt{Rung: rung, Index: index, At: ago(time.Hour), Result: result}
	}
	for name, c := range map[string]struct {
		attempts []v1alpha1.Attempt
		change   func(*Snapshot)
		want     string
	}{
		"it begins at the rung that the fault recommends": {want: "reboot, attempt 1 of 2; if that does not last: send-back"},
		"a gentler fault begins at the gentler rung": {
			change: func(s *Snapshot) { s.Health.Status.Faults[0].Recommended = v1alpha1.RecommendResetDevice },
			want:   "reset-device, attempt 1 of 1; if that does not last: reboot, then send-back",
		},
		"a rung that the agent does not support is skipped": {
			change: func(s *Snapshot) {
				s.Health.Status.Faults[0].Recommended = v1alpha1.RecommendResetDevice
				s.Health.Status.SupportedActions = []v1alpha1.ActionType{v1alpha1.ActionReboot}
			},
			want: "reboot, attempt 1 of 2; if that does not last: send-back",
		},
		"what was tried counts": {
			attempts: []v1alpha1.Attempt{attempt("reboot", 1, v1alpha1.AttemptNotRepaired)},
			want:     "reboot, attempt 2 of 2; if that does not last: send-back",
		},
		"at the end of the ladder a human is asked": {
			attempts: []v1alpha1.Attempt{attempt("reboot", 1, v1alpha1.AttemptNotRepaired), attempt("reboot", 1, v1alpha1.AttemptNotRepaired)},
			want:     "ask a human: replace the device and send the old one back",
		},
		"and where the limit is reached": {
			attempts: []v1alpha1.Attempt{attempt("reset-device", 0, v1alpha1.AttemptNotRepaired), attempt("reboot", 1, v1alpha1.AttemptNotRepaired)},
			change:   func(s *Snapshot) { s.Policies[0].Spec.Loop.MaxRepairs = new(int32(2)) },
			want:     "ask a human: 2 repairs in 30d: no more; it follows the hardware",
		},
	} {
		t.Run(name, func(t *testing.T) {
			tried := func(s *Snapshot, r *v1alpha1.Remediation) {
				r.Status.Attempts = c.attempts
				if c.change != nil {
					c.change(s)
				}
			}
			next := Explain(incident(v1alpha1.PhasePending, decide.ReasonBudgetExhausted, "", "", tried)).Next
			would := Explain(incident(v1alpha1.PhasePending, decide.ReasonModeObserve, "", "", observing, tried)).WouldDo
			if diff := cmp.Diff([]string{c.want}, next); diff != "" {
				t.Errorf("next (-want +got):\n%s", diff)
			}
			if got := would[len(would)-1]; !strings.HasSuffix(got, c.want) {
				t.Errorf("would do %q last, want %q", got, c.want)
			}
		})
	}
}

func TestNothingThatOthersWroteReachesTheTerminalRaw(t *testing.T) {
	const evil = "a\x1b[2Jb\u009bc\x00d\r\ne"
	s := draining()
	r := &s.Remediations[0]
	r.Status.Message, r.Status.WouldChange = evil, evil
	r.Status.Drain.Blockers[0].Message, r.Status.Drain.WorkAtRisk = evil, evil
	r.Status.Timeline[0].Message = evil
	s.Health.Status.Faults[0].Evidence = evil
	s.Health.Status.Checks[0].Message = evil
	s.Health.Status.Devices[3].Model = evil
	s.Holds = []v1alpha1.RemediationHold{{Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{s.Name}, Reason: evil, RequestedBy: evil}}}
	w := Explain(s)
	p := &text.Page{Clock: text.Clock{Now: now, Zone: zone}}
	w.Render(p, true)
	for _, c := range []string{"\x1b", "\u009b", "\x00", "\r"} {
		if strings.Contains(p.String(), c) {
			t.Errorf("the text holds %q:\n%s", c, p)
		}
	}
}

func TestASelectorNobodyCanReadSelectsEverything(t *testing.T) {
	broken := metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	for name, c := range map[string]struct {
		selector *metav1.LabelSelector
		want     bool
	}{
		"none selects nothing":            {nil, false},
		"an empty one selects everything": {&metav1.LabelSelector{}, true},
		"a broken one too":                {&broken, true},
		"another label":                   {&metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Selects(c.selector, map[string]string{"pool": "training"}); got != c.want {
				t.Errorf("Selects = %t, want %t", got, c.want)
			}
		})
	}
}

func TestTheHighestPriorityGoverns(t *testing.T) {
	policy := func(name string, priority int32, pool string) v1alpha1.RemediationPolicy {
		return v1alpha1.RemediationPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       v1alpha1.RemediationPolicySpec{Priority: priority, NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}},
		}
	}
	for name, c := range map[string]struct {
		policies []v1alpha1.RemediationPolicy
		want     string
		tied     bool
	}{
		"none selects it":                   {[]v1alpha1.RemediationPolicy{policy("a", 9, "lab")}, "", false},
		"the highest of those that do":      {[]v1alpha1.RemediationPolicy{policy("a", 1, "training"), policy("b", 2, "training"), policy("c", 9, "lab")}, "b", false},
		"in whatever order they are listed": {[]v1alpha1.RemediationPolicy{policy("b", 2, "training"), policy("a", 1, "training")}, "b", false},
		"a tie names the first":             {[]v1alpha1.RemediationPolicy{policy("b", 2, "training"), policy("a", 2, "training")}, "a", true},
		"a tie below the highest is none":   {[]v1alpha1.RemediationPolicy{policy("a", 1, "training"), policy("b", 1, "training"), policy("c", 2, "training")}, "c", false},
	} {
		t.Run(name, func(t *testing.T) {
			got, tied := Governor(c.policies, map[string]string{"pool": "training"})
			governor := ""
			if got != nil {
				governor = got.Name
			}
			if governor != c.want || tied != c.tied {
				t.Errorf("got %q, tied %t; want %q, tied %t", governor, tied, c.want, c.tied)
			}
		})
	}
}

func TestWhatTheControllerDoesItselfIsSaid(t *testing.T) {
	power := func(_ *Snapshot, r *v1alpha1.Remediation) {
		r.Status.Step = &v1alpha1.Step{Rung: "power-cycle", ActionID: r.Name + "-2", Remedy: &v1alpha1.RemedyStatus{
			Rung: v1alpha1.Rung{Name: "power-cycle", Action: v1alpha1.RungPowerCycle}, State: v1alpha1.RemedyRunning, Message: "the power is off"}}
	}
	next := Explain(incident(v1alpha1.PhaseRepairing, decide.ReasonActionBegun, "", "", power)).Next
	if want := "power cycle (" + draining().Remediations[0].Name + "-2): running: the power is off"; !strings.Contains(strings.Join(next, "\n"), want) {
		t.Errorf("next is %q, want %q in it", next, want)
	}
}
