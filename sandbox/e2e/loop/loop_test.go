package loop

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestTheLoopCloses(t *testing.T) {
	for name, o := range map[string]rigOptions{
		"by device taint rule":                {dra: true},
		"by node taint, with a device plugin": {},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			c := r.startController()
			r.healthy()
			r.fault(1)
			rem := r.waitFor("the end", over)
			if rem.Status.Phase != v1alpha1.PhaseSucceeded {
				t.Errorf("%s", r.describe(rem))
			}
			r.expectReboots(1)
			r.clean()
			t.Log(r.describe(rem))
			for _, w := range c.gate.made() {
				t.Log(w)
			}
		})
	}
}

// TestWhatNobodyOwnsIsAdopted removes a Remediation by force. What it had put on stays on, and a human is asked.
func TestWhatNobodyOwnsIsAdopted(t *testing.T) {
	for name, o := range map[string]rigOptions{
		"a device taint rule": {dra: true, mode: v1alpha1.ModeQuarantine},
		"a node taint":        {mode: v1alpha1.ModeQuarantine},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, o)
			first := r.startController()
			r.healthy()
			r.fault(1)
			rem := r.waitFor("quarantine", inPhase(v1alpha1.PhaseQuarantined))
			first.kill(t)
			patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
			r.must(r.admin.Patch(r.ctx, rem, patch))
			r.must(r.admin.Delete(r.ctx, rem))
			// A fault that a rule still asks something for may begin an incident first, which takes on what is there.
			policy := &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "training"}}
			r.must(r.admin.Patch(r.ctx, policy, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"rules":null}}`))))
			r.forgetLeader()
			r.startController()
			adopted := r.waitFor("adoption", func(now *v1alpha1.Remediation) bool { return now.Spec.Root.Code == "Adopted" && now.Status.Phase != "" })
			if adopted.Status.Phase != v1alpha1.PhaseEscalated || adopted.Name != rem.Name {
				t.Errorf("%s", r.describe(adopted))
			}
			r.must(r.admin.Patch(r.ctx, adopted, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"cancel":true}}`))))
			r.waitFor("the release", over)
			r.clean()
			r.expectReboots(0)
		})
	}
}

// TestAControllerMayBeStoppedAtAnyTime stops it after this and that time: while it makes its client, fills its caches, waits
// for the Lease, leads.
func TestAControllerMayBeStoppedAtAnyTime(t *testing.T) {
	r := newRig(t, rigOptions{dra: true})
	for after := time.Duration(0); after < 400*time.Millisecond; after += 20 * time.Millisecond {
		p := r.startController()
		sleep(r.ctx, after)
		p.kill(t)
		if t.Failed() {
			t.Fatal("stopped after ", after)
		}
		r.forgetLeader()
	}
}
