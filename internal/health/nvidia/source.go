package nvidia

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const (
	vendorNVIDIA = 0x10de
	// boundNVIDIA is the name of NVIDIA's kernel driver in sysfs.
	boundNVIDIA = "nvidia"
	// busTimeout bounds the reading of the bus within a question.
	busTimeout = 2 * time.Second
	// maxGPUs bounds what is judged; machine.NVMLReport is bounded too.
	maxGPUs = 64
	// busyPercent of utilization in performance state 0 is load under which a link runs at full speed; an idle GPU lowers
	// it.
	busyPercent = 50
)

// Source asks NVML once for all checks of a round. It is safe for concurrent use.
type Source struct {
	o Options

	mu sync.Mutex
	// asking is closed when the question that is out is answered; nil when none is.
	asking chan struct{}
	last   *look
	// hurried says that a check waits for the next answer, to see whether what it saw lasts.
	hurried bool
	// loads counts the loads of the driver that were noticed; away is set while it is not there.
	loads  int
	driver string
	away   bool
	// hadGPUs is set once NVIDIA's driver could hold something here.
	hadGPUs bool
	// addresses are the PCI addresses by index, of the last report that had them all.
	addresses []string
	// parts are MIG devices, and the GPU that each is a part of.
	parts map[string]string
	// joins is what NVLink joins, by PCI address, and domains what follows from it.
	joins   map[string]joined
	domains atomic.Pointer[map[string]string]
}

// New returns a source. It asks nothing yet.
func New(o Options) *Source {
	if o.Age <= 0 {
		o.Age = defaultAge
	}
	if o.FailedAge <= 0 {
		o.FailedAge = defaultFailedAge
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Source{o: o}
}

// Report is the newest answer of NVML; nil where there is none.
func (s *Source) Report() *machine.NVMLReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || s.last.nothing || s.last.err != nil {
		return nil
	}
	return &s.last.NVMLReport
}

// look is the newest answer. It asks when that is too old, unless another check is asking already; then it waits.
func (s *Source) look(ctx context.Context) (*look, error) {
	for {
		s.mu.Lock()
		if l := s.last; l != nil && s.o.Now().Sub(l.at) < s.ageOf(l) {
			s.mu.Unlock()
			return l, nil
		}
		asking := s.asking
		if asking == nil {
			s.asking = make(chan struct{})
			s.mu.Unlock()
			return s.ask(ctx), nil
		}
		s.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for another check's question to NVML: %w: %w", machine.ErrStuck, context.Cause(ctx))
		}
	}
}

// failed says that the newest answer is none, or that of a driver that is not there.
func (s *Source) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last != nil && (s.last.err != nil || s.last.Init != "")
}

// forget makes the next look ask: what was answered before is no answer to what has been done since.
func (s *Source) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = nil
}

// hurry makes answers serve for no longer than a moment, until one has been asked for.
func (s *Source) hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurried = true
}

func (s *Source) ageOf(l *look) time.Duration {
	if s.hurried {
		return min(settleEvery, s.o.Age)
	}
	age := s.o.Age
	if l.err != nil || l.busErr != nil {
		age = s.o.FailedAge
	}
	return max(age, min(thrift*time.Duration(l.CPU)*time.Microsecond, maxAge))
}

// ask asks in the caller's time, and lets those who wait go on whatever happens.
func (s *Source) ask(ctx context.Context) *look {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.asking)
		s.asking = nil
	}()
	l := s.read(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takeLocked(l)
	s.last, s.hurried = l, false
	return l
}

// read reads the bus, and NVML unless the bus says that there is nothing NVIDIA's driver could hold: a process is not
// started for nothing, and a device passed through to a virtual machine is not its business.
func (s *Source) read(ctx context.Context) *look {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	l := &look{}
	l.bus, l.busErr = s.readBus(ctx)
	s.mu.Lock()
	had := s.hadGPUs
	s.mu.Unlock()
	if l.busErr == nil && !slices.ContainsFunc(l.bus, notPassedThrough) && (len(l.bus) > 0 || !had) {
		l.nothing = true
	} else {
		l.NVMLReport, l.err = s.o.Machine.NVML(ctx)
	}
	l.at = s.o.Now()
	return l
}

// readBus lists the NVIDIA GPUs on the bus.
func (s *Source) readBus(ctx context.Context) ([]machine.PCIDevice, error) {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	devices, err := s.o.Machine.PCIDevices(ctx, func(id machine.PCIID) bool {
		return id.Vendor == vendorNVIDIA && pci.IsAccelerator(id, nil)
	})
	return devices[:min(len(devices), maxGPUs)], err
}

// notPassedThrough says that a device is not held for a virtual machine: by vfio-pci, one of its variants (their names all
// have vfio in them), or pci-stub, which keeps others off.
func notPassedThrough(d machine.PCIDevice) bool {
	return !strings.Contains(d.Driver, "vfio") && d.Driver != "pci-stub"
}

// takeLocked completes an answer from what is known of earlier ones.
func (s *Source) takeLocked(l *look) {
	s.hadGPUs = s.hadGPUs || slices.ContainsFunc(l.bus, notPassedThrough)
	if errors.Is(l.err, machine.ErrNoNVML) && l.busErr == nil && len(l.bus) > 0 && !slices.ContainsFunc(l.bus, forNVIDIA) {
		// Another driver's devices, and no driver of NVIDIA's was ever installed.
		l.nothing, l.err = true, nil
	}
	l.GPUs = slices.Clone(l.GPUs[:min(len(l.GPUs), maxGPUs)])
	s.noticeLoadLocked(l)
	s.partsLocked(l)
	s.nameLocked(l)
	s.joinLocked(l)
}

// forNVIDIA says that NVIDIA's driver holds a device, or could.
func forNVIDIA(d machine.PCIDevice) bool { return d.Driver == boundNVIDIA || d.Driver == "" }

// noticeLoadLocked names the load of the driver by its version, and by how often it has come back. A load that falls
// between two looks is not seen here; then a counter that fell tells.
func (s *Source) noticeLoadLocked(l *look) {
	switch {
	case errors.Is(l.err, machine.ErrNoNVML) || l.Init != "":
		s.away = true
	case l.Driver != "":
		if s.driver != "" && s.away {
			s.loads++
		}
		s.driver, s.away = l.Driver, false
	}
	l.load = fmt.Sprintf("%s/%d", s.driver, s.loads)
}

// nameLocked finds the addresses of GPUs that did not open and so could not tell them: from an earlier report of the same
// load, else by what is left over on the bus.
func (s *Source) nameLocked(l *look) {
	whole := len(l.GPUs) > 0
	for i := range l.GPUs {
		whole = whole && l.GPUs[i].Address != ""
	}
	if whole {
		if len(l.GPUs) == l.Count {
			s.addresses = make([]string, len(l.GPUs))
			for i := range l.GPUs {
				s.addresses[i] = l.GPUs[i].Address
			}
		}
		return
	}
	if len(s.addresses) == l.Count {
		l.nameFrom(s.addresses)
	}
	l.nameFromBus()
}
