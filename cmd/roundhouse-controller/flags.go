package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/roundhouse-dev/roundhouse/internal/controller"
)

// options are what the command line says.
type options struct {
	controller controller.Config
	kubeconfig string
	selector   string
	level      string
	version    bool
}

// flagSet declares the flags.
func (o *options) flagSet() *pflag.FlagSet {
	c := &o.controller
	flags := pflag.NewFlagSet("roundhouse-controller", pflag.ContinueOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "file with the API server's address and credentials; the Pod's own without it")
	flags.StringVar(&c.Namespace, "namespace", "roundhouse-system", "namespace of the leader Lease and of what policies refer to")
	flags.StringVar(&c.Identity, "identity", "", "name of this process in the leader Lease, which no other may have; the host's and a random part without it")
	flags.StringVar(&o.selector, "node-selector", "", "label selector of the nodes that get a NodeHealth; all without it")
	flags.BoolVar(&c.AgentsElsewhere, "agents-elsewhere", false, "agents are not Pods of this cluster; RoundhouseReporting then says only whether one ever published")
	flags.StringVar(&c.MetricsAddress, "metrics-bind", ":8080", "host:port for /metrics; empty for none")
	flags.StringVar(&c.HealthAddress, "health-bind", ":8081", "host:port for /healthz and /readyz; empty for none")
	flags.StringVar(&c.Alertmanager.URL, "alertmanager-url", "", "address of Alertmanager; empty for no alerts")
	flags.StringVar(&c.Alertmanager.CAFile, "alertmanager-ca-file", "", "certificates that Alertmanager's is checked against")
	flags.StringVar(&c.Alertmanager.CertFile, "alertmanager-cert-file", "", "our certificate for Alertmanager")
	flags.StringVar(&c.Alertmanager.KeyFile, "alertmanager-key-file", "", "our certificate's key")
	flags.StringVar(&c.Alertmanager.Username, "alertmanager-username", "", "user name for Alertmanager")
	flags.StringVar(&c.Alertmanager.PasswordFile, "alertmanager-password-file", "", "file with the password")
	flags.StringVar(&c.Alertmanager.TokenFile, "alertmanager-token-file", "", "file with a bearer token for Alertmanager")
	flags.DurationVar(&c.LeaseDuration, "lease-duration", 15*time.Second, "how long a leader that is silent stays leader")
	flags.DurationVar(&c.RenewDeadline, "renew-deadline", 10*time.Second, "how long a leader that cannot renew goes on")
	flags.DurationVar(&c.RetryPeriod, "retry-period", 2*time.Second, "how often leadership is renewed or tried for")
	flags.IntVar(&c.Workers, "workers", 64, "how many nodes are worked on at the same time")
	flags.Float32Var(&c.QPS, "kube-api-qps", 1000, "requests a second to the API server, at most")
	flags.IntVar(&c.Burst, "kube-api-burst", 2000, "requests at once to the API server, at most")
	flags.StringVar(&o.level, "log-level", "info", "debug, info, warn or error")
	flags.BoolVar(&o.version, "version", false, "print the version and exit")
	return flags
}
