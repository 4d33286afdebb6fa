package remediation

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestWhatPresses(t *testing.T) {
	tests := map[string]struct {
		change func(*v1alpha1.NodeHealthStatus)
		want   int
	}{
		"another fault":         {func(st *v1alpha1.NodeHealthStatus) { st.Faults = append(st.Faults, aFault("Xid79", "GPU-1")) }, pressing},
		"the same fault, worse": {func(st *v1alpha1.NodeHealthStatus) { st.Faults[0].Severity = v1alpha1.SeverityWarning }, pressing},
		"the same fault, seen again": {func(st *v1alpha1.NodeHealthStatus) {
			st.Faults[0].Count, st.Faults[0].LastSeen = 2, metav1.NewTime(began)
		}, later},
		"a fault that has gone":           {func(st *v1alpha1.NodeHealthStatus) { st.Faults = nil }, pressing},
		"the agent answers":               {func(st *v1alpha1.NodeHealthStatus) { st.Action = &v1alpha1.ActionStatus{ID: "a"} }, pressing},
		"another round of checks is over": {func(st *v1alpha1.NodeHealthStatus) { st.CompletedRound.At = metav1.NewTime(began) }, later},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			q := priorityqueue.New[reconcile.Request]("test")
			defer q.ShutDown()
			before := aHealth(aFault("Xid79", bad))
			after := before.DeepCopy()
			tt.change(&after.Status)
			enqueue(byName, news).Update(t.Context(), event.TypedUpdateEvent[client.Object]{ObjectOld: before, ObjectNew: after}, q)
			if _, got, _ := q.GetWithPriority(); got != tt.want {
				t.Errorf("priority %d, want %d", got, tt.want)
			}
		})
	}
}

func TestWhatActsPresses(t *testing.T) {
	for phase, want := range map[v1alpha1.Phase]int{
		v1alpha1.PhasePending: later, v1alpha1.PhaseDraining: pressing, v1alpha1.PhaseVerifying: pressing, v1alpha1.PhaseProbation: later,
	} {
		w := &work{rem: &v1alpha1.Remediation{Status: v1alpha1.RemediationStatus{Phase: phase}}}
		if got := again(w, time.Second); *got.Priority != want || got.RequeueAfter != time.Second {
			t.Errorf("%s: %d after %s, want %d", phase, *got.Priority, got.RequeueAfter, want)
		}
	}
	if got := again(&work{}, time.Second); *got.Priority != later {
		t.Errorf("without an incident: %d", *got.Priority)
	}
}
