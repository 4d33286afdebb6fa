// Package reboot carries out the action Reboot. It is idempotent by boot ID: an action names the boot it was decided on,
// and in any other boot there is nothing left to do.
package reboot

import (
	"context"
	"errors"
	"fmt"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// ErrOtherBoot means that the machine is no longer in the boot that the action was decided on.
var ErrOtherBoot = errors.New("the machine has started anew since the reboot was decided")

// Machine is what a reboot needs of the machine.
type Machine interface {
	// BootID is the kernel's boot ID.
	BootID(ctx context.Context) (string, error)
	// Reboot asks for a restart; on a real machine it returns only when none came.
	Reboot(ctx context.Context) error
}

// Executor reboots one machine.
type Executor struct {
	machine Machine
}

// New returns the executor for the machine.
func New(m Machine) *Executor { return &Executor{machine: m} }

// Do reboots the machine if it is still in the boot that the action names. This is the last of several guards, and the
// only one with nothing between itself and the act.
func (e *Executor) Do(ctx context.Context, action v1alpha1.Action) (remedy.Report, error) {
	id, err := e.machine.BootID(ctx)
	if err != nil {
		return remedy.Report{}, fmt.Errorf("checking the boot before a reboot: %w", err)
	}
	if id != action.BootID {
		return remedy.Report{}, fmt.Errorf("boot is %s, asked for %s: %w", id, action.BootID, ErrOtherBoot)
	}
	if err := e.machine.Reboot(ctx); err != nil {
		return remedy.Report{}, fmt.Errorf("rebooting: %w", err)
	}
	return remedy.Report{}, nil
}
