package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

func TestRun(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // part of what is printed, or of the error
		fail bool
	}{
		"a socket that is not there is an answer": {args: []string{"-socket=" + t.TempDir() + "/s"}, want: "no kubelet socket"},
		"the version":          {args: []string{"-version"}, want: "roundhouse-podresources unknown"},
		"an argument too many": {args: []string{"x"}, want: `unexpected argument "x"`, fail: true},
		"no time at all":       {args: []string{"-timeout=0s"}, want: "-timeout 0s", fail: true},
		"too much time":        {args: []string{"-timeout=1h"}, want: "at most 1m", fail: true},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(t.Context(), tc.args, &out, &out)
			text := out.String()
			if err != nil {
				text += err.Error()
			}
			if (err != nil) != tc.fail || !strings.Contains(text, tc.want) {
				t.Errorf("%v; %s", err, out.String())
			}
		})
	}
}

func TestTheAgentUnderstandsTheAnswer(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-socket=" + t.TempDir() + "/s"}, &out, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := podresources.Decode(out.Bytes()); err == nil || !strings.HasPrefix(err.Error(), "no kubelet socket") {
		t.Error(err)
	}
}
