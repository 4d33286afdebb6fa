package npd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// scripts is a directory of real scripts with a monitor that runs them.
type scripts struct {
	*testing.T
	dir     string
	seconds atomic.Int64 // of the clock, which programs that still run look at too
	machine *fake.Machine
	json    string
	monitor *PluginMonitor
	o       PluginOptions
}

// pluginMonitor has the shape of NPD's custom plugin monitors; two rules share one condition.
const pluginMonitor = `{"plugin":"custom","pluginConfig":{"invoke_interval":"30s","timeout":"2s","max_output_length":40,"concurrency":2},
"source":"test","conditions":[{"type":"NTPProblem","reason":"NTPIsUp","message":"ntp is up"}],
"rules":[
 {"type":"temporary","reason":"NTPWobbles","path":"./wobbles.sh"},
 {"type":"permanent","condition":"NTPProblem","reason":"NTPIsDown","path":"./down.sh"},
 {"type":"permanent","condition":"NTPProblem","reason":"NTPIsFar","path":"./far.sh","args":["a b"],"roundhouse":{"severity":"Critical","recommended":"Human"}}
]}`

func newScripts(t *testing.T, json string) *scripts {
	s := &scripts{T: t, dir: t.TempDir(), json: json}
	s.machine = fake.New(fake.Options{Now: s.now})
	for _, name := range []string{"wobbles", "down", "far"} {
		s.script(name, "exit 0")
	}
	return s
}

func (s *scripts) now() time.Time {
	return time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC).Add(time.Duration(s.seconds.Load()) * time.Second)
}

func (s *scripts) later(d time.Duration) { s.seconds.Add(int64(d.Seconds())) }

func (s *scripts) script(name, body string) {
	s.Helper()
	// Another file each time: one that still runs cannot be written to.
	path := filepath.Join(s.dir, name+".sh")
	if err := os.WriteFile(path+".new", []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.Fatal(err)
	}
}

func (s *scripts) start() {
	s.Helper()
	c, err := config.Parse("ntp.json", []byte(s.json))
	if err != nil {
		s.Fatal(err)
	}
	o := s.o
	o.Config, o.Machine, o.Dir, o.Now = c.Plugin, s.machine, s.dir, s.now
	if o.Programs == nil {
		o.Programs = machine.NewHost(machine.Options{})
	}
	if s.monitor, err = NewPluginMonitor(s.Context(), o); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), 20*time.Second)
		defer cancel()
		if err := s.monitor.Close(ctx); err != nil {
			s.Error(err)
		}
	})
}

// again looks when the programs are due again, and waits until they have ended.
func (s *scripts) again() health.Result {
	s.Helper()
	s.later(30 * time.Second)
	s.monitor.Look(s.Context())
	s.idle()
	return s.monitor.Look(s.Context())
}

func (s *scripts) idle() {
	s.Helper()
	for range 2000 {
		s.monitor.mu.Lock()
		busy := false
		for _, r := range s.monitor.rules {
			busy = busy || r.running
		}
		s.monitor.mu.Unlock()
		if !busy {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	s.Fatal("a program never ends")
}

func (s *scripts) want(r health.Result, want ...string) {
	s.Helper()
	if diff := cmp.Diff(strings.Join(want, "\n"), show(r)); diff != "" {
		s.Error(diff)
	}
}

func (s *scripts) wantCondition(want string) {
	s.Helper()
	if diff := cmp.Diff(want, showConditions(s.monitor.Conditions())); diff != "" {
		s.Error(diff)
	}
}

func TestExitCodes(t *testing.T) {
	const well = "NTPProblem=False NTPIsUp: ntp is up"
	tests := map[string]struct {
		script, body    string
		result, message string
		condition       string
	}{
		"0 is well": {"down", "echo fine", "Passing", "", well},
		"1 is a problem": {
			"down", "echo no answer; exit 1", "Failing\nNTPIsDown Warning None Look x1: NTPProblem: no answer", "",
			"NTPProblem=True NTPIsDown: no answer",
		},
		"1 of a graver rule": {
			"far", `echo "off by $1"; exit 1`, "Failing\nNTPIsFar Critical Human Look x1: NTPProblem: off by a b", "",
			"NTPProblem=True NTPIsFar: off by a b",
		},
		"1 of a temporary rule is shown": {"wobbles", "echo hm; exit 1", "Passing\nNTPWobbles Info None Look x1: hm", "", well},
		"2 is unknown":                   {"down", "echo confused; exit 2", "Unknown PluginUnknown", "./down.sh: confused", "NTPProblem=Unknown NTPIsUp: confused"},
		"any other code is unknown": {
			"down", "exit 127", "Unknown PluginUnknown", "./down.sh: exit status 127", "NTPProblem=Unknown NTPIsUp: exit status 127",
		},
		"a signal is unknown": {
			"down", "kill -9 $$", "Unknown PluginUnknown", "./down.sh: signal: killed", "NTPProblem=Unknown NTPIsUp: signal: killed",
		},
		"a temporary rule that cannot tell is no problem": {"wobbles", "exit 3", "Unknown PluginUnknown", "./wobbles.sh: exit status 3", well},
		"output is trimmed and cut": {
			"down", `printf '\n  %050d\n\n' 7; exit 1`, "Failing\nNTPIsDown Warning None Look x1: NTPProblem: " + strings.Repeat("0", 40), "",
			"NTPProblem=True NTPIsDown: " + strings.Repeat("0", 40),
		},
		"binary output harms nothing": {
			"down", `printf 'a\377\000b'; exit 1`, "Failing\nNTPIsDown Warning None Look x1: NTPProblem: a\ufffd\ufffdb", "", "NTPProblem=True NTPIsDown: a\ufffd\ufffdb",
		},
		"a flood harms nothing": {
			"down", `yes | head -c 30000000; exit 1`, "Failing\nNTPIsDown Warning None Look x1: NTPProblem: " + strings.TrimSpace(strings.Repeat("y\n", 20)) + "\n", "",
			"NTPProblem=True NTPIsDown: " + strings.Repeat("y\n", 20),
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := newScripts(t, pluginMonitor)
			s.script(tc.script, tc.body)
			s.start()
			s.wantCondition("")
			r := s.monitor.Look(t.Context())
			s.want(r, strings.Split(tc.result, "\n")...)
			if r.Message != tc.message {
				t.Errorf("%q, want %q", r.Message, tc.message)
			}
			s.wantCondition(tc.condition)
		})
	}
}

func TestAHangingScriptIsKilledAndUnknown(t *testing.T) {
	s := newScripts(t, strings.Replace(pluginMonitor, `"timeout":"2s"`, `"timeout":"300ms"`, 1))
	s.script("down", "echo waiting; sleep 1000 & wait")
	s.start()
	began := time.Now()
	r := s.monitor.Look(t.Context())
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
	s.want(r, "Unknown PluginUnknown")
	s.wantCondition("NTPProblem=Unknown NTPIsUp: timed out after 300ms: waiting")
}

func TestALookDoesNotWaitForASlowScriptButTheFirstTime(t *testing.T) {
	s := newScripts(t, strings.Replace(pluginMonitor, `"timeout":"2s"`, `"timeout":"1m"`, 1))
	s.script("down", "sleep 1000")
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r := s.monitor.Look(ctx)
	s.want(r, "Unknown NotYetRun")
	if r.Message != "./down.sh has not ended yet" {
		t.Error(r.Message)
	}
	s.wantCondition("")
}

func TestProblemsComeAndGo(t *testing.T) {
	s := newScripts(t, pluginMonitor)
	s.start()
	s.want(s.monitor.Look(t.Context()), "Passing")
	s.script("down", "echo no answer; exit 1")
	s.script("wobbles", "echo hm; exit 1")
	if r := s.monitor.Look(t.Context()); r.Outcome != health.Passing {
		t.Error("a program ran before it was due")
	}
	const down, hm = "NTPIsDown Warning None Look x1: NTPProblem: no answer", "NTPWobbles Info None Look x1: hm"
	s.want(s.again(), "Failing", down, hm)
	since := s.monitor.Conditions()[0].Since
	s.script("down", "echo still none; exit 1")
	s.want(s.again(), "Failing", "NTPIsDown Warning None Look x2: NTPProblem: still none", "NTPWobbles Info None Look x2: hm")
	s.wantCondition("NTPProblem=True NTPIsDown: no answer")
	if got := s.monitor.Conditions()[0].Since; !got.Equal(since) {
		t.Errorf("%s, want %s", got, since)
	}
	s.script("down", "exit 5")
	s.want(s.again(), "Failing", "NTPIsDown Warning None Look x2: NTPProblem: still none", "NTPWobbles Info None Look x3: hm")
	s.wantCondition("NTPProblem=Unknown NTPIsUp: exit status 5")
	s.script("down", "exit 0")
	s.script("wobbles", "exit 0")
	s.want(s.again(), "Passing")
	s.wantCondition("NTPProblem=False NTPIsUp: ntp is up")
}

func TestAMessageAloneUpdatesTheConditionWhereThatIsWanted(t *testing.T) {
	s := newScripts(t, strings.Replace(pluginMonitor, `"concurrency":2`, `"concurrency":2,"enable_message_change_based_condition_update":true`, 1))
	s.script("down", "echo one; exit 1")
	s.start()
	s.monitor.Look(t.Context())
	s.wantCondition("NTPProblem=True NTPIsDown: one")
	since := s.monitor.Conditions()[0].Since
	s.script("down", "echo two; exit 1")
	s.again()
	s.wantCondition("NTPProblem=True NTPIsDown: two")
	if got := s.monitor.Conditions()[0].Since; !got.Equal(since) {
		t.Errorf("a message is no transition: %s, want %s", got, since)
	}
}

func TestSeveralPluginsOfOneConditionAddUpToTheWorst(t *testing.T) {
	s := newScripts(t, pluginMonitor)
	s.script("down", "echo down; exit 1")
	s.script("far", "echo cannot tell; exit 2")
	s.start()
	s.monitor.Look(t.Context())
	s.wantCondition("NTPProblem=True NTPIsDown: down")
	s.script("far", "echo far; exit 1")
	s.again()
	s.wantCondition("NTPProblem=True NTPIsFar: far")
	s.script("down", "exit 0")
	s.script("far", "echo cannot tell; exit 2")
	s.again()
	s.wantCondition("NTPProblem=Unknown NTPIsUp: cannot tell")
}

func TestTheOrderOfTheRulesDoesNotDecideWhichIsWorst(t *testing.T) {
	programs := &fake.Programs{}
	programs.Answers("/grave", 1, "grave")
	programs.Answers("/light", 1, "light")
	s := newScripts(t, `{"plugin":"custom","conditions":[{"type":"Bad"}],"rules":[
{"type":"permanent","condition":"Bad","reason":"Grave","path":"/grave","roundhouse":{"severity":"Critical"}},
{"type":"permanent","condition":"Bad","reason":"Light","path":"/light"}]}`)
	s.o.Programs = programs
	s.start()
	s.want(s.monitor.Look(t.Context()), "Failing", "Grave Critical None Look x1: Bad: grave", "Light Warning None Look x1: Bad: light")
	s.wantCondition("Bad=True Grave: grave")
}

func TestProblemsOfPluginsSurviveARestart(t *testing.T) {
	s := newScripts(t, pluginMonitor)
	s.script("down", "echo down; exit 1")
	s.start()
	first := s.monitor.Look(t.Context())
	since := s.monitor.Conditions()[0].Since
	if err := s.monitor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.later(time.Hour)
	s.start()
	r := s.monitor.Look(t.Context())
	s.want(r, "Failing", "NTPIsDown Warning None Look x2: NTPProblem: down")
	if !r.Findings[0].Fault.FirstSeen.Equal(&first.Findings[0].Fault.FirstSeen) || !s.monitor.Conditions()[0].Since.Equal(since) {
		t.Error("it begins anew")
	}
	if err := s.monitor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.machine.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.later(time.Hour)
	s.start()
	s.want(s.monitor.Look(t.Context()), "Failing", "NTPIsDown Warning None Look x1: NTPProblem: down")
}

func TestAMissingScriptIsNPDsError(t *testing.T) {
	s := newScripts(t, pluginMonitor)
	if err := os.Remove(filepath.Join(s.dir, "far.sh")); err != nil {
		t.Fatal(err)
	}
	c, err := config.Parse("ntp.json", []byte(s.json))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewPluginMonitor(t.Context(), PluginOptions{
		Config: c.Plugin, Machine: s.machine, Programs: machine.NewHost(machine.Options{}), Dir: s.dir,
	})
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), `ntp.json: rules[2].path: "./far.sh" does not exist`) {
		t.Error(err)
	}
}

func TestAScriptThatGoesMissingOrCannotBeRunIsUnknown(t *testing.T) {
	s := newScripts(t, pluginMonitor)
	if err := os.Chmod(filepath.Join(s.dir, "far.sh"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.start()
	r := s.monitor.Look(t.Context())
	s.want(r, "Unknown PluginUnknown")
	if !strings.Contains(r.Message, "permission denied") {
		t.Error(r.Message)
	}
	if err := os.Remove(filepath.Join(s.dir, "far.sh")); err != nil {
		t.Fatal(err)
	}
	if r := s.again(); !strings.Contains(r.Message, "no such file") {
		t.Error(r.Message)
	}
}

func TestNoMoreProgramsRunAtOnceThanAllowed(t *testing.T) {
	var running, most atomic.Int64
	programs := &fake.Programs{}
	for _, p := range []string{"./wobbles.sh", "./down.sh", "./far.sh"} {
		programs.Set(p, func(context.Context, machine.Program) (machine.Ran, error) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(30 * time.Millisecond)
			running.Add(-1)
			return machine.Ran{}, nil
		})
	}
	s := newScripts(t, pluginMonitor)
	s.o.Programs = programs
	s.start()
	for range 5 {
		s.again()
	}
	if most.Load() != 2 {
		t.Errorf("%d at once", most.Load())
	}
	if n := len(programs.Runs()); n != 15 {
		t.Errorf("%d runs", n)
	}
}

func TestASlowProgramIsNeverStartedTwiceAndHoldsUpNoOther(t *testing.T) {
	programs := &fake.Programs{}
	programs.Answers("./wobbles.sh", 0, "")
	programs.Answers("./far.sh", 0, "")
	held := make(chan struct{})
	programs.Set("./down.sh", func(ctx context.Context, _ machine.Program) (machine.Ran, error) {
		select {
		case <-held:
		case <-ctx.Done():
		}
		return machine.Ran{}, ctx.Err()
	})
	s := newScripts(t, pluginMonitor)
	s.o.Programs = programs
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for range 4 {
		s.monitor.Look(ctx)
		time.Sleep(20 * time.Millisecond)
		s.later(30 * time.Second)
	}
	count := map[string]int{}
	for _, p := range programs.Runs() {
		count[p.Path]++
	}
	if diff := cmp.Diff(map[string]int{"./wobbles.sh": 4, "./far.sh": 4, "./down.sh": 1}, count); diff != "" {
		t.Error(diff)
	}
	close(held)
}

func TestIntervalsAreEachRulesOwn(t *testing.T) {
	programs := &fake.Programs{}
	for _, p := range []string{"./wobbles.sh", "./down.sh", "./far.sh"} {
		programs.Answers(p, 0, "")
	}
	s := newScripts(t, strings.Replace(pluginMonitor, `"path":"./down.sh"`, `"path":"./down.sh","invoke_interval":"1m30s"`, 1))
	s.o.Programs = programs
	s.start()
	s.monitor.Look(t.Context())
	for range 6 {
		s.again()
	}
	count := map[string]int{}
	for _, p := range programs.Runs() {
		count[p.Path]++
	}
	if diff := cmp.Diff(map[string]int{"./wobbles.sh": 7, "./far.sh": 7, "./down.sh": 3}, count); diff != "" {
		t.Error(diff)
	}
}

func TestWaitReturnsWhenAProgramHasEnded(t *testing.T) {
	s := newScripts(t, strings.Replace(pluginMonitor, `"timeout":"2s"`, `"timeout":"1m"`, 1))
	s.script("down", "sleep 0.3; exit 1")
	s.start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	s.monitor.Look(ctx)
	if err := s.monitor.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	s.idle()
	s.want(s.monitor.Look(t.Context()), "Failing", "NTPIsDown Warning None Look x1: NTPProblem: ")
}

func TestARepairIsNotDoneUnlessAllowed(t *testing.T) {
	tests := map[string]struct {
		path  string
		args  []string
		allow bool
		want  string
	}{
		"the argument is turned":         {"/bin/health-checker", []string{"--component=kubelet", "--enable-repair=true", "--x"}, false, "[--component=kubelet --x --enable-repair=false]"},
		"and the default":                {"/bin/health-checker", []string{"--component=kubelet"}, false, "[--component=kubelet --enable-repair=false]"},
		"under another name too":         {"/bin/hc", []string{"--enable-repair", "--x"}, false, "[--x --enable-repair=false]"},
		"other programs are left alone":  {"/bin/log-counter", []string{"--count=3"}, false, "[--count=3]"},
		"it is done where it is allowed": {"/bin/health-checker", []string{"--enable-repair=true"}, true, "[--enable-repair=true]"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			before := fmt.Sprint(tc.args)
			if got := fmt.Sprint(withoutRepair(tc.path, tc.args, tc.allow)); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			if fmt.Sprint(tc.args) != before {
				t.Error("the configuration was written to")
			}
		})
	}
}

func TestProgramsGetNoRepairAndTheirEnvironment(t *testing.T) {
	programs := &fake.Programs{}
	programs.Answers("/home/kubernetes/bin/health-checker", 0, "")
	s := newScripts(t, `{"plugin":"custom","conditions":[{"type":"KubeletUnhealthy"}],"rules":[{"type":"permanent","condition":"KubeletUnhealthy",
"reason":"KubeletUnhealthy","path":"/home/kubernetes/bin/health-checker","args":["--component=kubelet"]}]}`)
	s.o = PluginOptions{Programs: programs, Env: []string{"NODE_NAME=n"}, Root: "/host"}
	s.start()
	s.monitor.Look(t.Context())
	want := []machine.Program{{
		Root: "/host", Dir: s.dir, Path: "/home/kubernetes/bin/health-checker", Args: []string{"--component=kubelet", "--enable-repair=false"},
		Env: []string{"NODE_NAME=n"}, Timeout: 5 * time.Second, MaxOutput: 4096,
	}}
	if diff := cmp.Diff(want, programs.Runs()); diff != "" {
		t.Error(diff)
	}
}

func TestPluginsCannotLook(t *testing.T) {
	s := newScripts(t, pluginMonitor)
	s.start()
	s.machine.Fail(fake.DoorBoot, errors.New("broken"))
	s.want(s.monitor.Look(t.Context()), "Unknown CannotRead")
	s.machine.Fail(fake.DoorBoot, nil)
	s.machine.Fail(fake.DoorStore, errors.New("broken"))
	if r := s.monitor.Look(t.Context()); r.Outcome != health.Passing || !strings.Contains(r.Message, "state is not kept") {
		t.Errorf("%s: %s", show(r), r.Message)
	}
	s.machine.Fail(fake.DoorStore, nil)
}
