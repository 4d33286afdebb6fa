package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// Bounds of an answer that fits on a screen.
const (
	maxFaults  = 5
	maxDone    = 12
	maxDevices = 4
	maxHistory = 6
	maxHolders = 4
	maxHolds   = 5
	maxBudgets = 5
)

// see fills in what is behind us: what is wrong, how it is known, what could not be seen, what was done.
func (s *Snapshot) see(r *v1alpha1.Remediation, w *Why) {
	w.What = s.what(r, w)
	w.Proof = append(s.evidence(r), s.inputs()...)
	w.NotSeen = append(s.notSeen(), s.holdersUntold()...)
	if r == nil {
		return
	}
	timeline := r.Status.Timeline
	if n := len(timeline) - maxDone; n > 0 {
		w.DoneEarlier, timeline = n, timeline[n:]
	}
	w.DoneEarlier += int(r.Status.TimelineDropped)
	for _, e := range timeline {
		w.Done = append(w.Done, Event{At: e.At, Phase: e.Phase, Reason: e.Reason, Message: text.Clean(e.Message)})
	}
}

func (s *Snapshot) devices(r *v1alpha1.Remediation) Devices {
	var out Devices
	bad := map[string]bool{}
	if r != nil {
		for _, id := range r.Spec.Devices {
			bad[id] = true
			if len(out.Bad) < maxDevices {
				out.Bad = append(out.Bad, s.device(r, id))
			}
		}
	}
	if s.Health == nil {
		return out
	}
	out.Total = len(s.Health.Status.Devices)
	if s.tainted() {
		return out
	}
	for _, d := range s.Health.Status.Devices {
		kept := r != nil && bad[d.ID] && len(r.Status.Quarantined) > 0 || s.keptByDriver(d.ID)
		if !kept && d.Health != v1alpha1.DeviceUnhealthy && d.Health != v1alpha1.DeviceMissing {
			out.Serving++
		}
	}
	return out
}

// tainted says whether the whole node is kept out by a taint of ours.
func (s *Snapshot) tainted() bool {
	return s.Node != nil && slices.ContainsFunc(s.Node.Spec.Taints, func(t corev1.Taint) bool {
		return t.Key == v1alpha1.TaintQuarantined
	})
}

func (s *Snapshot) what(r *v1alpha1.Remediation, w *Why) []Fact {
	var out []Fact
	faults := s.faults(nil)
	switch {
	case r != nil:
		root := r.Spec.Root
		out = append(out, Fact{Text: text.Clean(root.Code) + " on " + s.where(r, root.Device), Since: &root.FirstSeen})
		for _, d := range w.Devices.Bad {
			if d.ID != root.Device {
				out = append(out, Fact{Text: "also " + Name(d)})
			}
		}
		if n := len(r.Spec.Devices) - maxDevices; n > 0 {
			out = append(out, Fact{Text: "and " + text.Count(n, "more device", "more devices")})
		}
		out = append(out, s.keptOut(r)...)
		if w.Phase.Over() {
			out = append(out, Fact{Text: strings.TrimSuffix("ended with reason "+w.Reason+": "+w.Message, ": "), Since: w.Since})
		}
	case len(faults) > 0:
		f := faults[0]
		out = append(out, Fact{Text: text.Clean(f.Code) + " on " + s.where(nil, f.Device), Since: &f.FirstSeen})
	case s.Health != nil && s.Health.Status.Summary != "" && w.Devices.Total == 0:
		out = append(out, Fact{Text: "the agent knows of no accelerator on this node"})
	}
	out = append(out, heldBy(w.Devices.Holders)...)
	out = append(out, s.byDriver()...)
	if said := s.notBack(r, w); said != "" {
		out = append(out, Fact{Text: said})
	}
	if w.Devices.Total > 0 {
		out = append(out, Fact{Text: s.serving(w)})
	}
	if len(faults) > 1 {
		out = append(out, Fact{Text: others(faults, r)})
	}
	if s.Node == nil && len(s.Similar) > 0 {
		out = append(out, Fact{Text: "did you mean " + strings.Join(s.Similar, ", ") + "?"})
	}
	return out
}

// serving says what goes on with the rest of the node.
func (s *Snapshot) serving(w *Why) string {
	devices := text.Count(w.Devices.Total, "device", "devices")
	if w.State == Unknown {
		return devices + " when it could last be seen"
	}
	return fmt.Sprintf("%d of %s serving", w.Devices.Serving, devices)
}

func (s *Snapshot) where(r *v1alpha1.Remediation, device string) string {
	if device == "" {
		return "the whole node"
	}
	return Name(s.device(r, device))
}

// Name says which device it is, by what a technician can find.
func Name(d Device) string {
	var about []string
	if d.Model != "" {
		about = append(about, text.Clean(d.Model))
	}
	if d.Serial != "" {
		about = append(about, "serial "+text.Clean(d.Serial))
	}
	name := text.Clean(d.ID)
	if d.Slot != "" {
		name = "the device in slot " + text.Clean(d.Slot)
		about = append(about, text.Clean(d.ID))
	}
	if len(about) == 0 {
		return name
	}
	return name + " (" + strings.Join(about, ", ") + ")"
}

// keptOut says what was put on and is not off yet. While it acts the whole node is tainted, also where the quarantine
// is only a device's.
func (s *Snapshot) keptOut(r *v1alpha1.Remediation) []Fact {
	var devices, rules []string
	node := s.tainted()
	for _, q := range r.Status.Quarantined {
		if q.Kind == v1alpha1.QuarantineNodeTaint {
			node = true
			continue
		}
		devices = append(devices, q.Device)
		rules = append(rules, q.Name)
	}
	var out []Fact
	if len(rules) > 0 {
		out = append(out, Fact{Text: "new work is kept off " + text.Bounded(devices, maxDevices) + " by DeviceTaintRule " + text.Bounded(rules, maxDevices)})
	}
	if node {
		out = append(out, Fact{Text: "new work is kept off the node by taint " + v1alpha1.TaintQuarantined})
	}
	return out
}

// others counts the faults besides the first, consequences of the root apart.
func others(faults []v1alpha1.Fault, r *v1alpha1.Remediation) string {
	var codes []string
	for i, f := range faults {
		if r == nil && i == 0 || r != nil && f.Code == r.Spec.Root.Code && f.Device == r.Spec.Root.Device {
			continue
		}
		said := text.Clean(f.Code)
		if f.CausedBy != "" {
			said += " (caused by " + text.Clean(f.CausedBy) + ")"
		}
		if !slices.Contains(codes, said) {
			codes = append(codes, said)
		}
	}
	if len(codes) == 0 {
		return ""
	}
	return "also reported: " + text.Bounded(codes, maxFaults)
}

func (s *Snapshot) evidence(r *v1alpha1.Remediation) []Fact {
	var out []Fact
	faults := s.faults(r)
	for i, f := range faults {
		if i == maxFaults {
			out = append(out, Fact{Text: "and " + text.Count(len(faults)-maxFaults, "more fault", "more faults") + ": kubectl get nh " + s.Name + " -o yaml"})
			break
		}
		out = append(out, Fact{Text: shows(f), Since: &f.FirstSeen})
	}
	if r == nil || r.Status.Evidence == nil {
		return out
	}
	e := r.Status.Evidence
	// A repair may erase what the incident began with and not the fault.
	if root := slices.IndexFunc(e.Faults, isRoot(r)); root >= 0 && !slices.ContainsFunc(faults, isRoot(r)) {
		out = append(out, Fact{Text: "before the repair, " + shows(e.Faults[root]), Since: &e.Faults[root].FirstSeen})
	}
	return append(out, Fact{Text: "saved before the repair, sha256 " + short(e.SHA256), Since: &e.At})
}

// isRoot says whether a fault is the one that an incident began with.
func isRoot(r *v1alpha1.Remediation) func(v1alpha1.Fault) bool {
	return func(f v1alpha1.Fault) bool { return f.Code == r.Spec.Root.Code && f.Device == r.Spec.Root.Device }
}

// shows is the line or the reading that shows a fault.
func shows(f v1alpha1.Fault) string {
	said := text.Clean(f.Check) + ": "
	if f.Evidence != "" {
		said += fmt.Sprintf("%q", text.Clean(f.Evidence))
	} else {
		said += text.Clean(f.Code)
	}
	if f.Count > 1 {
		said += fmt.Sprintf(" (%d times)", f.Count)
	}
	return said
}

// checkUnknown is the result of a check that could not look.
const checkUnknown = "Unknown"

// inputs says what the answer rests on: what the checks say, when all of them last looked, in which boot, and who says so.
func (s *Snapshot) inputs() []Fact {
	if s.Health == nil || s.Health.Status.Summary == "" {
		return nil
	}
	st := &s.Health.Status
	fresh, condition := s.reporting()
	said := "checks: " + verdicts(st.Checks) + "; " + s.round()
	if !fresh {
		said = "what the agent said last: " + said
	}
	out := []Fact{{Text: said}}
	if fresh {
		agent := "agent " + text.Clean(st.AgentVersion)
		out = append(out, Fact{Text: strings.TrimSpace(agent) + " reports", Since: &condition.LastTransitionTime})
	}
	return out
}

// verdicts says which checks do not pass.
func verdicts(checks []v1alpha1.CheckStatus) string {
	if len(checks) == 0 {
		return "all pass"
	}
	out := make([]string, 0, len(checks))
	for _, c := range checks {
		how := "fails"
		if c.Result == checkUnknown {
			how = "could not look"
		}
		out = append(out, text.Clean(c.Name)+" "+how)
	}
	return text.Bounded(out, maxFaults) + "; the others pass"
}

// round says when every check had last looked. The agent republishes that only with another change, so an old one is no
// sign of a silent agent.
func (s *Snapshot) round() string {
	st := &s.Health.Status
	r := st.CompletedRound
	switch {
	case r == nil:
		return "no complete round is published"
	case r.BootID != st.BootID:
		return "no complete round is published since the node started anew (boot " + bootName(st.BootID) + ")"
	}
	out := "last complete round published " + r.At.UTC().Format(time.RFC3339) + " in boot " + bootName(r.BootID)
	for _, b := range st.Boots {
		if b.ID == r.BootID {
			out += ", begun " + b.At.UTC().Format(time.RFC3339)
		}
	}
	if r.AfterAction != "" {
		out += ", after action " + text.Clean(r.AfterAction)
	}
	return out
}

// bootName is as much of a boot ID as tells it from another.
func bootName(id string) string {
	id = text.Clean(id)
	return id[:min(len(id), 8)]
}

func short(hash string) string {
	if len(hash) > 12 {
		return hash[:12] + "..."
	}
	return hash
}

// notSeen lists what could not be looked at; none of it is used as evidence.
func (s *Snapshot) notSeen() []Fact {
	var out []Fact
	fresh, condition := s.reporting()
	switch {
	case s.Node == nil:
	case s.Health == nil:
		out = append(out, Fact{Text: "there is no NodeHealth for this node: the controller is not running, or its --node-selector leaves the node out"})
	case s.Health.Status.Summary == "":
		out = append(out, Fact{Text: "no agent has reported since the NodeHealth was created; none is meant to where there are no accelerators", Since: &s.Health.CreationTimestamp},
			Fact{Text: "else see its pod: kubectl get pods -A --field-selector spec.nodeName=" + s.Name})
	case condition == nil:
		out = append(out, Fact{Text: "the controller does not vouch for the agent (no condition " + v1alpha1.ConditionReporting + "): is it running?"})
	}
	if !fresh && condition != nil {
		out = append(out, Fact{
			Text:  strings.TrimSuffix("the agent does not report: "+text.Clean(condition.Message), ": "),
			Since: &condition.LastTransitionTime,
		})
	}
	if s.SlicesUnread != "" {
		out = append(out, Fact{Text: s.SlicesUnread})
	}
	if s.Health == nil {
		return out
	}
	for _, c := range s.Health.Status.Checks {
		if c.Result != checkUnknown {
			continue
		}
		said := fmt.Sprintf("%s could not look: %s", text.Clean(c.Name), Spell(text.Clean(c.Reason)))
		if c.Message != "" {
			said += ": " + text.Clean(c.Message)
		}
		out = append(out, Fact{Text: said + " (Unknown; not used as evidence)", Since: &c.Since})
	}
	return out
}
