package machine

import (
	"fmt"
	"strconv"
	"strings"
)

// PortState is the logical state of an RDMA port (enum ib_port_state in include/rdma/ib_verbs.h).
type PortState uint8

// The states. A port of RDMA over Ethernet knows Down and Active only.
const (
	PortUnknown PortState = iota
	PortDown
	// PortInit is a link that is up and that no subnet manager has configured yet.
	PortInit
	PortArmed
	PortActive
	PortActiveDefer
)

// String is the state as sysfs writes it.
func (s PortState) String() string {
	names := [...]string{"UNKNOWN", "DOWN", "INIT", "ARMED", "ACTIVE", "ACTIVE_DEFER"}
	if int(s) < len(names) {
		return names[s]
	}
	return names[0]
}

// Physical states of a port that mean something to a check (the kernel's enum ib_port_phys_state).
const (
	PhysPolling  = 2
	PhysDisabled = 3
	PhysLinkUp   = 5
)

// Link layers of a port.
const (
	LayerInfiniBand = "InfiniBand"
	LayerEthernet   = "Ethernet"
)

// InfiniBandPort is one port of an RDMA device.
type InfiniBandPort struct {
	// Device is the RDMA device's name, such as mlx5_0; names may change between boots.
	Device string
	// Number is the port's, from 1.
	Number int
	// PCI is the address of the adapter; empty for a device in software, such as rxe0.
	PCI string
	// Virtual says that the adapter is an SR-IOV virtual function.
	Virtual bool
	// GUID is the node's GUID, which stays with the adapter; empty where the device has none.
	GUID string
	// Model is the adapter's type and board, such as "MT4129 MT_0000000838".
	Model string
	// State is the logical state, Phys the physical one by its number; 0 is unknown.
	State PortState
	Phys  uint8
	// Mbps and Lanes are the rate in megabits a second and the width of the link; they mean something while it is up.
	Mbps  uint32
	Lanes uint8
	// Layer is the link layer: LayerInfiniBand, LayerEthernet, or something else.
	Layer string
	// Counters are the error counters that the port has, by the name of their file.
	Counters map[string]uint64
	// Unread names the first attribute that is there and could not be read.
	Unread string
}

// Name is the port's name, such as mlx5_0/1.
func (p InfiniBandPort) Name() string { return p.Device + "/" + strconv.Itoa(p.Number) }

// InfiniBandCounters are the counters of a port that are read, with the value at which each stays once it is reached: the
// port's own registers are this narrow, where the kernel reads them by a management datagram (PORT_PMA_ATTR in
// drivers/infiniband/core/sysfs.c; InfiniBand Architecture Specification, PortCounters).
var InfiniBandCounters = map[string]uint64{
	"symbol_error":                    0xffff,
	"link_error_recovery":             0xff,
	"link_downed":                     0xff,
	"port_rcv_errors":                 0xffff,
	"port_xmit_discards":              0xffff,
	"local_link_integrity_errors":     0xf,
	"excessive_buffer_overrun_errors": 0xf,
}

// ParsePortState reads a port's state ("4: ACTIVE") and phys_state ("5: LinkUp") as their number.
func ParsePortState(s string) (uint8, error) {
	s = strings.TrimSpace(s)
	number, _, ok := strings.Cut(s, ":")
	if !ok {
		return 0, fmt.Errorf("parsing port state %q: want number: name", clip(s))
	}
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("parsing port state %q: %w", clip(s), err)
	}
	return uint8(n), nil
}

// ParseInfiniBandRate reads a port's rate ("200 Gb/sec (4X HDR)", "2.5 Gb/sec (1X)") as megabits a second and lanes.
func ParseInfiniBandRate(s string) (mbps uint32, lanes uint8, err error) {
	s = strings.TrimSpace(s)
	number, rest, ok := strings.Cut(s, " Gb/sec")
	if !ok {
		return 0, 0, fmt.Errorf("parsing rate %q: want Gb/sec", clip(s))
	}
	whole, tenths, _ := strings.Cut(number, ".")
	w, err := strconv.ParseUint(whole, 10, 16)
	if err != nil {
		return 0, 0, fmt.Errorf("parsing rate %q: %w", clip(s), err)
	}
	var t uint64
	if tenths != "" {
		if t, err = strconv.ParseUint(tenths, 10, 4); err != nil || t > 9 {
			return 0, 0, fmt.Errorf("parsing rate %q: one decimal at most", clip(s))
		}
	}
	if width, _, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(rest), "("), "X"); ok {
		n, err := strconv.ParseUint(width, 10, 8)
		if err != nil {
			return 0, 0, fmt.Errorf("parsing rate %q: lanes: %w", clip(s), err)
		}
		lanes = uint8(n)
	}
	return uint32(w*1000 + t*100), lanes, nil
}

// ParsePortCounter reads one file of a port's counters; not known where the port has no such counter, which the kernel
// writes as "N/A (no PMA)".
func ParsePortCounter(data []byte) (n uint64, known bool, err error) {
	if strings.HasPrefix(string(data), "N/A") {
		return 0, false, nil
	}
	n, err = ParseSysfsCount(data)
	return n, err == nil, err
}
