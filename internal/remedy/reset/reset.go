// Package reset carries out the action ResetDevice. It looks for everything that speaks against it first, and refuses
// while it has touched nothing; each device is then reset in one way, once, and has to answer after it. Devices that can only
// be reset together are, by one command, or not at all. A way that failed
// is not followed by another: what a driver left half done is for the next rung. docs/actions/reset-device.md says which
// way is taken for which device.
package reset

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

const (
	// lookTimeout bounds one look at the machine.
	lookTimeout = 30 * time.Second
	// deviceTimeout bounds the reset of one device, or of several by one command.
	deviceTimeout = 4 * time.Minute
	// answerTimeout is how long a device may take to answer after its reset.
	answerTimeout = 30 * time.Second
	// maxNamed bounds how many holders a refusal names; the message is bounded too.
	maxNamed = 6
)

// Machine is what a reset needs of the machine.
type Machine interface {
	machine.DeviceResetter
	// BootID is the kernel's boot ID.
	BootID(ctx context.Context) (string, error)
	// PCIDevices lists the devices on the bus.
	PCIDevices(ctx context.Context, want func(machine.PCIID) bool) ([]machine.PCIDevice, error)
}

// Locate finds devices by their IDs on the bus as it is now, in the order of the IDs. One that is not found, or not for
// certain, is an error.
type Locate func(ctx context.Context, ids []string) ([]machine.PCIDevice, error)

// Together are names that are the same for devices that can only be reset together, by PCI address. A device that is not
// listed can be reset alone.
type Together func() map[string]string

// Executor resets devices of one machine.
type Executor struct {
	machine  Machine
	locate   Locate
	together Together
	now      func() time.Time
	poll     time.Duration
}

// New returns the executor for the machine. Without together every device is taken to be one that can be reset alone.
func New(m Machine, locate Locate, together Together) *Executor {
	if together == nil {
		together = func() map[string]string { return nil }
	}
	return &Executor{machine: m, locate: locate, together: together, now: time.Now, poll: 200 * time.Millisecond}
}

// target is one device to reset.
type target struct {
	id     string
	device machine.PCIDevice
	way    machine.ResetWay
}

func (t target) String() string { return t.id + " at " + t.device.Address }

// group is what one command resets: a device, or several that can only be reset together.
type group []target

func (g group) String() string {
	names := make([]string, len(g))
	for i, t := range g {
		names[i] = t.String()
	}
	return strings.Join(names, " and ")
}

func (g group) addresses() []string {
	out := make([]string, len(g))
	for i, t := range g {
		out[i] = t.device.Address
	}
	return out
}

// Do resets the devices that the action names, one after the other, or together where they cannot be reset alone.
func (e *Executor) Do(ctx context.Context, action v1alpha1.Action) (remedy.Report, error) {
	if err := e.checkBoot(ctx, action.BootID); err != nil {
		return remedy.Report{}, err
	}
	targets, err := e.find(ctx, action.Devices)
	if err != nil {
		return remedy.Report{}, err
	}
	groups, err := e.group(targets)
	if err != nil {
		return remedy.Report{}, err
	}
	resume, err := e.quiesce(ctx)
	if err != nil {
		return remedy.Report{}, remedy.Refuse(remedy.ReasonCannotSeeHolders, "%v", err)
	}
	defer resume()
	if err := e.checkFree(ctx, targets); err != nil {
		return remedy.Report{}, err
	}
	return e.resetAll(ctx, groups)
}

// checkBoot refuses in another boot than the action was decided on.
func (e *Executor) checkBoot(ctx context.Context, want string) error {
	id, err := e.machine.BootID(ctx)
	if err != nil {
		return remedy.Refuse(v1alpha1.ActionReasonOtherBoot, "the boot cannot be read: %v", err)
	}
	if id != want {
		return remedy.Refuse(v1alpha1.ActionReasonOtherBoot, "decided on boot %s; this is boot %s", want, id)
	}
	return nil
}

// find finds the devices, and a way to reset each.
func (e *Executor) find(ctx context.Context, ids []string) ([]target, error) {
	if len(ids) == 0 {
		return nil, remedy.Refuse(remedy.ReasonNoDevices, "spec.action.devices is empty: name the devices to reset")
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	devices, err := e.locate(ctx, ids)
	if err != nil {
		return nil, remedy.Refuse(remedy.ReasonUnknownDevice, "%v", err)
	}
	targets := make([]target, len(ids))
	for i, d := range devices {
		t := target{id: ids[i], device: d}
		if strings.HasPrefix(d.Driver, "vfio") {
			return nil, remedy.Refuse(remedy.ReasonPassedThrough,
				"%s is bound to %s and belongs to a virtual machine: stop that machine, which resets the device itself", t, d.Driver)
		}
		if t.way, err = e.way(ctx, d); err != nil {
			return nil, remedy.Refuse(remedy.ReasonNoResetWay, "%s: %v", t, err)
		}
		targets[i] = t
	}
	return targets, nil
}

// group puts together what can only be reset together, in the order of the targets. It refuses where the action names some of
// what hangs together and not the rest: that may be at work.
func (e *Executor) group(targets []target) ([]group, error) {
	domains := e.together()
	at := map[string]int{}
	var groups []group
	for _, t := range targets {
		domain := domains[t.device.Address]
		if i, ok := at[domain]; ok && domain != "" {
			if groups[i][0].way != machine.ResetByNVIDIA || t.way != machine.ResetByNVIDIA {
				return nil, remedy.Refuse(remedy.ReasonNoResetWay, "%s and %s can only be reset together, and no way does both", groups[i], t)
			}
			groups[i] = append(groups[i], t)
			continue
		}
		at[domain] = len(groups)
		groups = append(groups, group{t})
	}
	for _, g := range groups {
		if missing := lacking(g, domains); len(missing) > 0 {
			return nil, remedy.Refuse(remedy.ReasonResetDomain,
				"%s can only be reset together with %s, which spec.action.devices does not name", g, strings.Join(missing, ", "))
		}
	}
	return groups, nil
}

// lacking are the addresses of what hangs together with a group and is not in it.
func lacking(g group, domains map[string]string) []string {
	domain := domains[g[0].device.Address]
	if domain == "" {
		return nil
	}
	var missing []string
	in := g.addresses()
	for address, other := range domains {
		if other == domain && !slices.Contains(in, address) {
			missing = append(missing, address)
		}
	}
	slices.Sort(missing)
	return missing
}

// way is the first way that there is for the device.
func (e *Executor) way(ctx context.Context, d machine.PCIDevice) (machine.ResetWay, error) {
	var why []string
	for _, way := range ways(d.Driver) {
		err := e.machine.CanReset(ctx, d.Address, way)
		if err == nil {
			return way, nil
		}
		why = append(why, fmt.Sprintf("%s: %v", way, err))
	}
	return "", errors.New(strings.Join(why, "; "))
}

// ways are the ways for devices of a driver, the best first. NVIDIA's driver must do it itself: when it is taken off a
// GPU that something still holds, it waits in the kernel until the next boot.
func ways(driver string) []machine.ResetWay {
	if driver == "nvidia" {
		return []machine.ResetWay{machine.ResetByNVIDIA}
	}
	return []machine.ResetWay{machine.ResetByFunction, machine.ResetByRescan}
}

func (e *Executor) quiesce(ctx context.Context) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return e.machine.Quiesce(ctx)
}

// checkFree refuses while anything holds one of the devices, and names it. What cannot be known is refused too.
func (e *Executor) checkFree(ctx context.Context, targets []target) error {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	holders, err := e.machine.Holders(ctx, group(targets).addresses())
	if err != nil {
		return remedy.Refuse(remedy.ReasonCannotSeeHolders, "%v", err)
	}
	for _, t := range targets {
		if text := inTheWay(t, holders); text != "" {
			return remedy.Refuse(remedy.ReasonDeviceInUse, "%s is held by %s", t, text)
		}
	}
	return nil
}

// inTheWay names all who hold a device; empty where nobody is in the way. The persistence daemon alone is not in the way of
// nvidia-smi, which has it let go.
func inTheWay(t target, holders []machine.Holder) string {
	var names []string
	blocked := false
	for _, h := range holders {
		if h.Address != t.device.Address {
			continue
		}
		names = append(names, h.String())
		blocked = blocked || h.Kind != machine.HolderPersistence || t.way != machine.ResetByNVIDIA
	}
	if !blocked {
		return ""
	}
	if n := len(names); n > maxNamed {
		names = append(names[:maxNamed], fmt.Sprintf("%d more", n-maxNamed))
	}
	return strings.Join(names, ", ")
}

// resetAll resets the devices. From here on what goes wrong is a failure, unless nothing has been touched yet.
func (e *Executor) resetAll(ctx context.Context, groups []group) (remedy.Report, error) {
	var report remedy.Report
	var done []string
	for i, g := range groups {
		if i > 0 {
			// The first were looked at just now; these have waited.
			if err := e.checkFree(ctx, slices.Concat(groups[i:]...)); err != nil {
				return report, failed(done, err)
			}
		}
		said, err := e.reset(ctx, g)
		if err != nil {
			return report, failed(done, fmt.Errorf("resetting %s by %s: %w", g, g[0].way, err))
		}
		done = append(done, said)
		report.Reset = append(report.Reset, g.addresses()...)
	}
	report.Message = strings.Join(done, "; ")
	return report, nil
}

// failed says what had been done before it went wrong. A refusal after something was done is none.
func failed(done []string, err error) error {
	if len(done) == 0 {
		return err
	}
	return errors.New(err.Error() + "; done before: " + strings.Join(done, "; "))
}

// reset resets a group and proves that all of it is back.
func (e *Executor) reset(ctx context.Context, g group) (string, error) {
	began := e.now()
	resetCtx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	said, err := e.machine.ResetDevices(resetCtx, g.addresses(), g[0].way)
	if err != nil {
		return "", err
	}
	for _, t := range g {
		if err := e.answers(ctx, t); err != nil {
			if len(g) > 1 {
				err = fmt.Errorf("%s: %w", t, err)
			}
			return "", fmt.Errorf("%s; %w", said, err)
		}
	}
	verb := "answers"
	if len(g) > 1 {
		verb = "they answer"
	}
	return fmt.Sprintf("%s reset by %s in %s, and %s: %s", g, g[0].way, e.now().Sub(began).Round(100*time.Millisecond), verb, said), nil
}

// answers waits until the device is on the bus, answers, and has its driver.
func (e *Executor) answers(ctx context.Context, t target) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	tick := time.NewTicker(e.poll)
	defer tick.Stop()
	for {
		wrong := e.wrong(ctx, t)
		if wrong == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %s: %w", answerTimeout, wrong)
		}
	}
}

// wrong says what is not as it was before the reset.
func (e *Executor) wrong(ctx context.Context, t target) error {
	devices, err := e.machine.PCIDevices(ctx, func(id machine.PCIID) bool {
		return id.Vendor == t.device.Vendor && id.Device == t.device.PCIID.Device
	})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(devices, func(d machine.PCIDevice) bool { return d.Address == t.device.Address })
	switch {
	case i < 0:
		return errors.New("it is not on the bus")
	case devices[i].Config == machine.ConfigAllOnes:
		return errors.New("it does not answer: its configuration space reads all ones")
	case devices[i].Config != machine.ConfigAnswers && !devices[i].Suspended:
		return errors.New("its configuration space cannot be read: " + devices[i].Unread)
	case devices[i].Driver != t.device.Driver:
		return fmt.Errorf("driver %s does not have it: bound to %q", t.device.Driver, devices[i].Driver)
	}
	return nil
}
