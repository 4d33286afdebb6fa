package decide

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Open says whether the faults of a node with no open incident begin one, and which. The name is made of the node's UID,
// the root fault, when it was first seen, and how many such incidents are over already: two controllers that see the same
// begin the same, and the second meets AlreadyExists.
func Open(s *Snapshot) (*v1alpha1.Remediation, bool) {
	if s.Node == nil {
		return nil, false
	}
	ours := s.ours()
	if len(ours) == 0 {
		return nil, false
	}
	root := ours[0].Fault
	rem := &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{
			Name:       s.freeName(root),
			Finalizers: []string{v1alpha1.FinalizerRemediation},
		},
		Spec: v1alpha1.RemediationSpec{
			Node:    s.Node.Name,
			NodeUID: string(s.Node.UID),
			Root:    v1alpha1.RootFault{Code: root.Code, Device: root.Device, Check: root.Check, FirstSeen: root.FirstSeen},
			Devices: faultyDevices(ours),
			Policy:  s.Policy.Policy.Name,
			Cause:   v1alpha1.CauseFaults,
		},
	}
	if ours[0].planned() {
		rem.Spec.Cause = v1alpha1.CauseMaintenance
	}
	draft := *s
	draft.Remediation = rem
	rem.Spec.Quarantine = draft.lackingIntents(rem.Spec.Devices)
	return rem, true
}

// freeName is the first name of an incident of this fault that none has which is over: its fault came back as it was, or
// the policy had moved on and has come back.
func (s *Snapshot) freeName(root v1alpha1.Fault) string {
	taken := map[string]bool{}
	for _, rem := range s.Over {
		taken[rem.Name] = true
	}
	for again := 0; ; again++ {
		if n := name(s.Node.Name, string(s.Node.UID), root, again); !taken[n] {
			return n
		}
	}
}

// Again says whether an incident of the same fault, seen first at the same time, is over.
func Again(s *Snapshot, rem *v1alpha1.Remediation) bool {
	return slices.ContainsFunc(s.Over, func(over *v1alpha1.Remediation) bool {
		a, b := rem.Spec.Root, over.Spec.Root
		return a.Code == b.Code && a.Device == b.Device && a.FirstSeen.Equal(&b.FirstSeen)
	})
}

// cancelledFor says whether a human has cancelled the incident that a fault belongs to. That stands for its devices until
// the fault it began with has gone: what the same breakage shows a moment later is no new incident.
func (s *Snapshot) cancelledFor(m Matched) bool {
	return slices.ContainsFunc(s.Over, func(rem *v1alpha1.Remediation) bool {
		about := slices.Contains(rem.Spec.Devices, m.Fault.Device) || len(rem.Spec.Devices) == 0 && m.Fault.Device == ""
		return about && CancelStands(s, rem)
	})
}

// CancelStands says whether a human has cancelled an incident and the fault it began with is still there. It is kept for as
// long: without it the fault would begin another.
func CancelStands(s *Snapshot, rem *v1alpha1.Remediation) bool {
	root := rem.Spec.Root
	return rem.Status.Phase == v1alpha1.PhaseCancelled && rem.Spec.Cancel && slices.ContainsFunc(s.Faults, func(now Matched) bool {
		return now.Fault.Code == root.Code && now.Fault.Device == root.Device && now.Fault.FirstSeen.Equal(&root.FirstSeen)
	})
}

// nameRoom is what a node's name may take of a Remediation's, so that the whole fits a label and a taint's value (63).
const nameRoom = 52

func name(node, uid string, root v1alpha1.Fault, again int) string {
	of := []string{uid, root.Code, root.Device, root.FirstSeen.UTC().Format(time.RFC3339)}
	if again > 0 {
		of = append(of, strconv.Itoa(again))
	}
	sum := sha256.Sum256([]byte(strings.Join(of, "\x00")))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:10]
	// A dot may stand in a node's name but not next to a hyphen in an object's.
	node = strings.TrimRight(node[:min(len(node), nameRoom)], "-.")
	return fmt.Sprintf("%s-%s", node, hash)
}
