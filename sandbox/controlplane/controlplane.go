package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/roundhouse-dev/roundhouse/sandbox/child"
)

// stopGrace is how long components may take to end by themselves before they are
// killed. It is short because nothing of value is lost: the data goes away with them.
const stopGrace = 250 * time.Millisecond

// cleanTimeout bounds the clean-up after a start that failed.
const cleanTimeout = 10 * time.Second

// startAttempts bounds how often Start begins again because another program took a
// port between the moment it was found free and the moment it was wanted.
const startAttempts = 3

// ControlPlane is a running control plane. Its methods may be called concurrently.
type ControlPlane struct {
	options Options
	dir     string
	ownsDir bool
	keys    *pki
	ports   ports
	admin   *rest.Config
	client  kubernetes.Interface
	began   time.Time

	mu        sync.Mutex
	processes []*process // in the order of their start
	ready     int        // how many of them are

	exited   chan error
	stopping chan struct{}
	stopOnce sync.Once
	stopErr  error
}

// Start brings up what options ask for and returns once all of it is ready. ctx
// bounds the start only; afterwards the control plane runs until Stop. When Start
// fails it leaves nothing running, and the error holds the end of the log of the
// component that did not become ready.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	options = options.withDefaults()
	if err := options.validate(); err != nil {
		return nil, fmt.Errorf("reading the control plane's options: %w", err)
	}
	binary, err := findBinary(options.Binary)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for attempt := 1; ; attempt++ {
		cp, err := start(ctx, binary, options, began)
		if err == nil {
			return cp, nil
		}
		if attempt == startAttempts || !portTaken(err) {
			return nil, fmt.Errorf("starting the control plane: %w", err)
		}
	}
}

// start is one attempt.
func start(ctx context.Context, binary string, options Options, began time.Time) (*ControlPlane, error) {
	cp := &ControlPlane{
		options:  options,
		began:    began,
		exited:   make(chan error, len(options.components())),
		stopping: make(chan struct{}),
	}
	if err := cp.bringUp(ctx, binary); err != nil {
		// The caller's context may be what ended the start; the clean-up still has to run.
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		return nil, errors.Join(err, cp.Stop(clean))
	}
	return cp, nil
}

// bringUp prepares the directory and starts the components.
func (cp *ControlPlane) bringUp(ctx context.Context, binary string) error {
	if err := cp.prepare(); err != nil {
		return err
	}
	// The API server spends its first second on itself, so etcd can start meanwhile.
	err := cp.startAll(ctx, binary, map[Component][]string{
		Etcd:      cp.flags(Etcd, etcdArgs(cp.path("etcd"), cp.keys, cp.ports)),
		APIServer: cp.flags(APIServer, apiServerArgs(cp.options, cp.keys, cp.ports)),
	})
	if err != nil {
		return err
	}
	rest, err := cp.clientArgs()
	if err != nil {
		return err
	}
	if err := cp.startAll(ctx, binary, rest); err != nil {
		return err
	}
	return cp.waitBootstrapped(ctx)
}

// prepare makes the directory, the keys, the ports and the administrator's client.
func (cp *ControlPlane) prepare() error {
	var err error
	if cp.options.Dir == "" {
		cp.ownsDir = true
		cp.dir, err = os.MkdirTemp("", "roundhouse-controlplane-")
	} else {
		cp.dir, err = filepath.Abs(cp.options.Dir)
		err = errors.Join(err, os.MkdirAll(cp.dir, 0o700))
	}
	if err != nil {
		return fmt.Errorf("making the control plane's directory: %w", err)
	}
	if cp.keys, err = newPKI(cp.path("keys"), time.Now()); err != nil {
		return err
	}
	if cp.ports, err = freePorts(); err != nil {
		return err
	}
	if cp.admin, err = cp.UserConfig("roundhouse-sandbox-admin", "system:masters"); err != nil {
		return err
	}
	if cp.client, err = kubernetes.NewForConfig(cp.admin); err != nil {
		return fmt.Errorf("making the administrator's client: %w", err)
	}
	return nil
}

// clientArgs writes the configurations of the components that are clients of the API
// server and returns the flags of those that were asked for.
func (cp *ControlPlane) clientArgs() (map[Component][]string, error) {
	out := map[Component][]string{}
	for _, component := range cp.options.components()[2:] {
		config, err := cp.UserConfig("system:" + string(component))
		if err != nil {
			return nil, err
		}
		kubeconfig := cp.path(string(component) + ".kubeconfig")
		if err := WriteKubeconfig(config, kubeconfig); err != nil {
			return nil, err
		}
		if component == ControllerManager {
			out[component] = cp.flags(component, controllerManagerArgs(cp.options, cp.keys, cp.ports, kubeconfig))
			continue
		}
		file := cp.path("scheduler-config.yaml")
		if err := os.WriteFile(file, schedulerConfig(kubeconfig), 0o600); err != nil {
			return nil, fmt.Errorf("writing the scheduler's configuration: %w", err)
		}
		out[component] = cp.flags(component, schedulerArgs(cp.options, cp.keys, cp.ports, kubeconfig, file))
	}
	return out, nil
}

func (cp *ControlPlane) flags(component Component, args map[string]string) []string {
	return flags(args, cp.options.ExtraArgs[component])
}

func (cp *ControlPlane) path(name string) string { return filepath.Join(cp.dir, name) }

// process is one running component.
type process struct {
	*child.Process
	component Component
}

// startAll launches several components and waits until each of them is ready.
func (cp *ControlPlane) startAll(ctx context.Context, binary string, args map[Component][]string) error {
	ctx, cancel := context.WithTimeout(ctx, cp.options.ReadyTimeout)
	defer cancel()
	results := make(chan error, len(args))
	for _, component := range cp.options.components() {
		flags, wanted := args[component]
		if !wanted {
			continue
		}
		running, err := child.Start(child.Program{
			Name: string(component), Path: binary, Args: append([]string{string(component)}, flags...),
			Env: cp.options.Env, LogPath: cp.LogPath(component),
		})
		if err != nil {
			return err
		}
		p := &process{Process: running, component: component}
		cp.mu.Lock()
		cp.processes = append(cp.processes, p)
		cp.mu.Unlock()
		go cp.watch(p)
		go func() { results <- cp.awaitReady(ctx, p) }()
	}
	for range args {
		// The first failure ends the wait for the others: they depend on it.
		if err := <-results; err != nil {
			return err
		}
	}
	return nil
}

// awaitReady waits for one component and reports its progress.
func (cp *ControlPlane) awaitReady(ctx context.Context, p *process) error {
	client, url, err := cp.health(p.component)
	if err != nil {
		return err
	}
	if err := p.WaitReady(ctx, client, url); err != nil {
		return err
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.ready++
	cp.options.Progress(Progress{
		Component:   p.component,
		Ready:       cp.ready,
		Of:          len(cp.options.components()),
		SinceStart:  time.Since(cp.began),
		SinceLaunch: time.Since(p.Launched),
	})
	return nil
}

// health returns where a component says that it is ready, and a client that it trusts.
func (cp *ControlPlane) health(component Component) (*http.Client, string, error) {
	config, url := cp.admin, ""
	switch component {
	case Etcd:
		url = loopback(cp.ports.etcdClient) + "/readyz"
		config = &rest.Config{TLSClientConfig: rest.TLSClientConfig{
			CAFile: cp.keys.file("etcd-ca.crt"), CertFile: cp.keys.file("etcd-client.crt"), KeyFile: cp.keys.file("etcd-client.key"),
		}}
	case APIServer:
		url = loopback(cp.ports.api) + "/readyz"
	case ControllerManager:
		url = loopback(cp.ports.controllerManager) + "/healthz"
	case Scheduler:
		url = loopback(cp.ports.scheduler) + "/readyz"
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, "", fmt.Errorf("making the client that asks whether %s is ready: %w", component, err)
	}
	return client, url, nil
}

// watch reports a component that ends before Stop was called.
func (cp *ControlPlane) watch(p *process) {
	select {
	case <-cp.stopping:
		return
	case <-p.Exited():
	}
	select {
	case <-cp.stopping: // both at once: it was told to
	default:
		cp.exited <- p.Failed(p.Ending()) // never blocks: one slot a component
	}
}

// Exited yields an error for each component that ends although Stop was not called.
func (cp *ControlPlane) Exited() <-chan error { return cp.exited }

// Dir is where keys, data and logs are.
func (cp *ControlPlane) Dir() string { return cp.dir }

// LogPath is the log file of a component.
func (cp *ControlPlane) LogPath(component Component) string {
	return cp.path(string(component) + ".log")
}

// PIDs returns the process of each running component, for those who measure them.
func (cp *ControlPlane) PIDs() map[Component]int {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	out := make(map[Component]int, len(cp.processes))
	for _, p := range cp.processes {
		out[p.component] = p.PID
	}
	return out
}

// Stop ends every component and removes what Start wrote; of a directory that the
// caller named, the logs stay. The components have a moment to end by themselves,
// and none when ctx has ended; then they are killed. After Stop no process is left,
// whatever it returns. Stop may be called more than once.
func (cp *ControlPlane) Stop(ctx context.Context) error {
	cp.stopOnce.Do(func() { cp.stopErr = cp.stop(ctx) })
	return cp.stopErr
}

func (cp *ControlPlane) stop(ctx context.Context) error {
	close(cp.stopping)
	cp.mu.Lock()
	processes := cp.processes
	cp.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	var errs []error
	for _, p := range processes {
		if p.component != Etcd { // the API server's last writes need it, and it has nothing to save
			errs = append(errs, p.Send(syscall.SIGTERM))
		}
	}
	for i := len(processes) - 1; i >= 0; i-- {
		if p := processes[i]; p.component != Etcd {
			select {
			case <-p.Exited():
			case <-ctx.Done():
			}
		}
		errs = append(errs, processes[i].Kill(context.WithoutCancel(ctx))) // bounded: nothing survives SIGKILL
	}
	return errors.Join(append(errs, cp.removeFiles())...)
}

// removeFiles removes the directory, or of a caller's directory all but the logs.
func (cp *ControlPlane) removeFiles() error {
	if cp.dir == "" {
		return nil
	}
	if cp.ownsDir {
		if err := os.RemoveAll(cp.dir); err != nil {
			return fmt.Errorf("removing the control plane's directory: %w", err)
		}
		return nil
	}
	var errs []error
	for _, name := range []string{
		"keys", "etcd", "scheduler-config.yaml", string(ControllerManager) + ".kubeconfig", string(Scheduler) + ".kubeconfig",
	} {
		if err := os.RemoveAll(cp.path(name)); err != nil {
			errs = append(errs, fmt.Errorf("removing what the control plane wrote: %w", err))
		}
	}
	return errors.Join(errs...)
}

// freePorts asks the kernel for five ports at once, so that they differ.
func freePorts() (ports, error) {
	var p ports
	for _, port := range []*int{&p.etcdClient, &p.etcdPeer, &p.api, &p.controllerManager, &p.scheduler} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return ports{}, fmt.Errorf("looking for a free port: %w", err)
		}
		defer listener.Close()
		*port = listener.Addr().(*net.TCPAddr).Port
	}
	return p, nil
}

// portTaken tells whether a start failed because a port was no longer free.
func portTaken(err error) bool {
	var failed *child.FailedError
	return errors.As(err, &failed) && strings.Contains(failed.Tail, "address already in use")
}
