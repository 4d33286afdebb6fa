package remedies

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli"
	"github.com/roundhouse-dev/roundhouse/internal/cli/plan"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
)

// gpus is a claim of so many devices.
func gpus(count int64) resourcev1.ResourceClaimSpec {
	return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "gpus",
		Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: fleet.DeviceClass, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}}}}}
}

// worksOn is a Job whose pods hold a claim on one node for as long as the test lasts.
func worksOn(t *testing.T, name, node string, pods int32, claim corev1.PodResourceClaim) {
	t.Helper()
	claim.Name = "gpus"
	create(t, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name}, Spec: batchv1.JobSpec{
		Parallelism: &pods, Completions: &pods,
		Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: ptr.To(int64(1)),
			NodeSelector: map[string]string{corev1.LabelHostname: node}, ResourceClaims: []corev1.PodResourceClaim{claim},
			Containers: []corev1.Container{{Name: "main", Image: "example.test/train",
				Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "gpus"}}}}}}}}})
	eventually(t, name+" runs", func(ctx context.Context) error {
		list, err := podsOn(ctx, metav1.NamespaceDefault, node, map[string]string{batchv1.JobNameLabel: name})
		running := 0
		for i := range list {
			if list[i].Status.Phase == corev1.PodRunning {
				running++
			}
		}
		if err == nil && running != int(pods) {
			err = fmt.Errorf("%d of %d pods run", running, pods)
		}
		return err
	})
}

// planOf runs kubectl roundhouse plan as its user does.
func planOf(t *testing.T, args ...string) (text string) {
	t.Helper()
	var out, errs bytes.Buffer
	code := cli.Run(t.Context(), append([]string{"plan", "--kubeconfig", shared.Kubeconfig()}, args...), cli.Options{
		In: strings.NewReader(""), Out: &out, Err: &errs, Zone: time.UTC, Version: "v0.0.0-test", Getenv: func(string) string { return "" }})
	if code != cli.ExitOK || errs.Len() > 0 {
		t.Fatalf("kubectl roundhouse plan %s: exit code %d: %s", strings.Join(args, " "), code, errs.String())
	}
	return out.String()
}

var wouldBeEvicted = regexp.MustCompile(`\b(\d+) pods? would be evicted in `)

// TestTheServersDryRunAgreesWithThePlan asks both about each device of a node: one job that holds two devices, two pods that
// share a claim of one, and a device that nobody holds.
func TestTheServersDryRunAgreesWithThePlan(t *testing.T) {
	node := shared.Fleet().NodeNames()[0]
	create(t, &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "plans"}, Spec: v1alpha1.RemediationPolicySpec{
		Rules: []v1alpha1.Rule{{Name: "critical", Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
			Response: v1alpha1.ResponseRepair, Ladder: []string{"reset", "human"}}},
		Rungs: []v1alpha1.Rung{{Name: "reset", Action: v1alpha1.RungResetDevice}, {Name: "human", Action: v1alpha1.RungEscalate, Message: "look"}}}})
	create(t, &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "two"},
		Spec: resourcev1.ResourceClaimTemplateSpec{Spec: gpus(2)}})
	create(t, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "one"}, Spec: gpus(1)})
	worksOn(t, "alone", node, 1, corev1.PodResourceClaim{ResourceClaimTemplateName: ptr.To("two")})
	worksOn(t, "together", node, 2, corev1.PodResourceClaim{ResourceClaimName: ptr.To("one")})

	counts := map[string]int{}
	for i := range 4 {
		_, uuid := device(t, node, i)
		var p plan.Plan
		if err := json.Unmarshal([]byte(planOf(t, node, "--device", uuid, "--server", "-o", "json")), &p); err != nil {
			t.Fatal(err)
		}
		if len(p.Server) != 1 || len(p.Rungs) != 2 {
			t.Fatalf("plan %+v", p)
		}
		asked := p.Server[0]
		t.Logf("%s: %q; %+v", uuid, asked.Said, asked.Ours)
		said := wouldBeEvicted.FindStringSubmatch(asked.Said)
		if said == nil || said[1] != fmt.Sprint(len(asked.Ours)) {
			t.Errorf("device %s: the server says %q (%s), we see %+v", uuid, asked.Said, asked.Failed, asked.Ours)
		}
		if len(p.Rungs[0].Moves) != len(asked.Ours) {
			t.Errorf("device %s: a reset moves %+v, and %+v hold it", uuid, p.Rungs[0].Moves, asked.Ours)
		}
		counts[fmt.Sprint(len(asked.Ours))]++
	}
	if counts["1"] != 2 || counts["2"] != 1 || counts["0"] != 1 {
		t.Errorf("devices by how many pods hold them: %v, want two by 1, one by 2, one by 0", counts)
	}
	var left resourcev1.DeviceTaintRuleList
	admin(t, "listing rules", shared.Client().List(t.Context(), &left, client.HasLabels{"roundhouse.dev/plan"}))
	if len(left.Items) > 0 {
		t.Errorf("rules left behind: %+v", left.Items)
	}
	running, err := podsOn(t.Context(), metav1.NamespaceDefault, node, nil)
	admin(t, "listing pods", err)
	for i := range running {
		if running[i].DeletionTimestamp != nil {
			t.Errorf("pod %s was touched", running[i].Name)
		}
	}
	t.Logf("\n%s", planOf(t, node, "--server", "--device", deviceOf(t, node)))
}

// deviceOf is the UUID of a node's first device.
func deviceOf(t *testing.T, node string) string {
	t.Helper()
	_, uuid := device(t, node, 0)
	return uuid
}
