package remedies

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/job"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

func clientKey(o client.Object) types.NamespacedName { return client.ObjectKeyFromObject(o) }

func runner() *job.Runner {
	return &job.Runner{
		Client: controller, Live: controller, Logs: job.PodLogs{Pods: kube.CoreV1()},
		Namespace: config.Namespace, ServiceAccount: config.JobServiceAccount,
	}
}

// template is a PodTemplate whose pod works for a while; for ever without.
func template(t *testing.T, name string, runFor time.Duration, more ...func(*corev1.PodTemplateSpec)) {
	t.Helper()
	made := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: config.Namespace, Name: name}, Template: corev1.PodTemplateSpec{
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To(int64(1)),
			Containers:                    []corev1.Container{{Name: "main", Image: "example.test/mend"}},
		},
	}}
	if runFor > 0 {
		made.Template.Annotations = map[string]string{fleet.AnnotationRunFor: runFor.String()}
	}
	for _, m := range more {
		m(&made.Template)
	}
	create(t, made)
}

func runJob(name string, onNode bool, timeout time.Duration) v1alpha1.Rung {
	return v1alpha1.Rung{Name: "mend", Action: v1alpha1.RungRunJob, Timeout: &metav1.Duration{Duration: timeout},
		Job: &v1alpha1.RunJob{PodTemplateRef: v1alpha1.LocalReference{Name: name}, OnNode: onNode}}
}

// podOf is the Job's pod.
func podOf(ctx context.Context, id string) (*corev1.Pod, error) {
	pods, err := podsOn(ctx, config.Namespace, "", map[string]string{batchv1.JobNameLabel: id})
	if err != nil {
		return nil, err
	}
	if len(pods) != 1 {
		return nil, fmt.Errorf("job %s has %d pods", id, len(pods))
	}
	return &pods[0], nil
}

// unplaced waits until the scheduler has said why it has no place for a Job's pod.
func unplaced(t *testing.T, id string, want ...string) {
	t.Helper()
	eventually(t, "the scheduler has no place", func(ctx context.Context) error {
		pod, err := podOf(ctx, id)
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				for _, words := range want {
					if !strings.Contains(c.Message, words) {
						return fmt.Errorf("it says %q", c.Message)
					}
				}
				return nil
			}
		}
		return fmt.Errorf("the pod is on %q", pod.Spec.NodeName)
	})
}

// leftBehind waits until nothing is left of a Job.
func leftBehind(t *testing.T, id string) {
	t.Helper()
	eventually(t, "the Job, its pod and its claim are gone", func(ctx context.Context) error {
		for _, object := range []client.Object{&batchv1.Job{}, &resourcev1.ResourceClaim{}} {
			if err := shared.Client().Get(ctx, types.NamespacedName{Namespace: config.Namespace, Name: id}, object); !apierrors.IsNotFound(err) {
				return fmt.Errorf("%T: %w", object, errors.Join(err, errors.New("it is there")))
			}
		}
		pods, err := podsOn(ctx, config.Namespace, "", map[string]string{batchv1.JobNameLabel: id})
		if err == nil && len(pods) > 0 {
			err = fmt.Errorf("%d pods", len(pods))
		}
		return err
	})
}

func TestAJobRunsOnTheTaintedNode(t *testing.T) {
	node := shared.Fleet().NodeNames()[0]
	rem := incident(t, "job-on-node", node, "GPU-a")
	template(t, "mend-here", 700*time.Millisecond)
	a := attempt(t, rem, runJob("mend-here", true, time.Minute))
	r := job.Remedy{Runner: runner()}
	last := carryOut(t, r, a, func(remedy.Progress) {})
	if last != remedy.Succeeded("Job roundhouse-system/job-on-node-1 is complete") {
		t.Errorf("%+v", last)
	}
	pod, err := podOf(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Spec.NodeName != node || pod.Spec.ServiceAccountName != config.JobServiceAccount || len(pod.Spec.Volumes) > 0 {
		t.Errorf("on %s as %s with %d volumes", pod.Spec.NodeName, pod.Spec.ServiceAccountName, len(pod.Spec.Volumes))
	}
	env := map[string]string{}
	for _, v := range pod.Spec.Containers[0].Env {
		env[v.Name] = v.Value
	}
	if env[job.EnvNode] != node || env[job.EnvDevices] != "GPU-a" || env[job.EnvFaults] != "Xid79" || env[job.EnvRemediation] != rem.Name {
		t.Errorf("environment %v", env)
	}
	if err := r.End(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	made := &batchv1.Job{}
	admin(t, "a Job that is over keeps its logs", shared.Client().Get(t.Context(), types.NamespacedName{Namespace: config.Namespace, Name: a.ID}, made))
	// The Remediation is its owner: without it the garbage collector takes the Job.
	admin(t, "deleting the Remediation", shared.Client().Delete(t.Context(), rem))
	leftBehind(t, a.ID)
}

func TestAJobToleratesOurTaintAndNothingElse(t *testing.T) {
	nodes := shared.Fleet().NodeNames()
	node := nodes[0]
	rem := incident(t, "job-tolerates", node)
	taint(t, node, corev1.Taint{Key: "example.test/theirs", Effect: corev1.TaintEffectNoSchedule})
	template(t, "mend-pinned", 0)
	a := attempt(t, rem, runJob("mend-pinned", true, time.Minute))
	r := job.Remedy{Runner: runner()}
	if got, err := r.Begin(t.Context(), a); err != nil || got.State != v1alpha1.RemedyRunning {
		t.Fatalf("%+v, %v", got, err)
	}
	// The other nodes are none of its business, and the one that is has a taint of somebody's.
	unplaced(t, a.ID, "untolerated taint", "didn't satisfy plugin(s) [NodeAffinity]")
	got, err := r.Look(t.Context(), a)
	if err != nil || !strings.Contains(got.Message, "does not run: Unschedulable: 0/3 nodes are available") {
		t.Errorf("%+v, %v", got, err)
	}
	for range 2 {
		if err := r.End(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	leftBehind(t, a.ID)
}

func TestAJobElsewhereIsKeptOffTheNode(t *testing.T) {
	node := shared.Fleet().NodeNames()[0]
	rem := incident(t, "job-elsewhere", node)
	template(t, "mend-there", 300*time.Millisecond)
	a := attempt(t, rem, runJob("mend-there", false, time.Minute))
	r := job.Remedy{Runner: runner()}
	if last := carryOut(t, r, a, func(remedy.Progress) {}); last.State != v1alpha1.RemedySucceeded {
		t.Errorf("%+v", last)
	}
	pod, err := podOf(t.Context(), a.ID)
	if err != nil || pod.Spec.NodeName == node {
		t.Errorf("on %s: %v", pod.Spec.NodeName, err)
	}
}

func TestAJobThatTakesTooLongHasFailed(t *testing.T) {
	rem := incident(t, "job-too-long", shared.Fleet().NodeNames()[0])
	template(t, "mend-for-ever", 0)
	a := attempt(t, rem, runJob("mend-for-ever", true, 2*time.Second))
	last := carryOut(t, job.Remedy{Runner: runner()}, a, func(remedy.Progress) {})
	if last.State != v1alpha1.RemedyFailed || !strings.Contains(last.Message, "DeadlineExceeded") {
		t.Errorf("%+v", last)
	}
}

func TestATemplateThatCannotBeRun(t *testing.T) {
	rem := incident(t, "job-refused", shared.Fleet().NodeNames()[0])
	template(t, "as-controller", 0, func(s *corev1.PodTemplateSpec) { s.Spec.ServiceAccountName = config.ControllerServiceAccount })
	template(t, "well", 0)
	r := job.Remedy{Runner: runner()}
	for name, want := range map[string]string{
		"well":          `the server refuses the Job: Job.batch "No-Name" is invalid: metadata.name: Invalid value: "No-Name"`,
		"as-controller": "PodTemplate as-controller: template.spec.serviceAccountName is roundhouse-controller: leave it out; Jobs run as roundhouse-job and nobody else",
		"nowhere":       "there is no PodTemplate nowhere in namespace roundhouse-system",
	} {
		a := attempt(t, rem, runJob(name, true, time.Minute))
		a.ID = "No-Name"
		refusal, err := r.Check(t.Context(), a)
		if err != nil || !strings.HasPrefix(refusal, want) {
			t.Errorf("%s: %q, %v", name, refusal, err)
		}
		if got, err := r.Begin(t.Context(), a); err != nil || got != remedy.Refused(refusal) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// The API server holds whoever is the controller to that account, not this code alone.
	bad := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: config.Namespace, Name: "as-controller"}, Spec: batchv1.JobSpec{
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			ServiceAccountName: config.ControllerServiceAccount, RestartPolicy: corev1.RestartPolicyNever,
			Containers: []corev1.Container{{Name: "main", Image: "example.test/x"}},
		}},
	}}
	if err := controller.Create(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "as service account roundhouse-job only") {
		t.Errorf("a Job as the controller: %v", err)
	}
	bad.Namespace = "default"
	if err := controller.Create(t.Context(), bad); !apierrors.IsForbidden(err) {
		t.Errorf("a Job in another namespace: %v", err)
	}
}

// burnIn is a run on a node's device as DRA offers it.
func burnIn(t *testing.T, rem *v1alpha1.Remediation, template, uuid string) job.Run {
	t.Helper()
	return job.Run{
		ID: rem.Name + "-burn-in", Remediation: rem, Template: template, Timeout: time.Minute, Node: getNode(t, rem.Spec.Node), OnNode: true,
		Devices: &job.Devices{Claimed: []job.Claimed{{Class: fleet.DeviceClass, Driver: fleet.Driver, Attribute: "uuid", Value: uuid}}},
	}
}

// device is a device of a node's slice, and its UUID.
func device(t *testing.T, node string, index int) (name, uuid string) {
	t.Helper()
	offered := &resourcev1.ResourceSliceList{}
	admin(t, "listing slices", shared.Client().List(t.Context(), offered, client.MatchingFields{"spec.nodeName": node}))
	if len(offered.Items) != 1 || len(offered.Items[0].Spec.Devices) <= index {
		t.Fatalf("node %s has %d slices", node, len(offered.Items))
	}
	found := offered.Items[0].Spec.Devices[index]
	return found.Name, *found.Attributes["uuid"].StringValue
}

// keepOff taints a device as the controller does.
func keepOff(t *testing.T, rem *v1alpha1.Remediation, device string) {
	t.Helper()
	create(t, &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: rem.Name + "-0"}, Spec: resourcev1.DeviceTaintRuleSpec{
		DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: ptr.To(fleet.Driver), Pool: &rem.Spec.Node, Device: &device},
		Taint:          resourcev1.DeviceTaint{Key: v1alpha1.DeviceTaintQuarantined, Value: rem.Name, Effect: resourcev1.DeviceTaintEffectNoSchedule},
	}})
}

func TestABurnInGetsExactlyTheTaintedDevice(t *testing.T) {
	node := shared.Fleet().NodeNames()[1]
	name, uuid := device(t, node, 2)
	rem := incident(t, "burns-in", node, uuid)
	keepOff(t, rem, name)
	template(t, "diag", 700*time.Millisecond)
	run, r := burnIn(t, rem, "diag", uuid), runner()
	if refusal, err := r.Check(t.Context(), run); err != nil || refusal != "" {
		t.Fatalf("%q, %v", refusal, err)
	}
	outcome, err := r.Start(t.Context(), run)
	if err != nil || outcome.State != v1alpha1.RemedyRunning {
		t.Fatalf("%+v, %v", outcome, err)
	}
	var got []resourcev1.DeviceRequestAllocationResult
	eventually(t, "the claim is allocated", func(ctx context.Context) error {
		held := &resourcev1.ResourceClaim{}
		if err := shared.Client().Get(ctx, types.NamespacedName{Namespace: config.Namespace, Name: run.ID}, held); err != nil {
			return err
		}
		if held.Status.Allocation == nil {
			pod, _ := podOf(ctx, run.ID)
			return fmt.Errorf("pod %+v", pod.Status.Conditions)
		}
		got = held.Status.Allocation.Devices.Results
		return nil
	})
	if len(got) != 1 || got[0].Device != name || got[0].Pool != node || got[0].Driver != fleet.Driver {
		t.Errorf("allocated %+v, want %s of pool %s", got, name, node)
	}
	eventually(t, "the burn-in is over", func(ctx context.Context) error {
		if outcome, err = r.Look(ctx, run, true); err == nil && !outcome.State.Over() {
			err = errors.New(outcome.Message)
		}
		return err
	})
	// No kubelet has logs here; in their place stands why.
	if outcome.State != v1alpha1.RemedySucceeded || !strings.HasPrefix(outcome.Log, "the log could not be read: ") || len(outcome.Log) > job.MaxLog {
		t.Errorf("%+v", outcome)
	}
	for range 2 {
		if err := r.End(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the device is free", func(ctx context.Context) error {
		err := shared.Client().Get(ctx, types.NamespacedName{Namespace: config.Namespace, Name: run.ID}, &resourcev1.ResourceClaim{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("the claim is there"))
	})
}

func TestABurnInToleratesItsOwnIncidentsTaintOnly(t *testing.T) {
	node := shared.Fleet().NodeNames()[1]
	name, uuid := device(t, node, 1)
	other := &v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: "another-incident"}, Spec: v1alpha1.RemediationSpec{Node: node}}
	keepOff(t, other, name)
	rem := incident(t, "burns-in-vain", node, uuid)
	template(t, "diag-in-vain", 0)
	run, r := burnIn(t, rem, "diag-in-vain", uuid), runner()
	if _, err := r.Start(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	// The node's other devices are free, and not what was asked for.
	unplaced(t, run.ID, "cannot allocate all claims")
	if err := r.End(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	leftBehind(t, run.ID)
}

func TestABurnInByTheContainerRuntime(t *testing.T) {
	nodes := shared.Fleet().NodeNames()
	rem := incident(t, "burns-in-by-env", nodes[len(nodes)-1], "GPU-x")
	template(t, "diag-by-env", 300*time.Millisecond)
	run := job.Run{ID: rem.Name + "-burn-in", Remediation: rem, Template: "diag-by-env", Timeout: time.Minute, Node: getNode(t, rem.Spec.Node),
		OnNode: true, Devices: &job.Devices{Visible: []string{"GPU-x"}}}
	if _, err := runner().Start(t.Context(), run); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is over", func(ctx context.Context) error {
		outcome, err := runner().Look(ctx, run, true)
		if err == nil && outcome.State != v1alpha1.RemedySucceeded {
			err = errors.New(outcome.Message)
		}
		return err
	})
	pod, err := podOf(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	visible := corev1.EnvVar{Name: "NVIDIA_VISIBLE_DEVICES", Value: "GPU-x"}
	if pod.Spec.NodeName != rem.Spec.Node || !slices.Contains(pod.Spec.Containers[0].Env, visible) || len(pod.Spec.ResourceClaims) > 0 {
		t.Errorf("on %s with %v", pod.Spec.NodeName, pod.Spec.Containers[0].Env)
	}
}
