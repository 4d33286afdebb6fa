// Package command is `roundhouse-agent replay`: flags, files, and what is printed of package replay.
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/replay"
	"github.com/roundhouse-dev/roundhouse/internal/replay/corpus"
)

// ErrDisruptive is what Run returns with -fail-on-disruptive when an incident would have asked for something disruptive.
var ErrDisruptive = errors.New("a disruptive incident was found")

// maxFiles bounds the recordings of one call.
const maxFiles = 100000

// Command is what its caller decides.
type Command struct {
	// Checks makes the checks that judge; replay.DefaultChecks when nil, and replay.FactChecks for a stream of facts.
	Checks func(m *replay.Machine, now func() time.Time) []health.Check
	// Now is the clock, for lines without a year; time.Now when nil.
	Now func() time.Time
	// Stdin is read for the file "-".
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

const usage = `Usage: roundhouse-agent replay [flags] LOG...
       roundhouse-agent replay -corpus [flags]

Plays recorded kernel logs through the checks that the agent runs, in recorded time, and prints the incidents that it
would have reported. Nothing of this machine is read or touched. Each LOG is the recording of one node, in one of:

  kmsg          raw records of /dev/kmsg (cat /dev/kmsg)
  dmesg         dmesg, with or without -T, -x, -r
  journal       journalctl -k, -o short, short-iso, short-precise or short-monotonic
  journal-json  journalctl -k -o json
  facts         a fact stream, one JSON object a line (docs/replay.md)

"-" is standard input. dmesg without -x, and the short forms of journalctl, do not tell whether the kernel or a process
wrote a line: all are then taken for the kernel's, and the output says so.

An incident is disruptive when it is Critical, is not an application's own, and recommends a reset, a reboot, a power
cycle or a replacement.

With -corpus no log is read: a fleet's logs are made up from published mixes of faults and noise, with labels that say
what is true, and the table says how much of it was found, how soon, and what was taken for broken that was not.

Flags:
`

// flags are the command line.
type flags struct {
	output, format, bootTime, zone, least string
	failOnDisruptive                      bool

	corpus      bool
	seed        uint64
	nodes, days int
	write       string

	files []string
}

// errUsage is a command line that cannot be understood; what is wrong was printed.
var errUsage = errors.New("see roundhouse-agent replay -h")

// Run runs the command. It returns nil when it ran, whatever was found, unless -fail-on-disruptive says otherwise.
func (c Command) Run(ctx context.Context, args []string) error {
	if c.Now == nil {
		c.Now = time.Now
	}
	f, err := c.parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if f.corpus {
		return c.score(ctx, f)
	}
	return c.replay(ctx, f)
}

func (c Command) parse(args []string) (*flags, error) {
	var f flags
	set := flag.NewFlagSet("replay", flag.ContinueOnError)
	set.SetOutput(c.Stderr)
	set.Usage = func() {
		_, _ = io.WriteString(c.Stderr, usage)
		set.PrintDefaults()
	}
	set.StringVar(&f.output, "o", "table", "output: table or json; with -corpus also markdown")
	set.StringVar(&f.format, "format", "auto", "format of the logs: auto, kmsg, dmesg, journal, journal-json or facts")
	set.StringVar(&f.bootTime, "boot-time", "", "when the machine started, in RFC 3339, for logs that count from there")
	set.StringVar(&f.zone, "tz", "Local", "time zone of logs with local times, and of the output: a name of the IANA database, UTC or Local")
	set.StringVar(&f.least, "severity", "Info", "least severity that the table shows: Info, Warning or Critical")
	set.BoolVar(&f.failOnDisruptive, "fail-on-disruptive", false, "exit with 1 when an incident is disruptive; with -corpus, when the score is not clean")
	set.BoolVar(&f.corpus, "corpus", false, "judge a made-up fleet instead of logs, and print how well")
	set.Uint64Var(&f.seed, "seed", corpus.DefaultSeed, "seed of the corpus; the same seed makes the same corpus")
	set.IntVar(&f.nodes, "nodes", corpus.DefaultNodes, "nodes of the corpus")
	set.IntVar(&f.days, "days", corpus.DefaultDays, "days of the corpus")
	set.StringVar(&f.write, "write", "", "also write the corpus to this directory: a raw kernel log a node, and labels.jsonl")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, err
		}
		return nil, errUsage
	}
	f.files = set.Args()
	return &f, f.check()
}

func (f *flags) check() error {
	outputs := []string{"table", "json"}
	if f.corpus {
		outputs = append(outputs, "markdown")
	}
	switch {
	case !slices.Contains(outputs, f.output):
		return fmt.Errorf("-o %s: want %s", f.output, strings.Join(outputs, ", "))
	case !f.corpus && len(f.files) == 0:
		return errors.New("say which logs to replay, or -corpus; - is standard input")
	case f.corpus && len(f.files) > 0:
		return fmt.Errorf("-corpus reads no logs, and %s is given; leave out one of the two", f.files[0])
	case !f.corpus && f.write != "":
		return errors.New("-write writes the corpus: give -corpus too")
	case len(f.files) > maxFiles:
		return fmt.Errorf("%d logs: want %d at most; give them in several calls", len(f.files), maxFiles)
	}
	switch v1alpha1.Severity(f.least) {
	case v1alpha1.SeverityInfo, v1alpha1.SeverityWarning, v1alpha1.SeverityCritical:
		return nil
	}
	return fmt.Errorf("-severity %s: want Info, Warning or Critical", f.least)
}

// replay plays the logs, one after the other.
func (c Command) replay(ctx context.Context, f *flags) error {
	o, err := c.readOptions(f)
	if err != nil {
		return err
	}
	var report replay.Report
	for _, file := range f.files {
		node, err := c.play(ctx, file, o)
		if err != nil {
			return err
		}
		report.Add(node)
	}
	if f.output == "json" {
		err = report.WriteJSON(c.Stdout)
	} else {
		err = report.WriteTable(c.Stdout, replay.View{Zone: o.Zone, Least: v1alpha1.Severity(f.least)})
	}
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return disruptive(f, report.Totals.Disruptive)
}

func disruptive(f *flags, n int) error {
	if f.failOnDisruptive && n > 0 {
		return fmt.Errorf("%w: %d in all", ErrDisruptive, n)
	}
	return nil
}

func (c Command) readOptions(f *flags) (replay.ReadOptions, error) {
	o := replay.ReadOptions{Now: c.Now()}
	var err error
	if o.Format, err = replay.ParseFormat(f.format); err != nil {
		return o, fmt.Errorf("-format: %w", err)
	}
	if o.Zone, err = time.LoadLocation(f.zone); err != nil {
		return o, fmt.Errorf("-tz: %w; want a name such as Asia/Tokyo, UTC or Local", err)
	}
	if f.bootTime != "" {
		if o.BootTime, err = time.Parse(time.RFC3339, f.bootTime); err != nil {
			return o, fmt.Errorf("-boot-time %q: want RFC 3339, such as 2026-11-23T10:00:00Z", f.bootTime)
		}
	}
	return o, nil
}

// play plays one log.
func (c Command) play(ctx context.Context, file string, o replay.ReadOptions) (replay.Node, error) {
	in, name, err := c.open(file)
	if err != nil {
		return replay.Node{}, err
	}
	defer func() { _ = in.Close() }()
	r, err := replay.NewReader(file, in, o)
	if err != nil {
		return replay.Node{}, err
	}
	checks := c.Checks
	if checks == nil && r.Notes().Format == replay.FormatFacts {
		checks = replay.FactChecks
	}
	res, err := replay.Run(ctx, r, replay.Options{Checks: checks})
	if err != nil {
		return replay.Node{}, err
	}
	return replay.Node{Node: name, File: file, Recording: r.Notes(), Result: res}, nil
}

func (c Command) open(file string) (in io.ReadCloser, node string, err error) {
	if file == "-" {
		return io.NopCloser(c.Stdin), "stdin", nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, "", fmt.Errorf("opening a log: %w", err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		_ = f.Close()
		return nil, "", fmt.Errorf("%s is a directory; give the logs in it, such as %s", file, filepath.Join(file, "*"))
	}
	node = filepath.Base(file)
	for _, end := range []string{".log", ".kmsg", ".txt", ".json", ".jsonl"} {
		node = strings.TrimSuffix(node, end)
	}
	return f, node, nil
}
