package redfish

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) { panic(http.ErrAbortHandler) }

// TestBegin: whatever becomes of the answer, one reset is posted.
func TestBegin(t *testing.T) {
	accepted := func(state string, more object) func(w *world) {
		return func(w *world) {
			task := object{"@odata.id": "/redfish/v1/TaskService/Tasks/7", "@odata.type": "#Task.v1_7_4.Task", "Id": "7", "TaskState": "Running"}
			w.bmc.onReset = func(rw http.ResponseWriter, m *system, kind string) {
				m.do(kind)
				rw.Header().Set("Location", "/redfish/v1/TaskService/TaskMonitors/7")
				answer(rw, http.StatusAccepted, task)
			}
			w.bmc.task = object{"@odata.id": task["@odata.id"], "TaskState": state}
			for key, value := range more {
				w.bmc.task[key] = value
			}
		}
	}
	answering := func(f func(rw http.ResponseWriter)) func(w *world) {
		return func(w *world) { w.bmc.onReset = func(rw http.ResponseWriter, _ *system, _ string) { f(rw) } }
	}
	code := func(code int) func(w *world) {
		return answering(func(rw http.ResponseWriter) {
			fail(rw, code, "Base.1.18.ResourceInUse", "The change to the requested resource failed because the resource is in use or in transition.", "Remove the condition and resubmit the request.")
		})
	}
	both := []string{"On", "ForceOff", "ForceRestart", "PowerCycle"}
	tests := map[string]struct {
		takes  []string
		change func(w *world)
		reset  string
		state  v1alpha1.RemedyState
		want   string
	}{
		"PowerCycle where there is one": {reset: "PowerCycle", state: "Running", want: "the BMC took PowerCycle"},
		"ForceOff where there is none":  {takes: both[:3], reset: "ForceOff", state: "Running", want: "has no PowerCycle and took ForceOff; On follows"},
		"On where the machine is off":   {change: func(w *world) { w.bmc.systems[0].power = "Off" }, reset: "On", state: "Running", want: "was off, and the BMC took On"},
		"with a user and no session":    {change: func(w *world) { w.bmc.basic = true }, reset: "PowerCycle", state: "Running", want: "took PowerCycle"},
		"a task that completes":         {change: accepted("Completed", nil), reset: "PowerCycle", state: "Running", want: "the BMC took PowerCycle"},
		"a task that goes on":           {change: accepted("Running", nil), reset: "PowerCycle", state: "Running", want: "as a task, which is Running"},
		"a task that nobody knows of":   {change: func(w *world) { accepted("x", nil)(w); w.bmc.task = nil }, reset: "PowerCycle", state: "Running", want: "as a task"},
		"a task that fails":             {change: accepted("Exception", object{"Messages": []object{{"Message": "The power supply is not ready."}}}), reset: "PowerCycle", state: "Failed", want: "ended Exception: The power supply is not ready."},
		"taken, without a task":         {change: answering(func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusAccepted) }), reset: "PowerCycle", state: "Running", want: "took PowerCycle"},
		"taken, with garbage":           {change: answering(func(rw http.ResponseWriter) { rw.WriteHeader(http.StatusAccepted); _, _ = rw.Write([]byte(big)) }), reset: "PowerCycle", state: "Running", want: "took PowerCycle"},
		"the BMC says no":               {change: code(http.StatusConflict), reset: "PowerCycle", state: "Refused", want: "does not take PowerCycle: 409 Conflict: The change to the requested resource failed because the resource is in use"},
		"the BMC is busy":               {change: answering(func(rw http.ResponseWriter) { rw.Header().Set("Retry-After", "0"); rw.WriteHeader(503) }), reset: "PowerCycle", state: "Refused", want: "503 Service Unavailable"},
		"the BMC wants no entity tag":   {change: code(http.StatusPreconditionFailed), reset: "PowerCycle", state: "Refused", want: "not made twice"},
		"the BMC sends the reset elsewhere": {change: answering(func(rw http.ResponseWriter) {
			rw.Header().Set("Location", "/x")
			rw.WriteHeader(http.StatusPermanentRedirect)
		}), reset: "PowerCycle", state: "Refused", want: "308"},
		"the BMC breaks":        {change: code(http.StatusInternalServerError), reset: "PowerCycle", state: "Running", want: "no answer came to the reset PowerCycle (500 Internal Server Error"},
		"the connection breaks": {change: answering(hangUp), reset: "PowerCycle", state: "Running", want: "no answer came to the reset PowerCycle"},
		"no answer ever comes": {change: func(w *world) {
			w.timing.request = 3 * time.Second
			w.bmc.onReset = func(http.ResponseWriter, *system, string) { time.Sleep(4 * time.Second) }
		}, reset: "PowerCycle", state: "Running", want: "no answer came to the reset PowerCycle (no answer in time)"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.takes == nil {
				tt.takes = both
			}
			w := newWorld(t, machine(tt.takes...))
			if tt.change != nil {
				tt.change(w)
			}
			w.record(remedy.Progress{State: v1alpha1.RemedyBegun})
			got, err := w.Begin(t.Context(), w.attempt)
			if err != nil || got.State != tt.state || !strings.Contains(got.Message, tt.want) {
				t.Errorf("got %+v, %v, want %s: ...%s...", got, err, tt.state, tt.want)
			}
			again(t, w, tt.reset)
		})
	}
}

// again begins the attempt in every way that a confused controller may, and wants no second reset.
func again(t *testing.T, w *world, want string) {
	t.Helper()
	once := func(when string) {
		t.Helper()
		resets, _, _ := w.bmc.counts()
		if !slices.Equal(resets, []string{want}) {
			t.Fatalf("%s: got resets %s, want one %s", when, resets, want)
		}
	}
	once("at first")
	w.bmc.systems[0].power = "On" // what is off would be turned on, and that is another test
	begin := func(when string) {
		t.Helper()
		if _, err := w.Begin(t.Context(), w.attempt); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		once(when)
	}
	begin("begun again")
	w.restart()
	w.clock = w.clock.Add(quick.fresh + time.Second)
	begin("begun again by another controller")
	w.record(remedy.Running("the BMC took it"))
	w.clock = start
	w.restart()
	begin("begun again though it runs")
	w.clean(t)
}

// TestBeginWithoutTarget: where nothing could be posted, it is known that nothing was.
func TestBeginWithoutTarget(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	w.bmc.systems[0].noTarget = true
	if got, err := w.Begin(t.Context(), w.attempt); err != nil || got.State != v1alpha1.RemedyRefused {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestBeginTogether: two at once post one reset.
func TestBeginTogether(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := w.Begin(t.Context(), w.attempt); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if resets, _, _ := w.bmc.counts(); len(resets) != 1 {
		t.Errorf("got resets %s", resets)
	}
}

// TestBeginFrozen: a process that was frozen while it got ready does not act when it thaws.
func TestBeginFrozen(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	w.bmc.before = at("/redfish/v1/Systems", func(http.ResponseWriter, *http.Request) bool {
		w.clock = w.clock.Add(10 * time.Minute)
		return false
	})
	got, err := w.Begin(t.Context(), w.attempt)
	if resets, _, _ := w.bmc.counts(); err != nil || got.State != v1alpha1.RemedyRefused || len(resets) > 0 {
		t.Errorf("got %+v, %v and resets %s", got, err, resets)
	}
}

// TestBeginCancelled: the end of the controller is an error, not something to mend, and nothing is posted.
func TestBeginCancelled(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	ctx, cancel := context.WithCancel(t.Context())
	w.bmc.before = at("/redfish/v1/Systems", func(http.ResponseWriter, *http.Request) bool { cancel(); return false })
	got, err := w.Begin(ctx, w.attempt)
	if resets, _, _ := w.bmc.counts(); err == nil || len(resets) > 0 {
		t.Errorf("got %+v, %v and resets %s", got, err, resets)
	}
	w.clean(t)
}

// TestTimelines: what the controller would see, from one Look to the next.
func TestTimelines(t *testing.T) {
	// moment is something that happens, and then a Look.
	type moment struct {
		after time.Duration
		do    func(w *world)
		state v1alpha1.RemedyState
		want  string
	}
	power := func(p string) func(w *world) { return func(w *world) { w.bmc.systems[0].power = p } }
	boots := func(w *world) { w.attempt.Node.Status.NodeInfo.BootID = newBoot }
	lostAnswer := func(w *world) {
		w.bmc.onReset = func(rw http.ResponseWriter, m *system, kind string) { m.do(kind); hangUp(rw) }
	}
	const doubt = "whether the power was cycled is not known"
	tests := map[string]struct {
		takes   []string
		before  func(w *world)
		crash   bool
		moments []moment
		resets  string
		// on is the power at the end.
		on string
	}{
		"a PowerCycle": {resets: "PowerCycle", on: "On", moments: []moment{
			{after: 10 * time.Second, state: "Running", want: "the BMC says On"},
			{do: power("PoweringOff"), after: 10 * time.Second, state: "Running", want: "the BMC says PoweringOff"},
			{do: power("Off"), after: 10 * time.Second, state: "Running", want: "the BMC says Off"},
			{do: power("PoweringOn"), after: 10 * time.Second, state: "Running", want: "the BMC says PoweringOn"},
			{do: power("On"), after: 10 * time.Second, state: "Succeeded", want: "the BMC took the reset and says On"},
		}},
		"a PowerCycle that is forgotten half way": {resets: "PowerCycle,On", on: "On", moments: []moment{
			{do: power("Off"), after: 59 * time.Second, state: "Running", want: "Off"},
			{after: 2 * time.Second, state: "Succeeded", want: "the system was off; the BMC took On and says On"},
		}},
		"ForceOff and On": {takes: []string{"On", "ForceOff"}, resets: "ForceOff,On", on: "On", moments: []moment{
			{after: 5 * time.Second, state: "Succeeded", want: "the system was off; the BMC took On and says On"},
		}},
		"ForceOff that takes its time": {takes: []string{"ForceOn", "ForceOff"}, resets: "ForceOff,ForceOn", on: "On",
			before: func(w *world) {
				w.bmc.onReset = func(rw http.ResponseWriter, _ *system, _ string) { rw.WriteHeader(http.StatusNoContent) }
			}, moments: []moment{
				{after: 40 * time.Second, state: "Running", want: doubt + " yet (the system was not seen to be off): the BMC says On"},
				{do: func(w *world) {
					power("Off")(w)
					w.bmc.onReset = func(rw http.ResponseWriter, m *system, _ string) { m.power = "PoweringOn" }
				},
					state: "Running", want: "the system was off, and the BMC took ForceOn"},
				{do: power("On"), after: time.Minute, state: "Running", want: "the BMC says On"},
				{do: boots, after: 5 * time.Minute, state: "Succeeded", want: "the node has started anew"},
			}},
		"ForceOff, and another controller turns it on": {takes: []string{"On", "ForceOff"}, resets: "ForceOff", on: "On", moments: []moment{
			{do: power("On"), after: time.Minute, state: "Running", want: "not seen to be off"},
			{do: boots, after: 5 * time.Minute, state: "Succeeded", want: "the node has started anew"},
		}},
		"On that has no effect is asked for again": {takes: []string{"On", "ForceOff"}, resets: "ForceOff,On,On", on: "Off",
			before: func(w *world) { w.bmc.systems[0].stuck = true }, moments: []moment{
				{after: 5 * time.Second, state: "Running", want: "was off, and the BMC took On"},
				{after: 5 * time.Second, state: "Running", want: "was off, and the BMC took On"},
			}},
		"no answer, and the node starts anew": {before: lostAnswer, resets: "PowerCycle", on: "On", moments: []moment{
			{after: time.Minute, state: "Running", want: doubt + " yet (no answer came to the reset)"},
			{after: time.Minute, state: "Running", want: doubt + " yet (no answer came to the reset)"},
			{do: boots, after: 5 * time.Minute, state: "Succeeded", want: "the node has started anew"},
		}},
		"no answer, and the node does not start anew": {before: lostAnswer, resets: "PowerCycle", on: "On", moments: []moment{
			{after: 19 * time.Minute, state: "Running", want: doubt},
			{after: 2 * time.Minute, state: "Failed", want: doubt + ": no answer came to the reset; the BMC says On, and the node is not known to have started anew"},
		}},
		"no answer to ForceOff, and it is off": {takes: []string{"On", "ForceOff"}, before: lostAnswer, resets: "ForceOff,On", on: "On", moments: []moment{
			{do: func(w *world) { w.bmc.onReset = nil }, after: time.Second, state: "Succeeded", want: "the system was off"},
		}},
		"a crash, and nothing is known": {crash: true, on: "On", moments: []moment{
			{after: time.Minute, state: "Running", want: doubt + " yet (the controller ended before it wrote down whether it had asked for the reset): the BMC says On"},
			{after: 20 * time.Minute, state: "Failed", want: doubt},
		}},
		"a crash, and the deadline": {crash: true, on: "On",
			before: func(w *world) {
				w.attempt.Remediation.Status.Step.Deadline = &metav1.Time{Time: start.Add(2 * time.Minute)}
			}, moments: []moment{
				{after: time.Minute, state: "Running", want: doubt},
				{after: time.Minute, state: "Failed", want: doubt},
			}},
		"a crash, and the node starts anew": {crash: true, on: "On", moments: []moment{
			{do: boots, after: time.Minute, state: "Succeeded", want: "the node has started anew"},
		}},
		"a crash in ForceOff": {crash: true, takes: []string{"On", "ForceOff"}, resets: "On", on: "On", moments: []moment{
			{do: power("Off"), after: time.Second, state: "Succeeded", want: "the system was off"},
		}},
		"what is overdue is turned on all the same": {crash: true, resets: "On", on: "On", moments: []moment{
			{do: power("Off"), after: time.Hour, state: "Succeeded", want: "the system was off"},
		}},
		"the BMC falls silent": {resets: "PowerCycle", on: "On", moments: []moment{
			{do: func(w *world) {
				w.bmc.before = func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
			},
				after: time.Minute, state: "Running", want: "asking the BMC at"},
			{after: 20 * time.Minute, state: "Failed", want: doubt + ": asking the BMC at"},
		}},
		"the Secret is taken away": {resets: "PowerCycle", on: "On", moments: []moment{
			{do: func(w *world) { w.api.secrets = nil }, after: time.Minute, state: "Running", want: "Secret roundhouse-system/bmc is not there"},
			{do: func(w *world) { w.api.secrets = append(w.api.secrets, w.secret) }, after: time.Minute, state: "Succeeded", want: "says On"},
		}},
		"the label comes to name another machine, which is off": {takes: []string{"On", "ForceOff"}, resets: "ForceOff", on: "Off", moments: []moment{
			{do: func(w *world) { w.bmc.systems[0].uuid = "11111111-2222-3333-4444-555555555555" }, after: time.Minute, state: "Running", want: "of another machine"},
		}},
		"the power never comes back": {resets: "PowerCycle", on: "PoweringOn", moments: []moment{
			{do: power("PoweringOn"), after: 19 * time.Minute, state: "Running", want: "the BMC says PoweringOn"},
			{after: 2 * time.Minute, state: "Failed", want: "did not come back in time; the BMC says PoweringOn"},
		}},
		"a power state nobody knows": {resets: "PowerCycle", on: "On", moments: []moment{
			{do: power("Paused"), after: time.Minute, state: "Running", want: "the BMC says Paused"},
			{do: power(""), after: time.Minute, state: "Running", want: "the BMC says nothing of its power"},
			{do: power("On"), after: time.Minute, state: "Succeeded"},
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.takes == nil {
				tt.takes = []string{"On", "ForceOff", "PowerCycle"}
			}
			w := newWorld(t, machine(tt.takes...))
			if tt.before != nil {
				tt.before(w)
			}
			w.record(remedy.Progress{State: v1alpha1.RemedyBegun})
			if !tt.crash {
				p, err := w.Begin(t.Context(), w.attempt)
				if err != nil || p.State != v1alpha1.RemedyRunning {
					t.Fatalf("Begin: got %+v, %v", p, err)
				}
				w.record(p)
			}
			for i, m := range tt.moments {
				w.clock = w.clock.Add(m.after)
				if m.do != nil {
					m.do(w)
				}
				w.restart() // each Look may be another controller's
				p, err := w.Look(t.Context(), w.attempt)
				if err != nil || p.State != m.state || !strings.Contains(p.Message, m.want) {
					t.Errorf("moment %d: got %+v, %v, want %s: ...%s...", i, p, err, m.state, m.want)
				}
				w.record(p)
			}
			if resets, _, _ := w.bmc.counts(); strings.Join(resets, ",") != tt.resets {
				t.Errorf("got resets %s, want %s", resets, tt.resets)
			}
			if got := w.bmc.systems[0].power; got != tt.on {
				t.Errorf("at the end the power is %s, want %s", got, tt.on)
			}
			if err := w.End(t.Context(), w.attempt); err != nil {
				t.Error(err)
			}
			w.clean(t)
		})
	}
}
