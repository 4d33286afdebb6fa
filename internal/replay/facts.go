package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// fact is one line of a fact stream: a time and exactly one of the others.
type fact struct {
	At    *time.Time           `json:"at"`
	Kmsg  *string              `json:"kmsg"`
	Boot  *string              `json:"boot"`
	PCI   *[]machine.PCIDevice `json:"pci"`
	NVML  *machine.NVMLReport  `json:"nvml"`
	Reset *string              `json:"reset"`
	Agent *string              `json:"agent"`
}

// maxDevices bounds the devices of one fact; a large host has about a thousand functions on its bus.
const maxDevices = 8192

// errOneOf is the error of a fact that is none, or several.
var errOneOf = errors.New(`want "at" and exactly one of "kmsg", "boot", "pci", "nvml", "reset" and "agent"`)

// parseFact reads one line of a fact stream.
func parseFact(b []byte) (parsed, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return parsed{what: aSkip}, nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f fact
	if err := d.Decode(&f); err != nil {
		return parsed{}, fmt.Errorf("reading a fact: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return parsed{}, errors.New("reading a fact: something follows it on its line; want one object a line")
	}
	if f.At == nil {
		return parsed{}, errOneOf
	}
	if err := sane(*f.At); err != nil {
		return parsed{}, fmt.Errorf("at: %w", err)
	}
	return f.parsed()
}

func (f *fact) parsed() (parsed, error) {
	given := 0
	for _, is := range []bool{f.Kmsg != nil, f.Boot != nil, f.PCI != nil, f.NVML != nil, f.Reset != nil, f.Agent != nil} {
		given += number(is)
	}
	if given != 1 {
		return parsed{}, errOneOf
	}
	at := f.At.UTC()
	p := parsed{what: aFact, wall: at, event: Event{At: at}}
	switch {
	case f.Kmsg != nil:
		rec, err := kernellog.ParseRecord([]byte(*f.Kmsg))
		if err != nil {
			return parsed{}, fmt.Errorf("kmsg: %w", errNotKmsg)
		}
		// The time of a fact is the one to go by.
		return parsed{
			what: aLine, wall: at, priority: rec.Priority, seq: rec.Seq + 1, fragment: rec.Fragment, text: rec.Text, escaped: true,
		}, nil
	case f.Boot != nil:
		return parsed{what: aBoot, wall: at, boot: clip(*f.Boot)}, nil
	case f.PCI != nil:
		return f.pci(p)
	case f.NVML != nil:
		p.event.Kind, p.event.Report = NVML, f.NVML
	case f.Reset != nil:
		address, err := machine.ParsePCIAddress(*f.Reset)
		if err != nil {
			return parsed{}, fmt.Errorf("reset: %w", err)
		}
		p.event.Kind, p.event.Address = Reset, address
	case *f.Agent == "stop":
		p.event.Kind = AgentStop
	case *f.Agent == "start":
		p.event.Kind = AgentStart
	default:
		return parsed{}, fmt.Errorf("agent: %q: want stop or start", clip(*f.Agent))
	}
	return p, nil
}

func (f *fact) pci(p parsed) (parsed, error) {
	devices := *f.PCI
	if len(devices) > maxDevices {
		return parsed{}, fmt.Errorf("pci: %d devices: want %d at most", len(devices), maxDevices)
	}
	for i := range devices {
		address, err := machine.ParsePCIAddress(devices[i].Address)
		if err != nil {
			return parsed{}, fmt.Errorf("pci[%d].Address: %w", i, err)
		}
		devices[i].Address = address
	}
	p.event.Kind, p.event.Devices = PCI, devices
	return p, nil
}
