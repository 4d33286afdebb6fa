package npd

import (
	"time"

	config "github.com/roundhouse-dev/roundhouse/internal/npd"
)

// Status is a condition's.
type Status string

// The statuses. True means that there is a problem.
const (
	True    Status = "True"
	False   Status = "False"
	Unknown Status = "Unknown"
)

// Condition is what NPD would publish as a condition of the Node.
type Condition struct {
	Type    string
	Status  Status
	Reason  string
	Message string
	// Since is when Status became what it is.
	Since time.Time
}

// said is what was last said of a condition.
type said struct {
	Status  Status    `json:"status"`
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// say says it anew. A new message alone is said only where the configuration wants that, as in NPD; it is no transition.
func (s said) say(status Status, reason, message string, at time.Time, messageToo bool) said {
	if s.Status != status {
		return said{status, reason, message, at}
	}
	if s.Reason != reason || messageToo && s.Message != message {
		s.Reason, s.Message = reason, message
	}
	return s
}

// conditions lists what was said, in the file's order.
func conditions(declared []config.Condition, by map[string]said) []Condition {
	out := make([]Condition, 0, len(declared))
	for _, d := range declared {
		if s, ok := by[d.Type]; ok {
			out = append(out, Condition{d.Type, s.Status, s.Reason, s.Message, s.Since})
		}
	}
	return out
}
