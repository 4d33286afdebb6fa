package budget

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	return scheme
}

// newAPI is an API with resourceVersions and UIDs, and nothing else of a server's.
func newAPI(t testing.TB, objects ...client.Object) client.WithWatch {
	t.Helper()
	created := 0
	api := fake.NewClientBuilder().WithScheme(newScheme(t)).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.NodeDisruptionBudget{}, &v1alpha1.Remediation{}).Build()
	return interceptor.NewClient(api, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			created++
			obj.SetUID(types.UID(fmt.Sprintf("uid-%d", created)))
			return c.Create(ctx, obj, opts...)
		},
	})
}

func newNode(name string, labels map[string]string, change ...func(*corev1.Node)) *corev1.Node {
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("node-" + name), Labels: labels},
		Status:     corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}},
	}
	for _, c := range change {
		c(node)
	}
	return node
}

func notReadyNode(node *corev1.Node) {
	node.Status.Conditions[0].Status = corev1.ConditionFalse
	node.Status.Conditions[0].Reason = "KubeletNotReady"
	node.Status.Conditions[0].LastTransitionTime = metav1.NewTime(start)
}

func newRemediation(node *corev1.Node) *v1alpha1.Remediation {
	return &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: node.Name + "-r", UID: types.UID(node.Name + "-r-uid")},
		Spec:       v1alpha1.RemediationSpec{Node: node.Name, NodeUID: string(node.UID)},
		Status:     v1alpha1.RemediationStatus{Phase: v1alpha1.PhasePending},
	}
}

func newBudget(name string, limit intstr.IntOrString, change ...func(*v1alpha1.NodeDisruptionBudget)) *v1alpha1.NodeDisruptionBudget {
	budget := &v1alpha1.NodeDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID("budget-" + name)},
		Spec:       v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &limit},
	}
	for _, c := range change {
		c(budget)
	}
	return budget
}

func perRack(budget *v1alpha1.NodeDisruptionBudget) {
	budget.Spec.TopologyKey = "topology.example.com/rack"
}

// world is an API in which several controllers take turns, one API call at a time, in an order that the seed chooses.
type world struct {
	t      testing.TB
	api    client.WithWatch
	random *rand.Rand
	// turn lets one actor do its next call; asked says that it stands before one, or has ended.
	actors []*actor
	// brokenSwap gives each write the newest resourceVersion, as a keeper that does not compare would.
	brokenSwap bool
	problem    string
	// What happened, so that a test can tell that something did.
	acts, refusals, lost, kills int
}

// actor is one controller: its Keeper, its caches, and the nodes it works on.
type actor struct {
	world  *world
	keeper *Keeper
	cached struct {
		nodes   corev1.NodeList
		budgets v1alpha1.NodeDisruptionBudgetList
	}
	rems    []string
	resume  chan struct{}
	arrived chan bool
	crashAt int
}

var errCrash = errors.New("the controller is killed here")

// call is where an actor waits for its turn, and may be killed.
func (a *actor) call() error {
	a.arrived <- true
	<-a.resume
	if a.crashAt--; a.crashAt == 0 {
		a.world.kills++
		return errCrash
	}
	return nil
}

// writer is what the Keeper writes with: reads come from the actor's stale cache.
func (a *actor) writer() client.Client {
	return interceptor.NewClient(a.world.api, interceptor.Funcs{
		List: func(_ context.Context, _ client.WithWatch, list client.ObjectList, _ ...client.ListOption) error {
			switch list := list.(type) {
			case *corev1.NodeList:
				a.cached.nodes.DeepCopyInto(list)
			case *v1alpha1.NodeDisruptionBudgetList:
				a.cached.budgets.DeepCopyInto(list)
			default:
				return fmt.Errorf("%T is not cached", list)
			}
			return nil
		},
		Create: func(ctx context.Context, c client.WithWatch, obj client.Object, opts ...client.CreateOption) error {
			return a.write(ctx, func() error { return c.Create(ctx, obj, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, _ string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			return a.write(ctx, func() error {
				if a.world.brokenSwap {
					now := &v1alpha1.NodeDisruptionBudget{}
					if err := c.Get(ctx, client.ObjectKeyFromObject(obj), now); err != nil {
						return err
					}
					obj.SetResourceVersion(now.ResourceVersion)
				}
				return c.Status().Update(ctx, obj, opts...)
			})
		},
		Patch: func(ctx context.Context, c client.WithWatch, obj client.Object, patch client.Patch, opts ...client.PatchOption) error {
			return a.write(ctx, func() error { return c.Patch(ctx, obj, patch, opts...) })
		},
	})
}

// write is one write: an actor can be killed before it, and after it.
func (a *actor) write(ctx context.Context, do func() error) error {
	if err := a.call(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	a.world.check(ctx)
	return a.call()
}

func (a *actor) live() client.Reader {
	return interceptor.NewClient(a.world.api, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, obj client.Object, opts ...client.GetOption) error {
			if err := a.call(); err != nil {
				return err
			}
			return c.Get(ctx, key, obj, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if err := a.call(); err != nil {
				return err
			}
			return c.List(ctx, list, opts...)
		},
	})
}

func (a *actor) refresh() {
	ctx := a.world.t.Context()
	if err := errors.Join(a.world.api.List(ctx, &a.cached.nodes), a.world.api.List(ctx, &a.cached.budgets)); err != nil {
		a.world.t.Error(err)
	}
}

// work is an actor's life: turns on nodes that it chooses, until it has had enough.
func (a *actor) work(turns int, random *rand.Rand) {
	defer close(a.arrived)
	ctx := a.world.t.Context()
	for range turns {
		if random.IntN(3) > 0 {
			a.refresh()
		}
		a.crashAt = 0
		if random.IntN(4) == 0 {
			a.crashAt = 1 + random.IntN(12)
		}
		if err := a.turn(ctx, a.rems[random.IntN(len(a.rems))]); err != nil && !errors.Is(err, errCrash) {
			a.world.problem = err.Error()
			return
		}
	}
}

// turn is a small controller: take the slots, claim, make sure of the slots, act; and the way back.
func (a *actor) turn(ctx context.Context, name string) error {
	rem, node := &v1alpha1.Remediation{}, &corev1.Node{}
	if err := a.live().Get(ctx, client.ObjectKey{Name: name}, rem); err != nil {
		return err
	}
	if err := a.live().Get(ctx, client.ObjectKey{Name: rem.Spec.Node}, node); err != nil {
		return err
	}
	if rem.Status.Phase.Acting() {
		return a.finish(ctx, rem, node)
	}
	verdict, err := a.keeper.Reserve(ctx, node, rem, 8)
	if err != nil || !verdict.Granted {
		a.world.refusals++
		return err
	}
	claimed, err := claim.Put(node, rem.Name, rem.UID, nil)
	if err != nil {
		return err
	}
	if node, err = claim.Patch(ctx, a.keeper.options.Client, node, claimed); err != nil {
		return ignoreConflict(err)
	}
	held, err := a.keeper.Begin(ctx, node, rem)
	if err != nil {
		return err
	}
	if !held {
		a.world.lost++
		_, err = claim.Patch(ctx, a.keeper.options.Client, node, claim.TakeOff(node, rem.Name, rem.UID))
		return ignoreConflict(err)
	}
	rem.Status.Phase = v1alpha1.PhaseDraining
	a.world.acts++
	return ignoreConflict(a.status(ctx, rem))
}

func (a *actor) finish(ctx context.Context, rem *v1alpha1.Remediation, node *corev1.Node) error {
	rem.Status.Phase = v1alpha1.PhaseProbation
	if err := a.status(ctx, rem); err != nil {
		return ignoreConflict(err)
	}
	if _, err := claim.Patch(ctx, a.keeper.options.Client, node, claim.TakeOff(node, rem.Name, rem.UID)); err != nil {
		return ignoreConflict(err)
	}
	err := a.keeper.Release(ctx, rem, Fresh{})
	if errors.Is(err, ErrActing) {
		return nil
	}
	return err
}

// status writes a Remediation's status, always guarded: it is not what is tested here.
func (a *actor) status(ctx context.Context, rem *v1alpha1.Remediation) error {
	return a.write(ctx, func() error { return a.world.api.Status().Update(ctx, rem) })
}

// check holds the API against what must always be true.
func (w *world) check(ctx context.Context) {
	var nodes corev1.NodeList
	var budgets v1alpha1.NodeDisruptionBudgetList
	var rems v1alpha1.RemediationList
	if err := errors.Join(w.api.List(ctx, &nodes), w.api.List(ctx, &budgets), w.api.List(ctx, &rems)); err != nil {
		w.problem = err.Error()
		return
	}
	all := readGuards(budgets.Items)
	byName := map[string]*corev1.Node{}
	for i := range nodes.Items {
		byName[nodes.Items[i].Name] = &nodes.Items[i]
	}
	for i := range budgets.Items {
		b := &budgets.Items[i]
		slots, acting := map[string]int{}, map[string]int{}
		for _, r := range b.Status.Reservations {
			slots[r.Domain]++
		}
		for j := range rems.Items {
			node := byName[rems.Items[j].Spec.Node]
			if rems.Items[j].Status.Phase.Acting() && all.selects(b.Name, node.Labels) {
				acting[domainOf(b, node)]++
				if b.Status.RebuiltFor == string(b.UID) && !slices.ContainsFunc(b.Status.Reservations, holderOf(&rems.Items[j]).holds) {
					w.problem = fmt.Sprintf("%s acts without a slot of %s", rems.Items[j].Name, b.Name)
				}
			}
		}
		for domain := range slots {
			if slots[domain] > b.Spec.MaxUnavailable.IntValue() {
				w.problem = fmt.Sprintf("%s: %d slots in domain %q, %d allowed", b.Name, slots[domain], domain, b.Spec.MaxUnavailable.IntValue())
			}
		}
		for domain := range acting {
			if acting[domain] > b.Spec.MaxUnavailable.IntValue() {
				w.problem = fmt.Sprintf("%s: %d act in domain %q, %d allowed", b.Name, acting[domain], domain, b.Spec.MaxUnavailable.IntValue())
			}
		}
	}
}

// ignoreConflict drops the error of a write that somebody else was before: the next turn decides again.
func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}
