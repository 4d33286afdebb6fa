package claim

import (
	"context"
	"fmt"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Marks that other systems leave on a Node while they work on it.
const (
	// LabelExcludeFromRemediation is medik8s's "hands off", set by people.
	LabelExcludeFromRemediation = "remediation.medik8s.io/exclude-from-remediation"
	// AnnotationKuredReboot is set by kured while a node is on its way down and up.
	AnnotationKuredReboot = "weave.works/kured-reboot-in-progress"
	// AnnotationClusterAPIRemediate asks Cluster API to replace the machine.
	AnnotationClusterAPIRemediate = "cluster.x-k8s.io/remediate-machine"
	// TaintKarpenterDisrupted is on a node that Karpenter is about to remove.
	TaintKarpenterDisrupted = "karpenter.sh/disrupted"
	// TaintKarpenterDisruption is the same before Karpenter v1.
	TaintKarpenterDisruption = "karpenter.sh/disruption"
	// TaintAutoscalerDelete is on a node that the Cluster Autoscaler removes; its value is the time, in Unix seconds.
	TaintAutoscalerDelete = "ToBeDeletedByClusterAutoscaler"
	// LabelDriverUpgrade is the NVIDIA GPU operator's state of a rolling driver upgrade.
	LabelDriverUpgrade = "nvidia.com/gpu-driver-upgrade-state"
	// LeaseNamespace is where medik8s's operators keep one Lease a node, "node-<name>", so that only one works on it.
	LeaseNamespace = "medik8s-leases"
)

// ForeignClaim is another system's work on a node.
type ForeignClaim struct {
	// By is who works on it, such as "kured".
	By string
	// What says how that is known, such as "annotation weave.works/kured-reboot-in-progress".
	What string
	// Since is when it began; zero where the mark does not say.
	Since time.Time
	// InProgress says that the node is being worked on, and so counts as out; otherwise we are only told to keep off.
	InProgress bool
}

// String says it in a sentence.
func (c ForeignClaim) String() string {
	if c.Since.IsZero() {
		return fmt.Sprintf("%s (%s)", c.By, c.What)
	}
	return fmt.Sprintf("%s (%s, since %s)", c.By, c.What, c.Since.UTC().Format(time.RFC3339))
}

// Foreign lists the work of others on a node, as far as the Node itself shows it. Finder asks for Leases too.
func Foreign(node *corev1.Node) []ForeignClaim {
	var claims []ForeignClaim
	for _, read := range []func(*corev1.Node) (ForeignClaim, bool){
		maintenance, kured, clusterAPI, karpenter, autoscaler, driverUpgrade,
	} {
		if claim, ok := read(node); ok {
			claim.InProgress = true
			claims = append(claims, claim)
		}
	}
	if node.Labels[LabelExcludeFromRemediation] == asked {
		claims = append(claims, ForeignClaim{By: "a human", What: "label " + LabelExcludeFromRemediation})
	}
	return claims
}

func maintenance(node *corev1.Node) (ForeignClaim, bool) {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeMaintenanceInProgress && condition.Status == corev1.ConditionTrue && condition.Reason != v1alpha1.ReasonLifecycle {
			return ForeignClaim{
				By:    "maintenance",
				What:  fmt.Sprintf("condition %s is True: %s", corev1.NodeMaintenanceInProgress, condition.Reason),
				Since: condition.LastTransitionTime.Time,
			}, true
		}
	}
	return ForeignClaim{}, false
}

func kured(node *corev1.Node) (ForeignClaim, bool) {
	value, ok := node.Annotations[AnnotationKuredReboot]
	if !ok {
		return ForeignClaim{}, false
	}
	// kured writes the time, RFC 3339 (cmd/kured/main.go, KuredRebootInProgressAnnotation).
	since, err := time.Parse(time.RFC3339, value)
	if err != nil {
		since = time.Time{}
	}
	return ForeignClaim{By: "kured", What: "annotation " + AnnotationKuredReboot, Since: since}, true
}

func clusterAPI(node *corev1.Node) (ForeignClaim, bool) {
	_, ok := node.Annotations[AnnotationClusterAPIRemediate]
	return ForeignClaim{By: "Cluster API", What: "annotation " + AnnotationClusterAPIRemediate}, ok
}

func karpenter(node *corev1.Node) (ForeignClaim, bool) {
	for _, taint := range node.Spec.Taints {
		if taint.Key == TaintKarpenterDisrupted || taint.Key == TaintKarpenterDisruption {
			return ForeignClaim{By: "Karpenter", What: "taint " + taint.Key, Since: addedAt(taint)}, true
		}
	}
	return ForeignClaim{}, false
}

func autoscaler(node *corev1.Node) (ForeignClaim, bool) {
	for _, taint := range node.Spec.Taints {
		if taint.Key != TaintAutoscalerDelete {
			continue
		}
		since := addedAt(taint)
		if seconds, err := strconv.ParseInt(taint.Value, 10, 64); err == nil && since.IsZero() {
			since = time.Unix(seconds, 0)
		}
		return ForeignClaim{By: "Cluster Autoscaler", What: "taint " + taint.Key, Since: since}, true
	}
	return ForeignClaim{}, false
}

func addedAt(taint corev1.Taint) time.Time {
	if taint.TimeAdded == nil {
		return time.Time{}
	}
	return taint.TimeAdded.Time
}

// driverUpgrade reads the GPU operator's state. At rest are: no state; upgrade-done; upgrade-required, which only waits
// for its turn; and upgrade-failed, where the operator has given up and waits for a human. Any other, also one that a
// later operator invents, counts as work in progress (k8s-operator-libs, pkg/upgrade/consts.go).
func driverUpgrade(node *corev1.Node) (ForeignClaim, bool) {
	state := node.Labels[LabelDriverUpgrade]
	switch state {
	case "", "upgrade-done", "upgrade-required", "upgrade-failed":
		return ForeignClaim{}, false
	}
	return ForeignClaim{By: "GPU operator driver upgrade", What: LabelDriverUpgrade + "=" + state}, true
}

// ForeignLease says whether a medik8s Lease is held now, and by whom. Lapsed Leases hold nothing; one whose times are
// missing never lapses, which keeps us off.
func ForeignLease(lease *coordinationv1.Lease, now time.Time) (ForeignClaim, bool) {
	if lease == nil || lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == "" {
		return ForeignClaim{}, false
	}
	claim := ForeignClaim{
		By:         *lease.Spec.HolderIdentity,
		What:       fmt.Sprintf("Lease %s/%s", lease.Namespace, lease.Name),
		InProgress: true,
	}
	if lease.Spec.AcquireTime != nil {
		claim.Since = lease.Spec.AcquireTime.Time
	}
	if lease.Spec.RenewTime == nil || lease.Spec.LeaseDurationSeconds == nil {
		return claim, true
	}
	lapses := lease.Spec.RenewTime.Add(time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second)
	return claim, now.Before(lapses)
}

// Finder finds the work of others, Leases included. Its Reader must ask the API server, not a cache.
type Finder struct {
	Reader client.Reader
}

// Find lists the work of others on a node. It costs one GET.
func (f Finder) Find(ctx context.Context, node *corev1.Node, now time.Time) ([]ForeignClaim, error) {
	claims := Foreign(node)
	lease := &coordinationv1.Lease{}
	key := client.ObjectKey{Namespace: LeaseNamespace, Name: "node-" + node.Name}
	switch err := f.Reader.Get(ctx, key, lease); {
	case apierrors.IsNotFound(err):
		return claims, nil
	case err != nil:
		return nil, fmt.Errorf("reading lease %s: %w", key, err)
	}
	if claim, held := ForeignLease(lease, now); held {
		claims = append(claims, claim)
	}
	return claims, nil
}
