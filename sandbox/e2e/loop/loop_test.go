package loop

import (
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestTheLoopCloses(t *testing.T) {
	for name, o := range map[string]rigOptions{
		"by device taint rule":                {dra: true},
		"by node taint, with a device plugin": {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			c := r.startController()
			r.healthy()
			r.fault(1)
			rem := r.waitFor("the end", over)
			if rem.Status.Phase != v1alpha1.PhaseSucceeded {
				t.Errorf("%s", r.describe(rem))
			}
			r.expectReboots(1)
			r.clean()
			t.Log(r.describe(rem))
			for _, w := range c.gate.made() {
				t.Log(w)
			}
		})
	}
}
