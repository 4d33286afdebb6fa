package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
)

// runInject has the running sandbox break something.
func runInject(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	in, stateDir, err := injection(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	running, err := find(ctx, stateDir)
	if err != nil {
		return err
	}
	if err := running.Inject(ctx, in); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s on %s: done\n", in.Fault, in.Node)
	return err
}

// injection reads the command line.
func injection(args []string, stderr io.Writer) (in fleet.Injection, stateDir string, err error) {
	set := flag.NewFlagSet("roundhouse-sandbox inject", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&stateDir, "state-dir", "", "as given to up")
	set.IntVar(&in.Count, "count", 0, "how many lines a storm has; 1000 by default")
	set.IntVar(&in.HealsAfter, "heals-after", 0, "how many reboots heal the GPU: 1 by default, -1 for never")
	set.StringVar(&in.HealedBy, "healed-by", "", "reset for what a reset of the GPU heals too; only reboots do by default")
	set.IntVar(&in.Relapses, "relapses", 0, "how often the fault comes back after a reboot has healed it")
	set.DurationVar(&in.RelapseAfter, "relapse-after", time.Second, "how long after the boot it comes back")
	set.Usage = func() { injectUsage(stderr, set) }
	// Flags may stand behind the words too.
	var words []string
	for {
		if err := set.Parse(args); err != nil {
			return in, "", err
		}
		if set.NArg() == 0 {
			break
		}
		words, args = append(words, set.Arg(0)), set.Args()[1:]
	}
	switch len(words) {
	case 3:
		if in.Device, err = strconv.Atoi(words[2]); err != nil {
			return in, "", fmt.Errorf("device %q: want the number of its slot, from 0", words[2])
		}
		fallthrough
	case 2:
		in.Fault, in.Node = words[0], words[1]
		return in, stateDir, nil
	}
	injectUsage(stderr, set)
	return in, "", fmt.Errorf("want FAULT NODE [DEVICE], got %d words", len(words))
}

func injectUsage(w io.Writer, set *flag.FlagSet) {
	text := "roundhouse-sandbox inject [flags] FAULT NODE [DEVICE]\n\nFaults:\n"
	for _, kind := range fleet.Faults() {
		text += fmt.Sprintf("  %-16s %s\n", kind.Name, kind.Summary)
	}
	_, _ = io.WriteString(w, text+"\nFlags:\n") // help that cannot be written is not read either
	set.PrintDefaults()
}

// runKubeconfig prints where the running sandbox's kubeconfig is.
func runKubeconfig(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("roundhouse-sandbox kubeconfig", flag.ContinueOnError)
	set.SetOutput(stderr)
	stateDir := set.String("state-dir", "", "as given to up")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	running, err := find(ctx, *stateDir)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdout, running.Kubeconfig)
	return err
}

func find(ctx context.Context, stateDir string) (*sandbox.Running, error) {
	if stateDir == "" {
		var err error
		if stateDir, err = sandbox.DefaultStateDir(); err != nil {
			return nil, err
		}
	}
	return sandbox.Find(ctx, stateDir)
}
