// Package history keeps what happened within bounds: an incident's timeline, and what is remembered of a device once the
// incident's object is gone. It is pure.
package history

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Bounds of the lists, as the schema has them.
const (
	maxTimeline  = 64
	keepFirst    = 8
	maxIncidents = 50
	maxPlaces    = 16
	maxAttempts  = 32
)

// Happened adds an entry to an incident's timeline. Where it is full, the oldest entry goes that is neither among the
// first eight nor a change of phase; where there is none such, the oldest after the first eight.
func Happened(st *v1alpha1.RemediationStatus, entry v1alpha1.TimelineEntry) {
	if len(st.Timeline) >= maxTimeline {
		drop := keepFirst
		for i := keepFirst; i < len(st.Timeline); i++ {
			if st.Timeline[i].Phase == st.Timeline[i-1].Phase {
				drop = i
				break
			}
		}
		st.Timeline = slices.Delete(st.Timeline, drop, drop+1)
		st.TimelineDropped++
	}
	st.Timeline = append(st.Timeline, entry)
}

// Tried adds an attempt, or replaces the one of the same action: a repair that relapsed is still one attempt. A proof without an
// action of ours has no ID, and is the same as another only where nothing came between.
func Tried(st *v1alpha1.RemediationStatus, a v1alpha1.Attempt) {
	i := slices.IndexFunc(st.Attempts, func(b v1alpha1.Attempt) bool { return b.ActionID == a.ActionID })
	if a.ActionID == "" && i >= 0 && i != len(st.Attempts)-1 {
		if i = len(st.Attempts) - 1; st.Attempts[i].ActionID != "" {
			i = -1
		}
	}
	if i >= 0 {
		st.Attempts[i] = a
		return
	}
	st.Attempts = append(st.Attempts, a)
	if extra := len(st.Attempts) - maxAttempts; extra > 0 {
		st.Attempts = slices.Delete(st.Attempts, 0, extra)
	}
}

var dnsName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// RecordName is the name of a device's record: its ID in lower case, or a hash where that is no DNS name. An ID that only
// says model and place is told from the same on another node by the node's name.
func RecordName(node, deviceID string) string {
	name := strings.ToLower(deviceID)
	if !weak(deviceID) && len(name) <= 253 && dnsName.MatchString(name) && !strings.Contains(name, "..") {
		return name
	}
	of := deviceID
	if weak(deviceID) {
		of = node + "\x00" + deviceID
	}
	sum := sha256.Sum256([]byte(of))
	return "device-" + hex.EncodeToString(sum[:10])
}

// weak says whether an ID is only a model at a slot, or an address, as the agent's inventory makes them.
func weak(deviceID string) bool {
	return deviceID == "" || strings.Contains(deviceID, "-slot-") || strings.Contains(deviceID, "-pci-") || strings.HasPrefix(deviceID, "pci-")
}

// Identity is what of a device outlives its place. Weak says that only its place tells it from others.
func Identity(d v1alpha1.Device) v1alpha1.DeviceIdentity {
	id := v1alpha1.DeviceIdentity{Serial: d.Serial, Vendor: d.Vendor, Model: d.Model}
	if d.ID != d.Serial && !weak(d.ID) {
		id.UUID = d.ID
	}
	id.Weak = id.UUID == "" && id.Serial == ""
	return id
}

// Fold adds an incident to a device's record; an incident that is in it already is replaced, and not counted again.
func Fold(st *v1alpha1.DeviceRecordStatus, rem *v1alpha1.Remediation, d v1alpha1.Device, now time.Time) {
	st.Identity = Identity(d)
	place(st, v1alpha1.Place{Node: rem.Spec.Node, Slot: d.Slot, From: rem.Spec.Root.FirstSeen})
	digest := Digest(rem, now)
	i := slices.IndexFunc(st.Incidents, func(in v1alpha1.DeviceIncident) bool { return in.Remediation == rem.Name })
	var before v1alpha1.DeviceIncident
	if i >= 0 {
		before = st.Incidents[i]
		st.Incidents[i] = digest
	} else {
		st.Incidents = append(st.Incidents, digest)
		st.Totals.Incidents++
	}
	st.Totals.Repairs += digest.Repairs - before.Repairs
	st.Totals.Relapses += digest.Relapses - before.Relapses
	addOut(st, before, digest)
	if extra := len(st.Incidents) - maxIncidents; extra > 0 {
		st.Incidents = slices.Delete(st.Incidents, 0, extra)
	}
	st.Suspicion = suspect(st, now)
}

func place(st *v1alpha1.DeviceRecordStatus, p v1alpha1.Place) {
	if n := len(st.Places); n > 0 && st.Places[n-1].Node == p.Node && st.Places[n-1].Slot == p.Slot {
		return
	}
	st.Places = append(st.Places, p)
	if extra := len(st.Places) - maxPlaces; extra > 0 {
		st.Places = slices.Delete(st.Places, 0, extra)
	}
}

// Digest is what is remembered of an incident.
func Digest(rem *v1alpha1.Remediation, now time.Time) v1alpha1.DeviceIncident {
	in := v1alpha1.DeviceIncident{Remediation: rem.Name, Code: rem.Spec.Root.Code, Outcome: rem.Status.Phase, At: rem.Spec.Root.FirstSeen}
	for _, a := range rem.Status.Attempts {
		switch a.Result {
		case v1alpha1.AttemptRepaired:
			in.Repairs++
			in.RepairedBy = a.Rung
		case v1alpha1.AttemptRelapsed:
			in.Repairs++
			in.Relapses++
		default:
			// Nothing came back into service.
		}
	}
	if rem.Status.Phase.Over() {
		ended := metav1.NewTime(now)
		if rem.Status.Since != nil {
			ended = *rem.Status.Since
		}
		in.Ended = &ended
	}
	return in
}

// addOut adds the time an incident lasted, as far as it was not added before.
func addOut(st *v1alpha1.DeviceRecordStatus, before, after v1alpha1.DeviceIncident) {
	total, err := strconv.ParseFloat(st.Totals.OutHours, 64)
	if err != nil {
		total = 0 // empty in a new record.
	}
	total += lasted(after) - lasted(before)
	st.Totals.OutHours = strconv.FormatFloat(max(0, total), 'f', 2, 64)
}

func lasted(in v1alpha1.DeviceIncident) float64 {
	if in.Ended == nil {
		return 0
	}
	return max(0, in.Ended.Sub(in.At.Time).Hours())
}

// Repairs counts the repairs in a record since a time, without those of one incident.
func Repairs(st v1alpha1.DeviceRecordStatus, since time.Time, except string) int {
	n := 0
	for _, in := range st.Incidents {
		if in.Remediation != except && !in.At.Time.Before(since) {
			n += int(in.Repairs)
		}
	}
	return n
}

// suspectWithin is how far back incidents speak against a device: the window in which Meta's study of research clusters
// looked for lemon nodes (28 days; secondary source, see docs/design).
const suspectWithin = 28 * 24 * time.Hour

func suspect(st *v1alpha1.DeviceRecordStatus, now time.Time) *v1alpha1.Suspicion {
	var recent, relapses int32
	for _, in := range st.Incidents {
		if now.Sub(in.At.Time) <= suspectWithin {
			recent++
			relapses += in.Relapses
		}
	}
	s := &v1alpha1.Suspicion{Level: "None"}
	if recent > 1 {
		s.Level = "Watch"
		s.Because = append(s.Because, fmt.Sprintf("%d incidents in 28 days", recent))
	}
	if relapses > 0 {
		s.Level = "Watch"
		s.Because = append(s.Because, fmt.Sprintf("%d repairs in 28 days did not last", relapses))
	}
	if recent >= 3 || relapses >= 2 {
		s.Level = "Lemon"
	}
	if len(st.Places) > 1 && recent > 1 {
		s.Because = append(s.Because, "follows the device, not the slot")
	}
	return s
}
