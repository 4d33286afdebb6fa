// Package maintenance is planned work as a human asks for it: an annotation on the Node, so that one open incident, of a fault
// or of planned work, goes through the same queue, and a node that is re-created inherits nothing.
package maintenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Bounds of a request's texts.
const (
	MaxReason = 256
	maxName   = 128
	maxText   = 4096
)

// DefaultDeadline is how long planned work waits for its moment before a human is told that it has not come.
const DefaultDeadline = 7 * 24 * time.Hour

// Request is what somebody asks for.
type Request struct {
	// Reason says why, and By who asks.
	Reason string `json:"reason"`
	By     string `json:"by"`
	// At is when it was asked for. What has been done to the node since then counts.
	At metav1.Time `json:"at"`
	// Rung is a rung of the node's policy, such as one that reboots or runs a Job. Without it the node is emptied and handed
	// to a human, who says when it is done.
	Rung string `json:"rung,omitempty"`
	// When is the moment; Idle without it: no work is lost by it.
	When v1alpha1.When `json:"when,omitempty"`
	// NotBefore is when it may begin, and Until when a human is told that it has not.
	NotBefore *metav1.Time `json:"notBefore,omitempty"`
	Until     *metav1.Time `json:"until,omitempty"`
}

// Of reads the request on a Node; nil where there is none. The error names the field, and what would be right.
func Of(node *corev1.Node) (*Request, error) {
	text, ok := node.Annotations[v1alpha1.AnnotationMaintenance]
	if !ok {
		return nil, nil
	}
	r, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("annotation %s of node %s: %w", v1alpha1.AnnotationMaintenance, node.Name, err)
	}
	return r, nil
}

func parse(text string) (*Request, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("it has %d bytes, and %d are the most", len(text), maxText)
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	r := &Request{}
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("write it with kubectl roundhouse maintain: %w", err)
	}
	if d.More() {
		return nil, errors.New("there is more after the first JSON object")
	}
	return r, r.Check()
}

// Check says what is wrong with a request.
func (r *Request) Check() error {
	switch {
	case strings.TrimSpace(r.Reason) == "":
		return errors.New("reason is empty: say why, for those who find it at night")
	case len(r.Reason) > MaxReason:
		return fmt.Errorf("reason has %d bytes, and %d are the most", len(r.Reason), MaxReason)
	case r.By == "" || len(r.By) > maxName:
		return fmt.Errorf("by must have from 1 to %d bytes: say who asks", maxName)
	case r.At.IsZero():
		return errors.New("at is missing: say when it was asked for, such as 2026-11-23T10:00:00Z")
	case len(r.Rung) > maxName:
		return fmt.Errorf("rung has %d bytes, and %d are the most", len(r.Rung), maxName)
	case r.When != "" && r.When != v1alpha1.WhenNow && r.When != v1alpha1.WhenIdle && r.When != v1alpha1.WhenWindow:
		return fmt.Errorf("when is %q: write Now, Idle or Window", r.When)
	case r.Until != nil && !r.Until.After(r.Begins()):
		return errors.New("until must come after notBefore, and after at")
	}
	return nil
}

// Begins is when it may begin.
func (r *Request) Begins() time.Time {
	if r.NotBefore != nil && r.NotBefore.After(r.At.Time) {
		return r.NotBefore.Time
	}
	return r.At.Time
}

// Ends is when a human is told that it has not begun, where it has waited since that time.
func (r *Request) Ends(since time.Time) time.Time {
	if r.Until != nil {
		return r.Until.Time
	}
	if begins := r.Begins(); begins.After(since) {
		since = begins
	}
	return since.Add(DefaultDeadline)
}

// String is what the annotation says.
func (r *Request) String() string {
	text, err := json.Marshal(r)
	if err != nil {
		return "" // a structure of texts and times is always JSON.
	}
	return string(text)
}

// Says tells it in a sentence.
func (r *Request) Says() string { return fmt.Sprintf("planned by %s: %s", r.By, r.Reason) }
