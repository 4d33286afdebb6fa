package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the table, ratios first.
func (r *Report) Print(w io.Writer) error {
	text := &strings.Builder{}
	table := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(table, strings.Join(cells, "\t")) }
	fmt.Fprintf(text, "%d CPUs, %.0f GiB; load %s before, %s after. Baseline: the same least writes by a bare client.\n\n",
		r.Machine.CPUs, float64(r.Machine.MemoryMiB)/1024, r.Machine.LoadBefore, r.Machine.LoadAfter)
	line("what", "ratio", "measured", "baseline", "aim")
	r.delays(line)
	if r.Kmsg.N > 0 {
		what := "line in /dev/kmsg to fault in the API, by an agent process"
		line(fmt.Sprintf("%s, p50 of %d", what, r.Kmsg.N), ratio(r.Kmsg.P50, r.Visible.Baseline.P50), milliseconds(r.Kmsg.P50), milliseconds(r.Visible.Baseline.P50), "under 100 ms")
		line("  p99", ratio(r.Kmsg.P99, r.Visible.Baseline.P99), milliseconds(r.Kmsg.P99), milliseconds(r.Visible.Baseline.P99), "")
	}
	if b := r.Burst; b != nil {
		line(fmt.Sprintf("%d faults at once in %d nodes, to the last quarantine", r.Faults, r.Nodes), ratio(b.Seconds, b.Bare),
			fmt.Sprintf("%.1f s", b.Seconds), fmt.Sprintf("%.1f s", b.Bare), "under 1.5 times")
		line("  of which to the last fault in the API", "", fmt.Sprintf("%.1f s", b.Visible), "", "")
	}
	if d := r.Drains; d != nil {
		line(fmt.Sprintf("%d nodes of %d pods drained at once, to the last that is empty", d.Nodes, d.Pods/d.Nodes), ratio(d.Seconds, d.Bare),
			fmt.Sprintf("%.1f s", d.Seconds), fmt.Sprintf("%.1f s", d.Bare), "under 10 minutes")
		line("  pods a second", ratio(float64(d.Pods)/d.Seconds, float64(d.Pods)/d.Bare), fmt.Sprintf("%.0f", float64(d.Pods)/d.Seconds),
			fmt.Sprintf("%.0f", float64(d.Pods)/d.Bare), "")
		line("  eviction requests a pod, those apart that a budget refused", "", fmt.Sprintf("%.3f", float64(d.Evictions-d.Refused)/float64(d.Evicted)), "1", "one")
		line(fmt.Sprintf("  refused, of %d pods that a budget guards", d.Guarded), "", fmt.Sprint(d.Refused), "", "")
		line("  requests of the controller, a node", "", fmt.Sprintf("%.1f", d.Requests), "", "")
	}
	if q := r.Requests; q != nil {
		line("requests a repaired node: controller, to quarantine", ratio(q.Quarantine, 2), fmt.Sprintf("%.1f", q.Quarantine), "2", "4 at most")
		line("  controller and agent, in all", "", fmt.Sprintf("%.1f + %.1f = %.1f", q.Controller, q.Agent, q.Controller+q.Agent), "", "20 at most")
		line("  evictions, beside", "", fmt.Sprintf("%.1f", q.Evictions), "", "one a pod")
		line("  watches, Leases and Events, apart", "", fmt.Sprintf("%.1f", q.Apart), "", "")
	}
	for _, u := range r.Usage {
		aim := "400 MiB"
		if strings.HasPrefix(u.What, "agent") {
			aim = "20 MiB"
		}
		line(u.What, "", fmt.Sprintf("%.0f MiB (peak %.0f), %.1f%% of a core", u.ResidentMiB, u.PeakMiB, 100*u.Cores), "", "under "+aim)
	}
	r.idle(line)
	if err := table.Flush(); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	if r.Requests != nil {
		fmt.Fprintf(text, "\nRequests of one incident, on average of %d:\n", r.Requests.Incidents)
		line("who", "phase", "verb", "resource", "each")
		for _, row := range r.Requests.Rows {
			line(row.Who, row.Phase, row.Verb, row.Resource, fmt.Sprintf("%.2f", row.Each))
		}
		if err := table.Flush(); err != nil {
			return fmt.Errorf("printing the table: %w", err)
		}
	}
	for _, missing := range r.Missing {
		fmt.Fprintln(text, "Not measured:", missing)
	}
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("printing the table: %w", err)
	}
	return nil
}

// idle sets the agent beside node-problem-detector.
func (r *Report) idle(line func(...string)) {
	if r.Idle == nil {
		return
	}
	i, npd := r.Idle, Usage{}
	if r.Idle.NPD != nil {
		npd = *r.Idle.NPD
	}
	over := (time.Duration(i.Seconds) * time.Second).String()
	line("idle for "+over+": resident, at the end", ratio(i.Agent.ResidentMiB, npd.ResidentMiB), mebibytes(i.Agent.ResidentMiB), mebibytes(npd.ResidentMiB), "under 20 MiB")
	line("  at most, with its children", ratio(i.Agent.PeakMiB, npd.PeakMiB), mebibytes(i.Agent.PeakMiB), mebibytes(npd.PeakMiB), "")
	line("  of a core, with its children", ratio(i.Agent.Cores, npd.Cores), percent(i.Agent.Cores), percent(npd.Cores), "under 0.2%")
	line("  writes to the API", "", fmt.Sprint(i.AgentWrites), fmt.Sprint(i.NPDWrites), "none")
}

func mebibytes(m float64) string { return fmt.Sprintf("%.1f MiB", m) }

func percent(cores float64) string { return fmt.Sprintf("%.3f%%", 100*cores) }

func (r *Report) delays(line func(...string)) {
	for _, one := range []struct {
		what string
		pair Pair
	}{{"kernel line to fault in the API", r.Visible}, {"kernel line to quarantine", r.Quarantine}} {
		ours, base := one.pair.Ours, one.pair.Baseline
		if ours.N == 0 {
			continue
		}
		line(fmt.Sprintf("%s, p50 of %d", one.what, ours.N), ratio(ours.P50, base.P50), milliseconds(ours.P50), milliseconds(base.P50), "")
		line(one.what+", p99", ratio(ours.P99, base.P99), milliseconds(ours.P99), milliseconds(base.P99), "")
	}
}

func milliseconds(ms float64) string { return fmt.Sprintf("%.0f ms", ms) }

func ratio(ours, base float64) string {
	if base <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", ours/base)
}
