package deviceid

import (
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	gpu3 = "GPU-6a1f2c3d-0000-4000-8000-000000000003"
	gpu4 = "GPU-6a1f2c3d-0000-4000-8000-000000000004"
	mig  = "MIG-1c2d3e4f-0000-4000-8000-00000000000a"
	gpu  = "nvidia.com/gpu"
)

func two() []v1alpha1.Device {
	return []v1alpha1.Device{
		{ID: gpu3, Serial: "1324000000003", PCI: "0000:18:00.0"},
		{ID: gpu4, Serial: "1324000000004", PCI: "0000:2a:00.0"},
	}
}

func TestFind(t *testing.T) {
	parts := map[string]string{mig: gpu4, "MIG-of-a-gpu-that-is-not-there": "GPU-gone"}
	weak := append(two(), v1alpha1.Device{ID: "H200@5"})
	board := two()
	board[1].Serial = board[0].Serial
	for name, tc := range map[string]struct {
		devices      []v1alpha1.Device
		resource, id string
		device       string
		answer       Answer
	}{
		"NVIDIA's plugin takes the UUID":                        {two(), gpu, gpu3, gpu3, Found},
		"in whatever case":                                      {two(), gpu, strings.ToUpper(gpu3), gpu3, Found},
		"a part of a GPU that is shared in time":                {two(), gpu, gpu3 + "::7", gpu3, Found},
		"a MIG device is a part of its GPU":                     {two(), "nvidia.com/mig-1g.18gb", mig, gpu4, Found},
		"a MIG device as old drivers name it":                   {two(), gpu, "MIG-" + gpu3 + "/1/0", gpu3, Found},
		"a MIG device that nobody knows":                        {two(), gpu, "MIG-9c2d3e4f-0000-4000-8000-00000000000a", "", Untold},
		"a MIG device of a GPU that nobody knows":               {two(), gpu, "MIG-of-a-gpu-that-is-not-there", "", Untold},
		"a PCI address":                                         {two(), "amd.com/gpu", "0000:2a:00.0", gpu4, Found},
		"a PCI address as NVML writes it":                       {two(), "amd.com/gpu", "00000000:2A:00.0", gpu4, Found},
		"a PCI address without its domain":                      {two(), "amd.com/gpu", "2a:00.0", gpu4, Found},
		"a PCI address that is none of ours is another device":  {two(), "nvidia.com/GA102GL_A10", "0000:99:00.0", "", Other},
		"a PCI address where one of ours is not known":          {weak, gpu, "0000:99:00.0", "", Untold},
		"a serial number":                                       {two(), "habana.ai/gaudi", "1324000000003", gpu3, Found},
		"a serial number that two have":                         {board, "habana.ai/gaudi", "1324000000003", "", Untold},
		"a UUID that is none of ours is another device":         {two(), gpu, "GPU-77777777-0000-4000-8000-000000000003", "", Other},
		"a UUID where one of ours is known by its slot":         {weak, gpu, "GPU-77777777-0000-4000-8000-000000000003", "", Untold},
		"an index means nothing":                                {two(), gpu, "3", "", Untold},
		"nor does a device file":                                {two(), gpu, "nvidia3", "", Untold},
		"a plugin that nobody knows may be of accelerators":     {two(), "vendor.example/thing", "3", "", Untold},
		"a port of a network is none":                           {two(), "rdma/hca_shared_devices_a", "3", "", Other},
		"nor is what virtual machines need":                     {two(), "devices.kubevirt.io/kvm", "kvm11", "", Other},
		"a network's port in NVIDIA's domain":                   {two(), "nvidia.com/hostdev", "roce0", "", Other},
		"nothing is no device":                                  {two(), gpu, "", "", Untold},
		"a device without a serial number is not meant by none": {[]v1alpha1.Device{{ID: "a"}}, gpu, "::3", "", Untold},
	} {
		t.Run(name, func(t *testing.T) {
			device, answer := NewNames(tc.devices, parts).Find(tc.resource, tc.id)
			if device != tc.device || answer != tc.answer {
				t.Errorf("%q, %d; want %q, %d", device, answer, tc.device, tc.answer)
			}
		})
	}
}

func TestMayBeAccelerator(t *testing.T) {
	for resource, want := range map[string]bool{
		gpu: true, "nvidia.com/mig-1g.18gb": true, "nvidia.com/gpu.shared": true, "amd.com/gpu": true, "vendor.example/thing": true,
		"cpu": false, "hugepages-2Mi": false, "kubernetes.io/batteries": false, "attachable.volumes.kubernetes.io/x": false,
		"vpc.amazonaws.com/efa": false, "rdma/hca": false, "": false, "/": false, "a/": false,
	} {
		if got := MayBeAccelerator(resource); got != want {
			t.Errorf("%q: %t", resource, got)
		}
	}
}

// Whatever a plugin calls a device, only one of the node's is found, and never one by half its name.
func FuzzFind(f *testing.F) {
	for _, id := range []string{gpu3, gpu4 + "::1", mig, "MIG-" + gpu3 + "/1/0", "2a:00.0", "00000000:2A:00.0", "3", "", ":", "::", "-", "MIG-", "0:0:0.0", "+1:_0:00.0"} {
		f.Add(gpu, id)
	}
	n := NewNames(two(), map[string]string{mig: gpu4})
	f.Fuzz(func(t *testing.T, resource, id string) {
		device, answer := n.Find(resource, id)
		if (answer == Found) != (device == gpu3 || device == gpu4) || (answer != Found && device != "") {
			t.Errorf("%q of %q: %q, %d", id, resource, device, answer)
		}
		if answer != Found {
			return
		}
		lower := strings.ToLower(id)
		for _, part := range []string{"0003", "0004", "18:0", "2a:0", "2a:00", "18:", strings.ToLower(mig)} {
			if strings.Contains(lower, part) || strings.Contains(lower, ":") {
				return
			}
		}
		t.Errorf("%q was found as %s", id, device)
	})
}
