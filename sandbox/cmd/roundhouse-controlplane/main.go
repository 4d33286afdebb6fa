// Command roundhouse-controlplane is four Kubernetes components in one file:
// kube-apiserver, kube-scheduler, kube-controller-manager and etcd, each the
// upstream code unchanged, chosen by the first argument:
//
//	roundhouse-controlplane kube-apiserver --etcd-servers=...
//
// They share one binary because they share nine tenths of their code, and they
// stay separate processes because each of them owns process-wide flags, feature
// gates and signal handling. Package sandbox/controlplane starts them.
//
// This command imports nothing of this repository, so that no change elsewhere
// links it again.
package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	_ "time/tzdata" // A CronJob may name a time zone, and the host may have no database of them.

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go's request metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // kubernetes_build_info
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

// components maps the first argument to what it runs; each returns the exit code.
var components = map[string]func(args []string) int{
	"etcd":                    runEtcd,
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
}

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// run picks the component that args name and runs it until it ends.
func run(args []string, stderr io.Writer) int {
	if len(args) == 0 {
		return usage(stderr)
	}
	component, ok := components[args[0]]
	if !ok {
		return usage(stderr)
	}
	return component(args[1:])
}

func usage(stderr io.Writer) int {
	names := make([]string, 0, len(components))
	for name := range components {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(stderr, "usage: roundhouse-controlplane %s [flags]\n", strings.Join(names, "|"))
	return 2
}

// command wraps one of upstream's cobra commands the way its own main does.
func command(build func() *cobra.Command) func([]string) int {
	return func(args []string) int {
		cmd := build()
		cmd.SetArgs(args)
		return cli.Run(cmd)
	}
}

// runEtcd runs the upstream main, which exits the process itself on failure.
func runEtcd(args []string) int {
	etcdmain.Main(append([]string{"etcd"}, args...))
	return 0
}
