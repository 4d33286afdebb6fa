// Package controller wires the controller's loops together: this file is the one place where it is seen what runs, what is
// cached, and who leads.
package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
	"github.com/roundhouse-dev/roundhouse/internal/controller/alert"
	budgetloop "github.com/roundhouse-dev/roundhouse/internal/controller/budget"
	"github.com/roundhouse-dev/roundhouse/internal/controller/nodehealth"
	policyloop "github.com/roundhouse-dev/roundhouse/internal/controller/policy"
	"github.com/roundhouse-dev/roundhouse/internal/controller/remediation"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
	"github.com/roundhouse-dev/roundhouse/internal/notify"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
	"github.com/roundhouse-dev/roundhouse/internal/remedy/operands"
)

// FieldOwnerPrefix begins the field manager of every write of a controller; its identity, which is also the holder of the
// leader Lease, follows. The admission policy leader-fence.yaml compares the two: a leader that was frozen while another
// took over is refused by the API server.
const FieldOwnerPrefix = "roundhouse-"

// LeaseName is the leader Lease, in Config.Namespace.
const LeaseName = "roundhouse-controller"

// Config is what one controller runs with. The zero value of a field means its default.
type Config struct {
	// Namespace is where the controller lives: its leader Lease, and what policies refer to.
	Namespace string
	// Identity is who we are in the Lease and in field managers; the host's name and a random part by default.
	Identity string
	// NodeSelector selects the Nodes that get a NodeHealth; every one by default.
	NodeSelector labels.Selector
	// AgentNamespace and AgentSelector find the agents' Pods; Namespace and app.kubernetes.io/name=roundhouse-agent by
	// default.
	AgentNamespace string
	AgentSelector  labels.Selector
	// AgentsElsewhere says that agents are not Pods of this cluster: RoundhouseReporting then says only whether one ever
	// published.
	AgentsElsewhere bool
	// LeaseDuration, RenewDeadline and RetryPeriod are leader election's: 15 s, 10 s and 2 s by default.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
	// MetricsAddress and HealthAddress are host:port; empty for none.
	MetricsAddress, HealthAddress string
	// Alertmanager is where alerts go; without a URL, nowhere. AlertEvery is how often they are sent again, 1 m.
	Alertmanager notify.Config
	AlertEvery   time.Duration
	// ReportingGrace is how long an agent may be away before its node counts as not reporting, 30 s.
	ReportingGrace time.Duration
	// Workers is how many nodes are remediated at the same time, 64: each waits for the API server most of its time.
	Workers int
	// QPS and Burst bound our requests to the API server; its own fairness is the other bound.
	QPS   float32
	Burst int
	// Clock, Registry and Logger are for tests and for main to give.
	Clock    clock.PassiveClock
	Registry *prometheus.Registry
	Logger   logr.Logger
}

// Scheme knows every kind that the controller reads or writes.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("adding Kubernetes' kinds: %w", err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("adding Roundhouse's kinds: %w", err)
	}
	return scheme, nil
}

// Run runs a controller until ctx ends or leadership is lost. It keeps nothing in globals: two may run in one process.
func Run(ctx context.Context, restConfig *rest.Config, given Config) error {
	c, err := given.complete()
	if err != nil {
		return err
	}
	mgr, err := newManager(ctx, restConfig, c)
	if err != nil {
		return err
	}
	if err := setup(ctx, mgr, c); err != nil {
		return err
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the controller: %w", err)
	}
	return nil
}

// newManager makes the manager: client, caches and leader election.
func newManager(ctx context.Context, restConfig *rest.Config, c Config) (ctrl.Manager, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	restConfig = rest.CopyConfig(restConfig)
	restConfig.QPS, restConfig.Burst = c.QPS, c.Burst
	restConfig.Wrap(evict.OnceOnly)
	lock, err := newLock(restConfig, c)
	if err != nil {
		return nil, err
	}
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:   scheme,
		Logger:   c.Logger,
		Cache:    cacheOptions(c),
		NewCache: newCache,
		Client: client.Options{
			FieldOwner: FieldOwnerPrefix + c.Identity,
			Cache:      &client.CacheOptions{DisableFor: uncached()},
		},
		LeaderElection:                      true,
		LeaderElectionResourceLockInterface: lock,
		LeaderElectionReleaseOnCancel:       true,
		LeaseDuration:                       &c.LeaseDuration,
		RenewDeadline:                       &c.RenewDeadline,
		RetryPeriod:                         &c.RetryPeriod,
		Metrics:                             metricsserver.Options{BindAddress: "0"}, // It serves a global; serveMetrics does not.
		HealthProbeBindAddress:              c.HealthAddress,
		BaseContext:                         func() context.Context { return ctx },
		GracefulShutdownTimeout:             ptr.To(10 * time.Second),
		Controller: config.Controller{
			SkipNameValidation:    ptr.To(true), // Names are unique a process, and tests run two controllers in one.
			ReconciliationTimeout: time.Minute,
			Logger:                c.Logger,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the controller's manager: %w", err)
	}
	return mgr, nil
}

// setup adds every loop.
func setup(ctx context.Context, mgr ctrl.Manager, c Config) error {
	counts, err := metrics.NewController(c.Registry)
	if err != nil {
		return err
	}
	if err := warmCaches(ctx, mgr.GetCache(), c); err != nil {
		return err
	}
	keeper := budget.NewKeeper(budget.Options{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Now: c.Clock.Now, NodesMaxAge: 200 * time.Millisecond,
		Answered: func(reason string) { counts.BudgetVerdicts.WithLabelValues(reason).Inc() },
	})
	for _, loop := range []struct {
		name string
		add  func() error
	}{
		{"remediation", func() error {
			o, err := remediationOptions(mgr, c, keeper, counts)
			if err != nil {
				return err
			}
			return remediation.Setup(ctx, mgr, o)
		}},
		{"nodehealth", func() error {
			return nodehealth.Setup(ctx, mgr, nodehealth.Options{
				NodeSelector: c.NodeSelector, AgentsElsewhere: c.AgentsElsewhere, Grace: c.ReportingGrace,
				Clock: c.Clock, Metrics: counts,
			})
		}},
		{"policy", func() error { return policyloop.Setup(mgr, policyloop.Options{Clock: c.Clock, Metrics: counts}) }},
		{"budget", func() error { return budgetloop.Setup(mgr, budgetloop.Options{Keeper: keeper, Clock: c.Clock}) }},
		{"alert", func() error { return setupAlerts(mgr, c, counts) }},
		{"metrics", func() error { return serveMetrics(mgr, c) }},
		{"health", func() error { return mgr.AddHealthzCheck("ping", healthz.Ping) }},
		{"ready", func() error { return mgr.AddReadyzCheck("caches", cachesSynced(mgr)) }},
	} {
		if err := loop.add(); err != nil {
			return fmt.Errorf("adding the %s loop: %w", loop.name, err)
		}
	}
	return nil
}

// remediationOptions is what the loop that acts works with.
func remediationOptions(mgr ctrl.Manager, c Config, keeper *budget.Keeper, counts *metrics.Controller) (remediation.Options, error) {
	pods, err := corev1client.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return remediation.Options{}, fmt.Errorf("making the client that reads logs: %w", err)
	}
	resources, err := resourceclient.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return remediation.Options{}, fmt.Errorf("making the client that watches resource slices: %w", err)
	}
	compiled, jobs := &policy.Cache{}, jobRunner(mgr, c, pods)
	return remediation.Options{
		Namespace: c.Namespace,
		Remedies:  remedies(mgr, c, jobs),
		BurnIns:   jobs,
		Operands:  operands.Operands{Client: mgr.GetClient(), Live: mgr.GetAPIReader()},
		Client:    mgr.GetClient(),
		Live:      mgr.GetAPIReader(),
		Slices:    resources.ResourceSlices(),
		Policies: func(ctx context.Context) (*policy.Set, error) {
			list := &v1alpha1.RemediationPolicyList{}
			if err := mgr.GetClient().List(ctx, list); err != nil {
				return nil, fmt.Errorf("listing policies: %w", err)
			}
			return compiled.Get(list.Items), nil
		},
		Budgets: keeper,
		Events:  mgr.GetEventRecorder("roundhouse-controller"),
		Metrics: counts,
		Clock:   c.Clock,
		Workers: c.Workers,
	}, nil
}

// setupAlerts adds the alert loop, where there is an Alertmanager.
func setupAlerts(mgr ctrl.Manager, c Config, counts *metrics.Controller) error {
	if c.Alertmanager.URL == "" {
		return nil
	}
	alertmanager, err := notify.New(c.Alertmanager)
	if err != nil {
		return err
	}
	return alert.Setup(mgr, alert.Options{Sender: alertmanager, Every: c.AlertEvery, Clock: c.Clock, Metrics: counts})
}
