package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/maintenance"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

type maintainFlags struct {
	output
	waitFlags
	reason, by, selector string
	action               string
	window, now, done    bool
	notBefore, until     string
	dryRun               string
}

func (a *app) maintainCommand() *cobra.Command {
	var f maintainFlags
	cmd := &cobra.Command{
		Use:   "maintain (NODE... | -l SELECTOR) (--reason TEXT [--action RUNG] [--window | --now] | --done)",
		Short: "Plan work on nodes that are not broken: one queue with repairs, which go first",
		Long: `Plan work on nodes that are not broken, such as a reboot into a new kernel. It goes through the same budgets, drain and proof
as a repair, and what has failed goes first. New work comes to a node until its turn has come.

--action names a rung of the node's policy: one that reboots, runs a Job, power-cycles or replaces. Without it the node is
emptied, kept empty and handed to you; --done gives it back, after its checks have passed. A node that starts anew meanwhile,
for whatever reason, has had its reboot.

It waits until no work would be lost; with --window until a window of the policy is open, with --now for nothing but budgets
and holds. Where it has not begun by --until, or within a week, a human is told. Before its turn --done takes it back.`,
		Example: `  kubectl roundhouse maintain gpu-0417 --reason "kernel 6.18.9" --action reboot
  kubectl roundhouse maintain -l pool=h200 --reason "new firmware" --action update-firmware --window --until 2026-12-01
  kubectl roundhouse maintain gpu-0417 --reason "swap the riser" --now
  kubectl roundhouse maintain gpu-0417 --done`,
		ValidArgsFunction: a.completeNodes,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.runMaintain(cmd.Context(), &f, args) },
	}
	f.output.add(cmd, formatName)
	flags := cmd.Flags()
	flags.StringVar(&f.reason, "reason", "", "why, for those who find it at night")
	flags.StringVar(&f.by, "by", "", "who asks for it; without it, who the server says you are")
	flags.StringVarP(&f.selector, "selector", "l", "", "the nodes that this label selector selects now")
	flags.StringVar(&f.action, "action", "", "the rung of the policy to climb, such as reboot; without it the node is handed to you, empty")
	flags.BoolVar(&f.window, "window", false, "wait for a window of the policy")
	flags.BoolVar(&f.now, "now", false, "wait neither for idleness nor for a window")
	flags.StringVar(&f.notBefore, "not-before", "", "when it may begin: 18:00, 2026-11-24, \"2026-11-24 18:00\" or RFC 3339, in your zone")
	flags.StringVar(&f.until, "until", "", "when a human is told that it has not begun, written likewise")
	flags.BoolVar(&f.done, "done", false, "say that the work is done, or not wanted any more")
	addDryRun(cmd, &f.dryRun)
	f.waitFlags.add(cmd)
	return cmd
}

func (a *app) runMaintain(ctx context.Context, f *maintainFlags, args []string) error {
	if err := cmp.Or(f.check(), checkDryRun(f.dryRun), f.consistent(args)); err != nil {
		return err
	}
	request, err := f.request(a.Now(), a.Zone)
	if err != nil {
		return err
	}
	return a.maintain(ctx, f, args, request)
}

// consistent says which flags do not go together.
func (f *maintainFlags) consistent(nodes []string) error {
	switch {
	case len(nodes) > 0 && f.selector != "":
		return usage("give node names or -l, not both")
	case len(nodes) == 0 && f.selector == "":
		return usage("name the nodes, or select them with -l")
	case f.wait && (f.done || f.dryRun != dryRunNone):
		return usage("--wait waits for work that is asked for")
	case f.wait && f.timeout <= 0:
		return usage("--timeout %s: give a length such as 1h", f.timeout)
	}
	return f.consistentRequest()
}

// consistentRequest does so of what the work is and when.
func (f *maintainFlags) consistentRequest() error {
	switch {
	case f.window && f.now:
		return usage("--window and --now contradict each other; give one of them")
	case f.done && (f.reason != "" || f.action != "" || f.window || f.now || f.notBefore != "" || f.until != ""):
		return usage("--done goes with nodes only")
	case !f.done && strings.TrimSpace(f.reason) == "":
		return usage("--reason is required: say why, for those who find it at night")
	}
	return nil
}

// request is what is asked for, without by whom; nil takes it back.
func (f *maintainFlags) request(now time.Time, zone *time.Location) (*maintenance.Request, error) {
	if f.done {
		return nil, nil
	}
	r := &maintenance.Request{Reason: strings.TrimSpace(f.reason), At: metav1.NewTime(now.UTC().Truncate(time.Second)), Rung: f.action}
	switch {
	case f.window:
		r.When = v1alpha1.WhenWindow
	case f.now:
		r.When = v1alpha1.WhenNow
	}
	for _, t := range []struct {
		flag, text string
		into       **metav1.Time
	}{{"--not-before", f.notBefore, &r.NotBefore}, {"--until", f.until, &r.Until}} {
		if t.text == "" {
			continue
		}
		at, err := parseTime(t.flag, t.text, now, zone)
		if err != nil {
			return nil, err
		}
		*t.into = &metav1.Time{Time: at.UTC()}
	}
	return r, nil
}

func (a *app) maintain(ctx context.Context, f *maintainFlags, names []string, request *maintenance.Request) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	nodes, err := c.nodesToMaintain(ctx, names, f.selector)
	if err != nil {
		return err
	}
	waits := map[string]int{}
	if request != nil {
		if request.By, err = c.by(ctx, f.by); err != nil {
			return err
		}
		if err := request.Check(); err != nil {
			return usage("%v", err)
		}
		if waits, err = c.mayMaintain(ctx, nodes, request.Rung); err != nil {
			return err
		}
	}
	var changed []string
	for i := range nodes {
		did, err := c.annotate(ctx, nodes[i].Name, request, f.dryRun)
		if err != nil {
			return fmt.Errorf("node %s, after %s: %w", nodes[i].Name, text.Count(len(changed), "other", "others"), err)
		}
		if did {
			changed = append(changed, nodes[i].Name)
		}
	}
	if err := a.sayMaintained(f, changed, request, waits); err != nil || !f.wait {
		return err
	}
	return a.await(ctx, c, changed, request, f.timeout)
}

// nodesToMaintain are the nodes that are meant; that one of them is not there, or that none is selected, is found before
// anything is changed.
func (c *cluster) nodesToMaintain(ctx context.Context, names []string, selector string) ([]corev1.Node, error) {
	if err := c.knowNodes(ctx, names); err != nil {
		return nil, err
	}
	var nodes []corev1.Node
	if len(names) > 0 {
		slices.Sort(names)
		for _, name := range slices.Compact(names) {
			node := corev1.Node{}
			if err := c.Get(ctx, client.ObjectKey{Name: name}, &node); err != nil {
				return nil, fmt.Errorf("reading node %s: %w", name, err)
			}
			nodes = append(nodes, node)
		}
		return nodes, nil
	}
	parsed, err := metav1.ParseToLabelSelector(selector)
	if err != nil {
		return nil, usage("-l %q cannot be read: %v", selector, err)
	}
	selects, err := metav1.LabelSelectorAsSelector(parsed)
	if err != nil {
		return nil, usage("-l %q cannot be read: %v", selector, err)
	}
	err = pages(ctx, c, &corev1.NodeList{}, func(l *corev1.NodeList) { nodes = append(nodes, l.Items...) }, client.MatchingLabelsSelector{Selector: selects})
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the nodes: %w", err)
	case len(nodes) == 0:
		return nil, &foundError{what: fmt.Sprintf("-l %q selects no node; nothing was planned", selector)}
	}
	return nodes, nil
}

// mayMaintain refuses a rung that a node's policy does not have, before anything is changed; and counts the nodes that will wait
// for something that only a human changes, by what.
func (c *cluster) mayMaintain(ctx context.Context, nodes []corev1.Node, rung string) (map[string]int, error) {
	policies, _, _, err := c.rules(ctx)
	if err != nil {
		return nil, err
	}
	set, waits := policy.Compile(policies), map[string]int{}
	for i := range nodes {
		g := set.For(&nodes[i])
		switch {
		case g.Policy == nil:
			waits["a policy that selects them"]++
			continue
		case !g.Accepted:
			waits["policy "+g.Policy.Name+" to be accepted"]++
		case g.Mode() != v1alpha1.ModeRemediate:
			waits["mode Remediate in policy "+g.Policy.Name]++
		}
		has := make([]string, 0, len(g.Policy.Spec.Rungs))
		for _, r := range g.Policy.Spec.Rungs {
			has = append(has, r.Name)
		}
		if rung != "" && !slices.Contains(has, rung) {
			return nil, &foundError{what: fmt.Sprintf("policy %s of node %s has no rung %q; it has: %s. Nothing was planned",
				g.Policy.Name, nodes[i].Name, rung, cmp.Or(strings.Join(has, ", "), "none"))}
		}
	}
	return waits, nil
}

// annotate writes the request onto a node, or takes it off, and says whether that changed anything.
func (c *cluster) annotate(ctx context.Context, name string, request *maintenance.Request, dryRun string) (changed bool, err error) {
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node := &corev1.Node{}
		if err := c.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
			return err
		}
		before := node.DeepCopy()
		_, had := node.Annotations[v1alpha1.AnnotationMaintenance]
		if changed = had || request != nil; !changed || dryRun == dryRunClient {
			return nil
		}
		if request == nil {
			delete(node.Annotations, v1alpha1.AnnotationMaintenance)
		} else {
			metav1.SetMetaDataAnnotation(&node.ObjectMeta, v1alpha1.AnnotationMaintenance, request.String())
		}
		var options []client.PatchOption
		if dryRun == dryRunServer {
			options = append(options, client.DryRunAll)
		}
		return c.Patch(ctx, node, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), options...)
	})
	return changed, err
}

func (a *app) sayMaintained(f *maintainFlags, nodes []string, request *maintenance.Request, waits map[string]int) error {
	if f.format == formatName {
		for _, name := range nodes {
			if _, err := fmt.Fprintln(a.Out, "node/"+name); err != nil {
				return err
			}
		}
		return nil
	}
	p := a.page()
	switch {
	case len(nodes) == 0:
		p.Line("nothing was planned there")
	case request == nil:
		p.Line(text.Bounded(nodes, maxSaid) + " given back" + dryRunNote(f.dryRun))
		p.Section("Now", "what is planned and has not begun does not begin; an empty node takes work again once its checks have passed")
	default:
		p.Line("work on " + text.Bounded(nodes, maxSaid) + " is planned" + dryRunNote(f.dryRun))
		line(p, "Planned", "%s; %s", cmp.Or(request.Rung, "the node empty, for you"), a.whenText(request))
		for _, what := range slices.Sorted(maps.Keys(waits)) {
			p.Section("Waits", text.Count(waits[what], "node waits", "nodes wait")+" for "+what)
		}
		p.Section("Watch it", "kubectl roundhouse why "+nodes[0])
		p.Section("Take it back", "kubectl roundhouse maintain "+nodes[0]+" --done")
	}
	_, err := p.WriteTo(a.Out)
	return err
}

// maxSaid is how many nodes are named.
const maxSaid = 8

// whenText says what a request waits for.
func (a *app) whenText(r *maintenance.Request) string {
	what := map[v1alpha1.When]string{"": "when no work would be lost", v1alpha1.WhenWindow: "in a window of the policy", v1alpha1.WhenNow: "now"}[r.When]
	if r.NotBefore != nil {
		what += ", not before " + a.clock().Until(r.NotBefore.Time)
	}
	return what + "; a human is told where it has not begun by " + a.clock().Until(r.Ends(r.At.Time))
}
