package fake

import (
	"fmt"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// H200s are n GPUs of one node, in slots 0 to n-1, at the addresses an eight-GPU board has them. seed makes the UUIDs
// differ between nodes.
func H200s(n int, seed uint32) []Device {
	devices := make([]Device, n)
	for i := range devices {
		address := fmt.Sprintf("0000:%02x:00.0", 0x18+i*0x10)
		if i >= 14 {
			address = fmt.Sprintf("0001:%02x:00.0", 0x18+(i-14)*0x10)
		}
		full := machine.Link{Width: 16, MaxWidth: 16, MTs: 32000, MaxMTs: 32000}
		devices[i] = Device{
			PCIDevice: machine.PCIDevice{
				PCIID: machine.PCIID{
					Vendor: 0x10de, Device: 0x2335, SubVendor: 0x10de, SubDevice: 0x18be, Class: 0x030200, Driver: "nvidia",
				},
				Address: address, DriverVersion: "595.45", Slot: fmt.Sprint(i),
				Link: full, ParentLink: full, Config: machine.ConfigAnswers, Power: "D0",
			},
			Model: "NVIDIA H200", UUID: fmt.Sprintf("GPU-%08x-0000-4000-8000-%012x", seed, i), VideoBIOS: "96.00.BC.00.01",
		}
	}
	return devices
}
