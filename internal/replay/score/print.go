package score

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteJSON writes the score as one object. Delays are nanoseconds.
func (s *Score) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

// WriteTable writes the score for a terminal.
func (s *Score) WriteTable(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, table := range [][][]string{s.classTable(), s.faultTable(), s.noiseTable()} {
		for _, row := range table {
			fmt.Fprintln(t, strings.Join(row, "\t"))
		}
		// Writing to memory does not fail.
		_ = t.Flush()
		b.WriteByte('\n')
	}
	for _, line := range s.Summary() {
		fmt.Fprintln(&b, line)
	}
	for _, e := range s.Examples {
		fmt.Fprintln(&b, e)
	}
	_, err := io.WriteString(w, trimLines(b.String()))
	return err
}

// WriteMarkdown writes it for a page.
func (s *Score) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	for _, table := range [][][]string{s.classTable(), s.faultTable(), s.noiseTable()} {
		for i, row := range table {
			if i > 0 {
				fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
				continue
			}
			fmt.Fprintf(&b, "| %s |\n%s|\n", strings.ToLower(strings.Join(row, " | ")), strings.Repeat("|---", len(row)))
		}
		b.WriteByte('\n')
	}
	for _, line := range s.Summary() {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// faultTable has a row a kind of fault, under a row of titles.
func (s *Score) faultTable() [][]string {
	rows := [][]string{{"FAULT", "CODE", "CLASS", "ASKS FOR", "FAULTS", "FOUND", "RECALL", "PRECISION", "ROOT NAMED", "LINGERING", "MEDIAN", "P99", "MAX"}}
	for i := range s.Rows {
		r := &s.Rows[i]
		if r.Faults == 0 {
			continue
		}
		asks := "no repair"
		if r.Disruptive {
			asks = "reset or reboot"
		}
		recall := percent(r.Recall())
		if !r.Visible {
			recall = "no lines"
		}
		row := []string{
			r.Kind, codes(r.Codes), r.Class, asks, strconv.Itoa(r.Faults), strconv.Itoa(r.Found), recall, percent(r.Precision()),
			strconv.Itoa(r.Root), strconv.Itoa(r.Lingering), delay(r.Median), delay(r.P99), delay(r.Max),
		}
		if r.Found == 0 {
			for i := 7; i < len(row); i++ {
				row[i] = "-"
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// classTable has a row a class of faults, of those that lines reveal.
func (s *Score) classTable() [][]string {
	rows := [][]string{{"CLASS", "FAULTS", "FOUND", "RECALL", "FALSE", "PRECISION", "MEDIAN", "P99", "MAX"}}
	for i := range s.Classes {
		r := &s.Classes[i]
		rows = append(rows, []string{
			r.Class, strconv.Itoa(r.Faults), strconv.Itoa(r.Found), percent(r.Recall()), strconv.Itoa(r.False), percent(r.Precision()),
			delay(r.Median), delay(r.P99), delay(r.Max),
		})
	}
	return rows
}

// codes writes codes of one kind short: "Xid144, 145, 150".
func codes(of []string) string {
	if len(of) == 0 {
		return "-"
	}
	out := of[0]
	for _, c := range of[1:] {
		out += ", " + strings.TrimPrefix(c, "Xid")
	}
	return out
}

func (s *Score) noiseTable() [][]string {
	rows := [][]string{{"NOISE", "EPISODES", "TAKEN FOR BROKEN"}}
	for _, n := range s.Noise {
		rows = append(rows, []string{n.Kind, strconv.Itoa(n.Episodes), strconv.Itoa(n.Disruptive)})
	}
	return rows
}

// Summary is the score in sentences.
func (s *Score) Summary() []string {
	visible, found, hidden := 0, 0, 0
	for i := range s.Rows {
		if r := &s.Rows[i]; r.Visible {
			visible, found = visible+r.Faults, found+r.Found
		} else {
			hidden += r.Faults
		}
	}
	c := s.Counts
	return []string{
		fmt.Sprintf("Seed %d, %d nodes over %d %s: %d kernel lines, %d of them of applications, %d with a forged name, %d written by "+
			"processes; %d overwritten.", s.Seed, s.Nodes, s.Days, days(s.Days), c.Lines, c.Application, c.Forged, c.Injected, c.Lost),
		fmt.Sprintf("Found %d of %d faults that lines reveal (recall %s); %d left no line that could be read.",
			found, visible, ratio(found, visible), hidden),
		fmt.Sprintf("False disruptive recommendations: %d, of %d disruptive incidents. Standing after the repair: %d.",
			s.FalseDisruptive, s.Totals.Disruptive, s.Lingering),
	}
}

func days(n int) string {
	if n == 1 {
		return "day"
	}
	return "days"
}

func ratio(n, of int) string { return strconv.FormatFloat(share(n, of), 'f', 3, 64) }

func percent(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

// delay writes a delay with its unit, no finer than it means anything.
func delay(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "0 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Truncate(time.Second).String()
}
