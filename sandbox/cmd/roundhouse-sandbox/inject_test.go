package main

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

func TestWhatIsToBeInjectedIsReadFromTheCommandLine(t *testing.T) {
	tests := map[string]struct {
		line string
		want fleet.Injection
	}{
		"a fault of a node": {
			"agent-dead gpu-01", fleet.Injection{Fault: "agent-dead", Node: "gpu-01", RelapseAfter: time.Second},
		},
		"a fault of a device": {
			"xid79 gpu-01 3", fleet.Injection{Fault: "xid79", Node: "gpu-01", Device: 3, RelapseAfter: time.Second},
		},
		"flags before and behind the words": {
			"--relapses 2 xid79 gpu-01 3 --heals-after -1",
			fleet.Injection{Fault: "xid79", Node: "gpu-01", Device: 3, Relapses: 2, HealsAfter: fleet.Never, RelapseAfter: time.Second},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, _, err := injection(strings.Fields(tc.line), &bytes.Buffer{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("injection (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnInjectionThatCannotBeReadIsRefused(t *testing.T) {
	for name, line := range map[string]string{
		"nothing":                        "",
		"a fault without a node":         "xid79",
		"a device that is no number":     "xid79 gpu-01 first",
		"more words than there can be":   "xid79 gpu-01 3 4",
		"a flag that there is not":       "--never xid79 gpu-01",
		"a flag whose value is no value": "xid79 gpu-01 --count many",
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := injection(strings.Fields(line), &bytes.Buffer{}); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestHelpNamesEveryFault(t *testing.T) {
	var out bytes.Buffer
	if _, _, err := injection([]string{"--help"}, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatalf("error %v", err)
	}
	for _, kind := range fleet.Faults() {
		if !strings.Contains(out.String(), kind.Name) {
			t.Errorf("help does not name %s:\n%s", kind.Name, out.String())
		}
	}
}
