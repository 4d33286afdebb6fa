package program_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/internal/program"
)

func TestParse(t *testing.T) {
	for name, tc := range map[string]struct {
		args        []string
		done        bool
		out, stderr string
		fails       string
	}{
		"flags":                     {args: []string{"-n=3"}},
		"the version":               {args: []string{"-version", "-n=3"}, done: true, out: "ask v9\n"},
		"the version, and too much": {args: []string{"-version", "x"}, done: true, out: "ask v9\n"},
		"an argument":               {args: []string{"-n=3", "x"}, fails: `unexpected argument "x"`},
		"a flag that there is not":  {args: []string{"-m"}, fails: "-m", stderr: "-version"},
		"help":                      {args: []string{"-h"}, fails: flag.ErrHelp.Error(), stderr: "print the version and exit"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, stderr bytes.Buffer
			set := program.Flags("ask", &stderr)
			set.Int("n", 0, "how many")
			done, err := program.Parse(set, "v9", tc.args, &out)
			if done != tc.done || out.String() != tc.out || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("done %t, said %q and %q", done, out.String(), stderr.String())
			}
			if (err == nil) != (tc.fails == "") || err != nil && !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("got %v, want %q", err, tc.fails)
			}
		})
	}
}

func TestAVersionThatCannotBePrinted(t *testing.T) {
	closed, writer := io.Pipe()
	_ = closed.Close()
	if done, err := program.Parse(program.Flags("ask", io.Discard), "v9", []string{"-version"}, writer); !done || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("done %t, %v", done, err)
	}
}
