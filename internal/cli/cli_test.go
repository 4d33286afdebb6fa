package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var (
	now   = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)
	tokyo = time.FixedZone("JST", 9*60*60)
)

func TestUntilReadsTimesAsPeopleWriteThem(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"a time of today":             {"18:00", "2026-11-23T18:00:00+09:00"},
		"one that has passed":         {"09:00", "2026-11-24T09:00:00+09:00"},
		"a day":                       {"2026-11-24", "2026-11-24T00:00:00+09:00"},
		"a day and a time":            {"2026-11-24 06:30", "2026-11-24T06:30:00+09:00"},
		"RFC 3339 names its own zone": {"2026-11-24T06:30:00Z", "2026-11-24T06:30:00Z"},
		"a word is none":              {"tomorrow", "--until"},
		"25 o'clock is none":          {"25:00", "--until"},
		"the past is refused":         {"2026-11-22", "is in the past"},
	} {
		t.Run(name, func(t *testing.T) {
			at, err := deadline(0, c.in, now, tokyo)
			var got string
			if err != nil {
				got = err.Error()
			} else {
				got = at.Format(time.RFC3339)
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("--until %s: got %q, want %q", c.in, got, c.want)
			}
		})
	}
}

// FuzzUntil: a time that is taken lies ahead.
func FuzzUntil(f *testing.F) {
	for _, seed := range []string{"18:00", "2026-11-24", "2026-11-24T06:30:00Z", "x", "00:00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := deadline(0, s, now, tokyo)
		if err == nil && at != nil && !at.After(now) {
			t.Errorf("--until %q is %s, which is not after %s", s, at, now)
		}
	})
}

func TestApprovalsReplaceTheirKindAndDropWhatLapsed(t *testing.T) {
	later, past := metav1.NewTime(now.Add(time.Hour)), metav1.NewTime(now.Add(-time.Hour))
	have := []v1alpha1.Approval{
		{What: v1alpha1.ApproveSkipIdle, By: "a", Until: later}, {What: v1alpha1.ApproveSkipWindow, By: "b", Until: past},
		{What: v1alpha1.ApproveRetry, By: "c", Until: later},
	}
	got := withApprovals(have, []v1alpha1.ApprovalKind{v1alpha1.ApproveSkipIdle}, "d", later, now)
	want := []v1alpha1.Approval{{What: v1alpha1.ApproveRetry, By: "c", Until: later}, {What: v1alpha1.ApproveSkipIdle, By: "d", Until: later}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if have[0].By != "a" {
		t.Error("the list that was read has been changed")
	}
}

func TestDistance(t *testing.T) {
	for pair, want := range map[[2]string]int{{"", ""}: 0, {"gpu-1", "gpu-1"}: 0, {"gpu-1", "gpu-11"}: 1, {"gpu-1", "gpu-2"}: 1, {"abc", ""}: 3, {"gpu", "upg"}: 2} {
		if got := distance(pair[0], pair[1]); got != want {
			t.Errorf("distance(%q, %q) = %d, want %d", pair[0], pair[1], got, want)
		}
	}
}

// run runs a command line without a cluster.
func run(t *testing.T, args ...string) (code int, out, err string) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), append(args, "--kubeconfig", filepath.Join(t.TempDir(), "none")), Options{
		In: strings.NewReader(""), Out: &o, Err: &e, Now: func() time.Time { return now }, Zone: tokyo, Version: "v9",
	})
	return code, o.String(), e.String()
}

func TestCommandLinesThatNeedNoCluster(t *testing.T) {
	good := filepath.Join(t.TempDir(), "hold.yaml")
	manifest := "apiVersion: roundhouse.dev/v1alpha1\nkind: RemediationHold\nmetadata: {name: h}\nspec: {nodes: [a], reason: r, requestedBy: me}\n"
	if err := os.WriteFile(good, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"help":                          {nil, ExitOK, "kubectl roundhouse [command]"},
		"version":                       {[]string{"--version"}, ExitOK, "v9"},
		"an unknown command":            {[]string{"wy"}, ExitUsage, `there is no command "wy"`},
		"an unknown flag":               {[]string{"why", "--frobnicate"}, ExitUsage, "kubectl roundhouse why --help"},
		"no reason":                     {[]string{"stop"}, ExitUsage, "--reason is required"},
		"a hold of nobody":              {[]string{"hold", "--reason", "x"}, ExitUsage, "name the nodes"},
		"names and a selector":          {[]string{"hold", "a", "-l", "b=c", "--reason", "x"}, ExitUsage, "not both"},
		"a selector that is none":       {[]string{"hold", "-l", "b in (", "--reason", "x"}, ExitUsage, "-l"},
		"a dry run that is none":        {[]string{"hold", "a", "--reason", "x", "--dry-run=maybe"}, ExitUsage, "--dry-run=maybe"},
		"a format that is none":         {[]string{"stop", "--reason", "x", "-o", "wide"}, ExitUsage, "-o wide"},
		"a negative length":             {[]string{"stop", "--reason", "x", "--for", "-1h"}, ExitUsage, "--for"},
		"approval of nothing":           {[]string{"approve", "a"}, ExitUsage, "--skip-idle"},
		"work on no node":               {[]string{"maintain", "--reason", "x"}, ExitUsage, "name the nodes"},
		"work for no reason":            {[]string{"maintain", "a"}, ExitUsage, "--reason is required"},
		"work at two moments":           {[]string{"maintain", "a", "--reason", "x", "--now", "--window"}, ExitUsage, "contradict"},
		"work done for a reason":        {[]string{"maintain", "a", "--done", "--reason", "x"}, ExitUsage, "--done goes with nodes only"},
		"a wait for nothing":            {[]string{"maintain", "a", "--done", "--wait"}, ExitUsage, "--wait waits for work"},
		"a wait for no time":            {[]string{"drain", "a", "--reason", "x", "--wait", "--timeout", "0s"}, ExitUsage, "--timeout"},
		"a drain for no reason":         {[]string{"drain", "a"}, ExitUsage, "--reason is required"},
		"names and a selector of work":  {[]string{"maintain", "a", "-l", "b=c", "--reason", "x"}, ExitUsage, "not both"},
		"work at no time":               {[]string{"maintain", "a", "--reason", "x", "--not-before", "soon"}, ExitUsage, "--not-before"},
		"a file that is not there":      {[]string{"check", "--offline", "nowhere.yaml"}, ExitUsage, "nowhere.yaml"},
		"nothing to check":              {[]string{"check"}, ExitUsage, "--cluster"},
		"a file and the cluster":        {[]string{"check", "--cluster", "x"}, ExitUsage, "by itself"},
		"a valid file without cluster":  {[]string{"check", "--offline", good}, ExitOK, "RemediationHold h  VALID"},
		"a valid file, no cluster here": {[]string{"check", good}, ExitOK, "no cluster was asked"},
		"an empty file":                 {[]string{"check", "--offline", "-"}, ExitFound, "there is no object in -"},
		"no cluster to ask":             {[]string{"status"}, ExitFailed, "error:"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, err := run(t, c.args...)
			if code != c.code || !strings.Contains(out+err, c.says) {
				t.Errorf("exit code %d, want %d; said %q, want %q", code, c.code, out+err, c.says)
			}
		})
	}
}

func TestColour(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		want bool
	}{
		"a terminal has colour":    {map[string]string{"TERM": "xterm"}, true},
		"NO_COLOR says no":         {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false},
		"a dumb terminal has none": {map[string]string{"TERM": "dumb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := coloured(func(key string) string { return c.env[key] }); got != c.want {
				t.Errorf("coloured = %t, want %t", got, c.want)
			}
		})
	}
	var pipe bytes.Buffer
	a := &app{Options: Options{Out: &pipe}.withDefaults()}
	if p := a.page(); p.Color || p.Width != 0 {
		t.Errorf("a pipe gets colour %t and lines folded at %d", p.Color, p.Width)
	}
}
