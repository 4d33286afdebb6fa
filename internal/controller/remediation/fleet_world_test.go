package remediation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// fleetWorld is a fleet on one API server, on which several controllers are at work at once, each with a cache of its own that is
// behind. They take turns, one request at a time, in an order that the seed chooses; between two requests agents, kubelets,
// other pods' controllers and other people's mishaps have theirs.
type fleetWorld struct {
	t      *testing.T
	random *rand.Rand
	server client.WithWatch
	scheme *runtime.Scheme
	clock  *clocktesting.FakePassiveClock
	actors []*fleetActor
	// allowed is how many more evictions the pods' budget allows, of most.
	allowed, most int
	// peace is when nobody breaks, kills or takes anything any more.
	peace bool
	// broken and unfair are what is wrong on purpose: each write of a budget's reservations comes with the newest version, as one
	// that does not compare; and a node that is never given a slot.
	broken bool
	unfair string
	// waits are since when nodes have been faulty, without a pause; longest the longest that ended.
	waits   map[string]time.Time
	longest time.Duration
	evicted map[types.UID]bool
	problem string
	// told are the last writes, for whoever has to find out why.
	told []string
	// What happened, so that a test can tell that something did.
	acts, evictions, refusals, kills, healed, asked, humans int
}

// fleetActor is one controller.
type fleetActor struct {
	world   *fleetWorld
	loop    *Reconciler
	cache   client.Client
	resume  chan struct{}
	arrived chan bool
	crashAt int
	// phases are the incidents' by node, as this actor last read them live or wrote them.
	phases map[string]v1alpha1.Phase
	// claims are the Nodes' likewise.
	claims map[string]string
}

var errKilled = errors.New("the controller is killed here")

// cachedKinds are the kinds that controllers read from their caches.
func cachedKinds() []client.ObjectList {
	return []client.ObjectList{&corev1.NodeList{}, &v1alpha1.NodeHealthList{}, &v1alpha1.RemediationList{}, &v1alpha1.RemediationPolicyList{},
		&v1alpha1.RemediationHoldList{}, &v1alpha1.NodeDisruptionBudgetList{}, &v1alpha1.DeviceRecordList{}}
}

func newFleetWorld(t *testing.T, seed uint64, objects ...client.Object) *fleetWorld {
	t.Helper()
	w := &fleetWorld{t: t, random: rand.New(rand.NewPCG(seed, 11)), clock: clocktesting.NewFakePassiveClock(began), scheme: runtime.NewScheme(),
		waits: map[string]time.Time{}, evicted: map[types.UID]bool{}, allowed: 1, most: 1}
	if err := errors.Join(clientgoscheme.AddToScheme(w.scheme), v1alpha1.AddToScheme(w.scheme)); err != nil {
		t.Fatal(err)
	}
	w.server = w.builder(objects...).Build()
	for range 2 {
		a := &fleetActor{world: w, phases: map[string]v1alpha1.Phase{}, claims: map[string]string{}, resume: make(chan struct{}), arrived: make(chan bool)}
		a.restart()
		w.actors = append(w.actors, a)
	}
	return w
}

func (w *fleetWorld) builder(objects ...client.Object) *fake.ClientBuilder {
	return fake.NewClientBuilder().WithScheme(w.scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.NodeDisruptionBudget{}, &v1alpha1.Remediation{}, &v1alpha1.DeviceRecord{}, &v1alpha1.NodeHealth{}).
		WithIndex(&v1alpha1.Remediation{}, IndexNode, indexed(func(r *v1alpha1.Remediation) string { return r.Spec.Node })).
		WithIndex(&corev1.Pod{}, nodePods, indexed(func(p *corev1.Pod) string { return p.Spec.NodeName })).
		WithIndex(&resourcev1.ResourceSlice{}, resourcev1.ResourceSliceSelectorNodeName,
			indexed(func(s *resourcev1.ResourceSlice) string { return *s.Spec.NodeName }))
}

// restart begins with a controller that knows nothing but what is there.
func (a *fleetActor) restart() {
	w := a.world
	counts, err := metrics.NewController(prometheus.NewRegistry())
	if err != nil {
		w.t.Fatal(err)
	}
	a.refresh()
	cached, live := a.client(), a.live()
	a.loop = &Reconciler{
		Options: Options{Client: cached, Live: live, Clock: w.clock, Metrics: counts, Retention: DefaultRetention,
			Policies: func(ctx context.Context) (*policy.Set, error) {
				var list v1alpha1.RemediationPolicyList
				err := a.cache.List(ctx, &list)
				return policy.Compile(list.Items), err
			},
			Budgets: budget.NewKeeper(budget.Options{Client: cached, Live: live, Now: w.clock.Now})},
		evictor: evict.Evictor{Client: cached}, requests: evict.Requests{Client: cached}, foreign: claim.Finder{Reader: live},
		claims: lru.New(maxGiven), refusals: lru.New(maxGiven),
	}
}

// refresh brings the cache up to date.
func (a *fleetActor) refresh() {
	var objects []client.Object
	for _, list := range cachedKinds() {
		a.world.must(a.world.server.List(a.world.t.Context(), list))
		switch list := list.(type) {
		case *corev1.NodeList:
			objects = append(objects, pointers(list.Items)...)
		case *v1alpha1.NodeHealthList:
			// Those that are Healthy are not watched.
			list.Items = slices.DeleteFunc(list.Items, func(h v1alpha1.NodeHealth) bool { return h.Status.Summary == v1alpha1.SummaryHealthy })
			objects = append(objects, pointers(list.Items)...)
		case *v1alpha1.RemediationList:
			objects = append(objects, pointers(list.Items)...)
		case *v1alpha1.RemediationPolicyList:
			objects = append(objects, pointers(list.Items)...)
		case *v1alpha1.RemediationHoldList:
			objects = append(objects, pointers(list.Items)...)
		case *v1alpha1.NodeDisruptionBudgetList:
			objects = append(objects, pointers(list.Items)...)
		case *v1alpha1.DeviceRecordList:
			objects = append(objects, pointers(list.Items)...)
		}
	}
	a.cache = a.world.builder(objects...).Build()
}

// pointers are the items of a list.
func pointers[T any, P interface {
	*T
	client.Object
}](items []T) []client.Object {
	out := make([]client.Object, len(items))
	for i := range items {
		out[i] = P(&items[i])
	}
	return out
}

// isCached says whether a kind is read from the cache.
func isCached(o any) bool {
	switch o.(type) {
	case *corev1.Node, *corev1.NodeList, *v1alpha1.NodeHealth, *v1alpha1.NodeHealthList, *v1alpha1.Remediation, *v1alpha1.RemediationList,
		*v1alpha1.RemediationPolicyList, *v1alpha1.RemediationHoldList, *v1alpha1.NodeDisruptionBudget, *v1alpha1.NodeDisruptionBudgetList, *v1alpha1.DeviceRecord:
		return true
	}
	return false
}

// call is where an actor waits for its turn, and may be killed.
func (a *fleetActor) call() error {
	a.arrived <- true
	<-a.resume
	if a.crashAt--; a.crashAt == 0 {
		a.world.kills++
		return errKilled
	}
	return nil
}

// live asks the API server, a turn a request.
func (a *fleetActor) live() client.Reader {
	return interceptor.NewClient(a.world.server, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if err := a.call(); err != nil {
				return err
			}
			err := c.Get(ctx, key, o, opts...)
			a.sees(o)
			return err
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if err := a.call(); err != nil {
				return err
			}
			return c.List(ctx, list, opts...)
		},
	})
}

// tells notes a write.
func (a *fleetActor) tells(verb string, o client.Object, err error) {
	w, what := a.world, ""
	switch o := o.(type) {
	case *v1alpha1.Remediation:
		what = fmt.Sprintf("%s %s", o.Status.Phase, o.Status.Reason)
	case *v1alpha1.NodeDisruptionBudget:
		what = "rebuilt for " + o.Status.RebuiltFor + ":"
		for _, r := range o.Status.Reservations {
			what += fmt.Sprintf(" %s(%d)", r.Remediation, r.Begun)
		}
	case *corev1.Node:
		what = o.Annotations[v1alpha1.AnnotationClaim]
	}
	w.told = append(w.told, fmt.Sprintf("%s, controller %d: %s %T %s: %s %v", w.clock.Now().Format(time.TimeOnly), slices.Index(w.actors, a), verb, o, o.GetName(), what, err))
	w.told = w.told[max(0, len(w.told)-30):]
}

// sees notes the phase of an incident, and the claim on a Node.
func (a *fleetActor) sees(o client.Object) {
	switch o := o.(type) {
	case *v1alpha1.Remediation:
		a.phases[o.Spec.Node] = o.Status.Phase
	case *corev1.Node:
		a.claims[o.Name], _, _ = claim.Ours(o)
	}
}

// client is what a controller writes with; it reads from the cache.
func (a *fleetActor) client() client.Client {
	live, w := a.live(), a.world
	return interceptor.NewClient(w.server, interceptor.Funcs{
		Get: func(ctx context.Context, _ client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if isCached(o) {
				return a.cache.Get(ctx, key, o, opts...)
			}
			return live.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, _ client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if isCached(list) {
				return a.cache.List(ctx, list, withoutUnsafe(opts)...)
			}
			return live.List(ctx, list, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return a.write(ctx, func() error {
				w.acts++
				o.SetUID(types.UID(fmt.Sprint("uid-", w.acts)))
				o.SetCreationTimestamp(metav1.NewTime(w.clock.Now()))
				return c.Create(ctx, o, opts...)
			})
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return a.write(ctx, func() error {
				if err := c.Update(ctx, o, opts...); err != nil {
					return err
				}
				if h, ok := o.(*v1alpha1.NodeHealth); ok {
					a.checkAsk(h)
				}
				return nil
			})
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return a.write(ctx, func() error {
				err := c.Patch(ctx, o, p, opts...)
				a.tells("patch", o, err)
				if err == nil {
					a.sees(o)
				}
				return err
			})
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return a.write(ctx, func() error { return c.Delete(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return a.write(ctx, func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return a.write(ctx, func() error {
				if b, ok := o.(*v1alpha1.NodeDisruptionBudget); ok {
					if err := w.reserves(ctx, b); err != nil {
						return err
					}
				}
				err := c.SubResource(sub).Update(ctx, o, opts...)
				a.tells("update", o, err)
				if err == nil {
					a.sees(o)
				}
				return err
			})
		},
		SubResourceCreate: func(ctx context.Context, _ client.Client, _ string, o, _ client.Object, _ ...client.SubResourceCreateOption) error {
			return a.write(ctx, func() error { return a.evict(ctx, o) })
		},
	})
}

// withoutUnsafe leaves out what the fake of a cache does not know.
func withoutUnsafe(opts []client.ListOption) []client.ListOption {
	return slices.DeleteFunc(slices.Clone(opts), func(o client.ListOption) bool { return o == client.UnsafeDisableDeepCopy })
}

// write is one write: an actor can be killed before it, and after it.
func (a *fleetActor) write(ctx context.Context, do func() error) error {
	if err := a.call(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	a.world.check(ctx)
	return a.call()
}

// reserves is what is wrong with a write of reservations, on purpose.
func (w *fleetWorld) reserves(ctx context.Context, b *v1alpha1.NodeDisruptionBudget) error {
	if slices.ContainsFunc(b.Status.Reservations, func(r v1alpha1.Reservation) bool { return r.Node == w.unfair }) {
		return apierrors.NewConflict(v1alpha1.GroupVersion.WithResource("nodedisruptionbudgets").GroupResource(), b.Name, errors.New("unfair"))
	}
	if !w.broken {
		return nil
	}
	now := &v1alpha1.NodeDisruptionBudget{}
	if err := w.server.Get(ctx, client.ObjectKeyFromObject(b), now); err != nil {
		return err
	}
	b.ResourceVersion = now.ResourceVersion
	return nil
}

// evict is the Eviction API, with one PodDisruptionBudget over all pods that are labelled as guarded.
func (a *fleetActor) evict(ctx context.Context, o client.Object) error {
	w := a.world
	pod := &corev1.Pod{}
	if err := w.server.Get(ctx, client.ObjectKeyFromObject(o), pod); err != nil {
		return err
	}
	if pod.UID != o.GetUID() {
		return apierrors.NewConflict(corev1.Resource("pods"), pod.Name, errors.New("the UID in the precondition is another's"))
	}
	// Between its look and its request another may end the drain; in a cluster the leader's fence refuses what comes after.
	if phase := a.phases[pod.Spec.NodeName]; phase != v1alpha1.PhaseDraining {
		w.problem = fmt.Sprintf("pod %s is evicted from %s, whose incident was last seen in %s", pod.Name, pod.Spec.NodeName, phase)
	}
	if w.evicted[pod.UID] {
		w.problem = fmt.Sprintf("pod %s is evicted twice", pod.Name)
	}
	if pod.Labels["guarded"] != "" {
		if w.allowed == 0 {
			w.refusals++
			err := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
			err.ErrStatus.Code = http.StatusTooManyRequests
			err.ErrStatus.Details.Causes = append(err.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause,
				Message: "The disruption budget guarded needs 1 healthy pods and has 1 currently"})
			return err
		}
		w.allowed--
	}
	w.evictions++
	w.evicted[pod.UID] = true
	return w.server.Delete(ctx, pod)
}

func (w *fleetWorld) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// work is an actor's life: turns on nodes that it chooses.
func (a *fleetActor) work(done <-chan struct{}, random *rand.Rand) {
	defer close(a.arrived)
	for {
		select {
		case <-done:
			return
		default:
		}
		if random.IntN(3) > 0 {
			a.refresh()
		}
		a.crashAt = 0
		if !a.world.peace && random.IntN(12) == 0 {
			a.crashAt = 1 + random.IntN(40)
		}
		name := a.world.choose(random)
		_, err := a.loop.Reconcile(a.world.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: name}})
		if a.crashAt < 0 && errors.Is(err, errKilled) || a.crashAt == 0 && errors.Is(err, errKilled) {
			a.restart()
			continue
		}
		if err != nil && !tolerable(err) {
			a.world.problem = fmt.Sprintf("node %s: %v", name, err)
			return
		}
		if err := a.call(); err != nil { // also where it asked for nothing, time goes on.
			a.restart()
		}
	}
}

// tolerable says whether an error is what a controller tries again after.
func tolerable(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) || errors.Is(err, errKilled)
}
