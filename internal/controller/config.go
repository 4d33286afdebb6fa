package controller

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	coordinationv1client "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/utils/clock"
)

// AgentName is the value of the label app.kubernetes.io/name on the agents' Pods.
const AgentName = "roundhouse-agent"

// complete fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Namespace == "" {
		return c, errors.New("the controller needs a namespace for its Lease")
	}
	if c.Identity == "" {
		identity, err := newIdentity()
		if err != nil {
			return c, err
		}
		c.Identity = identity
	}
	if c.NodeSelector == nil {
		c.NodeSelector = labels.Everything()
	}
	if c.AgentSelector == nil {
		c.AgentSelector = labels.SelectorFromSet(labels.Set{"app.kubernetes.io/name": AgentName})
	}
	if c.AgentNamespace == "" {
		c.AgentNamespace = c.Namespace
	}
	fill(&c.LeaseDuration, 15*time.Second)
	fill(&c.RenewDeadline, 10*time.Second)
	fill(&c.RetryPeriod, 2*time.Second)
	fill(&c.AlertEvery, time.Minute)
	fill(&c.ReportingGrace, 30*time.Second)
	fill(&c.Workers, 64)
	fill(&c.QPS, 1000)
	fill(&c.Burst, 2000)
	if c.Clock == nil {
		c.Clock = clock.RealClock{}
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Logger.GetSink() == nil {
		c.Logger = logr.Discard()
	}
	return c, nil
}

// fill sets what was left zero.
func fill[T comparable](field *T, otherwise T) {
	var zero T
	if *field == zero {
		*field = otherwise
	}
}

// maxHost bounds the host's part of an identity: with the prefix and the random part it stays well under the 128 bytes
// of a field manager (apimachinery, meta/v1/validation, FieldManagerMaxLength).
const maxHost = 40

// newIdentity names this process, and no other, after its host.
func newIdentity() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("naming this controller: %w", err)
	}
	return host[:min(len(host), maxHost)] + "-" + strings.ToLower(rand.Text()[:8]), nil
}

// newLock makes the leader Lease's lock under our own identity, which field managers carry too.
func newLock(restConfig *rest.Config, c Config) (resourcelock.Interface, error) {
	// A copy: rest.AddUserAgent, and the time-out, would change the client of everything else.
	restConfig = rest.AddUserAgent(rest.CopyConfig(restConfig), "leader-election")
	// One request that hangs must not cost the leadership.
	restConfig.Timeout = max(c.RenewDeadline/2, time.Second)
	leases, err := coordinationv1client.NewForConfig(restConfig)
	if err != nil {
		return nil, fmt.Errorf("making the client of the leader Lease: %w", err)
	}
	return &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: c.Namespace, Name: LeaseName},
		Client:     leases,
		LockConfig: resourcelock.ResourceLockConfig{Identity: c.Identity},
	}, nil
}
