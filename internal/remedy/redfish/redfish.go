// Package redfish takes a node's power away and gives it back, by the Redfish service of its management controller (BMC).
// It does so at most once an attempt: a lost answer is not asked for again, and what can't be known is said.
package redfish

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/stmcginnis/gofish/schemas"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// timing bounds every wait.
type timing struct {
	// request bounds one request: BMCs are slow. visit bounds all requests of one call.
	request, visit time.Duration
	// leave bounds the end of a session.
	leave time.Duration
	// settle is how long after the reset a BMC that says On may not have begun. off is how long a PowerCycle may stay off
	// before it is helped.
	settle, off time.Duration
	// patience is how long a doubt whether the power was cycled is left open for a new boot to answer.
	patience time.Duration
	// poll is how often a task or a power state is asked for within one call, and follow for how long.
	poll, follow time.Duration
	// fresh is how soon after the word Begun Begin must come: later, another controller may have begun.
	fresh time.Duration
	// denied is how long a user and password that a BMC refused are not tried again: it counts, and locks the account.
	denied time.Duration
}

var slow = timing{
	request: 30 * time.Second, visit: 2 * time.Minute, leave: 10 * time.Second,
	settle: 30 * time.Second, off: time.Minute, patience: 20 * time.Minute,
	poll: 2 * time.Second, follow: 30 * time.Second,
	fresh: time.Minute, denied: 10 * time.Minute,
}

// Doubts are in the message of an attempt from the moment they arise until they are settled: Look finds them there.
const (
	unanswered  = "no answer came to the reset"
	interrupted = "the controller ended before it wrote down whether it had asked for the reset"
	// notKnown is what is said of an attempt in doubt.
	notKnown = "whether the power was cycled is not known"
)

// Remedy power-cycles nodes.
type Remedy struct {
	secrets   client.Reader
	namespace string
	timing    timing
	now       func() time.Time
	begun     *memory
	denied    *memory
}

var _ remedy.Remedy = (*Remedy)(nil)

// New returns the remedy. It reads Secrets of the namespace, which is the controller's own, with the reader: a live one, for
// the controller may get single Secrets and neither list nor watch them.
func New(secrets client.Reader, namespace string) *Remedy {
	return &Remedy{secrets: secrets, namespace: namespace, timing: slow, now: time.Now, begun: newMemory(), denied: newMemory()}
}

// Check says what a person must mend. It logs in, reads and logs out; nothing is changed.
func (r *Remedy) Check(ctx context.Context, a remedy.Attempt) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.visit)
	defer cancel()
	b, _, err := r.prepare(ctx, a)
	if err == nil {
		b.leave(ctx)
	}
	return refused(err)
}

// Begin posts the reset, once.
func (r *Remedy) Begin(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	if r.hasBegun(a) {
		return r.Look(ctx, a)
	}
	start := r.now()
	ctx, cancel := context.WithTimeout(ctx, r.timing.visit)
	defer cancel()
	b, p, err := r.prepare(ctx, a)
	if err != nil {
		why, err := refused(err)
		return remedy.Refused(why), err
	}
	defer b.leave(ctx)
	// A process that was frozen meanwhile may find that another has taken over.
	if r.now().Sub(start) > r.timing.visit {
		return remedy.Refused("getting ready took too long, and nothing was asked of the BMC"), nil
	}
	if !r.begun.add(a.ID, r.now(), time.Hour) {
		return remedy.Refused("nothing was asked of the BMC: this attempt has begun already, or too many others within an hour"), nil
	}
	monitor, err := b.reset(p.first)
	switch {
	case err == nil:
		return b.follow(ctx, p, monitor), nil
	case notTaken(err):
		return remedy.Refused(clip(fmt.Sprintf("the BMC at %s does not take %s: %s", b.host, p.first, reason(err)), maxMessage)), nil
	}
	return running("%s %s (%s), and it is not asked for again", unanswered, p.first, reason(err)), nil
}

// Look says what the power is, and turns on what is off.
func (r *Remedy) Look(ctx context.Context, a remedy.Attempt) (remedy.Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timing.visit)
	defer cancel()
	s := r.sight(a)
	b, err := r.open(ctx, a)
	if err != nil {
		why, err := refused(err)
		if s.overdue {
			return failed("%s: %s", notKnown, why), err
		}
		return running("%s%s", s.aside(), why), err
	}
	defer b.leave(ctx)
	takes, err := b.system.GetSupportedResetTypes()
	if err != nil {
		return running("%sthe BMC at %s does not say which resets it takes: %s", s.aside(), b.host, reason(err)), nil
	}
	// The plan is only asked what it needs now that the reset was posted: whether power comes back by itself, and by what else.
	p, _ := makePlan(schemas.OnPowerState, takes)
	s.power, s.inTwo = b.system.PowerState, p.inTwo()
	if s.doubt == "" && s.inTwo && s.since >= r.timing.settle {
		s.doubt = "the system was not seen to be off"
	}
	switch s.next(r.timing) {
	case turnOn:
		return b.turnOn(ctx, s, p.on), nil
	case done:
		if s.newBoot {
			return succeeded("the BMC says On, and the node has started anew"), nil
		}
		return succeeded("the BMC took the reset and says On"), nil
	case lost:
		return failed("%s: %s; the BMC says %s, and the node %s", notKnown, s.because(), s.says(), s.boot()), nil
	default:
		return running("%sthe BMC says %s", s.aside(), s.says()), nil
	}
}

// End has nothing to take away: sessions end with each call.
func (r *Remedy) End(context.Context, remedy.Attempt) error { return nil }

// prepare opens the BMC and makes the plan, which is all that a Check is.
func (r *Remedy) prepare(ctx context.Context, a remedy.Attempt) (*bmc, plan, error) {
	b, err := r.open(ctx, a)
	if err != nil {
		return nil, plan{}, err
	}
	p, err := b.plan(ctx)
	if err != nil {
		b.leave(ctx)
		return nil, plan{}, err
	}
	return b, p, nil
}

// open visits the node's BMC, and makes sure that it is the node's.
func (r *Remedy) open(ctx context.Context, a remedy.Attempt) (*bmc, error) {
	t, err := r.target(ctx, a)
	if err != nil {
		return nil, err
	}
	key := t.host + " " + t.version
	if until, ok := r.denied.has(key, r.now()); ok {
		return nil, refuse("the BMC at %s did not take user %s: mend username and password in %s; these are not tried again before %s, for a BMC locks an account after a few",
			t.host, clip(t.username, 64), t.secret, until.UTC().Format(time.TimeOnly))
	}
	b, err := visit(ctx, t, r.timing, a.Rung.Redfish.SystemID)
	var why refusal
	if errors.As(err, &why) && why.denied {
		r.denied.add(key, r.now(), r.timing.denied)
	}
	if err != nil {
		return nil, err
	}
	if why := otherMachine(a.Node.Status.NodeInfo, b.system.UUID); why != "" {
		b.leave(ctx)
		return nil, refuse("the BMC at %s is of another machine: %s; mend %s", t.host, why, t.from)
	}
	return b, nil
}

// hasBegun says whether somebody may have posted the reset of this attempt already.
func (r *Remedy) hasBegun(a remedy.Attempt) bool {
	if _, ok := r.begun.has(a.ID, r.now()); ok {
		return true
	}
	status := remedyOf(a)
	return status != nil && (status.State != v1alpha1.RemedyBegun || r.now().Sub(status.Begun.Time) > r.timing.fresh)
}

// sight is what is known without asking the BMC.
func (r *Remedy) sight(a remedy.Attempt) sight {
	s := sight{doubt: interrupted}
	if a.Remediation.Status.Step != nil {
		step := a.Remediation.Status.Step
		now := a.Node.Status.NodeInfo.BootID
		s.newBoot = step.BootID != "" && now != "" && now != step.BootID
		s.overdue = step.Deadline != nil && !r.now().Before(step.Deadline.Time)
	}
	status := remedyOf(a)
	if status == nil {
		return s
	}
	s.since = r.now().Sub(status.Begun.Time)
	s.overdue = s.overdue || s.since >= r.timing.patience
	switch {
	case strings.Contains(status.Message, unanswered):
		s.doubt = unanswered
	case status.State != v1alpha1.RemedyBegun && !strings.Contains(status.Message, interrupted):
		s.doubt = ""
	}
	return s
}

func remedyOf(a remedy.Attempt) *v1alpha1.RemedyStatus {
	if a.Remediation.Status.Step == nil {
		return nil
	}
	return a.Remediation.Status.Step.Remedy
}

// notTaken says whether the BMC surely did nothing: it said so, or was not reached.
func notTaken(err error) bool {
	var dial *net.OpError
	code := status(err)
	switch {
	case errors.Is(err, errNotSent), errors.Is(err, errElsewhere), errors.Is(err, errTwice):
		return true
	case errors.As(err, &dial) && dial.Op == "dial":
		return true
	case code == http.StatusServiceUnavailable, code == http.StatusNotImplemented:
		return true
	}
	return code >= 300 && code < 500 && code != http.StatusRequestTimeout
}

// refused splits what a person must mend from what is our own trouble.
func refused(err error) (string, error) {
	var why refusal
	if errors.As(err, &why) {
		return why.text, nil
	}
	return "", err
}

func running(format string, args ...any) remedy.Progress {
	return remedy.Running(clip(fmt.Sprintf(format, args...), maxMessage))
}

func failed(format string, args ...any) remedy.Progress {
	return remedy.Failed(clip(fmt.Sprintf(format, args...), maxMessage))
}

func succeeded(what string) remedy.Progress { return remedy.Succeeded(what) }
