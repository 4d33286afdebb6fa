package claim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func newNode(annotations map[string]string, taints ...corev1.Taint) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "node-uid", ResourceVersion: "7", Annotations: annotations},
		Spec:       corev1.NodeSpec{Taints: taints},
	}
}

func ours(value string) corev1.Taint {
	return corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: value, Effect: corev1.TaintEffectNoSchedule}
}

var foreignTaint = corev1.Taint{Key: "example.com/x", Value: "y", Effect: corev1.TaintEffectNoExecute}

func TestOurs(t *testing.T) {
	cases := map[string]struct {
		annotations map[string]string
		name        string
		uid         types.UID
		claimed     bool
	}{
		"no claim":                            {},
		"a claim":                             {annotations: map[string]string{v1alpha1.AnnotationClaim: "r/u"}, name: "r", uid: "u", claimed: true},
		"a claim that nobody wrote like this": {annotations: map[string]string{v1alpha1.AnnotationClaim: "r"}, name: "r", claimed: true},
		"an empty claim keeps us off too":     {annotations: map[string]string{v1alpha1.AnnotationClaim: ""}, claimed: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			gotName, uid, claimed := Ours(newNode(c.annotations))
			if gotName != c.name || uid != c.uid || claimed != c.claimed {
				t.Errorf("got %q, %q, %v", gotName, uid, claimed)
			}
		})
	}
}

func TestPut(t *testing.T) {
	all := func(prior string, more ...string) map[string]string {
		want := map[string]string{
			v1alpha1.AnnotationClaim: "r/u", v1alpha1.AnnotationPrior: prior,
			KarpenterDoNotDisrupt: "true", KarpenterDoNotRepair: "true", AutoscalerScaleDownDisabled: "true",
		}
		for i := 0; i < len(more); i += 2 {
			want[more[i]] = more[i+1]
		}
		return want
	}
	const absent = `{"cluster-autoscaler.kubernetes.io/scale-down-disabled":null,"karpenter.sh/do-not-disrupt":null,"karpenter.sh/do-not-repair":null}`
	taint := ours("r")
	cases := map[string]struct {
		node        *corev1.Node
		taint       *corev1.Taint
		annotations map[string]string
		taints      []corev1.Taint
		err         error
	}{
		"a free node": {node: newNode(nil), annotations: all(absent)},
		"with the taint, beside another's": {
			node: newNode(nil, foreignTaint), taint: &taint,
			annotations: all(absent), taints: []corev1.Taint{foreignTaint, taint},
		},
		"values that were there are recorded": {
			node: newNode(map[string]string{KarpenterDoNotDisrupt: "false", "other": "stays"}),
			annotations: all(`{"cluster-autoscaler.kubernetes.io/scale-down-disabled":null,"karpenter.sh/do-not-disrupt":"false","karpenter.sh/do-not-repair":null}`,
				"other", "stays"),
		},
		"again, by the same: the record stays the first": {
			node: newNode(all(`{"karpenter.sh/do-not-disrupt":"false"}`)), annotations: all(`{"karpenter.sh/do-not-disrupt":"false"}`),
		},
		"claimed by another": {
			node: newNode(map[string]string{v1alpha1.AnnotationClaim: "s/v"}), err: ErrClaimed,
		},
		"claimed by an earlier one of the same name": {
			node: newNode(map[string]string{v1alpha1.AnnotationClaim: "r/earlier"}), err: ErrClaimed,
		},
		"tainted by another of ours": {node: newNode(nil, ours("s")), taint: &taint, err: ErrTaint},
		"tainted already by this one": {
			node: newNode(nil, taint), taint: &taint, annotations: all(absent), taints: []corev1.Taint{taint},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := c.node.DeepCopy()
			got, err := Put(c.node, "r", "u", c.taint)
			if !errors.Is(err, c.err) {
				t.Fatalf("error is %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(before, c.node); diff != "" {
				t.Errorf("the node that was given changed:\n%s", diff)
			}
			if err != nil {
				return
			}
			if diff := cmp.Diff(c.annotations, got.Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.taints, got.Spec.Taints); diff != "" {
				t.Errorf("taints (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTakeOff(t *testing.T) {
	put := func(prior map[string]string, then ...func(*corev1.Node)) *corev1.Node {
		node, err := Put(newNode(prior), "r", "u", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range then {
			change(node)
		}
		return node
	}
	set := func(key, value string) func(*corev1.Node) {
		return func(node *corev1.Node) { node.Annotations[key] = value }
	}
	cases := map[string]struct {
		node *corev1.Node
		want map[string]string
	}{
		"nothing was there before":              {node: put(nil), want: map[string]string{}},
		"what was there before comes back":      {node: put(map[string]string{KarpenterDoNotDisrupt: "false"}), want: map[string]string{KarpenterDoNotDisrupt: "false"}},
		"what was the same before stays":        {node: put(map[string]string{KarpenterDoNotRepair: "true"}), want: map[string]string{KarpenterDoNotRepair: "true"}},
		"an empty value comes back":             {node: put(map[string]string{KarpenterDoNotRepair: ""}), want: map[string]string{KarpenterDoNotRepair: ""}},
		"what somebody set since stays":         {node: put(nil, set(KarpenterDoNotDisrupt, "until-noon")), want: map[string]string{KarpenterDoNotDisrupt: "until-noon"}},
		"what others added stays":               {node: put(nil, set("other", "x")), want: map[string]string{"other": "x"}},
		"a record that cannot be read: all off": {node: put(map[string]string{"other": "x"}, set(v1alpha1.AnnotationPrior, "{")), want: map[string]string{"other": "x"}},
		"another's claim is left alone":         {node: newNode(map[string]string{v1alpha1.AnnotationClaim: "s/v", KarpenterDoNotRepair: "true"}), want: map[string]string{v1alpha1.AnnotationClaim: "s/v", KarpenterDoNotRepair: "true"}},
		"no claim":                              {node: newNode(map[string]string{KarpenterDoNotRepair: "true"}), want: map[string]string{KarpenterDoNotRepair: "true"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, TakeOff(c.node, "r", "u").Annotations); diff != "" {
				t.Errorf("annotations (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRemoveTaintTakesOffOnlyThatRemediations(t *testing.T) {
	noExecute := ours("r")
	noExecute.Effect = corev1.TaintEffectNoExecute
	node := newNode(nil, foreignTaint, ours("r"), noExecute, ours("s"))
	got := RemoveTaint(node, v1alpha1.TaintQuarantined, "r")
	if diff := cmp.Diff([]corev1.Taint{foreignTaint, ours("s")}, got.Spec.Taints); diff != "" {
		t.Errorf("taints (-want +got):\n%s", diff)
	}
	if len(node.Spec.Taints) != 4 {
		t.Error("the node that was given changed")
	}
}

// TestWhatIsPutOnIsTakenOff puts and takes off in any order, while others write, and expects what others wrote to be left.
func TestWhatIsPutOnIsTakenOff(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		node := newNode(map[string]string{})
		for _, key := range doNotDisrupt {
			if random.IntN(2) == 0 {
				node.Annotations[key] = []string{"true", "false", ""}[random.IntN(3)]
			}
		}
		want := node.DeepCopy()
		taint := ours("r")
		var err error
		for range 1 + random.IntN(3) {
			if node, err = Put(node, "r", "u", &taint); err != nil {
				t.Fatal(err)
			}
			key := fmt.Sprintf("other-%d", random.IntN(3))
			node.Annotations[key], want.Annotations[key] = "x", "x"
		}
		got := RemoveTaint(TakeOff(node, "r", "u"), taint.Key, taint.Value)
		if diff := cmp.Diff(want.Annotations, got.Annotations); diff != "" {
			t.Fatalf("annotations (-want +got):\n%s", diff)
		}
		if len(got.Spec.Taints) > 0 {
			t.Fatalf("taints are left: %v", got.Spec.Taints)
		}
	}
}

func FuzzPrior(f *testing.F) {
	f.Add(`{"karpenter.sh/do-not-disrupt":null}`)
	f.Add(`{"other":"x"}`)
	f.Add(`null`)
	f.Add(`[`)
	f.Fuzz(func(t *testing.T, prior string) {
		node, err := Put(newNode(map[string]string{v1alpha1.AnnotationPrior: prior, "other": "stays"}), "r", "u", nil)
		if err != nil {
			t.Fatal(err)
		}
		got := TakeOff(node, "r", "u").Annotations
		if got["other"] != "stays" {
			t.Error("an annotation of others changed")
		}
		for _, key := range []string{v1alpha1.AnnotationClaim, v1alpha1.AnnotationPrior} {
			if _, left := got[key]; left {
				t.Errorf("%s is left", key)
			}
		}
	})
}
