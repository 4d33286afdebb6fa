package podresources

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func one() Holding {
	return Holding{Namespace: "ml", Pod: "train-0", Container: "main", Resource: "nvidia.com/gpu", ID: "GPU-1"}
}

func encoded(t testing.TB, holdings []Holding, err error) []byte {
	t.Helper()
	data, e := Encode(holdings, err)
	if e != nil {
		t.Fatal(e)
	}
	return data
}

// runner is a machine whose helper does what the test says.
type runner struct {
	ran   machine.Ran
	err   error
	asked machine.Program
}

func (r *runner) RunProgram(_ context.Context, p machine.Program) (machine.Ran, error) {
	r.asked = p
	return r.ran, r.err
}

func (r *runner) FindProgram(context.Context, machine.Program) error { return nil }

func TestHelper(t *testing.T) {
	odd := one()
	odd.Pod = "a\nb"
	for name, tc := range map[string]struct {
		ran  machine.Ran
		err  error
		want string // part of the error; empty for the one holding
	}{
		"what the kubelet said":         {ran: machine.Ran{Stdout: encoded(t, []Holding{one()}, nil)}},
		"why the kubelet said nothing":  {ran: machine.Ran{Stdout: encoded(t, []Holding{one()}, errors.New("no kubelet socket /x"))}, want: "no kubelet socket /x"},
		"a helper that is not there":    {err: errors.New("starting: no such file"), want: "asking the kubelet: starting: no such file"},
		"a helper that hangs":           {ran: machine.Ran{TimedOut: true, Exit: -1}, want: "gave no answer within 5s"},
		"a helper that fails":           {ran: machine.Ran{Exit: 1, State: "exit status 1", Stderr: []byte("boom\nat 1")}, want: "exit status 1: boom at 1"},
		"a helper that says nothing":    {want: "EOF"},
		"a helper that says half":       {ran: machine.Ran{Stdout: encoded(t, []Holding{one()}, nil)[:40]}, want: "unexpected EOF"},
		"a helper of another release":   {ran: machine.Ran{Stdout: []byte(`{"version":2}`)}, want: "install both from one release"},
		"more than is believed":         {ran: machine.Ran{Stdout: encoded(t, make([]Holding, MaxHoldings+1), nil)}, want: "at most 2048"},
		"a name that is no name":        {ran: machine.Ran{Stdout: encoded(t, []Holding{odd}, nil)}, want: "a pod is no text"},
		"a holding without a namespace": {ran: machine.Ran{Stdout: encoded(t, []Holding{{Pod: "p", Resource: "r", ID: "i"}}, nil)}, want: "a namespace is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &runner{ran: tc.ran, err: tc.err}
			got, err := Helper{Programs: r, Path: "/h", Socket: "/s"}.Holdings(t.Context())
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || got != nil {
					t.Errorf("%v, %v; want %q", got, err, tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Holding{one()}, got); diff != "" {
				t.Error(diff)
			}
			if r.asked.Timeout != DefaultTimeout || strings.Join(r.asked.Args, " ") != "-socket /s -timeout 4s" {
				t.Errorf("%+v", r.asked)
			}
		})
	}
}

// The helper gives up before it is killed, so that it can say why.
func TestTheHelperGivesUpSooner(t *testing.T) {
	r := &runner{}
	_, _ = Helper{Programs: r, Timeout: time.Second}.Holdings(t.Context())
	if r.asked.Args[3] != "800ms" {
		t.Errorf("%v", r.asked.Args)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"version":1,"holdings":[{"namespace":"a","pod":"b","resource":"c","id":"d"}]}`))
	f.Add([]byte(`{"version":1,"error":"x"}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		holdings, err := Decode(data)
		if err != nil && holdings != nil {
			t.Error("an error with an answer")
		}
		for _, h := range holdings {
			if h.Check() != nil {
				t.Errorf("%+v was believed", h)
			}
		}
		if err == nil {
			again, err := Decode(encoded(t, holdings, nil))
			if err != nil || len(again) != len(holdings) {
				t.Errorf("%v, %v", again, err)
			}
		}
	})
}

func FuzzShortID(f *testing.F) {
	f.Add("GPU-1::0")
	f.Add("a\x00b")
	f.Add("\xff")
	f.Fuzz(func(t *testing.T, id string) {
		h := one()
		if h.ID = ShortID(id); h.Check() != nil {
			t.Errorf("%q became %q", id, h.ID)
		}
	})
}
