package remediation

import (
	"errors"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// notAsked is a cluster whose incident is in Repairing, and whose agent has not been asked: the controller was killed before.
func notAsked(t *testing.T) *cluster {
	t.Helper()
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.refuse = func(verb string, o client.Object) error {
		if _, ok := o.(*v1alpha1.NodeHealth); ok && verb == "update" {
			return errors.New("the controller is killed here")
		}
		return nil
	}
	if _, err := c.turn(); err == nil || c.incident().Status.Phase != v1alpha1.PhaseRepairing {
		t.Fatalf("to begin with, %s: %v", c.incident().Status.Phase, err)
	}
	c.refuse = nil
	h := c.health()
	h.Spec = v1alpha1.NodeHealthSpec{NodeUID: h.Spec.NodeUID}
	c.must(c.server.Update(t.Context(), h))
	return c
}

// asks looks at each action that is asked for.
func (c *cluster) beforeAsked(look func(id string)) {
	c.refuse = func(verb string, o client.Object) error {
		if h, ok := o.(*v1alpha1.NodeHealth); ok && verb == "update" && h.Spec.Action != nil {
			look(h.Spec.Action.ID)
		}
		return nil
	}
}

func TestNothingIsAskedForWithoutTheClaimThatACacheShows(t *testing.T) {
	c := notAsked(t)
	c.oldNode = c.node()
	node := c.node()
	node.Annotations = nil
	c.must(c.server.Update(t.Context(), node))
	asked := 0
	c.beforeAsked(func(id string) {
		asked++
		if c.node().Annotations[v1alpha1.AnnotationClaim] == "" {
			t.Errorf("%s is asked for without the claim", id)
		}
	})
	c.turns(1, time.Minute)
	if c.oldNode = nil; asked > 0 {
		return
	}
	if c.turns(2, time.Minute); asked == 0 {
		t.Error("nothing is ever asked for")
	}
}

// Another process takes the attempt back: it raises the fence, and has not come to write the incident's status.
func TestWhatAnotherHasTakenBackIsNotAskedFor(t *testing.T) {
	c := notAsked(t)
	first := c.incident().Status.Step.ActionID
	h := c.health()
	h.Spec.Fence++
	c.must(c.server.Update(t.Context(), h))
	var asked []string
	c.beforeAsked(func(id string) { asked = append(asked, id) })
	c.turns(2, time.Minute)
	if len(asked) != 1 || asked[0] == first {
		t.Errorf("asked for %v, want another attempt than %s", asked, first)
	}
}

func TestAFenceThatWasHighBeforeKeepsNothingFromBeingAsked(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	h := c.health()
	h.Spec.Fence = 7
	c.must(c.server.Update(t.Context(), h))
	c.turns(1, time.Minute)
	if rem := c.incident(); c.health().Spec.Action == nil || len(rem.Status.Attempts) > 0 || rem.Status.Fence != 8 {
		t.Errorf("asked for %v, fence %d, after %v", c.health().Spec.Action, rem.Status.Fence, rem.Status.Attempts)
	}
}

// Another process ends the incident, and takes everything off, just before this one puts a rule on.
func TestARuleThatIsPutOnTooLateComesOff(t *testing.T) {
	for name, ended := range map[string]func(*cluster, *v1alpha1.Remediation){
		"the repair is proved": func(c *cluster, rem *v1alpha1.Remediation) {
			until := metav1.NewTime(c.clock.Now().Add(time.Hour))
			rem.Status.Phase, rem.Status.Deadline = v1alpha1.PhaseProbation, &until
		},
		"it is over": func(_ *cluster, rem *v1alpha1.Remediation) { rem.Status.Phase = v1alpha1.PhaseCancelled },
		"it is over and let go of": func(c *cluster, rem *v1alpha1.Remediation) {
			rem.Finalizers = nil
			c.must(c.server.Update(c.t.Context(), rem))
			rem.Status.Phase = v1alpha1.PhaseCancelled
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(aFault("Xid79", bad))...)
			late := 0
			c.refuse = func(verb string, o client.Object) error {
				if _, ok := o.(*resourcev1.DeviceTaintRule); !ok || verb != "create" {
					return nil
				}
				c.refuse = nil
				late++
				h := c.health()
				h.Status.Faults, h.Status.Devices[0].Health = nil, v1alpha1.DeviceHealthy
				c.must(c.server.Status().Update(t.Context(), h))
				rem := c.incident()
				now := metav1.NewTime(c.clock.Now())
				rem.Status.Since = &now
				ended(c, rem)
				rem.Status.Since = &now
				c.must(c.server.Status().Update(t.Context(), rem))
				return nil
			}
			c.turns(1, time.Second)
			if on := c.rules(); late != 1 || len(on) > 0 {
				t.Errorf("on %v, and %d were put on late", on, late)
			}
		})
	}
}

// A process that was killed has put a rule on anew; the one that ends the incident knows of none.
func TestAnIncidentThatEndsLeavesNoRule(t *testing.T) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.turns(1, time.Minute)
	var rules resourcev1.DeviceTaintRuleList
	c.must(c.server.List(t.Context(), &rules))
	if len(rules.Items) != 1 {
		t.Fatalf("to begin with, %d rules", len(rules.Items))
	}
	h := c.health()
	h.Status.Faults, h.Status.Devices[0].Health = nil, v1alpha1.DeviceHealthy
	h.Status.BootID, h.Status.CompletedRound = "b2", &v1alpha1.Round{BootID: "b2", At: metav1.NewTime(c.clock.Now())}
	c.must(c.server.Status().Update(t.Context(), h))
	for c.incident().Status.Phase != v1alpha1.PhaseProbation {
		c.turns(1, time.Minute)
	}
	late := rules.Items[0]
	late.ResourceVersion = ""
	c.must(c.server.Create(t.Context(), &late))
	c.clock.SetTime(c.incident().Status.Deadline.Add(time.Second))
	c.turns(2, time.Minute)
	if on := c.rules(); len(on) > 0 || len(c.incident().Finalizers) > 0 {
		t.Errorf("%s, finalizers %v, and on are %v", c.incident().Status.Phase, c.incident().Finalizers, on)
	}
}
