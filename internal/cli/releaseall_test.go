package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/external"
)

// annotated is a node with one annotation.
func annotated(key, value string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: map[string]string{key: value}}}
}

// ruled is a DeviceTaintRule whose taint has a key.
func ruled(key string) *resourcev1.DeviceTaintRule {
	return &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{Taint: resourcev1.DeviceTaint{Key: key}}}
}

// TestReleaseAllKnowsEveryNameOfOurs fails when the code has a name of ours that nobody has thought of here: it is found by
// release --all, or there is a reason why it need not be.
func TestReleaseAllKnowsEveryNameOfOurs(t *testing.T) {
	found := map[string][]client.Object{
		v1alpha1.TaintQuarantined: {
			&corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: v1alpha1.TaintQuarantined}}}}, ruled(v1alpha1.DeviceTaintQuarantined)},
		v1alpha1.AnnotationClaim:     {annotated(v1alpha1.AnnotationClaim, "r/u")},
		v1alpha1.AnnotationPrior:     {annotated(v1alpha1.AnnotationPrior, "{}")},
		v1alpha1.AnnotationPaused:    {annotated(v1alpha1.AnnotationPaused, `{"by":"r/u"}`), annotated(v1alpha1.AnnotationPaused, "torn")},
		v1alpha1.AnnotationDriverPod: {annotated(v1alpha1.AnnotationDriverPod, "r-1/p")},
		v1alpha1.FinalizerRemediation: {&v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Finalizers: []string{v1alpha1.FinalizerRemediation}},
			Status: v1alpha1.RemediationStatus{Phase: v1alpha1.PhaseSucceeded}}},
		taintPlan: {ruled(taintPlan)},
	}
	spared := map[string]string{
		v1alpha1.AnnotationCheckpoint:  "a job's own, on its pods",
		v1alpha1.LabelRemediation:      "on DeviceTaintRules, found by their taint, and on what its Remediation owns and takes with it",
		v1alpha1.AnnotationNode:        "on the same",
		v1alpha1.AnnotationDevice:      "on DeviceTaintRules, found by their taint",
		v1alpha1.AnnotationMaintenance: "a human's word; the end of its incident takes it off",
		external.AnnotationAttempt:     "on what its Remediation owns and takes with it",
	}
	for name, objects := range found {
		for _, o := range objects {
			l := &leftovers{busy: map[string]bool{}}
			switch o := o.(type) {
			case *corev1.Node:
				l.node(o)
			case *resourcev1.DeviceTaintRule:
				l.rule(o)
			case *v1alpha1.Remediation:
				l.remediation(o)
			}
			if n := len(l.all()); n != 1 {
				t.Errorf("%s on %T: %d leftovers, want 1: %v", name, o, n, l.all())
			}
		}
	}
	known := slices.Sorted(maps.Keys(found))
	known = append(known, slices.Sorted(maps.Keys(spared))...)
	slices.Sort(known)
	if diff := cmp.Diff(known, names(t)); diff != "" {
		t.Errorf("names of ours in the code: release --all must find each, or this test say why not (-known +code):\n%s", diff)
	}
}

// key is how a name of ours looks: the group's API versions do too.
var key = regexp.MustCompile(`^` + regexp.QuoteMeta(v1alpha1.GroupVersion.Group) + `/[a-z][a-z-]*$`)

// names are the texts in api and internal that look like one.
func names(t *testing.T) []string {
	t.Helper()
	seen := map[string]bool{}
	for _, tree := range []string{"../../api", "../../internal"} {
		err := filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(node ast.Node) bool {
				if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if text, err := strconv.Unquote(literal.Value); err == nil && key.MatchString(text) {
						seen[text] = true
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

const dcgm = "nvidia.com/gpu.deploy.dcgm"

func TestWhatNobodyOwnsIsTakenOff(t *testing.T) {
	noted := func(more ...string) *corev1.Node {
		n := annotated(v1alpha1.AnnotationPaused, `{"by":"gone/u","labels":{"`+dcgm+`":"true"}}`)
		n.Annotations[v1alpha1.AnnotationDriverPod] = "gone-1/p"
		n.Annotations["example.com/other"] = "stays"
		n.Labels = map[string]string{dcgm: "paused-for-driver-upgrade"}
		for _, key := range more {
			n.Annotations[key] = "r/u"
		}
		return n
	}
	incident := func(node string, phase v1alpha1.Phase) *v1alpha1.Remediation {
		return &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: v1alpha1.RemediationSpec{Node: node}, Status: v1alpha1.RemediationStatus{Phase: phase}}
	}
	asked := func(age time.Duration) *resourcev1.DeviceTaintRule {
		r := ruled(taintPlan)
		r.CreationTimestamp = metav1.NewTime(now.Add(-age))
		return r
	}
	for name, c := range map[string]struct {
		objects []client.Object
		left    string
	}{
		"its incident is gone":                  {[]client.Object{noted()}, "0 notes"},
		"its incident is over":                  {[]client.Object{noted(), incident("n", v1alpha1.PhaseCancelled)}, "0 notes"},
		"another node's incident is open":       {[]client.Object{noted(), incident("m", v1alpha1.PhaseRepairing)}, "0 notes"},
		"its incident is open":                  {[]client.Object{noted(), incident("n", v1alpha1.PhaseRepairing)}, "2 notes"},
		"the node is claimed still":             {[]client.Object{noted(v1alpha1.AnnotationClaim)}, "2 notes"},
		"a question that nobody waits for":      {[]client.Object{asked(time.Hour)}, "0 DeviceTaintRules"},
		"a question that is being asked":        {[]client.Object{asked(time.Second)}, "1 DeviceTaintRule,"},
		"a quarantine is the controller's work": {[]client.Object{ruled(v1alpha1.DeviceTaintQuarantined)}, "1 DeviceTaintRule,"},
	} {
		t.Run(name, func(t *testing.T) {
			scheme, err := newScheme()
			if err != nil {
				t.Fatal(err)
			}
			k := &cluster{Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(c.objects...).Build()}
			l, err := k.leftovers(t.Context())
			if err == nil {
				err = k.takeOffUnowned(t.Context(), l, now)
			}
			if err == nil {
				l, err = k.leftovers(t.Context())
			}
			if err != nil || !strings.Contains(l.String(), c.left) {
				t.Fatalf("%v, %v; want %s", l, err, c.left)
			}
			var node corev1.Node
			if err := k.Get(t.Context(), client.ObjectKey{Name: "n"}, &node); err == nil && c.left == "0 notes" {
				if diff := cmp.Diff(map[string]string{"example.com/other": "stays"}, node.Annotations); diff != "" || node.Labels[dcgm] != "true" {
					t.Errorf("labels %v, annotations -want +got:\n%s", node.Labels, diff)
				}
			}
		})
	}
}
