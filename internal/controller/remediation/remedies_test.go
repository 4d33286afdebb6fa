package remediation

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/operands"
)

// plant is a power plant that does as it is told, and remembers what for.
type plant struct {
	refusal  string
	beginErr error
	// meanwhile runs when it is asked whether the attempt can be made.
	meanwhile         func()
	now               remedy.Progress
	begun, ended      []string
	words             []v1alpha1.RemedyState
	wordsOf           func() *v1alpha1.RemedyStatus
	endErr, lookError error
}

func (p *plant) Check(context.Context, remedy.Attempt) (string, error) {
	if p.meanwhile != nil {
		p.meanwhile()
	}
	return p.refusal, nil
}

func (p *plant) Begin(_ context.Context, a remedy.Attempt) (remedy.Progress, error) {
	p.begun = append(p.begun, a.ID)
	p.words = append(p.words, p.wordsOf().State)
	return p.now, p.beginErr
}

func (p *plant) Look(context.Context, remedy.Attempt) (remedy.Progress, error) {
	return p.now, p.lookError
}

func (p *plant) End(_ context.Context, a remedy.Attempt) error {
	p.ended = append(p.ended, a.ID)
	return p.endErr
}

// powered is a cluster whose policy cycles the power of a faulty node, by the plant.
func powered(t *testing.T) (*cluster, *plant) {
	c := newCluster(t, faulty(aFault("Xid79", bad))...)
	c.policy(func(p *v1alpha1.RemediationPolicySpec) {
		p.Rungs = append(p.Rungs, v1alpha1.Rung{Name: "power", Action: v1alpha1.RungPowerCycle}, v1alpha1.Rung{Name: "job", Action: v1alpha1.RungRunJob})
		p.Rules[0].Ladder = []string{"power", "human"}
	})
	p := &plant{now: remedy.Running("the power is off"), wordsOf: func() *v1alpha1.RemedyStatus { return c.incident().Status.Step.Remedy }}
	c.Remedies = map[v1alpha1.RungAction]remedy.Remedy{v1alpha1.RungPowerCycle: p, v1alpha1.RungRunJob: p}
	return c, p
}

func TestAnAttemptIsWrittenDownBeforeItIsMade(t *testing.T) {
	c, p := powered(t)
	c.turns(3, 10*time.Second)
	st := c.incident().Status
	if len(p.begun) != 1 || p.words[0] != v1alpha1.RemedyBegun || p.begun[0] != st.Step.ActionID {
		t.Fatalf("begun %v when the word was %v; step %+v", p.begun, p.words, st.Step)
	}
	if st.Step.Remedy.State != v1alpha1.RemedyRunning || st.Step.Remedy.Message != "the power is off" || c.health().Spec.Action != nil {
		t.Errorf("%+v; asked of the agent: %v", st.Step.Remedy, c.health().Spec.Action)
	}
	p.now = remedy.Succeeded("the power is on")
	c.turns(2, 10*time.Second)
	if st := c.incident().Status; st.Phase != v1alpha1.PhaseVerifying || len(p.ended) != 1 {
		t.Errorf("%s: %s; ended %v", st.Phase, st.Message, p.ended)
	}
}

func TestAnAttemptIsNotMadeWhereItMayNotBe(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*cluster, *plant)
		says   string
	}{
		"the remedy refuses":                 {func(_ *cluster, p *plant) { p.refusal = "Secret bmc has no key password" }, "Secret bmc has no key password"},
		"this controller has no such remedy": {func(c *cluster, _ *plant) { c.Remedies = nil }, `cannot do rung "power"`},
		"it is frozen after the word": {func(c *cluster, p *plant) {
			p.meanwhile = func() { c.clock.SetTime(c.clock.Now().Add(time.Minute)) }
		}, ""},
		"another controller writes the word first": {func(c *cluster, _ *plant) {
			c.refuse = func(verb string, o client.Object) error {
				if rem, ok := o.(*v1alpha1.Remediation); ok && rem.Status.Step != nil && rem.Status.Step.Remedy != nil {
					return apierrors.NewConflict(schema.GroupResource{Resource: "remediations"}, rem.Name, errors.New("x"))
				}
				return nil
			}
		}, ""},
		"a hold comes meanwhile": {func(c *cluster, _ *plant) {
			hold := &v1alpha1.RemediationHold{}
			hold.Name, hold.Spec.Holds, hold.Spec.Nodes = "stop", v1alpha1.HoldDisruption, []string{"n"}
			c.refuse = func(_ string, o client.Object) error {
				rem, ok := o.(*v1alpha1.Remediation)
				if ok && rem.Status.Phase == v1alpha1.PhaseRepairing && hold.UID == "" {
					hold.UID = "stop"
					return c.server.Create(t.Context(), hold)
				}
				return nil
			}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := powered(t)
			tc.change(c, p)
			c.turns(3, time.Second)
			if len(p.begun) > 0 {
				t.Errorf("begun: %v", p.begun)
			}
			said := ""
			for _, a := range c.incident().Status.Attempts {
				said += a.Message
			}
			if !strings.Contains(said, tc.says) {
				t.Errorf("the attempts say %q, want %q", said, tc.says)
			}
		})
	}
}

// A controller that dies between the word and the act does not act again; the next one looks.
func TestAnAttemptIsNotMadeTwice(t *testing.T) {
	c, p := powered(t)
	p.beginErr = errors.New("the connection was lost")
	if _, err := c.turn(); err == nil {
		t.Fatal("to begin with, beginning fails")
	}
	remedies := c.Remedies
	c.restart()
	c.Remedies = remedies
	p.now = remedy.Failed("whether the power was cycled is not known")
	c.turns(2, time.Second)
	st := c.incident().Status
	if len(p.begun) != 1 || len(st.Attempts) != 1 || st.Attempts[0].Result != v1alpha1.AttemptFailed || st.Phase != v1alpha1.PhaseEscalated {
		t.Errorf("begun %v; %s, attempts %+v", p.begun, st.Phase, st.Attempts)
	}
}

func TestWhatAnAttemptPutAnywhereIsTakenAway(t *testing.T) {
	for name, then := range map[string]func(*cluster){
		"cancelled":         func(c *cluster) { c.cancel() },
		"out of time":       func(c *cluster) { c.clock.SetTime(c.clock.Now().Add(25 * time.Minute)) },
		"the node has gone": func(c *cluster) { c.must(c.server.Delete(c.t.Context(), c.node())) },
		"the rung has gone": func(c *cluster) {
			c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Rungs, p.Rules[0].Ladder = p.Rungs[:2], []string{"human"} })
			c.cancel()
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := powered(t)
			c.policy(func(p *v1alpha1.RemediationPolicySpec) { p.Rules[0].Ladder = []string{"job", "human"} })
			c.turns(2, time.Second)
			then(c)
			p.endErr = errors.New("try again")
			c.turn() //nolint:errcheck // that it fails is what is tested.
			left := c.incident().Status.Phase
			p.endErr = nil
			c.turns(3, 10*time.Second)
			st := c.incident().Status
			if left != v1alpha1.PhaseRepairing || len(p.ended) < 2 {
				t.Errorf("it went on to %s before it was taken away; ended %v", left, p.ended)
			}
			if st.Phase == v1alpha1.PhaseRepairing {
				t.Errorf("%s, %s: %s", st.Phase, st.Reason, st.Message)
			}
		})
	}
}

// A remedy that cannot be ended keeps nobody for ever.
func TestAnAttemptThatCannotBeEndedIsLeft(t *testing.T) {
	c, p := powered(t)
	c.turns(2, time.Second)
	p.endErr = errors.New("no such API any more")
	c.clock.SetTime(c.clock.Now().Add(time.Hour))
	c.turns(1, time.Second)
	if st := c.incident().Status; st.Phase != v1alpha1.PhaseEscalated || st.Reason != decide.ReasonAttemptsSpent {
		t.Errorf("%s, %s: %s", st.Phase, st.Reason, st.Message)
	}
}

// The GPU operator's parts hold every device; they go before a reset and come back after it, whatever comes of it.
func TestTheOperatorsPartsAreAwayDuringAReset(t *testing.T) {
	const part = "nvidia.com/gpu.deploy.dcgm-exporter"
	for name, tc := range map[string]struct {
		then func(*cluster)
		want v1alpha1.Phase
	}{
		"it succeeds": {func(c *cluster) {
			h := c.health()
			h.Status.Action = &v1alpha1.ActionStatus{ID: h.Spec.Action.ID, State: v1alpha1.ActionDone, Result: v1alpha1.ResultSucceeded}
			c.must(c.server.Status().Update(c.t.Context(), h))
		}, v1alpha1.PhaseVerifying},
		"it is cancelled": {func(c *cluster) { c.cancel() }, v1alpha1.PhaseCancelled},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, faulty(aFault("Xid95", bad))...)
			c.Operands = operands.Operands{Client: c.server, Live: c.server}
			c.policy(func(p *v1alpha1.RemediationPolicySpec) {
				p.Rungs = append(p.Rungs, v1alpha1.Rung{Name: "reset", Action: v1alpha1.RungResetDevice})
				p.Rules[0].Ladder = []string{"reset", "human"}
			})
			h := c.health()
			h.Status.SupportedActions, h.Status.Faults[0].Recommended = []v1alpha1.ActionType{v1alpha1.ActionResetDevice}, v1alpha1.RecommendResetDevice
			c.must(c.server.Status().Update(t.Context(), h))
			node := c.node()
			node.Labels[part] = "true"
			c.must(c.server.Update(t.Context(), node))
			holder := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "gpu-operator", Name: "dcgm-exporter", UID: "dcgm",
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "dcgm-exporter", UID: "ds", Controller: ptr.To(true)}}},
				Spec: corev1.PodSpec{NodeName: "n", NodeSelector: map[string]string{part: "true"},
					Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
				Status: corev1.PodStatus{Phase: corev1.PodRunning}}
			c.must(c.server.Create(t.Context(), holder))
			c.turns(2, time.Second)
			if got := c.node().Labels[part]; got == "true" || c.health().Spec.Action != nil {
				t.Fatalf("%s=%s; asked for %v while the part is there", part, got, c.health().Spec.Action)
			}
			c.must(c.server.Delete(t.Context(), holder))
			c.turns(1, time.Second)
			if c.health().Spec.Action == nil {
				t.Fatalf("the part has gone, and nothing is asked: %s", c.incident().Status.Message)
			}
			tc.then(c)
			c.turns(1, time.Second)
			if got := c.node().Labels[part]; got != "true" || c.incident().Status.Phase != tc.want {
				t.Errorf("%s=%s in %s", part, got, c.incident().Status.Phase)
			}
			if _, paused := operands.PausedBy(c.node()); paused {
				t.Error("the record of it is left on the node")
			}
		})
	}
}
