// Command roundhouse-podresources asks the kubelet of its node once which devices each container holds, and ends. The agent
// starts it when a device is bad: gRPC costs memory even where nobody uses it, so it is not linked into the agent.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/podresources"
	"github.com/roundhouse-dev/roundhouse/internal/podresources/kubelet"
	"github.com/roundhouse-dev/roundhouse/internal/program"
)

// version is set by the linker.
var version = "unknown"

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "roundhouse-podresources:", err)
		os.Exit(1)
	}
}

// run asks and writes the answer; that the kubelet could not be asked is an answer too.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	set := program.Flags("roundhouse-podresources", stderr)
	socket := set.String("socket", kubelet.Socket, "the kubelet's socket, as it is seen from here")
	timeout := set.Duration("timeout", 4*time.Second, "how long the kubelet may take, at most a minute")
	if done, err := program.Parse(set, version, args, stdout); done || err != nil {
		return err
	}
	if *timeout <= 0 || *timeout > time.Minute {
		return fmt.Errorf("-timeout %s: want more than 0 and at most 1m", *timeout)
	}
	holdings, err := kubelet.List(ctx, *socket, *timeout)
	answer, err := podresources.Encode(holdings, err)
	if err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	if _, err := stdout.Write(append(answer, '\n')); err != nil {
		return fmt.Errorf("writing the answer: %w", err)
	}
	return nil
}
