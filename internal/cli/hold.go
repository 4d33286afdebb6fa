package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// stopName is the hold that `stop` makes: one name, so that a second stop is the same stop.
const stopName = "stop"

// maxHeldNodes is the bound of spec.nodes in the schema.
const maxHeldNodes = 256

// holdFlags are what hold and stop share.
type holdFlags struct {
	output
	reason     string
	by         string
	length     time.Duration
	until      string
	everything bool
	dryRun     string
}

func (f *holdFlags) add(cmd *cobra.Command) {
	f.output.add(cmd, formatJSON, formatYAML, formatName)
	flags := cmd.Flags()
	flags.StringVar(&f.reason, "reason", "", "why, for those who find it at night (required)")
	flags.StringVar(&f.by, "by", "", "who asks for it; without it, who the server says you are")
	flags.DurationVar(&f.length, "for", 0, "how long it lasts, such as 2h or 90m")
	flags.StringVar(&f.until, "until", "", "when it lapses: 18:00, 2026-11-24, \"2026-11-24 18:00\" or RFC 3339, in your zone")
	flags.BoolVar(&f.everything, "everything", false, "keep new quarantines from being put on too, not only drains and repairs")
	addDryRun(cmd, &f.dryRun)
}

// spec makes the hold's spec, without whom it holds.
func (f *holdFlags) spec(now time.Time, zone *time.Location) (v1alpha1.RemediationHoldSpec, error) {
	spec := v1alpha1.RemediationHoldSpec{Holds: v1alpha1.HoldDisruption, Reason: strings.TrimSpace(f.reason)}
	if f.everything {
		spec.Holds = v1alpha1.HoldEverything
	}
	if spec.Reason == "" {
		return spec, usage("--reason is required: say why, for those who find the hold at night")
	}
	until, err := deadline(f.length, f.until, now, zone)
	if err != nil {
		return spec, err
	}
	spec.Until = until
	return spec, nil
}

// deadline reads --for and --until; nil means for ever.
func deadline(length time.Duration, until string, now time.Time, zone *time.Location) (*metav1.Time, error) {
	switch {
	case length != 0 && until != "":
		return nil, usage("--for and --until say the same thing; give one of them")
	case length < 0:
		return nil, usage("--for %s is in the past; give a length such as 2h", length)
	case length > 0:
		return &metav1.Time{Time: in(now, length)}, nil
	case until == "":
		return nil, nil
	}
	at, err := parseTime("--until", until, now, zone)
	if err != nil {
		return nil, err
	}
	if !at.After(now) {
		return nil, usage("--until %s is in the past; give a later time", until)
	}
	return &metav1.Time{Time: at}, nil
}

// in is a moment from now, in whole seconds as the API keeps them, never sooner than asked.
func in(now time.Time, length time.Duration) time.Time {
	return now.Add(length + time.Second - 1).Truncate(time.Second)
}

// layouts are the times --until reads, all in the reader's zone except RFC 3339, which names its own.
var layouts = []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"}

// parseTime reads the time of a flag as people write it. A time of day is the next one: 06:00 said in the evening is tomorrow's.
func parseTime(flag, s string, now time.Time, zone *time.Location) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at, nil
	}
	for _, layout := range layouts {
		if at, err := time.ParseInLocation(layout, s, zone); err == nil {
			return at, nil
		}
	}
	clock, err := time.Parse("15:04", s)
	if err != nil {
		return time.Time{}, usage("%s %q cannot be read; write 18:00, 2026-11-24, \"2026-11-24 18:00\" or 2026-11-24T18:00:00+09:00", flag, s)
	}
	local := now.In(zone)
	for day := range 2 {
		at := time.Date(local.Year(), local.Month(), local.Day()+day, clock.Hour(), clock.Minute(), 0, 0, zone)
		if at.After(now) {
			return at, nil
		}
	}
	return time.Time{}, usage("%s %q is not a time of tomorrow or today", flag, s)
}

func (a *app) holdCommand() *cobra.Command {
	var f holdFlags
	var selector, name string
	cmd := &cobra.Command{
		Use:   "hold (NODE... | -l SELECTOR) --reason TEXT",
		Short: "Keep drains and repairs from beginning on nodes",
		Long: `Keep drains and repairs from beginning on nodes, until a time or until it is released. What the agent is in the middle of
is not torn off; the next step does not begin. Quarantine still keeps new work off, unless --everything.`,
		Example: `  kubectl roundhouse hold gpu-0417 --reason "demo on Monday" --until 18:00
  kubectl roundhouse hold -l pool=h200-training --reason "night run" --for 12h`,
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := f.spec(a.Now(), a.Zone)
			if err != nil {
				return err
			}
			if err := whom(&spec, args, selector); err != nil {
				return err
			}
			return a.hold(cmd.Context(), &f, name, spec)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVarP(&selector, "selector", "l", "", "hold the nodes that this label selector selects, now and later")
	cmd.Flags().StringVar(&name, "name", "", "the hold's name; without it, one is made")
	return cmd
}

// whom says which nodes are held.
func whom(spec *v1alpha1.RemediationHoldSpec, nodes []string, selector string) error {
	switch {
	case len(nodes) > 0 && selector != "":
		return usage("give node names or -l, not both")
	case len(nodes) > maxHeldNodes:
		return usage("%d nodes are more than the %d a hold can name; use -l", len(nodes), maxHeldNodes)
	case len(nodes) > 0:
		slices.Sort(nodes)
		spec.Nodes = slices.Compact(nodes)
		return nil
	case selector == "":
		return usage("name the nodes to hold, or select them with -l; to hold every node: kubectl roundhouse stop")
	}
	parsed, err := metav1.ParseToLabelSelector(selector)
	if err != nil {
		return usage("-l %q cannot be read: %v", selector, err)
	}
	spec.NodeSelector = parsed
	return nil
}

func (a *app) stopCommand() *cobra.Command {
	var f holdFlags
	cmd := &cobra.Command{
		Use:   "stop --reason TEXT",
		Short: "Hold every node: nothing disruptive begins anywhere",
		Long: `Hold every node: no drain and no repair begins anywhere until it is released, nodes that join later included. What an
agent is in the middle of is not torn off. Let it go on with: kubectl roundhouse release ` + stopName,
		Args: exactly(0, "no arguments (to hold some nodes: kubectl roundhouse hold)"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			spec, err := f.spec(a.Now(), a.Zone)
			if err != nil {
				return err
			}
			spec.NodeSelector = &metav1.LabelSelector{}
			return a.hold(cmd.Context(), &f, stopName, spec)
		},
	}
	f.add(cmd)
	return cmd
}

// hold creates the hold, or changes the one of its name, and says what that does.
func (a *app) hold(ctx context.Context, f *holdFlags, name string, spec v1alpha1.RemediationHoldSpec) error {
	if err := cmp.Or(f.check(), checkDryRun(f.dryRun)); err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	if err := c.knowNodes(ctx, spec.Nodes); err != nil {
		return err
	}
	if spec.RequestedBy, err = c.by(ctx, f.by); err != nil {
		return err
	}
	hold := &v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if name == "" {
		hold.GenerateName = generateName(&spec)
	}
	verb, err := c.applyHold(ctx, hold, f.dryRun)
	if err != nil {
		return err
	}
	if f.format == formatJSON || f.format == formatYAML {
		hold.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("RemediationHold"))
		hold.ManagedFields = nil
		return encode(a.Out, f.format, hold)
	}
	object := "remediationhold.roundhouse.dev/" + cmp.Or(hold.Name, hold.GenerateName+"...")
	if f.format == formatName {
		_, err = fmt.Fprintln(a.Out, object)
		return err
	}
	// It holds from here on, whatever the rest says: who may hold need not be able to read anything else.
	held, err := c.countHeld(ctx, &hold.Spec)
	if err != nil {
		return err
	}
	acting, err := c.actingOn(ctx, hold)
	if err != nil && !apierrors.IsForbidden(err) {
		return err
	}
	p := a.page()
	p.Line(object + " " + verb + dryRunNote(f.dryRun))
	sayHeld(p, hold, held, acting)
	_, err = p.WriteTo(a.Out)
	return err
}

func sayHeld(p *text.Page, hold *v1alpha1.RemediationHold, held string, acting []string) {
	until := "until it is released"
	if hold.Spec.Until != nil {
		until = "until " + p.Clock.Until(hold.Spec.Until.Time)
	}
	what := "no drain and no repair begins"
	if hold.Spec.Holds == v1alpha1.HoldEverything {
		what = "no drain, no repair and no new quarantine begins"
	}
	line(p, "Held", "%s, %s: %s", held, until, what)
	for _, a := range acting {
		p.Section("Acting", a+": no further step begins; what the agent has begun it ends")
	}
	if hold.Name != "" {
		p.Section("Lift it", "kubectl roundhouse release "+hold.Name)
	}
}

// generateName begins a hold's name with whom it holds.
func generateName(spec *v1alpha1.RemediationHoldSpec) string {
	if len(spec.Nodes) == 1 && len(spec.Nodes[0]) <= 200 {
		return "hold-" + spec.Nodes[0] + "-"
	}
	return "hold-"
}

// applyHold creates a hold; one of the same name is replaced, so that holding again is no error.
func (c *cluster) applyHold(ctx context.Context, hold *v1alpha1.RemediationHold, dryRun string) (string, error) {
	if dryRun == dryRunClient {
		return "would be created", nil
	}
	want := hold.Spec
	err := c.Create(ctx, hold, creation(dryRun)...)
	if err == nil {
		return "created", nil
	}
	if !apierrors.IsAlreadyExists(err) || hold.Name == "" {
		return "", fmt.Errorf("creating the hold: %w", err)
	}
	if err := c.Get(ctx, client.ObjectKeyFromObject(hold), hold); err != nil {
		return "", fmt.Errorf("reading hold %s: %w", hold.Name, err)
	}
	hold.Spec = want
	var options []client.UpdateOption
	if dryRun == dryRunServer {
		options = append(options, client.DryRunAll)
	}
	if err := c.Update(ctx, hold, options...); err != nil {
		return "", fmt.Errorf("changing hold %s: %w", hold.Name, err)
	}
	return "changed", nil
}

func creation(dryRun string) []client.CreateOption {
	if dryRun == dryRunServer {
		return []client.CreateOption{client.DryRunAll}
	}
	return nil
}

// knowNodes refuses a name that no node has: it is a typing error more often than a node that is to come, and a hold that
// holds nothing is the worst kind. Who may not read Nodes is taken at their word.
func (c *cluster) knowNodes(ctx context.Context, names []string) error {
	for _, node := range names {
		there, err := c.exists(ctx, node)
		switch {
		case apierrors.IsForbidden(err):
			return nil
		case err != nil:
			return err
		case there:
			continue
		}
		similar, err := c.similarNodes(ctx, node)
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		what := fmt.Sprintf("there is no node %q; nothing was held", node)
		if len(similar) > 0 {
			what += "; did you mean " + strings.Join(similar, ", ") + "?"
		}
		return &foundError{what: what}
	}
	return nil
}

// countHeld says how many nodes a hold selects now.
func (c *cluster) countHeld(ctx context.Context, spec *v1alpha1.RemediationHoldSpec) (string, error) {
	if len(spec.Nodes) > 0 {
		return text.Count(len(spec.Nodes), "node", "nodes"), nil
	}
	selector, err := metav1.LabelSelectorAsSelector(spec.NodeSelector)
	if err != nil {
		return "", usage("-l cannot be read: %v", err)
	}
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	n := 0
	err = pages(ctx, c, list, func(l *metav1.PartialObjectMetadataList) { n += len(l.Items) }, client.MatchingLabelsSelector{Selector: selector})
	switch {
	case apierrors.IsForbidden(err):
		return "every node it selects (you may not list them)", nil
	case err != nil:
		return "", fmt.Errorf("counting the nodes: %w", err)
	}
	return text.Count(n, "node", "nodes"), nil
}

// actingOn lists the held nodes on which something is under way.
func (c *cluster) actingOn(ctx context.Context, hold *v1alpha1.RemediationHold) ([]string, error) {
	open, err := c.openRemediations(ctx)
	if err != nil {
		return nil, err
	}
	var out []string
	for i := range open {
		r := &open[i]
		if !r.Status.Phase.Acting() {
			continue
		}
		held := slices.Contains(hold.Spec.Nodes, r.Spec.Node)
		if !held && hold.Spec.NodeSelector != nil {
			labels, err := c.labels(ctx, r.Spec.Node)
			if err != nil {
				return nil, err
			}
			held = explain.Selects(hold.Spec.NodeSelector, labels)
		}
		if held {
			out = append(out, fmt.Sprintf("%s is %s", r.Spec.Node, r.Status.Phase))
		}
	}
	return out, nil
}
