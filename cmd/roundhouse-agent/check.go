package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/roundhouse-dev/roundhouse/internal/checkup"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

const checkUsage = `roundhouse-agent check looks once with every check, without a cluster, and changes nothing.

Exit code: 0 healthy, 1 a fault was found, 2 no fault, but something could not be seen, 3 the command line is wrong.

`

// check looks once and says what was seen.
func check(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := &flags{}
	set := flag.NewFlagSet("roundhouse-agent check", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprint(stderr, checkUsage)
		set.PrintDefaults()
	}
	f.host(set)
	format := set.String("o", "text", "output format: text or json")
	within := set.Duration("within", 20*time.Second, "time for all looks together; what settles later is Unknown")
	err := set.Parse(args)
	switch {
	case errors.Is(err, errHelp):
		return nil
	case err != nil: // said already, with the flags.
		return exitCode(checkup.ExitUsage)
	case set.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", set.Arg(0))
	case *format != "text" && *format != "json":
		err = fmt.Errorf("-o %s: want text or json", *format)
	case *within <= 0:
		err = fmt.Errorf("-within %s: want more than nothing", *within)
	}
	if err != nil {
		fmt.Fprintln(stderr, "roundhouse-agent check:", err)
		return exitCode(checkup.ExitUsage)
	}
	report, err := examine(ctx, f, *within)
	if err != nil {
		fmt.Fprintln(stderr, "roundhouse-agent check:", err)
		return exitCode(checkup.ExitUsage)
	}
	if *format == "json" {
		err = report.WriteJSON(stdout)
	} else {
		page := page(stdout)
		report.Render(page)
		_, err = page.WriteTo(stdout)
	}
	if code := report.Exit(); err == nil && code != checkup.ExitHealthy {
		return exitCode(code)
	}
	return err
}

// examine looks at the machine with the agent's checks.
func examine(ctx context.Context, f *flags, within time.Duration) (*checkup.Report, error) {
	host := machine.NewHost(machine.Options{Root: f.hostRoot, StateDir: f.stateDir})
	f.checks.Machine, f.checks.AllowRepair = machine.ReadOnly(host), false
	set, err := f.set(ctx, host)
	if err != nil {
		return nil, err
	}
	report := checkup.Run(ctx, checkup.Options{Checks: set.Checks(), Within: within})
	report.Version = version
	report.Identify(ctx, host)
	return report, nil
}

// page folds and colours for a terminal only.
func page(stdout io.Writer) *text.Page {
	p := &text.Page{Clock: text.Clock{Now: time.Now(), Zone: time.Local}}
	file, ok := stdout.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return p
	}
	p.Color = os.Getenv("NO_COLOR") == ""
	if width, _, err := term.GetSize(int(file.Fd())); err == nil {
		p.Width = width
	}
	return p
}
