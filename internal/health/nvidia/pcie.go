package nvidia

import (
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the pcie check.
const (
	// CodeReplays is a link that sends too much again.
	CodeReplays = "PCIeReplays"
	// CodeGenerationLow is a link that runs at a lower generation than it could, under load.
	CodeGenerationLow = "PCIeGenerationLow"
	// CodeWidthLow is a link of fewer lanes than it could have.
	CodeWidthLow = "PCIeWidthLow"
)

const (
	// maxReplays a minute is what DCGM allows, and what NVIDIA's driver recommends to it
	// (DCGM_LIMIT_MAX_PCIREPLAY_RATE in common/DcgmGPUHardwareLimits.h of github.com/NVIDIA/DCGM).
	maxReplays = 8
	// linkLooks is in how many looks in a row a link must be slow or narrow.
	linkLooks = 3
	// pcieClear is how long it must be well; replays come in bursts.
	pcieClear = 10 * time.Minute
	// agreeing is how many peers have to agree for less than the maximum to be how the machine is built.
	agreeing = 2
)

// pcie reports what the driver says of the PCIe link.
type pcie struct{ replays rates }

func newPCIe() *pcie { return &pcie{make(rates)} }

func (*pcie) name() string { return "pcie" }

func (p *pcie) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.PCIe == nil {
			v.miss(l, g, []string{CodeReplays, CodeGenerationLow, CodeWidthLow}, "Pcie")
			continue
		}
		p.judgeReplays(l, &v, g)
		judgeWidth(l, &v, g)
		judgeGeneration(l, &v, g)
	}
	return v
}

func (p *pcie) judgeReplays(l *look, v *verdict, g *machine.NVMLGPU) {
	if g.PCIe.Replays == nil {
		v.miss(l, g, []string{CodeReplays}, "PcieReplay")
		return
	}
	rate, ok := p.replays.perMinute(identity(g), l.load, uint64(*g.PCIe.Replays), l.at)
	if !ok {
		// Too soon to tell: what stood stands.
		v.keep(g, CodeReplays)
		return
	}
	if rate > maxReplays {
		v.see(g, track.Observation{
			Code: CodeReplays, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning,
			Recommended: v1alpha1.RecommendHuman, Clear: pcieClear,
			Evidence: fmt.Sprintf("%.0f PCIe replays a minute, %d are allowed; %d since the driver was loaded", rate, maxReplays, *g.PCIe.Replays),
		})
	}
}

func judgeWidth(l *look, v *verdict, g *machine.NVMLGPU) {
	now, most := g.PCIe.Width, g.PCIe.MaxWidth
	if now == nil || most == nil {
		v.miss(l, g, []string{CodeWidthLow}, "PcieLinkWidth")
		return
	}
	var peers []uint32
	for _, p := range l.peers(g) {
		if p.PCIe != nil && p.PCIe.Width != nil {
			peers = append(peers, *p.PCIe.Width)
		}
	}
	want, proved := expect(*most, peers)
	if *now == 0 || *now >= want {
		return
	}
	v.see(g, track.Observation{
		Code: CodeWidthLow, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning, Recommended: retrain(proved),
		Looks: linkLooks, Clear: driverClear, Evidence: fmt.Sprintf("the PCIe link is x%d, x%d is expected", *now, want),
	})
}

// judgeGeneration judges only under load: an idle GPU lowers its link to save power.
func judgeGeneration(l *look, v *verdict, g *machine.NVMLGPU) {
	now, most := g.PCIe.Generation, g.PCIe.MaxGeneration
	if now == nil || most == nil {
		v.miss(l, g, []string{CodeGenerationLow}, "PcieLinkGen")
		return
	}
	if !underLoad(g) {
		v.keep(g, CodeGenerationLow)
		return
	}
	var peers []uint32
	for _, p := range l.peers(g) {
		if underLoad(p) && p.PCIe != nil && p.PCIe.Generation != nil {
			peers = append(peers, *p.PCIe.Generation)
		}
	}
	want, proved := expect(*most, peers)
	if *now == 0 || *now >= want {
		return
	}
	v.see(g, track.Observation{
		Code: CodeGenerationLow, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning, Recommended: retrain(proved),
		Looks: linkLooks, Clear: driverClear,
		Evidence: fmt.Sprintf("the PCIe link runs at generation %d under load, %d is expected", *now, want),
	})
}

// expect is what a link should have: its maximum, or less where enough peers have no more than that. proved says that a
// peer has it.
func expect(most uint32, peers []uint32) (want uint32, proved bool) {
	best := uint32(0)
	for _, p := range peers {
		best = max(best, p)
	}
	if best >= most {
		return most, true
	}
	if len(peers) >= agreeing && best > 0 {
		return best, true
	}
	return most, false
}

// retrain recommends a reboot, which trains the link anew, where a peer proves that the machine is wired for more.
func retrain(proved bool) v1alpha1.Recommendation {
	if proved {
		return v1alpha1.RecommendReboot
	}
	return v1alpha1.RecommendNone
}
