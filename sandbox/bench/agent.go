package bench

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// agentUsage looks at the agent as it is installed, a process of its own, on a machine of eight and on one of sixteen
// devices that a directory stands for.
func (c *cluster) agentUsage(ctx context.Context, r *Report) error {
	for _, devices := range []int{8, 16} {
		c.o.Progress(fmt.Sprintf("an agent of %d devices", devices))
		agent, err := c.startAgent(ctx, devices)
		if errors.Is(err, fs.ErrNotExist) {
			r.Missing = append(r.Missing, "the agent's memory: "+err.Error())
			return nil
		}
		if err != nil {
			return err
		}
		u, err := settledUsage(ctx, agent)
		agent.stop()
		if err != nil {
			return err
		}
		r.Usage = append(r.Usage, u...)
	}
	return nil
}

// settledUsage looks at a program that has had time to say what it had to say at its start.
func settledUsage(ctx context.Context, p *process) ([]Usage, error) {
	if err := pause(ctx, 5*time.Second); err != nil {
		return nil, err
	}
	return usageOf(ctx, idleFor, p.target())
}

// startAgent starts one, and waits until it has published.
func (c *cluster) startAgent(ctx context.Context, devices int, flags ...string) (_ *process, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the agent: %w", err)
	}
	binary := filepath.Join(filepath.Dir(self), "roundhouse-agent")
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("finding the agent, which make build builds: %w", err)
	}
	dir, err := os.MkdirTemp("", "roundhouse-agent-")
	if err != nil {
		return nil, fmt.Errorf("making a machine: %w", err)
	}
	name := fmt.Sprintf("%s%d%s", machinePrefix, devices, strings.Join(flags, ""))
	p := &process{what: fmt.Sprintf("agent, idle, %d devices", devices), node: name, dir: dir}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	if err := errors.Join(makeMachine(dir, devices), c.installNVML(dir)); err != nil {
		return nil, err
	}
	if err := c.client.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
		return nil, fmt.Errorf("making a node: %w", err)
	}
	credential, err := c.s.ControlPlane().ServiceAccountConfig(ctx, config.Namespace, config.AgentServiceAccount, controlplane.ToNode(name))
	if err != nil {
		return nil, fmt.Errorf("making an agent's credential: %w", err)
	}
	ca, token := filepath.Join(dir, "ca"), filepath.Join(dir, "token")
	for path, data := range map[string][]byte{ca: credential.CAData, token: []byte(credential.BearerToken)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return nil, fmt.Errorf("writing an agent's credential: %w", err)
		}
	}
	cmd := exec.CommandContext(ctx, binary, append(flags, "-node-name="+name, "-host-root="+dir, "-state-dir="+filepath.Join(dir, "state"),
		"-server="+credential.Host, "-ca-file="+ca, "-token-file="+token, "-metrics-bind=127.0.0.1:0", "-observe-only")...)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting an agent: %w", err)
	}
	p.cmd = cmd
	return p, eventually(ctx, "the agent's word", func(ctx context.Context) (bool, error) {
		h := &v1alpha1.NodeHealth{}
		err := c.client.Get(ctx, client.ObjectKey{Name: name}, h)
		return err == nil && len(h.Status.Devices) == devices, client.IgnoreNotFound(err)
	})
}

// installNVML puts the library there is to be, with what it says of itself beside it, where the helper looks for it.
func (c *cluster) installNVML(root string) error {
	if c.o.NVML == "" {
		return nil
	}
	const path = "usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"
	if err := os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o700); err != nil {
		return fmt.Errorf("making a machine: %w", err)
	}
	for _, end := range []string{"", ".conf"} {
		data, err := os.ReadFile(c.o.NVML + end)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, path+end), data, 0o700)
		}
		if err != nil {
			return fmt.Errorf("making a machine: %w", err)
		}
	}
	return nil
}

// machinePrefix begins the name of a machine that a directory stands for.
const machinePrefix = "machine-"

// firstBus is the bus of the first device of a machine.
const firstBus = 0x10

// makeMachine writes what the agent reads of a machine: its boot, and the configuration space and link of each device
// (Documentation/ABI/testing/sysfs-bus-pci).
func makeMachine(root string, devices int) error {
	files := map[string]string{
		"proc/sys/kernel/random/boot_id": "6b1f0c0e-2d0a-4a53-9f0b-0f6d6a4f3c11\n",
		"proc/stat":                      fmt.Sprintf("btime %d\n", time.Now().Add(-time.Hour).Unix()),
		"proc/uptime":                    "3600.00 3600.00\n",
		"proc/sys/kernel/hostname":       "machine\n",
	}
	for i := range devices {
		at := fmt.Sprintf("sys/bus/pci/devices/0000:%02x:00.0/", firstBus+i)
		for file, text := range map[string]string{
			"uevent": fmt.Sprintf("DRIVER=nvidia\nPCI_CLASS=30200\nPCI_ID=10DE:2335\nPCI_SUBSYS_ID=10DE:18BE\nPCI_SLOT_NAME=0000:%02x:00.0\n", firstBus+i),
			"vendor": "0x10de\n", "device": "0x2335\n", "class": "0x030200\n", "revision": "0xa1\n", "numa_node": "0\n",
			"subsystem_vendor": "0x10de\n", "subsystem_device": "0x18be\n", "current_link_width": "16\n", "max_link_width": "16\n",
			"current_link_speed": "32.0 GT/s PCIe\n", "max_link_speed": "32.0 GT/s PCIe\n",
			// Vendor and device, then what the agent does not look at.
			"config": "\xde\x10\x35\x23" + string(make([]byte, 60)),
		} {
			files[at+file] = text
		}
	}
	for path, text := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("making a machine: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("making a machine: %w", err)
		}
	}
	return nil
}
