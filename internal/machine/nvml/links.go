//go:build cgo && linux

package nvml

import (
	"encoding/hex"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// links reads the NVLinks that the GPU has.
func (a *asker) links() []machine.NVMLLink {
	count, told := machine.MaxNVMLLinks, false
	a.fields("links", []field{
		{nvml.FI_DEV_NVLINK_LINK_COUNT, 0, "NVLINK_LINK_COUNT", func(v uint64) { count, told = int(min(v, machine.MaxNVMLLinks)), true }},
	})
	var links []machine.NVMLLink
	for i := range count {
		link, ret := a.link(i)
		switch {
		case ret == nvml.SUCCESS:
			links = append(links, link)
		case !told:
			// Nobody has said how many there are, so the first that is not there ends the search and is no failure.
			delete(a.unread, linkState(i))
			a.counters(links)
			return links
		}
	}
	a.counters(links)
	return links
}

func linkState(link int) string { return fmt.Sprintf("nvmlDeviceGetNvLinkState(link %d)", link) }

// link reads whether a link is up and, if so, to what.
func (a *asker) link(index int) (machine.NVMLLink, nvml.Return) {
	d := a.device
	link := machine.NVMLLink{Link: index}
	ret := nvml.ERROR_FUNCTION_NOT_FOUND
	var state nvml.EnableState
	if !a.ask(linkState(index), func() nvml.Return { state, ret = d.GetNvLinkState(index); return ret }) {
		return link, max(ret, 1)
	}
	link.Active = state == nvml.FEATURE_ENABLED
	if !link.Active {
		return link, nvml.SUCCESS
	}
	var remote nvml.IntNvLinkDeviceType
	if a.ask(fmt.Sprintf("nvmlDeviceGetNvLinkRemoteDeviceType(link %d)", index), func() (ret nvml.Return) {
		remote, ret = d.GetNvLinkRemoteDeviceType(index)
		return ret
	}) {
		link.RemoteType = remoteType(remote)
	}
	var pci nvml.PciInfo
	if a.ask(fmt.Sprintf("nvmlDeviceGetNvLinkRemotePciInfo(link %d)", index), func() (ret nvml.Return) {
		pci, ret = d.GetNvLinkRemotePciInfo(index)
		return ret
	}) {
		link.Remote = address(pci)
	}
	return link, nvml.SUCCESS
}

// remoteType is the name of a nvmlIntNvLinkDeviceType_t.
func remoteType(t nvml.IntNvLinkDeviceType) string {
	switch t {
	case nvml.NVLINK_DEVICE_TYPE_GPU:
		return "GPU"
	case nvml.NVLINK_DEVICE_TYPE_IBMNPU:
		return "IBMNPU"
	case nvml.NVLINK_DEVICE_TYPE_SWITCH:
		return "Switch"
	default:
		return "Unknown"
	}
}

// counters reads the error counters of all links in one call.
func (a *asker) counters(links []machine.NVMLLink) {
	var wanted []field
	for i := range links {
		link, scope := &links[i], uint32(links[i].Link)
		wanted = append(wanted,
			field{nvml.FI_DEV_NVLINK_ERROR_DL_REPLAY, scope, "NVLINK_ERROR_DL_REPLAY", func(v uint64) { link.Replays = &v }},
			field{nvml.FI_DEV_NVLINK_ERROR_DL_RECOVERY, scope, "NVLINK_ERROR_DL_RECOVERY", func(v uint64) { link.Recoveries = &v }},
			field{nvml.FI_DEV_NVLINK_ERROR_DL_CRC, scope, "NVLINK_ERROR_DL_CRC", func(v uint64) { link.CRC = &v }},
		)
	}
	if len(wanted) > 0 {
		a.fields("link errors", wanted)
	}
}

// fabric reads how far the GPU is with registering at the fabric manager.
func (a *asker) fabric() *machine.NVMLFabric {
	d := a.device
	const call = "nvmlDeviceGetGpuFabricInfoV"
	if a.has(call) {
		var info nvml.GpuFabricInfo_v2
		if !a.ask(call, func() (ret nvml.Return) { info, ret = d.GetGpuFabricInfoV().V2(); return ret }) {
			return nil
		}
		f := fabric(info.State, info.Status, info.CliqueId, info.ClusterUuid)
		f.Health = &info.HealthMask
		return f
	}
	// Drivers before R545 have the first version only, which knows no health.
	var info nvml.GpuFabricInfo
	if !a.ask("nvmlDeviceGetGpuFabricInfo", func() (ret nvml.Return) { info, ret = d.GetGpuFabricInfo(); return ret }) {
		return nil
	}
	return fabric(info.State, info.Status, info.CliqueId, info.ClusterUuid)
}

func fabric(state uint8, status, clique uint32, cluster [16]uint8) *machine.NVMLFabric {
	f := &machine.NVMLFabric{State: uint32(state), Clique: clique}
	// nvml.h: the status "must be checked only if" the state is completed.
	if state == nvml.GPU_FABRIC_STATE_COMPLETED {
		f.Status = name(nvml.Return(status))
	}
	if cluster != ([16]uint8{}) {
		h := hex.EncodeToString(cluster[:])
		f.Cluster = h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	}
	return f
}
