// Command roundhouse-controller decides what is done about failing accelerators, and has it done.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	_ "time/tzdata" // Windows of policies name time zones, and a minimal image has no database of them.

	"github.com/go-logr/logr"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/roundhouse-dev/roundhouse/internal/controller"
)

// version is set by the linker.
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "roundhouse-controller:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var given options
	flags := given.flagSet()
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil
		}
		return fmt.Errorf("reading flags: %w", err)
	}
	if given.version {
		_, err := fmt.Fprintln(os.Stdout, version)
		return err
	}
	c := given.controller
	var err error
	if c.NodeSelector, err = labels.Parse(given.selector); err != nil {
		return fmt.Errorf("reading --node-selector: %w", err)
	}
	if c.Logger, err = newLogger(given.level); err != nil {
		return err
	}
	ctrl.SetLogger(c.Logger)
	restConfig, err := newRESTConfig(given.kubeconfig)
	if err != nil {
		return err
	}
	return controller.Run(ctx, restConfig, c)
}

func newLogger(level string) (logr.Logger, error) {
	var at slog.Level
	if err := at.UnmarshalText([]byte(level)); err != nil {
		return logr.Logger{}, fmt.Errorf("reading --log-level: %w", err)
	}
	return logr.FromSlogHandler(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: at})), nil
}

func newRESTConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("reading how to reach the API server: %w", err)
	}
	config.UserAgent = "roundhouse-controller/" + version
	return config, nil
}
