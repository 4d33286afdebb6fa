// Package machine is the only door to hardware. What it offers is small on purpose: each interface is one thing that can
// be read or done, reading is thin, and what was read is parsed by pure functions that are tested on captured files. Host
// is the Linux implementation; package fake scripts the same interfaces in memory.
//
// Nothing here decides anything, and a read that fails is an error, never a healthy answer.
package machine

import (
	"context"
	"errors"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrLogDrained means that no kernel-log record is waiting; Wait says when there may be one.
	ErrLogDrained = errors.New("no kernel-log record is waiting")
	// ErrLogOverrun means that the kernel overwrote records before they were read. The reader stands on the oldest record
	// that is left: count the loss and read on.
	ErrLogOverrun = errors.New("kernel-log records were overwritten before they were read")
	// ErrStuck means that a read or write did not come back before its deadline, or that an earlier one through the same
	// door still has not.
	ErrStuck = errors.New("the machine did not answer in time")
	// ErrDown means that the machine is off or between two boots; only a fake says so.
	ErrDown = errors.New("the machine is down")
)

// Booter tells which boot this is.
type Booter interface {
	// BootID is the kernel's boot ID, a UUID that changes with every start.
	BootID(ctx context.Context) (string, error)
	// BootTime is when the kernel started, to the second.
	BootTime(ctx context.Context) (time.Time, error)
}

// Namer tells the machine's own name, which need not be its Node's.
type Namer interface {
	Hostname(ctx context.Context) (string, error)
}

// PCIReader lists what is on the PCI bus.
type PCIReader interface {
	// PCIDevices lists the devices that want accepts, by address. A nil want accepts all. want is asked with the fields of
	// PCIID only, so that a host with a thousand functions costs one small read for each it does not care about.
	PCIDevices(ctx context.Context, want func(PCIID) bool) ([]PCIDevice, error)
}

// NVIDIAReader reads what the NVIDIA kernel driver publishes under /proc, which stays readable when NVML hangs.
type NVIDIAReader interface {
	// NVIDIAGPUs lists the GPUs the driver holds. No driver is an empty list, not an error.
	NVIDIAGPUs(ctx context.Context) ([]NVIDIAGPU, error)
}

// AERReader reads the kernel's counters of PCI Express Advanced Error Reporting, which need no vendor's driver.
type AERReader interface {
	// AER lists the devices at the addresses and every bridge above them, each once, by address. A device that is not on
	// the bus is left out, and one that cannot report errors is listed as such.
	AER(ctx context.Context, addresses []string) ([]AERDevice, error)
}

// InfiniBandReader reads the ports of RDMA devices: InfiniBand's and those of RDMA over Ethernet.
type InfiniBandReader interface {
	// InfiniBandPorts lists the ports by device and number. No device is an empty list, not an error.
	InfiniBandPorts(ctx context.Context) ([]InfiniBandPort, error)
}

// AMDGPUReader reads what the amdgpu driver publishes of errors in a GPU's memory and units.
type AMDGPUReader interface {
	// AMDGPUs lists what the driver says of the devices at the addresses; those it does not hold are left out.
	AMDGPUs(ctx context.Context, addresses []string) ([]AMDGPU, error)
}

// LogOpener opens the kernel log.
type LogOpener interface {
	// OpenLog opens the kernel log at the oldest record the kernel still has.
	OpenLog(ctx context.Context) (LogReader, error)
}

// LogReader reads kernel-log records in the form of /dev/kmsg, one at a time.
type LogReader interface {
	// TryRead copies the next record into buf and never blocks. It answers ErrLogDrained when none is waiting, and
	// ErrLogOverrun when some were lost. MaxLogRecord bytes always suffice.
	TryRead(buf []byte) (int, error)
	// Wait returns nil when a record may be waiting, or the context's error.
	Wait(ctx context.Context) error
	Close() error
}

// MaxLogRecord is a size of buffer that holds every record: the kernel formats one into at most
// PRINTK_MESSAGE_MAX (2048) bytes, 8192 before Linux 6.4 (kernel/printk/internal.h, CONSOLE_EXT_LOG_MAX).
const MaxLogRecord = 8192

// ProgramRunner runs other programs: the scripts of custom checks, and the host's own tools.
type ProgramRunner interface {
	// RunProgram runs a program once and returns when it has ended, was killed at its time-out or with the context, or could
	// not be killed. An error means that it did not start (fs.ErrNotExist where it is not there) or did not end (ErrStuck);
	// how it ended is no error.
	RunProgram(ctx context.Context, p Program) (Ran, error)
	// FindProgram answers nil when the program's file is there, and an error that is fs.ErrNotExist when it is not.
	FindProgram(ctx context.Context, p Program) error
}

// FileTailer follows files that others append to and rotate.
type FileTailer interface {
	// TailFile opens the file of the host at the path and stands where an earlier reader stood; the zero position is the
	// file's beginning. When the file it stood in was renamed, that one is read to its end first.
	TailFile(ctx context.Context, path string, from FilePosition) (FileTail, error)
}

// FileTail is a file that is followed. It must not be used by two at the same time.
type FileTail interface {
	// Read copies what comes next into buf. It answers ErrLogDrained when nothing has been appended, ErrFileRotated when
	// the next byte is the first of another file, and ErrLogOverrun when the same is so and what was not read is lost.
	Read(ctx context.Context, buf []byte) (int, error)
	// Position is after what was read so far.
	Position() FilePosition
	Close() error
}

// JournalReader reads systemd's journal.
type JournalReader interface {
	// Journal returns the entries that match, oldest first, at most JournalQuery.Max of them; more says that there are
	// others behind them.
	Journal(ctx context.Context, q JournalQuery) (entries []JournalEntry, more bool, err error)
}

// Store keeps small files of state across restarts of the agent and of the machine.
type Store interface {
	// Load returns what was last saved under the name, or an error that is fs.ErrNotExist.
	Load(ctx context.Context, name string) ([]byte, error)
	// Save replaces what is stored under the name, atomically and durably: after a crash at any point either the old or
	// the new content is there, whole.
	Save(ctx context.Context, name string, data []byte) error
}

// Rebooter restarts the machine.
type Rebooter interface {
	// Reboot asks for a restart and returns only when none came: with the reason, or with the context's error.
	Reboot(ctx context.Context) error
}

// DeviceResetter resets devices, and says what stands in the way. It is not part of Machine: who only looks has no way to it.
type DeviceResetter interface {
	// Quiesce keeps the agent's own helpers off the devices until resume is called.
	Quiesce(ctx context.Context) (resume func(), err error)
	// Holders lists who has any of the devices at the addresses open, at most MaxHolders. What all devices share, such as
	// /dev/nvidiactl, is not holding one. An error means that it cannot be known.
	Holders(ctx context.Context, addresses []string) ([]Holder, error)
	// CanReset answers nil when the device at the address can be reset in that way, and an error that is ErrNoSuchWay and
	// says why when it cannot.
	CanReset(ctx context.Context, address string, way ResetWay) error
	// ResetDevices resets the devices at the addresses in that way by one command, and says what was done. It returns when
	// they are back, or the time is up. Only NVIDIA's driver resets several at once.
	ResetDevices(ctx context.Context, addresses []string, way ResetWay) (string, error)
}

// Machine is all of it. Declare the parts you use; only wiring needs the whole.
type Machine interface {
	Booter
	Namer
	PCIReader
	NVIDIAReader
	NVMLReader
	AERReader
	InfiniBandReader
	AMDGPUReader
	LogOpener
	Store
	Rebooter
}

// Priorities of kernel-log records: facility times 8 plus level. What the kernel itself logs has facility 0; what a
// process writes to /dev/kmsg the kernel marks with another, 1 unless the process names one (devkmsg_write in
// kernel/printk/printk.c).
const (
	// KernelPriority is the kernel's own, at level warning.
	KernelPriority = 4
	// InjectedPriority is a process's, at level warning.
	InjectedPriority = 12
)
