package cli

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/cli/plan"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

const (
	// maxGangs is how many gangs of a plan are asked about, maxGangPods how many pods of each, as the controller does, and
	// gangsTimeout how long all of it may take.
	maxGangs     = 16
	maxGangPods  = 2000
	gangsTimeout = requestTimeout
)

// weighGangs asks for the pods of each gang that the plan would stop. What cannot be read is said to be not known: the rest of the
// plan stands without it.
func (c *cluster) weighGangs(ctx context.Context, p *plan.Plan) {
	ctx, cancel := context.WithTimeout(ctx, gangsTimeout)
	defer cancel()
	for i, hit := range p.Hits() {
		if i >= maxGangs {
			p.Weigh(hit, plan.Members{Unknown: fmt.Sprintf("only the first %d gangs are asked about", maxGangs)})
			continue
		}
		p.Weigh(hit, c.members(ctx, hit.Ref))
	}
}

// members are the pods of a gang, in one request.
func (c *cluster) members(ctx context.Context, ref drain.GangRef) plan.Members {
	options := []client.ListOption{client.InNamespace(ref.Namespace), client.Limit(maxGangPods)}
	if ref.Label != "" {
		options = append(options, client.MatchingLabels{ref.Label: ref.Name})
	}
	var list corev1.PodList
	err := c.List(ctx, &list, options...)
	switch {
	case apierrors.IsForbidden(err):
		return plan.Members{Unknown: fmt.Sprintf("you may not list the pods of namespace %s (ClusterRole roundhouse-planner may)", ref.Namespace)}
	case err != nil:
		return plan.Members{Unknown: fmt.Sprintf("listing its pods: %v", err)}
	}
	return plan.Members{Pods: list.Items, More: list.Continue != ""}
}
