package agent

import (
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/metrics/plain"
)

// Metrics are what an agent counts. The zero value keeps nothing, which is for fleets of simulated nodes.
type Metrics struct {
	looks, lookSeconds, writes, actions, faults, injected, blocked, info *plain.Metric
}

// NewMetrics adds an agent's metrics to a registry.
func NewMetrics(r *plain.Registry, version string, acceptsInjected bool) *Metrics {
	m := &Metrics{
		looks:       r.Counter("roundhouse_agent_looks_total", "Looks of each check, by outcome.", "check", "outcome"),
		lookSeconds: r.Gauge("roundhouse_agent_last_look_seconds", "How long the last look of each check took.", "check"),
		writes:      r.Counter("roundhouse_agent_writes_total", "Writes to the API server, by object and result.", "object", "result"),
		actions:     r.Counter("roundhouse_agent_actions_total", "Actions that ended, by type, result and reason.", "type", "result", "reason"),
		faults:      r.Gauge("roundhouse_agent_faults", "Faults that stand, by class.", "class"),
		injected: r.Gauge("roundhouse_agent_accepts_injected_kernel_lines",
			"1 where kernel-log believes lines that any process can write; for tests only."),
		blocked: r.Gauge("roundhouse_agent_blocked", "1 where nothing may be published, by reason.", "reason"),
		info:    r.Gauge("roundhouse_agent_info", "Always 1; the version is the label.", "version"),
	}
	m.info.Set(1, version)
	m.injected.Set(0)
	if acceptsInjected {
		m.injected.Set(1)
	}
	return m
}

func (m *Metrics) looked(check string, outcome health.Outcome, took time.Duration) {
	m.looks.Add(1, check, string(outcome))
	m.lookSeconds.Set(took.Seconds(), check)
}

func (m *Metrics) wrote(object string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.writes.Add(1, object, result)
}

func (m *Metrics) acted(t v1alpha1.ActionType, s v1alpha1.ActionStatus) {
	m.actions.Add(1, string(t), string(s.Result), s.Reason)
}

func (m *Metrics) stands(faults []v1alpha1.Fault) {
	count := map[v1alpha1.FaultClass]int{}
	for i := range faults {
		count[faults[i].Class]++
	}
	for _, class := range []v1alpha1.FaultClass{
		v1alpha1.ClassHardware, v1alpha1.ClassDriver, v1alpha1.ClassFabric, v1alpha1.ClassHost,
		v1alpha1.ClassApplication, v1alpha1.ClassUnknown,
	} {
		m.faults.Set(float64(count[class]), string(class))
	}
}

// blockedBy sets the reason for which nothing may be published; empty clears it.
func (m *Metrics) blockedBy(old, reason string) {
	if old == reason {
		return
	}
	if old != "" {
		m.blocked.Set(0, old)
	}
	if reason != "" {
		m.blocked.Set(1, reason)
	}
}
