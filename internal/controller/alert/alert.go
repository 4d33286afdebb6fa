// Package alert keeps Alertmanager told of what acts and of what waits for a human, from the Remediations as they are.
//
// It has no state that counts. What an incident deserves follows from its object, and is sent again every minute: an
// Alertmanager that forgot, or a controller that restarted, is right again within one.
package alert

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/notify"
)

// Names of the alerts.
const (
	// Remediating is on from when an incident first acts until it is over.
	Remediating = "RoundhouseRemediating"
	// Escalated is on while an incident waits for a human.
	Escalated = "RoundhouseEscalated"
)

// justEnded is how long after its end an incident is still sent as resolved. Ten minutes outlast a change of leader, and
// Alertmanager's own resolve_timeout of five ends what was missed for longer.
const justEnded = 10 * time.Minute

// maxAnnotation bounds a text of an alert, which ends up in chat and on telephones.
const maxAnnotation = 1024

// Alerts gives the alerts that these Remediations deserve at now: those that are on, with endsAt in the future so that a
// dead controller's alerts outlive a short restart, and those that have just ended, with the time at which they did. They
// are sorted by label, so that equal states give equal requests.
func Alerts(remediations []v1alpha1.Remediation, now time.Time, lasts time.Duration) []notify.Alert {
	var alerts []notify.Alert
	for i := range remediations {
		for _, kind := range []string{Remediating, Escalated} {
			if alert, ok := alertOf(kind, &remediations[i], now, lasts); ok {
				alerts = append(alerts, alert)
			}
		}
	}
	slices.SortFunc(alerts, func(a, b notify.Alert) int {
		return cmp.Or(cmp.Compare(a.Labels["remediation"], b.Labels["remediation"]), cmp.Compare(a.Labels["alertname"], b.Labels["alertname"]))
	})
	return alerts
}

// alertOf gives one alert of one incident, if it is on or has just ended.
func alertOf(kind string, r *v1alpha1.Remediation, now time.Time, lasts time.Duration) (notify.Alert, bool) {
	started, ended, ever := span(kind, r)
	if !ever || (!ended.IsZero() && now.Sub(ended) > justEnded) {
		return notify.Alert{}, false
	}
	alert := notify.Alert{
		Labels:      labelsOf(kind, r),
		Annotations: annotationsOf(r),
		StartsAt:    started,
		EndsAt:      now.Add(lasts),
	}
	if !ended.IsZero() {
		alert.EndsAt = ended
	}
	return alert, true
}

// span says since when an alert is on, and until when it was; ended is zero while it is on.
func span(kind string, r *v1alpha1.Remediation) (started, ended time.Time, ever bool) {
	if kind == Remediating {
		if r.Status.ActingSince == nil {
			return time.Time{}, time.Time{}, false
		}
		started = r.Status.ActingSince.Time
		if r.Status.Phase.Over() {
			ended = phaseSince(r)
		}
		return started, ended, true
	}
	if r.Status.Phase == v1alpha1.PhaseEscalated {
		return phaseSince(r), time.Time{}, true
	}
	return lastEscalation(r)
}

// phaseSince is when the phase was entered; an object that does not say has been in it since it exists.
func phaseSince(r *v1alpha1.Remediation) time.Time {
	if r.Status.Since != nil {
		return r.Status.Since.Time
	}
	return r.CreationTimestamp.Time
}

// lastEscalation finds in the timeline when an incident was last escalated, and when it left that phase.
func lastEscalation(r *v1alpha1.Remediation) (started, ended time.Time, ever bool) {
	before := v1alpha1.Phase("")
	for _, entry := range r.Status.Timeline {
		switch {
		case entry.Phase == v1alpha1.PhaseEscalated && before != v1alpha1.PhaseEscalated:
			started, ended, ever = entry.At.Time, time.Time{}, true
		case entry.Phase != v1alpha1.PhaseEscalated && before == v1alpha1.PhaseEscalated:
			ended = entry.At.Time
		}
		before = entry.Phase
	}
	if ever && ended.IsZero() {
		ended = phaseSince(r)
	}
	return started, ended, ever
}

// labelsOf identifies an alert. Nothing in it changes while the incident lives, or Alertmanager would take the alert for
// another one. Severity is the receiver's to route by: information while we act, critical when a human must.
func labelsOf(kind string, r *v1alpha1.Remediation) map[string]string {
	severity := "info"
	if kind == Escalated {
		severity = "critical"
	}
	return map[string]string{
		"alertname":   kind,
		"severity":    severity,
		"node":        r.Spec.Node,
		"remediation": r.Name,
		"policy":      r.Spec.Policy,
		"code":        r.Spec.Root.Code,
		"device":      r.Spec.Root.Device,
		"group":       r.Spec.Group,
	}
}

// annotationsOf says what a human reads.
func annotationsOf(r *v1alpha1.Remediation) map[string]string {
	annotations := map[string]string{
		"summary": r.Spec.Root.Code + " on " + r.Spec.Node + ": " + string(r.Status.Phase),
		"message": r.Status.Message,
		"reason":  r.Status.Reason,
		"runbook": "kubectl roundhouse why " + r.Spec.Node,
	}
	if r.Status.WouldChange != "" {
		annotations["wouldChange"] = r.Status.WouldChange
	}
	for key, text := range annotations {
		if len(text) > maxAnnotation {
			annotations[key] = strings.ToValidUTF8(text[:maxAnnotation], "")
		}
	}
	return annotations
}
