package loop

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/cli"
)

// asker asks kubectl-roundhouse about the rig's node, as a person would while the controller and the agent work on it.
type asker struct {
	*rig
	kubeconfig string
	// last is the last answer.
	last string
}

func (r *rig) asker() *asker {
	r.t.Helper()
	ctrllog.SetLogger(logr.Discard()) // what the plugin's client logs is no part of the answer
	a := &asker{rig: r, kubeconfig: filepath.Join(r.t.TempDir(), "kubeconfig")}
	r.must(shared.WriteKubeconfig(a.kubeconfig))
	return a
}

func (a *asker) run(args ...string) string {
	a.t.Helper()
	var out bytes.Buffer
	code := cli.Run(a.ctx, append(args, "--kubeconfig", a.kubeconfig), cli.Options{
		In: strings.NewReader(""), Out: &out, Err: &out, Zone: time.UTC, Version: "v0.0.0-test", Getenv: func(string) string { return "" },
	})
	if code != 0 {
		a.t.Errorf("kubectl roundhouse %s: exit code %d\n%s", strings.Join(args, " "), code, out.String())
	}
	return out.String()
}

// why asks until one answer holds every pattern, in the multi-line syntax of regexp, and keeps that answer.
func (a *asker) why(patterns ...string) {
	a.t.Helper()
	missing, closest := patterns, ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !a.t.Failed(); {
		a.last = a.run("why", a.node.Name)
		lacks := lacking(a.last, patterns)
		if len(lacks) == 0 {
			a.t.Log("\n" + a.last)
			return
		}
		if len(lacks) < len(missing) || closest == "" {
			missing, closest = lacks, a.last
		}
		sleep(a.ctx, 30*time.Millisecond)
	}
	if all := a.remediations(); len(all) > 0 {
		a.t.Log(a.describe(&all[len(all)-1]))
	}
	a.t.Fatalf("no answer said %q; the closest was\n%s", missing, closest)
}

func lacking(answer string, patterns []string) []string {
	var missing []string
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(answer) {
			missing = append(missing, p)
		}
	}
	return missing
}

// never demands that the last answer lacks a pattern.
func (a *asker) never(patterns ...string) {
	a.t.Helper()
	for _, p := range patterns {
		if len(lacking(a.last, []string{p})) == 0 {
			a.t.Errorf("the answer says %q:\n%s", p, a.last)
		}
	}
}

// Patterns of an answer. A time is today's or, around midnight, another day's.
const (
	clockTime = `(\w+ \d+ )?\d\d:\d\d UTC`
	sinceTime = `, since ` + clockTime + ` \(.*\)`
	untilTime = `^Deadline  ` + clockTime + ` \(in \d+[a-z0-9]*\), then: `
	noEnd     = `^Deadline  none is set`
)

// inputs are what every answer about the incident rests on: the fault, the device, the line that shows it, what the checks
// say, and who says so.
func (a *asker) inputs() []string {
	return []string{
		`^What      Xid79 on .*` + regexp.QuoteMeta(a.devices[badSlot].UUID) + `.*` + sinceTime,
		`kernel-log: "NVRM: Xid .*79, .*fallen off the bus`,
		`checks: .*; (last complete round published ` + clockTime + ` in boot \w+|no complete round)`,
	}
}

// rule is the policy's rule and mode, as the answer names them.
func rule(mode v1alpha1.Mode) string {
	return fmt.Sprintf(`^Rule      training/critical, generation \d+, mode %s\n +severity Critical: quarantine, then reboot`, mode)
}

// explains is why with what an answer about the incident always says.
func (a *asker) explains(mode v1alpha1.Mode, patterns ...string) {
	a.t.Helper()
	a.why(append(append(a.inputs(), rule(mode)), patterns...)...)
}

func (a *asker) patchPolicy(patch string) {
	a.t.Helper()
	p := &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "training"}}
	a.must(a.admin.Patch(a.ctx, p, client.RawPatch(types.MergePatchType, []byte(patch))))
}

// agentReady says on the agent's Pod whether it is Ready, which the controller's word about it follows.
func (a *asker) agentReady(ready corev1.ConditionStatus) {
	a.t.Helper()
	p := &corev1.Pod{}
	a.must(a.admin.Get(a.ctx, client.ObjectKey{Namespace: config.Namespace, Name: "agent-" + a.node.Name}, p))
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
	a.must(a.admin.Status().Update(a.ctx, p))
}

// bare is a pod that nothing would create again: only a human stops it, so it blocks a drain.
func (a *asker) bare() *corev1.Pod {
	a.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bare-" + a.node.Name},
		Spec: corev1.PodSpec{NodeName: a.node.Name, ServiceAccountName: "default", AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "main", Image: "example.com/image"}}},
	}
	a.must(a.admin.Create(a.ctx, p))
	a.ready(p)
	return p
}

// another is a second node of the policy that shows the same fault. It has no agent: its last word is written by hand.
func (a *asker) another() {
	a.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "other-" + a.node.Name, Labels: a.node.Labels}}
	a.must(a.admin.Create(a.ctx, node))
	h := &v1alpha1.NodeHealth{}
	for a.admin.Get(a.ctx, client.ObjectKeyFromObject(node), h) != nil && a.ctx.Err() == nil {
		sleep(a.ctx, 30*time.Millisecond)
	}
	seen := metav1.Now()
	h.Status = v1alpha1.NodeHealthStatus{Summary: v1alpha1.SummaryFaulty, BootID: "b1", Faults: []v1alpha1.Fault{{
		Code: "Xid79", Check: "kernel-log", Device: "GPU-other", Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical, FirstSeen: seen, LastSeen: seen, Count: 1,
	}}}
	a.must(a.admin.Status().Update(a.ctx, h))
}

func (a *asker) delete(obj client.Object) {
	a.t.Helper()
	a.must(client.IgnoreNotFound(a.admin.Delete(a.ctx, obj, client.GracePeriodSeconds(0))))
}

// TestWhyAnswersInEachPhase takes one node from health through an incident in each mode to health again, under the real
// controller and agent, holds each phase still for as long as it takes to ask, and asks.
func TestWhyAnswersInEachPhase(t *testing.T) {
	r := newRig(t, rigOptions{dra: true, mode: v1alpha1.ModeObserve, agentOff: true})
	a := r.asker()
	a.patchPolicy(`{"spec":{"verify":{"settle":"3s"},"probation":"10s"}}`)
	agent := r.startAgent()
	r.startController()
	r.healthy()
	a.whyHealthyAndUnknown()
	r.fault(1)
	a.whyObserved()
	a.whyQuarantinedAndHeld()
	a.whyActing(agent)
	a.why(append(a.inputs()[:1], `SUCCEEDED: repaired, proved and in service; nothing of ours is left on the node`,
		`ended with reason ProbationClean: no relapse within 10s`+sinceTime, `^Waiting   nothing: it is over`, rule(v1alpha1.ModeRemediate), `this incident: reboot repaired`)...)
	a.never(`^Deadline`)
	r.waitFor("the end", over)
	r.expectReboots(1)
	r.clean()
}

func (a *asker) whyHealthyAndUnknown() {
	a.t.Helper()
	a.why(`HEALTHY: in service`, `8 of 8 devices serving`, `checks: all pass; last complete round published `+clockTime+` in boot \w+`, `agent test reports`+sinceTime,
		`^Waiting   nothing`, `^Changes   a check that fails`, `^Rule      training, generation \d+, mode Observe\n +none of its 2 rules is asked: no fault is reported`)
	a.agentReady(corev1.ConditionFalse)
	a.why(`UNKNOWN: in service, but nobody can see its health`, `what the agent said last: checks: all pass`, `^Not seen  the agent does not report: .*`+sinceTime,
		`^Waiting   for the agent to report again`+sinceTime, `^Changes   the agent's pod Ready, and publishing`, noEnd+`: however long it lasts, nothing disruptive`, `^Rule      training`)
	a.agentReady(corev1.ConditionTrue)
	a.why(`HEALTHY`)
}

// whyObserved asks while the node is only observed: by the policy's mode, for want of one that is accepted, for want of
// any.
func (a *asker) whyObserved() {
	a.t.Helper()
	would := []string{
		`^Would do  .*by rule critical:\n +keep new work off .*` + a.devices[badSlot].UUID + `.*, by DeviceTaintRule ` + a.node.Name + `-\w+-0`,
		`^ +take a slot of budget all: 0 of 1 nodes out for repair`,
		`^ +move what else runs on the node at once, then reboot, attempt 1 of 1; if that does not last: reboot`,
		noEnd + ` in Observe`,
	}
	a.explains(v1alpha1.ModeObserve, append(would, `OBSERVING only: the policy's mode is Observe`, `^Would do  in mode Remediate`,
		`^Waiting   for another mode than Observe in policy training`+sinceTime, `^Changes   mode Quarantine or Remediate in the node's policy`)...)

	hold := &v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: "demo"},
		Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{a.node.Name}, Reason: "a demo", RequestedBy: "y.sato"}}
	a.must(a.admin.Create(a.ctx, hold))
	a.explains(v1alpha1.ModeObserve, append(would, `^ +wait: hold demo by y.sato: no drain or repair until it is released: "a demo"`)...)
	a.delete(hold)

	policy := &v1alpha1.RemediationPolicy{}
	a.must(a.admin.Get(a.ctx, client.ObjectKey{Name: "training"}, policy))
	tie := &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "zzz-tie"}, Spec: policy.Spec}
	a.must(a.admin.Create(a.ctx, tie))
	a.explains(v1alpha1.ModeObserve, append(would, `OBSERVING only: the policy is not accepted`, `^Would do  if policy training were accepted`,
		`^Waiting   for policy training to be accepted: .*policies training and zzz-tie of priority 0 select `, `^ +not accepted \(.*policies training and zzz-tie`)...)
	a.delete(tie)

	a.patchPolicy(`{"spec":{"nodeSelector":{"matchLabels":{"` + labelCase + `":"none"}}}}`)
	a.explains(v1alpha1.ModeObserve, append(would, `OBSERVING only: no policy governs this node`, `^Would do  if policy training selected the node still`,
		`^Waiting   for a RemediationPolicy that selects the node`+sinceTime, `does not select this node`)...)
	a.patchPolicy(`{"spec":{"nodeSelector":{"matchLabels":{"` + labelCase + `":"` + a.node.Name + `"}}}}`)
}

func (a *asker) whyQuarantinedAndHeld() {
	a.t.Helper()
	a.patchPolicy(`{"spec":{"mode":"Quarantine"}}`)
	a.explains(v1alpha1.ModeQuarantine, `QUARANTINED: new work is kept off`, `new work is kept off gpu-3 by DeviceTaintRule `, `^Next      nothing; it ends when the fault does`,
		`^Waiting   policy training is in mode Quarantine`+sinceTime, `^Changes   mode Remediate`, noEnd)

	until := metav1.NewTime(time.Now().Add(time.Hour).Truncate(time.Second))
	hold := &v1alpha1.RemediationHold{ObjectMeta: metav1.ObjectMeta{Name: "demo"},
		Spec: v1alpha1.RemediationHoldSpec{Nodes: []string{a.node.Name}, Reason: "a demo", RequestedBy: "y.sato", Until: &until}}
	a.must(a.admin.Create(a.ctx, hold))
	a.patchPolicy(`{"spec":{"mode":"Remediate"}}`)
	a.explains(v1alpha1.ModeRemediate, `HELD by a human; no drain or repair begins until the hold ends`, `^Next      reboot, attempt 1 of 1`,
		`^Waiting   held by y.sato until `+clockTime+`: a demo`+sinceTime, `hold demo by y.sato`, `^Changes   RemediationHold demo deleted or lapsed`,
		untilTime+`it goes on`, `^Stop it   held already`)
	blocker := a.bare()
	a.delete(hold)
	a.explains(v1alpha1.ModeRemediate, `DRAINING: work is being moved away`, `^Next      move \d+ pods? .*of the whole node\n +then reboot, attempt 1 of 1`,
		`^ +pod default/`+blocker.Name+`: unreplicated`, `^Changes   a human stops the pods`, untilTime+`ask a human; pods are never forced`)
}

// whyActing asks while the repair is under way: with the agent frozen before it can answer, and then as it goes.
func (a *asker) whyActing(agent *process) {
	a.t.Helper()
	agent.gate.freeze()
	a.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bare-" + a.node.Name}})
	a.explains(v1alpha1.ModeRemediate, `REPAIRING: the agent has been asked to act`, `^Next      reboot, attempt 1 of 1`,
		`the agent, asked for reboot \(`+a.node.Name+`-\w+-1\): not answered yet`, `^Waiting   Reboot asked for \(attempt 1\)`+sinceTime,
		`^Changes   the agent ends it, or its deadline passes`, untilTime+`what the agent has not begun is taken back`)
	agent.gate.thaw()
	a.explains(v1alpha1.ModeRemediate, `VERIFYING: the repair is done and is being proved`, `^Next      probation, once a full round of checks has passed and the fault has stayed away for 3s`,
		`^Waiting   (the fault is gone; watched for 3s|to be proved: )`, `saved before the repair, sha256 `, untilTime+`the repair has failed`)
	a.explains(v1alpha1.ModeRemediate, `PROBATION: back in service and watched`, `8 of 8 devices serving`, `^Next      over, if there is no relapse\n +after a relapse: reboot, attempt 1 of 1`,
		`^Waiting   boot \S+, 8 of 8 devices healthy`, `^Changes   a relapse before `+clockTime, untilTime+`the incident is over`,
		`last complete round published `+clockTime+` in boot \w+, begun `+clockTime+`, after action `)
	a.agentReady(corev1.ConditionFalse)
	a.explains(v1alpha1.ModeRemediate, `PROBATION`, `^Next      over, once the agent reports again and no relapse is seen`,
		`^ +the agent does not report, so a relapse cannot be seen`+sinceTime, untilTime+`the end is due, and while the agent is silent`)
	a.agentReady(corev1.ConditionTrue)
}

// TestWhyNamesTheWaitAndTheHuman takes a fault that no reboot heals through its waits to the human.
func TestWhyNamesTheWaitAndTheHuman(t *testing.T) {
	r := newRig(t, rigOptions{dra: true, when: v1alpha1.WhenIdle})
	a := r.asker()
	a.patchPolicy(`{"spec":{"rules":[{"name":"critical","match":{"severities":["Critical"]},"response":"Repair","when":"Idle","deadline":"1h","ladder":["reboot","human"]}]}}`)
	budget := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "all"}}
	allow := func(n int) {
		a.must(a.admin.Patch(a.ctx, budget, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"maxUnavailable":%d}}`, n))))
	}
	allow(0)
	job := r.pod("default", "job-"+r.node.Name, "Job", map[string]string{"app": "job"}, "")
	r.startController()
	r.healthy()
	r.fault(0)
	a.explains(v1alpha1.ModeRemediate, `WAITING until no work would be lost`, `^At risk   `, `^Waiting   a reboot would kill 1 job pod .*waiting for idle until `+clockTime+sinceTime,
		`budget all: 0 of 0 nodes out for repair`, `^Changes   the jobs end, or kubectl roundhouse approve `+r.node.Name+` --skip-idle`, untilTime+`ask a human, never force`)
	a.delete(job)
	a.explains(v1alpha1.ModeRemediate, `WAITING for a budget slot`, `^Waiting   all: it allows no node to be out`+sinceTime, `^Changes   all allows 1`, untilTime+`ask a human$`)
	a.patchPolicy(`{"spec":{"brake":{"sameSignature":{"nodes":2,"minNodes":2}}}}`)
	a.another()
	a.explains(v1alpha1.ModeRemediate, `BRAKED: too many nodes show this fault at once`, `^Waiting   the brake holds: 2 nodes show Xid79 at once`+sinceTime,
		`^ +brake of policy training: Xid79 on 2 nodes; lets go when fewer than 2 nodes show Xid79`, `^Changes   fewer than 2 nodes show Xid79`, untilTime+`ask a human$`)
	a.patchPolicy(`{"spec":{"brake":null}}`)
	allow(2) // the other node is out
	a.explains(v1alpha1.ModeRemediate, `ESCALATED: waits for a human: look at it`, `^Next      when the fault is gone, as after the part was replaced`,
		`^Waiting   look at it`+sinceTime, `^Changes   the part replaced; kubectl roundhouse approve `+r.node.Name+` --retry`, noEnd+`: it waits for the human`,
		`this incident: reboot not repaired`)
	a.never(`NODE`, `look at it\n.*look at it \(human\)`)
}

// TestWhySaysThatAHumanEndedIt releases a node while its fault lasts.
func TestWhySaysThatAHumanEndedIt(t *testing.T) {
	r := newRig(t, rigOptions{dra: true, mode: v1alpha1.ModeQuarantine})
	a := r.asker()
	r.startController()
	r.healthy()
	r.fault(0)
	a.explains(v1alpha1.ModeQuarantine, `QUARANTINED`)
	a.run("release", r.node.Name)
	a.explains(v1alpha1.ModeQuarantine, `CANCELLED by a human; the fault is still there, and nothing is done about it`,
		`ended with reason Cancelled: cancelled by a human.*`+sinceTime, `^Waiting   nothing: it is over`)
	r.waitFor("the end", over)
	r.clean()
}

// TestWhyRemembersANodeThatIsGone deletes the Node while its incident is open.
func TestWhyRemembersANodeThatIsGone(t *testing.T) {
	r := newRig(t, rigOptions{dra: true, mode: v1alpha1.ModeQuarantine})
	a := r.asker()
	r.startController()
	r.healthy()
	r.fault(0)
	a.explains(v1alpha1.ModeQuarantine, `QUARANTINED`)
	a.delete(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.node.Name}})
	a.why(`NODE GONE: the Node was deleted`, `^What      Xid79 on .*`+r.devices[badSlot].UUID, `ended with reason NodeGone: the Node `+r.node.Name+` was deleted.*`+sinceTime,
		`^Waiting   nothing: it is over`, `^Rule      training.*, mode Quarantine`)
}

// TestWhySaysWhatWouldBeDoneWithoutDRA asks in Observe where a device plugin offers the devices: while it still offers the
// bad one, and where it has dropped it.
func TestWhySaysWhatWouldBeDoneWithoutDRA(t *testing.T) {
	for name, c := range map[string]struct {
		offered int64
		want    string
	}{
		"the plugin offers it":     {8, `keep new work off the whole node, by taint roundhouse.dev/quarantined`},
		"the plugin has let it go": {7, `put nothing on .*: it is not offered to pods any more`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, rigOptions{mode: v1alpha1.ModeObserve})
			a := r.asker()
			offered := resource.NewQuantity(c.offered, resource.DecimalSI).String()
			r.must(r.admin.Status().Patch(r.ctx, r.node, client.RawPatch(types.MergePatchType, []byte(`{"status":{"allocatable":{"nvidia.com/gpu":"`+offered+`"}}}`))))
			r.startController()
			r.healthy()
			r.fault(0)
			a.explains(v1alpha1.ModeObserve, `OBSERVING only`, `^Would do  in mode Remediate, by rule critical:\n +`+c.want, `then reboot, attempt 1 of 1`)
		})
	}
}
