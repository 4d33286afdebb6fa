package preflight

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

// ready is a cluster with one node, on which nothing is to be said.
func ready() Snapshot {
	return Snapshot{
		Server: "v1.37.2", Minor: 37, Groups: []string{"apps", "roundhouse.dev"}, DeviceTaintRules: true,
		Nodes:   []fleet.Node{{Name: "gpu-1", Labels: map[string]string{"pool": "training"}, Accelerators: 8, Reporting: corev1.ConditionTrue}, {Name: "cpu-1"}},
		Healths: []fleet.Health{{Name: "gpu-1", Summary: v1alpha1.SummaryHealthy, Devices: fleet.Devices{Total: 8}}},
		Policies: []v1alpha1.RemediationPolicy{{
			ObjectMeta: metav1.ObjectMeta{Name: "all"},
			Status:     v1alpha1.RemediationPolicyStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue}}},
		}},
	}
}

func daemonSet(name string, change ...func(*corev1.PodSpec)) appsv1.DaemonSet {
	d := appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "system", Name: name}}
	for _, c := range change {
		c(&d.Spec.Template.Spec)
	}
	return d
}

func selecting(key, value string) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) { p.NodeSelector = map[string]string{key: value} }
}

func tolerating(t corev1.Toleration) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) { p.Tolerations = append(p.Tolerations, t) }
}

func affineTo(key string, operator corev1.NodeSelectorOperator, values ...string) func(*corev1.PodSpec) {
	return func(p *corev1.PodSpec) {
		p.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: key, Operator: operator, Values: values}}}},
		}}}
	}
}

func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Snapshot)
		want   []string
	}{
		"a ready cluster has none":  {func(*Snapshot) {}, nil},
		"an old server":             {func(s *Snapshot) { s.Minor, s.Server = 31, "v1.31.0" }, []string{"Must server: Kubernetes v1.31.0 is older than 1.32"}},
		"the kinds are not there":   {func(s *Snapshot) { s.Groups = nil }, []string{"Must kinds: the kinds of roundhouse.dev are not served"}},
		"no agent ever reported":    {func(s *Snapshot) { s.Healths = nil }, []string{"Must agents: no agent has reported on 1 node with accelerators: gpu-1"}},
		"an agent fell silent":      {func(s *Snapshot) { s.Nodes[0].Reporting = corev1.ConditionUnknown }, []string{"Must agents: the agent is silent, or the controller does not vouch for it, on 1 node: gpu-1"}},
		"a policy is not accepted":  {func(s *Snapshot) { s.Policies[0].Status.Conditions[0].Status = metav1.ConditionFalse }, []string{"Must policies: policy all is not accepted, so its nodes are observed only"}},
		"no policy selects a node":  {func(s *Snapshot) { s.Policies[0].Spec.NodeSelector.MatchLabels = map[string]string{"a": "b"} }, []string{"Should policies: no policy selects 1 node with accelerators: gpu-1; observed only"}},
		"a node known by its slice": {func(s *Snapshot) { s.SliceDevices = map[string]int{"cpu-1": 8} }, []string{"Must agents: no agent has reported on 1 node with accelerators: cpu-1"}},
		"a budget selects nothing, and the implicit one need not": {func(s *Snapshot) {
			one := intstr.FromInt32(1)
			b := v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "typo"}, Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &one, NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}}
			implicit := *b.DeepCopy()
			implicit.Name = v1alpha1.ImplicitBudget
			s.Budgets = []v1alpha1.NodeDisruptionBudget{b, implicit}
		}, []string{"Should budgets: budget typo selects no node"}},
		"devices by DRA without DeviceTaintRule": {func(s *Snapshot) { s.SliceDevices, s.DeviceTaintRules = map[string]int{"gpu-1": 8}, false }, []string{"Should device-taints: devices are offered by dynamic resource allocation"}},
		"others, by workload and by API group, are notes": {func(s *Snapshot) {
			s.Groups = append(s.Groups, "karpenter.sh", "remediation.medik8s.io")
			s.Deployments = []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "draino"}}}
			s.DaemonSets = []appsv1.DaemonSet{daemonSet("npd", func(p *corev1.PodSpec) {
				p.Containers = []corev1.Container{{Image: "registry.k8s.io/node-problem-detector/node-problem-detector:v0.8.19"}}
			}, tolerating(corev1.Toleration{Operator: corev1.TolerationOpExists}))}
			s.Nodes[0].Out = "kured"
		}, []string{"Note others: draino is here", "Note others: medik8s NodeHealthCheck is here (API group remediation.medik8s.io)", "Note others: node-problem-detector is here (DaemonSet system/npd)", "Note others: Karpenter is here", "Note others: kured works on 1 node now: gpu-1"}},
		"a driver DaemonSet that is kept out must be fixed, another should": {func(s *Snapshot) {
			s.DaemonSets = []appsv1.DaemonSet{daemonSet("logs"), daemonSet("nvidia-driver")}
		}, []string{"Must tolerations: DaemonSet system/nvidia-driver does not tolerate", "Should tolerations: on nodes with accelerators 1 DaemonSet does not tolerate"}},
		"a DaemonSet elsewhere does not matter": {func(s *Snapshot) {
			s.DaemonSets = []appsv1.DaemonSet{daemonSet("nvidia-a", selecting("pool", "other")), daemonSet("nvidia-b", affineTo("pool", corev1.NodeSelectorOpNotIn, "training")), daemonSet("nvidia-c", affineTo("gpu", corev1.NodeSelectorOpExists))}
		}, nil},
		"affinity that selects the node does": {func(s *Snapshot) {
			s.DaemonSets = []appsv1.DaemonSet{daemonSet("nvidia-a", affineTo("pool", corev1.NodeSelectorOpIn, "training"))}
		}, []string{"Must tolerations: DaemonSet system/nvidia-a"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := ready()
			c.change(&s)
			r := Check(s)
			var got []string
			for _, f := range r.Findings {
				said := string(f.Severity) + " " + f.Check + ": " + f.What
				if len(got) < len(c.want) && strings.HasPrefix(said, c.want[len(got)]) {
					said = c.want[len(got)]
				}
				got = append(got, said)
				if len(f.Fix) == 0 {
					t.Errorf("%s has no fix", f.What)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestTolerates(t *testing.T) {
	for name, c := range map[string]struct {
		toleration corev1.Toleration
		want       bool
	}{
		"everything":         {corev1.Toleration{Operator: corev1.TolerationOpExists}, true},
		"our key":            {corev1.Toleration{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}, true},
		"another key":        {corev1.Toleration{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}, false},
		"another effect":     {corev1.Toleration{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}, false},
		"a value never fits": {corev1.Toleration{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpEqual, Value: "true"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Tolerates([]corev1.Toleration{c.toleration}); got != c.want {
				t.Errorf("Tolerates = %t, want %t", got, c.want)
			}
		})
	}
}

func TestTheTextToAdd(t *testing.T) {
	some := daemonSet("nvidia-x", tolerating(corev1.Toleration{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}))
	operators := daemonSet("nvidia-y")
	operators.OwnerReferences = []metav1.OwnerReference{{Kind: "ClusterPolicy", Name: "cluster-policy"}}
	helm := daemonSet("nvidia-z")
	helm.Labels = map[string]string{"app.kubernetes.io/managed-by": "Helm"}
	for name, c := range map[string]struct {
		d    appsv1.DaemonSet
		want string
	}{
		"the first toleration of a pod makes the list":   {daemonSet("nvidia-x"), `{"op":"add","path":"/spec/template/spec/tolerations","value":[{`},
		"another one goes to its end":                    {some, `{"op":"add","path":"/spec/template/spec/tolerations/-","value":{`},
		"what an operator owns is changed there":         {operators, "spec.daemonsets.tolerations of ClusterPolicy cluster-policy"},
		"what Helm manages is changed in its values too": {helm, "it is managed by Helm"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(fix(&c.d), "\n"); !strings.Contains(got, c.want) {
				t.Errorf("%s\ndoes not hold %s", got, c.want)
			}
		})
	}
}

func TestRenderEndsWithTheVerdict(t *testing.T) {
	s := ready()
	s.Healths = nil
	r := Check(s)
	p := &text.Page{}
	r.Render(p, false)
	const want = `Server    v1.37.2
MUST      no agent has reported on 1 node with accelerators: gpu-1
            see that DaemonSet roundhouse-agent selects and tolerates them: kubectl get pods -A -o wide | grep roundhouse-agent
Passed    server, kinds, tolerations, policies, budgets, others, device-taints
Verdict   1 finding must be fixed; 0 should be, 0 notes
`
	if diff := cmp.Diff(want, p.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
