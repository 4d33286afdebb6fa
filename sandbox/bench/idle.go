package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

// Idle is the agent beside node-problem-detector (NPD), both with nothing to tell, on one machine and one API server.
type Idle struct {
	Seconds float64 `json:"seconds"`
	// Agent and NPD have their children's share in them.
	Agent Usage  `json:"agent"`
	NPD   *Usage `json:"npd,omitempty"`
	// AgentWrites and NPDWrites are what each wrote to the API after its start.
	AgentWrites int `json:"agentWrites"`
	NPDWrites   int `json:"npdWrites"`
}

// npdMonitors are what NPD's own DaemonSet runs by default (deployment/node-problem-detector.yaml), less the monitor of
// Docker's journal, which a build without cgo has not.
var npdMonitors = []string{"kernel-monitor.json", "readonly-monitor.json"}

const (
	// npdSettles is how long NPD looks at the log's past before it has nothing to tell.
	npdSettles = 30 * time.Second
	npdNode    = "idle-npd"
	npdUser    = "node-problem-detector"
)

// idle runs both for as long as was asked.
func idle(ctx context.Context, o Options, r *Report) error {
	audit, err := newAudit()
	if err != nil {
		return err
	}
	defer audit.remove()
	so := sandbox.Options{APIServerArgs: audit.args(), Fleet: fleet.Options{Nodes: 1, GPUs: 1, NodesPerRack: 1}}
	return with(ctx, so, o, func(ctx context.Context, s *sandbox.Sandbox) error {
		c, err := newCluster(ctx, s, o)
		if err != nil {
			return err
		}
		defer c.close()
		return c.idle(ctx, audit, r)
	})
}

func (c *cluster) idle(ctx context.Context, audit *audit, r *Report) error {
	if err := c.startController(ctx); err != nil { // it makes the agent's NodeHealth
		return err
	}
	agent, err := c.startAgent(ctx, 8)
	if err != nil {
		return err
	}
	defer agent.stop()
	npd, err := c.startNPD(ctx)
	if err != nil {
		return err
	}
	defer npd.stop()
	if err := pause(ctx, npdSettles); err != nil {
		return err
	}
	r.Idle = &Idle{Seconds: c.o.Idle.Seconds()}
	began := time.Now()
	watched := []target{agent.target()}
	if npd != nil {
		watched = append(watched, npd.target())
	} else {
		r.Missing = append(r.Missing, "node-problem-detector: no -npd and -npd-config given")
	}
	c.o.Progress(fmt.Sprintf("idle for %s", c.o.Idle))
	usage, err := usageOf(ctx, c.o.Idle, watched...)
	if err != nil {
		return err
	}
	r.Idle.Agent = usage[0]
	if npd != nil {
		r.Idle.NPD = &usage[1]
	}
	all, err := audit.read(began, time.Now())
	if err != nil {
		return err
	}
	for _, one := range all {
		switch {
		case one.Verb == "get" || one.Verb == "list" || one.Verb == "watch":
		case one.User.Username == user(config.AgentServiceAccount):
			r.Idle.AgentWrites++
		case one.User.Username == npdUser:
			r.Idle.NPDWrites++
		}
	}
	return nil
}

// startNPD starts NPD as its DaemonSet does; nil where none was given.
func (c *cluster) startNPD(ctx context.Context) (*process, error) {
	if c.o.NPD == "" {
		return nil, nil
	}
	dir, err := os.MkdirTemp("", "roundhouse-npd-")
	if err != nil {
		return nil, fmt.Errorf("starting node-problem-detector: %w", err)
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	// Its rights are not what is measured, but who it is: the audit log tells it by its name.
	credential, err := c.s.ControlPlane().UserConfig(npdUser, "system:masters")
	if err != nil {
		return nil, err
	}
	if err := controlplane.WriteKubeconfig(credential, kubeconfig); err != nil {
		return nil, err
	}
	if err := c.client.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: npdNode}}); err != nil {
		return nil, fmt.Errorf("making a node: %w", err)
	}
	var monitors []string
	for _, name := range npdMonitors {
		monitors = append(monitors, filepath.Join(c.o.NPDConfig, name))
	}
	cmd := exec.CommandContext(ctx, c.o.NPD, "--logtostderr", "--config.system-log-monitor="+strings.Join(monitors, ","),
		"--apiserver-override="+c.s.ControlPlane().AdminConfig().Host+"?inClusterConfig=false&auth="+kubeconfig,
		"--port=0", "--prometheus-port=0")
	cmd.Env = append(os.Environ(), "NODE_NAME="+npdNode)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting node-problem-detector: %w", err), os.RemoveAll(dir))
	}
	return &process{what: "node-problem-detector", cmd: cmd, dir: dir}, nil
}
