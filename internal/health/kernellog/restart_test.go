package kernellog

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
)

// randomStory is lines of many families, of few devices, with pauses from nothing to hours between them.
func randomStory(r *rand.Rand, texts []string, n int) []told {
	lines := make([]told, n)
	var at time.Duration
	for i := range lines {
		pause := [...]time.Duration{0, time.Second, 9 * time.Second, 11 * time.Second, 61 * time.Second, 11 * time.Minute, 2 * time.Hour}
		at += pause[r.IntN(len(pause))]
		lines[i] = told{at, texts[r.IntN(len(texts))]}
	}
	return lines
}

// TestARestartInTheMiddleOfABurstChangesNothing holds that a state which was written and read back after any line goes on
// as if nothing had been.
func TestARestartInTheMiddleOfABurstChangesNothing(t *testing.T) {
	texts, _ := corpus(t)
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		lines := randomStory(r, texts, 40)
		whole, broken := &State{BootID: "b"}, &State{BootID: "b"}
		for i, l := range lines {
			for _, s := range []*State{whole, broken} {
				s.Apply(ParseLine([]byte(l.text)), []byte(l.text), t0.Add(l.at), DefaultTimes())
			}
			// Looks come when they come, and a restarted agent reads several lines before its first.
			if r.IntN(3) == 0 {
				broken.Expire(t0.Add(l.at), DefaultTimes())
			}
			if r.IntN(3) == 0 {
				broken = readBack(t, broken)
			}
			if i%8 == 7 {
				whole.Expire(t0.Add(l.at), DefaultTimes())
				broken.Expire(t0.Add(l.at), DefaultTimes())
				if diff := cmp.Diff(summary(whole), summary(broken)); diff != "" {
					t.Fatalf("seed %d, after line %d, %s (-whole +restarted):\n%s", seed, i, l.text, diff)
				}
			}
		}
	}
}

func readBack(t *testing.T, s *State) *State {
	t.Helper()
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back State
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	return &back
}

// TestACheckThatIsKilledAtAnyLineFindsTheSame goes through the log's cursor: lines that were read and not saved are read
// again, and those that were saved are not.
func TestACheckThatIsKilledAtAnyLineFindsTheSame(t *testing.T) {
	texts, _ := corpus(t)
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		rig := newRig(t)
		steady := New(Options{Machine: &forgetful{Machine: rig.m}, Now: rig.clock.now})
		steady.Look(t.Context())
		rig.look()
		for range 60 {
			rig.clock.advance([...]time.Duration{0, time.Second, 20 * time.Second}[r.IntN(3)])
			rig.m.Kernel(strings.ReplaceAll(texts[r.IntN(len(texts))], `\x0a`, "\n"))
			if r.IntN(2) == 0 {
				rig.look()
			}
			if r.IntN(2) == 0 {
				rig.wait()
			}
			if r.IntN(4) == 0 {
				rig.restart()
			}
			steady.Look(t.Context())
		}
		rig.look()
		if diff := cmp.Diff(summary(&steady.state), summary(&rig.check.state)); diff != "" {
			t.Fatalf("seed %d (-steady +killed):\n%s", seed, diff)
		}
	}
}

// forgetful is a machine whose disk keeps nothing, for a second check on it.
type forgetful struct{ *fake.Machine }

func (*forgetful) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }
func (*forgetful) Save(context.Context, string, []byte) error   { return nil }

// TestAStateOfAnOlderVersionIsTakenUp holds that what was added to the state since is not needed to read it.
func TestAStateOfAnOlderVersionIsTakenUp(t *testing.T) {
	r := newRig(t)
	boot, err := r.m.BootID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old := fmt.Sprintf(`{"bootID":%q,"next":1,"faults":[{"class":"Fabric","severity":"Critical","recommended":"Reboot",
		"clearedBy":"Boot","rank":70,"code":"SXid20034","address":{"Domain":0,"Bus":5,"Device":0,"Function":0},
		"first":"2026-11-23T09:59:59Z","last":"2026-11-23T09:59:59Z","count":2,"evidence":"x","mark":"2026-11-23T09:59:59Z"},
		{"class":"Application","severity":"Info","recommended":"RestartApplication","clearedBy":"Quiet","rank":10,"code":"Xid13",
		"address":{"Domain":0,"Bus":24,"Device":0,"Function":0},"first":"2026-11-23T09:59:59Z","last":"2026-11-23T09:59:59Z",
		"count":1,"evidence":"y","mark":"2026-11-23T09:59:59Z"}]}`, boot)
	if err := r.m.Save(t.Context(), stateFile, []byte(old)); err != nil {
		t.Fatal(err)
	}
	r.m.Kernel(contained)
	r.look()
	want := []string{
		"SXid20034 0000:05:00.0 Fabric/Critical/Reboot x2",
		"Xid13 0000:18:00.0 Application/Info/RestartApplication x1 caused by Xid95",
		"Xid95 0000:18:00.0 Hardware/Critical/ResetDevice x1",
	}
	if diff := cmp.Diff(want, summary(&r.check.state)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheDriversVersionIsLearnedAndSurvives(t *testing.T) {
	r := newRig(t)
	driver := func(when string, want int) {
		t.Helper()
		if r.look(); r.check.state.Driver != want {
			t.Errorf("%s: driver %d, want %d", when, r.check.state.Driver, want)
		}
	}
	driver("nothing said", 0)
	r.m.Kernel("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  570.172.08")
	driver("the log says", 570)
	r.wait()
	r.m.Storm(1000, uninvolved)
	r.check = New(Options{Machine: r.m, Now: r.clock.now, DriverVersion: "580.105.08"})
	driver("the line is gone and was kept", 570)

	r = newRig(t)
	r.check = New(Options{Machine: r.m, Now: r.clock.now, DriverVersion: "580.105.08"})
	driver("the options say", 580)
	r.check = New(Options{Machine: r.m, Now: r.clock.now, DriverVersion: "latest"})
	driver("they say nothing of use", 0)
	r.m.Kernel("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  595.45.04")
	driver("the driver was replaced", 595)
}
