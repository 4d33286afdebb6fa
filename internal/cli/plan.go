package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/plan"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// planFlags are the flags of plan.
type planFlags struct {
	devices []string
	server  bool
}

func (a *app) planCommand() *cobra.Command {
	var o output
	var f planFlags
	cmd := &cobra.Command{
		Use:   "plan NODE",
		Short: "Say what each rung of a node's ladder would move",
		Long: `Say what each rung of a node's ladder would move: what must be empty before it, which pods that evicts and what they
lose, and the gangs that stop with them, which devices it touches, and which rung comes next. Nothing is done. Without an open incident it says what it assumes.

With --server the API server is asked too what its own eviction would do about each bad device: a DeviceTaintRule with
effect None, which keeps nothing from work and evicts nothing, is created and deleted again, one at a time. (To choose the
API server itself use --kubeconfig or --context here.)`,
		Example: "  kubectl roundhouse plan gpu-0417\n  kubectl roundhouse plan gpu-0417 --device 3 --device 5\n" +
			"  kubectl roundhouse plan gpu-0417 --server -o wide",
		Args:              exactly(1, "the name of one node"),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.plan(cmd.Context(), c, &o, &f, args[0])
		},
	}
	o.add(cmd, formatWide, formatJSON, formatYAML)
	cmd.Flags().StringSliceVar(&f.devices, "device", nil, "plan as if this device, by ID or slot, were bad too; may be repeated")
	cmd.Flags().BoolVar(&f.server, "server", false, "ask the API server's own dry run about each bad device")
	return cmd
}

func (a *app) plan(ctx context.Context, c *cluster, o *output, f *planFlags, node string) error {
	s, err := c.gatherPlan(ctx, node)
	if err != nil {
		return err
	}
	s.Now, s.Assume = a.Now(), f.devices
	p, err := plan.Make(s)
	var unknown *plan.UnknownDeviceError
	if errors.As(err, &unknown) {
		return &foundError{what: unknown.Error()}
	}
	if err != nil {
		return fmt.Errorf("planning: %w", err)
	}
	c.weighGangs(ctx, p)
	var asked error
	if f.server {
		p.Server, asked = newServerAsker(c.Client).ask(ctx, node, p.Asked())
	}
	if err := a.show(o, p, nil); err != nil {
		return errors.Join(asked, err)
	}
	return asked
}

// gatherPlan reads what why reads, and what runs on the node, live.
func (c *cluster) gatherPlan(ctx context.Context, node string) (plan.Snapshot, error) {
	why, err := c.gatherWhy(ctx, node)
	s := plan.Snapshot{Snapshot: why}
	if err != nil {
		return s, err
	}
	if s.Node == nil {
		return s, &foundError{what: fmt.Sprintf("there is no node %q; see kubectl get nodes", node)}
	}
	if s.SlicesUnread != "" {
		return s, fmt.Errorf("planning for node %s: %s", node, s.SlicesUnread)
	}
	if err := c.readPods(ctx, &s.Snapshot); err != nil {
		return s, err
	}
	if policy.Compile(s.Policies).For(s.Node).AsksForNamespaces() {
		s.Namespaces, err = c.namespaceLabels(ctx, occupancy.NamespacesOf(s.Pods))
	}
	return s, err
}

// namespaceLabels reads the labels of namespaces. One that cannot be read is left out; the plan then says of its pods that their
// class cannot be told.
func (c *cluster) namespaceLabels(ctx context.Context, names []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, name := range names {
		var n corev1.Namespace
		err := c.Get(ctx, client.ObjectKey{Name: name}, &n)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading namespace %s: %w", name, err)
		}
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		out[name] = n.Labels
	}
	return out, nil
}

// notServed says whether the server has no such kind: dynamic resource allocation came with 1.34.
func notServed(err error) bool {
	return meta.IsNoMatchError(err) || apierrors.IsNotFound(err) && isUnserved(err)
}

// readPods reads the pods of the node, and what each was given by its claims.
func (c *cluster) readPods(ctx context.Context, s *explain.Snapshot) error {
	err := pages(ctx, c, &corev1.PodList{}, func(l *corev1.PodList) { s.Pods = append(s.Pods, l.Items...) },
		client.MatchingFields{"spec.nodeName": s.Name})
	if err != nil {
		return fmt.Errorf("reading the pods of node %s: %w", s.Name, err)
	}
	s.Claims = occupancy.Claims{}
	for i := range s.Pods {
		pod := &s.Pods[i]
		for _, name := range occupancy.ClaimsOf(pod) {
			claim := &resourcev1.ResourceClaim{}
			err := c.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: name}, claim)
			if apierrors.IsNotFound(err) {
				continue // the pod is going, and its claim has gone first.
			}
			if err != nil {
				return fmt.Errorf("reading claim %s of pod %s/%s: %w", name, pod.Namespace, pod.Name, err)
			}
			s.Claims[pod.UID] = append(s.Claims[pod.UID], occupancy.Given(claim)...)
		}
	}
	return nil
}
