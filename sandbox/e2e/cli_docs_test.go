package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli"
)

// docsNow is when the page was read: 10:14 in Tokyo, on a fixed clock, so that the page can be compared to the byte.
var docsNow = time.Date(2026, 11, 23, 1, 14, 0, 0, time.UTC)

// session is a console block of the page whose commands are run.
var session = regexp.MustCompile("(?s)```console\n(.*?)```")

// TestCLIPageShowsRealOutput runs the commands of docs/cli.md, in their order, against a real API server with a small
// fleet, and compares what they print with the page. UPDATE_GOLDEN=1 writes the page.
func TestCLIPageShowsRealOutput(t *testing.T) {
	page, err := filepath.Abs(filepath.Join("..", "..", "docs", "cli.md"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	p := startPlugin(t)
	p.docsFleet()
	t.Chdir(t.TempDir()) // so that the files on the page have short names
	for name, content := range map[string]string{
		"training.yaml": docsPolicy, "typo.yaml": strings.Replace(docsPolicy, "ladder: [reboot, send-back]", "ladder: [rebot, send-back]", 1),
	} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := session.ReplaceAllStringFunc(string(data), func(block string) string {
		var out strings.Builder
		out.WriteString("```console\n")
		for _, line := range strings.Split(block, "\n") {
			if command, ok := strings.CutPrefix(line, "$ kubectl roundhouse "); ok {
				fmt.Fprintf(&out, "%s\n%s", line, p.docsRun(command))
			}
		}
		return out.String() + "```"
	})
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(page, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(data), got); diff != "" {
		t.Errorf("docs/cli.md is not what the commands print; UPDATE_GOLDEN=1 go test -run TestCLIPage ./e2e writes it (-page +real):\n%s", diff)
	}
}

// quoted splits a command line as far as the page needs it: words, and texts in double quotes.
var quoted = regexp.MustCompile(`"([^"]*)"|(\S+)`)

func (p *plugin) docsRun(line string) string {
	p.t.Helper()
	var args []string
	for _, match := range quoted.FindAllStringSubmatch(line, -1) {
		args = append(args, match[1]+match[2])
	}
	var out bytes.Buffer
	code := cli.Run(p.t.Context(), append(args, "--kubeconfig", p.kubeconfig), cli.Options{
		In: strings.NewReader(""), Out: &out, Err: &out, Now: func() time.Time { return docsNow },
		Zone: time.FixedZone("JST", 9*60*60), Version: "v0.1.0", Getenv: func(string) string { return "" },
	})
	if code != 0 {
		fmt.Fprintf(&out, "(exit code %d)\n", code)
	}
	return out.String()
}

const docsPolicy = `apiVersion: roundhouse.dev/v1alpha1
kind: RemediationPolicy
metadata: {name: training}
spec:
  mode: Remediate
  priority: 100
  nodeSelector: {matchLabels: {pool: training}}
  rules:
  - {name: application-errors, match: {classes: [Application]}, response: Ignore}
  - {name: one-bad-device, match: {scope: Device, severities: [Critical]}, response: Repair, when: Idle, deadline: 12h, ladder: [reboot, send-back]}
  - {name: what-npd-says, match: {nodeConditions: [{type: KernelDeadlock, status: "True", for: 2m}]}, response: Repair, ladder: [reboot, send-back]}
  rungs:
  - {name: reboot, action: Reboot, timeout: 20m, attempts: 2}
  - {name: send-back, action: Escalate, message: replace the device; the proof is in the incident}
  drain: {classes: [{name: spare, match: {expression: "'tier' in namespaceObject.labels && namespaceObject.labels['tier'] == 'spare'"}, cost: Free}]}
  loop: {maxRepairs: 3, window: 720h}
  verify: {settle: 2m}
`

// accepted is a policy's status after the controller has judged it.
const accepted = `{"status":{"observedGeneration":1,"matchedNodes":%d,"conditions":[{"type":"Accepted","status":"True","reason":"Valid","message":"every rule can be followed","lastTransitionTime":"2026-11-20T00:00:00Z"}],"brake":{"state":"Released"}}}`

// docsFleet is twelve nodes of eight GPUs in two racks, and one in a lab that is only observed.
func (p *plugin) docsFleet() {
	p.t.Helper()
	for i := range 12 {
		name, rack := fmt.Sprintf("gpu-%04d", 401+i), "r25"
		if i >= 8 {
			name, rack = fmt.Sprintf("gpu-%04d", 417+i-8), "r26"
		}
		p.docsNode(name, "training", rack)
	}
	p.docsNode("gpu-lab-1", "lab", "r99")
	p.applyYAML(docsPolicy)
	p.applyYAML("apiVersion: roundhouse.dev/v1alpha1\nkind: RemediationPolicy\nmetadata: {name: lab}\nspec:\n  nodeSelector: {matchLabels: {pool: lab}}\n  rules:\n" +
		"  - {name: everything, match: {any: true}, response: Repair, ladder: [reboot]}\n  rungs: [{name: reboot, action: Reboot}]\n")
	for name, nodes := range map[string]int{"training": 12, "lab": 1} {
		call{http.MethodPatch, policies + name + "/status", fmt.Sprintf(accepted, nodes)}.must(p.t, p.core)
	}
	p.put(budgets, "per-rack", `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeDisruptionBudget","metadata":{"name":"per-rack"},"spec":{"nodeSelector":{"matchLabels":{"pool":"training"}},"topologyKey":"rack","maxUnavailable":1}}`,
		`{"reservations":[{"node":"gpu-0403","nodeUID":"u","remediation":"gpu-0403-k3q7x2m9ab","remediationUID":"u","domain":"r25","since":"2026-11-23T00:58:00Z"}]}`)
	call{http.MethodPatch, nodes + "gpu-0419", `{"metadata":{"labels":{"nvidia.com/gpu-driver-upgrade-state":"drain-required"}}}`}.must(p.t, p.core)
	p.docsIncidents()
	p.put(records, "gpu-0417-3", `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"DeviceRecord","metadata":{"name":"gpu-0417-3"},"spec":{}}`,
		`{"identity":{"uuid":"GPU-0417-3","serial":"13240417","model":"H200"},"places":[{"node":"gpu-0417","slot":"3","from":"2026-03-02T00:00:00Z"}],
		"incidents":[{"remediation":"gpu-0417-a2b4c6d8e0","code":"Xid79","repairedBy":"reboot","repairs":1,"outcome":"Succeeded","at":"2026-11-09T03:00:00Z","ended":"2026-11-10T04:10:00Z"}],
		"totals":{"incidents":2,"repairs":1,"relapses":0,"outHours":"25.17"},"suspicion":{"level":"Watch","because":["2 incidents in 28 days"]}}`)
	p.docsDaemonSets()
	p.docsPods()
	p.docsGang()
}

// docsPods is seven jobs of one device each on gpu-0402, whose fourth device is bad.
func (p *plugin) docsPods() {
	p.t.Helper()
	const base = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/"
	call{http.MethodPost, "/api/v1/namespaces/default/serviceaccounts", `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}`}.must(p.t, p.core)
	for slot := range 8 {
		if slot == 3 {
			continue
		}
		name, began := fmt.Sprintf("train-%d", slot), docsNow.Add(-150*time.Minute)
		if slot == 7 {
			began = docsNow.Add(-210 * time.Minute)
		}
		p.put(base, name, fmt.Sprintf(`{"apiVersion":"resource.k8s.io/v1","kind":"ResourceClaim","metadata":{"name":%q},
			"spec":{"devices":{"requests":[{"name":"gpu","exactly":{"deviceClassName":"gpu.nvidia.com"}}]}}}`, name),
			fmt.Sprintf(`{"allocation":{"devices":{"results":[{"request":"gpu","driver":"gpu.nvidia.com","pool":"gpu-0402","device":"gpu-%d"}]}}}`, slot))
		p.put("/api/v1/namespaces/default/pods/", name, fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%[1]q,
			"ownerReferences":[{"apiVersion":"batch/v1","kind":"Job","name":%[1]q,"uid":"u","controller":true}]},
			"spec":{"nodeName":"gpu-0402","automountServiceAccountToken":false,"resourceClaims":[{"name":"gpu","resourceClaimName":%[1]q}],
			"containers":[{"name":"main","image":"registry.example.com/train"}]}}`, name),
			fmt.Sprintf(`{"phase":"Running","startTime":%q}`, began.Format(time.RFC3339)))
	}
}

// docsGang is a gang on two nodes, which has kept its work an hour and a half ago.
func (p *plugin) docsGang() {
	p.t.Helper()
	for i, node := range []string{"gpu-0401", "gpu-0404"} {
		p.put("/api/v1/namespaces/default/pods/", fmt.Sprintf("pretrain-%d", i), fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"pretrain-%d",
			"labels":{"jobset.sigs.k8s.io/jobset-name":"pretrain"},"annotations":{%q:%q},
			"ownerReferences":[{"apiVersion":"batch/v1","kind":"Job","name":"pretrain-workers-0","uid":"g","controller":true}]},
			"spec":{"nodeName":%q,"automountServiceAccountToken":false,"containers":[{"name":"main","image":"registry.example.com/train",
			"resources":{"limits":{"nvidia.com/gpu":"8"}}}]}}`, i, v1alpha1.AnnotationCheckpoint, docsNow.Add(-90*time.Minute).Format(time.RFC3339), node),
			fmt.Sprintf(`{"phase":"Running","startTime":%q}`, docsNow.Add(-40*time.Hour).Format(time.RFC3339)))
	}
}

func (p *plugin) docsNode(name, pool, rack string) {
	p.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool, "rack": rack}}}
	made, err := p.core.CoreV1().Nodes().Create(p.t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	reporting := corev1.NodeCondition{Type: v1alpha1.ConditionReporting, Status: corev1.ConditionTrue, Reason: "Fresh", LastTransitionTime: metav1.NewTime(docsNow.Add(-96 * time.Hour))}
	if name == "gpu-0408" {
		reporting.Status, reporting.Reason, reporting.Message = corev1.ConditionUnknown, "Silent", "the agent's pod is not Ready"
		reporting.LastTransitionTime = metav1.NewTime(docsNow.Add(-20 * time.Minute))
	}
	made.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, reporting}
	if _, err := p.core.CoreV1().Nodes().UpdateStatus(p.t.Context(), made, metav1.UpdateOptions{}); err != nil {
		p.t.Fatal(err)
	}
	var devices []string
	for slot := range 8 {
		health := "Healthy"
		if slot == 3 && docsFaults[name] != "" {
			health = "Unhealthy"
		}
		devices = append(devices, fmt.Sprintf(`{"id":"%s-%d","model":"H200","serial":"1324%s","slot":"%d","health":%q}`,
			strings.ToUpper(name), slot, strings.TrimPrefix(name, "gpu-"), slot, health))
	}
	summary, faults, checks := "Healthy", "", ""
	if evidence := docsFaults[name]; evidence != "" {
		summary = "Faulty"
		faults = fmt.Sprintf(`{"code":"Xid79","check":"kernel-log","device":"%s-3","class":"Hardware","severity":"Critical","recommended":"Reboot",
			"firstSeen":"2026-11-23T01:00:00Z","lastSeen":"2026-11-23T01:00:00Z","count":1,"root":true,"evidence":%q}`, strings.ToUpper(name), evidence)
		checks = `{"name":"kernel-log","result":"Failing","since":"2026-11-23T01:00:00Z"},{"name":"pci","result":"Unknown","reason":"TimedOut","message":"config space was not read within 5s","since":"2026-11-23T01:00:12Z"}`
	}
	p.put(nodeHealths, name, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth","metadata":{"name":%q},"spec":{"nodeUID":%q,"fence":1}}`, name, made.UID),
		fmt.Sprintf(`{"summary":%q,"bootID":"0fc70fad","agentVersion":"v0.1.0","supportedActions":["Reboot"],"devices":[%s],"faults":[%s],"checks":[%s],
		"completedRound":{"bootID":"0fc70fad","afterAction":"%s-a2b4c6d8e0-1","at":"2026-11-09T03:15:00Z"},
		"boots":[{"id":"5f1c9a2e","at":"2026-10-30T02:00:00Z","cause":"Other"},{"id":"0fc70fad","at":"2026-11-09T03:12:00Z","cause":"Roundhouse","action":"%s-a2b4c6d8e0-1"}]}`,
			summary, strings.Join(devices, ","), faults, checks, name, name))
}

// docsFaults are the nodes with a fault, and the line that shows it.
var docsFaults = map[string]string{
	"gpu-0402": fallen, "gpu-0403": fallen, "gpu-0405": fallen, "gpu-0417": fallen, "gpu-lab-1": fallen,
}

const fallen = "NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus."

// docsIncidents puts an incident on each node with a fault, and one in probation.
func (p *plugin) docsIncidents() {
	p.t.Helper()
	for _, in := range []struct{ node, policy, rule, phase, reason, message, change, more string }{
		{"gpu-0402", "training", "one-bad-device", "Pending", "WaitingForIdle", "a reboot would kill 7 job pods (18.5 device-hours): waiting for idle until 2026-11-23T13:00:00Z",
			"the jobs end, or kubectl roundhouse approve gpu-0402 --skip-idle", `,"deadline":"2026-11-23T13:00:00Z","drain":{"podsLeft":7,"workAtRisk":"18.5 device-hours","scope":"Node"}`},
		{"gpu-0403", "training", "one-bad-device", "Draining", "EvictionStuck", "ml/infer-3: PodDisruptionBudget infer never allows an eviction: it asks for 3 healthy pods, and there are to be 3",
			"a human changes the budget, or stops the pod", `,"deadline":"2026-11-23T02:00:00Z","step":{"rung":"reboot","index":0,"attempt":1},"drain":{"podsLeft":1,"podsMoved":2,"scope":"Node","blockers":[{"pod":"ml/infer-3","reason":"EvictionStuck","message":"PodDisruptionBudget infer never allows an eviction: it asks for 3 healthy pods, and there are to be 3"}]}`},
		{"gpu-0405", "training", "one-bad-device", "Escalated", "AttemptsSpent", "replace the device; the proof is in the incident",
			"the part replaced; kubectl roundhouse approve NODE --retry; or kubectl roundhouse release NODE", `,"step":{"rung":"reboot","index":0,"attempt":2},"attempts":[{"rung":"reboot","index":0,"at":"2026-11-23T01:06:00Z","result":"NotRepaired"},{"rung":"reboot","index":0,"at":"2026-11-23T01:12:00Z","result":"NotRepaired"}]`},
		{"gpu-0417", "training", "one-bad-device", "Pending", "BudgetExhausted", "per-rack: 1 of 1 nodes in rack r26 are out (gpu-0419, GPU operator driver upgrade)",
			"gpu-0419 returns, or per-rack allows 2", `,"deadline":"2026-11-23T13:00:00Z"`},
		{"gpu-0420", "training", "one-bad-device", "Probation", "Verified", "boot 0fc70fad, 8 of 8 devices healthy", "a relapse before 2026-11-24T01:05:00Z",
			`,"deadline":"2026-11-24T01:05:00Z","step":{"rung":"reboot","index":0,"attempt":1},"attempts":[{"rung":"reboot","index":0,"at":"2026-11-23T01:05:00Z","result":"Repaired"}]`},
		{"gpu-lab-1", "lab", "everything", "Pending", "ModeObserve", "observing only; would quarantine 1 device, move 1 pod, reboot at once (rule everything)", "mode Quarantine or Remediate in the node's policy", ""},
	} {
		name, device := in.node+"-k3q7x2m9ab", strings.ToUpper(in.node)+"-3"
		node, err := p.core.CoreV1().Nodes().Get(p.t.Context(), in.node, metav1.GetOptions{})
		if err != nil {
			p.t.Fatal(err)
		}
		quarantined := fmt.Sprintf(`,"quarantined":[{"kind":"DeviceTaintRule","name":"%s-0","deviceID":%q,"driver":"gpu.nvidia.com","pool":%q,"device":"gpu-3"}]`, name, device, in.node)
		kept := `,{"at":"2026-11-23T01:00:01Z","phase":"Pending","reason":"DeviceQuarantined","message":"1 of 8 devices kept from new work; 7 keep serving"}`
		if in.policy == "lab" || in.phase == "Probation" {
			quarantined = ""
		}
		if in.policy == "lab" {
			kept = ""
		}
		p.put(remediations, name, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"Remediation","metadata":{"name":%q},"spec":{"node":%q,"nodeUID":%q,
			"root":{"code":"Xid79","device":%q,"firstSeen":"2026-11-23T01:00:00Z"},"devices":[%q],"policy":%q,
			"quarantine":[{"kind":"DeviceTaintRule","name":"%s-0","deviceID":%q}]}}`, name, in.node, node.UID, device, device, in.policy, name, device),
			fmt.Sprintf(`{"phase":%q,"reason":%q,"message":%q,"wouldChange":%q,"rule":%q,"policyGeneration":1,"since":"2026-11-23T01:05:00Z",
			"timeline":[{"at":"2026-11-23T01:00:00Z","phase":"Pending","reason":"FaultsReported","message":"Xid79 on slot 3 (%s)"}%s]%s%s}`,
				in.phase, in.reason, in.message, in.change, in.rule, device, kept, quarantined, in.more))
	}
}

func (p *plugin) docsDaemonSets() {
	p.t.Helper()
	for name, tolerations := range map[string]string{"nvidia-driver-daemonset": `[]`, "node-exporter": `[]`, "kured": `[{"operator":"Exists"}]`} {
		object := fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":%[1]q,"namespace":"kube-system"},"spec":{"selector":{"matchLabels":{"a":%[1]q}},
			"template":{"metadata":{"labels":{"a":%[1]q}},"spec":{"tolerations":%[2]s,"containers":[{"name":"c","image":"registry.example.com/%[1]s"}]}}}}`, name, tolerations)
		call{http.MethodPost, "/apis/apps/v1/namespaces/kube-system/daemonsets/", object}.must(p.t, p.core)
	}
}
