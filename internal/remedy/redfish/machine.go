package redfish

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// otherMachine says how the UUID of a Redfish system shows that it is not the node's: a label with a wrong digit must not take
// the power from a machine that works. Both are the SMBIOS UUID (DSP0268, ComputerSystem.UUID; Node's status.nodeInfo.systemUUID
// is the kernel's product_uuid). Some firmware has the bytes of the first three fields the other way round. Where either is
// not told, nothing is shown.
func otherMachine(node corev1.NodeSystemInfo, system string) string {
	// Where the kernel has no UUID of the machine, the kubelet gives its machine ID.
	if plainUUID(node.SystemUUID) == plainUUID(node.MachineID) {
		return ""
	}
	ours, ok := uuid(node.SystemUUID)
	theirs, told := uuid(system)
	if !ok || !told || slices.Equal(ours, theirs) || slices.Equal(ours, swapped(theirs)) {
		return ""
	}
	return fmt.Sprintf("its system has UUID %s, the node %s", clip(system, 64), clip(node.SystemUUID, 64))
}

func plainUUID(text string) string {
	return strings.ToLower(strings.ReplaceAll(text, "-", ""))
}

// uuid reads one that tells something: not all zeros or ones.
func uuid(text string) ([]byte, bool) {
	id, err := hex.DecodeString(plainUUID(text))
	if err != nil || len(id) != 16 {
		return nil, false
	}
	for _, b := range id {
		if b != 0 && b != 0xff {
			return id, true
		}
	}
	return nil, false
}

// swapped has the bytes of the first three fields the other way round.
func swapped(id []byte) []byte {
	id = slices.Clone(id)
	slices.Reverse(id[0:4])
	slices.Reverse(id[4:6])
	slices.Reverse(id[6:8])
	return id
}
