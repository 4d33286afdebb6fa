// Command init is process 1 of the virtual machine that sandbox/vm boots. It makes the machine a node as far as an agent
// can tell (mounts, modules, network, a disk that outlives a reboot), keeps the agent running as a kubelet would, and
// answers the test's requests on the second serial port. It is static, and nothing else runs beside it and the agent.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/roundhouse-dev/roundhouse/sandbox/vm/wire"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == wire.HoldCommand {
		if err := hold(os.Args[2]); err != nil {
			fmt.Fprintf(os.Stderr, "init: holding: %v\n", err)
			os.Exit(1)
		}
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: this program is process 1 of a test's virtual machine and does nothing elsewhere")
		os.Exit(2)
	}
	if err := run(context.Background()); err != nil {
		fmt.Printf("init: %v\n", err)
	}
	// The kernel panics when process 1 ends, and would take the reason off the screen.
	for {
		time.Sleep(time.Hour)
	}
}

// run brings the machine up and serves. The control channel is opened even if the machine could not be brought up, so
// that the test is told why.
func run(ctx context.Context) error {
	if err := mountKernelFilesystems(); err != nil {
		return err
	}
	cfg, bootErr := readConfig()
	if bootErr == nil {
		bootErr = bringUp(cfg)
	}
	port, err := openSerial(wire.ControlDevice)
	if err != nil {
		return err
	}
	sup := &supervisor{console: os.Stdout}
	srv := &server{port: port, agent: sup}
	if err := srv.hello(bootErr); err != nil {
		return err
	}
	if bootErr == nil && cfg.Agent != nil {
		sup.process = *cfg.Agent
		go sup.keepRunning()
	}
	return srv.serve(ctx)
}

// readConfig reads what the host put into the initramfs.
func readConfig() (wire.Config, error) {
	var cfg wire.Config
	raw, err := os.ReadFile(wire.ConfigPath)
	if err != nil {
		return cfg, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return cfg, fmt.Errorf("parsing the configuration: %w", err)
	}
	return cfg, nil
}

// reboot asks the kernel for a restart. It does not sync first: an agent that wants its journal back must have synced it.
func reboot() error {
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
