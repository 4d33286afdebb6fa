package budget

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// newWorld has eight nodes in three racks under two budgets, and four nodes that only the implicit budget guards.
func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 7))}
	objects := []client.Object{
		newBudget("fleet", intstr.FromInt32(3), func(b *v1alpha1.NodeDisruptionBudget) { b.Spec.NodeSelector.MatchLabels = pool }),
		newBudget("per-rack", intstr.FromInt32(1), perRack, func(b *v1alpha1.NodeDisruptionBudget) { b.Spec.NodeSelector.MatchLabels = pool }),
	}
	var rems []string
	for i := range 12 {
		labels := map[string]string{"topology.example.com/rack": fmt.Sprintf("r%d", i%3), "pool": "gpu"}
		if i >= 8 {
			delete(labels, "pool")
		}
		node := newNode(fmt.Sprintf("n%d", i), labels)
		if w.random.IntN(6) == 0 {
			notReadyNode(node)
		}
		rem := newRemediation(node)
		rems = append(rems, rem.Name)
		objects = append(objects, node, rem)
	}
	w.api = newAPI(t, objects...)
	for i := range 2 {
		a := &actor{world: w, resume: make(chan struct{}), arrived: make(chan bool)}
		a.keeper = NewKeeper(Options{Client: a.writer(), Live: a.live(), Now: func() time.Time { return start }})
		for j, rem := range rems {
			if j%2 == i {
				a.rems = append(a.rems, rem)
			}
		}
		a.refresh()
		w.actors = append(w.actors, a)
	}
	return w
}

var pool = map[string]string{"pool": "gpu"}

// run lets the actors take turns until all have ended or something is wrong, and gives what is.
func (w *world) run(turns int) string {
	for i, a := range w.actors {
		go a.work(turns, rand.New(rand.NewPCG(w.random.Uint64(), uint64(i))))
	}
	waiting := w.actors
	for _, a := range w.actors {
		<-a.arrived
	}
	for len(waiting) > 0 {
		i := w.random.IntN(len(waiting))
		if w.random.IntN(40) == 0 {
			w.recreate()
		}
		waiting[i].resume <- struct{}{}
		if !<-waiting[i].arrived {
			waiting = append(waiting[:i:i], waiting[i+1:]...)
		}
	}
	return w.problem
}

// recreate deletes a budget and creates it again, as a human with a tool does: its status is gone.
func (w *world) recreate() {
	ctx := w.t.Context()
	b := &v1alpha1.NodeDisruptionBudget{}
	if err := w.api.Get(ctx, client.ObjectKey{Name: []string{"fleet", "per-rack"}[w.random.IntN(2)]}, b); err != nil {
		w.t.Fatal(err)
	}
	if err := w.api.Delete(ctx, b); err != nil {
		w.t.Fatal(err)
	}
	again := newBudget(b.Name, *b.Spec.MaxUnavailable)
	again.Spec = b.Spec
	if err := w.api.Create(ctx, again); err != nil {
		w.t.Fatal(err)
	}
}

// seeds is how many orders are tried; ROUNDHOUSE_SEEDS asks for more.
func seeds(t *testing.T) uint64 {
	t.Helper()
	text, ok := os.LookupEnv("ROUNDHOUSE_SEEDS")
	if !ok {
		return 8
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("ROUNDHOUSE_SEEDS: %v", err)
	}
	return n
}

func TestNoInterleavingOverspendsABudget(t *testing.T) {
	var acts, refusals, lost, kills int
	for seed := range seeds(t) {
		w := newWorld(t, seed)
		if problem := w.run(25); problem != "" {
			t.Fatalf("seed %d: %s", seed, problem)
		}
		acts, refusals, lost, kills = acts+w.acts, refusals+w.refusals, lost+w.lost, kills+w.kills
	}
	t.Logf("%d acts, %d refusals, %d slots lost before the act, %d kills", acts, refusals, lost, kills)
	if acts == 0 || refusals == 0 || kills == 0 {
		t.Error("nothing happened: the property test proves nothing")
	}
}

func TestAKeeperThatDoesNotCompareIsCaughtOverspending(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(t, seed)
		w.brokenSwap = true
		if problem := w.run(25); problem != "" {
			t.Logf("seed %d: %s", seed, problem)
			return
		}
	}
	t.Fatal("no seed overspends without the comparison: the property test proves nothing")
}
