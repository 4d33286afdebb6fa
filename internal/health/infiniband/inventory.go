package infiniband

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// maxKnown bounds the inventory.
const maxKnown = 128

// known is one port this machine has had, and what became of it in this boot.
type known struct {
	GUID   string `json:"guid,omitempty"`
	PCI    string `json:"pci"`
	Device string `json:"device"`
	Number int    `json:"number"`
	Model  string `json:"model,omitempty"`
	Layer  string `json:"layer,omitempty"`
	// Active says that it was ever seen up: from then on it is missed when it is not. Mbps and Lanes are the best it was
	// seen at; they only rise, so that a port degraded from the start does not become normal once it was seen better.
	Active bool   `json:"active,omitempty"`
	Mbps   uint32 `json:"mbps,omitempty"`
	Lanes  uint8  `json:"lanes,omitempty"`

	Boot boot `json:"boot,omitzero"`

	// seen is the port at this look; nil when it is not there.
	seen *machine.InfiniBandPort
}

// boot is what happened to a port in this boot.
type boot struct {
	// Up says that it was up at the last look, Counters what it had counted; nil before the first look of the boot.
	Up       bool              `json:"up,omitempty"`
	Counters map[string]uint64 `json:"counters,omitempty"`
	// Downs are the times it went down, Errors what it counted beside that, by counter.
	Downs  track.Window            `json:"downs,omitzero"`
	Errors map[string]track.Window `json:"errors,omitempty"`
	// Flaps and Noisy are what a window began and has not ended.
	Flaps bool            `json:"flaps,omitempty"`
	Noisy map[string]bool `json:"noisy,omitempty"`
	// DownFrom, SlowFrom and AwayFrom are since when it is not up, is slower than expected, or is not there.
	DownFrom time.Time `json:"downFrom,omitzero"`
	SlowFrom time.Time `json:"slowFrom,omitzero"`
	AwayFrom time.Time `json:"awayFrom,omitzero"`
}

func (k *known) name() string {
	return (&machine.InfiniBandPort{Device: k.Device, Number: k.Number}).Name()
}

// up says whether a port carries traffic.
func up(p *machine.InfiniBandPort) bool {
	return p.State == machine.PortActive || p.State == machine.PortActiveDefer
}

// ours says whether a port is watched: that of an adapter, not of a virtual function, which come and go by configuration,
// and not of a device in software.
func ours(p *machine.InfiniBandPort, exclude []Pattern) bool {
	return p.PCI != "" && !p.Virtual && !slices.ContainsFunc(exclude, func(e Pattern) bool { return e.matches(p) })
}

// reconcile pairs what is known with what is seen: by the adapter's GUID, else by its place. Another GUID in a known place
// is a replacement, which starts with no past. changed says that the inventory is not what it was.
func reconcile(inventory []known, seen []machine.InfiniBandPort, exclude []Pattern) (out []known, changed bool) {
	out = slices.DeleteFunc(slices.Clone(inventory), func(k known) bool {
		return !ours(&machine.InfiniBandPort{Device: k.Device, Number: k.Number, PCI: k.PCI}, exclude)
	})
	changed = len(out) != len(inventory)
	for i := range out {
		out[i].seen = nil
	}
	for i := range seen {
		p := &seen[i]
		if !ours(p, exclude) {
			continue
		}
		at := slices.IndexFunc(out, func(k known) bool { return k.seen == nil && k.same(p) })
		if at < 0 {
			at = slices.IndexFunc(out, func(k known) bool { return k.seen == nil && k.PCI == p.PCI && k.Number == p.Number })
			if at >= 0 {
				out[at] = known{}
			}
		}
		if at < 0 {
			if len(out) >= maxKnown {
				continue
			}
			out = append(out, known{})
			at = len(out) - 1
		}
		changed = out[at].update(p) || changed
	}
	return out, changed
}

// same says whether it is the same port: by GUID where both have one, else by place.
func (k *known) same(p *machine.InfiniBandPort) bool {
	if k.Number != p.Number {
		return false
	}
	if guid := identity(p); guid != "" && k.GUID != "" {
		return guid == k.GUID
	}
	return k.PCI == p.PCI
}

// identity is the adapter's GUID, where it has one.
func identity(p *machine.InfiniBandPort) string {
	if strings.Trim(p.GUID, "0:") == "" {
		return ""
	}
	return p.GUID
}

// update takes over what a port says of itself, and says whether that changed what is kept of it across boots.
func (k *known) update(p *machine.InfiniBandPort) bool {
	before := *k
	if k.Layer != p.Layer {
		// A port that was made an Ethernet one, or back, begins anew.
		*k = known{}
	}
	k.GUID, k.PCI, k.Device, k.Number, k.Model, k.Layer = identity(p), p.PCI, p.Device, p.Number, p.Model, p.Layer
	if up(p) {
		k.Active = true
		k.Mbps, k.Lanes = max(k.Mbps, p.Mbps), max(k.Lanes, p.Lanes)
	}
	k.seen = p
	return k.GUID != before.GUID || k.PCI != before.PCI || k.name() != before.name() || k.Model != before.Model ||
		k.Layer != before.Layer || k.Active != before.Active || k.Mbps != before.Mbps || k.Lanes != before.Lanes
}

// count takes the counters of one look: what rose, and how often the port went down. changed says that something did.
func (k *known) count(now time.Time) (changed bool) {
	p, b := k.seen, &k.Boot
	b.Downs.Add(now, 0, "")
	for name, w := range b.Errors {
		w.Add(now, 0, "")
		b.Errors[name] = w
	}
	if p == nil || p.State == machine.PortUnknown {
		return false
	}
	if b.Counters != nil {
		downs := risen(b.Counters, p.Counters, "link_downed")
		if downs == 0 && b.Up && !up(p) {
			downs = 1 // the port has no such counter, or it stands at its end
		}
		b.Downs.Add(now, downs, "")
		changed = downs > 0
		for name := range p.Counters {
			n := risen(b.Counters, p.Counters, name)
			if n == 0 || name == "link_downed" {
				continue
			}
			w := b.Errors[name]
			w.Add(now, n, "")
			if b.Errors == nil {
				b.Errors = make(map[string]track.Window)
			}
			b.Errors[name], changed = w, true
		}
	}
	if b.Counters == nil {
		b.Counters, changed = make(map[string]uint64, len(p.Counters)), true
	}
	// One that could not be read now keeps its last value.
	maps.Copy(b.Counters, p.Counters)
	changed = changed || b.Up != up(p)
	b.Up = up(p)
	return changed
}

// risen is by how much a counter rose; one that fell was set to zero in between, by a tool or by a new driver.
func risen(before, after map[string]uint64, name string) uint64 {
	b, known := before[name]
	a, there := after[name]
	switch {
	case !known || !there:
		return 0
	case a < b:
		return a
	}
	return a - b
}

// saturated are the counters that stand at their end and count no more.
func (k *known) saturated() []string {
	var out []string
	for name, n := range k.seen.Counters {
		if n == machine.InfiniBandCounters[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
