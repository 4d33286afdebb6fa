// Package health is the frame of the health checks. A check looks at facts and says what it found; it owns no schedule, no
// time-out and no repair. Those are the runner's, which is package agent, and the controller's.
//
// Three rules hold for every check. "Could not look" is an outcome of its own: Unknown is neither healthy nor broken. A
// check states its whole opinion at every look, so that nobody has to add up deltas. And what a finding recommends comes
// from its catalogue or from the driver's own words, never from the check's judgement of what the cluster can bear.
package health

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Outcome is what came of one look.
type Outcome string

// The outcomes. The last two are the results a NodeHealth lists.
const (
	// Passing means that the check looked and that nothing Critical or Warning stands.
	Passing Outcome = "Passing"
	// Failing means that at least one finding of severity Critical or Warning stands.
	Failing Outcome = "Failing"
	// Unknown means that the check could not look, or not at everything.
	Unknown Outcome = "Unknown"
)

// Reasons of Unknown that every check may give. Each check documents its own beside these.
const (
	// ReasonCannotRead means that a read failed; Message has the error.
	ReasonCannotRead = "CannotRead"
	// ReasonTimedOut means that a read did not come back in time.
	ReasonTimedOut = "TimedOut"
	// ReasonPanicked means that the check itself broke; only the runner says so.
	ReasonPanicked = "Panicked"
)

// Check is one thing that is looked at.
type Check interface {
	// Name is the check's name in NodeHealth, such as kernel-log.
	Name() string
	// Look looks once. It must honour the context's deadline, and is never called twice at the same time.
	Look(ctx context.Context) Result
}

// Waiter is a check that knows when it is worth looking again before its next turn. Between looks the runner calls Wait
// and looks as soon as it returns nil; this is how a kernel line becomes a fault in milliseconds. Wait may also use the
// pause for what is not urgent, such as saving state.
type Waiter interface {
	Check
	// Wait returns nil when there may be something new, or the context's error when the time is up.
	Wait(ctx context.Context) error
}

// Resetter is a check that must be told when a device was reset, because what it found is then over and no look could
// tell.
type Resetter interface {
	// DeviceReset drops what a reset of the device at the PCI address clears.
	DeviceReset(ctx context.Context, pci string) error
}

// Result is a check's whole opinion after one look.
type Result struct {
	Outcome Outcome
	// Reason is a documented CamelCase word; set when the outcome is Unknown.
	Reason string
	// Message says in a sentence what could not be seen, or what else is worth knowing.
	Message string
	// Looked says in a few words what was looked at, such as "8 GPUs"; it is for people and is not published.
	Looked string
	// Findings are all that stand now, also what an Unknown look could not see again. What an earlier result had and
	// this one has not is cleared. Only when the runner itself gives up on a look does it keep the last findings.
	Findings []Finding
	// Devices are the accelerators known, where this check takes the inventory; nil elsewhere. Health is left for
	// WithHealth.
	Devices []v1alpha1.Device
	// Again, where above zero, asks for a look after that long rather than at the next turn.
	Again time.Duration
}

// ClearedBy says what ends a finding.
type ClearedBy string

// What can end a finding. All end with the machine's next boot, after which what still is wrong is found anew.
const (
	// ClearedByLook is for what has a level: it ends when a look no longer sees it.
	ClearedByLook ClearedBy = "Look"
	// ClearedByReset ends with a reset of the device, or when the driver itself says that no recovery is needed.
	ClearedByReset ClearedBy = "Reset"
	// ClearedByBoot ends with a new boot alone.
	ClearedByBoot ClearedBy = "Boot"
	// ClearedByQuiet ends when it has not been seen for a while; it is for what needs no repair.
	ClearedByQuiet ClearedBy = "Quiet"
)

// Finding is a fault with what only the node needs to know of it.
type Finding struct {
	// Fault is as it will be published. Fault.Device may be empty until Identify fills it.
	Fault v1alpha1.Fault `json:"fault"`
	// PCI is the address of the device it is on; empty for a fault of the whole node.
	PCI string `json:"pci,omitempty"`
	// ClearedBy says what ends it.
	ClearedBy ClearedBy `json:"clearedBy"`
}

// OutcomeOf is Failing when a finding of severity Critical or Warning stands, and Passing otherwise.
func OutcomeOf(findings []Finding) Outcome {
	for i := range findings {
		if findings[i].Fault.Severity != v1alpha1.SeverityInfo {
			return Failing
		}
	}
	return Passing
}

// Contained looks, and turns a panic of the check into its result.
func Contained(ctx context.Context, c Check) (r Result) {
	defer func() {
		if p := recover(); p != nil {
			r = Result{Outcome: Unknown, Reason: ReasonPanicked, Message: Bound(fmt.Sprint("the check itself broke: ", p), MaxMessage)}
		}
	}()
	return c.Look(ctx)
}

// ReasonOf is why a read gave nothing: TimedOut where it did not come back, CannotRead otherwise.
func ReasonOf(err error) string {
	if errors.Is(err, machine.ErrStuck) {
		return ReasonTimedOut
	}
	return ReasonCannotRead
}

// CouldNotLook is the result of a look that saw nothing; what stood before stands on.
func CouldNotLook(reason string, err error, standing []Finding) Result {
	return Result{Outcome: Unknown, Reason: reason, Message: Bound(err.Error(), MaxMessage), Findings: standing}
}
