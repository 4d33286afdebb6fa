package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

// diskDeadline bounds the wait for a disk whose driver was just loaded: it is probed in the background.
const diskDeadline = 20 * time.Second

// mount is one filesystem.
type mount struct {
	source, target, kind string
	flags                uintptr
}

// mountKernelFilesystems mounts what an agent expects of any Linux node.
func mountKernelFilesystems() error {
	for _, m := range []mount{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

// do creates the mount point and mounts.
func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("making the mount point %s: %w", m.target, err)
	}
	err := unix.Mount(m.source, m.target, m.kind, m.flags, "")
	if err != nil && !errors.Is(err, unix.EBUSY) { // EBUSY: the kernel mounted devtmpfs itself
		return fmt.Errorf("mounting %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

// bringUp does what the configuration says.
func bringUp(cfg wire.Config) error {
	if err := os.Setenv("PATH", "/usr/local/bin:/bin"); err != nil {
		return fmt.Errorf("setting the path: %w", err)
	}
	if err := unix.Sethostname([]byte(cfg.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	for _, path := range cfg.Modules {
		if err := loadModule(path); err != nil {
			return err
		}
	}
	if err := configureNetwork(); err != nil {
		return err
	}
	if cfg.Disk == "" {
		return nil
	}
	if err := awaitFile(cfg.Disk, diskDeadline); err != nil {
		return err
	}
	return mount{cfg.Disk, wire.StateDir, "ext4", unix.MS_NOSUID | unix.MS_NODEV}.do()
}

// loadModule hands one module to the kernel.
func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening a module: %w", err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("loading %s: %w", path, err)
	}
	return nil
}

// awaitFile waits until path exists.
func awaitFile(path string, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waiting for %s: %w", path, err)
		}
	}
}

// configureNetwork brings up loopback and the one network card. The host's address lies on the card's own network, so
// no route beyond it is set, and the guest can reach nothing else.
func configureNetwork() error {
	if err := setAddress("lo", netip.MustParsePrefix("127.0.0.1/8")); err != nil {
		return err
	}
	if err := awaitFile("/sys/class/net/eth0", diskDeadline); err != nil {
		return err
	}
	return setAddress("eth0", netip.MustParsePrefix(wire.GuestIP+"/24"))
}

// setAddress gives a network device its address and mask and turns it on, by the ioctls of netdevice(7).
func setAddress(device string, prefix netip.Prefix) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket for %s: %w", device, err)
	}
	defer unix.Close(fd)
	ip := prefix.Addr().As4()
	mask := [4]byte{}
	for bit := range prefix.Bits() {
		mask[bit/8] |= 1 << (7 - bit%8)
	}
	for _, step := range []struct {
		request uint
		inet4   []byte
	}{
		{unix.SIOCSIFADDR, ip[:]},
		{unix.SIOCSIFNETMASK, mask[:]},
	} {
		ifr, err := unix.NewIfreq(device)
		if err != nil {
			return fmt.Errorf("naming %s: %w", device, err)
		}
		if err := ifr.SetInet4Addr(step.inet4); err != nil {
			return fmt.Errorf("filling in the address of %s: %w", device, err)
		}
		if err := unix.IoctlIfreq(fd, step.request, ifr); err != nil {
			return fmt.Errorf("setting the address of %s: %w", device, err)
		}
	}
	ifr, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("naming %s: %w", device, err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("turning %s on: %w", device, err)
	}
	return nil
}

// openSerial opens a serial port in raw mode: no echo, no line editing, no translation of line ends.
func openSerial(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the control channel: %w", err)
	}
	mode, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("reading the mode of %s: %w", path, err)
	}
	mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
	mode.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, mode); err != nil {
		f.Close()
		return nil, fmt.Errorf("setting the mode of %s: %w", path, err)
	}
	return f, nil
}
