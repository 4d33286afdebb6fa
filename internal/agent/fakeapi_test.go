package agent

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// server is an API server in memory with one Node and one NodeHealth. It keeps what it stores as JSON, so that nothing
// is shared with the agent and times lose what they lose on the wire.
type server struct {
	mu      sync.Mutex
	version int
	health  []byte
	node    corev1.Node
	holds   []v1alpha1.RemediationHold
	// before is asked before each call, by name; its error is the call's. after is asked when the call has been done.
	before, after func(call string) error
	calls         []string
	// oldCRD keeps nothing that came later.
	oldCRD   bool
	watchers []*watch.FakeWatcher
}

var _ API = (*server)(nil)

var resource = schema.GroupResource{Group: "roundhouse.dev", Resource: "nodehealths"}

func newServer(nodeUID string) *server {
	s := &server{version: 100}
	s.node = corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-1", UID: types.UID(nodeUID), Labels: map[string]string{"pool": "a"}}}
	s.store(&v1alpha1.NodeHealth{
		ObjectMeta: metav1.ObjectMeta{Name: "gpu-1", UID: "nh-1"},
		Spec:       v1alpha1.NodeHealthSpec{NodeUID: nodeUID},
	})
	return s
}

func (s *server) call(name string) error {
	s.mu.Lock()
	s.calls = append(s.calls, name)
	before := s.before
	s.mu.Unlock()
	if before != nil {
		return before(name)
	}
	return nil
}

func (s *server) done(name string) error {
	s.mu.Lock()
	after := s.after
	s.mu.Unlock()
	if after != nil {
		return after(name)
	}
	return nil
}

// store keeps h under the next version.
func (s *server) store(h *v1alpha1.NodeHealth) {
	s.version++
	h.ResourceVersion = strconv.Itoa(s.version)
	data, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	s.health = data
	for _, w := range s.watchers {
		w.Modify(s.load())
	}
}

func (s *server) load() *v1alpha1.NodeHealth {
	h := &v1alpha1.NodeHealth{}
	if err := json.Unmarshal(s.health, h); err != nil {
		panic(err)
	}
	return h
}

// get is what is stored, for the test.
func (s *server) get() *v1alpha1.NodeHealth {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load()
}

// ask is the controller: it changes the spec and raises the fence.
func (s *server) ask(change func(*v1alpha1.NodeHealthSpec)) *v1alpha1.NodeHealth {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.load()
	h.Spec.Fence++
	change(&h.Spec)
	s.store(h)
	return s.load()
}

func (s *server) Health(context.Context) (*v1alpha1.NodeHealth, error) {
	if err := s.call("get nodehealth"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.health == nil {
		return nil, apierrors.NewNotFound(resource, "gpu-1")
	}
	return s.load(), nil
}

func (s *server) PutStatus(_ context.Context, h *v1alpha1.NodeHealth) (*v1alpha1.NodeHealth, error) {
	if err := s.call("put status"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if s.health == nil {
		s.mu.Unlock()
		return nil, apierrors.NewNotFound(resource, "gpu-1")
	}
	stored := s.load()
	if stored.ResourceVersion != h.ResourceVersion || stored.UID != h.UID {
		s.mu.Unlock()
		return nil, apierrors.NewConflict(resource, h.Name, nil)
	}
	stored.Status = h.Status
	if s.oldCRD {
		stored.Status.Holders, stored.Status.HoldersAt, stored.Status.HoldersUnknown = nil, nil, ""
	}
	s.store(stored)
	out := s.load()
	s.mu.Unlock()
	return out, s.done("put status")
}

func (s *server) Watch(context.Context) (watch.Interface, error) {
	if err := s.call("watch"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := watch.NewFakeWithChanSize(256, false)
	if s.health != nil {
		w.Add(s.load())
	}
	s.watchers = append(s.watchers, w)
	return w, nil
}

func (s *server) Node(context.Context) (*corev1.Node, error) {
	if err := s.call("get node"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node.DeepCopy(), nil
}

func (s *server) PatchCondition(_ context.Context, uid string, c corev1.NodeCondition) error {
	if err := s.call("patch condition"); err != nil {
		return err
	}
	s.mu.Lock()
	if uid != string(s.node.UID) {
		s.mu.Unlock()
		return apierrors.NewConflict(schema.GroupResource{Resource: "nodes"}, "gpu-1", nil)
	}
	conditions := s.node.Status.Conditions
	s.node.Status.Conditions = []corev1.NodeCondition{c}
	for _, other := range conditions {
		if other.Type != c.Type {
			s.node.Status.Conditions = append(s.node.Status.Conditions, other)
		}
	}
	s.mu.Unlock()
	return s.done("patch condition")
}

func (s *server) Holds(context.Context) ([]v1alpha1.RemediationHold, error) {
	if err := s.call("list holds"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]v1alpha1.RemediationHold(nil), s.holds...), nil
}

// count counts the calls of these names.
func (s *server) count(names ...string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	count := 0
	for _, call := range s.calls {
		for _, name := range names {
			if call == name {
				count++
			}
		}
	}
	return count
}

// writes counts what changed something.
func (s *server) writes() int { return s.count("put status", "patch condition") }

// condition is our condition of the Node.
func (s *server) condition() corev1.NodeCondition {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.node.Status.Conditions {
		if c.Type == v1alpha1.ConditionHealthy {
			return c
		}
	}
	return corev1.NodeCondition{}
}
