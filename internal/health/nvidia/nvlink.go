package nvidia

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the nvlink check.
const (
	// CodeLinkInactive is an NVLink that is down and should not be.
	CodeLinkInactive = "NVLinkInactive"
	// CodeLinkErrors is an NVLink that keeps having errors.
	CodeLinkErrors = "NVLinkErrors"
)

const (
	// linkSettle is how long a link may be down: links are trained again after a reset and a start of the fabric manager.
	linkSettle = 5 * time.Minute
	// linkErrors a minute, of replays or recoveries, and linkCRC a minute are what is too much. DCGM fails a link for one
	// replay or recovery within a minute, and says that CRC errors only matter at 100 a second
	// (DCGM_LIMIT_MAX_NVLINK_ERROR and DCGM_LIMIT_MAX_NVLINK_CRC_ERROR in common/DcgmGPUHardwareLimits.h).
	linkErrors = 1
	linkCRC    = 100 * 60
	// linkErrorLooks is for how many looks in a row: a rate already spans a minute or more, so that one burst is none.
	linkErrorLooks = 4
	linkErrorClear = 10 * time.Minute
	// toSwitch is the remote type of a link that goes to an NVSwitch.
	toSwitch = "Switch"
)

// nvlink reports links that are down and links that keep having errors.
type nvlink struct {
	errors rates
	// up are the links that were up in a load of the driver, by GPU, as bits.
	up counts
}

func newNVLink() *nvlink { return &nvlink{errors: make(rates), up: make(counts)} }

func (*nvlink) name() string { return "nvlink" }

func (n *nvlink) counts() counts { return n.up }

func (n *nvlink) recall(c counts) {
	if c == nil {
		c = make(counts)
	}
	n.up = c
}

func (n *nvlink) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		switch {
		case len(g.Links) == 0:
			// A GPU without NVLink lists none, and need not say why.
			if _, _, told := unread(g, "NvLink"); told || g.Lost != "" || !l.whole() {
				v.miss(l, g, []string{CodeLinkInactive, CodeLinkErrors}, "NvLink")
			}
		case g.MIG == nil && split(g):
			v.miss(l, g, []string{CodeLinkInactive, CodeLinkErrors}, "MigMode")
		case split(g):
			// MIG takes its parts off NVLink.
			v.keep(g, CodeLinkInactive, CodeLinkErrors)
		default:
			n.judgeInactive(l, &v, g)
			n.judgeErrors(l, &v, g)
		}
	}
	return v
}

// judgeInactive finds links that are down and were up before in this load of the driver, or that a peer has up to a switch.
// A link that no peer has is how the board is built. What a peer has up to another GPU says nothing: bridges are optional,
// and a pair of cards may have fewer than another.
func (n *nvlink) judgeInactive(l *look, v *verdict, g *machine.NVMLGPU) {
	up := n.remember(l, g)
	peers := l.peers(g)
	var down []string
	for _, k := range g.Links {
		if k.Active {
			continue
		}
		expected := up&bit(k.Link) != 0
		for _, p := range peers {
			remote, ok := activeOn(p, k.Link)
			expected = expected || ok && remote == toSwitch
		}
		if expected {
			down = append(down, fmt.Sprint(k.Link))
		}
	}
	if len(down) == 0 {
		return
	}
	o := track.Observation{
		Code: CodeLinkInactive, Class: v1alpha1.ClassFabric, Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendReboot,
		Settle: linkSettle, Clear: driverClear,
		Evidence: fmt.Sprintf("%d of %d NVLinks are inactive and should not be: %s", len(down), len(g.Links), strings.Join(down, ", ")),
	}
	if slices.ContainsFunc(append(peers, g), switched) {
		// Traffic through switches is spread over all links.
		o.Severity = v1alpha1.SeverityCritical
	}
	v.see(g, o)
}

// switched says that the GPU's links go to switches.
func switched(g *machine.NVMLGPU) bool {
	return slices.ContainsFunc(g.Links, func(k machine.NVMLLink) bool { return k.Active && k.RemoteType == toSwitch })
}

// remember adds the links that are up now to those that were, in this load of the driver.
func (n *nvlink) remember(l *look, g *machine.NVMLGPU) (up uint64) {
	was := n.up[identity(g)]
	if was.Load == l.load {
		up = was.Value
	}
	for _, k := range g.Links {
		if k.Active {
			up |= bit(k.Link)
		}
	}
	if len(n.up) >= maxCounters {
		clear(n.up)
	}
	n.up[identity(g)] = count{l.load, up}
	return up
}

// bit is a link's in a mask; NVML has 36 links at most (NVML_NVLINK_MAX_LINKS).
func bit(link int) uint64 {
	if link < 0 || link > 63 {
		return 0
	}
	return 1 << link
}

// activeOn says whether a GPU has the link up, and what is at its other end.
func activeOn(g *machine.NVMLGPU, link int) (remote string, ok bool) {
	for _, k := range g.Links {
		if k.Link == link && k.Active {
			return k.RemoteType, true
		}
	}
	return "", false
}

func (n *nvlink) judgeErrors(l *look, v *verdict, g *machine.NVMLGPU) {
	var worst []string
	measured := false
	for _, k := range g.Links {
		for _, c := range []struct {
			what  string
			value *uint64
			most  float64
		}{{"replays", k.Replays, linkErrors}, {"recoveries", k.Recoveries, linkErrors}, {"CRC errors", k.CRC, linkCRC}} {
			if c.value == nil {
				// Counters of a link are given or not by model and generation; the other checks of a link do without.
				continue
			}
			rate, ok := n.errors.perMinute(fmt.Sprintf("%s/%d/%s", identity(g), k.Link, c.what), l.load, *c.value, l.at)
			measured = measured || ok
			if ok && rate >= c.most {
				worst = append(worst, fmt.Sprintf("link %d: %.0f %s a minute", k.Link, rate, c.what))
			}
		}
	}
	if !measured {
		v.keep(g, CodeLinkErrors)
		return
	}
	if len(worst) == 0 {
		return
	}
	v.see(g, track.Observation{
		Code: CodeLinkErrors, Class: v1alpha1.ClassFabric, Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendHuman,
		Looks: linkErrorLooks, Clear: linkErrorClear, Evidence: strings.Join(worst, ", "),
	})
}
