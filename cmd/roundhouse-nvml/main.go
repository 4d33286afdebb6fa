//go:build cgo && linux

// Command roundhouse-nvml asks NVIDIA's management library how the GPUs are, once, and ends. roundhouse-agent starts it,
// since the library may hang or crash in any call; see docs/design/nvml.md.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/machine/nvml"
	"github.com/roundhouse-dev/roundhouse/internal/program"
)

// version is set by the linker.
var version = "unknown"

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "roundhouse-nvml:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	var o nvml.Options
	set := program.Flags("roundhouse-nvml", stderr)
	set.StringVar(&o.Root, "root", "/", "where the host's root file system is seen")
	deadline := set.Duration("deadline", 20*time.Second, "end after this time, whatever hangs")
	note := set.Int("note", -1, "file descriptor of a file to note each call in before it is made")
	programs := set.Bool("allow-programs", false, "let the library run nvidia-modprobe, which loads the driver and makes device nodes")
	pretty := set.Bool("pretty", false, "print the report for people, at the end, instead of frames")
	if done, err := program.Parse(set, version, args, stdout); done || err != nil {
		return err
	}
	if *deadline <= 0 {
		return fmt.Errorf("-deadline %s: want more than 0", *deadline)
	}
	if *note >= 0 {
		o.Note = os.NewFile(uintptr(*note), "note")
	}
	if err := nvml.Guard(*deadline, os.Exit); err != nil {
		return err
	}
	if !*programs {
		if err := nvml.ForbidPrograms(); err != nil {
			return err
		}
	}
	if *pretty {
		return prettily(o, stdout)
	}
	out, err := machine.NewNVMLEncoder(stdout, version)
	if err != nil {
		return err
	}
	return nvml.Run(o, out)
}

// prettily prints the whole report when it is complete.
func prettily(o nvml.Options, stdout io.Writer) error {
	var frames bytes.Buffer
	out, err := machine.NewNVMLEncoder(&frames, version)
	if err == nil {
		err = nvml.Run(o, out)
	}
	if err != nil {
		return err
	}
	report, end, err := machine.DecodeNVML(&frames)
	if err != nil {
		return err
	}
	switch {
	case end.Missing != "":
		return fmt.Errorf("%w: %s", machine.ErrNoNVML, end.Missing)
	case end.Failed != "":
		return errors.New(end.Failed)
	}
	encoder := json.NewEncoder(stdout)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}
