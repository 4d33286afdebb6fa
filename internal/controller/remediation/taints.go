package remediation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

// Slices lists and watches ResourceSlices; k8s.io/client-go's typed client does.
type Slices interface {
	List(ctx context.Context, o metav1.ListOptions) (*resourcev1.ResourceSliceList, error)
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// driverTaints knows which devices of the cluster their DRA drivers themselves taint, while a policy asks for that. It keeps
// nothing of a slice without taints, so that in a fleet of 30,000 nodes it costs the traffic of the watch, and no memory to
// speak of; while no policy asks, it costs nothing.
type driverTaints struct {
	slices Slices
	// asked says whether a policy asks now; changed is sent to when that may have changed.
	asked   func(context.Context) (bool, error)
	changed chan struct{}
	// events get the nodes whose taints have changed.
	events chan event.GenericEvent

	mu     sync.Mutex
	synced bool
	// rows are the slices with taints, by node and name of the slice.
	rows map[string]map[string]taintRow
	// told are the nodes to be told of, which are sent without the lock.
	told []string
}

// taintRow is what is kept of a slice with taints.
type taintRow struct {
	driver, pool string
	generation   int64
	taints       []decide.DriverTaint
}

func newDriverTaints(from Slices, asked func(context.Context) (bool, error)) *driverTaints {
	return &driverTaints{slices: from, asked: asked, changed: make(chan struct{}, 1), events: make(chan event.GenericEvent, 1024),
		rows: map[string]map[string]taintRow{}}
}

// of are the taints on a node's devices; known is false where nobody watches, or has seen the whole cluster yet.
func (d *driverTaints) of(node string) (taints []decide.DriverTaint, known bool) {
	if d == nil {
		return nil, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	taints = []decide.DriverTaint{}
	for _, name := range slices.Sorted(maps.Keys(d.rows[node])) {
		taints = append(taints, d.rows[node][name].taints...)
	}
	return taints, d.synced
}

// nodes are those with taints.
func (d *driverTaints) nodes() []string {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.rows))
}

// ask has it looked whether a policy asks.
func (d *driverTaints) ask() {
	if d == nil {
		return
	}
	select {
	case d.changed <- struct{}{}:
	default: // it will be looked anyway.
	}
}

// askAgain bounds how long a policy may have gone unseen.
const askAgain = 30 * time.Second

// Start watches while a policy asks, until ctx ends.
func (d *driverTaints) Start(ctx context.Context) error {
	var stop func()
	defer func() {
		if stop != nil {
			stop()
		}
	}()
	for {
		asked, err := d.asked(ctx)
		switch {
		case err != nil:
			ctrl.LoggerFrom(ctx).Error(err, "Looking whether a policy asks for drivers' taints")
		case asked && stop == nil:
			stop = d.watch(ctx)
		case !asked && stop != nil:
			stop()
			stop = nil
			d.forget(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		case <-time.After(askAgain):
		}
	}
}

// watch begins to watch, and gives what ends that.
func (d *driverTaints) watch(parent context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(parent)
	r := cache.NewReflectorWithOptions(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return d.slices.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return d.slices.Watch(ctx, o)
		},
	}, &resourcev1.ResourceSlice{}, taintStore{d, ctx}, cache.ReflectorOptions{Name: "drivers' taints"})
	var running sync.WaitGroup
	running.Go(func() { r.RunWithContext(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// forget drops what is known, and tells of it.
func (d *driverTaints) forget(ctx context.Context) {
	d.mu.Lock()
	d.told = slices.Collect(maps.Keys(d.rows))
	d.rows, d.synced = map[string]map[string]taintRow{}, false
	d.mu.Unlock()
	d.tell(ctx)
}

// tell sends the nodes that changed. Where the loop is slow, the watch waits for it.
func (d *driverTaints) tell(ctx context.Context) {
	d.mu.Lock()
	told := d.told
	d.told = nil
	d.mu.Unlock()
	for _, name := range told {
		node := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}}
		select {
		case d.events <- event.GenericEvent{Object: node}:
		case <-ctx.Done():
			return
		}
	}
}

// put notes what a slice says now; gone, that there is none any more. It is called with the lock.
func (d *driverTaints) put(s *resourcev1.ResourceSlice, gone bool) {
	if s.Spec.NodeName == nil {
		return // of no single node.
	}
	node := *s.Spec.NodeName
	before := d.rows[node]
	after := maps.Clone(before)
	if after == nil {
		after = map[string]taintRow{}
	}
	delete(after, s.Name)
	row := rowOf(s)
	if !gone {
		// What an older generation of the pool says counts no more, though its slice may be there for a while.
		maps.DeleteFunc(after, func(_ string, other taintRow) bool {
			return other.driver == row.driver && other.pool == row.pool && other.generation < row.generation
		})
		if len(row.taints) > 0 {
			after[s.Name] = row
		}
	}
	if !maps.EqualFunc(before, after, func(a, b taintRow) bool { return slices.Equal(a.taints, b.taints) }) {
		d.told = append(d.told, node)
	}
	if d.rows[node] = after; len(after) == 0 {
		delete(d.rows, node)
	}
}

func rowOf(s *resourcev1.ResourceSlice) taintRow {
	return taintRow{driver: s.Spec.Driver, pool: s.Spec.Pool.Name, generation: s.Spec.Pool.Generation, taints: occupancy.TaintsOf(s)}
}

// taintStore is where the reflector puts what it sees.
type taintStore struct {
	d *driverTaints
	// ctx ends with the watch: telling must not outlive it.
	ctx context.Context //nolint:containedctx // the reflector's store interface passes none.
}

func (t taintStore) put(obj any, gone bool) error {
	s, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return fmt.Errorf("watching ResourceSlices: got a %T", obj)
	}
	t.d.mu.Lock()
	t.d.put(s, gone)
	t.d.mu.Unlock()
	t.d.tell(t.ctx)
	return nil
}

// Add notes a slice.
func (t taintStore) Add(obj any) error { return t.put(obj, false) }

// Update notes how a slice is now.
func (t taintStore) Update(obj any) error { return t.put(obj, false) }

// Delete notes that a slice has gone.
func (t taintStore) Delete(obj any) error { return t.put(obj, true) }

// Resync has nothing to do.
func (t taintStore) Resync() error { return nil }

// Transformer cuts away what is not kept while a whole list is gathered, all but what taints are made of.
func (t taintStore) Transformer() cache.TransformFunc { return stripSlice }

// Replace notes all slices that there are, and tells of the nodes of which they say something else than before.
func (t taintStore) Replace(list []any, _ string) error {
	t.d.mu.Lock()
	before := t.d.rows
	t.d.rows, t.d.synced = map[string]map[string]taintRow{}, true
	// The newest generation of a pool last, so that it has the last word.
	all := make([]*resourcev1.ResourceSlice, 0, len(list))
	for _, obj := range list {
		if s, ok := obj.(*resourcev1.ResourceSlice); ok {
			all = append(all, s)
		}
	}
	slices.SortStableFunc(all, func(a, b *resourcev1.ResourceSlice) int {
		return int(a.Spec.Pool.Generation - b.Spec.Pool.Generation)
	})
	for _, s := range all {
		t.d.put(s, false)
	}
	tell := map[string]bool{}
	for _, rows := range []map[string]map[string]taintRow{before, t.d.rows} {
		for node := range rows {
			tell[node] = true
		}
	}
	t.d.told = slices.Collect(maps.Keys(tell))
	t.d.mu.Unlock()
	t.d.tell(t.ctx)
	return nil
}

// stripSlice keeps of a slice which pool of which node it is, and of its devices those with taints, with their identity.
func stripSlice(obj any) (any, error) {
	s, ok := obj.(*resourcev1.ResourceSlice)
	if !ok {
		return obj, nil
	}
	slim := &resourcev1.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion, CreationTimestamp: s.CreationTimestamp},
		Spec:       resourcev1.ResourceSliceSpec{Driver: s.Spec.Driver, NodeName: s.Spec.NodeName, Pool: s.Spec.Pool},
	}
	for i := range s.Spec.Devices {
		if d := &s.Spec.Devices[i]; len(d.Taints) > 0 {
			slim.Spec.Devices = append(slim.Spec.Devices, resourcev1.Device{Name: d.Name, Attributes: d.Attributes, Taints: d.Taints})
		}
	}
	return slim, nil
}

// taints finds what drivers say of the node's devices: where somebody watches, what was seen; else, for an incident that has
// to know, by a look. Without an incident nothing is looked at: the watch brings the node back once it has seen it.
func (r *Reconciler) taints(ctx context.Context, w *work, s *decide.Snapshot) error {
	if known, ok := r.drivers.of(s.Node.Name); ok {
		s.DriverTaints = known
		return nil
	}
	if w.rem == nil {
		return nil
	}
	if w.offers == nil || s.Now.Sub(w.offers.at) > offersMaxAge {
		offers, err := r.look(ctx, s.Node.Name, true)
		if err != nil {
			return err
		}
		w.offers = offers
	}
	s.DriverTaints = w.offers.taints
	return nil
}

// asksForTaints says whether the node's faults cannot be told without what drivers say: a rule names their taints, or the
// incident began with one.
func asksForTaints(w *work, asks bool) bool {
	return asks || w.rem != nil && w.rem.Spec.Root.Check == v1alpha1.CheckDeviceTaint
}

// taintedNodes are the nodes that a policy may say something else of, once it has changed.
func (r *Reconciler) taintedNodes(ctx context.Context, obj client.Object) []ctrl.Request {
	r.drivers.ask()
	out := r.openNodes(ctx, obj)
	for _, name := range r.drivers.nodes() {
		out = append(out, byName(ctx, &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name}})...)
	}
	return out
}
