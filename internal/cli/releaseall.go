package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// leftover is something of ours that is still there, and how a human takes it off.
type leftover struct {
	what, fix string
}

// leftovers are by kind, so that progress can be said in one line.
type leftovers struct {
	incidents, taints, claims, rules, notes, kept []leftover
	// busy are the nodes that have an open incident, noted those with notes, asked the rules by which a plan asked the server.
	busy  map[string]bool
	noted []string
	asked []resourcev1.DeviceTaintRule
}

func (l *leftovers) all() []leftover {
	return slices.Concat(l.incidents, l.taints, l.claims, l.rules, l.notes, l.kept)
}

func (l *leftovers) String() string {
	return fmt.Sprintf("%s open, %s, %s, %s, %s left", text.Count(len(l.incidents), "incident", "incidents"),
		text.Count(len(l.taints), "taint", "taints"), text.Count(len(l.claims), "claim", "claims"),
		text.Count(len(l.rules), "DeviceTaintRule", "DeviceTaintRules"), text.Count(len(l.notes), "note of a repair", "notes of repairs"))
}

// releaseAll takes everything of ours off, by asking the controller that put it on: whoever has the record takes off, and two
// who do would undo each other's work. Itself it takes off only what has no incident any more.
func (a *app) releaseAll(ctx context.Context, c *cluster, f *releaseFlags) error {
	left, err := c.leftovers(ctx)
	if err != nil {
		return err
	}
	open, err := c.openRemediations(ctx)
	if err != nil {
		return err
	}
	p := a.page()
	line(p, "Now", "%s", left.String())
	p.Section("Will", "hold every node ("+stopName+", everything), so that nothing new begins",
		"cancel "+text.Count(len(open), "incident", "incidents")+"; faulty devices may get work again",
		"wait at most "+text.Duration(f.timeout)+" until the controller has taken everything off")
	if _, err := p.WriteTo(a.Out); err != nil {
		return err
	}
	if f.dryRun != dryRunNone {
		_, err := fmt.Fprintln(a.Out, "dry run: nothing was changed")
		return err
	}
	if !f.yes {
		if err := a.confirm(); err != nil {
			return err
		}
	}
	if err := a.stopForGood(ctx, c); err != nil {
		return err
	}
	left, err = a.awaitNothing(ctx, c, f.timeout)
	if err != nil {
		return err
	}
	return a.sayReleased(left, f.timeout)
}

func (a *app) confirm() error {
	if _, err := fmt.Fprint(a.Out, "Go on? [y/N] "); err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	if a.In == nil {
		return usage("nobody is there to answer; give --yes")
	}
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && answer == "" {
		return usage("nobody is there to answer; give --yes")
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &foundError{what: "not released: you said no"}
}

// stopForGood holds everything, quarantine too: a fault that comes in the middle must not put something new on.
func (a *app) stopForGood(ctx context.Context, c *cluster) error {
	by, err := c.by(ctx, "")
	if err != nil {
		return err
	}
	hold := &v1alpha1.RemediationHold{
		ObjectMeta: metav1.ObjectMeta{Name: stopName},
		Spec: v1alpha1.RemediationHoldSpec{
			NodeSelector: &metav1.LabelSelector{}, Holds: v1alpha1.HoldEverything, RequestedBy: by,
			Reason: "kubectl roundhouse release --all",
		},
	}
	verb, err := c.applyHold(ctx, hold, dryRunNone)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.Out, "remediationhold.roundhouse.dev/%s %s\n", hold.Name, verb)
	return err
}

// releasePoll is how often the cluster is looked at while waiting.
const releasePoll = time.Second

// awaitNothing waits until nothing is left, says how far it is whenever that changes, and gives what is left at the end.
func (a *app) awaitNothing(parent context.Context, c *cluster, timeout time.Duration) (*leftovers, error) {
	ctx, cancel := context.WithTimeout(parent, timeout)
	defer cancel()
	var said string
	var left *leftovers
	for {
		// Each time, because a fault that comes meanwhile opens another incident; a hold keeps it from acting only.
		err := c.cancelAll(ctx)
		var now *leftovers
		if err == nil {
			now, err = c.leftovers(ctx)
		}
		if err == nil {
			err = c.takeOffUnowned(ctx, now, a.Now())
		}
		switch {
		case err == nil:
			left = now
		case parent.Err() != nil:
			return nil, fmt.Errorf("waiting: %w; everything stays held and cancelled", parent.Err())
		case ctx.Err() == nil || left == nil:
			return nil, err
		}
		if line := left.String(); line != said {
			said = line
			if _, err := fmt.Fprintln(a.Out, "waiting   "+line); err != nil {
				return nil, fmt.Errorf("saying how far it is: %w", err)
			}
		}
		if len(left.all()) == 0 {
			return left, nil
		}
		timer := time.NewTimer(releasePoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			if err := parent.Err(); err != nil {
				return nil, fmt.Errorf("waiting: %w; everything stays held and cancelled", err)
			}
			return left, nil
		case <-timer.C:
		}
	}
}

// cancelAll cancels every open incident that is not cancelled yet.
func (c *cluster) cancelAll(ctx context.Context) error {
	open, err := c.openRemediations(ctx)
	if err != nil {
		return err
	}
	for i := range open {
		if open[i].Spec.Cancel {
			continue
		}
		if err := c.cancel(ctx, &open[i], dryRunNone); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) sayReleased(left *leftovers, timeout time.Duration) error {
	p := a.page()
	all := left.all()
	if len(all) == 0 {
		p.Line("Nothing of ours is left on any node.")
		p.Section("Next", "uninstall the release (helm uninstall), then the CRDs",
			"conditions "+v1alpha1.ConditionHealthy+" and "+v1alpha1.ConditionReporting+" stay on Nodes as they last were; they keep nothing off",
			"or go on: kubectl roundhouse release "+stopName)
		_, err := p.WriteTo(a.Out)
		return err
	}
	p.Line("Left after " + text.Duration(timeout) + ":")
	for i, l := range all {
		if i == maxLeftovers {
			p.Line(fmt.Sprintf("  and %d more", len(all)-i))
			break
		}
		p.Line("  " + l.what)
		p.Line("      " + l.fix)
	}
	p.Section("Why", "is the controller running? It takes off what it put on; by hand is for when it is gone for good")
	if _, err := p.WriteTo(a.Out); err != nil {
		return err
	}
	return &foundError{what: text.Count(len(all), "thing", "things") + " of ours left"}
}

const maxLeftovers = 50

// leftovers looks for everything of ours on others' objects, and for incidents that are not let go of.
func (c *cluster) leftovers(ctx context.Context) (*leftovers, error) {
	out := &leftovers{busy: map[string]bool{}}
	err := pages(ctx, c, &v1alpha1.RemediationList{}, func(l *v1alpha1.RemediationList) {
		for i := range l.Items {
			out.remediation(&l.Items[i])
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the Remediations: %w", err)
	}
	err = pages(ctx, c, &corev1.NodeList{}, func(l *corev1.NodeList) {
		for i := range l.Items {
			out.node(&l.Items[i])
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the Nodes: %w", err)
	}
	err = pages(ctx, c, &resourcev1.DeviceTaintRuleList{}, func(l *resourcev1.DeviceTaintRuleList) {
		for i := range l.Items {
			out.rule(&l.Items[i])
		}
	})
	// A cluster that does not serve the kind has none of them.
	if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading the DeviceTaintRules: %w", err)
	}
	return out, nil
}

func (l *leftovers) remediation(r *v1alpha1.Remediation) {
	if !r.Status.Phase.Over() {
		l.busy[r.Spec.Node] = true
		l.incidents = append(l.incidents, leftover{
			fmt.Sprintf("Remediation %s is %s (%s)", r.Name, r.Status.Phase, r.Status.Reason),
			"kubectl roundhouse why " + r.Spec.Node,
		})
		return
	}
	if slices.Contains(r.Finalizers, v1alpha1.FinalizerRemediation) {
		l.kept = append(l.kept, leftover{
			"Remediation " + r.Name + " is over and still has our finalizer; deleting the CRDs would wait for it",
			fmt.Sprintf(`kubectl patch remediation %s --type=merge -p '{"metadata":{"finalizers":null}}'`, r.Name),
		})
	}
}

func (l *leftovers) node(n *corev1.Node) {
	l.note(n)
	for _, t := range n.Spec.Taints {
		if t.Key == v1alpha1.TaintQuarantined {
			l.taints = append(l.taints, leftover{
				"taint " + t.ToString() + " on node " + n.Name, "kubectl taint node " + n.Name + " " + t.Key + "-",
			})
		}
	}
	if claim, ok := n.Annotations[v1alpha1.AnnotationClaim]; ok {
		l.claims = append(l.claims, leftover{
			"claim " + claim + " on node " + n.Name,
			"kubectl annotate node " + n.Name + " " + v1alpha1.AnnotationClaim + "-  (first restore what " + v1alpha1.AnnotationPrior + " records)",
		})
	} else if _, ok := n.Annotations[v1alpha1.AnnotationPrior]; ok {
		l.claims = append(l.claims, leftover{
			"annotation " + v1alpha1.AnnotationPrior + " on node " + n.Name,
			"restore the annotations it records, then kubectl annotate node " + n.Name + " " + v1alpha1.AnnotationPrior + "-",
		})
	}
}
