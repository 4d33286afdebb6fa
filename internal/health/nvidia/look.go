package nvidia

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// look is what a check judges: an answer of NVML and what belongs to it.
type look struct {
	machine.NVMLReport
	// err is why the report is not whole.
	err error
	// bus are the NVIDIA GPUs on the PCI bus.
	bus    []machine.PCIDevice
	busErr error
	// nothing says that there is no GPU here that NVIDIA's driver could hold.
	nothing bool
	at      time.Time
	// load names the load of the driver that counters began with.
	load string
}

// gap is why a check cannot look, or not at everything; no reason is no gap.
type gap struct{ reason, why string }

// gap is the same for every check that needs a working driver.
func (l *look) gap() gap {
	switch {
	case l.nothing:
		return gap{}
	case errors.Is(l.err, machine.ErrNoNVML):
		return gap{ReasonNoLibrary, l.err.Error()}
	case errors.Is(l.err, machine.ErrNVMLCrashed):
		return gap{ReasonHelperCrashed, l.err.Error()}
	case l.err != nil:
		return gap{health.ReasonOf(l.err), l.err.Error()}
	case l.Init == initNotLoaded || l.Init == initMismatch:
		return gap{ReasonDriverNotLoaded, "NVML does not initialise: " + l.Init}
	case l.Init != "":
		return gap{health.ReasonCannotRead, "NVML does not initialise: " + l.Init}
	case l.uncounted() != "":
		return gap{health.ReasonCannotRead, "NVML does not count its GPUs: " + l.uncounted()}
	case len(l.GPUs) < l.Count:
		return gap{health.ReasonCannotRead, fmt.Sprintf("NVML counts %d GPUs and %d were told of", l.Count, len(l.GPUs))}
	}
	return gap{}
}

// uncounted is why the GPUs were not counted; then there being none says nothing.
func (l *look) uncounted() string {
	for name, err := range l.Unread {
		if strings.Contains(strings.ToLower(name), "count") {
			return err
		}
	}
	return ""
}

// whole says that everything that NVML has to tell was asked.
func (l *look) whole() bool { return !l.nothing && l.gap() == gap{} }

// nameFrom gives GPUs without an address the one that their index had.
func (l *look) nameFrom(addresses []string) {
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.Address == "" && g.Index >= 0 && g.Index < len(addresses) && !l.told(addresses[g.Index]) {
			g.Address = addresses[g.Index]
		}
	}
}

// told says whether a GPU of the report has the address.
func (l *look) told(address string) bool {
	return slices.ContainsFunc(l.GPUs, func(g machine.NVMLGPU) bool { return g.Address == address })
}

// nameFromBus gives GPUs without an address those that are left over on the bus, where that leaves no choice: as many of
// each, and all in the same state, so that it does not matter which is which.
func (l *look) nameFromBus() {
	var left []string
	for _, d := range l.bus {
		if d.Driver == boundNVIDIA && !l.told(d.Address) {
			left = append(left, d.Address)
		}
	}
	var nameless []*machine.NVMLGPU
	for i := range l.GPUs {
		if g := &l.GPUs[i]; g.Address == "" {
			nameless = append(nameless, g)
		}
	}
	if l.busErr != nil || len(l.GPUs) < l.Count || len(left) != len(nameless) {
		return
	}
	for _, g := range nameless {
		if g.Lost != nameless[0].Lost || g.Handle != nameless[0].Handle {
			return
		}
	}
	for i, g := range nameless {
		g.Address = left[i]
	}
}

// place is what a fault of the GPU is tracked under.
func place(g *machine.NVMLGPU) string {
	if g.Address != "" {
		return g.Address
	}
	return fmt.Sprintf("index %d", g.Index)
}

// identity is what the GPU's counters are kept under: another UUID in a place is another GPU.
func identity(g *machine.NVMLGPU) string {
	if g.UUID != "" {
		return g.UUID
	}
	return place(g)
}

// Names of errors of NVML (nvmlReturn_t of nvml.h, without its prefix).
const (
	initNotLoaded = "DRIVER_NOT_LOADED"
	initMismatch  = "LIB_RM_VERSION_MISMATCH"

	errLost          = "GPU_IS_LOST"
	errResetRequired = "RESET_REQUIRED"
)

// normal are the errors of a GPU or driver that has no such thing. An older driver calls a field that it does not know an
// invalid argument.
var normal = []string{"NOT_SUPPORTED", "FUNCTION_NOT_FOUND", "INVALID_ARGUMENT", "VGPU_ECC_NOT_SUPPORTED", "DEPRECATED"}

// unread is why a GPU's value could not be read: the worst error of the calls whose names have one of the words in them.
// not ok means that the report does not say.
func unread(g *machine.NVMLGPU, words ...string) (call, err string, ok bool) {
	if g.Handle != "" {
		return "opening it", g.Handle, true
	}
	for name, e := range g.Unread {
		mine := slices.ContainsFunc(words, func(w string) bool {
			return strings.Contains(strings.ToLower(name), strings.ToLower(w))
		})
		if !mine {
			continue
		}
		worse := !slices.Contains(normal, e) && (slices.Contains(normal, err) || name < call)
		if !ok || worse || slices.Contains(normal, err) && slices.Contains(normal, e) && name < call {
			call, err, ok = name, e, true
		}
	}
	return call, err, ok
}

// hasNo says that the report itself says that the GPU has no such thing, which is more than that it says nothing.
func hasNo(g *machine.NVMLGPU, word string) bool {
	_, err, told := unread(g, word)
	return told && slices.Contains(normal, err)
}

// underLoad says that the report shows the GPU working hard.
func underLoad(g *machine.NVMLGPU) bool {
	c := g.Clocks
	return c != nil && c.Utilization != nil && c.PState != nil && *c.Utilization >= busyPercent && *c.PState == 0
}

// is says that a flag was read and is set.
func is(b *bool) bool { return b != nil && *b }

// split says that MIG may have split the GPU: it has, or nobody knows.
func split(g *machine.NVMLGPU) bool { return is(g.MIG) || g.MIG == nil && !hasNo(g, "MigMode") }

// peers are the other GPUs of the model that are not split up by MIG.
func (l *look) peers(of *machine.NVMLGPU) []*machine.NVMLGPU {
	var out []*machine.NVMLGPU
	for i := range l.GPUs {
		if g := &l.GPUs[i]; g.Index != of.Index && g.Model == of.Model && g.Model != "" && !is(g.MIG) {
			out = append(out, g)
		}
	}
	return out
}
