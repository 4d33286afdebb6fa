package infiniband

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the faults; docs/checks/infiniband.md describes them.
const (
	// CodeDown is a port that was up once and is not.
	CodeDown = "InfiniBandPortDown"
	// CodeNotConfigured is a port whose link is up and that no subnet manager has configured, or that has no address.
	CodeNotConfigured = "InfiniBandPortNotConfigured"
	// CodeDisabled is a port that was switched off on this machine.
	CodeDisabled = "InfiniBandPortDisabled"
	// CodeNeverUp is a port that has never been up while all of its peers are.
	CodeNeverUp = "InfiniBandPortNeverUp"
	// CodeSlow is a port at less than the rate expected of it.
	CodeSlow = "InfiniBandPortSlow"
	// CodeFlapping is a port that keeps going down.
	CodeFlapping = "InfiniBandPortFlapping"
	// CodeErrors is a port that counts more errors than a good link does.
	CodeErrors = "InfiniBandPortErrors"
	// CodeMissing is an adapter that was there and is not on the bus.
	CodeMissing = "InfiniBandAdapterMissing"
)

// minPeers is how many others of a kind have to agree before they say something of a port.
const minPeers = 2

// limit is how many of a counter's errors in an hour are too many.
type limit struct {
	name     string
	perHour  uint64
	severity v1alpha1.Severity
}

// limits are the counters that are judged. Discards are what a congested fabric does, so they are only shown.
var limits = []limit{
	{"symbol_error", 120, v1alpha1.SeverityWarning},
	{"port_rcv_errors", 120, v1alpha1.SeverityWarning},
	{"link_error_recovery", 10, v1alpha1.SeverityWarning},
	{"local_link_integrity_errors", 10, v1alpha1.SeverityWarning},
	{"excessive_buffer_overrun_errors", 10, v1alpha1.SeverityWarning},
	{"port_xmit_discards", 10000, v1alpha1.SeverityInfo},
}

// Times are how long a state must last, and how often is too often.
type Times struct {
	// Settle is how long a port must be down, slow or away before that is a fault: links train and subnet managers sweep.
	Settle time.Duration
	// FlapsPerHour is how many times going down within an hour are flapping.
	FlapsPerHour uint64
}

// DefaultTimes are what docs/checks/infiniband.md says.
func DefaultTimes() Times { return Times{Settle: 30 * time.Second, FlapsPerHour: 3} }

// onBus is what the PCI bus says of an adapter that has no port here.
type onBus struct {
	there  bool
	driver string
}

// verdict is what one look gives.
type verdict struct {
	findings []health.Finding
	// pending is what looks wrong and has not lasted; again is when the soonest of it has.
	pending []string
	again   time.Duration
	// blind is what could not be seen, and notes what else is worth saying.
	blind, notes []string
}

// judge says what is wrong with the ports. It notes in them since when, and is pure otherwise.
func judge(ports []known, rates []Rate, bus map[string]onBus, now time.Time, t Times) verdict {
	var v verdict
	for i := range ports {
		k := &ports[i]
		switch {
		case k.seen == nil:
			v.away(k, bus[k.PCI], now, t)
		case k.seen.State == machine.PortUnknown:
			v.blind = append(v.blind, k.name()+": cannot read "+cmp.Or(k.seen.Unread, "state"))
		default:
			k.Boot.AwayFrom = time.Time{}
			if k.seen.Unread != "" {
				v.blind = append(v.blind, k.name()+": cannot read "+k.seen.Unread)
			}
			want := declared(rates, k.seen)
			v.state(ports, k, want != 0, now, t)
			v.rate(ports, k, want, now, t)
			v.flaps(k, t)
			v.errors(k)
		}
	}
	v.findings = merged(v.findings)
	return v
}

// find adds a fault of a port.
func (v *verdict) find(k *known, code string, s v1alpha1.Severity, r v1alpha1.Recommendation, from time.Time, evidence string) *v1alpha1.Fault {
	v.findings = append(v.findings, health.Finding{
		PCI: k.PCI, ClearedBy: health.ClearedByLook,
		Fault: v1alpha1.Fault{
			Code: code, Check: Name, Class: v1alpha1.ClassFabric, Severity: s, Recommended: r, Root: true, Count: 1,
			FirstSeen: metav1.NewTime(from), LastSeen: metav1.NewTime(from), Evidence: health.Bound(k.name()+": "+evidence, health.MaxEvidence),
		},
	})
	return &v.findings[len(v.findings)-1].Fault
}

// lasts says whether what began at from has lasted, and puts it among the pending when not. It sets from when unset.
func (v *verdict) lasts(k *known, from *time.Time, now time.Time, t Times, what string) bool {
	if from.IsZero() || now.Before(*from) {
		*from = now
	}
	left := t.Settle - now.Sub(*from)
	if left <= 0 {
		return true
	}
	v.pending = append(v.pending, k.name()+": "+what)
	if v.again == 0 || left < v.again {
		v.again = left
	}
	return false
}

// away judges a port that was up once and is not there. Its adapter may have been given to a virtual machine or, where
// RDMA devices are kept apart by network namespace, to a pod; only one that is not on the bus either is missing.
func (v *verdict) away(k *known, bus onBus, now time.Time, t Times) {
	switch {
	case !k.Active:
	case !bus.there:
		if v.lasts(k, &k.Boot.AwayFrom, now, t, "not on the PCI bus") {
			f := v.find(k, CodeMissing, v1alpha1.SeverityCritical, v1alpha1.RecommendReboot, k.Boot.AwayFrom,
				fmt.Sprintf("its adapter, last at %s, is not on the PCI bus", k.PCI))
			f.Class, f.LastSeen = v1alpha1.ClassHardware, metav1.NewTime(now)
		}
		return
	case bus.driver == "":
		v.blind = append(v.blind, fmt.Sprintf("%s: no driver holds its adapter at %s", k.name(), k.PCI))
	default:
		v.notes = append(v.notes, fmt.Sprintf("%s: not seen here while %s holds its adapter: in another network namespace, or a guest's", k.name(), bus.driver))
	}
	k.Boot.AwayFrom = time.Time{}
}

// state judges whether a port is up. One that never was, and that nobody declared to be, is taken for not cabled, unless it
// is the only one of its kind.
func (v *verdict) state(ports []known, k *known, wanted bool, now time.Time, t Times) {
	p := k.seen
	if up(p) {
		k.Boot.DownFrom = time.Time{}
		return
	}
	what := fmt.Sprintf("state %s, physical state %s", p.State, phys(p.Phys))
	code, severity, recommended := CodeDown, v1alpha1.SeverityCritical, v1alpha1.RecommendHuman
	peersUp, peersDown := 0, 0
	for _, q := range peers(ports, k) {
		if up(q.seen) {
			peersUp++
		} else {
			peersDown++
		}
	}
	wanted = wanted || k.Active
	// Of Ethernet, drivers write Disabled also where the cable is out (ocrdma_query_port and irdma_query_port, for two).
	off := p.Phys == machine.PhysDisabled && p.Layer != machine.LayerEthernet
	switch {
	case !wanted && (off || peersUp < minPeers || peersDown > 0):
		v.notes = append(v.notes, k.name()+": never up, taken for not cabled")
		k.Boot.DownFrom = time.Time{}
		return
	case !wanted:
		code, severity = CodeNeverUp, v1alpha1.SeverityWarning
		what += fmt.Sprintf("; it has never been up, its %d peers are", peersUp)
	case off:
		code, severity, recommended = CodeDisabled, v1alpha1.SeverityInfo, v1alpha1.RecommendNone
	case p.State == machine.PortInit || p.State == machine.PortArmed:
		code = CodeNotConfigured
		if p.Layer == machine.LayerEthernet {
			// A port of iWARP whose network interface has no address (iw_query_port in core/device.c).
			severity, recommended = v1alpha1.SeverityInfo, v1alpha1.RecommendNone
		}
	}
	if v.lasts(k, &k.Boot.DownFrom, now, t, what) {
		v.find(k, code, severity, recommended, k.Boot.DownFrom, what).LastSeen = metav1.NewTime(now)
	}
}

func phys(n uint8) string {
	switch n {
	case machine.PhysPolling:
		return "Polling"
	case machine.PhysDisabled:
		return "Disabled"
	case machine.PhysLinkUp:
		return "LinkUp"
	}
	return strconv.Itoa(int(n))
}

// peers are the other ports of the same kind that can be seen: the same model and link layer, the same function of its
// adapter and the same number, since the second port of a board is often not cabled.
func peers(ports []known, k *known) []*known {
	var out []*known
	for i := range ports {
		q := &ports[i]
		if q != k && q.seen != nil && q.seen.State != machine.PortUnknown && q.Model == k.Model && q.Layer == k.Layer &&
			q.Number == k.Number && function(q.PCI) == function(k.PCI) {
			out = append(out, q)
		}
	}
	return out
}

// function is the function's part of a PCI address.
func function(address string) string { return address[strings.LastIndexByte(address, '.')+1:] }

// shortfall is how a rate falls short.
type shortfall struct {
	want        uint32
	from        string
	severity    v1alpha1.Severity
	recommended v1alpha1.Recommendation
}

// expect is by what a port's rate falls short; none when it does not. What is declared counts alone. Else it is held
// against the best it ever had, and against its peers: fewer lanes than all of them have is a bad cable, while a mere lower
// speed may be how it is wired, to another switch, and is only shown.
func expect(p *machine.InfiniBandPort, k *known, peers []*known, declared uint32) (shortfall, bool) {
	warn, human := v1alpha1.SeverityWarning, v1alpha1.RecommendHuman
	if declared != 0 {
		return shortfall{declared, "Declared", warn, human}, p.Mbps < declared
	}
	slower, narrower, n := uint32(0), p.Layer == machine.LayerInfiniBand, 0
	for _, q := range peers {
		if !up(q.seen) || q.seen.Mbps == 0 {
			continue
		}
		n++
		if slower == 0 || q.seen.Mbps < slower {
			slower = q.seen.Mbps // what all of them have at least
		}
		narrower = narrower && q.seen.Lanes > p.Lanes
	}
	switch {
	case p.Mbps < k.Mbps:
		return shortfall{k.Mbps, "Learned", warn, human}, true
	case n >= minPeers && p.Mbps < slower && narrower:
		return shortfall{slower, "Peers", warn, human}, true
	case n >= minPeers && p.Mbps < slower:
		return shortfall{slower, "Peers", v1alpha1.SeverityInfo, v1alpha1.RecommendNone}, true
	}
	return shortfall{}, false
}

// rate judges the rate of a port that is up; that of one that is down means nothing.
func (v *verdict) rate(ports []known, k *known, declared uint32, now time.Time, t Times) {
	p := k.seen
	s, short := shortfall{}, false
	if up(p) && p.Mbps != 0 {
		s, short = expect(p, k, peers(ports, k), declared)
	}
	if !short {
		k.Boot.SlowFrom = time.Time{}
		return
	}
	what := fmt.Sprintf("runs at %s Gb/s on %d lanes, expected %s Gb/s (%s)", gbps(p.Mbps), p.Lanes, gbps(s.want), s.from)
	if s.severity == v1alpha1.SeverityInfo && k.Boot.SlowFrom.IsZero() {
		k.Boot.SlowFrom = now
	}
	if s.severity == v1alpha1.SeverityInfo || v.lasts(k, &k.Boot.SlowFrom, now, t, what) {
		v.find(k, CodeSlow, s.severity, s.recommended, k.Boot.SlowFrom, what).LastSeen = metav1.NewTime(now)
	}
}

func gbps(mbps uint32) string { return strconv.FormatFloat(float64(mbps)/1000, 'f', -1, 64) }

// flaps judges how often a port went down: from the limit on, and until an hour has passed without.
func (v *verdict) flaps(k *known, t Times) {
	b := &k.Boot
	n := b.Downs.Sum()
	b.Flaps = n >= t.FlapsPerHour || b.Flaps && n > 0
	if b.Flaps {
		f := v.find(k, CodeFlapping, v1alpha1.SeverityWarning, v1alpha1.RecommendHuman, b.Downs.Since,
			fmt.Sprintf("went down %d times in the last hour", n))
		f.Count, f.LastSeen = int64(min(b.Downs.Count, 1<<62)), metav1.NewTime(b.Downs.Last)
	}
}

// errors judges the error counters: each from its limit on, and until there is less than half of that.
func (v *verdict) errors(k *known) {
	b := &k.Boot
	severity := v1alpha1.SeverityInfo
	var all track.Window
	var said []string
	for _, l := range limits {
		w := b.Errors[l.name]
		n := w.Sum()
		noisy := n >= l.perHour || b.Noisy[l.name] && n > 0 && n >= l.perHour/2
		if noisy != b.Noisy[l.name] {
			if b.Noisy == nil {
				b.Noisy = make(map[string]bool)
			}
			b.Noisy[l.name] = noisy
		}
		if !noisy {
			continue
		}
		if l.severity == v1alpha1.SeverityWarning {
			severity = l.severity
		}
		if all.Count == 0 || w.Since.Before(all.Since) {
			all.Since = w.Since
		}
		if all.Last.Before(w.Last) {
			all.Last = w.Last
		}
		all.Count += w.Count
		said = append(said, fmt.Sprintf("%s %d", l.name, n))
	}
	if len(said) == 0 {
		return
	}
	f := v.find(k, CodeErrors, severity, v1alpha1.RecommendNone, all.Since, "in the last hour "+strings.Join(said, ", "))
	f.Count, f.LastSeen = int64(min(all.Count, 1<<62)), metav1.NewTime(all.Last)
}

// merged is one finding for each code and adapter, since that is how a finding is known; an adapter's ports are named in
// its evidence.
func merged(findings []health.Finding) []health.Finding {
	slices.SortStableFunc(findings, func(a, b health.Finding) int {
		return cmp.Or(cmp.Compare(a.PCI, b.PCI), cmp.Compare(a.Fault.Code, b.Fault.Code))
	})
	var out []health.Finding
	for _, f := range findings {
		last := len(out) - 1
		if last < 0 || out[last].PCI != f.PCI || out[last].Fault.Code != f.Fault.Code {
			out = append(out, f)
			continue
		}
		to := &out[last].Fault
		if to.Severity == v1alpha1.SeverityInfo {
			to.Severity, to.Recommended = f.Fault.Severity, f.Fault.Recommended
		}
		if f.Fault.FirstSeen.Before(&to.FirstSeen) {
			to.FirstSeen = f.Fault.FirstSeen
		}
		if to.LastSeen.Before(&f.Fault.LastSeen) {
			to.LastSeen = f.Fault.LastSeen
		}
		to.Count += f.Fault.Count
		to.Evidence = health.Bound(to.Evidence+"; "+f.Fault.Evidence, health.MaxEvidence)
	}
	return out
}
