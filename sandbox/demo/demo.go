// Package demo tells scenarios as a story: one line for each thing that happens, with its reason, while it happens. Names,
// numbers and reasons are those of the API's objects; only the words at the left are the demonstration's own.
package demo

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
)

// textColumn is where the texts of the timeline begin.
const textColumn = 20

// Teller tells one act; it is a [scenario.Narrator].
type Teller struct {
	page   *scenario.Page
	number int
	offset time.Duration
	nodes  []string // the act's nodes, of which alone is told
	count  func(scenario.State) (int, string)

	told     map[string]bool   // what is told once
	last     map[string]string // the last reason told, by incident
	modes    map[string]string // by policy
	evicted  map[string]string // the pod that was told to go, by namespace and app
	slots    map[string]string // budget slots held, by budget, not told yet
	finished int
	asked    int
	verified int
	killed   bool
	stormed  bool
	writes   int
	happened map[scenario.Kind]int
}

// NewTeller tells act number, whose clock began offset ago, on a page.
func NewTeller(page *scenario.Page, number int, offset time.Duration) *Teller {
	return &Teller{
		page: page, number: number, offset: offset, told: map[string]bool{}, last: map[string]string{}, modes: map[string]string{},
		evicted: map[string]string{}, slots: map[string]string{}, happened: map[scenario.Kind]int{},
	}
}

// NewPage is a page for tellers.
func NewPage(w io.Writer) *scenario.Page { return scenario.NewPage(w, textColumn) }

// Began tells the act's heading.
func (t *Teller) Began(s *scenario.Scenario, words map[string]string, count func(scenario.State) (int, string)) {
	t.count = count
	for _, names := range words {
		t.nodes = append(t.nodes, strings.Split(names, ",")...)
	}
	t.page.Text(scenario.Plain, "")
	t.page.Split(scenario.Bold, fmt.Sprintf("%d. %s", t.number, strings.ToUpper(s.Title)), "mode: "+firstMode(s))
}

// firstMode is the mode of the first policy that a scenario applies.
func firstMode(s *scenario.Scenario) string {
	for _, step := range s.Steps {
		for _, o := range step.Apply {
			spec, _ := o["spec"].(map[string]any)
			if mode, ok := spec["mode"].(string); ok && o["kind"] == "RemediationPolicy" {
				return mode
			}
		}
	}
	return "none"
}

func (t *Teller) line(at time.Duration, word string, style scenario.Style, format string, args ...any) {
	t.page.Line(at+t.offset, word, style, fmt.Sprintf(format, args...))
}

// Step tells what the demonstration itself does: break things and kill the controller.
func (t *Teller) Step(at time.Duration, s *scenario.Step) {
	switch {
	case s.Controller == "kill":
		t.killed = true
		t.line(at, "killed", scenario.Yellow, ">>> the demo kills the controller here, in mid-repair (SIGKILL) <<<")
	case s.Fault != nil && s.Fault.Lines > 0:
		t.stormed = true
		nodes := strings.Count(s.Fault.Node, ",") + 1
		t.line(at, "storm", scenario.Yellow, "%s: %d kernel lines of an application on each of %d nodes", s.Fault.Kind, s.Fault.Lines, nodes)
	}
}

// Outcome tells an expectation that was not seen, and what was watched for and did not happen.
func (t *Teller) Outcome(o scenario.Outcome) {
	at := time.Duration(o.At * float64(time.Second))
	switch {
	case !o.Seen:
		t.line(at, "NOT SEEN", scenario.Red, "%s", o.Name)
		t.page.More(scenario.Plain, o.Why)
	case o.Part == "never" && t.once("never"):
		t.line(at, "never", scenario.Green, "%s: %s", o.Name, o.Evidence)
	case o.Part == "never":
		t.page.More(scenario.Plain, o.Name+": "+o.Evidence)
	case t.stormed && o.Fact == nil && strings.HasPrefix(o.Part, "step"):
		t.line(at, "counted", scenario.Green, "%s; a storm of lines is no storm of writes: %d", o.Evidence, t.writes)
	}
}

// Ended tells the sum of an act in which nothing was to happen.
func (t *Teller) Ended(r *scenario.Report) {
	if t.stormed {
		t.line(time.Duration(r.Seconds*float64(time.Second)), "result", style(t.acts() == 0), "%d incidents, %d quarantines, %d evictions, %d reboots",
			t.happened[scenario.KindRemediation], t.happened[scenario.KindQuarantine], t.happened[scenario.KindEviction], t.happened[scenario.KindReboot])
	}
	if r.Error != "" {
		t.page.Text(scenario.Red, r.Error)
	}
}

func style(good bool) scenario.Style {
	if good {
		return scenario.Green
	}
	return scenario.Red
}

// acts is how much was done so far that is not only talk.
func (t *Teller) acts() int {
	n := 0
	for _, k := range []scenario.Kind{scenario.KindQuarantine, scenario.KindEviction, scenario.KindReboot, scenario.KindAction, scenario.KindClaim, scenario.KindTouched} {
		n += t.happened[k]
	}
	return n
}

// Fact tells a fact where it moves the story on.
func (t *Teller) Fact(f scenario.Fact) {
	if node := f.Fields["node"]; node != "" && !slices.Contains(t.nodes, node) && f.Kind != scenario.KindRunning {
		return
	}
	t.happened[f.Kind]++
	switch f.Kind {
	case scenario.KindFault:
		t.fault(f)
	case scenario.KindRemediation:
		t.remediation(f)
	case scenario.KindPolicy:
		t.policy(f)
	case scenario.KindEviction:
		t.evicted[f.Fields["namespace"]+"/"+f.Fields["app"]] = f.Fields["pod"]
	case scenario.KindRunning:
		t.moved(f)
	case scenario.KindFinished:
		t.finished++
	case scenario.KindBudget:
		t.budget(f)
	case scenario.KindClaim:
		t.claim(f)
	case scenario.KindAction, scenario.KindReboot, scenario.KindLeader:
		t.repair(f)
	case scenario.KindPublished:
		t.writes++
	case scenario.KindAlert:
		t.line(f.At, "alert", alertStyle(f), "%s %s: %s", f.Fields["name"], f.Fields["state"], f.Fields["message"])
	case scenario.KindEvent:
		if f.Fields["type"] == "Warning" {
			t.line(f.At, "warned", scenario.Yellow, "Event %s on %s, for whoever is on call", f.Fields["reason"], f.Fields["node"])
		}
	default: // the rest is in the report.
	}
}

func alertStyle(f scenario.Fact) scenario.Style {
	if f.Fields["state"] == "resolved" {
		return scenario.Green
	}
	return scenario.Yellow
}

// once says whether something is told for the first time.
func (t *Teller) once(what string) bool {
	if t.told[what] {
		return false
	}
	t.told[what] = true
	return true
}

func (t *Teller) fault(f scenario.Fact) {
	v := f.Fields
	if v["state"] != "reported" || v["class"] == "Application" {
		return
	}
	if t.once("fault " + v["node"]) {
		t.once("fault " + v["node"] + v["check"])
		t.line(f.At, "fault", scenario.Red, "%s slot %s  \"%s\"", v["node"], cmp.Or(v["slot"], "?"), unknown.ReplaceAllString(v["evidence"], ""))
		return
	}
	// Another check that sees the same with its own eyes is worth a line; another line of the same log is not.
	if t.once("fault " + v["node"] + v["check"]) {
		t.line(f.At, "seen", scenario.Plain, "%s agrees: %s", v["check"], v["evidence"])
	}
}

func (t *Teller) policy(f scenario.Fact) {
	name, mode := f.Fields["name"], f.Fields["mode"]
	if was := t.modes[name]; was != "" && was != mode {
		t.line(f.At, "you", scenario.Bold, "policy/%s: %s to %s", name, was, mode)
	}
	t.modes[name] = mode
}

// remediation tells what an incident says of itself, each reason once until another comes.
func (t *Teller) remediation(f scenario.Fact) {
	v := f.Fields
	if t.last[v["name"]] == v["phase"]+v["reason"] {
		return
	}
	t.last[v["name"]] = v["phase"] + v["reason"]
	message := brief(v["message"])
	switch v["reason"] {
	case "ModeObserve":
		t.line(f.At, "would do", scenario.Bold, "%s. Touched: %s.", strings.TrimPrefix(message, "observing only; would "), t.touchedText())
	case "DeviceQuarantined", "NodeQuarantined":
		if t.once("quarantine " + v["node"]) {
			t.line(f.At, "quarantine", scenario.Yellow, "%s", message)
		}
	case "WaitingForIdle", "BudgetExhausted", "Held", "BrakeHolding", "ForeignClaim", "WaitingForWindow":
		t.line(f.At, "waiting", scenario.Yellow, "%s", message)
	case "Drained":
		t.line(f.At, "evidence", scenario.Plain, "faults, devices and serials saved, sha256 %.12s...", v["evidence"])
	case "Verified":
		t.verified++
		t.line(f.At, "verified", scenario.Green, "repair %d: %s", t.verified, message)
	case "RelapsedInProbation":
		t.line(f.At, "relapse", scenario.Red, "%s", message)
	case "ProbationClean":
		left, what := t.count(scenario.State{Kind: scenario.StateLeftovers, Where: map[string]string{"node": v["node"]}})
		if left > 0 {
			what = ": " + what
		}
		t.line(f.At, "returned", scenario.Green, "%s; %d taints, rules or claims left%s", message, left, what)
	case "RepairLimit", "BootLimit", "AttemptsSpent", "HumanAsked", "DrainDeadline", "WaitDeadline", "NotRepaired":
		t.line(f.At, "stopped", scenario.Red, "%s", message)
	}
}

func (t *Teller) touchedText() string {
	if n := t.acts(); n > 0 {
		return strconv.Itoa(n) + " things"
	}
	return "nothing"
}

// uuid finds boot IDs and device UUIDs, of which the first part is enough to tell them apart here.
var uuid = regexp.MustCompile(`([0-9a-f]{8}-[0-9a-f]{4})(-[0-9a-f]{4}){2}-[0-9a-f]{8}([0-9a-f]{4})`)

// unknown is what the driver writes where it does not know the process; it says nothing.
var unknown = regexp.MustCompile(`(pid='<unknown>'|name=<unknown>), `)

// brief shortens what is too long for a line: identities.
func brief(message string) string { return uuid.ReplaceAllString(message, "$1...$3") }

// moved tells the replacement of a pod that was told to go.
func (t *Teller) moved(f scenario.Fact) {
	v := f.Fields
	key := v["namespace"] + "/" + v["app"]
	pod, ok := t.evicted[key]
	if !ok || len(t.nodes) == 0 {
		return
	}
	delete(t.evicted, key)
	stay, _ := t.count(scenario.State{Kind: scenario.StatePods, Where: map[string]string{"node": strings.Join(t.nodes, ","), "namespace": v["namespace"], "phase": "Running"}})
	t.line(f.At, "moved", scenario.Green, "%s to %s, through the Eviction API; %d other pods untouched", pod, v["node"], stay)
}

func (t *Teller) budget(f scenario.Fact) {
	v := f.Fields
	if v["state"] != "taken" {
		return
	}
	text := fmt.Sprintf("%s %s of %s", v["name"], v["held"], v["of"])
	if v["domain"] != "" {
		text = fmt.Sprintf("%s (%s) %s of %s", v["name"], v["domain"], v["held"], v["of"])
	}
	t.slots[v["name"]] = text
}

// claim tells which budgets gave a slot when the node is claimed, and what the wait before was for.
func (t *Teller) claim(f scenario.Fact) {
	if f.Fields["state"] != "on" || t.verified > 0 {
		return
	}
	var slots []string
	for _, text := range t.slots {
		slots = append(slots, text)
	}
	slices.Sort(slots)
	word, why := "claimed", ""
	if t.finished > 0 {
		word, why = "idle", fmt.Sprintf("%d jobs finished by themselves; ", t.finished)
	}
	t.line(f.At, word, scenario.Plain, "%sbudgets: %s", why, strings.Join(slots, ", "))
	t.slots = map[string]string{}
}

// repair tells the repair itself.
func (t *Teller) repair(f scenario.Fact) {
	v := f.Fields
	switch {
	case f.Kind == scenario.KindAction && v["state"] == "Asked":
		t.asked++
		t.line(f.At, "reboot", scenario.Yellow, "asked of the agent: %s", v["id"])
	case f.Kind == scenario.KindAction && v["state"] == "Withdrawn":
		t.line(f.At, "withdrawn", scenario.Yellow, "%s", v["id"])
	case f.Kind == scenario.KindReboot && t.killed:
		t.line(f.At, "rebooted", scenario.Plain, "a new boot ID; %d asked for, %d done", t.asked, t.happened[scenario.KindReboot])
	case f.Kind == scenario.KindLeader && t.killed:
		t.line(f.At, "resumed", scenario.Green, "new leader %s; the reboot was asked for %s already: not repeated", v["holder"], times(t.asked))
	}
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}
