package decide

import (
	"fmt"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// span writes a duration without the zeros that Duration.String leaves: 12h, not 12h0m0s.
func span(d time.Duration) string {
	days := 24 * time.Hour
	if d >= 2*days && d%days == 0 {
		return fmt.Sprintf("%dd", d/days)
	}
	s := d.Round(time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// what names a device as people do: by slot and model where they are known.
func (s *Snapshot) what(id string) string {
	if id == "" {
		return "the node"
	}
	if s.Health != nil {
		for _, d := range s.Health.Status.Devices {
			if d.ID == id && d.Slot != "" {
				return fmt.Sprintf("slot %s (%s)", d.Slot, id)
			}
		}
	}
	return id
}

// noRulesText says why a node is kept out where a device would do.
const noRulesText = "the API server has no DeviceTaintRules, so new work is kept off the whole node; what runs goes on"

func (s *Snapshot) quarantineText() string {
	switch {
	case s.NoRules:
		return noRulesText
	case !s.deviceScoped() && s.movesDevices() && s.Otherwise == OfferedByPlugin:
		return "new work is kept off the node, since nobody can tell its device plugin which device to keep back; what runs goes on"
	case !s.deviceScoped():
		return "new work is kept off the node; what runs goes on"
	}
	bad, all := len(s.stillBad()), s.deviceCount()
	return fmt.Sprintf("%d of %d devices kept from new work; %d keep serving", bad, all, max(0, all-bad))
}

// untoldText says what a device drain cannot promise: it leaves alone who is not known to hold a bad device.
func untoldText(p *drain.Plan) string {
	if p == nil || p.Untold == 0 {
		return ""
	}
	return fmt.Sprintf("; of %s nobody can tell whether they hold a bad device, and they are left alone (%s)", count(p.Untold, "pod"), p.UntoldWhy)
}

// deviceDrainedText says what is left when the pods of the bad devices have gone.
func (s *Snapshot) deviceDrainedText() string {
	if s.DevicePlan != nil && s.DevicePlan.Untold > 0 {
		return "no pod is known to hold a bad device any more" + untoldText(s.DevicePlan)
	}
	if s.DevicePlan != nil {
		if n := s.DevicePlan.LeftFor(drain.ReasonGoodDevices); n > 0 {
			return "no pod holds a bad device any more but " + count(n, "pod") + " at work on good ones too; the others were not touched"
		}
	}
	return "no pod holds a bad device any more; the others were not touched"
}

// wouldDo says what an incident that is only observed would do.
func (s *Snapshot) wouldDo() string {
	r := s.rule()
	if r == nil {
		return "no rule of the policy matches, so nothing would be done"
	}
	parts := []string{"would keep new work off the node"}
	switch {
	case r.Planned:
		parts = nil
	case s.deviceScoped():
		parts = []string{"would quarantine " + count(len(s.stillBad()), "device")}
	}
	if r.Response == v1alpha1.ResponseRepair {
		parts = append(parts, s.wouldMove()...)
		parts = append(parts, s.wouldRepair(r))
	}
	return strings.Join(parts, ", ") + " (rule " + r.Name + ")"
}

func (s *Snapshot) wouldMove() []string {
	if !s.movesDevices() || s.DevicePlan == nil {
		return nil
	}
	if untold := untoldText(s.DevicePlan); len(s.DevicePlan.Move) > 0 || untold != "" {
		return []string{"move " + count(len(s.DevicePlan.Move), "pod") + untold}
	}
	return nil
}

func (s *Snapshot) wouldRepair(r *v1alpha1.Rule) string {
	next, ok := s.nextRung()
	if !ok || next.human() {
		return "ask a human"
	}
	what := map[v1alpha1.RungAction]string{v1alpha1.RungReboot: "reboot", v1alpha1.RungResetDevice: "reset"}[next.Action]
	switch r.When {
	case v1alpha1.WhenIdle:
		return what + " when idle"
	case v1alpha1.WhenWindow:
		return what + " in a window"
	default:
		return what + " at once"
	}
}

func (s *Snapshot) idleText(p drain.Plan) string {
	what := "a repair"
	if r, ok := s.nextRung(); ok && r.Action == v1alpha1.RungReboot {
		what = "a reboot"
	}
	untold := ""
	if s.movesDevices() {
		untold = untoldText(s.DevicePlan)
	}
	if len(p.Blockers) > 0 {
		return fmt.Sprintf("%s would stop %s that only a human may stop (%s): waiting for idle", what, count(len(p.Blockers), "pod"), p.Blockers[0].Pod) + untold
	}
	return fmt.Sprintf("%s would kill %s (%s): waiting for idle until %s", what, count(p.Jobs, "job pod"), drain.Risk(p.AtRisk),
		stamp(s.waitDeadline())) + untold
}

func (s *Snapshot) drainText(scope drain.Scope, p drain.Plan) string {
	from := "the node"
	if scope == drain.ScopeDevice {
		from = count(len(s.stillBad()), "bad device")
	}
	return fmt.Sprintf("moving %s off %s; %d stay", count(p.PodsLeft(), "pod"), from, len(p.Left)) + untoldText(&p)
}

// nextMeans says what is done from when on to pods that have not gone by then.
func (s *Snapshot) nextMeans(next *v1alpha1.DrainEscalation) string {
	if next == nil {
		return ""
	}
	does := map[v1alpha1.DrainBy]string{
		v1alpha1.DrainByEvict:       "are evicted",
		v1alpha1.DrainByDelete:      "are deleted, whatever their disruption budgets say",
		v1alpha1.DrainByForceDelete: "that outlast their grace period are removed by force",
	}[next.By]
	if next.GracePeriod != nil {
		does += " with at most " + span(next.GracePeriod.Duration) + " to end"
	}
	return "; from " + stamp(s.drainFrom().Add(next.After.Duration)) + " on those left " + does
}

// sparedText says which pods are left for now, and until when.
func sparedText(spared []drain.Spared) string {
	if len(spared) == 0 {
		return ""
	}
	first := &spared[0]
	text := fmt.Sprintf("; %s/%s is left until %s to end by itself", first.Pod.Namespace, first.Pod.Name, stamp(first.Until))
	if !first.Kept.IsZero() {
		text = fmt.Sprintf("; %s/%s is left until %s to keep its work once more, as last at %s", first.Pod.Namespace, first.Pod.Name,
			stamp(first.Until), stamp(first.Kept))
	}
	if len(spared) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(spared)-1)
	}
	return text
}

func (s *Snapshot) blockersText() string {
	var blockers []v1alpha1.Blocker
	if p := s.plan(); p != nil {
		blockers = p.Blockers
	}
	if len(blockers) == 0 && s.status().Drain != nil {
		blockers = s.status().Drain.Blockers
	}
	if len(blockers) == 0 {
		return "pods do not end"
	}
	text := fmt.Sprintf("%s: %s", blockers[0].Pod, blockers[0].Message)
	if len(blockers) > 1 {
		text += fmt.Sprintf(" (and %d more)", len(blockers)-1)
	}
	return text
}

func (s *Snapshot) provedText() string {
	if s.Health == nil {
		return "the fault is gone"
	}
	st := s.Health.Status
	good := 0
	links := ""
	for _, d := range st.Devices {
		if d.Health == v1alpha1.DeviceHealthy {
			good++
		}
		if l := d.Link; l != nil && s.isBad(d.ID) {
			links = fmt.Sprintf(", x%d at %s GT/s", l.Width, l.GTs)
		}
	}
	burnt := ""
	if run := s.burning(); run != nil && run.State == v1alpha1.RemedySucceeded {
		burnt = ", burn-in " + run.BurnIn.PodTemplateRef.Name + " passed"
	}
	return fmt.Sprintf("boot %s, %d of %d devices healthy%s%s", st.BootID, good, len(st.Devices), links, burnt)
}
