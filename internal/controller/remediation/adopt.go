package remediation

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

const (
	// adoptEvery is how often what nobody owns is looked for, after the first time, at the start of leading.
	adoptEvery = 10 * time.Minute
	// adoptRetry is how soon after an error.
	adoptRetry = 30 * time.Second
)

// adopter makes an incident of each taint, claim and rule of ours whose Remediation does not exist: it is adopted, never
// dropped, since it may be all that keeps a bad device from new work. What belongs to one that is over, and let go of, a process
// that saw too little has put on too late: it comes off, or it would keep out a good device, and every later incident of the node.
type adopter struct{ Options }

// NeedLeaderElection says that only the leader adopts.
func (a *adopter) NeedLeaderElection() bool { return true }

// Start looks until the context ends.
func (a *adopter) Start(ctx context.Context) error {
	for {
		after := adoptEvery
		if err := a.adopt(ctx); err != nil && ctx.Err() == nil {
			ctrl.LoggerFrom(ctx).Error(err, "Looking for what nobody owns; trying again soon")
			after = adoptRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(after):
		}
	}
}

// adopt looks once.
func (a *adopter) adopt(ctx context.Context) error {
	var nodes corev1.NodeList
	if err := a.Client.List(ctx, &nodes); err != nil {
		return fmt.Errorf("listing nodes: %w", err)
	}
	byName := make(map[string]*corev1.Node, len(nodes.Items))
	for i := range nodes.Items {
		node := &nodes.Items[i]
		byName[node.Name] = node
		if err := a.adoptNode(ctx, node); err != nil {
			return err
		}
	}
	return a.adoptRules(ctx, byName)
}

// adoptNode adopts the taint and the claim of ours on a node.
func (a *adopter) adoptNode(ctx context.Context, node *corev1.Node) error {
	owners := map[string]bool{}
	for _, t := range node.Spec.Taints {
		if t.Key == v1alpha1.TaintQuarantined && t.Value != "" {
			owners[t.Value] = true
		}
	}
	name, uid, claimed := claim.Ours(node)
	if claimed && name != "" {
		owners[name] = true
	}
	for owner := range owners {
		of, err := a.owner(ctx, owner)
		if err != nil {
			return err
		}
		if of != nil {
			if err := a.late(ctx, node, of); err != nil {
				return err
			}
			continue
		}
		if claimed && owner == name {
			if _, err := claim.Patch(ctx, a.Client, node, claim.TakeOff(node, name, uid)); err != nil {
				return err
			}
		}
		intent := v1alpha1.QuarantineIntent{Kind: v1alpha1.QuarantineNodeTaint, Name: v1alpha1.TaintQuarantined}
		if err := a.create(ctx, decide.Adopt(owner, node, []v1alpha1.QuarantineIntent{intent}, a.Clock.Now())); err != nil {
			return err
		}
	}
	return nil
}

// adoptRules adopts the rules of ours. Where the server has no such kind there are none.
func (a *adopter) adoptRules(ctx context.Context, nodes map[string]*corev1.Node) error {
	var rules resourcev1.DeviceTaintRuleList
	err := a.Live.List(ctx, &rules, client.HasLabels{v1alpha1.LabelRemediation}, client.Limit(maxRules))
	if noSuchKind(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing device taint rules: %w", err)
	}
	for i := range rules.Items {
		rule := &rules.Items[i]
		node, ok := nodes[rule.Annotations[v1alpha1.AnnotationNode]]
		if !ok {
			continue // its device went with its node; it taints nothing.
		}
		owner := rule.Labels[v1alpha1.LabelRemediation]
		of, err := a.owner(ctx, owner)
		if err != nil {
			return err
		}
		if of != nil && isLetGo(of) {
			if err := a.Client.Delete(ctx, rule, client.Preconditions{UID: &rule.UID}); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("deleting device taint rule: %w", err)
			}
		}
		if of != nil {
			continue
		}
		intent := v1alpha1.QuarantineIntent{Kind: v1alpha1.QuarantineDeviceTaintRule, Name: rule.Name,
			DeviceID: rule.Annotations[v1alpha1.AnnotationDevice]}
		if err := a.create(ctx, decide.Adopt(owner, node, []v1alpha1.QuarantineIntent{intent}, a.Clock.Now())); err != nil {
			return err
		}
	}
	return nil
}

// maxRules bounds one look; the rest is seen in the next, once these have their incidents.
const maxRules = 5000

// owner is the Remediation of this name, nil where there is none: the cache may be behind, so the server is asked too.
func (a *adopter) owner(ctx context.Context, name string) (*v1alpha1.Remediation, error) {
	for _, reader := range []client.Reader{a.Client, a.Live} {
		rem := &v1alpha1.Remediation{}
		err := reader.Get(ctx, types.NamespacedName{Name: name}, rem)
		if err == nil {
			return rem, nil
		}
		if !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading remediation %s: %w", name, err)
		}
	}
	return nil, nil
}

// isLetGo says whether an incident is over and nothing is done about it any more.
func isLetGo(rem *v1alpha1.Remediation) bool {
	return rem.Status.Phase.Over() && len(rem.Finalizers) == 0
}

// late takes off a node what belongs to an incident that was let go of.
func (a *adopter) late(ctx context.Context, node *corev1.Node, of *v1alpha1.Remediation) error {
	if !isLetGo(of) {
		return nil
	}
	after := claim.TakeOff(claim.RemoveTaint(node, v1alpha1.TaintQuarantined, of.Name), of.Name, of.UID)
	if _, err := claim.Patch(ctx, a.Client, node, after); err != nil {
		return fmt.Errorf("taking off what was put on too late: %w", err)
	}
	return nil
}

func (a *adopter) create(ctx context.Context, rem *v1alpha1.Remediation) error {
	if err := a.Client.Create(ctx, rem); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("adopting %s: %w", rem.Name, err)
	}
	return nil
}
