package demo

import (
	"fmt"

	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
)

// Table tells how it went with each node, and how many expectations were seen; it says whether all were.
func Table(page *scenario.Page, reports []*scenario.Report) bool {
	page.Text(scenario.Plain, "")
	page.Text(scenario.Bold, fmt.Sprintf("%-12s%12s%9s%10s%10s%9s%16s", "", "quarantined", "drained", "repaired", "returned", "reboots", "pods disturbed"))
	seen, expected, passed := 0, 0, true
	for _, r := range reports {
		for _, n := range r.Nodes {
			page.Text(scenario.Plain, fmt.Sprintf("%-12s%12s%9s%10s%10s%9d%16d", n.Node, after(n.Quarantined), after(n.Drained), after(n.Repaired), after(n.Returned), n.Reboots, n.Disturbed))
		}
		seen, expected, passed = seen+r.Seen, expected+r.Expected, passed && r.Passed
	}
	page.Text(scenario.Dim, "Times are since the fault, or since the policy was told to act. Repaired: the first proof.")
	style := scenario.Green
	if !passed {
		style = scenario.Red
	}
	page.Text(style, fmt.Sprintf("%d of %d expectations seen in the API", seen, expected))
	return passed
}

func after(at *float64) string {
	if at == nil {
		return "-"
	}
	return fmt.Sprintf("%.2fs", *at)
}
