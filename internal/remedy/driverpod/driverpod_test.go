package driverpod

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

var (
	begun  = time.Date(2026, 11, 26, 10, 0, 0, 300e6, time.UTC)
	before = metav1.NewTime(begun.Add(-time.Hour))
	after  = metav1.NewTime(begun.Truncate(time.Second).Add(5 * time.Second))
	same   = metav1.NewTime(begun.Truncate(time.Second))
)

const pluginLabel = "nvidia.com/gpu.deploy.device-plugin"

func newNode(change ...func(*corev1.Node)) *corev1.Node {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-0", UID: "node-uid"}}
	for _, c := range change {
		c(node)
	}
	return node
}

func noted(attempt, pod string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Annotations = map[string]string{v1alpha1.AnnotationDriverPod: attempt + "/" + pod}
	}
}

func tainted(taints ...corev1.Taint) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = taints }
}

func newSet(change ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "gpu-operator", Name: "driver", UID: "set-uid"}}
	set.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}
	for _, c := range change {
		c(set)
	}
	return set
}

func tolerating(tolerations ...corev1.Toleration) func(*appsv1.DaemonSet) {
	return func(s *appsv1.DaemonSet) { s.Spec.Template.Spec.Tolerations = tolerations }
}

func newPod(uid string, created metav1.Time, change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "gpu-operator", Name: "driver-" + uid, UID: types.UID(uid), CreationTimestamp: created,
			Labels:          map[string]string{"app": "driver"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "driver", UID: "set-uid", Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{NodeName: "gpu-0"},
	}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func isReady(p *corev1.Pod) {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
}

// ending has a finalizer, without which the fake client refuses an object that is being deleted.
func ending(p *corev1.Pod) {
	p.DeletionTimestamp, p.Finalizers = ptr.To(after), []string{"example.com/f"}
}

func ownedBy(kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, UID: "x", Controller: ptr.To(true)}}
	}
}

func unplaced(p *corev1.Pod) {
	p.Spec.NodeName = ""
	p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"gpu-0"}}}}},
	}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available"}}
}

func crashing(restarts int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: "k8s-driver-manager", RestartCount: restarts,
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 40s"}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1, Reason: "Error", Message: "unable to unload nvidia"}},
		}}
	}
}

func waitingFor(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "driver", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
	}
}

func attempt() remedy.Attempt {
	return remedy.Attempt{
		ID: "rem-1",
		Remediation: &v1alpha1.Remediation{
			ObjectMeta: metav1.ObjectMeta{Name: "rem", UID: "rem-uid"},
			Status:     v1alpha1.RemediationStatus{Step: &v1alpha1.Step{Remedy: &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun, Begun: metav1.NewTime(begun)}}},
		},
		Node: newNode(),
		Rung: v1alpha1.Rung{Name: "restart-driver", Action: v1alpha1.RungRestartDriver,
			DriverPod: &v1alpha1.DriverPod{Namespace: "gpu-operator", PodLabels: map[string]string{"app": "driver"}}},
	}
}

// world is a server, and which pods it was asked to evict.
type world struct {
	client.Client
	remedy  *Remedy
	evicted []types.UID
	// answer is what it says to an eviction.
	answer error
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{}
	w.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithIndex(&corev1.Pod{}, "spec.nodeName", func(o client.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }).
		WithInterceptorFuncs(interceptor.Funcs{SubResourceCreate: func(ctx context.Context, c client.Client, sub string, o, eviction client.Object, _ ...client.SubResourceCreateOption) error {
			asked, ok := eviction.(*policyv1.Eviction)
			if !ok || sub != "eviction" {
				t.Errorf("created %s of %T", sub, eviction)
				return nil
			}
			// The fake client knows no preconditions.
			w.evicted = append(w.evicted, *asked.DeleteOptions.Preconditions.UID)
			if w.answer != nil {
				return w.answer
			}
			return c.Delete(ctx, o)
		}}).Build()
	w.remedy = New(w.Client, w.Client)
	return w
}

func (w *world) node(t *testing.T) *corev1.Node {
	t.Helper()
	node := &corev1.Node{}
	if err := w.Get(t.Context(), types.NamespacedName{Name: "gpu-0"}, node); err != nil {
		t.Fatal(err)
	}
	return node
}

func TestCheck(t *testing.T) {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	const toAdd = "\n- key: roundhouse.dev/quarantined\n  operator: Exists\n  effect: NoSchedule"
	operator := func(kind, name string) func(*appsv1.DaemonSet) {
		return func(s *appsv1.DaemonSet) {
			s.OwnerReferences = []metav1.OwnerReference{{APIVersion: "nvidia.com/v1", Kind: kind, Name: name, UID: "x", Controller: ptr.To(true)}}
		}
	}
	cases := map[string]struct {
		node    *corev1.Node
		objects []client.Object
		change  func(*remedy.Attempt)
		want    string
	}{
		"one pod of a DaemonSet that tolerates our taint": {objects: []client.Object{newSet(), newPod("a", before)}},
		"one that ends beside one that has begun":         {objects: []client.Object{newSet(), newPod("a", before, ending), newPod("b", before)}},
		"a DaemonSet that tolerates everything":           {objects: []client.Object{newSet(tolerating(corev1.Toleration{Operator: corev1.TolerationOpExists})), newPod("a", before)}},
		"a rung that names no pod": {
			change: func(a *remedy.Attempt) { a.Rung.DriverPod = nil },
			want:   "rung restart-driver does not say which pod to restart: set driverPod",
		},
		"no pod": {
			objects: []client.Object{newSet(), newPod("a", before, func(p *corev1.Pod) { p.Spec.NodeName = "other" }), newPod("b", before, func(p *corev1.Pod) { p.Labels = nil })},
			want:    "no pod with labels app=driver in namespace gpu-operator is on node gpu-0",
		},
		"a pod of nobody": {
			objects: []client.Object{newPod("a", before, func(p *corev1.Pod) { p.OwnerReferences = nil })},
			want:    "pod gpu-operator/driver-a is not a DaemonSet's: nobody would make it anew on this node",
		},
		"a Deployment's pod": {
			objects: []client.Object{newPod("a", before, ownedBy("ReplicaSet", "x"))},
			want:    "pod gpu-operator/driver-a is not a DaemonSet's: nobody would make it anew on this node",
		},
		"pods of two DaemonSets": {
			objects: []client.Object{newSet(), newPod("a", before), newPod("b", before, ownedBy("DaemonSet", "another"))},
			want:    "driverPod.podLabels select pods of 2 DaemonSets (another, driver): add a label that only the driver's pods have",
		},
		"the DaemonSet is gone": {
			objects: []client.Object{newPod("a", before)},
			want:    "DaemonSet gpu-operator/driver is gone: nobody would make a new pod",
		},
		"the DaemonSet does not tolerate our taint": {
			objects: []client.Object{newSet(tolerating(exists("nvidia.com/gpu", corev1.TaintEffectNoSchedule))), newPod("a", before)},
			want: "DaemonSet gpu-operator/driver does not tolerate the node's taints, so its new pod would not come back; " +
				"add to its spec.template.spec.tolerations:" + toAdd,
		},
		"it tolerates another incident's taint only": {
			objects: []client.Object{newSet(tolerating(corev1.Toleration{Key: v1alpha1.TaintQuarantined, Operator: corev1.TolerationOpEqual, Value: "other"})), newPod("a", before)},
			want: "DaemonSet gpu-operator/driver does not tolerate the node's taints, so its new pod would not come back; " +
				"add to its spec.template.spec.tolerations:" + toAdd,
		},
		"it does not tolerate what somebody else has put on": {
			node: newNode(tainted(corev1.Taint{Key: "example.com/x", Effect: corev1.TaintEffectNoExecute},
				corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: corev1.TaintEffectNoSchedule},
				corev1.Taint{Key: "example.com/rather-not", Effect: corev1.TaintEffectPreferNoSchedule},
				corev1.Taint{Key: v1alpha1.TaintQuarantined, Value: "rem", Effect: corev1.TaintEffectNoSchedule})),
			objects: []client.Object{newSet(), newPod("a", before)},
			want: "DaemonSet gpu-operator/driver does not tolerate the node's taints, so its new pod would not come back; " +
				"add to its spec.template.spec.tolerations:\n- key: example.com/x\n  operator: Exists\n  effect: NoExecute",
		},
		"it is the GPU operator's: the text goes into the ClusterPolicy": {
			objects: []client.Object{newSet(tolerating(), operator("ClusterPolicy", "cluster-policy")), newPod("a", before)},
			want: "DaemonSet gpu-operator/driver does not tolerate the node's taints, so its new pod would not come back; " +
				"add to spec.daemonsets.tolerations of ClusterPolicy cluster-policy:" + toAdd,
		},
		"or into the NVIDIADriver": {
			objects: []client.Object{newSet(tolerating(), operator("NVIDIADriver", "h200")), newPod("a", before)},
			want: "DaemonSet gpu-operator/driver does not tolerate the node's taints, so its new pod would not come back; " +
				"add to spec.tolerations of NVIDIADriver h200:" + toAdd,
		},
		"the operands are another's": {
			node: newNode(func(n *corev1.Node) {
				n.Annotations = map[string]string{v1alpha1.AnnotationPaused: `{"by":"other/1","labels":{}}`}
			}),
			objects: []client.Object{newSet(), newPod("a", before)},
			want:    "the operands of the node are paused by another remediation: other/1",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a := attempt()
			if c.node != nil {
				a.Node = c.node
			}
			if c.change != nil {
				c.change(&a)
			}
			w := newWorld(t, append(c.objects, a.Node)...)
			got, err := w.remedy.Check(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if c.want == "" || a.Rung.DriverPod == nil {
				return
			}
			progress, err := w.remedy.Begin(t.Context(), a)
			if err != nil || progress != remedy.Refused(c.want) || len(w.evicted) > 0 {
				t.Errorf("Begin: %+v, %v, evicted %v", progress, err, w.evicted)
			}
		})
	}
}

func TestLook(t *testing.T) {
	tooMany := apierrors.NewTooManyRequests("x", 0)
	tooMany.ErrStatus.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: "The disruption budget drivers needs 1 healthy pods and has 1 currently"}}}
	cases := map[string]struct {
		node    *corev1.Node
		pods    []client.Object
		answer  error
		want    remedy.Progress
		evicted []types.UID
		note    string
	}{
		"the pod of before goes": {
			pods:    []client.Object{newPod("a", before, isReady)},
			want:    remedy.Running("pod gpu-operator/driver-a is going; its DaemonSet makes a new one"),
			evicted: []types.UID{"a"}, note: "rem-1/a",
		},
		"a pod made since is never taken for it": {
			pods: []client.Object{newPod("b", after, isReady)}, want: remedy.Succeeded("pod gpu-operator/driver-b is Ready"),
		},
		"nor one of the same second": {
			pods: []client.Object{newPod("b", same, isReady)}, want: remedy.Succeeded("pod gpu-operator/driver-b is Ready"),
		},
		"nor one that looks older, by a server whose clock is behind": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", before, isReady)},
			want: remedy.Succeeded("pod gpu-operator/driver-b is Ready"), note: "rem-1/a",
		},
		"a crash between the note and the eviction": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("a", before, isReady)},
			want: remedy.Running("pod gpu-operator/driver-a is going; its DaemonSet makes a new one"), evicted: []types.UID{"a"}, note: "rem-1/a",
		},
		"an earlier attempt's note says nothing": {
			node: newNode(noted("rem-0", "z")), pods: []client.Object{newPod("a", before, isReady)},
			want:    remedy.Running("pod gpu-operator/driver-a is going; its DaemonSet makes a new one"),
			evicted: []types.UID{"a"}, note: "rem-1/a",
		},
		"the pod is ending, and no other counts until it has": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("a", before, ending), newPod("b", after, isReady)},
			want: remedy.Running("pod gpu-operator/driver-a is ending"), note: "rem-1/a",
		},
		"beside one that ends, the other is the driver's": {
			pods:    []client.Object{newPod("a", before, ending), newPod("b", before, isReady)},
			want:    remedy.Running("pod gpu-operator/driver-b is going; its DaemonSet makes a new one"),
			evicted: []types.UID{"b"}, note: "rem-1/b",
		},
		"only one that ends": {
			pods: []client.Object{newPod("a", before, ending)}, want: remedy.Running("pod gpu-operator/driver-a is ending"), note: "rem-1/a",
		},
		"no new pod yet": {
			node: newNode(noted("rem-1", "a")), want: remedy.Running("waits for a new pod with labels app=driver on node gpu-0"), note: "rem-1/a",
		},
		"a new pod without a place": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after, unplaced)},
			want: remedy.Running("pod gpu-operator/driver-b is not Ready: Unschedulable: 0/1 nodes are available"), note: "rem-1/a",
		},
		"one without a place that is another node's": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after, func(p *corev1.Pod) { p.Spec.NodeName = "" })},
			want: remedy.Running("waits for a new pod with labels app=driver on node gpu-0"), note: "rem-1/a",
		},
		"the new pod starts": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after)},
			want: remedy.Running("pod gpu-operator/driver-b is not Ready yet"), note: "rem-1/a",
		},
		"it has failed once or twice": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after, crashing(2))},
			want: remedy.Running("pod gpu-operator/driver-b is not Ready: container k8s-driver-manager: CrashLoopBackOff: back-off 40s; it ended with exit code 1 (Error): unable to unload nvidia"),
			note: "rem-1/a",
		},
		"it fails again and again": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after, crashing(3))},
			want: remedy.Failed("pod gpu-operator/driver-b: container k8s-driver-manager: CrashLoopBackOff: back-off 40s; it ended with exit code 1 (Error): unable to unload nvidia"),
			note: "rem-1/a",
		},
		"its image is not to be had": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after, waitingFor("ImagePullBackOff", `Back-off pulling image "x"`))},
			want: remedy.Failed(`pod gpu-operator/driver-b: container driver: ImagePullBackOff: Back-off pulling image "x"`), note: "rem-1/a",
		},
		"its image was not to be had the first time": {
			node: newNode(noted("rem-1", "a")), pods: []client.Object{newPod("b", after, waitingFor("ErrImagePull", "timeout"))},
			want: remedy.Running("pod gpu-operator/driver-b is not Ready: container driver: ErrImagePull: timeout"), note: "rem-1/a",
		},
		"a disruption budget says not now": {
			pods: []client.Object{newPod("a", before)}, answer: tooMany, evicted: []types.UID{"a"}, note: "rem-1/a",
			want: remedy.Running("pod gpu-operator/driver-a may not be evicted yet: The disruption budget drivers needs 1 healthy pods and has 1 currently"),
		},
		"two disruption budgets never will": {
			pods: []client.Object{newPod("a", before)}, evicted: []types.UID{"a"}, note: "rem-1/a",
			answer: apierrors.NewInternalError(errors.New("this pod has more than one PodDisruptionBudget, which the eviction subresource does not support")),
			want: remedy.Failed("pod gpu-operator/driver-a cannot be evicted: more than one PodDisruptionBudget selects it, and the Eviction API " +
				"refuses such pods for good; delete or narrow one"),
		},
		"somebody has changed whose pods they are": {
			pods: []client.Object{newPod("a", before, ownedBy("ReplicaSet", "x"))},
			want: remedy.Failed("pod gpu-operator/driver-a is not a DaemonSet's: nobody would make it anew on this node"),
		},
		"another node has its name": {
			node: newNode(func(n *corev1.Node) { n.UID = "another" }), pods: []client.Object{newPod("a", before)},
			want: remedy.Failed("another node has its name now"),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			node := c.node
			if node == nil {
				node = newNode()
			}
			w := newWorld(t, append(c.pods, newSet(), node)...)
			w.answer = c.answer
			got, err := w.remedy.Look(t.Context(), attempt())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.evicted, w.evicted); diff != "" {
				t.Errorf("evicted (-want +got):\n%s", diff)
			}
			if note := w.node(t).Annotations[v1alpha1.AnnotationDriverPod]; note != c.note {
				t.Errorf("noted %q, want %q", note, c.note)
			}
		})
	}
}

func TestTheNodeIsGone(t *testing.T) {
	w := newWorld(t, newPod("a", before))
	got, err := w.remedy.Look(t.Context(), attempt())
	if err != nil || got != remedy.Failed("the node is gone") || len(w.evicted) > 0 {
		t.Errorf("%+v, %v, evicted %v", got, err, w.evicted)
	}
	if err := w.remedy.End(t.Context(), attempt()); err != nil {
		t.Error(err)
	}
}

func TestAnUnknownOutcomeIsAnError(t *testing.T) {
	w := newWorld(t, newPod("a", before), newSet(), newNode())
	w.answer = apierrors.NewServiceUnavailable("x")
	if got, err := w.remedy.Look(t.Context(), attempt()); err == nil {
		t.Errorf("got %+v", got)
	}
	if _, noted := recorded(w.node(t), attempt()); !noted {
		t.Error("the note must be there before the pod is asked for")
	}
}

// TestWhole goes from Begin to End on a node of the GPU operator's, with a controller that forgets everything between.
func TestWhole(t *testing.T) {
	labels := map[string]string{pluginLabel: "true", "a": "b"}
	plugin := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "gpu-operator", Name: "plugin"},
		Spec: corev1.PodSpec{NodeName: "gpu-0", NodeSelector: map[string]string{pluginLabel: "true"},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}}}
	w := newWorld(t, newNode(func(n *corev1.Node) { n.Labels = labels }), newSet(), newPod("a", before, isReady), plugin)
	step := func(what string, do func(remedy.Attempt) (remedy.Progress, error), state v1alpha1.RemedyState, words string) {
		t.Helper()
		a := attempt()
		a.Node = w.node(t)
		got, err := do(a)
		if err != nil || got.State != state || !strings.Contains(got.Message, words) {
			t.Fatalf("%s: %+v, %v", what, got, err)
		}
	}
	begin := func(a remedy.Attempt) (remedy.Progress, error) { return New(w, w).Begin(t.Context(), a) }
	look := func(a remedy.Attempt) (remedy.Progress, error) { return New(w, w).Look(t.Context(), a) }
	step("the device plugin goes first", begin, v1alpha1.RemedyRunning, "waits for the GPU operator's pods to leave the driver: gpu-operator/plugin")
	step("and begun again", begin, v1alpha1.RemedyRunning, "waits for the GPU operator's pods")
	if len(w.evicted) > 0 {
		t.Fatalf("evicted %v before the devices were free", w.evicted)
	}
	if err := w.Delete(t.Context(), plugin); err != nil {
		t.Fatal(err)
	}
	step("then the driver", look, v1alpha1.RemedyRunning, "pod gpu-operator/driver-a is going")
	step("begun again after a crash", begin, v1alpha1.RemedyRunning, "waits for a new pod")
	if err := w.Create(t.Context(), newPod("b", after, isReady)); err != nil {
		t.Fatal(err)
	}
	step("its successor", look, v1alpha1.RemedySucceeded, "pod gpu-operator/driver-b is Ready")
	if diff := cmp.Diff([]types.UID{"a"}, w.evicted); diff != "" {
		t.Errorf("evicted (-want +got):\n%s", diff)
	}
	for range 2 {
		a := attempt()
		a.Node = w.node(t)
		if err := New(w, w).End(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		node := w.node(t)
		if diff := cmp.Diff(labels, node.Labels); diff != "" || len(node.Annotations) > 0 {
			t.Errorf("left behind: %v\n%s", node.Annotations, diff)
		}
	}
}

func TestEndLeavesAnotherAttemptsNote(t *testing.T) {
	w := newWorld(t, newNode(noted("rem-2", "x")))
	if err := w.remedy.End(t.Context(), attempt()); err != nil {
		t.Fatal(err)
	}
	if _, ok := w.node(t).Annotations[v1alpha1.AnnotationDriverPod]; !ok {
		t.Error("it is gone")
	}
}

func TestALongRefusalFitsTheStatus(t *testing.T) {
	long := newSet(tolerating())
	node := newNode()
	for range 20 {
		node.Spec.Taints = append(node.Spec.Taints, corev1.Taint{Key: "example.com/" + strings.Repeat("é", 20), Effect: corev1.TaintEffectNoSchedule})
	}
	a := attempt()
	a.Node = node
	if got := intolerant(t.Context(), long, a); len(got) > remedy.MaxMessage || !strings.HasSuffix(got, "...") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
