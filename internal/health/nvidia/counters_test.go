package nvidia

import (
	"fmt"
	"testing"
	"time"
)

func TestRates(t *testing.T) {
	type reading struct {
		at    int // seconds
		load  string
		value uint64
		want  string
	}
	tests := map[string][]reading{
		"not before a minute": {{0, "a", 5, "-"}, {30, "a", 35, "-"}, {60, "a", 65, "60.0"}},
		"over the last four looks": {
			{0, "a", 0, "-"}, {60, "a", 60, "60.0"}, {120, "a", 60, "30.0"}, {180, "a", 60, "20.0"}, {240, "a", 60, "0.0"},
		},
		"the same look again is not another": {
			{0, "a", 0, "-"}, {30, "a", 10, "-"}, {30, "a", 10, "-"}, {30, "a", 10, "-"}, {30, "a", 10, "-"}, {60, "a", 20, "20.0"},
		},
		"a counter that fell began anew": {{0, "a", 900, "-"}, {60, "a", 3, "-"}, {120, "a", 7, "4.0"}},
		"another load began it anew":     {{0, "a", 900, "-"}, {60, "b", 1000, "-"}, {120, "b", 1002, "2.0"}},
	}
	for name, readings := range tests {
		t.Run(name, func(t *testing.T) {
			r := make(rates)
			for _, x := range readings {
				got := "-"
				if rate, ok := r.perMinute("gpu", x.load, x.value, t0.Add(time.Duration(x.at)*time.Second)); ok {
					got = fmt.Sprintf("%.1f", rate)
				}
				if got != x.want {
					t.Errorf("at %d s: %s a minute, want %s", x.at, got, x.want)
				}
			}
		})
	}
}

func TestCountersAreBounded(t *testing.T) {
	r, c := make(rates), make(counts)
	for i := range 3 * maxCounters {
		r.perMinute(fmt.Sprint(i), "a", 0, t0)
		c.rise(fmt.Sprint(i), "a", 0)
	}
	if len(r) > maxCounters || len(c) > maxCounters {
		t.Errorf("%d and %d counters", len(r), len(c))
	}
}
