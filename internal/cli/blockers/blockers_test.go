package blockers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func incident(node string, phase v1alpha1.Phase, pods ...string) v1alpha1.Remediation {
	until := metav1.NewTime(now.Add(20 * time.Minute))
	r := v1alpha1.Remediation{ObjectMeta: metav1.ObjectMeta{Name: node + "-x"}, Spec: v1alpha1.RemediationSpec{Node: node},
		Status: v1alpha1.RemediationStatus{Phase: phase, Deadline: &until, WouldChange: "a human changes the budget", Drain: &v1alpha1.DrainStatus{}}}
	for _, pod := range pods {
		r.Status.Drain.Blockers = append(r.Status.Drain.Blockers, v1alpha1.Blocker{Pod: pod, Reason: "EvictionStuck", Message: "budget b\x1b[2J never allows it"})
	}
	return r
}

func TestWhatBlocksIsListedByNode(t *testing.T) {
	all := []v1alpha1.Remediation{
		incident("gpu-2", v1alpha1.PhaseDraining, "ml/b", "ml/a"), incident("gpu-1", v1alpha1.PhaseEscalated, "web/x"),
		incident("gpu-3", v1alpha1.PhaseSucceeded, "ml/old"), incident("gpu-4", v1alpha1.PhaseProbation, "ml/old"),
		incident("gpu-5", v1alpha1.PhaseDraining), {Spec: v1alpha1.RemediationSpec{Node: "gpu-6"}},
	}
	for name, tt := range map[string]struct {
		nodes []string
		want  []string
	}{
		"of all nodes, and not of what is over": {nil, []string{"gpu-1 web/x -", "gpu-2 ml/a 10:20", "gpu-2 ml/b 10:20"}},
		"of those that are named":               {[]string{"gpu-2"}, []string{"gpu-2 ml/a 10:20", "gpu-2 ml/b 10:20"}},
		"of none":                               {[]string{"gpu-5"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, b := range Tell(now, all, tt.nodes).Blockers {
				at := "-"
				if b.Deadline != nil {
					at = b.Deadline.UTC().Format("15:04")
				}
				got = append(got, b.Node+" "+b.Pod+" "+at)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("blockers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatPeopleSee(t *testing.T) {
	all := []v1alpha1.Remediation{incident("gpu-2", v1alpha1.PhaseDraining, "ml/a"), incident("gpu-1", v1alpha1.PhaseEscalated, "web/x")}
	for name, tt := range map[string]struct {
		of    []v1alpha1.Remediation
		wide  bool
		plain bool
		want  []string
	}{
		"nothing": {nil, false, false, []string{"No pod keeps a drain from going on."}},
		"a table": {all, false, false, []string{
			"NODE   POD    REASON         HUMAN ASKED         WHY",
			"gpu-1  web/x  EvictionStuck  already             budget b?[2J never allows it",
			"gpu-2  ml/a   EvictionStuck  10:20 UTC (in 20m)  budget b?[2J never allows it"}},
		"without its header": {all[:1], false, true, []string{"gpu-2  ml/a  EvictionStuck  10:20 UTC (in 20m)  budget b?[2J never allows it"}},
		"with all there is": {all[:1], true, true, []string{
			"gpu-2  ml/a  EvictionStuck  10:20 UTC (in 20m)  Draining  gpu-2-x  budget b?[2J never allows it  a human changes the budget"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := &text.Page{Clock: text.Clock{Now: now, Zone: time.UTC}}
			Shown{List: Tell(now, tt.of, nil), NoHeaders: tt.plain}.Render(p, tt.wide)
			if diff := cmp.Diff(tt.want, strings.Split(strings.TrimSpace(p.String()), "\n")); diff != "" {
				t.Errorf("page (-want +got):\n%s", diff)
			}
		})
	}
}
