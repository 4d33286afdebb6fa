package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const (
	journalName    = "agent-journal.json"
	journalVersion = 1
	// maxActs is how many acts are remembered. An older id can only come back with a boot ID and a deadline that are long
	// over.
	maxActs = 16
	// maxSpent bounds the times that are counted against the daily limit, and so the limit itself.
	maxSpent = 64
	// storeTimeout bounds one read or write of the journal.
	storeTimeout = 10 * time.Second
	// limitWindow is what the daily limit counts over.
	limitWindow = 24 * time.Hour
)

// journal is what the host remembers, whatever becomes of the agent or of the API's objects.
type journal struct {
	Version int             `json:"version"`
	Boots   []v1alpha1.Boot `json:"boots,omitempty"`
	// Acts are the last acts, newest last. One is written here before it begins.
	Acts []entry `json:"acts,omitempty"`
	// Spent are the starts of disruptive acts that count against the daily limit.
	Spent []metav1.Time `json:"spent,omitempty"`
	// Fence is the highest fence acted on of the NodeHealth whose UID is FenceOf; a new object begins anew.
	Fence   int64  `json:"fence,omitempty"`
	FenceOf string `json:"fenceOf,omitempty"`
}

// entry is one act. It is open while Result is empty.
type entry struct {
	ID       string                `json:"id"`
	Type     v1alpha1.ActionType   `json:"type"`
	BootID   string                `json:"bootID"`
	Began    metav1.Time           `json:"began"`
	Result   v1alpha1.ActionResult `json:"result,omitempty"`
	Reason   string                `json:"reason,omitempty"`
	Message  string                `json:"message,omitempty"`
	Finished *metav1.Time          `json:"finished,omitempty"`
}

// store is the part of Machine that keeps the journal.
type store interface {
	Load(ctx context.Context, name string) ([]byte, error)
	Save(ctx context.Context, name string, data []byte) error
}

// loadJournal reads the journal. A file that is not there is an empty journal; one that cannot be understood is an error,
// because an act it may hold must not be done again.
func loadJournal(ctx context.Context, s store) (journal, error) {
	data, err := s.Load(ctx, journalName)
	if errors.Is(err, fs.ErrNotExist) {
		return journal{Version: journalVersion}, nil
	}
	if err != nil {
		return journal{Version: journalVersion}, fmt.Errorf("reading the journal: %w", err)
	}
	j, err := parseJournal(data)
	if err != nil {
		return journal{Version: journalVersion}, fmt.Errorf("reading the journal: %w", err)
	}
	return j, nil
}

// parseJournal reads and bounds a journal.
func parseJournal(data []byte) (journal, error) {
	var j journal
	if err := json.Unmarshal(data, &j); err != nil {
		return journal{}, err
	}
	if j.Version != journalVersion {
		return journal{}, fmt.Errorf("version %d, want %d", j.Version, journalVersion)
	}
	j.bound()
	return j, nil
}

func (j *journal) bound() {
	j.Boots = tail(j.Boots, machine.MaxBoots)
	j.Acts = tail(j.Acts, maxActs)
	j.Spent = tail(j.Spent, maxSpent)
}

// tail is the last n of s.
func tail[T any](s []T, n int) []T {
	if len(s) > n {
		return slices.Clone(s[len(s)-n:])
	}
	return s
}

func (j journal) save(ctx context.Context, s store) error {
	j.bound()
	data, err := json.Marshal(j)
	if err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	if err := s.Save(ctx, journalName, data); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

func (j journal) clone() journal {
	j.Boots, j.Acts, j.Spent = slices.Clone(j.Boots), slices.Clone(j.Acts), slices.Clone(j.Spent)
	return j
}

func (j journal) equal(other journal) bool { return reflect.DeepEqual(j, other) }

// booted records the present boot. An open reboot that was begun in another boot has succeeded: reboots are idempotent by
// boot ID. What else was open in another boot was interrupted by it.
func (j *journal) booted(id string, at time.Time) {
	cause := ""
	finished := metav1.NewTime(at.Truncate(time.Second))
	for i := range j.Acts {
		a := &j.Acts[i]
		if a.Result != "" || a.BootID == id {
			continue
		}
		if a.Type == v1alpha1.ActionReboot {
			a.Result, a.Reason = v1alpha1.ResultSucceeded, v1alpha1.ActionReasonRebooted
			a.Message = "boot " + id + " follows boot " + a.BootID
			cause = a.ID
		} else {
			a.Result, a.Reason = v1alpha1.ResultInterrupted, v1alpha1.ActionReasonAgentRestarted
			a.Message = "the node started anew before the act was seen to end"
		}
		a.Finished = &finished
	}
	j.Boots = machine.RecordBoot(j.Boots, id, at, cause)
}

// find is the entry of an id.
func (j journal) find(id string) (entry, bool) {
	for i := range j.Acts {
		if j.Acts[i].ID == id {
			return j.Acts[i], true
		}
	}
	return entry{}, false
}

// open adds an act that is about to begin, and counts it against the limit. Opening an act again changes nothing: the
// same act is not counted twice.
func (j *journal) open(action v1alpha1.Action, at time.Time) {
	if _, ok := j.find(action.ID); ok {
		return
	}
	began := metav1.NewTime(at.Truncate(time.Second))
	j.Acts = append(j.Acts, entry{ID: action.ID, Type: action.Type, BootID: action.BootID, Began: began})
	j.Spent = append(slices.DeleteFunc(j.Spent, func(t metav1.Time) bool { return !counts(t.Time, at) }), began)
	j.bound()
}

// finish ends an act. One that was refused in the end has disrupted nothing, and is not counted against the limit.
func (j *journal) finish(s v1alpha1.ActionStatus) {
	for i := range j.Acts {
		if a := &j.Acts[i]; a.ID == s.ID {
			at := slices.IndexFunc(j.Spent, func(t metav1.Time) bool { return t.Equal(&a.Began) })
			if a.Result == "" && s.Result == v1alpha1.ResultRefused && at >= 0 {
				j.Spent = slices.Delete(j.Spent, at, at+1)
			}
			a.Result, a.Reason, a.Message, a.Finished = s.Result, s.Reason, s.Message, s.Finished
		}
	}
}

// spent counts the acts of the last day.
func (j journal) spent(now time.Time) int {
	count := 0
	for _, t := range j.Spent {
		if counts(t.Time, now) {
			count++
		}
	}
	return count
}

// counts says whether a time falls in the window. One in the future does: a clock that was set back gives nothing back.
func counts(t, now time.Time) bool { return now.Sub(t) < limitWindow }

// lastDone is the id of the last act that is over; a round of checks says which one it followed.
func (j journal) lastDone() string {
	for i := len(j.Acts) - 1; i >= 0; i-- {
		if j.Acts[i].Result != "" {
			return j.Acts[i].ID
		}
	}
	return ""
}

// answer is the status of an entry that is over.
func (e entry) answer() *v1alpha1.ActionStatus {
	began := e.Began
	return &v1alpha1.ActionStatus{
		ID: e.ID, State: v1alpha1.ActionDone, Result: e.Result, Reason: e.Reason, Message: e.Message,
		Started: &began, Finished: e.Finished,
	}
}
