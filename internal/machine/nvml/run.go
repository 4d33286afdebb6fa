//go:build cgo && linux

package nvml

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Run loads the library, asks it everything once and writes what it says. An error is about the writing: what is wrong
// with the library, or with a GPU, is in what is written. Nothing is shut down at the end: the process ends, and with it
// whatever the library holds open, without one more call to hang in.
func Run(o Options, out *machine.NVMLEncoder) error {
	began := time.Now()
	s := &session{notes: o.Note}
	s.about("dlopen", -1)
	lib, err := load(o.Root)
	var end machine.NVMLEnd
	switch {
	case errors.Is(err, errMissing):
		end.Missing = fmt.Sprintf("neither in %s nor in %s", o.Root, filepath.Join(o.Root, driverRoot))
	case err != nil:
		end.Failed = err.Error()
	default:
		s.lib, s.lookup = nvml.New(nvml.WithLibraryPath(lib.name)), lib.Lookup
		if err := s.run(lib.path, out); err != nil {
			return err
		}
	}
	end.Took = time.Since(began).Milliseconds()
	return out.End(end)
}

func (s *session) run(path string, out *machine.NVMLEncoder) error {
	report := machine.NVMLReport{Library: path}
	a := &asker{session: s, gpu: -1}
	if !a.ask("nvmlInit", s.lib.Init) {
		// Any other call would now be through pointers that the library has not set.
		report.Init = a.unread["nvmlInit"]
		return out.Machine(report)
	}
	report.Driver = text(a, "nvmlSystemGetDriverVersion", s.lib.SystemGetDriverVersion)
	report.NVML = text(a, "nvmlSystemGetNVMLVersion", s.lib.SystemGetNVMLVersion)
	if count := number[uint32](a, "nvmlDeviceGetCount", s.lib.DeviceGetCount); count != nil {
		report.Count = int(*count)
	}
	report.Unread = a.unread
	if err := out.Machine(report); err != nil {
		return err
	}
	for i := range min(report.Count, machine.MaxNVMLGPUs) {
		if err := s.gpu(i, out); err != nil {
			return err
		}
	}
	return nil
}

// gpu writes one GPU: who it is as soon as that is known, so that a call that hangs later can be told of a GPU and not
// only of a number, and then everything.
func (s *session) gpu(index int, out *machine.NVMLEncoder) error {
	a := &asker{session: s, gpu: index}
	g := machine.NVMLGPU{Index: index}
	const open = "nvmlDeviceGetHandleByIndex"
	if !a.ask(open, func() (ret nvml.Return) { a.device, ret = s.lib.DeviceGetHandleByIndex(index); return ret }) {
		g.Handle, g.Lost = a.unread[open], a.lost
		return out.GPU(g)
	}
	a.identity(&g)
	if err := out.GPU(a.done(&g)); err != nil {
		return err
	}
	a.health(&g)
	return out.GPU(a.done(&g))
}

// done is the GPU with what could not be read of it.
func (a *asker) done(g *machine.NVMLGPU) machine.NVMLGPU {
	g.Lost, g.Unread = a.lost, a.unread
	return *g
}
