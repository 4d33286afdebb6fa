// Command kubectl-roundhouse is a kubectl plugin: put it on PATH and type kubectl roundhouse.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/roundhouse-dev/roundhouse/internal/cli"
)

// version is set when it is built.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args[1:], cli.Options{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Version: version})
	stop()
	os.Exit(code)
}
