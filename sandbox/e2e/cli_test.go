package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli"
)

// plugin runs kubectl-roundhouse as its user does, against one API server.
type plugin struct {
	*apiServer
	t          *testing.T
	kubeconfig string
}

// answer is what one command line gave.
type answer struct {
	code     int
	out, err string
}

func startPlugin(t *testing.T) *plugin {
	t.Helper()
	p := &plugin{apiServer: startAPIServer(t, "crd", "rbac"), t: t, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	if err := p.WriteKubeconfig(p.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plugin) runWith(stdin string, args ...string) answer {
	p.t.Helper()
	var out, err bytes.Buffer
	code := cli.Run(p.t.Context(), append(args, "--kubeconfig", p.kubeconfig), cli.Options{
		In: strings.NewReader(stdin), Out: &out, Err: &err, Zone: time.UTC, Version: "v0.0.0-test",
		Getenv: func(string) string { return "" },
	})
	a := answer{code, out.String(), err.String()}
	p.t.Logf("$ kubectl roundhouse %s\n%s%s(exit %d)", strings.Join(args, " "), a.out, a.err, a.code)
	return a
}

// run runs a command line and demands its exit code.
func (p *plugin) run(code int, args ...string) answer {
	p.t.Helper()
	a := p.runWith("", args...)
	if a.code != code {
		p.t.Errorf("kubectl roundhouse %s: exit code %d, want %d", strings.Join(args, " "), a.code, code)
	}
	return a
}

// says demands that an answer holds each text.
func (a answer) says(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(a.out+a.err, text) {
			t.Errorf("the answer does not say %q", text)
		}
	}
}

// put creates an object and writes its status.
func (p *plugin) put(path, name, object, status string) {
	p.t.Helper()
	call{http.MethodPost, path, object}.must(p.t, p.core)
	if status != "" {
		call{http.MethodPatch, path + name + "/status", `{"status":` + status + `}`}.must(p.t, p.core)
	}
}

func (p *plugin) node(name string, labels map[string]string, reporting corev1.ConditionStatus) {
	p.t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	made, err := p.core.CoreV1().Nodes().Create(p.t.Context(), node, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	made.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if reporting != "" {
		made.Status.Conditions = append(made.Status.Conditions, corev1.NodeCondition{
			Type: v1alpha1.ConditionReporting, Status: reporting, LastTransitionTime: metav1.Now(), Reason: "Test", Message: "no word for 3m",
		})
	}
	if _, err := p.core.CoreV1().Nodes().UpdateStatus(p.t.Context(), made, metav1.UpdateOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

const (
	faultJSON = `{"code":"Xid79","check":"kernel-log","device":"GPU-%[1]s","class":"Hardware","severity":"Critical","recommended":"Reboot",
		"firstSeen":"2026-11-23T01:00:00Z","lastSeen":"2026-11-23T01:00:00Z","count":1,"root":true,"evidence":"NVRM: Xid (PCI:0000:18:00): 79, GPU has fallen off the bus."}`
	deviceJSON = `{"id":"GPU-%[1]s","model":"H200","serial":"1324","slot":"3","health":"%[2]s"},{"id":"GPU-%[1]s-b","slot":"4","health":"Healthy"}`
)

func (p *plugin) health(node, summary string) {
	p.t.Helper()
	device, faults := "Healthy", ""
	if summary == "Faulty" {
		device, faults = "Unhealthy", fmt.Sprintf(faultJSON, node)
	}
	p.put(nodeHealths, node, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeHealth","metadata":{"name":%q},"spec":{"nodeUID":"u","fence":1}}`, node),
		fmt.Sprintf(`{"summary":%q,"bootID":"b1","agentVersion":"v0.0.0-test","supportedActions":["Reboot"],"devices":[%s],"faults":[%s]}`, summary, fmt.Sprintf(deviceJSON, node, device), faults))
}

func (p *plugin) incident(node, phase, reason, message string) string {
	p.t.Helper()
	name := node + "-abcdefghij"
	object, err := p.core.CoreV1().Nodes().Get(p.t.Context(), node, metav1.GetOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(remediations, name, fmt.Sprintf(`{"apiVersion":"roundhouse.dev/v1alpha1","kind":"Remediation","metadata":{"name":%q},"spec":{"node":%q,"nodeUID":%q,
		"root":{"code":"Xid79","device":"GPU-%s","firstSeen":"2026-11-23T01:00:00Z"},"devices":["GPU-%s"],"policy":"training"}}`, name, node, object.UID, node, node),
		fmt.Sprintf(`{"phase":%q,"reason":%q,"message":%q,"wouldChange":"something else","rule":"one-bad-device","since":"2026-11-23T01:00:00Z",
		"timeline":[{"at":"2026-11-23T01:00:00Z","phase":"Pending","reason":"FaultsReported","message":"Xid79 on slot 3"}]}`, phase, reason, message))
	return name
}

const policyYAML = `apiVersion: roundhouse.dev/v1alpha1
kind: RemediationPolicy
metadata: {name: training}
spec:
  mode: Remediate
  nodeSelector: {matchLabels: {pool: training}}
  rules:
  - {name: application-errors, match: {classes: [Application]}, response: Ignore}
  - {name: one-bad-device, match: {scope: Device, severities: [Critical]}, response: Repair, when: Idle, deadline: 12h, ladder: [reboot, send-back]}
  rungs:
  - {name: reboot, action: Reboot, attempts: 2}
  - {name: send-back, action: Escalate, message: replace the device}
`

// fleet makes a small fleet: a healthy node, one in each of some phases, a silent one, and one without accelerators.
func (p *plugin) fleet() {
	p.t.Helper()
	training := map[string]string{"pool": "training", "rack": "r1"}
	for _, name := range []string{"good", "waits", "drains", "stuck"} {
		p.node(name, training, corev1.ConditionTrue)
	}
	p.node("silent", training, corev1.ConditionUnknown)
	p.node("bare", map[string]string{"nvidia.com/gpu.present": "true"}, "")
	p.node("cpu", nil, "")
	p.health("good", "Healthy")
	p.health("silent", "Healthy")
	for _, name := range []string{"waits", "drains", "stuck"} {
		p.health(name, "Faulty")
	}
	p.applyYAML(policyYAML)
	call{http.MethodPatch, policies + "training/status", `{"status":{"observedGeneration":1,"matchedNodes":5,"conditions":[{"type":"Accepted","status":"True","reason":"Valid","message":"ok","lastTransitionTime":"2026-11-23T00:00:00Z"}],"brake":{"state":"Released"}}}`}.must(p.t, p.core)
	p.incident("waits", "Pending", "WaitingForIdle", "a reboot would kill 7 job pods: waiting for idle until 2026-11-23T22:00:00Z")
	p.incident("drains", "Draining", "Evicting", "moving 2 pods")
	p.incident("stuck", "Escalated", "AttemptsSpent", "replace the device")
	p.put(budgets, "per-rack", `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"NodeDisruptionBudget","metadata":{"name":"per-rack"},"spec":{"nodeSelector":{"matchLabels":{"pool":"training"}},"topologyKey":"rack","maxUnavailable":"40%"}}`,
		`{"reservations":[{"node":"drains","nodeUID":"u","remediation":"drains-abcdefghij","remediationUID":"u","domain":"r1","since":"2026-11-23T01:00:00Z"}]}`)
	p.put(records, "gpu-stuck", `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"DeviceRecord","metadata":{"name":"gpu-stuck"},"spec":{}}`,
		`{"identity":{"uuid":"GPU-stuck","serial":"1324","model":"H200"},"places":[{"node":"stuck","slot":"3","from":"2026-10-01T00:00:00Z"}],
		"incidents":[{"remediation":"stuck-older","code":"Xid48","repairedBy":"reboot","repairs":1,"outcome":"Succeeded","at":"2026-10-05T00:00:00Z","ended":"2026-10-05T02:00:00Z"}],
		"totals":{"incidents":2,"repairs":1,"relapses":0,"outHours":"2.00"},"suspicion":{"level":"Watch","because":["2 incidents in 28 days"]}}`)
}

func (p *plugin) applyYAML(yaml string) {
	p.t.Helper()
	file := filepath.Join(p.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := p.Apply(p.t.Context(), os.DirFS(filepath.Dir(file)), filepath.Base(file)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plugin) remediation(name string) *v1alpha1.Remediation {
	p.t.Helper()
	r := &v1alpha1.Remediation{}
	data := call{http.MethodGet, remediations + name, ""}.must(p.t, p.core)
	if err := json.Unmarshal(data, r); err != nil {
		p.t.Fatal(err)
	}
	return r
}

func TestKubectlPlugin(t *testing.T) {
	p := startPlugin(t)
	p.fleet()
	t.Run("status shows the fleet on one screen", func(t *testing.T) { p.at(t).checkStatus() })
	t.Run("why answers for each node", func(t *testing.T) { p.at(t).checkWhy() })
	t.Run("--watch goes on until it is interrupted", func(t *testing.T) { p.at(t).checkWatch() })
	t.Run("history knows nodes, devices and records", func(t *testing.T) { p.at(t).checkHistory() })
	t.Run("check judges manifests as the server does", func(t *testing.T) { p.at(t).checkManifests() })
	t.Run("check --cluster finds what must be fixed", func(t *testing.T) { p.at(t).checkPreflight() })
	t.Run("hold and stop hold, and say whom", func(t *testing.T) { p.at(t).checkHolds() })
	t.Run("who may only hold can stop, and let it go on", func(t *testing.T) { p.at(t).checkRoles() })
	t.Run("approve adds a human's word", func(t *testing.T) { p.at(t).checkApprovals() })
	t.Run("maintain asks for planned work, and takes it back", func(t *testing.T) { p.at(t).checkMaintain() })
	t.Run("errors name the flag and the fix", func(t *testing.T) { p.at(t).checkErrors() })
	t.Run("release cancels and lifts", func(t *testing.T) { p.at(t).checkRelease() })
	t.Run("release --all waits until nothing is left", func(t *testing.T) { p.at(t).checkReleaseAll() })
}

// at is the same plugin in a subtest.
func (p *plugin) at(t *testing.T) *plugin {
	t.Helper()
	return &plugin{apiServer: p.apiServer, t: t, kubeconfig: p.kubeconfig}
}

func (p *plugin) checkStatus() {
	p.run(0, "status").says(p.t,
		"6 nodes with accelerators, 10 devices", "1 healthy, 3 faulty, 2 unknown, 0 acting", "5 healthy, 3 unhealthy, 0 missing, 2 unknown",
		"4 of 6 nodes report; silent: bare, silent", "training  Remediate  5 nodes", "no policy selects 1 node",
		"Escalated 1", "Draining 1", "Pending 1", "1 of 2 nodes out", "ours: drains", "released")
	p.run(0, "status", "-o", "wide").says(p.t, "waits-abcdefghij", "WaitingForIdle")
	p.run(0, "status", "-o", "name").says(p.t, "remediation.roundhouse.dev/stuck-abcdefghij\n")
	p.run(0, "status", "-o", "yaml").says(p.t, "kind: Status", "open: 3")
	var status struct {
		Coverage struct{ Reporting, Of int }
	}
	if err := json.Unmarshal([]byte(p.run(0, "status", "-o", "json").out), &status); err != nil || status.Coverage.Of != 6 {
		p.t.Errorf("status -o json: %+v, %v", status, err)
	}
}

func (p *plugin) checkWhy() {
	p.run(0, "why", "good").says(p.t, "good  HEALTHY", "2 of 2 devices serving", "checks: all pass; no complete round is published", "agent v0.0.0-test reports, since", "Waiting   nothing")
	p.run(0, "why", "silent").says(p.t, "UNKNOWN", "the agent does not report: no word for 3m", "Waiting   for the agent to report again, since", "Deadline  none is set")
	p.run(0, "why", "bare").says(p.t, "NO AGENT", "no policy governs this node")
	p.run(0, "why", "waits").says(p.t, "WAITING until no work would be lost", "Nov 23 22:00 UTC", "budget per-rack: 1 of 40% nodes of rack r1",
		"training/one-bad-device, generation 1, mode Remediate", "something else")
	p.run(0, "why", "drains").says(p.t, "DRAINING", "moving 2 pods")
	p.run(0, "why", "stuck").says(p.t, "ESCALATED", "device gpu-stuck: 2 incidents, 1 repair", "approve stuck --retry")
	p.run(0, "why", "stuck", "-o", "name").says(p.t, "remediation.roundhouse.dev/stuck-abcdefghij\n")
	p.run(0, "why", "stuck", "-o", "wide").says(p.t, "remediation stuck-abcdefghij, phase Escalated, reason AttemptsSpent")
	p.run(0, "why", "stuck", "-o", "yaml").says(p.t, "state: Escalated", "kind: Why")
	p.run(1, "why", "drain").says(p.t, "NO SUCH NODE", "did you mean drains?", `there is no node "drain"`)
}

func (p *plugin) checkMaintain() {
	request := func() string { return p.nodeNow("good").Annotations[v1alpha1.AnnotationMaintenance] }
	p.run(1, "maintain", "goof", "--reason", "x", "--by", "me").says(p.t, `there is no node "goof"`)
	p.run(1, "maintain", "good", "--reason", "x", "--by", "me", "--action", "explode").says(p.t, `has no rung "explode"; it has: `, "Nothing was planned")
	p.run(1, "maintain", "-l", "pool=nowhere", "--reason", "x", "--by", "me").says(p.t, "selects no node")
	p.run(2, "maintain", "good", "--reason", "x", "--by", "me", "--not-before", "2099-01-02", "--until", "2099-01-01").says(p.t, "until must come after notBefore")
	p.run(0, "maintain", "good", "--reason", "a new kernel", "--by", "me", "--action", "reboot", "--dry-run=server").says(p.t, "nothing was changed")
	if request() != "" {
		p.t.Errorf("a dry run has written %s", request())
	}
	p.run(0, "maintain", "good", "--reason", "a new kernel", "--by", "me", "--action", "reboot", "--window").says(p.t,
		"work on good is planned", "reboot; in a window of the policy", "a human is told where it has not begun by")
	if text := request(); !strings.Contains(text, `"rung":"reboot"`) || !strings.Contains(text, `"when":"Window"`) || !strings.Contains(text, `"by":"me"`) {
		p.t.Errorf("the request is %q", text)
	}
	p.run(0, "maintain", "bare", "--reason", "x", "--by", "me").says(p.t, "the node empty, for you", "1 node waits for a policy that selects them")
	p.run(0, "maintain", "bare", "--done", "-o", "name").says(p.t, "node/bare\n")
	p.run(0, "maintain", "good", "--done").says(p.t, "good given back")
	p.run(0, "maintain", "good", "--done").says(p.t, "nothing was planned there")
	if request() != "" {
		p.t.Errorf("the request is still there: %s", request())
	}
}

// nodeNow reads a Node.
func (p *plugin) nodeNow(name string) *corev1.Node {
	p.t.Helper()
	node := &corev1.Node{}
	if err := json.Unmarshal(call{http.MethodGet, "/api/v1/nodes/" + name, ""}.must(p.t, p.core), node); err != nil {
		p.t.Fatal(err)
	}
	return node
}

func (p *plugin) checkWatch() {
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Second)
	defer cancel()
	var out bytes.Buffer
	code := cli.Run(ctx, []string{"why", "good", "--watch", "--kubeconfig", p.kubeconfig}, cli.Options{Out: &out, Err: &out})
	if answers := strings.Count(out.String(), "good  HEALTHY"); code != 0 || answers < 2 {
		p.t.Errorf("exit code %d after %d answers, want 0 after at least 2:\n%s", code, answers, out.String())
	}
}

func (p *plugin) checkHistory() {
	p.run(0, "history", "stuck").says(p.t, "BEGAN", "Xid79", "Escalated", "stuck-older (from the device's record)", "reboot repaired", "suspicion Watch")
	if a := p.run(0, "history", "GPU-stuck", "--no-headers"); strings.Contains(a.out, "BEGAN") || !strings.Contains(a.out, "stuck-abcdefghij") {
		p.t.Error("--no-headers shows a header, or the device's incident is missing")
	}
	p.run(0, "history", "1324", "-o", "json").says(p.t, `"kind": "History"`, `"fault": "Xid48"`)
	p.run(0, "history", "good").says(p.t, "no incident is remembered")
	p.run(1, "history", "nothing").says(p.t, "there is no node")
}

func (p *plugin) checkManifests() {
	file := func(name, content string) string {
		path := filepath.Join(p.t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			p.t.Fatal(err)
		}
		return path
	}
	p.run(0, "check", file("good.yaml", policyYAML)).says(p.t, "VALID", "1. application-errors: class Application: count and show it, never act",
		"2. one-bad-device: severity Critical, scope Device: quarantine, then reboot, then send-back; when idle", "5: drains, good, silent, stuck, waits")
	invalid := file("bad.yaml", strings.Replace(policyYAML, "ladder: [reboot, send-back]", "ladder: [rebot]", 1))
	p.run(1, "check", invalid).says(p.t, "INVALID", "names a rung")
	p.run(1, "check", "--offline", invalid).says(p.t, "names a rung")
	p.run(1, "check", "-f", file("cel.yaml", strings.Replace(policyYAML, "classes: [Application]", `expression: "fault.nonsense > 3"`, 1))).says(p.t, "INVALID", "nonsense")
	p.run(1, "check", file("tie.yaml", strings.Replace(policyYAML, "name: training", "name: other", 1))).says(p.t, "training has the same priority")
	hold := `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"RemediationHold","metadata":{"name":"h"},"spec":{"nodes":["good"],"reason":"r","requestedBy":"me"}}`
	if a := p.runWith(hold, "check", "-", "-o", "json"); a.code != 0 || !strings.Contains(a.out, `"valid": true`) {
		p.t.Errorf("a valid hold on stdin: exit code %d", a.code)
	}
}

func (p *plugin) checkPreflight() {
	daemonSet := func(name string, tolerations string) string {
		return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":%[1]q,"namespace":"default"},"spec":{"selector":{"matchLabels":{"a":%[1]q}},
			"template":{"metadata":{"labels":{"a":%[1]q}},"spec":{"tolerations":%[2]s,"containers":[{"name":"c","image":"example.com/x"}]}}}}`, name, tolerations)
	}
	for name, tolerations := range map[string]string{
		"nvidia-driver-daemonset": `[]`, "log-shipper": `[]`, "kured": `[{"operator":"Exists"}]`,
		"nvidia-device-plugin": `[{"key":"roundhouse.dev/quarantined","operator":"Exists","effect":"NoSchedule"}]`,
	} {
		call{http.MethodPost, "/apis/apps/v1/namespaces/default/daemonsets/", daemonSet(name, tolerations)}.must(p.t, p.core)
	}
	a := p.run(1, "check", "--cluster")
	a.says(p.t, "v1.37", "DaemonSet default/nvidia-driver-daemonset does not tolerate roundhouse.dev/quarantined",
		"{key: roundhouse.dev/quarantined, operator: Exists, effect: NoSchedule}", "default/log-shipper", "on nodes with accelerators 1 DaemonSet does not tolerate", "kured is here (DaemonSet default/kured)",
		"no agent has reported on 1 node with accelerators: bare", "the agent is silent, or the controller does not vouch for it, on 1 node", "no policy selects 1 node", "must be fixed")
	if strings.Contains(a.out, "nvidia-device-plugin") {
		p.t.Error("a DaemonSet that tolerates the taint is blamed")
	}
	p.run(1, "check", "--cluster", "-o", "json").says(p.t, `"severity": "Must"`)
}

func (p *plugin) checkHolds() {
	p.run(2, "hold", "good").says(p.t, "--reason is required")
	p.run(1, "hold", "goood", "--reason", "x").says(p.t, `there is no node "goood"; nothing was held; did you mean good?`)
	p.run(0, "hold", "good", "drains", "--reason", "demo", "--for", "2h", "--dry-run").says(p.t, "nothing was changed")
	p.run(0, "hold", "good", "drains", "--reason", "demo", "--for", "2h", "--name", "demo").says(p.t, "remediationhold.roundhouse.dev/demo created", "2 nodes, until", "(in 120m)", "drains is Draining")
	p.run(0, "hold", "good", "--reason", "mine").says(p.t, "hold-good-", "until it is released")
	p.run(0, "hold", "-l", "pool=training", "--reason", "night", "-o", "yaml", "--by", "y.sato").says(p.t, "requestedBy: y.sato", "pool: training")
	p.run(0, "stop", "--reason", "something is odd", "-o", "name").says(p.t, "remediationhold.roundhouse.dev/stop\n")
	p.run(0, "stop", "--reason", "something is odd", "--everything").says(p.t, "stop changed", "7 nodes")
	p.run(0, "status").says(p.t, "stop: 7 nodes, quarantine too, by", `"something is odd"`)
	p.run(0, "why", "good").says(p.t, "held all the same", "hold demo by")
	p.run(0, "release", "stop").says(p.t, "stop lifted")
}

// checkRoles uses the roles of config/rbac/people.yaml each by itself: in an emergency nobody wants to learn that stop
// also needs to list Nodes.
func (p *plugin) checkRoles() {
	for user, role := range map[string]string{"holly": "roundhouse-holder", "oscar": "roundhouse-operator"} {
		binding := fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":%q},
			"subjects":[{"apiGroup":"rbac.authorization.k8s.io","kind":"User","name":%q}]}`, user, role, user)
		call{http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/", binding}.must(p.t, p.core)
	}
	eventually(p.t, "holly may stop", func() error {
		if a := p.runWith("", "stop", "--reason", "smoke", "--as", "holly"); a.code != 0 {
			return fmt.Errorf("exit code %d: %s", a.code, a.err)
		}
		return nil
	})
	p.run(0, "stop", "--reason", "smoke", "--as", "holly").says(p.t, "every node it selects", "kubectl roundhouse release stop")
	p.run(0, "hold", "good", "--reason", "smoke", "--name", "hollys", "--as", "holly").says(p.t, "hollys created")
	p.run(0, "release", "stop", "hold/hollys", "--as", "holly").says(p.t, "stop lifted", "hollys lifted")
	p.run(3, "release", "drains", "--as", "holly").says(p.t, "forbidden")
	p.run(0, "release", "node/drains", "--as", "oscar", "--dry-run=server").says(p.t, "cancelled", "were not looked at")
	p.run(0, "approve", "drains", "--skip-idle", "--as", "oscar").says(p.t, "approved")
	p.run(3, "stop", "--reason", "x", "--as", "oscar").says(p.t, "forbidden", "roundhouse-holder")
}

func (p *plugin) checkApprovals() {
	p.run(0, "approve", "waits", "--skip-idle", "--for", "30m").says(p.t, "approved", "skip idle on waits until", "it goes on with the next decision")
	p.run(0, "approve", "waits", "--skip-idle", "--skip-window", "--by", "y.sato", "-o", "json").says(p.t, `"what": "SkipWindow"`, `"by": "y.sato"`)
	got := p.remediation("waits-abcdefghij").Spec.Approvals
	if len(got) != 2 || got[0].By != "y.sato" {
		p.t.Errorf("approvals: %+v, want the later one of each kind", got)
	}
	p.run(0, "approve", "drains", "--retry").says(p.t, "it is Draining, reason Evicting, which this does not skip")
	p.run(1, "approve", "good", "--retry").says(p.t, `node "good" has no open incident`)
}

func (p *plugin) checkErrors() {
	p.run(2, "why").says(p.t, "takes the name of one node")
	p.run(2, "status", "-o", "xml").says(p.t, "-o xml: unknown format; use one of wide, json, yaml, name")
	p.run(2, "hold", "good", "--reason", "x", "--for", "1h", "--until", "18:00").says(p.t, "--for and --until")
	p.run(2, "hold", "--reason", "x").says(p.t, "kubectl roundhouse stop")
	p.run(2, "approve", "good").says(p.t, "--skip-idle, --skip-window or --retry")
	p.run(2, "nonsense").says(p.t, `there is no command "nonsense"`)
	p.run(2, "release").says(p.t, "--all")
	p.run(3, "status", "--server", "https://127.0.0.1:1").says(p.t, "the API server was not reached")
	p.run(3, "status", "--context", "elsewhere").says(p.t, "--context")
	p.run(3, "why", "good", "--as", "nobody").says(p.t, "forbidden", "roundhouse-viewer")
}

func (p *plugin) checkRelease() {
	p.run(1, "release", "nothing").says(p.t, `there is no node or hold "nothing"`)
	p.run(0, "release", "good").says(p.t, "no incident is open", "hold-good-", "lifted", "still, with others, by hold demo")
	p.run(0, "release", "hold/demo").says(p.t, "demo lifted")
	p.run(0, "release", "waits", "--dry-run").says(p.t, "nothing was changed")
	if p.remediation("waits-abcdefghij").Spec.Cancel {
		p.t.Fatal("a dry run cancelled")
	}
	p.run(0, "release", "waits").says(p.t, "waits-abcdefghij cancelled")
	if !p.remediation("waits-abcdefghij").Spec.Cancel {
		p.t.Error("spec.cancel is not set")
	}
}

// checkReleaseAll plays the controller: it takes off what was put on once everything is cancelled.
func (p *plugin) checkReleaseAll() {
	taint := `{"spec":{"taints":[{"key":"roundhouse.dev/quarantined","value":"stuck-abcdefghij","effect":"NoSchedule"}]},"metadata":{"annotations":{"roundhouse.dev/claim":"stuck-abcdefghij/u"}}}`
	call{http.MethodPatch, nodes + "stuck", taint}.must(p.t, p.core)
	call{http.MethodPatch, nodes + "stuck", `{"metadata":{"annotations":{"roundhouse.dev/driver-pod":"stuck-abcdefghij-1/p"}}}`}.must(p.t, p.core)
	call{http.MethodPatch, nodes + "good", `{"metadata":{"labels":{"nvidia.com/gpu.deploy.dcgm":"paused-for-driver-upgrade"},"annotations":{
		"roundhouse.dev/driver-pod":"gone-abcdefghij-1/p","roundhouse.dev/paused":"{\"by\":\"gone-abcdefghij/u\",\"labels\":{\"nvidia.com/gpu.deploy.dcgm\":\"true\"}}"}}}`}.must(p.t, p.core)
	p.put(taintRules, "", `{"apiVersion":"resource.k8s.io/v1","kind":"DeviceTaintRule","metadata":{"name":"drains-abcdefghij-0"},"spec":{"deviceSelector":{"driver":"d","pool":"p","device":"x"},"taint":{"key":"roundhouse.dev/quarantined","effect":"NoSchedule"}}}`, "")
	p.run(2, "release", "--all").says(p.t, "1 taint, 1 claim, 1 DeviceTaintRule, 3 notes of repairs left", "give --yes")
	if a := p.runWith("n\n", "release", "--all"); a.code != 1 {
		p.t.Errorf("after a no: exit code %d", a.code)
	}
	p.run(1, "release", "--all", "--yes", "--timeout", "2s").says(p.t, "Left after 2s", "kubectl taint node stuck roundhouse.dev/quarantined-", "kubectl delete devicetaintrule drains-abcdefghij-0",
		"kubectl annotate node stuck roundhouse.dev/driver-pod-")
	good, err := p.core.CoreV1().Nodes().Get(p.t.Context(), "good", metav1.GetOptions{})
	if err != nil || good.Labels["nvidia.com/gpu.deploy.dcgm"] != "true" || good.Annotations["roundhouse.dev/paused"]+good.Annotations["roundhouse.dev/driver-pod"] != "" {
		p.t.Errorf("what a past incident paused on a node is put back: labels %v, annotations %v, %v", good.Labels, good.Annotations, err)
	}
	for _, name := range []string{"waits", "drains", "stuck"} {
		if !p.remediation(name + "-abcdefghij").Spec.Cancel {
			p.t.Errorf("%s is not cancelled", name)
		}
	}
	go func() {
		time.Sleep(1500 * time.Millisecond)
		for _, name := range []string{"waits", "drains", "stuck"} {
			_, _ = call{http.MethodPatch, remediations + name + "-abcdefghij/status", `{"status":{"phase":"Cancelled"}}`}.do(p.t.Context(), p.core)
		}
		_, _ = call{http.MethodPatch, nodes + "stuck", `{"spec":{"taints":null},"metadata":{"annotations":{"roundhouse.dev/claim":null}}}`}.do(p.t.Context(), p.core)
		_, _ = call{http.MethodDelete, taintRules + "drains-abcdefghij-0", ""}.do(p.t.Context(), p.core)
	}()
	p.run(0, "release", "--all", "--yes", "--timeout", "20s").says(p.t, "waiting", "Nothing of ours is left on any node")
}
