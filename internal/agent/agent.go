package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/clock"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// Machine is what the agent itself needs of the machine; the checks have their own ways in.
type Machine interface {
	// BootID is the kernel's boot ID.
	BootID(ctx context.Context) (string, error)
	// BootTime is when the kernel started.
	BootTime(ctx context.Context) (time.Time, error)
	// Load returns what was last saved under the name, or an error that is fs.ErrNotExist.
	Load(ctx context.Context, name string) ([]byte, error)
	// Save replaces what is stored under the name, atomically and durably.
	Save(ctx context.Context, name string, data []byte) error
}

// Executor carries out actions of one type.
type Executor interface {
	// Do carries the action out, once. For a reboot it returns only when none came, or when one has merely begun. An error
	// that is a *remedy.Refusal means that nothing was done.
	Do(ctx context.Context, action v1alpha1.Action) (remedy.Report, error)
}

// Scheduled is a check and its schedule.
type Scheduled struct {
	Check health.Check
	// Every is the time from the end of one look to the next; 30 s when zero.
	Every time.Duration
	// Timeout is when a look is given up; 10 s when zero.
	Timeout time.Duration
}

// Options configure a Node. Only Name, Machine, API and Checks have no default.
type Options struct {
	// Name is the name of the Node.
	Name string
	// Version is published as status.agentVersion.
	Version string
	// Machine is the machine.
	Machine Machine
	// API is the API server as this node may use it.
	API API
	// Checks makes the checks. It is called once a boot, because a check's memory is of one boot.
	Checks func() []Scheduled
	// Holdings says who holds the devices of device plugins. It is asked while a device is bad; nil says that nobody can tell.
	Holdings podresources.Lister
	// Parts are the MIG devices by UUID, and the UUID of the GPU that each is a part of; nil where nobody knows.
	Parts func() map[string]string
	// ResetDomains are names that are the same for devices that can only be reset together, by PCI address; nil where nobody
	// knows.
	ResetDomains func() map[string]string
	// Executors carry out what is in status.supportedActions.
	Executors map[v1alpha1.ActionType]Executor
	// DailyLimit is how many disruptive acts this host allows in 24 hours; 4 when zero, none when negative. It is the
	// host's: nothing in the API raises it.
	DailyLimit int
	// ClearAfter is how long what a look no longer sees stays published, so that a flapping signal is one fault; 30 s when
	// zero.
	ClearAfter time.Duration
	// WriteGap is the least time between two writes that are not urgent; 1 s when zero.
	WriteGap time.Duration
	// Clock is the clock; the real one when nil.
	Clock clock.Clock
	// Metrics takes what is counted; nil keeps nothing.
	Metrics *Metrics
}

const (
	defaultEvery      = 30 * time.Second
	defaultTimeout    = 10 * time.Second
	defaultDailyLimit = 4
	defaultClearAfter = 30 * time.Second
	defaultWriteGap   = time.Second
	// MaxChecks is the bound of status.checks.
	MaxChecks = 32
)

// Node is the agent of one node.
type Node struct {
	o     Options
	clock clock.Clock
	// poke wakes Run; a second poke before it wakes is the same poke.
	poke chan struct{}
	// stepping lets one sync at a time through: at most one write is in flight.
	stepping sync.Mutex
	// acts counts the executors at work.
	acts sync.WaitGroup

	mu      sync.Mutex
	boot    v1alpha1.Boot // the present boot; zero before begin
	journal journal
	// journalErr is why the journal cannot be used; acts are refused while it is set.
	journalErr error
	slots      []*slot
	completed  *v1alpha1.Round
	// health is the newest NodeHealth known; nil when there is none. It is never changed in place.
	health *v1alpha1.NodeHealth
	// askAt is when to ask for health while it is nil.
	askAt time.Time
	seen  time.Time // last sign of life of the watch
	// turnedAt is when the loop that writes last went round.
	turnedAt time.Time
	node     nodeFacts
	act      acting
	held     holding
	pub      publishing
	// fence is the highest fence seen of the object fenceOf.
	fence   int64
	fenceOf string
}

// nodeFacts is what the agent knows of its Node.
type nodeFacts struct {
	uid       string
	condition *corev1.NodeCondition
	readAt    time.Time
	labels    map[string]string
	offered   corev1.ResourceList
	// staleAt is when a check found these facts too old; zero when none has since they were read.
	staleAt time.Time
}

// publishing is the publisher's memory.
type publishing struct {
	// pending is since when there is something to write that could not be; zero when there is nothing.
	pending       time.Time
	lastWrite     time.Time
	lastCondition time.Time
	urgent        *rate.Limiter
	// retryAt is when the API server may be asked again after an error.
	retryAt  time.Time
	failures int
	// blocked is why nothing may be published; empty when it may.
	blocked string
}

// New returns the agent of a node. It asks nothing of anybody yet.
func New(o Options) (*Node, error) {
	if o.Name == "" || o.Machine == nil || o.API == nil || o.Checks == nil {
		return nil, fmt.Errorf("making an agent: name, machine, API and checks are needed")
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.DailyLimit == 0 {
		o.DailyLimit = defaultDailyLimit
	}
	if o.ClearAfter == 0 {
		o.ClearAfter = defaultClearAfter
	}
	if o.WriteGap == 0 {
		o.WriteGap = defaultWriteGap
	}
	if o.Metrics == nil {
		o.Metrics = &Metrics{}
	}
	return &Node{
		o:     o,
		clock: o.Clock,
		poke:  make(chan struct{}, 1),
		held:  holding{wake: make(chan struct{}, 1)},
		pub:   publishing{urgent: rate.NewLimiter(rate.Every(o.WriteGap), urgentBurst)},
	}, nil
}

// Step does what is due now, checks first, and returns when to call it again unless something happens before: Observe was
// called, or the machine changed, after which Wake makes every check due. ctx is the agent's life, not the step's; each
// request and each look has a deadline of its own. Steps of one Node take turns.
func (n *Node) Step(ctx context.Context) time.Time {
	n.stepping.Lock()
	defer n.stepping.Unlock()
	if err := n.begin(ctx); err != nil {
		logr.FromContextOrDiscard(ctx).V(1).Info("The machine does not answer", "node", n.o.Name, "error", err.Error())
		return n.clock.Now().Add(beginRetry)
	}
	n.mu.Lock()
	slots := slices.Clone(n.slots)
	n.mu.Unlock()
	next := n.clock.Now().Add(idle)
	for _, s := range slots {
		if due := n.dueAt(s); due.After(n.clock.Now()) {
			next = earlier(next, due)
			continue
		}
		n.look(ctx, s)
		next = earlier(next, n.dueAt(s))
	}
	next = earlier(next, n.sync(ctx))
	due, wanted := n.holdersDue()
	if wanted && !due.After(n.clock.Now()) {
		n.askHolders(ctx)
		next = earlier(next, n.sync(ctx))
		due, wanted = n.holdersDue()
	}
	if wanted {
		next = earlier(next, due)
	}
	return next
}

// Wake makes every check due.
func (n *Node) Wake() {
	n.mu.Lock()
	now := n.clock.Now()
	for _, s := range n.slots {
		s.due = now
	}
	n.mu.Unlock()
	n.nudge()
}

// nudge wakes Run.
func (n *Node) nudge() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// begin starts the agent in the present boot, and does nothing when it has done so already. It fails while the machine
// is down, which only a fake can be seen to be.
func (n *Node) begin(ctx context.Context) error {
	id, err := n.o.Machine.BootID(ctx)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	n.mu.Lock()
	same := n.boot.ID == id
	n.mu.Unlock()
	if same {
		return nil
	}
	at, err := n.o.Machine.BootTime(ctx)
	if err != nil {
		return fmt.Errorf("beginning: %w", err)
	}
	loadCtx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	j, journalErr := loadJournal(loadCtx, n.o.Machine)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closeChecksLocked(ctx)
	n.slots = nil
	for i, c := range n.o.Checks() {
		if i == MaxChecks {
			return fmt.Errorf("beginning: more than %d checks", MaxChecks)
		}
		n.slots = append(n.slots, newSlot(c, n.clock.Now()))
	}
	n.journal, n.journalErr = j, journalErr
	n.completed = nil
	n.act = acting{}
	n.held.want, n.held.said = nil, word{}
	n.bootedLocked(ctx, id, at)
	return nil
}

// bootedLocked records the present boot, and ends the act that the last boot left open.
func (n *Node) bootedLocked(ctx context.Context, id string, at time.Time) {
	before := n.journal.clone()
	n.journal.booted(id, at)
	n.boot = n.journal.Boots[len(n.journal.Boots)-1]
	if n.journalErr == nil && !n.journal.equal(before) {
		n.journalErr = n.saveJournal(ctx, n.journal)
	}
	if n.journalErr != nil {
		logr.FromContextOrDiscard(ctx).Error(n.journalErr, "The journal cannot be used; actions will be refused", "node", n.o.Name)
	}
}

func (n *Node) saveJournal(ctx context.Context, j journal) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return j.save(ctx, n.o.Machine)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
