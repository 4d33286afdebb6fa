package policy

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestWindowOpen(t *testing.T) {
	nights := v1alpha1.Window{Days: []string{"Sat", "Sun"}, Start: "22:00", End: "06:00", TimeZone: "Asia/Tokyo"}
	noon := v1alpha1.Window{Days: []string{"Mon"}, Start: "12:00", End: "13:00"}
	lunch := v1alpha1.Window{Days: []string{"Mon"}, Start: "13:00", End: "14:00"}
	wholeDay := v1alpha1.Window{Days: []string{"Mon"}, Start: "09:00", End: "09:00"}
	everyNight := v1alpha1.Window{
		Days: []string{"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}, Start: "02:30", End: "03:30", TimeZone: "Europe/Berlin",
	}
	cases := map[string]struct {
		windows []v1alpha1.Window
		now     string
		open    bool
		next    string
	}{
		"no windows are never open":                             {now: "2026-11-23T10:00:00Z"},
		"before it opens today":                                 {windows: []v1alpha1.Window{noon}, now: "2026-11-23T11:59:59Z", next: "2026-11-23T12:00:00Z"},
		"when it opens":                                         {windows: []v1alpha1.Window{noon}, now: "2026-11-23T12:00:00Z", open: true, next: "2026-11-23T13:00:00Z"},
		"when it closes":                                        {windows: []v1alpha1.Window{noon}, now: "2026-11-23T13:00:00Z", next: "2026-11-30T12:00:00Z"},
		"two that touch are one":                                {windows: []v1alpha1.Window{lunch, noon}, now: "2026-11-23T12:30:00Z", open: true, next: "2026-11-23T14:00:00Z"},
		"the night before, in its own time zone":                {windows: []v1alpha1.Window{nights}, now: "2026-11-21T12:59:00Z", next: "2026-11-21T13:00:00Z"},
		"past midnight, on a day that is not listed":            {windows: []v1alpha1.Window{nights}, now: "2026-11-22T20:30:00Z", open: true, next: "2026-11-22T21:00:00Z"},
		"the morning after the last listed day":                 {windows: []v1alpha1.Window{nights}, now: "2026-11-22T21:00:00Z", next: "2026-11-28T13:00:00Z"},
		"an end equal to the start is a day later":              {windows: []v1alpha1.Window{wholeDay}, now: "2026-11-24T08:59:00Z", open: true, next: "2026-11-24T09:00:00Z"},
		"a night in which clocks go forward over all of it":     {windows: []v1alpha1.Window{everyNight}, now: "2026-03-29T01:15:00Z", next: "2026-03-30T00:30:00Z"},
		"a night in which clocks go back: the window is longer": {windows: []v1alpha1.Window{everyNight}, now: "2026-10-25T02:15:00Z", open: true, next: "2026-10-25T02:30:00Z"},
		"one that cannot be read is not open":                   {windows: []v1alpha1.Window{{Days: []string{"Mon"}, Start: "12:00", End: "25:00"}}, now: "2026-11-23T12:30:00Z"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			policy := newPolicy("p", func(p *v1alpha1.RemediationPolicy) { p.Spec.Windows = c.windows })
			open, next := WindowOpen(&policy, instant(t, c.now))
			if open != c.open || !next.Equal(instant(t, c.next)) {
				t.Errorf("got %v until %v; want %v until %q", open, next.UTC(), c.open, c.next)
			}
		})
	}
}

func instant(t *testing.T, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// FuzzWindow holds every window that can be read to what open and next promise.
func FuzzWindow(f *testing.F) {
	f.Add("Sat", "Sun", "22:00", "06:00", "Asia/Tokyo", int64(1_795_000_000))
	f.Add("Mon", "Mon", "02:30", "03:30", "Europe/Berlin", int64(1_774_746_900))
	f.Add("Fri", "", "00:00", "00:00", "America/St_Johns", int64(0))
	f.Add("Mon", "Local", "24:00", "1:00", "Local", int64(-1))
	f.Fuzz(func(t *testing.T, day1, day2, start, end, zone string, seconds int64) {
		if seconds < 0 || seconds > 4_000_000_000 {
			return
		}
		policy := newPolicy("p", func(p *v1alpha1.RemediationPolicy) {
			p.Spec.Windows = []v1alpha1.Window{{Days: []string{day1, day2}, Start: start, End: end, TimeZone: zone}}
		})
		at := time.Unix(seconds, 0)
		open, next := WindowOpen(&policy, at)
		if _, err := parseWindow(policy.Spec.Windows[0]); err != nil {
			if open || !next.IsZero() {
				t.Fatalf("%v, and yet open is %v until %v", err, open, next)
			}
			return
		}
		if !next.After(at) || next.Sub(at) > 8*24*time.Hour {
			t.Fatalf("at %v the next change is %v", at, next)
		}
		if before, _ := WindowOpen(&policy, next.Add(-time.Second)); before != open {
			t.Fatalf("open is %v at %v, but changes before %v", open, at, next)
		}
		if after, _ := WindowOpen(&policy, next); after == open {
			t.Fatalf("open is %v at %v, and does not change at %v", open, at, next)
		}
	})
}

func FuzzExpression(f *testing.F) {
	for _, text := range []string{
		"fault.severity == 'Critical' && fault.count >= 3", "node.labels.exists(k, k.startsWith('gpu'))", "fault.code.matches('^Xid[0-9]+$')",
		"1/0 == 1", "node.labels['a'] == 'b'", "fault.ageSeconds > 60 ? true : false", "has(node.labels.pool)", "[1,2,3].map(x, x*x).size() > 2",
		"FaultVariables{code: 'x'} == fault", "policy.FaultVariables{code: 'x'} == fault", "((((((", "'\\u0000' in node.labels",
	} {
		f.Add(text, "Xid79", int64(1))
	}
	f.Fuzz(func(t *testing.T, text, code string, count int64) {
		compiled, err := compileExpression(text)
		if err != nil {
			return
		}
		fault := v1alpha1.Fault{Code: code, Count: count, FirstSeen: metav1.NewTime(now)}
		began := time.Now()
		_, _ = compiled.matches(fault, newNode("n", map[string]string{"pool": "gpu", code: "x"}), now)
		if took := time.Since(began); took > time.Second {
			t.Fatalf("%q took %v", text, took)
		}
	})
}
