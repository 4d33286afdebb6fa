// Package workload makes what tenants run: Jobs, gangs, services with a disruption budget, pre-warmed pods. The real
// controllers and the real scheduler do the rest.
package workload

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kind is a shape of workload.
type Kind string

// The kinds.
const (
	// Jobs are Count Jobs of one pod each, with GPUs devices a pod (1).
	Jobs Kind = "Jobs"
	// Gang is one indexed Job of Count pods (8) that run together, with GPUs devices a pod (8).
	Gang Kind = "Gang"
	// Service is a Deployment of Count replicas with a PodDisruptionBudget that keeps MinAvailable of them (all but one).
	Service Kind = "Service"
	// Prewarmed is a Deployment of Count idle pods, labelled session=prewarmed.
	Prewarmed Kind = "Prewarmed"
)

const (
	// defaultNamespace is where workloads are that do not say.
	defaultNamespace = "ml"
	// maxCount bounds one workload.
	maxCount = 200_000
	// labelWorkload finds the pods of a workload.
	labelWorkload = "sandbox.roundhouse.dev/workload"
	// creators is how many objects are created at once.
	creators = 16
	// settleEvery is how often pods that are waited for are looked at.
	settleEvery = 100 * time.Millisecond
)

// Workload is one workload to run.
type Workload struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Namespace is "ml" by default; it is created where it is missing.
	Namespace string `json:"namespace,omitempty"`
	// Count is how many Jobs, pods or replicas.
	Count int `json:"count,omitempty"`
	// GPUs is how many devices a pod holds; none with -1.
	GPUs int `json:"gpus,omitempty"`
	// RunFor is how long a pod works until it has succeeded; for ever when zero. Only Jobs and gangs end.
	RunFor time.Duration `json:"runFor,omitempty"`
	// Responder is the pods' responder to EvictionRequests; none when empty. A server that has not that feature on drops it.
	Responder string `json:"responder,omitempty"`
	// MinAvailable is the PodDisruptionBudget's.
	MinAvailable *int `json:"minAvailable,omitempty"`
	// NodeSelector and Node say where it may run; anywhere by default. Prefer is where it runs if there is room.
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	Node         string            `json:"node,omitempty"`
	Prefer       string            `json:"prefer,omitempty"`
	// DevicePlugin asks for devices of a device plugin, and not by DRA.
	DevicePlugin bool `json:"devicePlugin,omitempty"`
	// Labels and Annotations are put on the pods, beside what the kind needs.
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (w Workload) withDefaults() Workload {
	if w.Namespace == "" {
		w.Namespace = defaultNamespace
	}
	if w.Count == 0 {
		w.Count = 1
		if w.Kind == Gang {
			w.Count = 8
		}
	}
	switch {
	case w.GPUs < 0:
		w.GPUs = 0
	case w.GPUs == 0 && w.Kind == Gang:
		w.GPUs = 8
	case w.GPUs == 0:
		w.GPUs = 1
	}
	return w
}

func (w Workload) validate() error {
	switch {
	case w.Name == "":
		return fmt.Errorf("a workload of kind %q has no name", w.Kind)
	case !slices.Contains([]Kind{Jobs, Gang, Service, Prewarmed}, w.Kind):
		return fmt.Errorf("workload %s: no kind %q", w.Name, w.Kind)
	case w.Count < 1 || w.Count > maxCount:
		return fmt.Errorf("workload %s: count %d: want 1 to %d", w.Name, w.Count, maxCount)
	case w.RunFor != 0 && w.Kind != Jobs && w.Kind != Gang:
		return fmt.Errorf("workload %s: only Jobs and gangs end: runFor does not go with %s", w.Name, w.Kind)
	}
	return nil
}

// Run creates the workload.
func Run(ctx context.Context, c client.Client, w Workload) error {
	w = w.withDefaults()
	if err := w.validate(); err != nil {
		return err
	}
	first, rest := objects(w)
	for _, o := range first {
		err := c.Create(ctx, o)
		if _, namespace := o.(*corev1.Namespace); err != nil && (!namespace || !apierrors.IsAlreadyExists(err)) {
			return fmt.Errorf("creating workload %s: %w", w.Name, err)
		}
	}
	if err := createAll(ctx, c, rest); err != nil {
		return fmt.Errorf("creating workload %s: %w", w.Name, err)
	}
	return nil
}

// createAll creates what does not depend on each other, some at a time.
func createAll(ctx context.Context, c client.Client, objects []client.Object) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var at atomic.Int64
	for range min(creators, len(objects)) {
		wg.Go(func() {
			for i := int(at.Add(1)) - 1; i < len(objects) && ctx.Err() == nil; i = int(at.Add(1)) - 1 {
				if err := c.Create(ctx, objects[i]); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// pods lists what runs of the workload.
func pods(ctx context.Context, c client.Reader, w Workload) ([]corev1.Pod, error) {
	list := &corev1.PodList{}
	if err := c.List(ctx, list, client.InNamespace(w.Namespace), client.MatchingLabels{labelWorkload: w.Name}); err != nil {
		return nil, fmt.Errorf("listing the pods of workload %s: %w", w.Name, err)
	}
	return list.Items, nil
}

// WaitRunning waits until every pod of the workload is Running and Ready, or has succeeded already.
func WaitRunning(ctx context.Context, c client.Reader, w Workload) error {
	w = w.withDefaults()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		found, err := pods(ctx, c, w)
		if err != nil {
			return err
		}
		running := 0
		for i := range found {
			if works(&found[i]) {
				running++
			}
		}
		if running >= w.Count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for workload %s: %d of %d pods run: %w", w.Name, running, w.Count, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func works(pod *corev1.Pod) bool {
	if pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// Delete deletes the workload, and its pods with it.
func Delete(ctx context.Context, c client.Client, w Workload) error {
	w = w.withDefaults()
	first, rest := objects(w)
	for _, o := range slices.Concat(rest, first) {
		if _, namespace := o.(*corev1.Namespace); namespace {
			continue
		}
		if err := c.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground)); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting workload %s: %w", w.Name, err)
		}
	}
	return nil
}
