package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/drain"
)

// classes gives the policy workload classes, one for each expression.
func classes(expressions ...string) func(*v1alpha1.RemediationPolicy) {
	return func(p *v1alpha1.RemediationPolicy) {
		p.Spec.Drain = &v1alpha1.Drain{}
		for i, text := range expressions {
			p.Spec.Drain.Classes = append(p.Spec.Drain.Classes, v1alpha1.WorkloadClass{Name: fmt.Sprint("c", i), Cost: v1alpha1.CostFree,
				Match: v1alpha1.WorkloadMatch{Expression: text}})
		}
	}
}

// governed gives what governs a node under one policy.
func governed(change ...func(*v1alpha1.RemediationPolicy)) Governing {
	return Compile([]v1alpha1.RemediationPolicy{newPolicy("p", change...)}).For(newNode("n", nil))
}

func workloadPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "web-0", Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"tier": "gold"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "n"},
				{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "web", Controller: ptr(true)}}},
		Spec: corev1.PodSpec{Priority: ptr(int32(7)), PriorityClassName: "low", SchedulerName: "kueue", RuntimeClassName: ptr("kata"),
			ServiceAccountName: "web", NodeSelector: map[string]string{"pool": "gpu"}},
	}
}

func TestAnExpressionOverAPod(t *testing.T) {
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "bare"}}
	for name, tc := range map[string]struct {
		text string
		pod  *corev1.Pod
		want bool
		err  string
	}{
		"its name and namespace":                      {"pod.name == 'web-0' && pod.namespace == 'ml'", workloadPod(), true, ""},
		"the namespace's name":                        {"namespaceObject.name.startsWith('m')", workloadPod(), true, ""},
		"a label":                                     {"pod.labels['app'] == 'web'", workloadPod(), true, ""},
		"an annotation":                               {"pod.annotations['tier'] == 'gold'", workloadPod(), true, ""},
		"an answer of no":                             {"pod.labels['app'] == 'db'", workloadPod(), false, ""},
		"priority, and its class":                     {"pod.priority == 7 && pod.priorityClassName == 'low'", workloadPod(), true, ""},
		"scheduler, runtime and service account":      {"pod.schedulerName + pod.runtimeClassName + pod.serviceAccountName == 'kuekataweb'", workloadPod(), false, ""},
		"scheduler, runtime and service account, yes": {"pod.schedulerName + pod.runtimeClassName + pod.serviceAccountName == 'kueuekataweb'", workloadPod(), true, ""},
		"the node selector":                           {"'pool' in pod.nodeSelector", workloadPod(), true, ""},
		"the controller, not another owner":           {"owner.kind == 'StatefulSet' && owner.apiVersion == 'apps/v1' && owner.name == 'web'", workloadPod(), true, ""},
		"any owner":                                   {"pod.ownerReferences.exists(o, o.kind == 'Node')", workloadPod(), true, ""},
		"no controller":                               {"owner.kind == '' && owner.name == ''", bare, true, ""},
		"a pod that says nothing":                     {"pod.priority == 0 && pod.runtimeClassName == '' && !('a' in pod.labels) && size(pod.ownerReferences) == 0", bare, true, ""},
		"a label that is not there":                   {"pod.labels['app'] == 'web'", bare, false, "no such key: app"},
		"a label that is asked for first":             {"'app' in pod.labels && pod.labels['app'] == 'web'", bare, false, ""},
		"a text that is no number":                    {"int(pod.labels['app']) > 3", workloadPod(), false, "evaluating its expression"},
	} {
		t.Run(name, func(t *testing.T) {
			g := governed(classes("false", tc.text))
			if !g.Accepted {
				t.Fatal(g.Message)
			}
			got, err := g.Decided().Says(1, tc.pod, nil)
			if got != tc.want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, %v; want %v, %q", got, err, tc.want, tc.err)
			}
		})
	}
}

func TestTheLabelsOfANamespaceAreAskedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		text   string
		asks   bool
		labels map[string]string
		want   bool
		err    string
	}{
		"its name needs none":                       {"namespaceObject.name == 'ml'", false, nil, true, ""},
		"nor does a pod's own field of that name":   {"pod.labels['app'] == 'web'", false, nil, true, ""},
		"a label of it":                             {"namespaceObject.labels['team'] == 'x'", true, map[string]string{"team": "x"}, true, ""},
		"a label that it does not have":             {"'team' in namespaceObject.labels", true, map[string]string{}, false, ""},
		"labels that could not be read are not no":  {"!('team' in namespaceObject.labels)", true, nil, false, "the labels of namespace ml could not be read"},
		"behind its name":                           {"namespaceObject.name == 'x' || namespaceObject.labels['team'] == 'x'", true, nil, false, "could not be read"},
		"in a macro":                                {"namespaceObject.labels.exists(k, k == 'team')", true, nil, false, "could not be read"},
		"the whole of it, whatever is done with it": {"[namespaceObject].exists(n, has(n.labels.team))", true, nil, false, "could not be read"},
	} {
		t.Run(name, func(t *testing.T) {
			g := governed(classes(tc.text, "true"))
			got, err := g.MatchesClass(0, workloadPod(), tc.labels)
			if got != tc.want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("got %v, %v; want %v, %q", got, err, tc.want, tc.err)
			}
			if g.Decided().AsksForNamespaces != tc.asks {
				t.Errorf("asks for labels: %v", !tc.asks)
			}
			if got, err := g.MatchesClass(1, workloadPod(), nil); !got || err != nil {
				t.Errorf("another class is kept from its answer: %v, %v", got, err)
			}
		})
	}
	if (Governing{}).AsksForNamespaces() || governed(classes("", "true")).AsksForNamespaces() {
		t.Error("nobody asks, and yet they would be read")
	}
}

func TestAPodOfMoreThanIsAssumedCostsNoMoreThanIsAllowed(t *testing.T) {
	pod := workloadPod()
	for i := range 20_000 {
		pod.Annotations[fmt.Sprint("a", i)] = "x"
	}
	_, err := governed(classes("pod.annotations.all(k, k != 'nothing')")).MatchesClass(0, pod, nil)
	if err == nil || !strings.Contains(err.Error(), "cost limit exceeded") {
		t.Errorf("got %v", err)
	}
}

func TestAClassThatCannotBeReadMakesThePolicyInvalid(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"a misspelt field":          {"pod.lables['a'] == 'b'", "spec.drain.classes[1](c1).match.expression: is not valid CEL: at character 4: undefined field 'lables'"},
		"a variable of a rule":      {"fault.code == 'Xid79'", "undeclared reference to 'fault'"},
		"a word that CEL reserves":  {"namespace.name == 'ml'", "reserved identifier: namespace"},
		"no bool":                   {"pod.name", "gives string, but must give a bool"},
		"what could cost too much":  {"pod.labels.all(a, pod.labels.all(b, pod.labels.all(c, a == b || b == c)))", "at most 20000 is allowed; avoid nested loops"},
		"more than the schema lets": {"true" + strings.Repeat(" && true", 200), "split the class"},
	} {
		t.Run(name, func(t *testing.T) {
			set := Compile([]v1alpha1.RemediationPolicy{newPolicy("p", classes("true", tc.text))})
			reason, message := set.Status("p")
			if reason != ReasonInvalid || !strings.Contains(message, tc.want) {
				t.Errorf("%s: %s, want %q", reason, message, tc.want)
			}
			if _, err := set.For(newNode("n", nil)).MatchesClass(0, workloadPod(), nil); err == nil {
				t.Error("a policy that is not accepted is followed")
			}
		})
	}
}

func TestAClassWithoutAnExpressionIsNotEvaluated(t *testing.T) {
	g := governed(classes("true", ""))
	for _, class := range []int{-1, 1, 2} {
		if got, err := g.MatchesClass(class, workloadPod(), nil); got || err == nil {
			t.Errorf("class %d: %v, %v", class, got, err)
		}
	}
	if got, err := (Governing{}).MatchesClass(0, workloadPod(), nil); got || err == nil {
		t.Errorf("no policy: %v, %v", got, err)
	}
	if got, err := governed().MatchesClass(0, workloadPod(), nil); got || err == nil {
		t.Errorf("no drain: %v, %v", got, err)
	}
}

// A plan is made by the compiled text: what governs a node and what a drain is told are the same classes.
func TestADrainFollowsTheExpressions(t *testing.T) {
	g := governed(classes("pod.labels['tier'] == 'spare'", "owner.kind == 'StatefulSet'"))
	spare, other := workloadPod(), workloadPod()
	spare.Labels["tier"], spare.Name = "spare", "spare"
	in := drain.Input{Now: now, Scope: drain.ScopeNode, Pods: []corev1.Pod{*spare, *other}, Classes: g.Policy.Spec.Drain.Classes, Says: g.Decided().Says}
	p := drain.Make(in)
	want := []v1alpha1.Blocker{{Pod: "ml/web-0", Reason: drain.ReasonClassUntold,
		Message: "class c0 may be meant for it, so only a human stops it: evaluating its expression: no such key: tier"}}
	if diff := cmp.Diff(want, p.Blockers); diff != "" {
		t.Errorf("blockers (-want +got):\n%s", diff)
	}
	if len(p.Move) != 1 || p.Move[0].Class != "c0" || p.Move[0].Cost != v1alpha1.CostFree {
		t.Errorf("%+v", p.Move)
	}
}

func TestTheClassesAreCompiledOncePerText(t *testing.T) {
	cache := &Cache{}
	a := newPolicy("a", classes("pod.priority > 1"))
	first := cache.Get([]v1alpha1.RemediationPolicy{a}).byName["a"].classes[0]
	a.ResourceVersion = "2"
	if cache.Get([]v1alpha1.RemediationPolicy{a}).byName["a"].classes[0] != first {
		t.Error("a status was written, and the text was compiled again")
	}
}

// FuzzWorkloadExpression: whatever a class asks of whatever pod, there is an answer or an error, soon.
func FuzzWorkloadExpression(f *testing.F) {
	for _, text := range []string{
		"pod.labels['a'] == 'b'", "pod.annotations.exists(k, k.startsWith('x'))", "owner.kind.matches('^(Job|JobSet)$')", "1/0 == pod.priority",
		"namespaceObject.labels['a'] == 'b'", "namespaceObject.name in ['ml', 'web']", "pod.ownerReferences.all(o, o.kind != '')", "has(pod.labels.a)", "int(pod.annotations['a']) > 3",
		"PodVariables{name: 'x'} == pod", "owner == pod.ownerReferences[0]", "((((((", "timestamp(pod.annotations['a']) > timestamp('2026-01-01T00:00:00Z')",
	} {
		f.Add(text, "a", "b", int32(1), true)
	}
	f.Add("pod.name == '\xff'", "\xff\x00", "", int32(-1), false)
	f.Fuzz(func(t *testing.T, text, key, value string, priority int32, owned bool) {
		g := governed(classes(text))
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: key, Namespace: value}, Spec: corev1.PodSpec{Priority: &priority, RuntimeClassName: &value}}
		if owned {
			pod.Labels, pod.Annotations, pod.Spec.NodeSelector = map[string]string{key: value}, map[string]string{key: value}, map[string]string{key: value}
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: key, Kind: value, Name: key, Controller: &owned}}
		}
		began := time.Now()
		p := drain.Make(drain.Input{Now: now, Scope: drain.ScopeNode, Pods: []corev1.Pod{*pod}, Classes: g.Policy.Spec.Drain.Classes, Says: g.Decided().Says,
			Namespaces: map[string]map[string]string{"b": {key: value}}})
		if took := time.Since(began); took > time.Second {
			t.Fatalf("%q took %v", text, took)
		}
		if p.PodsLeft()+len(p.Left) != 1 {
			t.Fatalf("%q: the pod has no place: %+v", text, p)
		}
		for _, b := range p.Blockers {
			if len(b.Message) > 256 || !strings.Contains(b.Pod, "/") || strings.ToValidUTF8(b.Message, "") != b.Message {
				t.Fatalf("%q: a blocker that no status takes: %+v", text, b)
			}
		}
	})
}
