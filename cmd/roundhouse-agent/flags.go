package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/roundhouse-dev/roundhouse/internal/checks"
	"github.com/roundhouse-dev/roundhouse/internal/health/infiniband"
	"github.com/roundhouse-dev/roundhouse/internal/health/pci"
)

// errHelp means that help was asked for and given.
var errHelp = flag.ErrHelp

// usage is the beginning of the help.
const usage = `roundhouse-agent watches the accelerators of a node and publishes what it saw.

  roundhouse-agent [flags]            run on a node of a cluster
  roundhouse-agent check [flags]      look once with every check, without a cluster, and say what was seen
  roundhouse-agent replay LOG...      play recorded kernel logs through the same checks, and say what they show
  roundhouse-agent COMMAND -h         flags of a command

`

// flags are what the command line says.
type flags struct {
	node, hostRoot, stateDir  string
	server, caFile, tokenFile string
	bind                      string
	podResources              string
	every                     time.Duration
	checks                    checks.Options
	npd                       []string
	customDir                 string
	dailyLimit                int
	observeOnly               bool
	verbose, version          bool
}

// host adds the flags that say where the machine is and what to look at, which every command that looks has.
func (f *flags) host(set *flag.FlagSet) {
	set.StringVar(&f.hostRoot, "host-root", "/", "where the host's root file system is seen")
	set.StringVar(&f.stateDir, "state-dir", "/var/lib/roundhouse", "directory of the host where the journal and the checks' state are kept")
	set.Func("accelerators", "further devices to watch, vendor:device[:class] in hexadecimal with * for any, comma-separated",
		list(&f.checks.Accelerators, pci.ParseMatch))
	set.Func("expect-devices", "how many accelerators there must be: N, or vendor:device=N, comma-separated",
		list(&f.checks.Declared.Counts, pci.ParseDeclaredCount))
	set.Func("expect-links", "PCIe links that there must be, such as 10de:2330=x16@32 or slot:3=x8, comma-separated",
		list(&f.checks.Declared.Links, pci.ParseDeclaredLink))
	set.Func("infiniband-exclude", "RDMA ports that are not watched, device or device/port with * for any, comma-separated",
		list(&f.checks.Ports, infiniband.ParsePattern))
	set.Func("infiniband-rates", "what RDMA ports must run at in Gb/s, such as mlx5_*=400, comma-separated",
		list(&f.checks.Rates, infiniband.ParseRate))
	set.BoolVar(&f.checks.NoKernelLog, "no-kernel-log", false, "do not read the kernel log")
	set.BoolVar(&f.checks.NoNVML, "no-nvml", false, "do not ask NVIDIA's library")
	set.Func("npd-config", "configurations of node-problem-detector's to run, files or patterns, comma-separated",
		list(&f.npd, func(s string) (string, error) { return s, nil }))
	set.BoolVar(&f.checks.AllowRepair, "npd-allow-repair", false, "let NPD's health-checker restart services where its arguments ask for it")
	set.StringVar(&f.customDir, "custom-checks", "", "directory of custom checks")
	set.BoolVar(&f.checks.AcceptInjected, "accept-injected-kernel-lines", false,
		"FOR TESTS ONLY: believe kernel-log lines that any process can write; shows as a metric")
}

// list reads a comma-separated list.
func list[T any](into *[]T, parse func(string) (T, error)) func(string) error {
	return func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			one, err := parse(strings.TrimSpace(part))
			if err != nil {
				return err
			}
			*into = append(*into, one)
		}
		return nil
	}
}

func parse(args []string, env func(string) string, stderr io.Writer) (*flags, error) {
	f := &flags{}
	set := flag.NewFlagSet("roundhouse-agent", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Usage = func() {
		fmt.Fprint(stderr, usage)
		set.PrintDefaults()
	}
	f.host(set)
	set.StringVar(&f.node, "node-name", env("NODE_NAME"), "name of the Node this runs on; $NODE_NAME by default")
	set.StringVar(&f.server, "server", "", "URL of the API server; that of the pod by default")
	set.StringVar(&f.caFile, "ca-file", "", "with -server: file of the CA")
	set.StringVar(&f.tokenFile, "token-file", "", "with -server: file of the bound service-account token")
	set.StringVar(&f.bind, "metrics-bind", ":9809", "address of /healthz, /readyz and /metrics; empty serves none")
	set.StringVar(&f.podResources, "pod-resources", "/var/lib/kubelet/pod-resources/kubelet.sock",
		"the kubelet's pod-resources socket, as it is seen from here; it is asked who holds a bad device. Empty: it is not")
	set.DurationVar(&f.every, "check-every", 30*time.Second, "time between two looks of a check that nothing hurries")
	set.IntVar(&f.dailyLimit, "daily-limit", 4, "disruptive acts this host allows in 24 hours, at most 64; 0 allows none; nothing in the API raises it")
	set.BoolVar(&f.observeOnly, "observe-only", false, "support no actions: the agent needs no privilege to reboot")
	set.BoolVar(&f.verbose, "v", false, "log more")
	set.BoolVar(&f.version, "version", false, "print the version and exit")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.version:
	case set.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", set.Arg(0))
	case f.node == "":
		return nil, errors.New("no node name: set -node-name or $NODE_NAME")
	case f.dailyLimit < 0 || f.dailyLimit > 64:
		return nil, fmt.Errorf("-daily-limit %d: want 0 to 64", f.dailyLimit)
	}
	return f, nil
}

func (f *flags) level() slog.Level {
	if f.verbose {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
