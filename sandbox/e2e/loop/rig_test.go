// Package loop tests the whole loop on a real API server: the controller and the agent as they ship, over a machine in
// memory, killed, frozen and refused between any two of their writes.
package loop

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/agent"
	"github.com/roundhouse-dev/roundhouse/internal/controller"
	"github.com/roundhouse-dev/roundhouse/internal/health/kernellog"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
	"github.com/roundhouse-dev/roundhouse/internal/machine/fake"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/reboot"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// shared is the control plane of the package's tests.
var shared *controlplane.ControlPlane

func TestMain(m *testing.M) {
	os.Exit(controlplane.RunTests(m, controlplane.Options{WithoutNodeLifecycle: true}, func(cp *controlplane.ControlPlane) error {
		shared = cp
		return cp.Apply(context.Background(), config.Files, "crd", "rbac", "admission")
	}))
}

// labelCase keeps the nodes of one test from the controllers of another.
const labelCase = "case.example.com/name"

// nvidiaAddress is where H200s puts its fourth device.
const badSlot = 3

// rig is one node, its agent, its pods, and the controllers that look after it.
type rig struct {
	t       *testing.T
	ctx     context.Context
	admin   client.Client
	node    *corev1.Node
	machine *fake.Machine
	devices []fake.Device
	running []*process
	foreign *foreigner
	seq     int

	mu  sync.Mutex
	log []string
}

// process is something that runs until it is killed.
type process struct {
	gate   *gate
	cancel context.CancelFunc
	// done is closed when it has ended, with err.
	done chan struct{}
	err  error
	name string
}

// kill ends a process as SIGKILL would: nothing it does afterwards reaches anybody.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.gate.kill()
	p.cancel()
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Errorf("%s did not end", p.name)
	}
}

type rigOptions struct {
	// dra gives the node ResourceSlices; without it a device plugin offers the devices.
	dra bool
	// when is the rule's.
	when v1alpha1.When
	mode v1alpha1.Mode
	// agentOff leaves the agent to be started by the test.
	agentOff bool
	repairs  int32
}

func newRig(t *testing.T, o rigOptions) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	scheme, err := controller.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	cfg := shared.AdminConfig()
	cfg.QPS, cfg.Burst = 1000, 1000
	admin, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ctx: ctx, admin: admin}
	r.wipe()
	r.makeNode(o)
	r.makePods(o)
	r.makePolicy(o)
	kubelet, stop := context.WithCancel(ctx)
	go r.kubelet(kubelet)
	if !o.agentOff {
		r.startAgent()
	}
	r.foreign = startForeigner(ctx, admin, r.node.Name)
	t.Cleanup(func() {
		if t.Failed() {
			r.showAll()
		}
		for _, p := range slices.Backward(r.running) {
			p.kill(t)
		}
		stop()
	})
	return r
}

// wipe removes what an earlier test left, finalizers and all.
func (r *rig) wipe() {
	r.t.Helper()
	for _, list := range []client.ObjectList{
		&v1alpha1.RemediationList{}, &v1alpha1.RemediationPolicyList{}, &v1alpha1.RemediationHoldList{}, &v1alpha1.NodeDisruptionBudgetList{},
		&v1alpha1.NodeHealthList{}, &v1alpha1.DeviceRecordList{}, &resourcev1.DeviceTaintRuleList{}, &resourcev1.ResourceSliceList{},
		&corev1.PodList{}, &corev1.NodeList{}, &coordinationv1.LeaseList{},
	} {
		r.must(r.admin.List(r.ctx, list))
		items, err := extract(list)
		r.must(err)
		for _, obj := range items {
			if obj.GetNamespace() == "kube-system" {
				continue
			}
			if len(obj.GetFinalizers()) > 0 {
				patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
				r.must(client.IgnoreNotFound(r.admin.Patch(r.ctx, obj, patch)))
			}
			r.must(client.IgnoreNotFound(r.admin.Delete(r.ctx, obj, client.GracePeriodSeconds(0))))
		}
	}
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) makeNode(o rigOptions) {
	r.t.Helper()
	r.seq = int(time.Now().UnixNano() % 1_000_000)
	name := fmt.Sprintf("gpu-%06d", r.seq)
	r.node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{labelCase: name}}}
	r.must(r.admin.Create(r.ctx, r.node))
	r.node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	r.devices = fake.H200s(8, uint32(r.seq))
	if o.dra {
		r.makeSlice()
	} else {
		gpus := corev1.ResourceList{"nvidia.com/gpu": *resource.NewQuantity(8, resource.DecimalSI)}
		r.node.Status.Capacity, r.node.Status.Allocatable = gpus, gpus
	}
	r.must(r.admin.Status().Update(r.ctx, r.node))
	r.machine = fake.New(fake.Options{Hostname: name, Devices: r.devices, RebootTakes: 300 * time.Millisecond,
		BootID: fmt.Sprintf("%08d-0000-4000-8000-000000000000", r.seq)})
}

func (r *rig) makeSlice() {
	r.t.Helper()
	slice := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: r.node.Name + "-gpus"},
		Spec: resourcev1.ResourceSliceSpec{Driver: "gpu.example.com", NodeName: ptr.To(r.node.Name),
			Pool: resourcev1.ResourcePool{Name: r.node.Name, Generation: 1, ResourceSliceCount: 1}}}
	for i, d := range r.devices {
		slice.Spec.Devices = append(slice.Spec.Devices, resourcev1.Device{Name: fmt.Sprintf("gpu-%d", i),
			Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"uuid": {StringValue: ptr.To(d.UUID)}}})
	}
	r.must(r.admin.Create(r.ctx, slice))
}

// makePods binds the agent's pod and some work to the node, as a scheduler would have.
func (r *rig) makePods(rigOptions) {
	r.t.Helper()
	r.pod(config.Namespace, "agent-"+r.node.Name, "DaemonSet", map[string]string{"app.kubernetes.io/name": "roundhouse-agent"}, config.AgentServiceAccount)
	for i := range 2 {
		r.pod("default", fmt.Sprintf("web-%s-%d", r.node.Name, i), "ReplicaSet", map[string]string{"app": "web"}, "")
	}
}

func (r *rig) pod(namespace, name, owner string, lbls map[string]string, account string) *corev1.Pod {
	r.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: lbls,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: owner, Name: owner, UID: "00000000-0000-4000-8000-00000000000f", Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: r.node.Name, ServiceAccountName: account, TerminationGracePeriodSeconds: ptr.To(int64(1)),
			Containers: []corev1.Container{{Name: "main", Image: "example.com/image"}}},
	}
	if account == "" {
		p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "default", ptr.To(false)
		r.makeAccount(namespace, "default")
	}
	r.must(r.admin.Create(r.ctx, p))
	r.ready(p)
	return p
}

func (r *rig) makeAccount(namespace, name string) {
	r.t.Helper()
	err := r.admin.Create(r.ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		r.t.Fatal(err)
	}
}

func (r *rig) ready(p *corev1.Pod) {
	r.t.Helper()
	p.Status.Phase = corev1.PodRunning
	p.Status.StartTime = ptr.To(metav1.Now())
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	r.must(r.admin.Status().Update(r.ctx, p))
}

func (r *rig) makePolicy(o rigOptions) {
	r.t.Helper()
	if o.mode == "" {
		o.mode = v1alpha1.ModeRemediate
	}
	if o.repairs == 0 {
		o.repairs = 3
	}
	second := &metav1.Duration{Duration: time.Second}
	rule := v1alpha1.Rule{Name: "critical", Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
		Response: v1alpha1.ResponseRepair, Ladder: []string{"reboot", "reboot", "reboot", "reboot", "human"}}
	if o.when != "" && o.when != v1alpha1.WhenNow {
		rule.When, rule.Deadline = o.when, &metav1.Duration{Duration: time.Hour}
	}
	r.must(r.admin.Create(r.ctx, &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "training"},
		Spec: v1alpha1.RemediationPolicySpec{Mode: o.mode, NodeSelector: metav1.LabelSelector{MatchLabels: r.node.Labels},
			Rules: []v1alpha1.Rule{
				{Name: "application", Match: v1alpha1.RuleMatch{Classes: []v1alpha1.FaultClass{v1alpha1.ClassApplication}}, Response: v1alpha1.ResponseIgnore},
				rule,
			},
			Rungs: []v1alpha1.Rung{{Name: "reboot", Action: v1alpha1.RungReboot, Timeout: &metav1.Duration{Duration: time.Minute}},
				{Name: "human", Action: v1alpha1.RungEscalate, Message: "look at it"}},
			Verify: &v1alpha1.Verify{Settle: &metav1.Duration{}}, Probation: second,
			Loop: &v1alpha1.Loop{MaxRepairs: ptr.To(o.repairs), MaxBoots: ptr.To(int32(16))}}}))
	r.must(r.admin.Create(r.ctx, &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "all"},
		Spec: v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1))}}))
}

// kubelet ends what was told to go, as soon as it is told.
func (r *rig) kubelet(ctx context.Context) {
	for ctx.Err() == nil {
		var pods corev1.PodList
		if err := r.admin.List(ctx, &pods, client.MatchingFields{"spec.nodeName": r.node.Name}); err != nil {
			continue
		}
		for i := range pods.Items {
			if pods.Items[i].DeletionTimestamp != nil {
				// A pod that has gone meanwhile, or a server that says no, is looked at again in a moment.
				_ = r.admin.Delete(ctx, &pods.Items[i], client.GracePeriodSeconds(0))
			}
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// startAgent runs the real agent over the machine, with a token bound to its pod.
func (r *rig) startAgent() *process { return r.startAgentWith(nil) }

func (r *rig) startAgentWith(setup func(*gate)) *process {
	r.t.Helper()
	cfg, err := shared.ServiceAccountConfig(r.ctx, config.Namespace, config.AgentServiceAccount, controlplane.ToPod("agent-"+r.node.Name))
	r.must(err)
	return r.run("agent", setup, func(ctx context.Context, g *gate) error {
		cfg := rest.CopyConfig(cfg)
		cfg.Wrap(g.wrap)
		api, err := agent.NewClient(cfg, nil, r.node.Name)
		if err != nil {
			return err
		}
		m := gatedMachine{Machine: r.machine, gate: g}
		n, err := agent.New(agent.Options{Name: r.node.Name, Version: "test", Machine: m, API: api, Checks: func() []agent.Scheduled { return checks(m) },
			Executors:  map[v1alpha1.ActionType]agent.Executor{v1alpha1.ActionReboot: reboot.New(m)},
			DailyLimit: 100, ClearAfter: 50 * time.Millisecond, WriteGap: 10 * time.Millisecond})
		if err != nil {
			return err
		}
		return n.Run(ctx)
	})
}

func checks(m gatedMachine) []agent.Scheduled {
	const often = 100 * time.Millisecond
	return []agent.Scheduled{
		{Check: kernellog.New(kernellog.Options{Machine: m}), Every: often},
		{Check: pci.New(pci.Options{Machine: m}), Every: often},
	}
}

// startController runs the real controller, with its service account's credential.
func (r *rig) startController() *process {
	r.t.Helper()
	return r.startControllerWith(nil)
}

func (r *rig) startControllerWith(setup func(*gate)) *process {
	r.t.Helper()
	cfg, err := shared.ServiceAccountConfig(r.ctx, config.Namespace, config.ControllerServiceAccount, controlplane.Binding{})
	r.must(err)
	r.seq++
	identity := fmt.Sprintf("c-%d", r.seq)
	return r.run("controller "+identity, setup, func(ctx context.Context, g *gate) error {
		cfg := rest.CopyConfig(cfg)
		cfg.Wrap(g.wrap)
		sel, err := labels.ValidatedSelectorFromSet(r.node.Labels)
		if err != nil {
			return err
		}
		return controller.Run(ctx, cfg, controller.Config{Namespace: config.Namespace, Identity: identity, NodeSelector: sel,
			LeaseDuration: 2 * time.Second, RenewDeadline: 1500 * time.Millisecond, RetryPeriod: 200 * time.Millisecond,
			ReportingGrace: 200 * time.Millisecond, Logger: r.logger(identity)})
	})
}

// logger keeps the last lines, which are shown where the test fails.
func (r *rig) logger(name string) logr.Logger {
	return funcr.New(func(prefix, args string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.log = append(r.log, time.Now().Format("15:04:05.000 ")+prefix+" "+args)
		r.log = r.log[max(0, len(r.log)-maxLog):]
	}, funcr.Options{}).WithName(name)
}

// maxLog is how many lines of the controllers' logs are kept.
const maxLog = 120

// showAll shows what a failed test leaves behind: the objects, what the controllers said last, and who wrote what.
func (r *rig) showAll() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 10*time.Second)
	defer cancel()
	for _, list := range []client.ObjectList{
		&v1alpha1.RemediationList{}, &v1alpha1.NodeHealthList{}, &v1alpha1.NodeDisruptionBudgetList{}, &corev1.NodeList{}, &coordinationv1.LeaseList{},
	} {
		if err := r.admin.List(ctx, list); err != nil {
			r.t.Log("listing: ", err)
			continue
		}
		items, err := extract(list)
		if err != nil {
			r.t.Log(err)
		}
		for _, obj := range items {
			obj.SetManagedFields(nil)
			text, err := yaml.Marshal(obj)
			r.t.Logf("%T (%v)\n%s", obj, err, text)
		}
	}
	for _, p := range r.running {
		r.t.Log(p.name, p.gate.made())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.t.Log("the controllers' last words:\n" + strings.Join(r.log, "\n"))
}

func (r *rig) run(name string, setup func(*gate), run func(context.Context, *gate) error) *process {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.ctx)
	p := &process{gate: &gate{}, cancel: cancel, done: make(chan struct{}), name: name}
	if setup != nil {
		setup(p.gate)
	}
	go func() {
		defer close(p.done)
		p.err = run(ctx, p.gate)
	}()
	r.running = append(r.running, p)
	return p
}

// fault takes the fourth device off the bus, with the line that the driver writes.
func (r *rig) fault(heals int) {
	d := r.devices[badSlot]
	r.machine.Break(d.Address, fake.Break{Kind: fake.Dead, HealsAfterBoots: heals})
	short, _, _ := strings.Cut(d.Address, ".")
	r.machine.Kernel(fmt.Sprintf("NVRM: Xid (PCI:%s): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.", short))
}

// remediations are the node's incidents, oldest first.
func (r *rig) remediations() []v1alpha1.Remediation {
	r.t.Helper()
	var list v1alpha1.RemediationList
	r.must(r.admin.List(r.ctx, &list))
	slices.SortFunc(list.Items, func(a, b v1alpha1.Remediation) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return list.Items
}

// waitFor waits until the newest incident is as asked.
func (r *rig) waitFor(what string, ok func(*v1alpha1.Remediation) bool) *v1alpha1.Remediation {
	r.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	var last *v1alpha1.Remediation
	for time.Now().Before(deadline) {
		if all := r.remediations(); len(all) > 0 {
			last = &all[len(all)-1]
			if ok(last) {
				return last
			}
		}
		sleep(r.ctx, 30*time.Millisecond)
	}
	r.t.Fatalf("waited in vain for %s: %s", what, r.describe(last))
	return nil
}

func inPhase(p v1alpha1.Phase) func(*v1alpha1.Remediation) bool {
	return func(rem *v1alpha1.Remediation) bool { return rem.Status.Phase == p }
}

// over says whether an incident has ended and has been let go of.
func over(rem *v1alpha1.Remediation) bool { return rem.Status.Phase.Over() && len(rem.Finalizers) == 0 }

// describe tells where an incident stands, for a failure's message.
func (r *rig) describe(rem *v1alpha1.Remediation) string {
	if rem == nil {
		h := &v1alpha1.NodeHealth{}
		err := r.admin.Get(r.ctx, client.ObjectKey{Name: r.node.Name}, h)
		return fmt.Sprintf("no incident; nodehealth %+v (%v)", h.Status, err)
	}
	root := rem.Spec.Root
	text := fmt.Sprintf("%s, %s on %s since %s, %s/%s: %s", rem.Name, root.Code, root.Device, root.FirstSeen.Format("15:04:05"),
		rem.Status.Phase, rem.Status.Reason, rem.Status.Message)
	for _, e := range rem.Status.Timeline {
		text += fmt.Sprintf("\n  %s %s/%s %s", e.At.Format("15:04:05"), e.Phase, e.Reason, e.Message)
	}
	return text
}

// clean fails the test where anything of ours is left on the node, the devices or the budgets.
func (r *rig) clean() {
	r.t.Helper()
	node := &corev1.Node{}
	r.must(r.admin.Get(r.ctx, client.ObjectKeyFromObject(r.node), node))
	for _, taint := range node.Spec.Taints {
		if strings.Contains(taint.Key, "roundhouse") {
			r.t.Errorf("taint left: %v", taint)
		}
	}
	for key, value := range node.Annotations {
		if strings.Contains(key, "roundhouse") || strings.Contains(key, "karpenter") || strings.Contains(key, "autoscaler") {
			r.t.Errorf("annotation left: %s=%s", key, value)
		}
	}
	var rules resourcev1.DeviceTaintRuleList
	r.must(r.admin.List(r.ctx, &rules))
	if len(rules.Items) > 0 {
		r.t.Errorf("%d device taint rules left", len(rules.Items))
	}
	var budgets v1alpha1.NodeDisruptionBudgetList
	r.must(r.admin.List(r.ctx, &budgets))
	for i := range budgets.Items {
		if n := len(budgets.Items[i].Status.Reservations); n > 0 {
			r.t.Errorf("budget %s still holds %d slots", budgets.Items[i].Name, n)
		}
	}
}

// expectReboots fails the test where the machine was rebooted more or less often.
func (r *rig) expectReboots(want int) {
	r.t.Helper()
	if got := r.machine.Reboots(); got != want {
		r.t.Errorf("%d reboots, want %d", got, want)
	}
}

// waitForLeader waits until a controller leads: until then nothing fences the one before it.
func (r *rig) waitForLeader(p *process) {
	r.t.Helper()
	for range 1000 {
		lease := &coordinationv1.Lease{}
		err := r.admin.Get(r.ctx, client.ObjectKey{Namespace: config.Namespace, Name: config.LeaderLease}, lease)
		if err == nil && lease.Spec.HolderIdentity != nil && "controller "+*lease.Spec.HolderIdentity == p.name {
			// The API server learns of it through a watch of its own, some milliseconds later (docs/security.md).
			sleep(r.ctx, 200*time.Millisecond)
			return
		}
		sleep(r.ctx, 30*time.Millisecond)
	}
	r.t.Fatalf("%s does not lead", p.name)
}

// forgetLeader removes the Lease, as if it had run out: a test need not wait for that.
func (r *rig) forgetLeader() {
	r.t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: config.Namespace, Name: config.LeaderLease}}
	r.must(client.IgnoreNotFound(r.admin.Delete(r.ctx, lease)))
}

func extract(list client.ObjectList) ([]client.Object, error) {
	items, err := apimeta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	out := make([]client.Object, 0, len(items))
	for _, item := range items {
		obj, ok := item.(client.Object)
		if !ok {
			return nil, fmt.Errorf("%T is no object", item)
		}
		out = append(out, obj)
	}
	return out, nil
}

// healthy waits until the agent has reported a whole, healthy node.
func (r *rig) healthy() {
	r.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	h := &v1alpha1.NodeHealth{}
	for time.Now().Before(deadline) {
		err := r.admin.Get(r.ctx, client.ObjectKeyFromObject(r.node), h)
		if err == nil && whole(h) {
			return
		}
		sleep(r.ctx, 30*time.Millisecond)
	}
	r.t.Fatalf("the node did not become healthy: %+v", h.Status)
}
