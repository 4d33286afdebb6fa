package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/cli/explain"
	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
	"github.com/roundhouse-dev/roundhouse/internal/cli/schema"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

type checkFlags struct {
	output
	files            []string
	cluster, offline bool
}

func (a *app) checkCommand() *cobra.Command {
	var f checkFlags
	cmd := &cobra.Command{
		Use:   "check (FILE... | -f FILE | --cluster)",
		Short: "Check manifests before they are applied, or the cluster before Roundhouse acts on it",
		Long: `Check manifests before they are applied: the schema and its CEL rules without a cluster, then, where a cluster answers,
by its own dry run; the rules of a policy are recited in their order, with the nodes it would govern. "-" reads stdin.

--cluster checks the cluster instead: DaemonSets that do not tolerate our taint, others that remediate, nodes without an
agent or a policy, budgets that select nothing. It only reads.

The exit code is 1 where something must be fixed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.files = append(f.files, args...)
			switch {
			case f.cluster && len(f.files) > 0:
				return usage("--cluster checks the cluster; check %s by itself", strings.Join(f.files, ", "))
			case f.cluster && f.offline:
				return usage("--cluster and --offline exclude each other")
			case !f.cluster && len(f.files) == 0:
				return usage("name the files to check, or give --cluster")
			}
			if err := f.check(); err != nil {
				return err
			}
			if f.cluster {
				return a.checkCluster(cmd.Context(), &f)
			}
			return a.checkFiles(cmd.Context(), &f)
		},
	}
	f.output.add(cmd, formatWide, formatJSON, formatYAML)
	cmd.Flags().StringSliceVarP(&f.files, "filename", "f", nil, "files to check, as arguments are")
	cmd.Flags().BoolVar(&f.cluster, "cluster", false, "check the cluster")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "do not ask a cluster")
	return cmd
}

// Checked is the verdict on one object of a manifest.
type Checked struct {
	File  string `json:"file"`
	Kind  string `json:"kind"`
	Name  string `json:"name"`
	Valid bool   `json:"valid"`
	// Problems must be fixed; Notes need not.
	Problems []string `json:"problems,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	// Rules recite a policy, in the order in which they are tried.
	Rules []string `json:"rules,omitempty"`
	// Nodes are those it would govern, guard or hold.
	Nodes []string `json:"nodes,omitempty"`
	// Asked says whether a cluster was asked.
	Asked bool `json:"asked"`

	mode string
}

// Checks is the answer to "check FILE".
type Checks struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Items      []Checked `json:"items"`
}

func (a *app) checkFiles(ctx context.Context, f *checkFlags) error {
	set, err := schema.Load(config.Files, "crd")
	if err != nil {
		return err
	}
	around, note := a.around(ctx, f)
	out := Checks{APIVersion: explain.Version, Kind: "Checks", Items: []Checked{}}
	wrong := 0
	for _, file := range f.files {
		documents, err := a.read(file)
		if err != nil {
			return err
		}
		for _, d := range documents {
			item := checkOne(ctx, set, around, file, d)
			if note != "" {
				item.Notes = append(item.Notes, note)
			}
			if !item.Valid {
				wrong++
			}
			out.Items = append(out.Items, item)
		}
	}
	if err := a.show(&f.output, &out, nil); err != nil {
		return err
	}
	switch {
	case len(out.Items) == 0:
		return &foundError{what: "there is no object in " + strings.Join(f.files, ", ")}
	case wrong > 0:
		return &foundError{what: fmt.Sprintf("%d of %s must be fixed", wrong, text.Count(len(out.Items), "object", "objects"))}
	}
	return nil
}

// maxManifest is more than the API server takes in one request.
const maxManifest = 16 << 20

func (a *app) read(file string) ([]schema.Document, error) {
	in := a.In
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, usage("%v", err)
		}
		defer func() { _ = opened.Close() }()
		in = opened
	}
	if in == nil {
		return nil, usage("-: there is no standard input")
	}
	data, err := io.ReadAll(io.LimitReader(in, maxManifest+1))
	if err != nil {
		return nil, usage("reading %s: %v", file, err)
	}
	if len(data) > maxManifest {
		return nil, usage("%s is larger than %d MiB", file, maxManifest>>20)
	}
	documents, err := schema.Parse(data)
	if err != nil {
		return nil, usage("%s: %v", file, err)
	}
	return documents, nil
}

// around is the cluster that a manifest would be applied to.
type around struct {
	cluster  *cluster
	nodes    []fleet.Node
	policies []v1alpha1.RemediationPolicy
}

// around asks the cluster; without one, the manifest is judged by itself and the note says so.
func (a *app) around(ctx context.Context, f *checkFlags) (*around, string) {
	if f.offline {
		return nil, ""
	}
	c, err := a.connect()
	if err != nil {
		return nil, "no cluster was asked: " + err.Error()
	}
	out := &around{cluster: c}
	if out.nodes, err = c.nodes(ctx); err != nil {
		return nil, "no cluster was asked: " + err.Error()
	}
	if out.policies, _, _, err = c.rules(ctx); err != nil {
		// The kinds may not be installed yet; which nodes it selects can be said all the same.
		return &around{nodes: out.nodes}, "the cluster's own policies were not read: " + err.Error()
	}
	return out, ""
}

func checkOne(ctx context.Context, set *schema.Set, w *around, file string, d schema.Document) Checked {
	item := Checked{File: file, Kind: d.Object.GetKind(), Name: d.Object.GetName(), Problems: d.Problems, Asked: w != nil}
	asWritten := d.Object.DeepCopy()
	if len(item.Problems) == 0 {
		item.Problems = set.Judge(ctx, d.Object)
	}
	if len(item.Problems) == 0 {
		if err := item.understand(d.Object, w); err != nil {
			item.Problems = append(item.Problems, err.Error())
		}
		item.dryRun(ctx, w, asWritten)
	}
	item.Valid = len(item.Problems) == 0
	return item
}

// understand reads a valid object and says what it means.
func (item *Checked) understand(object *unstructured.Unstructured, w *around) error {
	switch item.Kind {
	case "RemediationPolicy":
		p := &v1alpha1.RemediationPolicy{}
		if err := convert(object, p); err != nil {
			return err
		}
		item.policy(p, w)
	case "NodeDisruptionBudget":
		b := &v1alpha1.NodeDisruptionBudget{}
		if err := convert(object, b); err != nil {
			return err
		}
		item.selects(w, func(n *fleet.Node) bool { return explain.Selects(&b.Spec.NodeSelector, n.Labels) })
	case "RemediationHold":
		h := &v1alpha1.RemediationHold{}
		if err := convert(object, h); err != nil {
			return err
		}
		item.selects(w, func(n *fleet.Node) bool { return explain.HoldsNode(h, n.Name, n.Labels) })
	}
	return nil
}

func convert(object *unstructured.Unstructured, into any) error {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into); err != nil {
		return fmt.Errorf("reading it: %w", err)
	}
	return nil
}

func (item *Checked) policy(p *v1alpha1.RemediationPolicy, w *around) {
	item.mode = string(p.Spec.Mode)
	for i := range p.Spec.Rules {
		item.Rules = append(item.Rules, p.Spec.Rules[i].Name+": "+explain.Recite(&p.Spec.Rules[i]))
	}
	if reason, message := policy.Compile([]v1alpha1.RemediationPolicy{*p}).Status(p.Name); reason != policy.ReasonValid {
		item.Problems = append(item.Problems, message)
	}
	if w == nil {
		return
	}
	all := []v1alpha1.RemediationPolicy{*p}
	for _, other := range w.policies {
		if other.Name != p.Name {
			all = append(all, other)
		}
	}
	outranked, tied := map[string]int{}, map[string]int{}
	for i := range w.nodes {
		n := &w.nodes[i]
		if !explain.Selects(&p.Spec.NodeSelector, n.Labels) {
			continue
		}
		governor, _ := explain.Governor(all, n.Labels)
		switch with := tiedWith(all, p, n); {
		case governor != nil && governor.Spec.Priority > p.Spec.Priority:
			outranked[governor.Name]++
		case with != "":
			tied[with]++
		default:
			item.Nodes = append(item.Nodes, n.Name)
		}
	}
	for other, n := range outranked {
		item.Notes = append(item.Notes, fmt.Sprintf("%s it selects are governed by %s, of a higher priority", text.Count(n, "node", "nodes"), other))
	}
	for other, n := range tied {
		item.Problems = append(item.Problems, fmt.Sprintf("spec.priority: %s has the same priority and selects %s of the same: both would be Conflicted there, and those nodes in Observe", other, text.Count(n, "node", "nodes")))
	}
	if len(item.Nodes)+len(outranked)+len(tied) == 0 {
		item.Notes = append(item.Notes, "spec.nodeSelector selects no node of this cluster")
	}
}

// tiedWith is another policy of the same priority that selects the node.
func tiedWith(all []v1alpha1.RemediationPolicy, p *v1alpha1.RemediationPolicy, n *fleet.Node) string {
	for i := range all {
		o := &all[i]
		if o.Name != p.Name && o.Spec.Priority == p.Spec.Priority && explain.Selects(&o.Spec.NodeSelector, n.Labels) {
			return o.Name
		}
	}
	return ""
}

func (item *Checked) selects(w *around, selects func(*fleet.Node) bool) {
	if w == nil {
		return
	}
	for i := range w.nodes {
		if selects(&w.nodes[i]) {
			item.Nodes = append(item.Nodes, w.nodes[i].Name)
		}
	}
	if len(item.Nodes) == 0 {
		item.Notes = append(item.Notes, "it selects no node of this cluster")
	}
}

// dryRun asks the server, which also runs admission and, for an object that exists, the rules about changes.
func (item *Checked) dryRun(ctx context.Context, w *around, object *unstructured.Unstructured) {
	if w == nil || w.cluster == nil {
		return
	}
	err := w.cluster.Create(ctx, object.DeepCopy(), client.DryRunAll)
	if apierrors.IsAlreadyExists(err) {
		current := &unstructured.Unstructured{}
		current.SetGroupVersionKind(object.GroupVersionKind())
		if err = w.cluster.Get(ctx, client.ObjectKeyFromObject(object), current); err == nil {
			changed := object.DeepCopy()
			changed.SetResourceVersion(current.GetResourceVersion())
			err = w.cluster.Update(ctx, changed, client.DryRunAll)
		}
	}
	var status apierrors.APIStatus
	switch {
	case err == nil:
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		item.Problems = append(item.Problems, "the server says: "+text.Clean(err.Error()))
	case errors.As(err, &status):
		item.Notes = append(item.Notes, "the server's dry run did not run: "+text.Clean(err.Error()))
	default:
		item.Notes = append(item.Notes, "the server was not reached: "+text.Clean(err.Error()))
	}
}

// Render writes each object with its verdict.
func (c *Checks) Render(p *text.Page, wide bool) {
	for i, item := range c.Items {
		if i > 0 {
			p.Line("")
		}
		verdict := p.Tint(text.Good, "VALID")
		if !item.Valid {
			verdict = p.Tint(text.Bad, "INVALID")
		}
		p.Line(fmt.Sprintf("%s: %s %s  %s", item.File, item.Kind, text.Clean(item.Name), verdict))
		p.Section("Problems", item.Problems...)
		if item.mode != "" {
			p.Section("Mode", item.mode)
		}
		var rules []string
		for n, r := range item.Rules {
			rules = append(rules, fmt.Sprintf("%d. %s", n+1, r))
		}
		if len(rules) > 0 {
			rules = append(rules, "else: show it, never act on it")
		}
		p.Section("Rules", rules...)
		if len(item.Nodes) > 0 {
			limit := nodesShown
			if wide {
				limit = len(item.Nodes)
			}
			p.Section("Nodes", fmt.Sprintf("%d: %s", len(item.Nodes), text.Bounded(item.Nodes, limit)))
		}
		p.Section("Notes", item.Notes...)
	}
}

const nodesShown = 8
