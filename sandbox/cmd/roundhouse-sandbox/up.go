package main

import (
	"context"
	"errors"
	"io"
)

var errBeingWritten = errors.New("being written")

func runUp(ctx context.Context, args []string, stdout, stderr io.Writer) error { return errBeingWritten }

func runInject(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return errBeingWritten
}

func runKubeconfig(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	return errBeingWritten
}
