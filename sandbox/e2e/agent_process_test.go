package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// maxResident is what an agent may keep resident.
const maxResident = 20 << 20

// TestAgentProcess runs the agent as it is installed, a static binary with a token in a file, on the machine that the test
// runs on: it becomes ready, says what it sees, stays small, and ends when it is told to.
func TestAgentProcess(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	s.addNode(t, "here")
	s.addPod(t, config.Namespace, "agent-here", config.AgentServiceAccount, "here")
	p := s.startAgentBinary(t, "here")
	admin, err := agent.NewClient(s.AdminConfig(), nil, "here")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() error { return p.get("/readyz", nil) })
	eventually(t, "published", func() error {
		h, err := admin.Health(t.Context())
		if err != nil {
			return err
		}
		if h.Status.Summary == "" || h.Status.BootID == "" || len(h.Status.Boots) == 0 {
			return fmt.Errorf("status is %+v", h.Status)
		}
		t.Logf("this machine is %s: checks not passing %+v", h.Status.Summary, h.Status.Checks)
		return nil
	})
	if err := p.get("/healthz", nil); err != nil {
		t.Error(err)
	}
	// The write is in the API before the agent has its answer, and counts it.
	eventually(t, "counted", func() error {
		var metrics bytes.Buffer
		if err := p.get("/metrics", &metrics); err != nil {
			return err
		}
		for _, want := range []string{
			"roundhouse_agent_ready 1", "roundhouse_agent_accepts_injected_kernel_lines 1",
			`roundhouse_agent_writes_total{object="nodehealths/status",result="ok"}`,
		} {
			if !strings.Contains(metrics.String(), want) {
				return fmt.Errorf("metrics lack %s:\n%s", want, metrics.String())
			}
		}
		return nil
	})
	s.checkRealLine(t, p, admin)
	time.Sleep(5 * time.Second)
	p.checkResident(t)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("did not end within 10s of SIGTERM")
	}
}

// agentProcess is a running agent.
type agentProcess struct {
	cmd   *exec.Cmd
	base  string
	log   *lockedBuffer
	ended chan error
}

// lockedBuffer is a buffer that a process may write while the test reads.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startAgentBinary builds and starts the agent of a node.
func (s *apiServer) startAgentBinary(t *testing.T, node string) *agentProcess {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "roundhouse-agent")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/roundhouse-dev/roundhouse/cmd/roundhouse-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	restConfig, err := s.ServiceAccountConfig(t.Context(), config.Namespace, config.AgentServiceAccount, controlplane.ToPod("agent-"+node))
	if err != nil {
		t.Fatal(err)
	}
	ca, token := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	for path, data := range map[string][]byte{ca: restConfig.CAData, token: []byte(restConfig.BearerToken)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &agentProcess{log: &lockedBuffer{}, ended: make(chan error, 1)}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), binary,
		"-node-name", node, "-server", restConfig.Host, "-ca-file", ca, "-token-file", token, "-observe-only",
		"-state-dir", filepath.Join(dir, "state"), "-metrics-bind", "127.0.0.1:0", "-accept-injected-kernel-lines")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("the agent's log:\n%s", p.log)
		}
	})
	eventually(t, "the agent listens", func() error {
		_, rest, ok := strings.Cut(p.log.String(), `"address":"`)
		if !ok {
			return fmt.Errorf("log is %s", p.log)
		}
		address, _, _ := strings.Cut(rest, `"`)
		p.base = "http://" + address
		return nil
	})
	return p
}

// get asks the agent's own server.
func (p *agentProcess) get(path string, into io.Writer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if into == nil {
		into = io.Discard
	}
	if _, err := io.Copy(into, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, response.Status)
	}
	return nil
}

// checkResident reads what the kernel counts as resident.
func (p *agentProcess) checkResident(t *testing.T) {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		for _, field := range []string{"VmHWM:", "VmRSS:", "RssAnon:", "RssFile:"} {
			value, ok := strings.CutPrefix(line, field)
			if !ok {
				continue
			}
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s %.1f MiB", field, float64(kib)/1024)
			if field == "VmRSS:" && kib<<10 > maxResident {
				t.Errorf("resident: %d KiB, want at most %d", kib, maxResident>>10)
			}
		}
	}
}

// checkRealLine writes a line to the machine's own kernel log, as a process can, and waits for the fault.
func (s *apiServer) checkRealLine(t *testing.T, p *agentProcess, admin *agent.Client) {
	t.Helper()
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Logf("not tried: this machine lets nobody write its kernel log: %v", err)
		return
	}
	defer kmsg.Close()
	if h, err := admin.Health(t.Context()); err != nil || h.Status.FaultsDropped > 0 || len(h.Status.Faults) > 60 {
		t.Logf("not tried: this machine's kernel log is full of other tests' lines (%v)", err)
		return
	}
	// An address that no other test, and no earlier run, has used.
	device := fmt.Sprintf("%04x:%02x:00", os.Getpid()&0xffff, time.Now().Second())
	began := time.Now()
	if _, err := kmsg.WriteString("NVRM: Xid (PCI:" + device + "): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"); err != nil {
		t.Logf("not tried: this machine lets nobody write its kernel log: %v", err)
		return
	}
	eventually(t, "the line is a fault", func() error {
		h, err := admin.Health(t.Context())
		if err != nil {
			return err
		}
		for _, f := range h.Status.Faults {
			if f.Code == "Xid79" && f.Device == "pci-"+device+".0" && h.Status.Summary == v1alpha1.SummaryFaulty {
				t.Logf("/dev/kmsg to fault in the API: %s (polled; upper bound)", time.Since(began))
				return nil
			}
		}
		return fmt.Errorf("status is %+v; log %s", h.Status, p.log)
	})
}
