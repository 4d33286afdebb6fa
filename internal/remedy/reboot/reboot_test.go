package reboot_test

import (
	"context"
	"errors"
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
)

type machine struct {
	boot    string
	bootErr error
	err     error
	reboots int
}

func (m *machine) BootID(context.Context) (string, error) { return m.boot, m.bootErr }
func (m *machine) Reboot(context.Context) error           { m.reboots++; return m.err }

func TestDo(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct {
		machine machine
		want    error
		reboots int
	}{
		"reboots in the boot it was decided on":      {machine: machine{boot: "a"}, reboots: 1},
		"does nothing in another boot":               {machine: machine{boot: "b"}, want: reboot.ErrOtherBoot},
		"does nothing when the boot cannot be read":  {machine: machine{boot: "a", bootErr: broken}, want: broken},
		"says why when no reboot came of the asking": {machine: machine{boot: "a", err: broken}, want: broken, reboots: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := reboot.New(&tt.machine).Do(t.Context(), v1alpha1.Action{ID: "x", BootID: "a"})
			if !errors.Is(err, tt.want) {
				t.Errorf("got error %v, want %v", err, tt.want)
			}
			if tt.machine.reboots != tt.reboots {
				t.Errorf("got %d reboots, want %d", tt.machine.reboots, tt.reboots)
			}
		})
	}
}
