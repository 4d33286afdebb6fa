package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// offTheBus is what the driver says of the second GPU of fake.H200s.
const offTheBus = "NVRM: Xid (PCI:0000:28:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."

// agentNode is a node whose machine is a fake, and whose agent, credential and API server are real.
type agentNode struct {
	*apiServer
	t       *testing.T
	name    string
	machine *fake.Machine
	admin   *agent.Client
}

func (s *apiServer) addAgentNode(t *testing.T, name string, seed uint32) *agentNode {
	t.Helper()
	s.addNode(t, name)
	s.addPod(t, config.Namespace, "agent-"+name, config.AgentServiceAccount, name)
	admin, err := agent.NewClient(s.AdminConfig(), nil, name)
	if err != nil {
		t.Fatal(err)
	}
	return &agentNode{
		apiServer: s, t: t, name: name, admin: admin,
		machine: fake.New(fake.Options{
			Hostname: name, Devices: fake.H200s(8, seed), BootID: fmt.Sprintf("%08x-6980-4f05-acf8-5f6c56122bb4", seed),
			RebootTakes: 300 * time.Millisecond,
		}),
	}
}

// process starts a process of the agent. It runs until it is stopped, or until it has made its last write: what comes of
// that write it does not learn, and whatever it asks for after that reaches nobody.
func (n *agentNode) process(lastWrite int) *process {
	n.t.Helper()
	ctx, cancel := context.WithCancel(logr.NewContext(n.t.Context(), logr.Discard()))
	p := &process{left: lastWrite, kill: cancel, died: ctx.Done(), gone: make(chan struct{})}
	restConfig, err := n.ServiceAccountConfig(ctx, config.Namespace, config.AgentServiceAccount, controlplane.ToPod("agent-"+n.name))
	if err != nil {
		n.t.Fatal(err)
	}
	restConfig.Wrap(p.wrap)
	api, err := agent.NewClient(restConfig, nil, n.name)
	if err != nil {
		n.t.Fatal(err)
	}
	node, err := agent.New(agent.Options{
		Name: n.name, Version: "test", Machine: n.machine, API: api, ClearAfter: time.Second,
		Checks: func() []agent.Scheduled {
			log := kernellog.New(kernellog.Options{Machine: n.machine})
			return []agent.Scheduled{
				{Check: log, Every: time.Second},
				{Check: pci.New(pci.Options{Machine: n.machine, UUID: log.UUID}), Every: time.Second},
			}
		},
		Executors: map[v1alpha1.ActionType]agent.Executor{v1alpha1.ActionReboot: reboot.New(n.machine)},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	go func() {
		defer close(p.gone)
		if err := node.Run(ctx); err != nil {
			n.t.Error(err)
		}
	}()
	n.t.Cleanup(p.stop)
	return p
}

// process is one life of an agent.
type process struct {
	mu     sync.Mutex
	left   int
	writes []string
	dead   bool
	kill   context.CancelFunc
	died   <-chan struct{}
	gone   chan struct{}
}

var errKilled = errors.New("the process was killed")

func (p *process) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		p.mu.Lock()
		dead := p.dead
		p.mu.Unlock()
		if dead {
			return nil, errKilled
		}
		response, err := next.RoundTrip(r)
		if r.Method == http.MethodGet {
			return response, err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.writes = append(p.writes, r.Method+" "+r.URL.Path)
		if p.left--; p.left != 0 {
			return response, err
		}
		p.dead = true
		p.kill()
		if err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		return nil, errKilled
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// made is the writes so far.
func (p *process) made() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.writes)
}

func (p *process) stop() {
	p.kill()
	<-p.gone
}

// health is the NodeHealth now.
func (n *agentNode) health() *v1alpha1.NodeHealth {
	n.t.Helper()
	h, err := n.admin.Health(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return h
}

// await waits until the NodeHealth is as it should be.
func (n *agentNode) await(what string, is func(*v1alpha1.NodeHealth) bool) *v1alpha1.NodeHealth {
	n.t.Helper()
	var h *v1alpha1.NodeHealth
	eventually(n.t, what, func() error {
		if h = n.health(); is(h) {
			return nil
		}
		return fmt.Errorf("status is %+v, action %+v", h.Status, h.Status.Action)
	})
	return h
}

func (n *agentNode) awaitSummary(want v1alpha1.Summary) *v1alpha1.NodeHealth {
	n.t.Helper()
	return n.await("summary "+string(want), func(h *v1alpha1.NodeHealth) bool { return h.Status.Summary == want })
}

// ask is the controller asking for a reboot.
func (n *agentNode) ask(id string) {
	n.t.Helper()
	call{http.MethodPatch, nodeHealths + n.name, fmt.Sprintf(
		`{"spec":{"fence":2,"action":{"id":%q,"type":"Reboot","bootID":%q,"notAfter":%q}}}`,
		id, n.health().Status.BootID, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))}.must(n.t, n.core)
}

// awaitRepaired waits for the whole of what follows a reboot.
func (n *agentNode) awaitRepaired(id string) {
	n.t.Helper()
	h := n.await("repaired", func(h *v1alpha1.NodeHealth) bool {
		a, r := h.Status.Action, h.Status.CompletedRound
		return a != nil && a.State == v1alpha1.ActionDone && r != nil && r.AfterAction == id &&
			r.BootID == h.Status.BootID && h.Status.Summary == v1alpha1.SummaryHealthy
	})
	if a := h.Status.Action; a.ID != id || a.Result != v1alpha1.ResultSucceeded {
		n.t.Errorf("answer is %+v", a)
	}
	if got := n.machine.Reboots(); got != 1 {
		n.t.Errorf("got %d reboots", got)
	}
	boot := h.Status.Boots[len(h.Status.Boots)-1]
	if boot.Cause != v1alpha1.BootByRoundhouse || boot.Action != id {
		n.t.Errorf("last boot is %+v", boot)
	}
}

func (n *agentNode) condition() corev1.NodeCondition {
	n.t.Helper()
	node, err := n.core.CoreV1().Nodes().Get(n.t.Context(), n.name, metav1.GetOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == v1alpha1.ConditionHealthy {
			return c
		}
	}
	return corev1.NodeCondition{}
}

// TestAgent follows one node from a kernel line to the end of its repair, with the agent's own credential under the
// admission policy.
func TestAgent(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	s.addNode(t, "node-a")
	s.addNode(t, "node-b")
	n := s.addAgentNode(t, "gpu-0", 1)
	s.addPod(t, config.Namespace, "agent-a", config.AgentServiceAccount, "node-a")
	waitForPolicy(t, s.serviceAccount(t, config.AgentServiceAccount, controlplane.ToPod("agent-a")))
	p := n.process(0)
	h := n.awaitSummary(v1alpha1.SummaryHealthy)
	if len(h.Status.Devices) != 8 {
		t.Errorf("got %d devices", len(h.Status.Devices))
	}

	began := time.Now()
	n.machine.Kernel(offTheBus)
	h = n.awaitFault(began)
	if f := h.Status.Faults[0]; f.Code != "Xid79" || f.Recommended != v1alpha1.RecommendReboot || f.Device != h.Status.Devices[1].ID {
		t.Errorf("first fault is %+v", f)
	}
	eventually(t, "the Node condition", func() error {
		if c := n.condition(); c.Status != corev1.ConditionFalse || c.Reason != "Xid79" {
			return fmt.Errorf("condition is %+v", c)
		}
		return nil
	})
	writes := len(p.made())
	time.Sleep(3 * time.Second)
	if got := p.made()[writes:]; len(got) != 0 {
		t.Errorf("writes while nothing changed: %v", got)
	}
	n.ask("gpu-0-1")
	n.awaitRepaired("gpu-0-1")
	t.Logf("%d writes for a fault and its repair: %v", len(p.made()), p.made())
}

// awaitFault polls quickly, to see how long a line takes.
func (n *agentNode) awaitFault(began time.Time) *v1alpha1.NodeHealth {
	n.t.Helper()
	for {
		if h := n.health(); h.Status.Summary == v1alpha1.SummaryFaulty {
			n.t.Logf("kernel line to fault in the API: %s (polled; upper bound)", time.Since(began))
			return h
		}
		if time.Since(began) > 10*time.Second {
			n.t.Fatal("the fault is not in the API after 10s")
		}
	}
}

// TestAgentKilledBetweenAnyTwoWrites kills the agent after its first write, its second, and so on until a life has seen
// the whole repair, and starts it anew each time.
func TestAgentKilledBetweenAnyTwoWrites(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	const most = 30
	for k := 1; k <= most; k++ {
		survived := false
		t.Run(fmt.Sprintf("killed after write %d", k), func(t *testing.T) {
			n := s.addAgentNode(t, fmt.Sprintf("gpu-%d", k), uint32(k))
			n.machine.Break("0000:28:00.0", fake.Break{Kind: fake.Dead, HealsAfterBoots: 1})
			n.machine.Kernel(offTheBus)
			first := n.process(k)
			asked := n.livesUntilAsked(first)
			if !asked {
				first = n.process(0)
				n.awaitSummary(v1alpha1.SummaryFaulty)
				n.ask("a-1")
			}
			n.outliveOrReplace(first)
			n.awaitRepaired("a-1")
			select {
			case <-first.died:
			default:
				if survived = asked; survived {
					t.Logf("survived with %d writes: %v", len(first.made()), first.made())
				}
			}
		})
		if survived {
			if k < 6 {
				t.Errorf("only %d writes: the test kills too little", k-1)
			}
			return
		}
	}
	t.Errorf("no life of %d writes saw the whole repair", most)
}

// livesUntilAsked waits for the fault and asks for the reboot; false when the process died before that.
func (n *agentNode) livesUntilAsked(p *process) bool {
	n.t.Helper()
	for {
		select {
		case <-p.died:
			return false
		case <-time.After(20 * time.Millisecond):
			if h := n.health(); h.Status.Summary == v1alpha1.SummaryFaulty && n.condition().Status == corev1.ConditionFalse {
				n.ask("a-1")
				return true
			}
		}
	}
}

// outliveOrReplace starts a new process when this one has died, and returns when the action is over otherwise.
func (n *agentNode) outliveOrReplace(p *process) {
	n.t.Helper()
	for {
		select {
		case <-p.died:
			<-p.gone
			n.process(0)
			return
		case <-time.After(20 * time.Millisecond):
			h := n.health()
			if r := h.Status.CompletedRound; r != nil && r.AfterAction == "a-1" && h.Status.Summary == v1alpha1.SummaryHealthy {
				return
			}
		}
	}
}
