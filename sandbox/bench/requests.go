package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/workload"
)

// Requests are what whole incidents cost the API server, an incident.
type Requests struct {
	// Incidents is how many were counted.
	Incidents int `json:"incidents"`
	// Quarantine are the controller's up to the quarantine, and Controller and Agent all of them, evictions not counted.
	Quarantine float64 `json:"controllerToQuarantine"`
	Controller float64 `json:"controller"`
	Agent      float64 `json:"agent"`
	// Evictions are those of pods; Apart are watches, Leases and Events.
	Evictions float64 `json:"evictions"`
	Apart     float64 `json:"apart"`
	// Rows say by whom, in which phase and what.
	Rows []Row `json:"rows"`
	// Order is every request of the last incident, in order.
	Order []string `json:"order"`
}

// Row is one kind of request.
type Row struct {
	Who, Phase, Verb, Resource string
	// Each is how many an incident.
	Each float64
}

// audit is the API server's audit log: what it was asked, by whom and when (kubernetes.io, Auditing).
type audit struct{ dir string }

// audited is one line of it, as far as it is read.
type audited struct {
	Verb       string    `json:"verb"`
	RequestURI string    `json:"requestURI"`
	At         time.Time `json:"requestReceivedTimestamp"`
	Done       time.Time `json:"stageTimestamp"`
	User       struct {
		Username string `json:"username"`
	} `json:"user"`
	Object struct {
		Resource, Subresource, Name string
	} `json:"objectRef"`
	Response struct {
		Code int `json:"code"`
	} `json:"responseStatus"`
}

// maxAuditLine bounds a line; metadata are a kilobyte.
const maxAuditLine = 1 << 20

func newAudit() (*audit, error) {
	dir, err := os.MkdirTemp("", "roundhouse-bench-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the audit log: %w", err)
	}
	users := []string{user(config.ControllerServiceAccount), user(config.AgentServiceAccount), npdUser}
	policy, err := json.Marshal(map[string]any{
		"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": []string{"RequestReceived", "ResponseStarted"},
		"rules": []map[string]any{{"level": "Metadata", "users": users}, {"level": "None"}},
	})
	if err != nil {
		return nil, fmt.Errorf("writing an audit policy: %w", err)
	}
	a := &audit{dir: dir}
	if err := os.WriteFile(a.policy(), policy, 0o600); err != nil {
		return nil, fmt.Errorf("writing an audit policy: %w", err)
	}
	return a, nil
}

func user(serviceAccount string) string {
	return "system:serviceaccount:" + config.Namespace + ":" + serviceAccount
}

func (a *audit) policy() string { return filepath.Join(a.dir, "policy.yaml") }
func (a *audit) log() string    { return filepath.Join(a.dir, "audit.log") }

// args are the API server's. It writes each line before it answers, so that none is missing when it is read.
func (a *audit) args() map[string]string {
	return map[string]string{"audit-policy-file": a.policy(), "audit-log-path": a.log(), "audit-log-mode": "blocking"}
}

// remove leaves nothing; what cannot be removed is in the directory for temporary files.
func (a *audit) remove() { _ = os.RemoveAll(a.dir) }

// read gives what was asked in a time, in order.
func (a *audit) read(from, to time.Time) ([]audited, error) {
	file, err := os.Open(a.log())
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	defer file.Close()
	var out []audited
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxAuditLine)
	for lines.Scan() {
		var one audited
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("reading the audit log: %w", err)
		}
		if !one.At.Before(from) && one.At.Before(to) {
			out = append(out, one)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	slices.SortStableFunc(out, func(x, y audited) int { return x.At.Compare(y.At) })
	return out, nil
}

// who is the controller or an agent.
func (r audited) who() string {
	if r.User.Username == user(config.ControllerServiceAccount) {
		return "controller"
	}
	return "agent"
}

func (r audited) resource() string {
	if r.Object.Subresource != "" {
		return r.Object.Resource + "/" + r.Object.Subresource
	}
	return r.Object.Resource
}

// apart are what goes on with or without an incident, and what tells people.
func (r audited) apart() bool {
	return r.Verb == "watch" || r.Object.Resource == "leases" || r.Object.Resource == "events" || r.Object.Resource == ""
}

// String is the request as a line.
func (r audited) String() string {
	return fmt.Sprintf("%s %s %s %d", r.who(), r.Verb, r.resource(), r.Response.Code)
}

// phases are in the order in which an incident goes through them.
func phases() []v1alpha1.Phase {
	return []v1alpha1.Phase{v1alpha1.PhasePending, v1alpha1.PhaseDraining, v1alpha1.PhaseRepairing, v1alpha1.PhaseVerifying,
		v1alpha1.PhaseProbation, v1alpha1.PhaseSucceeded}
}

// toQuarantine is what comes before the quarantine.
const toQuarantine = "to quarantine"

// countRequests has nodes repaired, one after the other, each with pods on it that have to move.
func (c *cluster) countRequests(ctx context.Context, log *audit) (*Requests, error) {
	o := c.s.Fleet().Options()
	rack := map[string]string{fleet.LabelRack: o.Rack(o.Nodes - 1)}
	tenants := workload.Workload{Kind: workload.Prewarmed, Name: "bench", Count: 2 * repairRack, NodeSelector: rack}
	if err := workload.Run(ctx, c.client, tenants); err != nil {
		return nil, err
	}
	if err := workload.WaitRunning(ctx, c.client, tenants); err != nil {
		return nil, err
	}
	budget := &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "bench"},
		Spec: v1alpha1.NodeDisruptionBudgetSpec{NodeSelector: metav1.LabelSelector{MatchLabels: rack}, MaxUnavailable: ptr.To(intstr.FromInt32(1))}}
	if err := c.client.Create(ctx, budget); err != nil {
		return nil, fmt.Errorf("creating a budget: %w", err)
	}
	if err := c.policy(ctx, "repair", v1alpha1.ModeRemediate, metav1.LabelSelector{MatchLabels: rack}); err != nil {
		return nil, err
	}
	out := &Requests{Incidents: c.o.Repairs}
	rows := map[Row]int{}
	for i := range c.o.Repairs {
		c.o.Progress(fmt.Sprintf("counting the requests of repair %d of %d", i+1, c.o.Repairs))
		// Whatever came before is over.
		if err := pause(ctx, 3*time.Second); err != nil {
			return nil, err
		}
		name := o.NodeName(o.Nodes - repairRack + i)
		began, err := c.inject(ctx, name)
		if err != nil {
			return nil, err
		}
		if _, err := c.phase.wait(ctx, name+"/"+string(v1alpha1.PhaseSucceeded)); err != nil {
			return nil, err
		}
		if err := pause(ctx, 2*time.Second); err != nil {
			return nil, err
		}
		all, err := log.read(began, time.Now())
		if err != nil {
			return nil, err
		}
		c.count(out, rows, all, name)
	}
	out.average(rows)
	return out, nil
}

// count counts the requests of one incident.
func (c *cluster) count(out *Requests, rows map[Row]int, all []audited, node string) {
	out.Order = nil
	var kept time.Time
	for _, r := range all {
		if r.Verb == "create" && r.Object.Resource == "devicetaintrules" && r.Response.Code < 300 {
			kept = r.Done
			break
		}
	}
	for _, r := range all {
		phase := toQuarantine
		if r.At.After(kept) {
			phase = c.phaseAt(node, r.At)
		}
		switch {
		case r.apart():
			out.Apart++
			continue
		case r.Object.Subresource == "eviction":
			out.Evictions++
		case r.who() == "agent":
			out.Agent++
		default:
			out.Controller++
			if phase == toQuarantine {
				out.Quarantine++
			}
		}
		rows[Row{Who: r.who(), Phase: phase, Verb: r.Verb, Resource: r.resource()}]++
		out.Order = append(out.Order, phase+": "+r.String())
	}
}

// phaseAt is the phase that an incident was in.
func (c *cluster) phaseAt(node string, at time.Time) string {
	in := v1alpha1.PhasePending
	for _, phase := range phases() {
		if since, _ := c.phase.of(node + "/" + string(phase)); !since.IsZero() && since.Before(at) {
			in = phase
		}
	}
	return string(in)
}

// average makes sums those of one incident.
func (r *Requests) average(rows map[Row]int) {
	n := float64(r.Incidents)
	for _, sum := range []*float64{&r.Quarantine, &r.Controller, &r.Agent, &r.Evictions, &r.Apart} {
		*sum /= n
	}
	order := []string{toQuarantine}
	for _, phase := range phases() {
		order = append(order, string(phase))
	}
	for row, count := range rows {
		row.Each = float64(count) / n
		r.Rows = append(r.Rows, row)
	}
	slices.SortFunc(r.Rows, func(x, y Row) int {
		return cmp.Or(strings.Compare(y.Who, x.Who), cmp.Compare(slices.Index(order, x.Phase), slices.Index(order, y.Phase)),
			strings.Compare(x.Verb, y.Verb), strings.Compare(x.Resource, y.Resource))
	})
}
