// Package deviceid says which of a node's devices a device plugin means by its own name for one. It is pure: the agent asks
// it about what the kubelet answers, and the controller about what pods carry (KEP-4680).
package deviceid

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Answer is how sure it is which device a name means.
type Answer int

// The answers. Untold is neither of the others: the name may mean a device of the node, and nobody can tell which.
const (
	Untold Answer = iota
	Found
	Other
)

// Names are the names of a node's devices.
type Names struct {
	// ids are lower-case names, and the device that each means; empty where it could be two.
	ids map[string]string
	// parts are MIG devices, and the UUID of the GPU that each is a part of.
	parts map[string]string
	// addressed and named say that every device has a PCI address, and a GPU's UUID for its ID.
	addressed, named bool
}

// NewNames makes the names of devices. parts may be nil.
func NewNames(devices []v1alpha1.Device, parts map[string]string) Names {
	n := Names{ids: map[string]string{}, parts: map[string]string{}, addressed: true, named: true}
	for uuid, parent := range parts {
		n.parts[strings.ToLower(uuid)] = parent
	}
	for i := range devices {
		d := &devices[i]
		address, isAddress := pci(d.PCI)
		n.addressed = n.addressed && isAddress
		n.named = n.named && strings.HasPrefix(d.ID, "GPU-")
		for _, name := range []string{d.ID, d.Serial, address} {
			n.add(name, d.ID)
		}
	}
	return n
}

func (n Names) add(name, id string) {
	name = strings.ToLower(name)
	if old, ok := n.ids[name]; ok && old != id {
		id = "" // the two GPUs of one board have one serial number.
	}
	if name != "" {
		n.ids[name] = id
	}
}

// Find says which device is meant by what a device plugin of the resource calls id. NVIDIA's plugin takes the UUID, with
// "::" and a number behind it for a part of a GPU that is shared in time, and the UUID of a MIG device; others take PCI
// addresses or serial numbers. An index means nothing: it counts something else in each plugin, and anew at each boot.
func (n Names) Find(resource, id string) (device string, a Answer) {
	name, _, _ := strings.Cut(strings.ToLower(id), "::")
	if device, ok := n.ids[name]; ok {
		return found(device)
	}
	if address, ok := pci(name); ok {
		if device, ok := n.ids[address]; ok {
			return found(device)
		}
		return "", n.otherIf(n.addressed, resource)
	}
	switch {
	case strings.HasPrefix(name, "mig-"):
		return n.parent(name)
	case strings.HasPrefix(name, "gpu-"):
		return "", n.otherIf(n.named, resource)
	}
	return "", n.otherIf(false, resource)
}

func found(device string) (string, Answer) {
	if device == "" {
		return "", Untold
	}
	return device, Found
}

// parent is the GPU of a MIG device. Drivers before 470 name it in the name itself, MIG-GPU-<UUID>/<instance>/<instance>.
func (n Names) parent(name string) (string, Answer) {
	parent := strings.ToLower(n.parts[name])
	if old, ok := strings.CutPrefix(name, "mig-gpu-"); ok && parent == "" {
		uuid, _, _ := strings.Cut(old, "/")
		parent = "gpu-" + uuid
	}
	if device := n.ids[parent]; parent != "" && device != "" {
		return device, Found
	}
	return "", Untold
}

func (n Names) otherIf(sure bool, resource string) Answer {
	if sure || !MayBeAccelerator(resource) {
		return Other
	}
	return Untold
}

// notAccelerators are words in the names of resources that are known to be something else: ports of networks, and what
// virtual machines and file systems in user space need.
var notAccelerators = []string{
	"rdma", "hca", "roce", "sriov", "netdevice", "hostdev", "mlnx", "efa", "infiniband", "devices.kubevirt.io", "smarter-devices", "fuse", "kvm", "vfio",
}

// MayBeAccelerator says whether a resource of containers is one of a device plugin, and may be of accelerators.
func MayBeAccelerator(resource string) bool {
	domain, name, ok := strings.Cut(strings.ToLower(resource), "/")
	// Kubernetes' own resources are no extended ones (apimachinery, IsExtendedResourceName).
	if !ok || name == "" || domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io") {
		return false
	}
	return !slices.ContainsFunc(notAccelerators, func(word string) bool {
		return domain == word || strings.Contains(name, word)
	})
}

// pci normalises a PCI address, domain:bus:device.function, the domain left out or as long as the driver writes it.
func pci(s string) (string, bool) {
	head, function, ok := strings.Cut(s, ".")
	parts := strings.Split(head, ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if !ok || len(parts) != 3 {
		return "", false
	}
	numbers := [4]uint64{}
	for i, part := range append(parts, function) {
		n, err := strconv.ParseUint(part, 16, [...]int{32, 8, 5, 3}[i])
		if err != nil || strings.ContainsAny(part, "+_") {
			return "", false
		}
		numbers[i] = n
	}
	return fmt.Sprintf("%04x:%02x:%02x.%x", numbers[0], numbers[1], numbers[2], numbers[3]), true
}
