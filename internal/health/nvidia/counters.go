package nvidia

import "time"

// maxCounters bounds what is remembered of counters; a node of 64 GPUs with 36 links of three counters each has fewer.
const maxCounters = 8192

// count is a counter as last seen, and the load of the driver it was seen in.
type count struct {
	Load  string `json:"load"`
	Value uint64 `json:"value"`
}

// counts are counters by GPU.
type counts map[string]count

// rise is by how much a counter rose since the last look. What it stood at when it was first seen in a load of the driver
// is not new, and a counter that fell began anew with a load that nobody saw; restarted says that one of the two is so of
// a counter that was known.
func (c counts) rise(key, load string, value uint64) (n uint64, restarted bool) {
	was, ok := c[key]
	if !ok && len(c) >= maxCounters {
		clear(c)
	}
	c[key] = count{load, value}
	switch {
	case !ok:
		return 0, false
	case was.Load != load || value < was.Value:
		return 0, true
	}
	return value - was.Value, false
}

const (
	// rateSpan is the least time that a rate is measured over: a single burst is none.
	rateSpan = time.Minute
	// rateSamples is how many looks back a rate goes.
	rateSamples = 4
)

// sample is a counter at one look.
type sample struct {
	at    time.Time
	value uint64
}

// rates measure how fast counters rise, by counter.
type rates map[string]*series

type series struct {
	load string
	s    []sample
}

// perMinute is how fast a counter rose over the last looks. It is not ok until these span a minute.
func (r rates) perMinute(key, load string, value uint64, at time.Time) (rate float64, ok bool) {
	h := r[key]
	if h == nil {
		if len(r) >= maxCounters {
			clear(r)
		}
		h = &series{}
		r[key] = h
	}
	if n := len(h.s); n > 0 && (h.load != load || value < h.s[n-1].value) {
		h.s = h.s[:0]
	}
	h.load = load
	if n := len(h.s); n == 0 || at.After(h.s[n-1].at) {
		if n == rateSamples {
			copy(h.s, h.s[1:])
			h.s = h.s[:n-1]
		}
		h.s = append(h.s, sample{at, value})
	}
	first, last := h.s[0], h.s[len(h.s)-1]
	span := last.at.Sub(first.at)
	if span < rateSpan {
		return 0, false
	}
	return float64(last.value-first.value) / span.Minutes(), true
}
