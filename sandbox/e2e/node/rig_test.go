package node

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
	"github.com/roundhouse-dev/roundhouse/sandbox/vm"
)

const (
	// patience bounds one test, its machine's boots included.
	patience = 4 * time.Minute
	// within bounds one wait of a test. A boot takes three to six seconds where nothing else runs, and several times
	// that on a machine that is busy.
	within = 90 * time.Second

	// gpu is the device that stands for one: an NVMe controller, which the agent is told to watch.
	gpu            = "gpu0"
	accelerator    = "1b36:0010"
	resourceGPU    = "example.com/gpu"
	agentAddress   = "127.0.0.1:9809"
	serverName     = "kubernetes.default.svc"
	caFile         = "/etc/roundhouse/ca.crt"
	tokenFile      = "/etc/roundhouse/token"
	logTail        = 8 << 10
	agentAppLabel  = "app.kubernetes.io/name"
	agentAppName   = "roundhouse-agent"
	acceptInjected = "-accept-injected-kernel-lines"
)

// rig is one real machine as a node of the cluster.
type rig struct {
	t       *testing.T
	ctx     context.Context
	name    string
	vm      *vm.VM
	history *history
	kubelet *kubelet
	ca      []byte
	began   time.Time
	// address is the device's on the guest's bus, device its ID in NodeHealth.
	address, device string
}

// newRig boots a machine whose agent gets the further flags, and waits until the controller vouches for a healthy node.
func newRig(t *testing.T, name string, agentFlags ...string) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	r := &rig{t: t, ctx: ctx, name: name, began: time.Now()}
	r.history = follow(t, ctx, name)
	r.makeObjects()
	r.boot(agentFlags)
	r.kubelet = &kubelet{rig: r}
	kubeletCtx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); r.kubelet.run(kubeletCtx) }()
	t.Cleanup(func() { // runs before the machine is stopped
		stop()
		<-ended // a round of the kubelet's is bounded by its context
		if t.Failed() {
			r.explain()
		}
	})
	r.awaitHealthy()
	return r
}

// makeObjects makes the Node, the agent's pod, and a pod that uses the device.
func (r *rig) makeObjects() {
	r.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.name}}
	r.create(node)
	gpus := corev1.ResourceList{resourceGPU: *resource.NewQuantity(1, resource.DecimalSI)}
	node.Status.Capacity, node.Status.Allocatable = gpus, gpus
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if err := shared.admin.Status().Update(r.ctx, node); err != nil {
		r.t.Fatal(err)
	}
	err := shared.admin.Create(r.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		r.t.Fatal(err)
	}
	agent := r.pod(config.Namespace, r.agentPod(), "DaemonSet", config.AgentServiceAccount)
	agent.Labels = map[string]string{agentAppLabel: agentAppName}
	r.create(agent)
	work := r.pod("default", r.workPod(), "ReplicaSet", "default")
	work.Spec.Containers[0].Resources.Limits = gpus
	r.create(work)
}

// pod is one that a scheduler has bound to the node.
func (r *rig) pod(namespace, name, owner, account string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, OwnerReferences: []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: owner, Name: owner, UID: "00000000-0000-4000-8000-00000000000f", Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: r.name, ServiceAccountName: account, AutomountServiceAccountToken: ptr.To(false),
			TerminationGracePeriodSeconds: ptr.To(int64(1)),
			Containers:                    []corev1.Container{{Name: "main", Image: "example.com/image"}}},
	}
}

func (r *rig) agentPod() string { return "agent-" + r.name }
func (r *rig) workPod() string  { return "work-" + r.name }

func (r *rig) create(obj client.Object) {
	r.t.Helper()
	if err := shared.admin.Create(r.ctx, obj); err != nil {
		r.t.Fatal(err)
	}
}

// boot starts the machine, with the agent under a token that is bound to its pod on the node.
func (r *rig) boot(agentFlags []string) {
	r.t.Helper()
	cfg, err := shared.cp.ServiceAccountConfig(r.ctx, config.Namespace, config.AgentServiceAccount, controlplane.ToPod(r.agentPod()))
	if err != nil {
		r.t.Fatal(err)
	}
	server, err := url.Parse(cfg.Host)
	if err != nil {
		r.t.Fatal(err)
	}
	r.ca = cfg.CAData
	r.vm, err = vm.Start(r.ctx, vm.Options{
		Hostname: r.name,
		Devices:  []vm.Device{{ID: gpu}},
		Files: map[string][]byte{
			// The server's certificate is for the names that pods know it by, so the machine knows it by one, too.
			"/etc/hosts": []byte(vm.HostIP + " " + serverName + "\n"),
			caFile:       cfg.CAData,
			tokenFile:    []byte(cfg.BearerToken),
		},
		Agent: vm.Agent{Binary: shared.agent, Args: append([]string{
			"-node-name=" + r.name, "-server=https://" + serverName + ":" + server.Port(),
			"-ca-file=" + caFile, "-token-file=" + tokenFile, "-state-dir=" + vm.StateDir,
			"-accelerators=" + accelerator, "-check-every=1s", "-metrics-bind=" + agentAddress, "-v",
		}, agentFlags...)},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if err := r.vm.Stop(context.WithoutCancel(r.ctx)); err != nil {
			r.t.Errorf("stopping the machine: %v", err)
		}
	})
	r.say("the machine is up")
	if r.address, err = r.vm.PCIAddress(r.ctx, gpu); err != nil {
		r.t.Fatal(err)
	}
}

// awaitHealthy waits until the agent has said that the node is whole, and the controller that it believes the agent.
func (r *rig) awaitHealthy() {
	r.t.Helper()
	boot := r.bootID()
	seen := r.await("a healthy node in the API", onHealth(func(h *v1alpha1.NodeHealth) bool { return whole(h, boot) }))
	r.await("the controller to believe the agent", onNode(func(n *corev1.Node) bool {
		return condition(n, v1alpha1.ConditionReporting).Status == corev1.ConditionTrue
	}))
	r.await("the node's own condition", onNode(func(n *corev1.Node) bool {
		return condition(n, v1alpha1.ConditionHealthy).Status == corev1.ConditionTrue
	}))
	device := seen.obj.(*v1alpha1.NodeHealth).Status.Devices[0]
	r.device = device.ID
	if device.PCI != r.address {
		r.t.Fatalf("the device is published at %s, and is at %s", device.PCI, r.address)
	}
	r.say("the node is healthy")
}

// whole says whether the agent has looked at everything in that boot, and all is well.
func whole(h *v1alpha1.NodeHealth, boot string) bool {
	s := &h.Status
	return s.Summary == v1alpha1.SummaryHealthy && s.BootID == boot && s.CompletedRound != nil && s.CompletedRound.BootID == boot &&
		len(s.Devices) == 1 && s.Devices[0].Health == v1alpha1.DeviceHealthy && len(s.Faults) == 0 && len(s.Checks) == 0
}

// condition is a condition of the node; the zero value where it has none of the type.
func condition(n *corev1.Node, kind corev1.NodeConditionType) corev1.NodeCondition {
	for _, c := range n.Status.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return corev1.NodeCondition{}
}

func (r *rig) bootID() string {
	r.t.Helper()
	boot, err := r.vm.BootID(r.ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	return boot
}

// get asks the agent's own server from inside the machine, where its probes come from.
func (r *rig) get(ctx context.Context, path string) ([]byte, error) {
	return r.vm.Fetch(ctx, "http://"+agentAddress+path, "", r.ca)
}

// metric is one metric of the agent's, as it is printed; empty where there is none.
func (r *rig) metric(name string) string {
	r.t.Helper()
	all, err := r.get(r.ctx, "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(all)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// await waits until something has happened, and returns the first time it did.
func (r *rig) await(what string, is func(event) bool) event {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, within)
	defer cancel()
	for {
		e, ok, err := r.history.first(is)
		switch {
		case ok:
			return e
		case err != nil:
			r.t.Fatalf("waiting for %s: %v", what, err)
		}
		select {
		case <-ctx.Done():
			r.t.Fatalf("waited %s in vain for %s", within, what)
		case <-shared.ended:
			r.t.Fatalf("waiting for %s: the controller ended: %v", what, shared.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// say logs when something happened.
func (r *rig) say(format string, args ...any) {
	r.t.Helper()
	r.t.Logf("%6.2fs %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
}

// explain logs all that is known of a test that failed.
func (r *rig) explain() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 10*time.Second)
	defer cancel()
	all, err := r.history.all()
	r.t.Logf("history (%v):", err)
	for _, e := range all {
		r.t.Logf("  %s", e)
	}
	var incidents v1alpha1.RemediationList
	if err := shared.admin.List(ctx, &incidents, client.MatchingFields{"spec.node": r.name}); err != nil {
		r.t.Logf("incidents: %v", err)
	}
	for i := range incidents.Items {
		r.t.Logf("%s", timeline(&incidents.Items[i]))
	}
	log, err := r.vm.AgentLog(ctx)
	r.t.Logf("the agent's log (%v):\n%s", err, tail(log))
	status, err := r.vm.AgentStatus(ctx)
	r.t.Logf("the agent's process: %+v (%v); the kubelet: %s", status, err, r.kubelet)
	r.t.Logf("the console:\n%s", tail(r.vm.Console()))
}

func tail(s string) string { return s[max(0, len(s)-logTail):] }

// timeline is an incident as it went.
func timeline(rem *v1alpha1.Remediation) string {
	text := fmt.Sprintf("%s: %s/%s %s", rem.Name, rem.Status.Phase, rem.Status.Reason, rem.Status.Message)
	for _, e := range rem.Status.Timeline {
		text += fmt.Sprintf("\n    %s %s/%s %s", e.At.UTC().Format("15:04:05"), e.Phase, e.Reason, e.Message)
	}
	return text
}
