package steady

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
)

var began = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func finding(code string, count int64) health.Finding {
	return health.Finding{
		Fault: v1alpha1.Fault{
			Code: code, Check: "a", Device: "GPU-1", Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning,
			Count: count, Root: true, FirstSeen: metav1.NewTime(began), LastSeen: metav1.NewTime(began),
		},
		ClearedBy: health.ClearedByLook,
	}
}

func TestCountsGoOn(t *testing.T) {
	var s Findings
	see := func(after time.Duration, count int64, first time.Duration) health.Finding {
		f := finding("PCILinkNarrow", count)
		f.Fault.FirstSeen = metav1.NewTime(began.Add(first))
		return s.Settle([]health.Finding{f}, began.Add(after), time.Minute)[0]
	}
	see(0, 5, 0)
	if got := len(s.Settle(nil, began.Add(time.Second), time.Minute)); got != 1 {
		t.Fatalf("%d findings stand one second after it was gone", got)
	}
	back := see(2*time.Second, 1, 2*time.Second)
	if back.Fault.Count != 6 || !back.Fault.FirstSeen.Time.Equal(began) {
		t.Errorf("came back as %+v", back.Fault)
	}
	s.Settle(nil, began.Add(3*time.Second), time.Minute)
	if got := s.Settle(nil, began.Add(63*time.Second), time.Minute); len(got) != 0 {
		t.Errorf("stands after a minute: %+v", got)
	}
	if len(s.held) != 0 || len(s.order) != 0 {
		t.Errorf("remembered for ever: %v", s.order)
	}
	if again := see(2*time.Minute, 1, 2*time.Minute); again.Fault.Count != 1 {
		t.Errorf("a new fault began as %+v", again.Fault)
	}
}

func TestSettleDropsAtOnceWhatACheckClears(t *testing.T) {
	for _, by := range []health.ClearedBy{health.ClearedByReset, health.ClearedByBoot, health.ClearedByQuiet} {
		var s Findings
		f := finding("Xid79", 1)
		f.ClearedBy = by
		s.Settle([]health.Finding{f}, began, time.Minute)
		if got := s.Settle(nil, began.Add(time.Second), time.Minute); len(got) != 0 {
			t.Errorf("cleared by %s and still there", by)
		}
	}
}

func TestFindingsAreBounded(t *testing.T) {
	var s Findings
	for round := range 50 {
		var found []health.Finding
		for i := range 300 {
			found = append(found, finding(fmt.Sprint("X", round, "-", i), 1))
		}
		if got := len(s.Settle(found, began, time.Hour)); got > MaxHeld {
			t.Fatalf("%d findings stand", got)
		}
	}
	if len(s.held) > MaxHeld || len(s.order) > MaxHeld {
		t.Errorf("%d held, %d in order", len(s.held), len(s.order))
	}
}
