package redfish

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/stmcginnis/gofish"
	"github.com/stmcginnis/gofish/schemas"

	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// maxSystems bounds how many systems of one BMC are looked through for the one that is meant.
const maxSystems = 32

// bmc is one visit to one BMC: a session where it has sessions, and the node's system.
type bmc struct {
	target
	timing timing
	http   *http.Client
	client *gofish.APIClient
	guard  *guard
	// session is the URI of the session, where there is one.
	session string
	// link is the URI of the system.
	link   string
	system *schemas.ComputerSystem
}

// root is what is asked of the ServiceRoot. (gofish keeps its links to itself, and follows them without a bound.)
type root struct {
	Systems schemas.Link
	Links   struct{ Sessions schemas.Link }
}

// visit connects, authenticates and finds the system. On an error nothing is left open.
func visit(ctx context.Context, t target, timing timing, systemID string) (*bmc, error) {
	b := &bmc{target: t, timing: timing}
	b.http, b.guard = newHTTPClient(t, timing.request)
	if err := b.find(ctx, systemID); err != nil {
		b.leave(ctx)
		return nil, b.explain(ctx, err)
	}
	return b, nil
}

func (b *bmc) find(ctx context.Context, systemID string) error {
	var err error
	b.client, err = gofish.ConnectContext(ctx, gofish.ClientConfig{
		Endpoint: "https://" + b.host, HTTPClient: b.http, NoModifyTransport: true, ReuseConnections: true,
	})
	if err != nil {
		return err
	}
	var service root
	if err := b.get(schemas.DefaultServiceRoot, &service); err != nil {
		return err
	}
	if err := b.logIn(service.Links.Sessions.String()); err != nil {
		return err
	}
	if service.Systems == "" {
		return refuse("the BMC at %s has no systems in its Redfish service", b.host)
	}
	collection, err := schemas.GetCollection(b.client, service.Systems.String())
	if err != nil {
		return err
	}
	return b.choose(collection, systemID)
}

// get reads one resource into v.
func (b *bmc) get(uri string, v any) error {
	resp, err := b.client.Get(uri)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	return json.NewDecoder(resp.Body).Decode(v)
}

// logIn makes a session where the BMC has sessions to make (DSP0266, "Redfish session login authentication"); else, and
// where it has none left, each request carries user name and password.
func (b *bmc) logIn(sessions string) error {
	if sessions != "" {
		auth, err := schemas.CreateSession(b.client, sessions, b.username, b.password)
		switch {
		case err == nil && auth.Token != "":
			b.session = auth.Session
			b.guard.authenticate(auth.Token, "", "")
			return nil
		case err != nil && !slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented,
			http.StatusServiceUnavailable}, status(err)):
			return err
		}
	}
	b.guard.authenticate("", b.username, b.password)
	return nil
}

// choose finds the system with the ID, or the only one.
func (b *bmc) choose(collection *schemas.Collection, id string) error {
	links := collection.ItemLinks
	more := len(links) > maxSystems || collection.MembersNextLink != ""
	links = slices.Clone(links[:min(len(links), maxSystems)])
	var names []string
	for _, link := range links {
		names = append(names, path.Base(link))
	}
	switch {
	case len(links) == 0:
		return refuse("the BMC at %s has no systems in its Redfish service", b.host)
	case id == "" && (len(links) > 1 || more):
		return refuse("the BMC at %s has several systems: the rung's redfish.systemID must name one of %s", b.host, strings.Join(names, ", "))
	case id == "":
		return b.read(links[0])
	}
	// Nearly always the last part of the link is the ID, and then one request finds it.
	slices.SortStableFunc(links, func(x, y string) int { return cmp.Compare(distance(x, id), distance(y, id)) })
	var failed error
	for _, link := range links {
		err := b.read(link)
		if err == nil && b.system.ID == id {
			return nil
		}
		failed = cmp.Or(failed, err)
	}
	if failed != nil {
		return fmt.Errorf("looking for system %s: %w", id, failed)
	}
	return refuse("the BMC at %s has no system %s, which the rung's redfish.systemID names: it has %s", b.host, id, strings.Join(names, ", "))
}

// read reads the system at the link.
func (b *bmc) read(link string) error {
	system, err := schemas.GetObject[schemas.ComputerSystem](b.client, link)
	b.link, b.system = link, system
	return err
}

func distance(link, id string) int {
	if path.Base(link) == id {
		return 0
	}
	return 1
}

// plan reads what the system takes, and makes the plan of it.
func (b *bmc) plan(ctx context.Context) (plan, error) {
	takes, err := b.system.GetSupportedResetTypes()
	if err != nil {
		return plan{}, b.explain(ctx, err)
	}
	return makePlan(b.system.PowerState, takes)
}

// reset posts one reset, once.
func (b *bmc) reset(kind schemas.ResetType) (*schemas.TaskMonitorInfo, error) {
	before := b.guard.count()
	// Without the entity tag: what the reset depends on is decided here, and a sensor that ticks must not stop it.
	b.system.DisableEtagMatch(true)
	monitor, err := b.system.Reset(kind)
	if err != nil && b.guard.count() == before {
		return nil, fmt.Errorf("%w: %w", errNotSent, err)
	}
	return monitor, err
}

// follow looks at the task that the reset may have become, for a while.
func (b *bmc) follow(ctx context.Context, p plan, monitor *schemas.TaskMonitorInfo) remedy.Progress {
	if monitor == nil || monitor.Task == nil || monitor.Task.ODataID == "" {
		return running("%s", p.said())
	}
	task := *monitor.Task
	for range b.timing.follow / b.timing.poll {
		switch task.TaskState {
		case schemas.CompletedTaskState:
			return running("%s", p.said())
		case schemas.ExceptionTaskState, schemas.KilledTaskState, schemas.CancelledTaskState:
			return failed("%s as a task, which ended %s: %s", p.said(), task.TaskState, messages(task.Messages))
		default:
			var next schemas.Task
			if sleep(ctx, b.timing.poll) != nil || b.get(task.ODataID, &next) != nil || next.ODataID != task.ODataID {
				return running("%s as a task", p.said())
			}
			task = next
		}
	}
	return running("%s as a task, which is %s", p.said(), clip(string(task.TaskState), 32))
}

// turnOn turns on what is off. It may be done by two controllers, and again: what is on stays on.
func (b *bmc) turnOn(ctx context.Context, s sight, on schemas.ResetType) remedy.Progress {
	if on == "" {
		return running("%sthe BMC says Off, and takes no On: turn the machine on", s.aside())
	}
	if _, err := b.reset(on); err != nil {
		return running("%sthe BMC says Off, and %s had no effect: %s", s.aside(), on, reason(err))
	}
	for range b.timing.follow / b.timing.poll {
		if sleep(ctx, b.timing.poll) != nil {
			break
		}
		if b.read(b.link) == nil && b.system.PowerState == schemas.OnPowerState {
			return succeeded(fmt.Sprintf("the system was off; the BMC took %s and says On", on))
		}
	}
	return running("the system was off, and the BMC took %s", on)
}

// leave ends the session, even when the time for the visit is over: a BMC has few.
func (b *bmc) leave(ctx context.Context) {
	if b.session != "" {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.timing.leave)
		defer cancel()
		// A session that stays ends by itself, after half an hour on most BMCs.
		_ = schemas.DeleteSession(b.client.WithContext(ctx), b.session)
	}
	b.http.CloseIdleConnections()
	b.guard.next.CloseIdleConnections()
}

// status is the status code of an answer that was an error, or 0.
func status(err error) int {
	var answer *schemas.Error
	if errors.As(err, &answer) {
		return answer.HTTPReturnedStatusCode
	}
	return 0
}
