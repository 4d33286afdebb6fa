package plain_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/metrics/plain"
)

func text(t *testing.T, r *plain.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestTextFormat(t *testing.T) {
	var r plain.Registry
	c := r.Counter("looks_total", "Looks.", "check", "outcome")
	c.Add(1, "pci", "Passing")
	c.Add(2, "pci", "Passing")
	c.Add(1, "a\\b\"c\nd", "Unknown")
	r.Gauge("up", "Up.").Set(1.5)
	r.GaugeFunc("silent_seconds", "Silence.", func() float64 { return 3 })
	r.CounterFunc("lost_total", "Lost.", func() float64 { return 2 })
	want := `# HELP looks_total Looks.
# TYPE looks_total counter
looks_total{check="a\\b\"c\nd",outcome="Unknown"} 1
looks_total{check="pci",outcome="Passing"} 3
# HELP up Up.
# TYPE up gauge
up 1.5
# HELP silent_seconds Silence.
# TYPE silent_seconds gauge
silent_seconds 3
# HELP lost_total Lost.
# TYPE lost_total counter
lost_total 2
`
	if diff := cmp.Diff(want, text(t, &r)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	var r plain.Registry
	c := r.Counter("x_total", "X.", "label")
	for i := range 1000 {
		c.Add(1, fmt.Sprint(i))
	}
	out := text(t, &r)
	if got := strings.Count(out, "\n"); got > 2+256+1 {
		t.Errorf("got %d lines for 1000 label values", got)
	}
	if !strings.Contains(out, `x_total{label="overflow"} 744`) {
		t.Errorf("what did not fit is not counted:\n%s", out)
	}
}

func TestNilMetricKeepsNothing(*testing.T) {
	var m *plain.Metric
	m.Add(1, "x")
	m.Set(1, "x")
}
