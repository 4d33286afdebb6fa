package sandbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/child"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

const (
	controllerBinary = "roundhouse-controller"
	// pollEvery is how often something that is waited for is asked for again.
	pollEvery = 50 * time.Millisecond
	// readyTimeout bounds the start of one controller.
	readyTimeout = time.Minute
)

// Controller is one process of the controller. After Kill a new one is started with [Sandbox.StartController].
type Controller struct {
	process  *child.Process
	identity string
	metrics  string
	asked    chan struct{} // closed when its end was asked for
}

// Identity is its name in the leader Lease.
func (c *Controller) Identity() string { return c.identity }

// PID is its process.
func (c *Controller) PID() int { return c.process.PID }

// LogPath is its log.
func (c *Controller) LogPath() string { return c.process.LogPath }

// MetricsURL is where it serves its metrics.
func (c *Controller) MetricsURL() string { return "http://" + c.metrics + "/metrics" }

// Alive says whether the process is there, frozen or not.
func (c *Controller) Alive() bool { return c.process.Alive() }

// Kill ends it at once, as a crash would (SIGKILL), and returns when it is gone. A frozen one dies too.
func (c *Controller) Kill(ctx context.Context) error {
	select {
	case <-c.asked:
	default:
		close(c.asked)
	}
	return c.process.Kill(ctx)
}

// Freeze stops it where it is (SIGSTOP).
func (c *Controller) Freeze() error { return c.process.Send(syscall.SIGSTOP) }

// Thaw lets it go on (SIGCONT).
func (c *Controller) Thaw() error { return c.process.Send(syscall.SIGCONT) }

// StartController starts one more controller, with the real service account's token, and returns once its process is
// ready; it need not lead.
func (s *Sandbox) StartController(ctx context.Context) (*Controller, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready after %s", readyTimeout))
	defer cancel()
	s.mu.Lock()
	s.started++
	number := s.started
	s.mu.Unlock()
	// A name of its own for each process: the fence tells a frozen one from its successor by it.
	identity := fmt.Sprintf("sandbox-%d-%s", number, strings.ToLower(rand.Text()[:6]))
	kubeconfig := filepath.Join(s.dir, identity+".kubeconfig")
	if err := s.writeControllerConfig(ctx, kubeconfig); err != nil {
		return nil, err
	}
	metrics, health, err := freeAddresses()
	if err != nil {
		return nil, err
	}
	lease := s.o.LeaseDuration
	args := append([]string{
		"--kubeconfig=" + kubeconfig, "--identity=" + identity, "--namespace=" + config.Namespace,
		"--metrics-bind=" + metrics, "--health-bind=" + health,
		"--lease-duration=" + lease.String(), "--renew-deadline=" + (lease * 2 / 3).String(), "--retry-period=" + (lease / 6).String(),
	}, s.o.ControllerArgs...)
	p, err := child.Start(child.Program{
		Name: "controller " + identity, Path: s.controllerBinary, Args: args,
		LogPath: filepath.Join(s.dir, "controller-"+fmt.Sprint(number)+".log"),
	})
	if err != nil {
		return nil, err
	}
	c := &Controller{process: p, identity: identity, metrics: metrics, asked: make(chan struct{})}
	s.mu.Lock()
	s.controllers = append(s.controllers, c)
	s.mu.Unlock()
	if err := p.WaitReady(ctx, http.DefaultClient, "http://"+health+"/readyz"); err != nil {
		return nil, fmt.Errorf("%w (stopping it: %w)", err, c.Kill(context.WithoutCancel(ctx)))
	}
	go s.watchController(c)
	return c, nil
}

// writeControllerConfig writes a kubeconfig with a token of the controller's service account.
func (s *Sandbox) writeControllerConfig(ctx context.Context, path string) error {
	made, err := s.cp.ServiceAccountConfig(ctx, config.Namespace, config.ControllerServiceAccount, controlplane.Binding{})
	if err != nil {
		return fmt.Errorf("making the controller's credential: %w", err)
	}
	const name = "roundhouse-controller"
	out := clientcmdapi.NewConfig()
	out.Clusters[name] = &clientcmdapi.Cluster{Server: made.Host, CertificateAuthorityData: made.CAData}
	out.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: made.BearerToken}
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	data, err := clientcmd.Write(*out)
	if err != nil {
		return fmt.Errorf("encoding the controller's kubeconfig: %w", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing the controller's kubeconfig: %w", err)
	}
	return nil
}

// watchController reports a controller that ends although nobody asked.
func (s *Sandbox) watchController(c *Controller) {
	<-c.process.Exited()
	select {
	case <-c.asked:
		return
	default:
	}
	select {
	case s.exited <- c.process.Failed(c.process.Ending()):
	default: // nobody listens, and the first ones say enough
	}
}

// Controllers lists those that are alive, in the order of their start.
func (s *Sandbox) Controllers() []*Controller {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.controllers), func(c *Controller) bool { return !c.Alive() })
}

// Leader is the controller that holds the leader Lease, frozen or not; nil when none that is alive does.
func (s *Sandbox) Leader(ctx context.Context) (*Controller, error) {
	lease, err := s.kube.CoordinationV1().Leases(config.Namespace).Get(ctx, config.LeaderLease, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the leader Lease: %w", err)
	}
	for _, c := range s.Controllers() {
		if holds(lease, c.identity) {
			return c, nil
		}
	}
	return nil, nil
}

func holds(lease *coordinationv1.Lease, identity string) bool {
	return lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity == identity
}

// WaitLeader waits until one of the controllers that are alive leads, and is not one of those excepted.
func (s *Sandbox) WaitLeader(ctx context.Context, except ...*Controller) (*Controller, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		c, err := s.Leader(ctx)
		if err != nil {
			return nil, err
		}
		if c != nil && !slices.Contains(except, c) {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a leader: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}
