package job

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

const (
	namespace = "roundhouse-system"
	account   = "roundhouse-job"
)

func newRemediation() *v1alpha1.Remediation {
	return &v1alpha1.Remediation{
		ObjectMeta: metav1.ObjectMeta{Name: "rem", UID: "rem-uid"},
		Spec:       v1alpha1.RemediationSpec{Node: "gpu-0", Devices: []string{"GPU-a", "GPU-$(HOME)"}, Root: v1alpha1.RootFault{Code: "Xid79"}},
		Status: v1alpha1.RemediationStatus{Evidence: &v1alpha1.Evidence{
			Faults: []v1alpha1.Fault{{Code: "Xid45"}, {Code: "Xid79"}, {Code: "Xid45"}},
		}},
	}
}

func newTemplate(change ...func(*corev1.PodTemplateSpec)) *corev1.PodTemplate {
	template := &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "mend"}}
	template.Template = corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "mend"}, Annotations: map[string]string{"a": "b"}},
		Spec: corev1.PodSpec{
			RestartPolicy:  corev1.RestartPolicyAlways,
			InitContainers: []corev1.Container{{Name: "first", Image: "x"}},
			Containers: []corev1.Container{{Name: "main", Image: "x", Env: []corev1.EnvVar{
				{Name: "GREETING", Value: "$(ROUNDHOUSE_NODE)"}, {Name: EnvNode, Value: "theirs"},
			}}},
			Tolerations: []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
		},
	}
	for _, c := range change {
		c(&template.Template)
	}
	return template
}

func newRun(change ...func(*Run)) Run {
	r := Run{ID: "rem-1", Remediation: newRemediation(), Template: "mend", Timeout: 90500 * time.Millisecond,
		Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-0"}}}
	for _, c := range change {
		c(&r)
	}
	return r
}

func onNode(r *Run) { r.OnNode = true }

func claiming(uuids ...string) func(*Run) {
	return func(r *Run) {
		r.OnNode, r.Devices = true, &Devices{}
		for _, uuid := range uuids {
			r.Devices.Claimed = append(r.Devices.Claimed, Claimed{Class: "gpu.nvidia.com", Driver: "gpu.nvidia.com", Attribute: "uuid", Value: uuid})
		}
	}
}

func seeing(uuids ...string) func(*Run) {
	return func(r *Run) { r.OnNode, r.Devices = true, &Devices{Visible: uuids} }
}

func TestBuild(t *testing.T) {
	env := []corev1.EnvVar{
		{Name: "ROUNDHOUSE_NODE", Value: "gpu-0"}, {Name: "ROUNDHOUSE_DEVICES", Value: "GPU-a,GPU-$$(HOME)"},
		{Name: "ROUNDHOUSE_FAULTS", Value: "Xid79,Xid45"}, {Name: "ROUNDHOUSE_REMEDIATION", Value: "rem"},
	}
	want := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: "rem-1", Labels: map[string]string{"roundhouse.dev/remediation": "rem"},
			Annotations:     map[string]string{"roundhouse.dev/node": "gpu-0"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "roundhouse.dev/v1alpha1", Kind: "Remediation", Name: "rem", UID: "rem-uid", Controller: ptr.To(true)}},
		},
		Spec: batchv1.JobSpec{
			Parallelism: ptr.To(int32(1)), Completions: ptr.To(int32(1)), BackoffLimit: ptr.To(int32(0)),
			ActiveDeadlineSeconds: ptr.To(int64(91)), TTLSecondsAfterFinished: ptr.To(int32(86400)),
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "mend", "roundhouse.dev/remediation": "rem"}, Annotations: map[string]string{"a": "b"}},
				Spec: corev1.PodSpec{
					ServiceAccountName: account, DeprecatedServiceAccount: account, RestartPolicy: corev1.RestartPolicyNever,
					InitContainers: []corev1.Container{{Name: "first", Image: "x", Env: env}},
					Containers:     []corev1.Container{{Name: "main", Image: "x", Env: append(env[:4:4], corev1.EnvVar{Name: "GREETING", Value: "$(ROUNDHOUSE_NODE)"})}},
					Tolerations:    []corev1.Toleration{{Key: "nvidia.com/gpu", Operator: corev1.TolerationOpExists}},
				},
			},
		},
	}
	here := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"gpu-0"}}}}
	pinned := func(j *batchv1.Job, terms ...corev1.NodeSelectorTerm) {
		spec := &j.Spec.Template.Spec
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms}}}
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{Key: "roundhouse.dev/quarantined", Operator: corev1.TolerationOpEqual, Value: "rem"})
	}
	cases := map[string]struct {
		template *corev1.PodTemplate
		run      Run
		want     func(*batchv1.Job)
	}{
		"anywhere": {run: newRun(), want: func(*batchv1.Job) {}},
		"on the node: pinned by its name, tolerating our taint and nothing more": {
			run: newRun(onNode), want: func(j *batchv1.Job) { pinned(j, here) },
		},
		"beside an affinity of the template's, of which each alternative is pinned": {
			template: newTemplate(func(s *corev1.PodTemplateSpec) {
				s.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
					NodeSelectorTerms: []corev1.NodeSelectorTerm{
						{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}}}, {},
					},
				}}}
			}),
			run: newRun(onNode),
			want: func(j *batchv1.Job) {
				both := here
				both.MatchExpressions = []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}}
				pinned(j, both, here)
			},
		},
		"on claimed devices": {
			run: newRun(claiming("GPU-a")),
			want: func(j *batchv1.Job) {
				pinned(j, here)
				spec := &j.Spec.Template.Spec
				spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "roundhouse", ResourceClaimName: ptr.To("rem-1")}}
				about(spec, "GPU-a")
				spec.InitContainers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "roundhouse"}}
				spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "roundhouse"}}
			},
		},
		"on devices that the container runtime shows": {
			run: newRun(seeing("GPU-a", "GPU-b")),
			want: func(j *batchv1.Job) {
				pinned(j, here)
				visible := corev1.EnvVar{Name: "NVIDIA_VISIBLE_DEVICES", Value: "GPU-a,GPU-b"}
				spec := &j.Spec.Template.Spec
				spec.InitContainers[0].Env = append(env[:4:4], visible)
				spec.Containers[0].Env = append(env[:4:4], visible, corev1.EnvVar{Name: "GREETING", Value: "$(ROUNDHOUSE_NODE)"})
				about(spec, "GPU-a,GPU-b")
			},
		},
		"no time at all is a second": {
			run: newRun(func(r *Run) { r.Timeout = 0 }), want: func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = ptr.To(int64(1)) },
		},
		"a template without labels": {
			template: newTemplate(func(s *corev1.PodTemplateSpec) { s.Labels = nil }), run: newRun(),
			want: func(j *batchv1.Job) { delete(j.Spec.Template.Labels, "app") },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			template := c.template
			if template == nil {
				template = newTemplate()
			}
			given := template.DeepCopy()
			expected := want.DeepCopy()
			c.want(expected)
			if diff := cmp.Diff(expected, build(template, account, c.run)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(given, template); diff != "" {
				t.Errorf("the template changed:\n%s", diff)
			}
		})
	}
}

func TestClaim(t *testing.T) {
	job := build(newTemplate(), account, newRun(claiming(`GPU-"a`)))
	job.UID = "job-uid"
	got := claim(job, newRun(claiming(`GPU-"a`)))
	want := &resourcev1.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rem-1", Labels: map[string]string{"roundhouse.dev/remediation": "rem"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "rem-1", UID: "job-uid", Controller: ptr.To(true)}}},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{
			Name: "device-0",
			Exactly: &resourcev1.ExactDeviceRequest{
				DeviceClassName: "gpu.nvidia.com", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1,
				Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{
					Expression: `device.driver == "gpu.nvidia.com" && "uuid" in device.attributes["gpu.nvidia.com"] && device.attributes["gpu.nvidia.com"]["uuid"] == "GPU-\"a"`,
				}}},
				Tolerations: []resourcev1.DeviceToleration{{Key: "roundhouse.dev/quarantined", Operator: resourcev1.DeviceTolerationOpEqual, Value: "rem"}},
			},
		}}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := claim(job, newRun(claiming("a", "b"))); len(got.Spec.Devices.Requests) != 2 || got.Spec.Devices.Requests[1].Name != "device-1" {
		t.Errorf("two devices: %+v", got.Spec.Devices.Requests)
	}
	for name, r := range map[string]Run{"asks for none": newRun(), "sees devices": newRun(seeing("a"))} {
		if claim(job, r) != nil {
			t.Errorf("a run that %s has a claim", name)
		}
	}
}

func TestRefuse(t *testing.T) {
	many := make([]string, 33)
	limit := func(name corev1.ResourceName) func(*corev1.PodTemplateSpec) {
		return func(s *corev1.PodTemplateSpec) {
			s.Spec.Containers[0].Resources.Limits = corev1.ResourceList{name: resource.MustParse("1")}
		}
	}
	cases := map[string]struct {
		change func(*corev1.PodTemplateSpec)
		run    Run
		want   string
	}{
		"nothing is wrong":                 {run: newRun()},
		"the account that all Jobs run as": {change: func(s *corev1.PodTemplateSpec) { s.Spec.ServiceAccountName = account }, run: newRun()},
		"another account": {
			change: func(s *corev1.PodTemplateSpec) { s.Spec.ServiceAccountName = "roundhouse-controller" }, run: newRun(),
			want: "PodTemplate mend: template.spec.serviceAccountName is roundhouse-controller: leave it out; Jobs run as roundhouse-job and nobody else",
		},
		"another account, by the old name": {
			change: func(s *corev1.PodTemplateSpec) { s.Spec.DeprecatedServiceAccount = "x" }, run: newRun(),
			want: "PodTemplate mend: template.spec.serviceAccountName is x: leave it out; Jobs run as roundhouse-job and nobody else",
		},
		"past the scheduler": {
			change: func(s *corev1.PodTemplateSpec) { s.Spec.NodeName = "gpu-1" }, run: newRun(),
			want: "PodTemplate mend: template.spec.nodeName is gpu-1: leave it out; job.onNode has it run on the incident's node",
		},
		"pods that would be taken for agents": {
			change: func(s *corev1.PodTemplateSpec) { s.Labels["app.kubernetes.io/name"] = "roundhouse-agent" }, run: newRun(),
			want: "PodTemplate mend: its pods have the label app.kubernetes.io/name=roundhouse-agent, which finds Roundhouse's own: choose another value",
		},
		"a template may ask for devices itself":       {change: limit("nvidia.com/gpu"), run: newRun(onNode)},
		"a burn-in may ask for what is no GPU":        {change: limit("rdma/hca"), run: newRun(claiming("a"))},
		"a burn-in must not ask for any device":       {change: limit("nvidia.com/gpu"), run: newRun(seeing("a")), want: "PodTemplate mend: container main asks for nvidia.com/gpu, which may be any device: leave it out; it is given exactly the incident's"},
		"nor for a part of one":                       {change: limit("nvidia.com/mig-1g.10gb"), run: newRun(seeing("a")), want: "PodTemplate mend: container main asks for nvidia.com/mig-1g.10gb, which may be any device: leave it out; it is given exactly the incident's"},
		"nor another maker's":                         {change: limit("amd.com/gpu"), run: newRun(claiming("a")), want: "PodTemplate mend: container main asks for amd.com/gpu, which may be any device: leave it out; it is given exactly the incident's"},
		"nor by a claim":                              {change: func(s *corev1.PodTemplateSpec) { s.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "g"}} }, run: newRun(claiming("a")), want: "PodTemplate mend: template.spec.resourceClaims ask for devices: leave them out; it is given exactly the incident's"},
		"no device":                                   {run: newRun(claiming()), want: "the devices are asked for by DRA or by the container runtime: one of both"},
		"devices in both ways":                        {run: newRun(claiming("a"), func(r *Run) { r.Devices.Visible = []string{"a"} }), want: "the devices are asked for by DRA or by the container runtime: one of both"},
		"more devices than a claim may have requests": {run: newRun(claiming(many...)), want: "33 devices at once: a ResourceClaim has room for 32"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			template := newTemplate()
			if c.change != nil {
				c.change(&template.Template)
			}
			if diff := cmp.Diff(c.want, refuse(template, account, c.run)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// world is a server with these objects.
type world struct {
	client.Client
	*Runner
	// answer, where it is set, is what the server says to the creation of an object, in place of what it would.
	answer  func(client.Object) error
	deleted []client.DeleteOptions
}

type written map[string]string

func (w written) Tail(_ context.Context, namespace, pod, container string) (string, error) {
	text, ok := w[namespace+"/"+pod+"/"+container]
	if !ok {
		return "", errors.New("no such log")
	}
	return text, nil
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	w := &world{}
	uid := 0
	w.Client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if w.answer != nil {
				if err := w.answer(o); err != nil {
					return err
				}
			}
			if o.GetUID() == "" {
				uid++
				o.SetUID("uid-1")
			}
			return c.Create(ctx, o, options...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
			asked := client.DeleteOptions{}
			asked.ApplyOptions(options)
			w.deleted = append(w.deleted, asked)
			return c.Delete(ctx, o, options...)
		},
	}).Build()
	w.Runner = &Runner{Client: w.Client, Live: w.Client, Namespace: namespace, ServiceAccount: account, Logs: written{
		namespace + "/rem-1-x/main":  "all is well\n",
		namespace + "/rem-1-x/first": "line one\nECC error on GPU-a\x1b[31m\x00\n",
	}}
	return w
}

// of is the run's Job, as the server has it.
func (w *world) of(t *testing.T) (*batchv1.Job, *resourcev1.ResourceClaim) {
	t.Helper()
	job, claim := &batchv1.Job{}, &resourcev1.ResourceClaim{}
	key := client.ObjectKey{Namespace: namespace, Name: "rem-1"}
	if err := w.Get(t.Context(), key, job); apierrors.IsNotFound(err) {
		job = nil
	} else if err != nil {
		t.Fatal(err)
	}
	if err := w.Get(t.Context(), key, claim); apierrors.IsNotFound(err) {
		claim = nil
	} else if err != nil {
		t.Fatal(err)
	}
	return job, claim
}

func (w *world) ends(t *testing.T, kind batchv1.JobConditionType, reason, message string) {
	t.Helper()
	job, _ := w.of(t)
	job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, Message: message})
	if err := w.Status().Update(t.Context(), job); err != nil {
		t.Fatal(err)
	}
}

func newPod(change ...func(*corev1.Pod)) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rem-1-x", Labels: map[string]string{batchv1.ControllerUidLabel: "uid-1"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func firstFailed(p *corev1.Pod) {
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "first", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{ExitCode: 3, Reason: "Error", Message: "GPU-a is not fit"},
	}}}
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "main", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}}
}

func TestAJobFromBeginToEnd(t *testing.T) {
	for name, r := range map[string]Run{"a repair": newRun(), "a burn-in": newRun(claiming("GPU-a"))} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newTemplate())
			if refusal, err := w.Check(t.Context(), r); err != nil || refusal != "" {
				t.Fatalf("Check: %q, %v", refusal, err)
			}
			if job, held := w.of(t); job != nil || held != nil {
				t.Fatal("Check has made something")
			}
			for range 2 {
				got, err := w.Start(t.Context(), r)
				if err != nil || got.Progress != remedy.Running("Job roundhouse-system/rem-1 has no pod yet") {
					t.Fatalf("Start: %+v, %v", got, err)
				}
			}
			job, held := w.of(t)
			if (held != nil) != (r.Devices != nil) {
				t.Fatalf("the claim is %v", held)
			}
			if held != nil && !metav1.IsControlledBy(held, job) {
				t.Error("the claim would outlive its Job")
			}
			if refusal, err := w.Check(t.Context(), r); err != nil || refusal != "" {
				t.Fatalf("Check of one that is there: %q, %v", refusal, err)
			}
			if err := w.Create(t.Context(), newPod()); err != nil {
				t.Fatal(err)
			}
			got, err := w.Look(t.Context(), r, true)
			if err != nil || got.Progress != remedy.Running("Job roundhouse-system/rem-1: pod rem-1-x is Running") {
				t.Fatalf("Look: %+v, %v", got, err)
			}
			w.ends(t, batchv1.JobSuccessCriteriaMet, "", "")
			if got, err = w.Look(t.Context(), r, true); err != nil || got.State != v1alpha1.RemedyRunning {
				t.Fatalf("Look while pods end: %+v, %v", got, err)
			}
			w.ends(t, batchv1.JobComplete, "CompletionsReached", "")
			got, err = w.Look(t.Context(), r, true)
			if err != nil || got != (Outcome{Progress: remedy.Succeeded("Job roundhouse-system/rem-1 is complete"), Log: "all is well"}) {
				t.Fatalf("Look: %+v, %v", got, err)
			}
			for range 2 {
				if err := w.End(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if job, held := w.of(t); job == nil || held != nil {
				t.Errorf("after its end the Job's logs stay and its device does not: %v, %v", job, held)
			}
			// One that is asked once more must not take the device again.
			if got, err := w.Start(t.Context(), r); err != nil || got.State != v1alpha1.RemedySucceeded {
				t.Errorf("Start: %+v, %v", got, err)
			}
			if _, held := w.of(t); held != nil {
				t.Error("a Job that is over holds a device")
			}
		})
	}
}

// about makes a pod be told of these devices.
func about(spec *corev1.PodSpec, devices string) {
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			containers[i].Env = slices.Clone(containers[i].Env)
			containers[i].Env[1].Value = devices
		}
	}
}

func TestAFailedJobSaysWhy(t *testing.T) {
	w := newWorld(t, newTemplate(), newPod(func(p *corev1.Pod) {
		p.Name, p.CreationTimestamp = "rem-1-earlier", metav1.NewTime(time.Unix(1, 0))
	}), newPod(firstFailed, func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(time.Unix(2, 0)) }))
	if _, err := w.Start(t.Context(), newRun()); err != nil {
		t.Fatal(err)
	}
	w.ends(t, batchv1.JobFailureTarget, "BackoffLimitExceeded", "")
	if got, err := w.Look(t.Context(), newRun(), true); err != nil || got.Progress != remedy.Running("Job roundhouse-system/rem-1 has failed (BackoffLimitExceeded) and is ending") {
		t.Errorf("%+v, %v", got, err)
	}
	w.ends(t, batchv1.JobFailed, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
	want := Outcome{
		Progress: remedy.Failed("Job roundhouse-system/rem-1 failed: BackoffLimitExceeded: Job has reached the specified backoff limit; " +
			"container first ended with exit code 3 (Error): GPU-a is not fit; its log ends: line one\nECC error on GPU-a[31m"),
		Log: "line one\nECC error on GPU-a[31m", Ran: true,
	}
	got, err := w.Look(t.Context(), newRun(), true)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, logs := range map[string]Logs{
		"nobody to read the log": nil, "a log that cannot be read": written{},
		"a long log": written{namespace + "/rem-1-x/first": strings.Repeat("é", 5000) + "the end"},
	} {
		t.Run(name, func(t *testing.T) {
			w.Logs = logs
			got, err := w.Look(t.Context(), newRun(), true)
			if err != nil || got.State != v1alpha1.RemedyFailed || len(got.Message) > remedy.MaxMessage || len(got.Log) > MaxLog {
				t.Errorf("%+v, %v", got, err)
			}
			if text, _ := logs.(written); logs == nil && got.Log != "" ||
				logs != nil && len(text) == 0 && !strings.Contains(got.Log, "could not be read: no such log") ||
				len(text) > 0 && (!strings.HasSuffix(got.Log, "the end") || !strings.HasSuffix(got.Message, "the end") || !utf8.ValidString(got.Log)) {
				t.Errorf("log %q, message %q", got.Log, got.Message)
			}
		})
	}
}

// A pod that others stopped says nothing about its device, unless it is the node that did.
func TestAPodThatOthersStoppedHasProvedNothing(t *testing.T) {
	for reason, lost := range map[string]bool{
		"EvictionByEvictionAPI": true, "PreemptionByScheduler": true, "TerminationByKubelet": false, "DeletionByTaintManager": false, "": false,
	} {
		t.Run(reason, func(t *testing.T) {
			w := newWorld(t, newTemplate(), newPod(firstFailed, func(p *corev1.Pod) {
				if reason != "" {
					p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason})
				}
			}))
			if _, err := w.Start(t.Context(), newRun()); err != nil {
				t.Fatal(err)
			}
			w.ends(t, batchv1.JobFailed, "BackoffLimitExceeded", "")
			got, err := w.Look(t.Context(), newRun(), true)
			if err != nil || got.State != v1alpha1.RemedyFailed || got.Lost != lost || strings.Contains(got.Message, "stopped by others") != lost {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestLookAtWhatIsNotThere(t *testing.T) {
	w := newWorld(t, newTemplate())
	got, err := w.Look(t.Context(), newRun(), true)
	if err != nil || got.Progress != remedy.Failed("Job roundhouse-system/rem-1 is gone: somebody deleted it") {
		t.Errorf("deleted: %+v, %v", got, err)
	}
	got, err = w.Look(t.Context(), newRun(), false)
	if job, _ := w.of(t); err != nil || got.State != v1alpha1.RemedyRunning || job == nil {
		t.Errorf("never made: %+v, %v", got, err)
	}
}

func TestTheClaimThatACrashLeftOutIsMade(t *testing.T) {
	r := newRun(claiming("GPU-a"))
	w := newWorld(t, newTemplate())
	w.answer = func(o client.Object) error {
		if _, ok := o.(*resourcev1.ResourceClaim); ok {
			return apierrors.NewServiceUnavailable("x")
		}
		return nil
	}
	if _, err := w.Start(t.Context(), r); err == nil {
		t.Fatal("no error")
	}
	w.answer = nil
	if _, err := w.Look(t.Context(), r, false); err != nil {
		t.Fatal(err)
	}
	if _, held := w.of(t); held == nil {
		t.Error("no claim")
	}
}

func TestAnotherJobOfTheName(t *testing.T) {
	other := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rem-1", UID: "x"}}
	foreign := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "rem-1", UID: "y"}}
	r := newRun(claiming("GPU-a"))
	w := newWorld(t, newTemplate(), other, foreign)
	if got, err := w.Start(t.Context(), r); err != nil || got.Progress != remedy.Failed("a Job roundhouse-system/rem-1 is there that is not this incident's") {
		t.Errorf("Start: %+v, %v", got, err)
	}
	if got, err := w.Look(t.Context(), r, true); err != nil || got.State != v1alpha1.RemedyFailed {
		t.Errorf("Look: %+v, %v", got, err)
	}
	if err := w.End(t.Context(), r); err != nil || len(w.deleted) > 0 {
		t.Errorf("End: %v, deleted %v", err, w.deleted)
	}
}

func TestEndOfAJobThatRuns(t *testing.T) {
	r := newRun(claiming("GPU-a"))
	w := newWorld(t, newTemplate())
	if _, err := w.Start(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.End(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if job, held := w.of(t); job != nil || held != nil {
		t.Errorf("left behind: %v, %v", job, held)
	}
	if len(w.deleted) != 2 {
		t.Fatalf("asked for %d deletions", len(w.deleted))
	}
	for _, asked := range w.deleted {
		if asked.Preconditions == nil || asked.Preconditions.UID == nil || *asked.Preconditions.UID != "uid-1" {
			t.Errorf("deleted without its UID: %+v", asked)
		}
	}
	if p := w.deleted[0].PropagationPolicy; p == nil || *p != metav1.DeletePropagationBackground {
		t.Errorf("propagation %v", p)
	}
}

func TestWhatTheServerHasAgainstIt(t *testing.T) {
	jobs := schema.GroupResource{Group: "batch", Resource: "jobs"}
	cases := map[string]struct {
		answer error
		want   string
		err    bool
	}{
		"no right to make Jobs": {
			answer: apierrors.NewForbidden(jobs, "", errors.New(`User "x" cannot create resource "jobs" in API group "batch"`)),
			want:   `not allowed; the chart's value remedies.jobs=true allows it: jobs.batch is forbidden: User "x" cannot create resource "jobs" in API group "batch"`,
		},
		"another policy forbids it": {
			answer: apierrors.NewForbidden(jobs, "rem-1", errors.New("exceeded quota")), want: `not allowed: jobs.batch "rem-1" is forbidden: exceeded quota`,
		},
		"it is no Job": {
			answer: apierrors.NewInvalid(schema.GroupKind{Group: "batch", Kind: "Job"}, "rem-1", nil), want: `the server refuses the Job: Job.batch "rem-1" is invalid`,
		},
		"a controller that does not lead": {answer: apierrors.NewForbidden(jobs, "rem-1", errors.New("this controller does not lead: the write is by x")), err: true},
		"a server that does not answer":   {answer: apierrors.NewServiceUnavailable("x"), err: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, newTemplate())
			w.answer = func(client.Object) error { return c.answer }
			refusal, err := w.Check(t.Context(), newRun())
			if refusal != c.want || (err != nil) != c.err {
				t.Errorf("Check: %q, %v", refusal, err)
			}
			got, err := w.Start(t.Context(), newRun())
			if (err != nil) != c.err || (err == nil && got.Progress != remedy.Refused(c.want)) {
				t.Errorf("Start: %+v, %v", got, err)
			}
		})
	}
	t.Run("a template that is not there", func(t *testing.T) {
		want := "there is no PodTemplate mend in namespace roundhouse-system"
		if got, err := newWorld(t).Start(t.Context(), newRun()); err != nil || got.Progress != remedy.Refused(want) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestAPodThatDoesNotRun(t *testing.T) {
	w := newWorld(t, newTemplate(), newPod(func(p *corev1.Pod) {
		p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes are available",
		}}}
	}))
	got, err := w.Start(t.Context(), newRun())
	if want := remedy.Running("Job roundhouse-system/rem-1: pod rem-1-x does not run: Unschedulable: 0/1 nodes are available"); err != nil || got.Progress != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestRemedy(t *testing.T) {
	w := newWorld(t, newTemplate())
	rem := Remedy{Runner: w.Runner}
	a := remedy.Attempt{ID: "rem-1", Remediation: newRemediation(), Node: newRun().Node, Rung: v1alpha1.Rung{Name: "mend", Action: v1alpha1.RungRunJob}}
	if refusal, err := rem.Check(t.Context(), a); err != nil || refusal != "rung mend does not say what to run: set job" {
		t.Errorf("%q, %v", refusal, err)
	}
	a.Rung.Job = &v1alpha1.RunJob{PodTemplateRef: v1alpha1.LocalReference{Name: "mend"}, OnNode: true}
	if refusal, err := rem.Check(t.Context(), a); err != nil || refusal != "" {
		t.Errorf("%q, %v", refusal, err)
	}
	a.Remediation.Status.Step = &v1alpha1.Step{Remedy: &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun}}
	// A controller that died between the word Begun and the act: the Job is made.
	if got, err := rem.Look(t.Context(), a); err != nil || got.State != v1alpha1.RemedyRunning {
		t.Errorf("%+v, %v", got, err)
	}
	job, _ := w.of(t)
	if *job.Spec.ActiveDeadlineSeconds != 1200 || job.Spec.Template.Spec.Affinity == nil {
		t.Errorf("%+v", job.Spec)
	}
	if got, err := rem.Begin(t.Context(), a); err != nil || got.State != v1alpha1.RemedyRunning {
		t.Errorf("%+v, %v", got, err)
	}
	a.Remediation.Status.Step.Remedy.State = v1alpha1.RemedyRunning
	if err := rem.End(t.Context(), a); err != nil {
		t.Error(err)
	}
	if got, err := rem.Look(t.Context(), a); err != nil || got.State != v1alpha1.RemedyFailed {
		t.Errorf("a Job that somebody deleted runs again: %+v, %v", got, err)
	}
	a.Rung.Timeout = &metav1.Duration{Duration: time.Minute}
	if got := run(a).Timeout; got != time.Minute {
		t.Errorf("timeout %s", got)
	}
}

// TestPodLogs reads from a server that answers as the API server does.
func TestPodLogs(t *testing.T) {
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.String()
		if strings.Contains(asked, "gone") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat("x", readBytes+1))
	}))
	defer server.Close()
	kube, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	logs := PodLogs{Pods: kube.CoreV1()}
	text, err := logs.Tail(t.Context(), "ns", "p", "c")
	if err != nil || len(text) != readBytes {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if want := "/api/v1/namespaces/ns/pods/p/log?container=c&limitBytes=65536&tailLines=40"; asked != want {
		t.Errorf("asked for %s, want %s", asked, want)
	}
	if _, err := logs.Tail(t.Context(), "ns", "gone", "c"); err == nil {
		t.Error("no error")
	}
}

func FuzzLog(f *testing.F) {
	f.Add("a\nb", 3)
	f.Add("é\x00\xff", 1)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		if limit < 0 {
			return
		}
		got := tail(clean(text), limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\x1b\r") {
			t.Errorf("%q", got)
		}
	})
}
