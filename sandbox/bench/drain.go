package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

// Drains are many nodes drained at once, and the same pods evicted by a bare client.
type Drains struct {
	Nodes int `json:"nodes"`
	Pods  int `json:"pods"`
	// Guarded is how many of the pods a PodDisruptionBudget guards.
	Guarded int `json:"guarded"`
	// Seconds are from the first fault to the last node that nothing is left on, and Bare those of a bare client that evicts as
	// many pods of as many nodes.
	Seconds float64 `json:"seconds"`
	Bare    float64 `json:"bareSeconds"`
	// Evicted are the pods that the controller evicted. They are some more than there were: one that a Deployment puts onto a node
	// whose turn is still to come goes again, by another name.
	Evicted int `json:"evicted"`
	// Evictions are its requests for that, Refused those of them that a budget refused.
	Evictions int `json:"evictions"`
	Refused   int `json:"refused"`
	// Failed are those that ended otherwise: the pod had gone, or the server was busy.
	Failed int `json:"failed"`
	// Requests are all the controller's requests meanwhile, a node, watches, Leases and Events not counted.
	Requests float64 `json:"requestsANode"`
}

const (
	// spares are nodes beside those that are drained, for the pods that are to run somewhere else.
	spares = 16
	// guardedEvery is on how many nodes one has a pod that a budget guards.
	guardedEvery = 10
	// crowdNamespace is where the pods of this measurement are.
	crowdNamespace = "drained"
)

// drains measures the drain of many nodes at once, under an unlimited budget.
func drains(ctx context.Context, o Options, r *Report) error {
	audit, err := newAudit()
	if err != nil {
		return err
	}
	defer audit.remove()
	so := sandbox.Options{APIServerArgs: audit.args(), Fleet: fleet.Options{
		Nodes: o.DrainNodes + spares, GPUs: o.GPUs, NodesPerRack: 8, RebootTakes: 2 * time.Second}}
	return with(ctx, so, o, func(ctx context.Context, s *sandbox.Sandbox) error {
		c, err := newCluster(ctx, s, o)
		if err != nil {
			return err
		}
		defer c.close()
		r.Drains = &Drains{Nodes: o.DrainNodes, Pods: o.DrainNodes * o.DrainPods, Guarded: o.DrainNodes / guardedEvery}
		if err := c.bareDrain(ctx, r.Drains); err != nil {
			return err
		}
		return c.drainAll(ctx, r, audit)
	})
}

// crowd puts pods onto nodes and waits until they run: those that nobody puts elsewhere, and on every tenth node one of a
// Deployment with a budget. What owns the former is an object whose controller does not run, so that nothing takes part but what
// is measured.
func (c *cluster) crowd(ctx context.Context, nodes []string) error {
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: crowdNamespace, Name: "owner"}}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: crowdNamespace}}
	for _, object := range []client.Object{namespace, owner} {
		if err := c.client.Create(ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("creating %T: %w", object, err)
		}
	}
	if err := c.client.Get(ctx, client.ObjectKeyFromObject(owner), owner); err != nil {
		return fmt.Errorf("reading the pods' owner: %w", err)
	}
	plain := func(i int) bool { return i%c.o.DrainPods != 0 || i/c.o.DrainPods%guardedEvery != 0 }
	err := each(ctx, len(nodes)*c.o.DrainPods, func(ctx context.Context, i int) error {
		if !plain(i) {
			return nil
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: crowdNamespace, GenerateName: "pod-", Labels: map[string]string{"app": "crowd"},
				OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, Controller: ptr.To(true)}}},
			Spec: crowdSpec(nodes[i/c.o.DrainPods]),
		}
		if err := c.client.Create(ctx, pod); err != nil {
			return fmt.Errorf("making a pod: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.running(ctx, nodes)
}

func crowdSpec(node string) corev1.PodSpec {
	return corev1.PodSpec{NodeName: node, AutomountServiceAccountToken: ptr.To(false), TerminationGracePeriodSeconds: ptr.To(int64(5)),
		Containers: []corev1.Container{{Name: "main", Image: "crowd:bench"}}}
}

// guard makes the Deployment with the budget: one pod for every tenth node, of which a tenth may be missing.
func (c *cluster) guard(ctx context.Context, n int) error {
	labels := map[string]string{"app": "guarded"}
	spec := crowdSpec("")
	// One a node, and none on two that are neighbours.
	spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1, TopologyKey: corev1.LabelHostname,
		WhenUnsatisfiable: corev1.ScheduleAnyway, LabelSelector: &metav1.LabelSelector{MatchLabels: labels}}}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: crowdNamespace, Name: "guarded"}, Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To(int32(n)), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}}}
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: crowdNamespace, Name: "guarded"}, Spec: policyv1.PodDisruptionBudgetSpec{
		MaxUnavailable: ptr.To(intstr.FromString("10%")), Selector: &metav1.LabelSelector{MatchLabels: labels}}}
	for _, object := range []client.Object{deployment, budget} {
		if err := c.client.Create(ctx, object); err != nil {
			return fmt.Errorf("creating %T: %w", object, err)
		}
	}
	return eventually(ctx, "the guarded pods", func(ctx context.Context) (bool, error) {
		err := c.client.Get(ctx, client.ObjectKeyFromObject(deployment), deployment)
		return err == nil && deployment.Status.ReadyReplicas == int32(n), err
	})
}

// running waits until the pods of the nodes run.
func (c *cluster) running(ctx context.Context, nodes []string) error {
	want := 0
	for i := range len(nodes) * c.o.DrainPods {
		if i%c.o.DrainPods != 0 || i/c.o.DrainPods%guardedEvery != 0 {
			want++
		}
	}
	return eventually(ctx, "the pods to run", func(ctx context.Context) (bool, error) {
		pods, err := c.crowdPods(ctx)
		run := slices.DeleteFunc(pods, func(p corev1.Pod) bool { return p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil })
		return len(run) == want, err
	})
}

func (c *cluster) crowdPods(ctx context.Context) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := c.client.List(ctx, &list, client.InNamespace(crowdNamespace), client.MatchingLabels{"app": "crowd"}); err != nil {
		return nil, fmt.Errorf("listing the pods: %w", err)
	}
	return list.Items, nil
}

// toDrain are the nodes that are drained; the last ones are spare.
func (c *cluster) toDrain() []string {
	var names []string
	for i := range c.o.DrainNodes {
		names = append(names, c.s.Fleet().Options().NodeName(i))
	}
	return names
}

// bareDrain has a bare client evict as many pods, each once, and waits until they have gone.
func (c *cluster) bareDrain(ctx context.Context, d *Drains) error {
	c.o.Progress(fmt.Sprintf("%d pods for a bare client", d.Pods))
	if err := c.crowd(ctx, c.toDrain()); err != nil {
		return err
	}
	pods, err := c.crowdPods(ctx)
	if err != nil {
		return err
	}
	c.o.Progress(fmt.Sprintf("a bare client evicts them, %d at once", concurrency))
	began := time.Now()
	err = each(ctx, len(pods), func(ctx context.Context, i int) error {
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: pods[i].Namespace, Name: pods[i].Name}}
		if err := c.client.SubResource("eviction").Create(ctx, &pods[i], eviction); err != nil {
			return fmt.Errorf("evicting a pod: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = eventually(ctx, "the pods to go", func(ctx context.Context) (bool, error) {
		left, err := c.crowdPods(ctx)
		return len(left) == 0, err
	})
	d.Bare = time.Since(began).Seconds()
	return err
}

// drainAll breaks a device of every node at once.
func (c *cluster) drainAll(ctx context.Context, r *Report, log *audit) error {
	d, nodes := r.Drains, c.toDrain()
	c.o.Progress(fmt.Sprintf("%d pods for the controller", d.Pods))
	if err := c.crowd(ctx, nodes); err != nil {
		return err
	}
	if err := c.guard(ctx, d.Guarded); err != nil {
		return err
	}
	if err := c.startController(ctx); err != nil {
		return err
	}
	all := intstr.FromString("100%")
	budget := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &all}}
	if err := c.client.Create(ctx, budget); err != nil {
		return fmt.Errorf("creating a budget: %w", err)
	}
	// No brake: that all nodes show the same fault is what is asked for here.
	if err := c.policy(ctx, "drain", v1alpha1.ModeRemediate, metav1.LabelSelector{}, func(p *v1alpha1.RemediationPolicy) { p.Spec.Brake = nil }); err != nil {
		return err
	}
	if err := pause(ctx, idleFor/2); err != nil {
		return err
	}
	leader := c.s.Controllers()[0]
	before, err := cpuTime(leader.PID())
	if err != nil {
		return err
	}
	c.o.Progress(fmt.Sprintf("%d faults at once, and as many drains", len(nodes)))
	began := time.Now()
	drained := make([]string, len(nodes))
	for i, name := range nodes {
		drained[i] = name + "/" + string(v1alpha1.PhaseRepairing)
		if _, err := c.inject(ctx, name); err != nil {
			return err
		}
	}
	last, err := c.phase.wait(ctx, drained...)
	if err != nil {
		return err
	}
	d.Seconds = last.Sub(began).Seconds()
	used, err := usageSince(leader.PID(), before, time.Since(began))
	if err != nil {
		return err
	}
	used.What = fmt.Sprintf("controller, %d drains at once", len(nodes))
	r.Usage = append(r.Usage, used)
	return d.count(log, began, time.Now())
}

// count reads from the audit log what the controller asked.
func (d *Drains) count(log *audit, from, to time.Time) error {
	all, err := log.read(from, to)
	if err != nil {
		return err
	}
	requests, pods := 0, map[string]bool{}
	for _, r := range all {
		if r.who() != "controller" || r.apart() {
			continue
		}
		requests++
		if r.Object.Subresource != "eviction" {
			continue
		}
		d.Evictions++
		pods[r.Object.Name] = true
		switch {
		case r.Response.Code == 429:
			d.Refused++
		case r.Response.Code >= 300:
			d.Failed++
		}
	}
	d.Evicted = len(pods)
	d.Requests = float64(requests) / float64(d.Nodes)
	return nil
}
