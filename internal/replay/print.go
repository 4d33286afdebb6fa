package replay

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Node is what came of the recording of one node.
type Node struct {
	// Node is the file's name without its directory and its ending.
	Node string `json:"node"`
	File string `json:"file"`
	// Recording says what the file is.
	Recording Notes `json:"recording"`
	Result
}

// Totals are over all recordings.
type Totals struct {
	Recordings int `json:"recordings"`
	// LinesRead are lines of the files; Lines, Matched, Refused and Lost are lines of the kernel log, as of Result.
	LinesRead uint64 `json:"linesRead"`
	Lines     uint64 `json:"lines"`
	Matched   uint64 `json:"matched"`
	Refused   uint64 `json:"refused"`
	Lost      uint64 `json:"lost"`
	Incidents int    `json:"incidents"`
	// Disruptive are the incidents that ask for something that would disturb other work than their own.
	Disruptive int `json:"disruptive"`
}

// Report is what -o json prints.
type Report struct {
	Nodes  []Node `json:"nodes"`
	Totals Totals `json:"totals"`
}

// Add adds the result of one recording.
func (r *Report) Add(n Node) {
	r.Nodes = append(r.Nodes, n)
	t := &r.Totals
	t.Recordings++
	t.LinesRead += n.Recording.Read
	t.Lines += n.Lines
	t.Matched += n.Matched
	t.Refused += n.Refused
	t.Lost += n.Lost
	t.Incidents += len(n.Incidents)
	for i := range n.Incidents {
		t.Disruptive += number(n.Incidents[i].Disruptive)
	}
}

// WriteJSON writes the report as one object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// View says how a table is written.
type View struct {
	// Zone is of the times.
	Zone *time.Location
	// Least is the least severity that is shown; what is hidden is counted.
	Least v1alpha1.Severity
}

// width is of a terminal that the tables are made for.
const width = 120

// WriteTable writes the report for people: a block a node, a row an incident, and under it whose it is, what it caused and
// what shows it.
func (r *Report) WriteTable(w io.Writer, v View) error {
	var b strings.Builder
	for i := range r.Nodes {
		r.Nodes[i].write(&b, v)
	}
	t := r.Totals
	fmt.Fprintf(&b, "%s read, %d matched, %d refused (not the kernel's), %d lost; %s, %d disruptive\n",
		plural(int64(t.LinesRead), "line"), t.Matched, t.Refused, t.Lost, plural(int64(t.Incidents), "incident"), t.Disruptive)
	_, err := io.WriteString(w, b.String())
	return err
}

func (n *Node) write(b *strings.Builder, v View) {
	fmt.Fprintf(b, "%s  %s\n", printable(n.Node), n.about(v))
	for _, line := range n.notes() {
		fmt.Fprintf(b, "  note: %s\n", line)
	}
	shown := 0
	var rows strings.Builder
	t := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "  DEVICE\tROOT\tSEVERITY\tRECOMMENDS\tFIRST\tLAST\tCLEARED\tCOUNT\tDISRUPTIVE")
	var details []string
	for i := range n.Incidents {
		in := &n.Incidents[i]
		if rank(in.Root.Severity) < rank(v.Least) && !in.Disruptive {
			continue
		}
		shown++
		f := &in.Root
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", device(f), f.Code, f.Severity, f.Recommended, n.when(f.First, v),
			since(f.First, f.Last), cleared(f), f.Count, yesNo(in.Disruptive))
		details = append(details, in.details())
	}
	// Writing to memory does not fail.
	_ = t.Flush()
	if shown > 0 {
		lines := strings.SplitAfter(rows.String(), "\n")
		b.WriteString(lines[0])
		for i, d := range details {
			b.WriteString(lines[i+1])
			b.WriteString(d)
		}
	}
	if hidden := len(n.Incidents) - shown; hidden > 0 {
		fmt.Fprintf(b, "  %s below %s not shown\n", plural(int64(hidden), "incident"), v.Least)
	}
	if n.Dropped > 0 {
		fmt.Fprintf(b, "  %s did not fit\n", plural(int64(n.Dropped), "fault"))
	}
	b.WriteByte('\n')
}

// about says what the recording is and over which time it goes.
func (n *Node) about(v View) string {
	s := fmt.Sprintf("%s, %s", n.Recording.Format, plural(int64(n.Recording.Read), "line"))
	if n.From.IsZero() {
		return s + ", no event in it"
	}
	if n.Recording.SinceBoot {
		s += fmt.Sprintf(", %s to %s", n.when(n.From, v), n.when(n.To, v))
	} else {
		s += fmt.Sprintf(", %s to %s", n.From.In(v.zone()).Format(time.DateTime), n.To.In(v.zone()).Format(time.DateTime+" MST"))
	}
	if n.Boots > 1 {
		s += fmt.Sprintf(", %d boots", n.Boots)
	}
	return s
}

// notes say what the table alone would hide.
func (n *Node) notes() []string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if n.Recording.FacilityAssumed {
		add("the lines do not tell who wrote them; all are taken for the kernel's, and a process may have forged some")
	}
	if n.Recording.SinceBoot {
		add("no time of day is in it; times are since its first boot (-boot-time says when that was)")
	}
	if n.Recording.Malformed > 0 {
		add("%s could not be read, first %s", plural(int64(n.Recording.Malformed), "line"), printable(n.Recording.FirstMalformed))
	}
	if n.Recording.Cut > 0 {
		add("%s too long and cut", plural(int64(n.Recording.Cut), "line"))
	}
	if n.Recording.Foreign > 0 {
		add("%s of processes passed over", plural(int64(n.Recording.Foreign), "line"))
	}
	if n.Lost > 0 {
		add("%s lost: what they told is not known", plural(int64(n.Lost), "kernel line"))
	}
	if n.Backwards > 0 {
		add("time goes back %s; it was held meanwhile", plural(int64(n.Backwards), "time"))
	}
	for _, c := range n.Checks {
		if c.Looks > 0 && c.Unknown == c.Looks {
			add("%s did not judge: %s", c.Name, printable(c.Message))
		}
	}
	return out
}

func (v View) zone() *time.Location {
	if v.Zone == nil {
		return time.UTC
	}
	return v.Zone
}

// when is a time in a column: of day, or since the boot where that is all there is.
func (n *Node) when(t time.Time, v View) string {
	if n.Recording.SinceBoot {
		return "+" + t.Sub(time.Unix(0, 0)).Truncate(time.Second).String()
	}
	return t.In(v.zone()).Format("01-02 15:04:05")
}

// since is a time by its distance from another, which is narrow and says more.
func since(from, to time.Time) string {
	d := max(to.Sub(from).Truncate(time.Second), 0)
	if d >= 100*time.Hour {
		return fmt.Sprintf("+%dd", d/(24*time.Hour))
	}
	s := d.String()
	if d >= time.Hour {
		s = strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return "+" + s
}

func cleared(f *Fault) string {
	if f.Cleared.IsZero() {
		return "stands"
	}
	return since(f.First, f.Cleared)
}

func device(f *Fault) string {
	switch {
	case f.PCI != "":
		return f.PCI
	case f.Device != "":
		return printable(f.Device)
	}
	return "node"
}

// details are the lines under an incident.
func (in *Incident) details() string {
	f := &in.Root
	s := "    " + string(f.Class)
	if f.PCI != "" && f.Device != "" && f.Device != "pci-"+f.PCI {
		s += ", " + printable(f.Device)
	}
	for i := range in.Consequences {
		c := &in.Consequences[i]
		if i == 0 {
			s += "; caused "
		} else {
			s += ", "
		}
		if len(s) > width-24 {
			s += fmt.Sprintf("and %d more", len(in.Consequences)-i)
			break
		}
		s += c.Code
		if c.Count > 1 {
			s += " x" + strconv.FormatInt(c.Count, 10)
		}
	}
	s += "\n"
	if f.Evidence != "" {
		s += "    " + bounded(f.Evidence, width-4) + "\n"
	}
	return s
}

// bounded cuts printable ASCII.
func bounded(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n-3] + "..."
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// plural writes a number and its unit: "1 line", "12,345 lines".
func plural(n int64, unit string) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if n != 1 {
		unit += "s"
	}
	return s + " " + unit
}
