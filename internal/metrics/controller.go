// Package metrics declares what Roundhouse's programs count, each program's on a registry that it is given.
package metrics

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Controller is what the controller counts. It has no globals: two controllers in one process count apart.
type Controller struct {
	// Evictions counts evictions by outcome: Evicted, Terminating, Gone, Blocked, Misconfigured, Error.
	Evictions *prometheus.CounterVec
	// BudgetVerdicts counts answers to asking for a slot, by reason.
	BudgetVerdicts *prometheus.CounterVec
	// Transitions counts changes of phase, by from, to and reason.
	Transitions *prometheus.CounterVec
	// Remediations is how many there are, by phase.
	Remediations *prometheus.GaugeVec
	// Opened counts incidents that began, by the code of their root fault.
	Opened *prometheus.CounterVec
	// ActionsAsked counts actions asked of agents, by type.
	ActionsAsked *prometheus.CounterVec
	// Overtaken counts steps given up because what they were decided on had changed, by what was to be done.
	Overtaken *prometheus.CounterVec
	// AlertsSent counts requests to Alertmanager, by result: ok, failed.
	AlertsSent *prometheus.CounterVec
	// NodeHealthsCreated counts NodeHealth objects that were created, by why: new, replaced.
	NodeHealthsCreated *prometheus.CounterVec
	// NodesNotReporting is how many nodes had an agent and do not report now, by reason.
	NodesNotReporting *prometheus.GaugeVec
	// BrakesHolding is 1 for each policy whose brake holds.
	BrakesHolding *prometheus.GaugeVec
}

// namespace begins the name of every metric.
const namespace = "roundhouse"

// NewController registers the controller's metrics.
func NewController(registry prometheus.Registerer) (*Controller, error) {
	m := &Controller{
		Evictions:          counter("evictions_total", "Evictions asked for, by outcome.", "outcome"),
		BudgetVerdicts:     counter("budget_verdicts_total", "Answers to asking for a disruption slot, by reason.", "reason"),
		Transitions:        counter("remediation_transitions_total", "Changes of phase.", "from", "to", "reason"),
		Remediations:       gauge("remediations", "Remediations that exist, by phase.", "phase"),
		Opened:             counter("remediations_opened_total", "Incidents that began, by the code of their root fault.", "code"),
		ActionsAsked:       counter("actions_asked_total", "Actions asked of agents, by type.", "type"),
		Overtaken:          counter("decisions_overtaken_total", "Steps given up because what they were decided on had changed.", "step"),
		AlertsSent:         counter("alert_requests_total", "Requests to Alertmanager, by result.", "result"),
		NodeHealthsCreated: counter("nodehealths_created_total", "NodeHealth objects created, by why.", "why"),
		NodesNotReporting:  gauge("nodes_not_reporting", "Nodes that had an agent and do not report now, by reason.", "reason"),
		BrakesHolding:      gauge("brake_holding", "1 for each policy whose brake holds.", "policy"),
	}
	for _, collector := range []prometheus.Collector{
		m.Evictions, m.BudgetVerdicts, m.Transitions, m.Remediations, m.Opened, m.ActionsAsked, m.Overtaken, m.AlertsSent, m.NodeHealthsCreated,
		m.NodesNotReporting, m.BrakesHolding,
	} {
		if err := registry.Register(collector); err != nil {
			return nil, fmt.Errorf("registering the controller's metrics: %w", err)
		}
	}
	return m, nil
}

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
}
