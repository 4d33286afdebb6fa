package budget

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
)

// crowd is an API with so many nodes under one budget, which counts the swaps that are tried and those that are lost.
type crowd struct {
	client.WithWatch
	nodes         []*corev1.Node
	rems          []*v1alpha1.Remediation
	swaps, losses atomic.Int64
	// hold, where it is set, is received from before each swap: what comes meanwhile gathers.
	hold chan struct{}
}

func newCrowd(t *testing.T, nodes, allowed int) *crowd {
	t.Helper()
	c := &crowd{}
	objects := []client.Object{newBudget("fleet", intstr.FromInt32(int32(allowed)))}
	for i := range nodes {
		node := newNode(fmt.Sprintf("n%03d", i), nil)
		rem := newRemediation(node)
		c.nodes, c.rems = append(c.nodes, node), append(c.rems, rem)
		objects = append(objects, node, rem)
	}
	c.WithWatch = interceptor.NewClient(newAPI(t, objects...), interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, api client.Client, _ string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			if c.hold != nil {
				<-c.hold
			}
			c.swaps.Add(1)
			err := api.Status().Update(ctx, obj, opts...)
			if apierrors.IsConflict(err) {
				c.losses.Add(1)
			}
			return err
		}})
	return c
}

func (c *crowd) keeper() *Keeper {
	return NewKeeper(Options{Client: c.WithWatch, Live: c.WithWatch, Now: func() time.Time { return start }})
}

func (c *crowd) slots(t *testing.T) map[string]v1alpha1.Reservation {
	t.Helper()
	var b v1alpha1.NodeDisruptionBudget
	if err := c.Get(t.Context(), client.ObjectKey{Name: "fleet"}, &b); err != nil {
		t.Fatal(err)
	}
	out := map[string]v1alpha1.Reservation{}
	for _, r := range b.Status.Reservations {
		if _, twice := out[r.Node]; twice {
			t.Errorf("%s has two slots", r.Node)
		}
		out[r.Node] = r
	}
	return out
}

// all does something for every node at once, alternately by one keeper and the other.
func (c *crowd) all(t *testing.T, keepers []*Keeper, do func(k *Keeper, i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range c.nodes {
		wg.Go(func() {
			if err := do(keepers[i%len(keepers)], i); err != nil {
				t.Errorf("%s: %v", c.nodes[i].Name, err)
			}
		})
	}
	wg.Wait()
}

// Two controllers, each with a crowd of nodes at the same time.
func TestACrowdTakesWhatThereIsAndNoMore(t *testing.T) {
	const nodes, allowed = 60, 25
	c := newCrowd(t, nodes, allowed)
	keepers := []*Keeper{c.keeper(), c.keeper()}
	granted := make([]bool, nodes)
	for range 5 { // where both were at it, one may have lost every swap.
		c.all(t, keepers, func(k *Keeper, i int) error {
			v, err := k.Reserve(t.Context(), c.nodes[i], c.rems[i], 8)
			granted[i] = v.Granted
			return err
		})
	}
	slots := c.slots(t)
	for i, node := range c.nodes {
		if _, has := slots[node.Name]; has != granted[i] {
			t.Errorf("%s was told %v", node.Name, granted[i])
		}
	}
	if len(slots) != allowed {
		t.Errorf("%d slots of %d are taken", len(slots), allowed)
	}
	c.all(t, keepers, func(k *Keeper, i int) error {
		for range 20 {
			switch held, err := k.Begin(t.Context(), c.nodes[i], c.rems[i]); {
			case err != nil || held && !granted[i]:
				return fmt.Errorf("begins: %v, %w", held, err)
			case held || !granted[i]:
				return nil
			}
		}
		return errors.New("does not begin")
	})
	for name, r := range c.slots(t) {
		if r.Begun != 1 {
			t.Errorf("%s has begun %d times", name, r.Begun)
		}
	}
	c.all(t, keepers, func(k *Keeper, i int) error {
		var err error
		for range 20 {
			if err = k.Release(t.Context(), c.rems[i], Fresh{}); !errors.Is(err, errOthers) {
				return err
			}
		}
		return err
	})
	if left := c.slots(t); len(left) > 0 {
		t.Errorf("slots are left: %v", left)
	}
}

// What comes while a swap is under way is one swap, and no swap is lost to one of the same controller.
func TestWhoAsksAtTheSameTimeSharesASwap(t *testing.T) {
	const nodes = 40
	c := newCrowd(t, nodes, nodes)
	k := c.keeper()
	c.hold = make(chan struct{})
	go func() {
		q := k.swaps.enter("fleet")
		for waiting := 0; waiting < nodes-1; time.Sleep(time.Millisecond) { // all but the one who works
			q.mu.Lock()
			waiting = len(q.waiting)
			q.mu.Unlock()
		}
		close(c.hold)
	}()
	c.all(t, []*Keeper{k}, func(k *Keeper, i int) error {
		v, err := k.Reserve(t.Context(), c.nodes[i], c.rems[i], 8)
		if err == nil && !v.Granted {
			err = fmt.Errorf("refused: %s", v.Message)
		}
		return err
	})
	if swaps := c.swaps.Load(); swaps != 2 || c.losses.Load() > 0 {
		t.Errorf("%d swaps, %d lost", swaps, c.losses.Load())
	}
	if got := len(c.slots(t)); got != nodes {
		t.Errorf("%d slots", got)
	}
}

// adds is a change that adds a slot.
func adds(name string) func(context.Context, *v1alpha1.NodeDisruptionBudget) (bool, error) {
	return func(_ context.Context, current *v1alpha1.NodeDisruptionBudget) (bool, error) {
		current.Status.Reservations = append(current.Status.Reservations, v1alpha1.Reservation{Node: name})
		return true, nil
	}
}

// One that ends does not take along the others of its lot.
func TestOneThatFailsDoesNotFailItsLot(t *testing.T) {
	c := newCrowd(t, 3, 3)
	k := c.keeper()
	var b v1alpha1.NodeDisruptionBudget
	if err := c.Get(t.Context(), client.ObjectKey{Name: "fleet"}, &b); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	other := b.DeepCopy()
	other.Generation++
	lot := []*change{
		{seen: &b, apply: func(context.Context, *v1alpha1.NodeDisruptionBudget) (bool, error) { return false, boom }},
		{seen: &b, apply: adds("a")},
		{seen: other, apply: adds("never")},
		{seen: &b, apply: func(context.Context, *v1alpha1.NodeDisruptionBudget) (bool, error) { return false, nil }},
		{seen: &b, apply: adds("b")},
	}
	k.swapAll(t.Context(), &queue{}, lot)
	for i, want := range []error{boom, nil, errMoved, nil, nil} {
		if !errors.Is(lot[i].err, want) || !lot[i].ended || (want == nil) != (lot[i].after != nil) {
			t.Errorf("%d: %v", i, lot[i].err)
		}
	}
	if slots := c.slots(t); len(slots) != 2 || slots["a"].Node == "" || slots["b"].Node == "" || len(b.Status.Reservations) != 0 {
		t.Errorf("%v", slots)
	}
	if c.swaps.Load() != 1 {
		t.Errorf("%d swaps", c.swaps.Load())
	}
}

// A slot may be freed, taken again and begun as often, all within a second, between the look of one who frees it and its swap.
func TestASlotThatIsTakenAgainIsNotTheOneThatWasLookedAt(t *testing.T) {
	node := newNode("n", nil)
	rem := newRemediation(node)
	api := newAPI(t, newBudget("fleet", intstr.FromInt32(1)), node, rem)
	now := start
	clockAt := func() time.Time { return now }
	b := NewKeeper(Options{Client: api, Live: api, Now: clockAt})
	ctx := t.Context()
	live := func() (*corev1.Node, *v1alpha1.Remediation) {
		n, r := &corev1.Node{}, &v1alpha1.Remediation{}
		if err := errors.Join(api.Get(ctx, client.ObjectKey{Name: "n"}, n), api.Get(ctx, client.ObjectKey{Name: rem.Name}, r)); err != nil {
			t.Fatal(err)
		}
		return n, r
	}
	begin := func() {
		n, r := live()
		if v, err := b.Reserve(ctx, n, r, 8); err != nil || !v.Granted {
			t.Fatal(v, err)
		}
		c, err := claim.Put(n, r.Name, r.UID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err = claim.Patch(ctx, api, n, c); err != nil {
			t.Fatal(err)
		}
		if held, err := b.Begin(ctx, n, r); err != nil || !held {
			t.Fatal(held, err)
		}
		r.Status.Phase = v1alpha1.PhaseDraining
		if err := api.Status().Update(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	back := func() {
		n, r := live()
		if _, err := claim.Patch(ctx, api, n, claim.TakeOff(n, r.Name, r.UID)); err != nil {
			t.Fatal(err)
		}
		r.Status.Phase = v1alpha1.PhasePending
		if err := api.Status().Update(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	begin()
	back() // a gate closed; the slot is to be freed.
	once := false
	frozen := interceptor.NewClient(api, interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, c client.Client, _ string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			if !once {
				once = true
				// Meanwhile the other frees it, and begins anew, all within the second.
				_, r := live()
				if err := b.Release(ctx, r, Fresh{}); err != nil {
					t.Fatal(err)
				}
				now = now.Add(300 * time.Millisecond)
				begin()
			}
			return c.Status().Update(ctx, obj, opts...)
		}})
	a := NewKeeper(Options{Client: frozen, Live: api, Now: clockAt})
	_, r := live()
	if err := a.Release(ctx, r, Fresh{}); !errors.Is(err, ErrActing) {
		t.Errorf("release by the frozen one: %v", err)
	}
	n, r := live()
	var bud v1alpha1.NodeDisruptionBudget
	if err := api.Get(ctx, client.ObjectKey{Name: "fleet"}, &bud); err != nil {
		t.Fatal(err)
	}
	_, _, claimed := claim.Ours(n)
	if !r.Status.Phase.Acting() || !claimed || len(bud.Status.Reservations) != 1 {
		t.Errorf("phase %s, claim %v, %d slots", r.Status.Phase, claimed, len(bud.Status.Reservations))
	}
}

// What the server does not take of one is not refused to the others of its lot.
func TestOneThatTheServerRefusesDoesNotFailItsLot(t *testing.T) {
	c := newCrowd(t, 3, 3)
	k := NewKeeper(Options{Now: func() time.Time { return start }, Live: c.WithWatch, Client: interceptor.NewClient(c.WithWatch, interceptor.Funcs{
		SubResourceUpdate: func(ctx context.Context, a client.Client, _ string, obj client.Object, opts ...client.SubResourceUpdateOption) error {
			if b, ok := obj.(*v1alpha1.NodeDisruptionBudget); ok && slices.ContainsFunc(b.Status.Reservations, func(r v1alpha1.Reservation) bool { return r.Node == "bad" }) {
				return apierrors.NewInvalid(v1alpha1.GroupVersion.WithKind("NodeDisruptionBudget").GroupKind(), b.Name, nil)
			}
			return a.Status().Update(ctx, obj, opts...)
		}})})
	var b v1alpha1.NodeDisruptionBudget
	if err := c.Get(t.Context(), client.ObjectKey{Name: "fleet"}, &b); err != nil {
		t.Fatal(err)
	}
	var lot []*change
	for _, name := range []string{"a", "bad", "b"} {
		lot = append(lot, &change{seen: &b, apply: adds(name)})
	}
	k.swapAll(t.Context(), &queue{}, lot)
	if lot[0].err != nil || !apierrors.IsInvalid(lot[1].err) || lot[2].err != nil {
		t.Errorf("%v, %v, %v", lot[0].err, lot[1].err, lot[2].err)
	}
	if slots := c.slots(t); len(slots) != 2 || slots["a"].Node == "" || slots["b"].Node == "" {
		t.Errorf("%v", slots)
	}
}

// Whoever works may panic, which controller-runtime recovers from: nobody of its lot may take that for done.
func TestALotThatIsCutOffIsNotDone(t *testing.T) {
	var b batch[int]
	begun, all := make(chan bool), make(chan bool)
	errs := make(chan error, 2)
	go func() { // the first is alone, and lets the others gather.
		errs <- b.do(t.Context(), 0, func(context.Context, []int) { close(begun); <-all })
	}()
	<-begun
	for i := range 2 {
		go func() {
			defer func() {
				if p := recover(); p != nil && p != "boom" {
					panic(p)
				}
			}()
			errs <- b.do(t.Context(), i, func(context.Context, []int) { panic("boom") })
		}()
	}
	for waiting := 0; waiting < 2; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		waiting = len(b.waiting)
		b.mu.Unlock()
	}
	close(all)
	if first, second := <-errs, <-errs; first != nil || !errors.Is(second, errCutOff) {
		t.Errorf("%v, %v", first, second)
	}
}

// Whoever gives up, another's change is made: the one who works is not the only one who asked.
func TestALotOutlivesWhoBeganIt(t *testing.T) {
	var b batch[int]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := b.do(ctx, 1, func(ctx context.Context, _ []int) {
		if ctx.Err() != nil {
			t.Error("the work is cut off with its caller")
		}
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("the work has no deadline")
		}
	})
	if err != nil {
		t.Error(err)
	}
}
