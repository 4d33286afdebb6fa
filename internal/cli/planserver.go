package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/plan"
)

// What a rule of plan --server has on it: nothing by which the controller, or release --all, would take it for a quarantine.
const (
	labelPlan = "roundhouse.dev/plan"
	taintPlan = "roundhouse.dev/plan"
)

// Bounds of asking the server.
const (
	// maxServerDevices is how many devices one command asks about; each is a write, and work for the server.
	maxServerDevices = 16
	serverPoll       = 200 * time.Millisecond
	// serverWithin is how long the server may take to answer about one device.
	serverWithin = 10 * time.Second
	// serverDelete is how long deleting may take, also after an interrupt.
	serverDelete = 10 * time.Second
	// serverStale is how old a rule of plan's is that nobody waits for any more.
	serverStale = time.Minute
)

// serverAsker asks the API server's own dry run (KEP-5055): a DeviceTaintRule with effect None gets a condition that says
// how many pods NoExecute would evict. Nothing is kept from work by it, and nothing evicted.
type serverAsker struct {
	client       client.Client
	poll, within time.Duration
}

func newServerAsker(c client.Client) *serverAsker {
	return &serverAsker{client: c, poll: serverPoll, within: serverWithin}
}

// ask fills in what the server says about each device, one at a time. The error is of a rule that is left behind, or of the
// caller's interrupt; that the server does not answer is part of the answer.
func (a *serverAsker) ask(ctx context.Context, node string, about []plan.DryRun) ([]plan.DryRun, error) {
	if len(about) == 0 {
		return []plan.DryRun{{DeviceID: node, Failed: "no device is bad; name one with --device"}}, nil
	}
	if failed := a.alone(ctx); failed != "" {
		for i := range about {
			about[i].Failed = failed
		}
		return about, nil
	}
	for i := range about {
		d := &about[i]
		switch {
		case d.Failed != "":
		case i >= maxServerDevices:
			d.Failed = fmt.Sprintf("one command asks about %d devices at most", maxServerDevices)
		default:
			said, err := a.askAbout(ctx, node, d)
			var left *leftRuleError
			if errors.As(err, &left) {
				d.Said, d.Failed = said, err.Error()
				return about, &foundError{what: left.Error()}
			}
			if ctx.Err() != nil {
				return about, fmt.Errorf("asking the server about %s: %w", d.DeviceID, ctx.Err())
			}
			if d.Said = said; err != nil {
				d.Failed = whyNoAnswer(err)
			}
		}
	}
	return about, nil
}

// alone makes sure that no other rule of plan's is on: what a killed command left is deleted, another's is waited for by
// whoever made it. It says why the server cannot be asked now, or nothing.
func (a *serverAsker) alone(ctx context.Context) string {
	var list resourcev1.DeviceTaintRuleList
	if err := a.client.List(ctx, &list, client.HasLabels{labelPlan}); err != nil {
		return whyNoAnswer(err)
	}
	for i := range list.Items {
		rule := &list.Items[i]
		if time.Since(rule.CreationTimestamp.Time) < serverStale {
			return fmt.Sprintf("another plan --server is asking (DeviceTaintRule %s): try again in a minute", rule.Name)
		}
		if err := a.remove(ctx, rule); err != nil {
			return whyNoAnswer(err)
		}
	}
	return ""
}

// whyNoAnswer says why the server did not answer.
func whyNoAnswer(err error) string {
	switch {
	case notServed(err):
		return "this server has no DeviceTaintRules (resource.k8s.io/v1; on without a word from 1.37)"
	case apierrors.IsForbidden(err):
		return "you may not create, get, list and delete DeviceTaintRules; whoever may create them can evict any pod with a claim, so no role of Roundhouse for people includes it"
	}
	return err.Error()
}

// leftRuleError is a rule that could not be deleted again.
type leftRuleError struct {
	name string
	err  error
}

func (e *leftRuleError) Error() string {
	return fmt.Sprintf("DeviceTaintRule %s is left (it does nothing): kubectl delete devicetaintrule %s: %v", e.name, e.name, e.err)
}

func (e *leftRuleError) Unwrap() error { return e.err }

// askAbout creates the rule, waits for the server's words, and deletes the rule whatever happens, an interrupt included. A
// create that fails without a clear no may have been carried out, so its rule is deleted as well.
func (a *serverAsker) askAbout(ctx context.Context, node string, d *plan.DryRun) (said string, err error) {
	if d.Driver == "" || d.Pool == "" || d.Device == "" {
		// An empty selector would select every device of the cluster.
		return "", fmt.Errorf("device %s: driver, pool and device must all be known", d.DeviceID)
	}
	rule := &resourcev1.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "roundhouse-plan-" + rand.String(10),
			Labels:      map[string]string{labelPlan: "server"},
			Annotations: map[string]string{v1alpha1.AnnotationNode: node, v1alpha1.AnnotationDevice: d.DeviceID},
		},
		Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: &d.Driver, Pool: &d.Pool, Device: &d.Device},
			Taint:          resourcev1.DeviceTaint{Key: taintPlan, Effect: resourcev1.DeviceTaintEffectNone},
		},
	}
	defer func() {
		if left := a.remove(ctx, rule); left != nil && !refusedBefore(err) {
			err = &leftRuleError{name: rule.Name, err: left}
		}
	}()
	if err := a.client.Create(ctx, rule); err != nil {
		return "", fmt.Errorf("creating a DeviceTaintRule with effect None: %w", err)
	}
	return a.wait(ctx, rule.Name)
}

// refusedBefore says whether the server has surely created nothing.
func refusedBefore(err error) bool {
	return notServed(err) || apierrors.IsForbidden(err) || apierrors.IsInvalid(err)
}

// remove deletes a rule, also where the caller was interrupted.
func (a *serverAsker) remove(ctx context.Context, rule *resourcev1.DeviceTaintRule) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), serverDelete)
	defer cancel()
	if err := client.IgnoreNotFound(a.client.Delete(ctx, rule)); err != nil {
		return fmt.Errorf("deleting DeviceTaintRule %s: %w", rule.Name, err)
	}
	return nil
}

// wait waits for the words of the server's device-taint manager.
func (a *serverAsker) wait(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, a.within)
	defer cancel()
	tick := time.NewTicker(a.poll)
	defer tick.Stop()
	for {
		rule := &resourcev1.DeviceTaintRule{}
		err := a.client.Get(ctx, client.ObjectKey{Name: name}, rule)
		if err != nil && ctx.Err() == nil {
			return "", fmt.Errorf("reading DeviceTaintRule %s: %w", name, err)
		}
		if err == nil {
			if said, ok := answer(rule); ok {
				return said, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("it said nothing within %s: is the device-taint manager of its kube-controller-manager on?", a.within)
		case <-tick.C:
		}
	}
}

// answer is what the server wrote about this generation of a rule.
func answer(rule *resourcev1.DeviceTaintRule) (string, bool) {
	i := slices.IndexFunc(rule.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == resourcev1.DeviceTaintConditionEvictionInProgress && c.ObservedGeneration == rule.Generation && c.Message != ""
	})
	if i < 0 {
		return "", false
	}
	return rule.Status.Conditions[i].Message, true
}
