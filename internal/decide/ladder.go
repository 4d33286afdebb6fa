package decide

import (
	"fmt"
	"slices"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// Defaults of a policy's optional numbers.
const (
	defaultRungTimeout   = 20 * time.Minute
	defaultSettle        = 2 * time.Minute
	defaultProbation     = 24 * time.Hour
	defaultDrainDeadline = time.Hour
	defaultWaitDeadline  = 24 * time.Hour
	defaultMaxRepairs    = 3
	defaultMaxBoots      = 6
	defaultLoopWindow    = 30 * 24 * time.Hour
	// askFor is how long the agent has to begin an action before the asking lapses.
	askFor = 5 * time.Minute
	// maxAttempts bounds one incident's attempts of all kinds, so that refusals and withdrawals end too.
	maxAttempts = 24
)

// rank orders repairs from the gentlest to the human.
func rank(r v1alpha1.Recommendation) int {
	return slices.Index([]v1alpha1.Recommendation{
		v1alpha1.RecommendNone, v1alpha1.RecommendRestartApplication, v1alpha1.RecommendRestartDriver,
		v1alpha1.RecommendResetDevice, v1alpha1.RecommendReboot, v1alpha1.RecommendPowerCycle,
		v1alpha1.RecommendReplace, v1alpha1.RecommendHuman,
	}, r)
}

// rungRank is the most that a rung's action does. What a template does nobody here knows: it is taken to stand for any
// repair of the node, not for a new one.
func rungRank(a v1alpha1.RungAction) int {
	switch a {
	case v1alpha1.RungRestartDriver:
		return rank(v1alpha1.RecommendRestartDriver)
	case v1alpha1.RungResetDevice:
		return rank(v1alpha1.RecommendResetDevice)
	case v1alpha1.RungReboot:
		return rank(v1alpha1.RecommendReboot)
	case v1alpha1.RungPowerCycle, v1alpha1.RungRunJob, v1alpha1.RungExternal:
		return rank(v1alpha1.RecommendPowerCycle)
	case v1alpha1.RungReplace:
		return rank(v1alpha1.RecommendReplace)
	case v1alpha1.RungEscalate:
	}
	return rank(v1alpha1.RecommendHuman)
}

// rung is a step of a ladder as the incident meets it.
type rung struct {
	v1alpha1.Rung
	index   int32
	attempt int32
	// skipped says which gentler rungs were passed over, and why.
	skipped string
}

func (r rung) timeout() time.Duration {
	if r.Timeout != nil {
		return r.Timeout.Duration
	}
	return defaultRungTimeout
}

func (r rung) human() bool { return r.Action == v1alpha1.RungEscalate }

// drainBefore is how much must be empty before a rung. A bad device is all that is emptied only where the rest of the node
// is worth keeping.
func (s *Snapshot) drainBefore(r rung) drain.Scope {
	how := r.Drain
	if how == "" && r.Action == v1alpha1.RungResetDevice {
		how = v1alpha1.DrainDevices
	}
	switch {
	case how == v1alpha1.DrainNothing:
		return drain.ScopeNothing
	case how == v1alpha1.DrainDevices && s.movesDevices():
		return drain.ScopeDevice
	}
	return drain.ScopeNode
}

// NextDrain is how much must be empty before the rung to try now.
func (s *Snapshot) NextDrain() drain.Scope {
	r, ok := s.nextRung()
	if !ok || r.human() {
		return drain.ScopeNode
	}
	return s.drainBefore(r)
}

// nextRung is the rung to try now; a rung that escalates, or none at all, means that a human is to be asked.
func (s *Snapshot) nextRung() (rung, bool) {
	rule := s.rule()
	if rule == nil || s.Policy.Policy == nil || len(s.status().Attempts) >= maxAttempts {
		return rung{}, false
	}
	var skipped string
	from := max(s.recommendedIndex(rule), s.climbedIndex())
	for i := from; i < int32(len(rule.Ladder)); i++ {
		def, ok := findRung(s.Policy.Policy, rule.Ladder[i])
		if !ok {
			skipped = "policy " + s.Policy.Policy.Name + " has no rung " + rule.Ladder[i]
			continue
		}
		tried := s.triedAt(i)
		r := rung{Rung: def, index: i, attempt: tried + 1, skipped: skipped}
		if r.human() {
			return r, true
		}
		if why := s.impossible(def.Action); why != "" {
			skipped = fmt.Sprintf("%s skipped: %s", def.Name, why)
			continue
		}
		if tried < attemptsOf(def) {
			return r, true
		}
	}
	return rung{skipped: skipped}, false
}

// recommendedIndex is the first rung that is at least what the worst fault of the incident recommends.
func (s *Snapshot) recommendedIndex(rule *v1alpha1.Rule) int32 {
	want := 0
	for _, m := range s.ours() {
		want = max(want, rank(least(m.Fault)))
	}
	for i, name := range rule.Ladder {
		if def, ok := findRung(s.Policy.Policy, name); ok && rungRank(def.Action) >= want {
			return int32(i)
		}
	}
	return max(0, int32(len(rule.Ladder))-1)
}

// least is the least repair of a fault. Only a device can be reset: a fault of the node that asks for it takes a reboot.
func least(f v1alpha1.Fault) v1alpha1.Recommendation {
	if f.Device == "" && f.Recommended == v1alpha1.RecommendResetDevice {
		return v1alpha1.RecommendReboot
	}
	return f.Recommended
}

// sinceRestart are the attempts since a human let the ladder begin anew, all where none did.
func (s *Snapshot) sinceRestart() []v1alpha1.Attempt {
	restart := s.status().Restart
	if restart == nil {
		return s.status().Attempts
	}
	return slices.DeleteFunc(slices.Clone(s.status().Attempts), func(a v1alpha1.Attempt) bool { return !a.At.After(restart.At.Time) })
}

// attempts are those that count for what is bad now. What was tried for one device does not use up the ladder of another
// that fails later.
func (s *Snapshot) attempts() []v1alpha1.Attempt {
	return slices.DeleteFunc(slices.Clone(s.sinceRestart()), func(a v1alpha1.Attempt) bool { return !s.concerns(a) })
}

// concerns says whether an attempt was about something that is bad now. What was tried for the node was for all of it, until
// it is proved: a device that fails after that begins its own ladder.
func (s *Snapshot) concerns(a v1alpha1.Attempt) bool {
	ours := s.ours()
	if len(a.Devices) == 0 {
		return a.Result != v1alpha1.AttemptRepaired || len(ours) == 0 || s.ofNode()
	}
	return len(ours) == 0 || slices.ContainsFunc(ours, func(m Matched) bool {
		return slices.Contains(a.Devices, m.Fault.Device)
	})
}

// climbedIndex is the lowest rung still open: a relapse climbs past the rung that did not last.
func (s *Snapshot) climbedIndex() int32 {
	var from int32
	for _, a := range s.attempts() {
		switch {
		case a.Rung == "": // what a human repaired is no rung.
		case a.Result == v1alpha1.AttemptRelapsed:
			from = max(from, a.Index+1)
		case a.Result.Done():
			from = max(from, a.Index)
		}
	}
	return from
}

// tried says whether anything was: what was taken back before it began was not.
func (s *Snapshot) tried() bool {
	return slices.ContainsFunc(s.attempts(), func(a v1alpha1.Attempt) bool { return a.Result != v1alpha1.AttemptWithdrawn })
}

// triedAt counts the attempts on a rung; a withdrawn one was ours to withdraw and does not count.
func (s *Snapshot) triedAt(index int32) int32 {
	var n int32
	for _, a := range s.attempts() {
		if a.Index == index && a.Rung != "" && a.Result != v1alpha1.AttemptWithdrawn {
			n++
		}
	}
	return n
}

// impossible says why an action cannot be asked for here, or nothing where it can.
func (s *Snapshot) impossible(a v1alpha1.RungAction) string {
	switch {
	case a.ByAgent() && (s.Health == nil || !slices.Contains(s.Health.Status.SupportedActions, v1alpha1.ActionType(a))):
		return "the agent does not support it"
	case a == v1alpha1.RungResetDevice && (len(s.stillBad()) == 0 || s.ofNode() && len(faultyDevices(s.ours())) == 0):
		return "the fault is of no device"
	}
	return ""
}

func attemptsOf(r v1alpha1.Rung) int32 {
	if r.Attempts != nil {
		return *r.Attempts
	}
	return 1
}

func findRung(p *v1alpha1.RemediationPolicy, name string) (v1alpha1.Rung, bool) {
	i := slices.IndexFunc(p.Spec.Rungs, func(r v1alpha1.Rung) bool { return r.Name == name })
	if i < 0 {
		return v1alpha1.Rung{}, false
	}
	return p.Spec.Rungs[i], true
}

// limits are the policy's bounds on repairing the same hardware again and again.
type limits struct {
	repairs, boots int
	window         time.Duration
}

func (s *Snapshot) limits() limits {
	l := limits{repairs: defaultMaxRepairs, boots: defaultMaxBoots, window: defaultLoopWindow}
	if s.Policy.Policy == nil || s.Policy.Policy.Spec.Loop == nil {
		return l
	}
	loop := s.Policy.Policy.Spec.Loop
	if loop.MaxRepairs != nil {
		l.repairs = int(*loop.MaxRepairs)
	}
	if loop.MaxBoots != nil {
		l.boots = int(*loop.MaxBoots)
	}
	if loop.Window != nil {
		l.window = loop.Window.Duration
	}
	return l
}

// LoopWindow is how far back repairs of the same hardware count.
func (s *Snapshot) LoopWindow() time.Duration { return s.limits().window }

// repairs counts the repairs of this hardware within the loop window, this incident's included.
func (s *Snapshot) repairs() int {
	n := s.PastRepairs
	if s.status().Restart != nil {
		n = 0 // a human has looked at it since.
	}
	for _, a := range s.sinceRestart() {
		if a.Result.Done() {
			n++
		}
	}
	return n
}

// boots counts the starts of the node within the loop window, from any cause.
func (s *Snapshot) boots() int {
	if s.Health == nil {
		return 0
	}
	n := 0
	for _, b := range s.Health.Status.Boots {
		if s.Now.Sub(b.At.Time) <= s.limits().window {
			n++
		}
	}
	return n
}

func (s *Snapshot) settle() time.Duration {
	if p := s.Policy.Policy; p != nil && p.Spec.Verify != nil && p.Spec.Verify.Settle != nil {
		return p.Spec.Verify.Settle.Duration
	}
	return defaultSettle
}

func (s *Snapshot) verifyTimeout() time.Duration {
	if p := s.Policy.Policy; p != nil && p.Spec.Verify != nil && p.Spec.Verify.Timeout != nil {
		return p.Spec.Verify.Timeout.Duration
	}
	return defaultRungTimeout
}

func (s *Snapshot) probation() time.Duration {
	if p := s.Policy.Policy; p != nil && p.Spec.Probation != nil {
		return p.Spec.Probation.Duration
	}
	return defaultProbation
}

func (s *Snapshot) drainDeadline() time.Duration {
	if p := s.Policy.Policy; p != nil && p.Spec.Drain != nil && p.Spec.Drain.Deadline != nil {
		return p.Spec.Drain.Deadline.Duration
	}
	return defaultDrainDeadline
}

// Defaults of how long responders are asked.
const (
	defaultAnswer     = 30 * time.Second
	defaultResponders = 10 * time.Minute
)

// Responders says how long the responders that pods name may take to begin, and in all.
func Responders(s *Snapshot) (answer, deadline time.Duration) {
	answer, deadline = defaultAnswer, min(defaultResponders, s.drainDeadline()/2)
	if p := s.Policy.Policy; p != nil && p.Spec.Drain != nil && p.Spec.Drain.Responders != nil {
		if r := p.Spec.Drain.Responders; r.Answer != nil {
			answer = r.Answer.Duration
		}
		if r := p.Spec.Drain.Responders; r.Deadline != nil {
			deadline = r.Deadline.Duration
		}
	}
	return answer, deadline
}

// means is how the drain under way stops pods by now, and what it does next if they do not go.
func (s *Snapshot) means() (drain.Means, *v1alpha1.DrainEscalation) {
	var steps []v1alpha1.DrainEscalation
	if p := s.Policy.Policy; p != nil && p.Spec.Drain != nil {
		steps = p.Spec.Drain.Escalate
	}
	return drain.MeansAfter(s.Now.Sub(s.drainFrom()), steps)
}

// drainBy is the means that the drain under way is known to have come to.
func (s *Snapshot) drainBy() v1alpha1.DrainBy {
	if d := s.status().Drain; d != nil && d.By != "" {
		return d.By
	}
	return v1alpha1.DrainByEvict
}

// waitDeadline is when a Pending incident has waited as long as its rule allows.
func (s *Snapshot) waitDeadline() time.Time {
	if r := s.request(); r != nil {
		return r.Ends(s.waitingSince())
	}
	d := defaultWaitDeadline
	if r := s.rule(); r != nil && r.Deadline != nil {
		d = r.Deadline.Duration
	}
	return s.waitingSince().Add(d)
}

// waitingSince is when the incident last became Pending in a mode that acts; a wait in Observe does not count.
func (s *Snapshot) waitingSince() time.Time {
	st := s.status()
	if st.Since != nil {
		return st.Since.Time
	}
	return s.Remediation.CreationTimestamp.Time
}
