// Package stage plays scenarios on a sandbox: it does on a running [sandbox.Sandbox] what a scenario's steps say.
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/cli"
	"github.com/roundhouse-dev/roundhouse/sandbox/fleet"
	"github.com/roundhouse-dev/roundhouse/sandbox/receiver"
	"github.com/roundhouse-dev/roundhouse/sandbox/sandbox"
	"github.com/roundhouse-dev/roundhouse/sandbox/scenario"
	"github.com/roundhouse-dev/roundhouse/sandbox/workload"
)

// Stage is a sandbox that scenarios are played on; it is a [scenario.Cluster].
type Stage struct {
	sandbox *sandbox.Sandbox
	alerts  *receiver.Receiver
}

// LeaseDuration is the controllers' on a stage: less than half of production's, so that a new leader comes soon, and long
// enough for a machine that has other things to do.
const LeaseDuration = 6 * time.Second

// Start starts a sandbox whose controllers send their alerts to where scenarios see them.
func Start(ctx context.Context, o sandbox.Options) (*Stage, error) {
	// The receiver lives as long as the stage, which ctx does not bound.
	alerts, err := receiver.Start(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	if o.LeaseDuration == 0 {
		o.LeaseDuration = LeaseDuration
	}
	o.ControllerArgs = append(slices.Clone(o.ControllerArgs), "--alertmanager-url="+alerts.URL())
	s, err := sandbox.Start(ctx, o)
	if err != nil {
		return nil, errors.Join(err, alerts.Stop(context.WithoutCancel(ctx)))
	}
	return &Stage{sandbox: s, alerts: alerts}, nil
}

// Stop ends the sandbox.
func (s *Stage) Stop(ctx context.Context) error {
	return errors.Join(s.sandbox.Stop(ctx), s.alerts.Stop(ctx))
}

// Sandbox is what is played on.
func (s *Stage) Sandbox() *sandbox.Sandbox { return s.sandbox }

// FollowAlerts calls f for each alert that begins to fire or is resolved.
func (s *Stage) FollowAlerts(f func(name, node, state, message string)) (stop func()) {
	return s.alerts.Follow(func(a receiver.Alert) {
		state := "firing"
		if a.Resolved {
			state = "resolved"
		}
		f(a.Labels["alertname"], a.Labels["node"], state, a.Annotations["message"])
	})
}

// AdminConfig is an administrator's client configuration.
func (s *Stage) AdminConfig() *rest.Config { return s.sandbox.AdminConfig() }

// Apply applies objects by server-side apply.
func (s *Stage) Apply(ctx context.Context, objects ...*unstructured.Unstructured) error {
	return s.sandbox.ControlPlane().ApplyObjects(ctx, objects...)
}

// goneTimeout bounds the wait for pods whose owner was deleted, pollEvery is how often is looked.
const (
	goneTimeout = 20 * time.Second
	pollEvery   = 100 * time.Millisecond
)

// Delete deletes objects; one that is not there is no error. It returns once the pods of what was deleted are gone too.
func (s *Stage) Delete(ctx context.Context, objects ...*unstructured.Unstructured) error {
	var errs []error
	for _, o := range objects {
		policy := metav1.DeletePropagationBackground
		hasPods := o.GetKind() == "Deployment" || o.GetKind() == "Job"
		if hasPods {
			policy = metav1.DeletePropagationForeground
		}
		err := client.IgnoreNotFound(s.sandbox.Client().Delete(ctx, o.DeepCopy(), client.PropagationPolicy(policy)))
		if err == nil && hasPods {
			err = s.waitGone(ctx, o)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("deleting %s %s: %w", o.GetKind(), o.GetName(), err))
		}
	}
	return errors.Join(errs...)
}

func (s *Stage) waitGone(ctx context.Context, o *unstructured.Unstructured) error {
	return poll(ctx, func() (bool, error) {
		err := s.sandbox.Client().Get(ctx, client.ObjectKeyFromObject(o), o.DeepCopy())
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

// poll waits until look says true.
func poll(ctx context.Context, look func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, goneTimeout, fmt.Errorf("still there after %s", goneTimeout))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if done, err := look(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// StartWorkload starts what tenants run; it does not wait for it.
func (s *Stage) StartWorkload(ctx context.Context, w scenario.Workload) error {
	return workload.Run(ctx, s.sandbox.Client(), workloadOf(w))
}

// EndWorkload deletes it, and returns once its pods are gone.
func (s *Stage) EndWorkload(ctx context.Context, w scenario.Workload) error {
	if err := workload.Delete(ctx, s.sandbox.Client(), workloadOf(w)); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		pods := &corev1.PodList{}
		err := s.sandbox.Client().List(ctx, pods, client.InNamespace(w.Namespace), client.MatchingLabels{labelWorkload: w.Name})
		if err != nil {
			return false, fmt.Errorf("looking for the pods of workload %s: %w", w.Name, err)
		}
		return len(pods.Items) == 0, nil
	})
}

func workloadOf(w scenario.Workload) workload.Workload {
	return workload.Workload{
		Kind: workload.Kind(w.Kind), Name: w.Name, Namespace: w.Namespace, Count: w.Count, GPUs: w.GPUs, RunFor: w.RunFor.Of(),
		MinAvailable: w.MinAvailable, Node: w.Node, Prefer: w.Prefer, NodeSelector: w.NodeSelector, DevicePlugin: w.DevicePlugin,
		Labels: w.Labels, Annotations: w.Annotations, Responder: w.Responder,
	}
}

// Finish lets the pods of an app, or of a workload, end as done: their kubelet reads for how long they run.
func (s *Stage) Finish(ctx context.Context, ref scenario.PodRef) error {
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"0s"}}}`, fleet.AnnotationRunFor))
	for _, label := range []string{"app", labelWorkload} {
		pods := &corev1.PodList{}
		if err := s.sandbox.Client().List(ctx, pods, client.InNamespace(ref.Namespace), client.MatchingLabels{label: ref.App}); err != nil {
			return fmt.Errorf("looking for the pods of %s/%s: %w", ref.Namespace, ref.App, err)
		}
		for i := range pods.Items {
			if err := s.sandbox.Client().Patch(ctx, &pods.Items[i], patch); client.IgnoreNotFound(err) != nil {
				return fmt.Errorf("letting pod %s finish: %w", pods.Items[i].Name, err)
			}
		}
	}
	return nil
}

// labelWorkload is how package workload labels its pods.
const labelWorkload = "sandbox.roundhouse.dev/workload"

// DeviceOf finds the device that a pod on a node holds: the first of its first claim.
func (s *Stage) DeviceOf(ctx context.Context, node string, ref scenario.PodRef) (int, string, error) {
	pods := &corev1.PodList{}
	if err := s.sandbox.Client().List(ctx, pods, client.InNamespace(ref.Namespace), client.MatchingLabels{"app": ref.App}); err != nil {
		return 0, "", fmt.Errorf("looking for pod %s/%s: %w", ref.Namespace, ref.App, err)
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.Spec.NodeName != node || p.DeletionTimestamp != nil {
			continue
		}
		for _, c := range p.Status.ResourceClaimStatuses {
			if c.ResourceClaimName != nil {
				return s.deviceOfClaim(ctx, node, p.Namespace, *c.ResourceClaimName)
			}
		}
	}
	return 0, "", fmt.Errorf("no pod of app %s in namespace %s holds a device of node %s", ref.App, ref.Namespace, node)
}

func (s *Stage) deviceOfClaim(ctx context.Context, node, namespace, name string) (int, string, error) {
	claim := &resourcev1.ResourceClaim{}
	if err := s.sandbox.Client().Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, claim); err != nil {
		return 0, "", fmt.Errorf("reading claim %s: %w", name, err)
	}
	if claim.Status.Allocation == nil || len(claim.Status.Allocation.Devices.Results) == 0 {
		return 0, "", fmt.Errorf("claim %s/%s has no device", namespace, name)
	}
	device := claim.Status.Allocation.Devices.Results[0].Device
	offered := &resourcev1.ResourceSliceList{}
	if err := s.sandbox.Client().List(ctx, offered, client.MatchingFields{resourcev1.ResourceSliceSelectorNodeName: node}); err != nil {
		return 0, "", fmt.Errorf("listing the ResourceSlices of %s: %w", node, err)
	}
	for i := range offered.Items {
		for _, d := range offered.Items[i].Spec.Devices {
			if a, ok := d.Attributes["slot"]; ok && d.Name == device && a.StringValue != nil {
				slot, err := strconv.Atoi(*a.StringValue)
				if err != nil {
					return 0, "", fmt.Errorf("device %s of %s: its slot is no number: %w", device, node, err)
				}
				return slot, device, nil
			}
		}
	}
	return 0, "", fmt.Errorf("no ResourceSlice of %s offers device %s", node, device)
}

// Break injects a fault into one node.
func (s *Stage) Break(ctx context.Context, node string, slot int, f scenario.Fault) error {
	return s.sandbox.Fleet().Inject(ctx, fleet.Injection{
		Fault: f.Kind, Node: node, Device: slot, Count: f.Lines, HealsAfter: f.HealsAfter, HealedBy: f.HealedBy, Relapses: f.Relapses,
		RelapseAfter: f.RelapseAfter.Of(),
	})
}

// KillController ends the leading controller as a crash would.
func (s *Stage) KillController(ctx context.Context) error {
	leader, err := s.leader(ctx)
	if err != nil {
		return fmt.Errorf("looking for the leader: %w", err)
	}
	return leader.Kill(ctx)
}

// StartController starts one more controller.
func (s *Stage) StartController(ctx context.Context) error {
	_, err := s.sandbox.StartController(ctx)
	return err
}

// Roundhouse runs a command line of kubectl-roundhouse, in this process and with the code of the plugin.
func (s *Stage) Roundhouse(ctx context.Context, args ...string) (string, error) {
	var out bytes.Buffer
	code := cli.Run(ctx, append(args, "--kubeconfig", s.sandbox.Kubeconfig()), cli.Options{
		In: strings.NewReader(""), Out: &out, Err: &out, Getenv: os.Getenv,
	})
	if code != cli.ExitOK {
		return out.String(), fmt.Errorf("exit code %d", code)
	}
	return out.String(), nil
}
