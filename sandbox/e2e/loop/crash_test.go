package loop

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/history"
)

// maxWrites bounds the search for a process's last write.
const maxWrites = 80

// killAfter closes the gate once the nth write is stored, before the process learns of it.
func killAfter(n int) (func(*gate), <-chan write) {
	killed := make(chan write, 1)
	return func(g *gate) {
		g.after = func(i int, w write, _ *http.Response) error {
			if i != n {
				return nil
			}
			g.kill()
			killed <- w
			return errKilled
		}
	}, killed
}

// TestTheControllerMayDieAfterAnyWrite kills it between every two of its writes, for every write that one incident takes.
func TestTheControllerMayDieAfterAnyWrite(t *testing.T) {
	dieAfterEachWrite(t, rigOptions{dra: true},
		func(r *rig, setup func(*gate)) *process { return r.startControllerWith(setup) },
		func(r *rig) { r.forgetLeader(); r.startController() })
}

// TestTheAgentMayDieAfterAnyWrite does so to the agent: its writes to the API, and to its journal.
func TestTheAgentMayDieAfterAnyWrite(t *testing.T) {
	dieAfterEachWrite(t, rigOptions{dra: true, agentOff: true},
		func(r *rig, setup func(*gate)) *process { r.startController(); return r.startAgentWith(setup) },
		func(r *rig) { r.startAgent() })
}

// dieAfterEachWrite starts a process anew for each of its writes, kills it after that one, starts another, and expects
// the same end.
func dieAfterEachWrite(t *testing.T, o rigOptions, start func(*rig, func(*gate)) *process, again func(*rig)) {
	t.Helper()
	for n := 1; n <= maxWrites; n++ {
		setup, killed := killAfter(n)
		last := false
		t.Run(fmt.Sprintf("write %d", n), func(t *testing.T) {
			r := newRig(t, o)
			first := start(r, setup)
			go r.faultOnceHealthy()
			select {
			case w := <-killed:
				t.Log("killed after", w)
			case <-r.ended():
				last = true
				return
			case <-r.ctx.Done():
				t.Fatal("neither killed nor ended")
			}
			first.kill(t)
			again(r)
			r.expectGoodEnd()
		})
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

// TestTheServerMaySayNo injects conflicts, throttling, errors and lost answers into a third of all writes.
func TestTheServerMaySayNo(t *testing.T) {
	for seed := range 6 {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := newRig(t, rigOptions{dra: true})
			r.startControllerWith(func(g *gate) { g.misbehave(uint64(seed)) })
			go r.faultOnceHealthy()
			r.expectGoodEnd()
		})
	}
}

// faultOnceHealthy breaks the device when the node has been seen whole.
func (r *rig) faultOnceHealthy() {
	for r.ctx.Err() == nil {
		h := &v1alpha1.NodeHealth{}
		err := r.admin.Get(r.ctx, client.ObjectKeyFromObject(r.node), h)
		if err == nil && whole(h) {
			r.fault(1)
			return
		}
		sleep(r.ctx, 20*time.Millisecond)
	}
}

func whole(h *v1alpha1.NodeHealth) bool {
	return h.Status.Summary == v1alpha1.SummaryHealthy && len(h.Status.Devices) == 8 && h.Status.CompletedRound != nil
}

// ended is closed when the incident is over and let go of.
func (r *rig) ended() <-chan struct{} {
	done := make(chan struct{})
	go func() {
		for r.ctx.Err() == nil {
			var list v1alpha1.RemediationList
			if err := r.admin.List(r.ctx, &list); err == nil && slices.ContainsFunc(list.Items, func(rem v1alpha1.Remediation) bool { return over(&rem) }) {
				close(done)
				return
			}
			sleep(r.ctx, 50*time.Millisecond)
		}
	}()
	return done
}

// expectGoodEnd waits for the end, and expects it to be the same whatever happened on the way: one incident, one reboot,
// each pod evicted once, nothing of ours left on, nothing of others' lost.
func (r *rig) expectGoodEnd() {
	r.t.Helper()
	rem := r.waitFor("the end", over)
	if rem.Status.Phase != v1alpha1.PhaseSucceeded || rem.Status.Reason != "ProbationClean" {
		r.t.Errorf("ended otherwise: %s", r.describe(rem))
	}
	if n := len(r.remediations()); n != 1 {
		r.t.Errorf("%d incidents, want one", n)
	}
	r.expectReboots(1)
	r.clean()
	if attempts := rem.Status.Attempts; len(attempts) != 1 || attempts[0].Result != v1alpha1.AttemptRepaired {
		r.t.Errorf("attempts %+v", attempts)
	}
	rec := &v1alpha1.DeviceRecord{}
	if err := r.admin.Get(r.ctx, client.ObjectKey{Name: history.RecordName(rem.Spec.Node, rem.Spec.Devices[0])}, rec); err != nil {
		r.t.Errorf("reading the device's record: %v", err)
	} else if rec.Status.Totals.Incidents != 1 || rec.Status.Totals.Repairs != 1 {
		r.t.Errorf("the record counts %+v", rec.Status.Totals)
	}
	r.foreign.check(r.t)
}

// foreigner is somebody else who works on the same Node all the while: a tainter and a writer of conditions.
type foreigner struct {
	lost   []string
	writes int
	cancel context.CancelFunc
	done   chan struct{}
}

func startForeigner(ctx context.Context, c client.Client, node string) *foreigner {
	ctx, cancel := context.WithCancel(ctx)
	f := &foreigner{cancel: cancel, done: make(chan struct{})}
	go f.work(ctx, c, node)
	return f
}

const foreignKey = "example.com/maintenance-plan"

// work writes a taint and a condition, over and over, and remembers whatever it finds changed by another.
func (f *foreigner) work(ctx context.Context, c client.Client, name string) {
	defer close(f.done)
	var taint, condition string
	for i := 0; ctx.Err() == nil; i++ {
		node := &corev1.Node{}
		if err := c.Get(ctx, client.ObjectKey{Name: name}, node); err == nil {
			f.look(node, taint, condition)
			value := fmt.Sprint("v", i)
			next := node.DeepCopy()
			next.Spec.Taints = slices.DeleteFunc(next.Spec.Taints, func(t corev1.Taint) bool { return t.Key == foreignKey })
			next.Spec.Taints = append(next.Spec.Taints, corev1.Taint{Key: foreignKey, Value: value, Effect: corev1.TaintEffectPreferNoSchedule})
			if c.Update(ctx, next) == nil {
				taint = value
				f.writes++
			}
			patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"ForeignCondition","status":"False","reason":"R%d"}]}}`, i)
			if c.Status().Patch(ctx, node, client.RawPatch("application/strategic-merge-patch+json", []byte(patch))) == nil {
				condition = fmt.Sprint("R", i)
			}
		}
		sleep(ctx, 250*time.Millisecond)
	}
}

func (f *foreigner) look(node *corev1.Node, taint, condition string) {
	has := func(t corev1.Taint) bool { return t.Key == foreignKey && t.Value == taint }
	if taint != "" && !slices.ContainsFunc(node.Spec.Taints, has) {
		f.lost = append(f.lost, fmt.Sprintf("taint %s: %v", taint, node.Spec.Taints))
	}
	same := func(c corev1.NodeCondition) bool { return c.Type == "ForeignCondition" && c.Reason == condition }
	if condition != "" && !slices.ContainsFunc(node.Status.Conditions, same) {
		f.lost = append(f.lost, "condition "+condition)
	}
	ready := func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	if !slices.ContainsFunc(node.Status.Conditions, ready) {
		f.lost = append(f.lost, "condition Ready")
	}
}

// check stops the foreigner, and fails the test where something of its was lost.
func (f *foreigner) check(t *testing.T) {
	t.Helper()
	f.cancel()
	<-f.done
	if len(f.lost) > 0 {
		t.Errorf("lost of others': %s", strings.Join(f.lost, "; "))
	}
	if f.writes == 0 {
		t.Error("the foreigner never wrote")
	}
}
