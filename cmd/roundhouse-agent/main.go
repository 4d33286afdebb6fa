// Command roundhouse-agent runs on every node with accelerators: it checks their health, publishes it, and does what the
// controller asks of its node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/go-logr/logr"

	replay "github.com/roundhouse-dev/roundhouse/internal/replay/command"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	err := command(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintln(os.Stderr, "roundhouse-agent:", err)
		os.Exit(1)
	}
}

// exitCode ends the program with that code; what there was to say has been said.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// command runs what the first argument names; without one, the agent.
func command(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	switch {
	case len(args) > 0 && args[0] == "check":
		return check(ctx, args[1:], stdout, stderr)
	case len(args) > 0 && args[0] == "replay":
		return replay.Command{Stdin: os.Stdin, Stdout: stdout, Stderr: stderr}.Run(ctx, args[1:])
	}
	return run(ctx, args, env, stdout, stderr)
}

// run runs the agent until the context ends.
func run(ctx context.Context, args []string, env func(string) string, stdout, stderr io.Writer) error {
	f, err := parse(args, env, stderr)
	if errors.Is(err, errHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if f.version {
		_, err := fmt.Fprintln(stdout, "roundhouse-agent", version)
		return err
	}
	// The heap is a few MiB: collecting it twice as often costs nothing that can be measured, and keeps the agent small.
	debug.SetGCPercent(50)
	ctx = logr.NewContext(ctx, logr.FromSlogHandler(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: f.level()})))
	node, registry, err := wire(ctx, f)
	if err != nil {
		return err
	}
	stop, err := serve(ctx, f.bind, node.Handler(registry))
	if err != nil {
		return err
	}
	defer stop()
	return node.Run(ctx)
}
