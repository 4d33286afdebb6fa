package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

const (
	// repairRack is how many nodes are kept for whole repairs: one rack.
	repairRack = 8
	// concurrency is how many writes a bare client has under way: as many as agents of a large fleet.
	concurrency = 64
	// maxPods bounds the pods that merely exist.
	maxPods = 500_000
	// badSlot is the device that breaks.
	badSlot = 3
)

// cluster is a running cluster and what is seen of it.
type cluster struct {
	s      *sandbox.Sandbox
	o      Options
	client client.WithWatch
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// fault, rule and phase take what was seen, by node, with the time.
	fault, rule *sightings
	phase, line *sightings
}

// newCluster ends the controller, which would look after what the bare client writes, and begins to watch.
func newCluster(ctx context.Context, s *sandbox.Sandbox, o Options) (*cluster, error) {
	for _, one := range s.Controllers() {
		if err := one.Kill(ctx); err != nil {
			return nil, fmt.Errorf("ending the controller: %w", err)
		}
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	config := rest.CopyConfig(s.AdminConfig())
	config.QPS = -1
	config.UserAgent = "roundhouse-bench"
	made, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	c := &cluster{s: s, o: o, client: made, fault: newSightings(), rule: newSightings(), phase: newSightings(), line: newSightings()}
	ctx, c.cancel = context.WithCancel(ctx)
	for _, list := range []client.ObjectList{&v1alpha1.NodeHealthList{}, &resourcev1.DeviceTaintRuleList{}, &v1alpha1.RemediationList{}} {
		// From now on: what is there already was seen by nobody. A page tells the version.
		if err := c.client.List(ctx, list, client.Limit(1)); err != nil {
			return nil, fmt.Errorf("listing %T: %w", list, err)
		}
		w, err := c.watch(ctx, list)
		if err != nil {
			return nil, err
		}
		c.wg.Go(func() { c.follow(ctx, list, w) })
	}
	return c, nil
}

// watch watches what comes after a list.
func (c *cluster) watch(ctx context.Context, list client.ObjectList) (watch.Interface, error) {
	w, err := c.client.Watch(ctx, list, &client.ListOptions{Raw: &metav1.ListOptions{
		ResourceVersion: list.GetResourceVersion(), TimeoutSeconds: ptr.To(int64(3600)),
	}})
	if err != nil {
		return nil, fmt.Errorf("watching %T: %w", list, err)
	}
	return w, nil
}

// follow looks at what comes, until the context ends. A server may end a watch at any time, even at once, as one from a
// version before its cache was filled. Then everything is listed, and seen as late as that.
func (c *cluster) follow(ctx context.Context, list client.ObjectList, w watch.Interface) {
	for {
		if w != nil {
			c.look(w)
		}
		if err := pause(ctx, rewatchAfter); err != nil {
			return
		}
		w = nil
		if err := c.client.List(ctx, list); err != nil {
			continue // no version to watch from; again
		}
		_ = meta.EachListItem(list, func(object runtime.Object) error {
			c.see(watch.Added, object, time.Now())
			return nil
		})
		w, _ = c.watch(ctx, list) // nil, and listed again, where it fails
	}
}

// rewatchAfter is the pause before a watch that has ended is begun anew.
const rewatchAfter = 10 * time.Millisecond

func (c *cluster) close() {
	c.cancel()
	c.wg.Wait()
}

// look notes what a watch shows until it ends.
func (c *cluster) look(w watch.Interface) {
	defer w.Stop()
	for event := range w.ResultChan() {
		if event.Type == watch.Error {
			return
		}
		c.see(event.Type, event.Object, time.Now())
	}
}

// see notes when something was first seen.
func (c *cluster) see(kind watch.EventType, object runtime.Object, now time.Time) {
	switch object := object.(type) {
	case *v1alpha1.NodeHealth:
		if len(object.Status.Faults) > 0 {
			c.fault.see(object.Name, now)
			c.seeLines(object, now)
		}
	case *resourcev1.DeviceTaintRule:
		if kind == watch.Added {
			c.rule.see(object.Annotations[v1alpha1.AnnotationNode], now)
		}
	case *v1alpha1.Remediation:
		c.phase.see(object.Spec.Node+"/"+string(object.Status.Phase), now)
	}
}

// seeLines notes each fault of a machine that is looked at by itself.
func (c *cluster) seeLines(h *v1alpha1.NodeHealth, now time.Time) {
	if !strings.HasPrefix(h.Name, machinePrefix) {
		return
	}
	addresses := map[string]string{}
	for i := range h.Status.Devices {
		addresses[h.Status.Devices[i].ID] = h.Status.Devices[i].PCI
	}
	for _, f := range h.Status.Faults {
		c.line.see(lineKey(h.Name, f.Code, addresses[f.Device]), now)
	}
}

// sightings are when things were first seen.
type sightings struct {
	mu   sync.Mutex
	at   map[string]time.Time
	more chan struct{}
}

func newSightings() *sightings {
	return &sightings{at: map[string]time.Time{}, more: make(chan struct{})}
}

func (s *sightings) see(what string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, seen := s.at[what]; seen {
		return
	}
	s.at[what] = now
	close(s.more)
	s.more = make(chan struct{})
}

// of says when something was seen, or gives a channel that is closed when more is.
func (s *sightings) of(what string) (time.Time, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[what], s.more
}

// wait waits until all of these were seen, and gives when the last was.
func (s *sightings) wait(ctx context.Context, all ...string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, everyTimeout)
	defer cancel()
	var last time.Time
	for i, what := range all {
		for {
			at, more := s.of(what)
			if !at.IsZero() {
				if at.After(last) {
					last = at
				}
				break
			}
			select {
			case <-more:
			case <-ctx.Done():
				return last, fmt.Errorf("waiting for %s, %d of %d: %w", what, i+1, len(all), context.Cause(ctx))
			}
		}
	}
	return last, nil
}

// each does something for each number below n, so many at a time, until all are done or one fails.
func each(ctx context.Context, n int, do func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var at atomic.Int64
	for range min(concurrency, n) {
		wg.Go(func() {
			for i := int(at.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(at.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// startController starts the controller anew, and waits until it leads.
func (c *cluster) startController(ctx context.Context) error {
	c.o.Progress("starting the controller")
	if _, err := c.s.StartController(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, everyTimeout)
	defer cancel()
	_, err := c.s.WaitLeader(ctx)
	return err
}

// policy puts a policy in force, and waits until it is accepted. Everything critical is to be repaired; the brake is on,
// because it must not keep anything from being quarantined.
func (c *cluster) policy(ctx context.Context, name string, mode v1alpha1.Mode, selector metav1.LabelSelector, change ...func(*v1alpha1.RemediationPolicy)) error {
	p := &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.RemediationPolicySpec{
		Mode: mode, NodeSelector: selector,
		Rules: []v1alpha1.Rule{{Name: "critical", Response: v1alpha1.ResponseRepair, Ladder: []string{"reboot", "human"},
			Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}}}},
		Rungs: []v1alpha1.Rung{{Name: "reboot", Action: v1alpha1.RungReboot, Timeout: &metav1.Duration{Duration: 2 * time.Minute}},
			{Name: "human", Action: v1alpha1.RungEscalate, Message: "look at it"}},
		Verify: &v1alpha1.Verify{Settle: &metav1.Duration{}}, Probation: &metav1.Duration{Duration: time.Second},
		Loop: &v1alpha1.Loop{MaxRepairs: ptr.To(int32(3)), MaxBoots: ptr.To(int32(16))},
	}}
	if mode == v1alpha1.ModeRemediate {
		p.Spec.Brake = &v1alpha1.Brake{SameSignature: &v1alpha1.SameSignature{
			Nodes: intstr.FromString("2%"), MinNodes: ptr.To(int32(100)), Window: &metav1.Duration{Duration: 10 * time.Minute},
		}}
	}
	for _, f := range change {
		f(p)
	}
	if err := c.client.Create(ctx, p); err != nil {
		return fmt.Errorf("creating a policy: %w", err)
	}
	return eventually(ctx, "the policy's acceptance", func(ctx context.Context) (bool, error) {
		if err := c.client.Get(ctx, client.ObjectKeyFromObject(p), p); err != nil {
			return false, fmt.Errorf("reading a policy: %w", err)
		}
		for _, condition := range p.Status.Conditions {
			if condition.Type == "Accepted" && condition.Status == metav1.ConditionTrue {
				return true, nil
			}
		}
		return false, nil
	})
}

// eventually asks until the answer is yes, or an error.
func eventually(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, everyTimeout, fmt.Errorf("not within %s", everyTimeout))
	defer cancel()
	for {
		ok, err := done(ctx)
		if ok || err != nil {
			return err
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// fillPods makes pods that exist and do nothing, on nodes that are not there: the controller must not keep them.
func (c *cluster) fillPods(ctx context.Context, n int) error {
	if n == 0 {
		return nil
	}
	c.o.Progress(fmt.Sprintf("making %d pods", n))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "crowd"}}
	if err := c.client.Create(ctx, namespace); err != nil {
		return fmt.Errorf("making a namespace: %w", err)
	}
	return each(ctx, n, func(ctx context.Context, i int) error {
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "crowd", Name: "pod-" + strconv.Itoa(i), Labels: map[string]string{"app": "crowd"}},
			Spec: corev1.PodSpec{NodeName: "elsewhere-" + strconv.Itoa(i/7), AutomountServiceAccountToken: ptr.To(false),
				Containers: []corev1.Container{{Name: "main", Image: "crowd:bench"}}},
		}
		if err := c.client.Create(ctx, pod); err != nil {
			return fmt.Errorf("making a pod: %w", err)
		}
		return nil
	})
}

// inject breaks one device of a node, at the time that it gives.
func (c *cluster) inject(ctx context.Context, node string) (time.Time, error) {
	at := time.Now()
	return at, c.s.Fleet().Inject(ctx, fleet.Injection{Fault: "xid79", Node: node, Device: badSlot})
}
