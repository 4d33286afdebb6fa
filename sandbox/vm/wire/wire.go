// Package wire is what a test on the host and the init program of its virtual machine say to each other: the
// configuration that travels in the initramfs, and one JSON document a line over the second serial port. A serial port
// needs no module, no address and no reconnection after a reboot, so it works when the network does not.
package wire

import "fmt"

// ConfigPath is where the initramfs holds the Config.
const ConfigPath = "/etc/guest.json"

// StateDir is where the disk that outlives a reboot is mounted.
const StateDir = "/var/lib/roundhouse"

// ControlDevice is the serial port that carries requests and replies.
const ControlDevice = "/dev/ttyS1"

// GuestIP and HostIP are the two ends of QEMU's user-mode network. Connections to HostIP arrive at the host's
// 127.0.0.1, so the guest reaches what a test listens on without any listener leaving loopback.
const (
	GuestIP = "10.0.2.15"
	HostIP  = "10.0.2.2"
)

// MaxLine bounds one message, and with it what a guest's file may hold to be read: a serial port is slow.
const MaxLine = 4 << 20

// HoldCommand is the argument that makes init the process that OpHold starts.
const HoldCommand = "hold"

// Config tells init what to do at boot.
type Config struct {
	// Modules are paths in the initramfs, in the order in which they must be loaded.
	Modules []string `json:"modules,omitempty"`
	// Disk is the block device mounted at StateDir, or empty for none.
	Disk string `json:"disk,omitempty"`
	// Hostname is the node's name.
	Hostname string `json:"hostname,omitempty"`
	// Agent is the process to keep running, or nil for none.
	Agent *Process `json:"agent,omitempty"`
}

// Process is a program that init keeps running.
type Process struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
	Env  []string `json:"env,omitempty"`
}

// Op names what a request asks for.
type Op string

// The requests that init answers.
const (
	OpHello  Op = "hello"  // sent by init at start, unasked, with ID 0
	OpRead   Op = "read"   // the content of the file Path
	OpWrite  Op = "write"  // Data becomes the content of the file Path
	OpList   Op = "list"   // the names in the directory Path, one a line
	OpLink   Op = "link"   // what the symbolic link Path points to
	OpKmsg   Op = "kmsg"   // Data is written as one record into /dev/kmsg
	OpKernel Op = "kernel" // the records of /dev/kmsg, oldest first
	OpAgent  Op = "agent"  // the AgentStatus
	OpLog    Op = "log"    // the end of what the agent wrote since the boot
	OpSignal Op = "signal" // Signal is sent to the agent
	OpFetch  Op = "fetch"  // a TLS request to the URL in Path, for ServerName, trusting the certificates in Data
	OpReboot Op = "reboot" // reboot(2), as the agent would call it
	OpHold   Op = "hold"   // a process of its own opens the file Path and keeps it open; the answer is its ID
	OpFree   Op = "free"   // the process that OpHold started last is ended
)

// Request is one question from the host.
type Request struct {
	ID         int64  `json:"id"`
	Op         Op     `json:"op"`
	Path       string `json:"path,omitempty"`
	ServerName string `json:"serverName,omitempty"`
	Data       []byte `json:"data,omitempty"`
	Signal     int    `json:"signal,omitempty"`
}

// Reply is one answer from the guest.
type Reply struct {
	ID    int64        `json:"id"`
	Op    Op           `json:"op"`
	Error string       `json:"error,omitempty"`
	Data  []byte       `json:"data,omitempty"`
	Agent *AgentStatus `json:"agent,omitempty"`
}

// AgentStatus is what init knows of the agent's process.
type AgentStatus struct {
	// PID is zero while the agent is not running.
	PID int `json:"pid"`
	// Starts counts how often it was started since the boot.
	Starts int `json:"starts"`
	// LastExit says how it last ended, in words, and is empty if it never did.
	LastExit string `json:"lastExit,omitempty"`
}

// Err returns the reply's error, or nil.
func (r Reply) Err() error {
	if r.Error == "" {
		return nil
	}
	return fmt.Errorf("guest: %s: %s", r.Op, r.Error)
}
