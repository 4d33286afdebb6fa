// Package sandbox puts a whole cluster together on one machine: a real control plane, Roundhouse's own objects, a
// simulated fleet with real agents, and the real controller as a process of its own that can be killed and frozen.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

const (
	// stopTimeout bounds the clean-up after a start that failed.
	stopTimeout = 15 * time.Second
	// killTimeout bounds the end of one controller.
	killTimeout = 5 * time.Second
	// memoryBase and memoryPerNode are the soft limit of the memory of each component with a large fleet.
	memoryBase    = 2 << 30
	memoryPerNode = 150 << 10
	// maxExited bounds what Exited keeps for a reader that is slow.
	maxExited = 16
)

// Sandbox is a running cluster. Its methods may be called concurrently.
type Sandbox struct {
	o                Options
	dir              string
	ownsDir          bool
	controllerBinary string
	began            time.Time

	cp     *controlplane.ControlPlane
	kube   kubernetes.Interface
	client client.WithWatch
	fleet  *fleet.Fleet
	exited chan error
	door   *door // nil without a StateDir

	mu          sync.Mutex
	controllers []*Controller
	started     int

	stopping chan struct{}
	stopOnce sync.Once
	stopErr  error
}

// Start brings everything up and returns once every node is Ready and, where there is a controller, its agent has
// reported. ctx bounds the start only; afterwards the sandbox runs until Stop. When Start fails it leaves nothing running.
func Start(ctx context.Context, o Options) (*Sandbox, error) {
	s := &Sandbox{o: o.withDefaults(), began: time.Now(), exited: make(chan error, maxExited), stopping: make(chan struct{})}
	if err := s.bringUp(ctx); err != nil {
		// The caller's context may be what ended the start; the clean-up still has to run.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("starting the sandbox: %w", err), s.Stop(clean))
	}
	return s, nil
}

// bringUp starts one thing after another.
func (s *Sandbox) bringUp(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	if err := s.startControlPlane(ctx); err != nil {
		return err
	}
	s.tell(stageObjects, 0, 1)
	if err := s.cp.Apply(ctx, config.Files, "crd", "rbac", "admission"); err != nil {
		return fmt.Errorf("installing Roundhouse's objects: %w", err)
	}
	s.tell(stageObjects, 1, 1)
	// A fleet that has run before is there before its controller.
	steps := []func(context.Context) error{s.startControllers, s.startFleet}
	if s.o.Fleet.Seeded() {
		slices.Reverse(steps)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return s.announce(ctx)
}

// startControllers starts as many as were asked for.
func (s *Sandbox) startControllers(ctx context.Context) error {
	for i := range s.o.Controllers {
		s.tell(stageController, i, s.o.Controllers)
		if _, err := s.StartController(ctx); err != nil {
			return err
		}
	}
	return nil
}

// startFleet starts the fleet, and waits for its agents if anybody gives them something to write to.
func (s *Sandbox) startFleet(ctx context.Context) error {
	made := s.o.Fleet
	made.Progress = s.tell
	made.Logger = s.o.Logger
	var err error
	if s.fleet, err = fleet.Start(ctx, s.cp.AdminConfig(), made); err != nil {
		return err
	}
	if s.o.Controllers > 0 || made.Seeded() {
		return s.fleet.WaitReporting(ctx)
	}
	return nil
}

// prepare finds what is needed and makes the directory.
func (s *Sandbox) prepare() error {
	var err error
	if s.o.Controllers > 0 {
		if s.controllerBinary, err = findBinary(s.o.BinDir, controllerBinary); err != nil {
			return err
		}
	}
	if s.o.Dir == "" {
		s.ownsDir = true
		s.dir, err = os.MkdirTemp("", "roundhouse-sandbox-")
	} else {
		s.dir, err = filepath.Abs(s.o.Dir)
		err = errors.Join(err, os.MkdirAll(s.dir, 0o700))
	}
	if err != nil {
		return fmt.Errorf("making the sandbox's directory: %w", err)
	}
	return nil
}

// startControlPlane starts it with what a fleet of this size needs, and makes the clients.
func (s *Sandbox) startControlPlane(ctx context.Context) error {
	many := s.o.Fleet.Many()
	options := controlplane.Options{
		Dir: filepath.Join(s.dir, "controlplane"), WithScheduler: true, WithControllerManager: true,
		// It writes to each node once, and tells nobody anything that the simulated kubelets do not.
		WithoutNodeLifecycle: many,
		TokenMaxExpiration:   tokenLife,
		ExtraArgs:            map[controlplane.Component]map[string]string{controlplane.APIServer: s.o.APIServerArgs},
		Progress:             func(p controlplane.Progress) { s.tell(stageControlPlane, p.Ready, p.Of) },
	}
	if s.o.Fleet.EvictionRequests {
		options.FeatureGates = map[string]bool{"EvictionRequestAPI": true}
		options.RuntimeConfig = map[string]bool{"lifecycle.k8s.io/v1alpha1": true}
	}
	if many {
		// Memory for the time that it saves, as far as there is some: a third of the API server's time goes into collecting
		// garbage, and 30,000 nodes of eight GPUs are three GiB that are not.
		limit := memoryBase + int64(s.o.Fleet.Nodes)*memoryPerNode
		options.Env = []string{"GOGC=300", "GOMEMLIMIT=" + strconv.FormatInt(limit, 10)}
	}
	if s.o.BinDir != "" {
		options.Binary = filepath.Join(s.o.BinDir, "roundhouse-controlplane")
	}
	s.tell(stageControlPlane, 0, 1)
	var err error
	if s.cp, err = controlplane.Start(ctx, options); err != nil {
		return err
	}
	if s.kube, err = kubernetes.NewForConfig(s.AdminConfig()); err != nil {
		return fmt.Errorf("making the administrator's client: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return fmt.Errorf("making the administrator's client: %w", err)
	}
	if s.client, err = client.NewWithWatch(s.AdminConfig(), client.Options{Scheme: scheme}); err != nil {
		return fmt.Errorf("making the administrator's client: %w", err)
	}
	go s.relay()
	return s.cp.WriteKubeconfig(s.Kubeconfig())
}

// relay hands on the ends of components that nobody asked for.
func (s *Sandbox) relay() {
	for {
		select {
		case <-s.stopping:
			return
		case err := <-s.cp.Exited():
			select {
			case s.exited <- err:
			default: // nobody listens, and the first ones say enough
			}
		}
	}
}

// Stop ends everything and removes what Start wrote; of a directory that the caller named, the logs stay. It may be
// called more than once.
func (s *Sandbox) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { s.stopErr = s.stop(ctx) })
	return s.stopErr
}

func (s *Sandbox) stop(ctx context.Context) error {
	close(s.stopping)
	var errs []error
	if s.door != nil {
		errs = append(errs, s.door.close())
	}
	kill, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTimeout)
	defer cancel()
	for _, c := range s.Controllers() {
		errs = append(errs, c.Kill(kill))
	}
	if s.fleet != nil {
		errs = append(errs, s.fleet.Stop())
	}
	if s.cp != nil {
		errs = append(errs, s.cp.Stop(ctx))
	}
	return errors.Join(append(errs, s.removeFiles())...)
}

// removeFiles removes the directory, or of a caller's directory all that holds a credential.
func (s *Sandbox) removeFiles() error {
	if s.dir == "" {
		return nil
	}
	if s.ownsDir {
		if err := os.RemoveAll(s.dir); err != nil {
			return fmt.Errorf("removing the sandbox's directory: %w", err)
		}
		return nil
	}
	secrets, err := filepath.Glob(filepath.Join(s.dir, "*kubeconfig"))
	if err != nil {
		return fmt.Errorf("removing what the sandbox wrote: %w", err)
	}
	var errs []error
	for _, path := range secrets {
		if err := os.Remove(path); err != nil {
			errs = append(errs, fmt.Errorf("removing what the sandbox wrote: %w", err))
		}
	}
	return errors.Join(errs...)
}

// ControlPlane is the control plane.
func (s *Sandbox) ControlPlane() *controlplane.ControlPlane { return s.cp }

// Fleet is the simulated fleet.
func (s *Sandbox) Fleet() *fleet.Fleet { return s.fleet }

// AdminConfig is an administrator's client configuration.
func (s *Sandbox) AdminConfig() *rest.Config { return s.cp.AdminConfig() }

// Kube is an administrator's client of Kubernetes' own kinds.
func (s *Sandbox) Kube() kubernetes.Interface { return s.kube }

// Client is an administrator's client of every kind, Roundhouse's included. It reads live, never from a cache.
func (s *Sandbox) Client() client.WithWatch { return s.client }

// Kubeconfig is the path of an administrator's kubeconfig.
func (s *Sandbox) Kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// Dir is where logs are.
func (s *Sandbox) Dir() string { return s.dir }

// Ready is the time from the call of Start until now, for whoever says how long it took.
func (s *Sandbox) Ready() time.Duration { return time.Since(s.began) }

// Exited yields an error for each process of the control plane, and each controller, that ended although nobody asked.
func (s *Sandbox) Exited() <-chan error { return s.exited }
