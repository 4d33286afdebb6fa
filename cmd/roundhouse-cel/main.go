// Command roundhouse-cel evaluates one CEL expression of a custom check. The agent starts it and talks to it over stdin and
// stdout: CEL costs memory even where nobody uses it, so it is not linked into the agent.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/health/custom/cel"
)

// version is set by the linker.
var version = "unknown"

func main() {
	if len(os.Args) > 1 {
		fmt.Fprintln(os.Stderr, "roundhouse-cel", version, "reads a question on stdin; the agent starts it")
		os.Exit(2)
	}
	// The agent kills it sooner; this is for one that was left alone.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := cel.Serve(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "roundhouse-cel:", err)
		cancel()
		os.Exit(1)
	}
}
