package npd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// bench is a machine with a log monitor on it.
type bench struct {
	*testing.T
	now     time.Time
	machine *fake.Machine
	files   fake.Files
	journal fake.Journal
	json    string
	monitor *LogMonitor
}

// The kernel monitor's shape, with what NPD lacks in two of its rules.
const kernelMonitor = `{"plugin":"kmsg","lookback":"5m","source":"kernel-monitor",
"conditions":[{"type":"KernelDeadlock","reason":"KernelHasNoDeadlock","message":"no deadlock"},
 {"type":"XfsShutdown","reason":"XfsHasNotShutDown","message":"XFS is up"}],
"rules":[
 {"type":"temporary","reason":"OOMKilling","pattern":"Killed process \\d+ (.+) total-vm:\\d+kB.*"},
 {"type":"permanent","condition":"KernelDeadlock","reason":"DockerHung","pattern":"task docker:\\w+ blocked for more than \\w+ seconds\\."},
 {"type":"permanent","condition":"KernelDeadlock","reason":"Lockup","pattern":"soft lockup .*","roundhouse":{"severity":"Critical","recommended":"Reboot"}},
 {"type":"permanent","condition":"XfsShutdown","reason":"XfsHasShutdown","pattern":"XFS .* Shutting down filesystem.?",
  "roundhouse":{"clear":{"after":"1h","pattern":"XFS .* Mounting .*"}}}
]}`

const hung = "task docker:1234 blocked for more than 120 seconds."

func newBench(t *testing.T, json string) *bench {
	b := &bench{T: t, now: time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC), json: json}
	b.machine = fake.New(fake.Options{Now: func() time.Time { return b.now }, BootTime: b.now.Add(-time.Hour)})
	b.start()
	return b
}

func (b *bench) start() {
	b.Helper()
	c, err := config.Parse("kernel-monitor.json", []byte(b.json))
	if err != nil {
		b.Fatal(err)
	}
	b.monitor, err = NewLogMonitor(LogOptions{
		Config: c.Log, Machine: b.machine, Files: &b.files, Journal: &b.journal, Now: func() time.Time { return b.now }, Location: time.UTC,
	})
	if err != nil {
		b.Fatal(err)
	}
}

// restart ends the agent as a signal does, and starts another.
func (b *bench) restart() {
	b.Helper()
	if err := b.monitor.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.start()
}

// crash starts another agent without a word to the first, which had the time to save what it published.
func (b *bench) crash() {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_ = b.monitor.Wait(ctx)
	b.start()
}

func (b *bench) look() health.Result {
	b.Helper()
	var r health.Result
	for range 1000 {
		if r = b.monitor.Look(b.Context()); r.Again != time.Millisecond {
			return r
		}
	}
	b.Fatal("it never ends")
	return r
}

// show is a result in a line a finding.
func show(r health.Result) string {
	out := []string{strings.TrimSpace(string(r.Outcome) + " " + r.Reason)}
	for _, f := range r.Findings {
		out = append(out, fmt.Sprintf("%s %s %s %s x%d: %s", f.Fault.Code, f.Fault.Severity, f.Fault.Recommended, f.ClearedBy, f.Fault.Count, f.Fault.Evidence))
	}
	return strings.Join(out, "\n")
}

func showConditions(cs []Condition) string {
	var out []string
	for _, c := range cs {
		out = append(out, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(out, "\n")
}

func (b *bench) want(want ...string) {
	b.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n"), show(b.look())); diff != "" {
		b.Error(diff)
	}
}

func (b *bench) wantConditions(want ...string) {
	b.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n"), showConditions(b.monitor.Conditions())); diff != "" {
		b.Error(diff)
	}
}

const (
	xfsUp       = "XfsShutdown=False XfsHasNotShutDown: XFS is up"
	noDeadlock  = "KernelDeadlock=False KernelHasNoDeadlock: no deadlock"
	hungFinding = "DockerHung Warning None Boot x1: KernelDeadlock: " + hung
)

func TestAKernelLineSetsACondition(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.wantConditions("")
	b.want("Passing")
	b.wantConditions(noDeadlock, xfsUp)
	b.machine.Kernel("eth0: link up", hung)
	b.want("Failing", hungFinding)
	b.wantConditions("KernelDeadlock=True DockerHung: "+hung, xfsUp)
	f := b.look().Findings[0].Fault
	if f.Class != v1alpha1.ClassHost || f.Check != "npd-kernel-monitor" || !f.Root || f.Device != "" {
		t.Errorf("%+v", f)
	}
}

func TestATemporaryProblemIsShownAndFades(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	oom := "Killed process 77 (python) total-vm:100kB, anon-rss:1kB"
	b.machine.Kernel(oom, "between", oom+" again")
	b.want("Passing", "OOMKilling Info None Quiet x2: "+oom+" again")
	b.now = b.now.Add(9 * time.Minute)
	b.want("Passing", "OOMKilling Info None Quiet x2: "+oom+" again")
	b.now = b.now.Add(time.Minute)
	b.want("Passing")
	b.wantConditions(noDeadlock, xfsUp)
}

func TestSeveralRulesOfOneConditionAddUpToTheWorst(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	b.machine.Kernel(hung)
	b.want("Failing", hungFinding)
	b.now = b.now.Add(time.Second)
	b.machine.Kernel("soft lockup on CPU 3")
	b.want("Failing", "Lockup Critical Reboot Boot x1: KernelDeadlock: soft lockup on CPU 3", hungFinding)
	b.wantConditions("KernelDeadlock=True Lockup: soft lockup on CPU 3", xfsUp)
	since := b.monitor.Conditions()[0].Since
	if !since.Equal(b.now.Add(-time.Second)) {
		t.Errorf("the condition is true since its first problem, not %s", since)
	}
	b.now = b.now.Add(time.Second)
	b.machine.Kernel(hung)
	b.look()
	b.wantConditions("KernelDeadlock=True Lockup: soft lockup on CPU 3", xfsUp)
}

func TestConditionsEnd(t *testing.T) {
	const down, up = "XFS (sda1): Shutting down filesystem", "XFS (sda1): Mounting V5 Filesystem"
	const finding = "XfsHasShutdown Warning None Quiet x1: XfsShutdown: " + down
	tests := map[string]struct {
		do   func(b *bench)
		want string
	}{
		"with time":          {func(b *bench) { b.now = b.now.Add(time.Hour) }, "Passing"},
		"not before":         {func(b *bench) { b.now = b.now.Add(time.Hour - time.Second) }, "Failing\n" + finding},
		"with another line":  {func(b *bench) { b.machine.Kernel(up) }, "Passing"},
		"not with any other": {func(b *bench) { b.machine.Kernel("XFS (sda1): hello") }, "Failing\n" + finding},
		"by hand, by the condition": {func(b *bench) {
			if n, err := b.monitor.Clear(b.Context(), "XfsShutdown"); n != 1 || err != nil {
				b.Error(n, err)
			}
		}, "Passing"},
		"by hand, by the code": {func(b *bench) {
			if n, err := b.monitor.Clear(b.Context(), "XfsHasShutdown"); n != 1 || err != nil {
				b.Error(n, err)
			}
		}, "Passing"},
		"not by another name": {func(b *bench) {
			if n, err := b.monitor.Clear(b.Context(), ""); n != 0 || err != nil {
				b.Error(n, err)
			}
		}, "Failing\n" + finding},
		"with a new boot": {func(b *bench) {
			if err := b.machine.Reboot(b.Context()); err != nil {
				b.Error(err)
			}
			b.look() // The open log is of the old boot.
		}, "Passing"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, kernelMonitor)
			b.look()
			b.machine.Kernel(down)
			b.want("Failing", finding)
			tc.do(b)
			b.want(strings.Split(tc.want, "\n")...)
			if tc.want == "Passing" {
				b.wantConditions(noDeadlock, xfsUp)
				b.restart()
				b.want("Passing")
			}
		})
	}
}

func TestAPermanentProblemWithoutAWordLastsTheBoot(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	b.machine.Kernel(hung)
	b.now = b.now.Add(1000 * time.Hour)
	b.want("Failing", hungFinding)
}

func TestNothingIsMissedAndNothingCountedTwiceAcrossARestart(t *testing.T) {
	for name, again := range map[string]func(*bench){"in order": (*bench).restart, "by a crash": (*bench).crash} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, kernelMonitor)
			b.look()
			b.machine.Kernel(hung)
			b.look()
			since := b.monitor.Conditions()[0].Since
			again(b)
			// While no agent runs; older than the lookback when the next one does.
			b.machine.Kernel(hung, "XFS (sda1): Shutting down filesystem")
			b.now = b.now.Add(30 * time.Minute)
			b.want("Failing",
				strings.Replace(hungFinding, "x1", "x2", 1),
				"XfsHasShutdown Warning None Quiet x1: XfsShutdown: XFS (sda1): Shutting down filesystem")
			if got := b.monitor.Conditions()[0].Since; !got.Equal(since) {
				t.Errorf("since %s, was %s", got, since)
			}
			again(b)
			b.want("Failing",
				strings.Replace(hungFinding, "x1", "x2", 1),
				"XfsHasShutdown Warning None Quiet x1: XfsShutdown: XFS (sda1): Shutting down filesystem")
		})
	}
}

func TestLinesThatWereOverwrittenAreNotTakenForHealth(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	b.machine.Storm(1000, "noise")
	b.want("Unknown LinesLost")
	b.wantConditions("KernelDeadlock=Unknown LinesLost: lines were gone before they were read", "XfsShutdown=Unknown LinesLost: lines were gone before they were read")
	b.now = b.now.Add(time.Minute)
	b.want("Passing")
	b.restart()
	b.machine.Storm(1000, "noise")
	b.want("Unknown LinesLost")
}

func TestLookbackAndDelayAreNPDs(t *testing.T) {
	tests := map[string]struct {
		top  string
		want string
	}{
		"no lookback: what was before the start is history": {``, "Passing"},
		"a lookback reaches back":                           {`"lookback":"45m",`, "Failing"},
		"not farther":                                       {`"lookback":"20m",`, "Passing"},
		"a delay hides the first while of a boot":           {`"lookback":"45m","delay":"40m",`, "Passing"},
		"a delay longer than the uptime hides all":          {`"lookback":"45m","delay":"2h",`, "Passing"},
		"not what is after it":                              {`"lookback":"45m","delay":"20m",`, "Failing"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, `{"plugin":"kmsg",`+tc.top+`"conditions":[{"type":"Bad"}],"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad"}]}`)
			b.now = b.now.Add(-30 * time.Minute) // Half an hour after the boot.
			b.machine.Kernel("bad")
			b.now = b.now.Add(30 * time.Minute)
			if got := b.look(); string(got.Outcome) != tc.want {
				t.Errorf("%s", show(got))
			}
		})
	}
}

func TestADelayHidesWhatComesDuringIt(t *testing.T) {
	b := newBench(t, `{"plugin":"kmsg","delay":"61m","conditions":[{"type":"Bad"}],"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad"}]}`)
	b.look()
	b.machine.Kernel("bad")
	b.want("Passing")
	b.now = b.now.Add(2 * time.Minute)
	b.machine.Kernel("bad")
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad")
}

func TestALineRightAfterTheStartIsSeenWhateverTheKernelsClock(t *testing.T) {
	b := newBench(t, `{"plugin":"kmsg","conditions":[{"type":"Bad"}],"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad"}]}`)
	b.look()
	b.now = b.now.Add(-10 * time.Minute) // The kernel's clock is behind the wall's.
	b.machine.Kernel("bad")
	b.now = b.now.Add(10 * time.Minute)
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad")
}

func TestWhatAProcessWroteIsSeenButNeverGrave(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	b.machine.Inject("soft lockup forged")
	b.want("Failing", "Lockup Warning None Boot x1: KernelDeadlock: (not from the system itself) soft lockup forged")
	b.wantConditions("KernelDeadlock=True Lockup: soft lockup forged", xfsUp)
	b.machine.Kernel("soft lockup real")
	b.want("Failing", "Lockup Critical Reboot Boot x2: KernelDeadlock: soft lockup real")
	b.machine.Inject("soft lockup forged")
	b.want("Failing", "Lockup Critical Reboot Boot x3: KernelDeadlock: soft lockup real")
}

func TestAPatternOverSeveralLinesSurvivesARestart(t *testing.T) {
	b := newBench(t, `{"plugin":"kmsg","conditions":[{"type":"Bad"}],"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"first\nsecond"}]}`)
	b.look()
	b.machine.Kernel("first")
	b.want("Passing")
	b.restart()
	b.machine.Kernel("second")
	b.want("Failing", "IsBad Warning None Boot x1: Bad: first\nsecond")
}

func TestTheDeviceOfARecordIsNoPartOfItsText(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	b.monitor.source.(*kmsgSource).take([]byte("4,0,3600000000,-;" + hung + "\n SUBSYSTEM=pci\n DEVICE=+pci:0000:18:00.0\n"))
	b.want("Failing", hungFinding)
}

func TestCannotLook(t *testing.T) {
	broken := errors.New("broken")
	b := newBench(t, kernelMonitor)
	b.machine.Kernel(hung)
	b.look()
	b.machine.Fail(fake.DoorLog, broken)
	b.want("Unknown CannotRead", hungFinding)
	b.wantConditions("KernelDeadlock=True DockerHung: "+hung, "XfsShutdown=Unknown CannotRead: log: broken")
	b.machine.Fail(fake.DoorLog, nil)
	b.want("Failing", hungFinding)
	b.wantConditions("KernelDeadlock=True DockerHung: "+hung, xfsUp)

	c := newBench(t, kernelMonitor)
	c.machine.Fail(fake.DoorStore, broken)
	c.want("Unknown CannotRead")
	c.want("Unknown CannotRead")
	c.machine.Kernel(hung)
	if r := c.look(); r.Outcome != health.Failing || !strings.Contains(r.Message, "state is not kept") {
		t.Errorf("a detector must not die of a broken disk: %s %s", show(r), r.Message)
	}
}

func TestAFloodIsBoundedInOneLook(t *testing.T) {
	b := newBench(t, `{"plugin":"filelog","logPath":"/l","pluginConfig":{"timestamp":"^.{19}","message":"(.*)","timestampFormat":"2006-01-02T15:04:05"},
"rules":[{"type":"temporary","reason":"Any","pattern":".*"}]}`)
	b.files.Append("/l", strings.Repeat("2026-11-26T10:00:00 x\n", 20000))
	r := b.monitor.Look(t.Context())
	if r.Again != time.Millisecond || r.Findings[0].Fault.Count > 2*maxRead+readSize/22 {
		t.Errorf("%s", show(r))
	}
	if r := b.look(); r.Findings[0].Fault.Count != 20000 {
		t.Errorf("%s", show(r))
	}
}

// fileMonitor has the shape of NPD's filelog monitors.
const fileMonitor = `{"plugin":"filelog","logPath":"/var/log/containerd.log","lookback":"5m","bufferSize":1,
"pluginConfig":{"timestamp":"^time=\"(\\S*)\"","message":"msg=\"([^\n]*)\"","timestampFormat":"2006-01-02T15:04:05Z07:00"},
"skipList":[" audit:"],
"conditions":[{"type":"Bad","reason":"Good","message":"well"}],
"rules":[{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad.*"}]}`

const logPath = "/var/log/containerd.log"

func (b *bench) line(msg string) string {
	return fmt.Sprintf("time=%q level=error msg=\"%s\"\n", b.now.Format(time.RFC3339), msg)
}

func TestAFileIsFollowedAcrossRestartsAndRotation(t *testing.T) {
	b := newBench(t, fileMonitor)
	old := b.now
	b.now = b.now.Add(-time.Hour)
	b.files.Append(logPath, b.line("bad long ago"))
	b.now = old
	b.files.Append(logPath, b.line("good")+b.line("bad audit: no"))
	b.want("Passing")
	b.wantConditions("Bad=False Good: well")
	b.files.Append(logPath, b.line("bad 1")+b.line("bad 2")[:30])
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad 1")
	b.restart()
	b.files.Append(logPath, b.line("bad 2")[30:])
	b.want("Failing", "IsBad Warning None Boot x2: Bad: bad 1")
	b.files.Append(logPath, b.line("bad 3"))
	b.crash()
	b.files.Rotate(logPath, false)
	b.files.Append(logPath, b.line("bad 4"))
	b.now = b.now.Add(time.Hour)
	b.want("Failing", "IsBad Warning None Boot x4: Bad: bad 1")
	b.restart()
	b.files.Append(logPath, b.line("bad 5"))
	b.files.Rotate(logPath, true)
	b.files.Append(logPath, b.line("bad 6"))
	r := b.look()
	if r.Findings[0].Fault.Count != 5 || r.Message == "" {
		t.Errorf("what was deleted unread is said: %s %q", show(r), r.Message)
	}
}

func TestALineCutByARotationIsALine(t *testing.T) {
	b := newBench(t, fileMonitor)
	b.files.Append(logPath, strings.TrimSpace(b.line("bad 1")))
	b.want("Passing")
	b.files.Rotate(logPath, false)
	b.files.Append(logPath, b.line("good"))
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad 1")
}

func TestALongLineIsCutAndTheNextIsWhole(t *testing.T) {
	b := newBench(t, fileMonitor)
	b.look()
	b.files.Append(logPath, b.line("good "+strings.Repeat("x", 200000))+b.line("bad 1"))
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad 1")
	if n := len(b.monitor.state.Partial); n != 0 {
		t.Errorf("%d bytes left", n)
	}
}

func TestBinaryInAFileHarmsNothing(t *testing.T) {
	b := newBench(t, fileMonitor)
	b.files.Append(logPath, "\x00\xff\xfe\n\n\n"+b.line("bad \xff\xfe"))
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad \ufffd")
}

func TestAFileThatIsNotThereIsUnknown(t *testing.T) {
	b := newBench(t, fileMonitor)
	b.want("Unknown CannotRead")
	b.wantConditions("Bad=Unknown CannotRead: following /var/log/containerd.log: file does not exist")
	b.files.Append(logPath, b.line("bad 1"))
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad 1")
}

func TestAFormatThatFitsNoLineIsUnknown(t *testing.T) {
	b := newBench(t, fileMonitor)
	b.files.Append(logPath, strings.Repeat("Nov 26 10:00:00 bad\n", unstamped))
	b.want("Unknown NoTimestamps")
	b.files.Append(logPath, b.line("good"))
	b.want("Passing")
}

// abrtMonitor has the shape of NPD's journald monitors.
const abrtMonitor = `{"plugin":"journald","pluginConfig":{"source":"abrt-notification"},"logPath":"/var/log/journal","lookback":"5m",
"conditions":[{"type":"Bad","reason":"Good","message":"well"}],
"rules":[{"type":"temporary","reason":"CCPPCrash","pattern":"Process \\d+ \\(\\S+\\) crashed in .*"},
 {"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad.*","roundhouse":{"severity":"Critical","recommended":"Human"}}]}`

func TestTheJournalIsReadFromItsCursor(t *testing.T) {
	const id = "abrt-notification"
	b := newBench(t, abrtMonitor)
	b.journal.Add(id, b.now.Add(-10*time.Minute), "bad long ago")
	b.journal.Add(id, b.now, " Process 5 (x) crashed in y \n")
	b.journal.Add("other", b.now, "bad of another")
	b.want("Passing", "CCPPCrash Info None Quiet x1: Process 5 (x) crashed in y")
	b.journal.AddEntry(id, machine.JournalEntry{Time: b.now, Message: "bad of a user"})
	b.want("Passing", "CCPPCrash Info None Quiet x1: Process 5 (x) crashed in y")
	if n := b.journal.Queries(); n != 1 {
		t.Errorf("asked %d times within one interval", n)
	}
	b.now = b.now.Add(10 * time.Second)
	b.want("Failing", "IsBad Warning None Boot x1: Bad: (not from the system itself) bad of a user", "CCPPCrash Info None Quiet x1: Process 5 (x) crashed in y")
	b.restart()
	b.journal.Add(id, b.now, "bad of root")
	b.want("Failing", "IsBad Critical Human Boot x2: Bad: bad of root", "CCPPCrash Info None Quiet x1: Process 5 (x) crashed in y")
	b.journal.Fail(fmt.Errorf("journalctl: %w", machine.ErrStuck))
	b.now = b.now.Add(10 * time.Second)
	b.want("Unknown TimedOut", "IsBad Critical Human Boot x2: Bad: bad of root", "CCPPCrash Info None Quiet x1: Process 5 (x) crashed in y")
}

func TestTheJournalOfAnEarlierBootIsHistory(t *testing.T) {
	const id = "abrt-notification"
	b := newBench(t, abrtMonitor)
	b.journal.Add(id, b.now, "something, for the cursor")
	b.look()
	b.journal.Add(id, b.now, "bad before the reboot")
	b.now = b.now.Add(time.Hour)
	if err := b.machine.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.want("Passing")
	b.now = b.now.Add(10 * time.Second)
	b.journal.Add(id, b.now, "bad after it")
	b.want("Failing", "IsBad Critical Human Boot x1: Bad: bad after it")
}

func TestAProblemOfTwoRulesEndsWhenBothSayItMay(t *testing.T) {
	b := newBench(t, `{"plugin":"kmsg","conditions":[{"type":"Bad"}],"rules":[
{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad a","roundhouse":{"clear":{"after":"1h"}}},
{"type":"permanent","condition":"Bad","reason":"IsBad","pattern":"bad b"},
{"type":"temporary","reason":"Odd","pattern":"odd a","roundhouse":{"clear":{"after":"1h"}}},
{"type":"temporary","reason":"Odd","pattern":"odd b"}]}`)
	b.look()
	b.machine.Kernel("bad a", "odd b")
	b.now = b.now.Add(59 * time.Minute)
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad a", "Odd Info None Quiet x1: odd b")
	b.now = b.now.Add(time.Hour)
	b.want("Failing", "IsBad Warning None Boot x1: Bad: bad a")
}

func TestAJournalLongerThanOneReadIsReadWhole(t *testing.T) {
	b := newBench(t, abrtMonitor)
	for i := range 3*maxRead + 5 {
		b.journal.Add("abrt-notification", b.now, fmt.Sprint("Process 1 (x) crashed in ", i))
	}
	if r := b.look(); r.Findings[0].Fault.Count != 3*maxRead+5 {
		t.Errorf("%s", show(r))
	}
}

func TestTwoRulesOfOneReasonAreOneFinding(t *testing.T) {
	b := newBench(t, `{"plugin":"kmsg","conditions":[{"type":"A"},{"type":"B"}],"rules":[
{"type":"temporary","reason":"Oops","pattern":"BUG: .*"},{"type":"temporary","reason":"Oops","pattern":"divide error: .*"},
{"type":"permanent","condition":"A","reason":"Oops","pattern":"BUG: bad"},{"type":"permanent","condition":"B","reason":"Oops","pattern":"BUG: bad"}]}`)
	b.look()
	b.machine.Kernel("divide error: 0000", "BUG: bad")
	b.want("Failing", "Oops Warning None Boot x4: A: BUG: bad")
	b.wantConditions("A=True Oops: BUG: bad", "B=True Oops: BUG: bad")
}

func TestARuleThatWasTakenOutLeavesNoProblem(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	b.machine.Kernel(hung)
	b.look()
	b.json = strings.Replace(b.json, `"reason":"DockerHung"`, `"reason":"RuntimeHung"`, 1)
	b.restart()
	b.want("Passing")
	b.wantConditions(noDeadlock, xfsUp)
}

func TestWaitReturnsForALine(t *testing.T) {
	b := newBench(t, kernelMonitor)
	b.look()
	done := make(chan error, 1)
	go func() { done <- b.monitor.Wait(t.Context()) }()
	b.machine.Kernel("hello")
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits on")
	}
}

func TestTheSavedStateIsBounded(t *testing.T) {
	b := newBench(t, `{"plugin":"kmsg","bufferSize":1000,"rules":[{"type":"temporary","reason":"A","pattern":"never"}]}`)
	b.look()
	for range 1000 {
		b.monitor.take(config.Line{Text: strings.Repeat("x", maxLine)}, b.now)
	}
	b.monitor.note(changed)
	b.restart()
	data, err := b.machine.Load(t.Context(), "npd-kernel-monitor.json")
	if err != nil || len(data) > 2*maxSavedLines || len(data) < maxSavedLines/2 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestNameOf(t *testing.T) {
	for file, want := range map[string]string{
		"/etc/npd/kernel-monitor.json": "npd-kernel-monitor", "My Checks (2).json": "npd-my-checks--2",
		strings.Repeat("x", 100) + ".json": "npd-" + strings.Repeat("x", 60),
	} {
		if got := NameOf(file); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestASourceTheAgentLacksIsAnError(t *testing.T) {
	c, err := config.Parse("f.json", []byte(abrtMonitor))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewLogMonitor(LogOptions{Config: c.Log, Machine: fake.New(fake.Options{})}); err == nil {
		t.Error("no error")
	}
}
