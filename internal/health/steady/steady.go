// Package steady gives the findings of a check hysteresis: one that goes and comes back within a while is the same one, with
// its first sighting and its count, and it stands in between. The agent settles what each check found in it, and so does a
// replay of recorded logs.
package steady

import (
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

// unknownDevice begins the ID that health.Identify gives a device that is known by its address alone.
const unknownDevice = "pci-"

// MaxHeld bounds what is remembered of one check; more than the API's list holds, so that what is dropped is counted.
const MaxHeld = 4 * health.MaxFindings

// findingKey says which findings are the same one. place is the PCI address, which a check knows even when it cannot tell
// which device is there; else the device's ID.
type findingKey struct{ check, code, place string }

// held is a finding and what hysteresis knows of it.
type held struct {
	finding health.Finding
	// base is the count of the times before it came back.
	base int64
	// absent is since when no look sees it; zero while one does.
	absent time.Time
}

// Findings are what stands of one check. The zero value is ready.
type Findings struct {
	order []findingKey
	held  map[findingKey]*held
}

func keyOf(f health.Finding) findingKey {
	key := findingKey{check: f.Fault.Check, code: f.Fault.Code, place: f.PCI}
	if key.place == "" {
		key.place = f.Fault.Device
	}
	return key
}

// Settle takes what a look found and returns what stands. Only what a look clears is kept for a while; what a reset, a
// boot or silence clears is gone when the check says so.
func (s *Findings) Settle(found []health.Finding, now time.Time, clearAfter time.Duration) []health.Finding {
	if s.held == nil {
		s.held = make(map[findingKey]*held, len(found))
	}
	if len(found) > MaxHeld {
		found = found[:MaxHeld]
	}
	out := make([]health.Finding, 0, len(found))
	present := make(map[findingKey]bool, len(found))
	for _, f := range found {
		key := keyOf(f)
		if present[key] {
			continue
		}
		present[key] = true
		out = append(out, s.see(key, f))
	}
	order := s.order[:0]
	for _, key := range s.order {
		h := s.held[key]
		if !present[key] {
			if h.absent.IsZero() {
				h.absent = now
			}
			full := len(out) >= MaxHeld
			if full || h.finding.ClearedBy != health.ClearedByLook || now.Sub(h.absent) >= clearAfter {
				delete(s.held, key)
				continue
			}
			out = append(out, h.finding)
		}
		order = append(order, key)
	}
	s.order = order
	return out
}

// see takes one finding of a look.
func (s *Findings) see(key findingKey, f health.Finding) health.Finding {
	h, ok := s.held[key]
	if !ok {
		h = &held{}
		s.held[key] = h
		s.order = append(s.order, key)
	} else {
		// A check that remembers its findings itself has kept the first sighting, and its count goes on.
		// Whole seconds, because a seeded one has no more.
		if !h.absent.IsZero() && seconds(f.Fault.FirstSeen.Time).After(h.finding.Fault.FirstSeen.Time) {
			h.base = h.finding.Fault.Count
		}
		if h.finding.Fault.FirstSeen.Before(&f.Fault.FirstSeen) {
			f.Fault.FirstSeen = h.finding.Fault.FirstSeen
		}
		h.absent = time.Time{}
	}
	f.Fault.Count += h.base
	h.finding = f
	return f
}

// Seed takes what was published in this boot before the agent started, and returns what stands then: it stands until the
// check has looked for a while and not seen it, and keeps its first sighting when the check finds it again.
func (s *Findings) Seed(faults []v1alpha1.Fault, devices []v1alpha1.Device, now time.Time) []health.Finding {
	if s.held == nil {
		s.held = make(map[findingKey]*held, len(faults))
	}
	for _, f := range faults {
		// What the check itself says of how it clears is not in the API; a look will tell.
		finding := health.Finding{Fault: f, PCI: addressOf(f.Device, devices), ClearedBy: health.ClearedByLook}
		key := keyOf(finding)
		h := s.held[key]
		if h == nil {
			s.order = append(s.order, key)
			s.held[key] = &held{finding: finding, absent: now}
		} else if f.FirstSeen.Before(&h.finding.Fault.FirstSeen) {
			h.finding.Fault.FirstSeen = f.FirstSeen
		}
	}
	out := make([]health.Finding, 0, len(s.order))
	for _, key := range s.order {
		out = append(out, s.held[key].finding)
	}
	return out
}

// addressOf is the PCI address of a published device; empty when there is none.
func addressOf(id string, devices []v1alpha1.Device) string {
	for i := range devices {
		if devices[i].ID == id {
			return devices[i].PCI
		}
	}
	address, _ := strings.CutPrefix(id, unknownDevice)
	if address == id {
		return ""
	}
	return address
}

// seconds is a time as the API keeps it: whole seconds, UTC.
func seconds(t time.Time) metav1.Time { return metav1.NewTime(t.UTC().Truncate(time.Second)) }
