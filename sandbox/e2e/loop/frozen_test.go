package loop

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// freezeBefore stops the whole process before its nth write; what the server then says to the writes that were under way
// is kept for the test.
func freezeBefore(n int) (func(*gate), *thawing) {
	th := &thawing{frozen: make(chan write, 1)}
	return func(g *gate) {
		th.gate = g
		g.before = func(i int, w write) (*http.Response, error) {
			if i == n {
				g.freeze()
				th.frozen <- w
			}
			if i >= n {
				th.mu.Lock()
				th.late = append(th.late, w)
				th.mu.Unlock()
			}
			return nil, nil
		}
		g.after = func(i int, w write, resp *http.Response) error {
			if i >= n {
				th.mu.Lock()
				defer th.mu.Unlock()
				th.answers = append(th.answers, lateAnswer{w, resp.StatusCode})
			}
			return nil
		}
	}, th
}

// thawing is a process that was stopped in mid-write, and what came of its writes.
type thawing struct {
	gate   *gate
	frozen chan write

	mu      sync.Mutex
	late    []write
	answers []lateAnswer
}

type lateAnswer struct {
	write write
	code  int
}

// thaw lets the process run again, and gives what the server says to what it had half sent.
func (th *thawing) thaw(ctx context.Context) []lateAnswer {
	th.mu.Lock()
	want := len(th.late)
	th.mu.Unlock()
	th.gate.thaw()
	for range 500 {
		th.mu.Lock()
		got := append([]lateAnswer(nil), th.answers...)
		th.mu.Unlock()
		if len(got) >= want {
			return got
		}
		sleep(ctx, 10*time.Millisecond)
	}
	return nil
}

// TestAFrozenLeaderIsTooLate stops the leader between each pair of its writes, lets another take over, which cancels,
// is held, or goes on to the end, and then lets the first run again: what it had half sent must be refused, and nothing
// disruptive may come of it.
func TestAFrozenLeaderIsTooLate(t *testing.T) {
	for n := firstWrite(t); n <= maxWrites; n++ {
		last := false
		for _, what := range others(n) {
			t.Run(fmt.Sprintf("write %d, the other %s", n, what), func(t *testing.T) {
				last = freezeAndThaw(t, n, what)
			})
			if last || t.Failed() {
				break
			}
		}
		if last {
			t.Logf("one incident takes %d writes", n-1)
			return
		}
		if t.Failed() {
			return
		}
	}
	t.Errorf("more than %d writes", maxWrites)
}

// others are what the other leader does while the first is frozen before its nth write. They take turns, so that the test
// ends in minutes; with ROUNDHOUSE_EXHAUSTIVE set, each does so at each write.
func others(n int) []string {
	all := []string{"goes on", "cancels", "is held"}
	if os.Getenv("ROUNDHOUSE_EXHAUSTIVE") != "" {
		return all
	}
	return all[n%len(all):][:1]
}

// freezeAndThaw says whether the incident ended before there was an nth write.
func freezeAndThaw(t *testing.T, n int, what string) bool {
	t.Helper()
	r := newRig(t, rigOptions{dra: true})
	setup, th := freezeBefore(n)
	r.startControllerWith(setup)
	go r.faultOnceHealthy()
	var frozen write
	select {
	case frozen = <-th.frozen:
	case <-r.ended():
		return true
	case <-r.ctx.Done():
		t.Fatal("neither frozen nor ended")
	}
	r.forgetLeader()
	r.waitForLeader(r.startController())
	check := r.otherwise(what)
	before := r.machine.Reboots()
	for _, a := range th.thaw(r.ctx) {
		if a.code < http.StatusBadRequest {
			t.Errorf("frozen before %s; thawed, %s was accepted with %d", frozen, a.write, a.code)
		}
	}
	sleep(r.ctx, 300*time.Millisecond)
	if got := r.machine.Reboots(); got != before {
		t.Errorf("the thawed leader rebooted the node")
	}
	check()
	return false
}

// otherwise does with the other leader what the case says, and gives what must hold once the first has been thawed.
func (r *rig) otherwise(what string) func() {
	r.t.Helper()
	switch what {
	case "goes on":
		r.t.Log(r.describe(r.waitFor("the other's end", over)))
		return r.expectGoodEnd
	case "cancels":
		r.cancelAll()
		rem := r.waitFor("the cancel's end", over)
		reboots := r.machine.Reboots()
		return func() {
			if now := r.waitFor("the same end", over); now.Status.Phase != rem.Status.Phase {
				r.t.Errorf("was %s, is %s\n%s\n%s", rem.Status.Phase, now.Status.Phase, r.describe(rem), r.describe(now))
			}
			r.expectReboots(reboots)
			r.clean()
		}
	}
	hold := &v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: "stop"},
		Spec: v1alpha1.RemediationHoldSpec{NodeSelector: &metav1.LabelSelector{}, Reason: "test", RequestedBy: "test"}}
	r.must(r.admin.Create(r.ctx, hold))
	// Until the incident says that it is held, or is past what a hold stops.
	r.waitFor("the hold", func(rem *v1alpha1.Remediation) bool {
		return rem.Status.Reason == "Held" || rem.Status.Phase == v1alpha1.PhaseProbation || over(rem)
	})
	return func() {
		r.must(r.admin.Delete(r.ctx, hold))
		r.endsInOrder()
	}
}

// cancelAll cancels the incident as soon as there is one.
func (r *rig) cancelAll() {
	r.t.Helper()
	r.waitFor("an incident to cancel", func(rem *v1alpha1.Remediation) bool {
		err := r.admin.Patch(r.ctx, rem, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"cancel":true}}`)))
		return err == nil
	})
}

// endsInOrder waits for a good end that may have taken more than one asking: what a hold took back is asked for anew.
func (r *rig) endsInOrder() {
	r.t.Helper()
	rem := r.waitFor("the end", over)
	if rem.Status.Phase != v1alpha1.PhaseSucceeded {
		r.t.Errorf("ended otherwise: %s", r.describe(rem))
	}
	r.expectReboots(1)
	r.clean()
	r.foreign.check(r.t)
	if strings.Contains(r.describe(rem), "NotRepaired") {
		r.t.Errorf("a repair failed: %s", r.describe(rem))
	}
}

// firstWrite is where to begin; ROUNDHOUSE_FIRST_WRITE leaves out the earlier ones, to look at one again.
func firstWrite(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("ROUNDHOUSE_FIRST_WRITE"))
	if err != nil {
		return 1
	}
	return n
}
