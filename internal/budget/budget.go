// Package budget keeps NodeDisruptionBudgets: it takes and frees the slots without which nothing disruptive happens.
//
// A slot is an entry in a budget's status. It is taken by compare-and-swap on the live object, of every budget that
// selects the node, in the order of their names, so that no interleaving of two controllers, restarts or stale caches
// takes one beyond a budget. Slots that are asked for at the same time are taken, begun and freed in one swap. A node that no budget selects falls under the budget "implicit", which allows one, and
// nodes of the control plane under "control-plane" too, which allows one as well unless an administrator changes it.
package budget

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Reasons of a Verdict.
const (
	// ReasonGranted: every budget that selects the node has a slot for it.
	ReasonGranted = "BudgetGranted"
	// ReasonExhausted: as much as the budget allows is out.
	ReasonExhausted = "BudgetExhausted"
	// ReasonInvalid: a budget cannot be read, and grants nothing until it can.
	ReasonInvalid = "BudgetInvalid"
	// ReasonContended: others changed the budget each time we tried; nothing was taken.
	ReasonContended = "BudgetContended"
	// ReasonNodeChanged: the node is not the one the Remediation speaks of.
	ReasonNodeChanged = "NodeChanged"
)

// Verdict is the answer to asking for a slot.
type Verdict struct {
	Granted bool
	// Reason is one of the reasons above.
	Reason string
	// Budget names the budget that refused; empty where all granted.
	Budget string
	// Message says why in a sentence.
	Message string
	// WouldChange says what would make the answer another one.
	WouldChange string
}

// Options are what a Keeper works with.
type Options struct {
	// Client writes; its reads may come from a cache. Nodes and budgets must be among what it caches.
	Client client.Client
	// Live asks the API server.
	Live client.Reader
	// Now is the clock; time.Now without it.
	Now func() time.Time
	// DevicesOf says how many devices a node has; 0 where that is not known. Without it, extended resources whose
	// name ends in "gpu" are counted.
	DevicesOf func(node *corev1.Node) int32
	// Answered is told the reason of each answer, for metrics; nil tells nobody.
	Answered func(reason string)
	// NodesMaxAge is how long one list of the cached Nodes serves; 0 lists them each time.
	NodesMaxAge time.Duration
}

// Keeper takes and frees slots. All that counts is in the API; two may work on one cluster.
type Keeper struct {
	options Options
	memo    memo
	lists   lists
	swaps   swaps
}

// NewKeeper gives a Keeper.
func NewKeeper(options Options) *Keeper {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.DevicesOf == nil {
		options.DevicesOf = capacityOf
	}
	return &Keeper{options: options}
}

// Reserve takes a slot for the Remediation on every budget that selects the node, or on none. devices is how many devices
// are out while it acts. A slot that the same Remediation already holds stays and is not counted again.
//
// An exhausted budget is answered from the cache, at no cost: a stale cache can only put a slot off. A grant costs one
// live LIST and one write a budget, shared by all that are asked for at the same time.
func (k *Keeper) Reserve(ctx context.Context, node *corev1.Node, remediation *v1alpha1.Remediation, devices int32) (Verdict, error) {
	verdict, err := k.reserve(ctx, request{node: node, remediation: remediation, devices: devices})
	if err == nil && k.options.Answered != nil {
		k.options.Answered(verdict.Reason)
	}
	return verdict, err
}

// Begin is asked after the claim has been put on, before the first act: it says whether the Remediation holds a slot of every budget
// that selects the node, and writes so on each. Whoever was about to free a slot, or was giving a re-created budget its reservations,
// on what it had read before the claim, loses the swap to that write, and reads again.
func (k *Keeper) Begin(ctx context.Context, node *corev1.Node, remediation *v1alpha1.Remediation) (bool, error) {
	return k.begin(ctx, node, holderOf(remediation))
}

// Fresh is what the caller has from the API server of this moment, by a live read or as the answer to its own write. It is
// believed of a Remediation that is over: only such a one never acts again.
type Fresh struct {
	Remediation *v1alpha1.Remediation
	Node        *corev1.Node
}

// Release frees the slots of a Remediation. It reads live what is not in fresh, and fails with ErrActing where the
// Remediation acts or the Node still carries its claim: a slot outlives the act, never the other way round.
func (k *Keeper) Release(ctx context.Context, remediation *v1alpha1.Remediation, fresh Fresh) error {
	return k.release(ctx, holderOf(remediation), fresh)
}

// Held says, from a live read, whether the Remediation holds a slot of every budget that selects the node.
func (k *Keeper) Held(ctx context.Context, node *corev1.Node, remediation *v1alpha1.Remediation) (bool, error) {
	return k.held(ctx, node, holderOf(remediation))
}
