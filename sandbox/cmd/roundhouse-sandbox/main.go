// Command roundhouse-sandbox runs a whole cluster on one machine, breaks its GPUs, and shows what Roundhouse does about it.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "unknown"

// command is one thing that this program does.
type command struct {
	name, args, summary string
	run                 func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

// commands are in the order in which help shows them. A new one is one line here and one file beside this one.
func commands() []command {
	return []command{
		{"up", "[--nodes N] [--gpus 8]", "start a cluster and keep it until Ctrl-C", runUp},
		{"demo", "[--once]", "play three acts on 64 nodes, and tell them as they happen", runDemo},
		{"run", "SCENARIO... [--once] [--report FILE]", "play scenarios, and say whether all that is expected was seen", runRun},
		{"scenarios", "", "list them", runScenarios},
		{"bench", "[--quick] [--report FILE]", "measure, and print each figure beside its baseline", runBench},
		{"inject", "FAULT NODE [DEVICE]", "break something in the cluster that up started", runInject},
		{"kubeconfig", "", "print the path of its kubeconfig", runKubeconfig},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "roundhouse-sandbox:", err)
		stop()
		os.Exit(1)
	}
}

// run runs the command that args name.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		return usage(stdout)
	}
	if args[0] == "--version" || args[0] == "version" {
		_, err := fmt.Fprintln(stdout, "roundhouse-sandbox", version)
		return err
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], stdout, stderr)
		}
	}
	return fmt.Errorf("no command %q; roundhouse-sandbox help lists them", args[0])
}

func usage(w io.Writer) error {
	text := "A whole cluster on one machine: real control plane, real controller and agents, simulated nodes and GPUs.\n\n"
	for _, c := range commands() {
		text += fmt.Sprintf("  %-36s %s\n", c.name+" "+c.args, c.summary)
	}
	_, err := io.WriteString(w, text+"\nroundhouse-sandbox COMMAND --help says more.\n")
	return err
}
