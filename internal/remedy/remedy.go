// Package remedy says what the repairs have in common that the controller carries out. The packages below it each do one
// thing to one node and decide nothing: reboot and reset run in the agent, the others in the controller.
package remedy

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Attempt is what a remedy is asked to do.
type Attempt struct {
	// ID names the attempt: a DNS label of at most 63 characters that no other attempt has. A remedy that makes an object
	// names it so, and asked once more finds it instead of making another.
	ID string
	// Remediation is the incident that it is an attempt of.
	Remediation *v1alpha1.Remediation
	// Node is the node as it was just read from the server.
	Node *corev1.Node
	// Rung is the policy's word on how to do it.
	Rung v1alpha1.Rung
}

// Progress is how far an attempt has come.
type Progress struct {
	State   v1alpha1.RemedyState
	Message string
}

// Remedy is one way to repair a node. Its methods may be called by one controller after another, and any of them again
// after a crash; each ends with its context.
type Remedy interface {
	// Check says why the attempt cannot be made, for a person to mend, or "" where it can. It changes nothing.
	Check(ctx context.Context, a Attempt) (refusal string, err error)
	// Begin makes the attempt. It is called after v1alpha1.RemedyBegun has been written down.
	Begin(ctx context.Context, a Attempt) (Progress, error)
	// Look says how far it has come. It is called with what Begin has begun, or may have: a controller that died between
	// the word Begun and the act leaves nothing for Look to find, and that is Failed where the act must not happen twice,
	// and begun anew where it may.
	Look(ctx context.Context, a Attempt) (Progress, error)
	// End takes away what the attempt has put anywhere, when it has ended or was given up. It may be called when there is
	// nothing to take away.
	End(ctx context.Context, a Attempt) error
}

// Refused is an attempt that was not made.
func Refused(why string) Progress { return Progress{v1alpha1.RemedyRefused, why} }

// Failed is an attempt that did not work.
func Failed(why string) Progress { return Progress{v1alpha1.RemedyFailed, why} }

// Running is an attempt under way.
func Running(what string) Progress { return Progress{v1alpha1.RemedyRunning, what} }

// Succeeded is an attempt that reports success; what it repaired is proved elsewhere.
func Succeeded(what string) Progress { return Progress{v1alpha1.RemedySucceeded, what} }

// maxLabel is the longest DNS label (RFC 1123).
const maxLabel = 63

// Label makes a DNS label of an action's ID, which is made of a node's name and may have dots, or be too long. The same ID
// gives the same label, and different ones give different ones.
func Label(id string) string {
	label := strings.ReplaceAll(id, ".", "-")
	if label == id && len(id) <= maxLabel {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	hash := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:10]
	return strings.TrimRight(label[:min(len(label), maxLabel-len(hash)-1)], "-") + "-" + hash
}
