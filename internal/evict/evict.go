// Package evict asks the API server to evict a pod, and says what its answer means to us.
//
// The meanings are read from pkg/registry/core/pod/storage/eviction.go of Kubernetes v1.37. Every pod is asked for by the
// Eviction API first: it alone honours PodDisruptionBudgets, and it sets the condition DisruptionTarget that a Job's
// podFailurePolicy looks for. A DELETE, which does neither, comes only after a refusal, and only where the caller says so.
package evict

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Kind is what came of asking.
type Kind string

// The kinds of outcome.
const (
	// Evicted: the server accepted; the pod now has its grace period.
	Evicted Kind = "Evicted"
	// Terminating: the pod was being deleted before we asked; there was nothing to ask.
	Terminating Kind = "Terminating"
	// Gone: the pod, or this incarnation of it, no longer exists.
	Gone Kind = "Gone"
	// Blocked: a PodDisruptionBudget says not now; ask again after RetryAfter.
	Blocked Kind = "Blocked"
	// Deleted: the server accepted a deletion, past a budget that refused the eviction.
	Deleted Kind = "Deleted"
	// Forced: the pod is gone from the API; nobody has said that its processes are.
	Forced Kind = "Forced"
	// Misconfigured: asking again cannot help until a human changes something; Message says what.
	Misconfigured Kind = "Misconfigured"
)

// DefaultRetryAfter is how long to wait before asking again where the server does not say.
const DefaultRetryAfter = 10 * time.Second

// Timeout bounds one request.
const Timeout = 10 * time.Second

// Outcome is what came of asking for one pod.
type Outcome struct {
	Kind Kind
	// Message says why in a sentence, with the names of the budgets that refuse.
	Message string
	// RetryAfter is when to ask again, for Blocked.
	RetryAfter time.Duration
	// Budgets names the PodDisruptionBudgets that refuse, as far as they are known.
	Budgets []string
	// Passing says that the server would rather have been asked a moment later: nothing has been refused for good.
	Passing bool
	// Stuck is why they will go on to refuse until somebody changes something; empty where they may not.
	Stuck string
}

// How is how hard to ask; the zero value asks for an eviction with the pod's own grace period.
type How struct {
	// Grace is the grace period to ask for, in whole seconds, where it is not the pod's own. A pod that is going already is
	// asked to go sooner.
	Grace time.Duration
	// Delete deletes the pod where its eviction is refused.
	Delete bool
	// Force removes a pod that is going already from the API, without waiting for the kubelet.
	Force bool
}

// Evictor evicts pods. With DryRun the server checks everything and evicts nothing.
type Evictor struct {
	Client client.Client
	DryRun bool
}

// Evict asks for the eviction of this very pod: a pod of the same name with another UID is left alone. It asks once, and
// where the eviction is refused and how says so, for its deletion; an error means that the outcome is unknown, or that we
// may not ask.
func (e Evictor) Evict(ctx context.Context, pod *corev1.Pod, how How) (Outcome, error) {
	if pod.UID == "" {
		return Outcome{}, fmt.Errorf("evicting pod %s/%s: its UID is not known", pod.Namespace, pod.Name)
	}
	if pod.DeletionTimestamp != nil && how.Grace == 0 && !how.Force {
		return Outcome{Kind: Terminating, Message: "it is already being deleted"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	if how.Force && pod.DeletionTimestamp != nil {
		return e.delete(ctx, pod, Forced, ptr.To[int64](0))
	}
	var grace *int64
	if how.Grace > 0 {
		grace = ptr.To(int64(how.Grace / time.Second))
	}
	outcome, err := e.ask(ctx, pod, grace)
	if err != nil || (outcome.Kind != Blocked && outcome.Kind != Misconfigured) {
		return outcome, err
	}
	if !how.Delete || outcome.Passing {
		return e.whetherStuck(ctx, pod, outcome), nil
	}
	deleted, err := e.delete(ctx, pod, Deleted, grace)
	if err == nil && deleted.Kind == Misconfigured {
		// Both say what keeps the pod.
		outcome.Message += "; " + deleted.Message
		return outcome, nil
	}
	return deleted, err
}

// ask asks the Eviction API. Of a pod that is going already it shortens the grace period, which no budget keeps it from
// (eviction.go, canIgnorePDB).
func (e Evictor) ask(ctx context.Context, pod *corev1.Pod, grace *int64) (Outcome, error) {
	options := &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &pod.UID}, GracePeriodSeconds: grace}
	var create []client.SubResourceCreateOption
	if e.DryRun {
		// Both must say so: eviction.go, propagateDryRun.
		options.DryRun = []string{metav1.DryRunAll}
		create = append(create, client.DryRunAll)
	}
	eviction := &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
		DeleteOptions: options,
	}
	err := e.Client.SubResource("eviction").Create(ctx, pod.DeepCopy(), eviction, create...)
	outcome, known := classify(err)
	if !known {
		return Outcome{}, fmt.Errorf("evicting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if outcome.Kind == Misconfigured && len(outcome.Budgets) == 0 {
		outcome = e.nameBudgets(ctx, pod, outcome)
	}
	return outcome, nil
}

// delete deletes the pod, and calls that kind where the server accepts.
func (e Evictor) delete(ctx context.Context, pod *corev1.Pod, kind Kind, grace *int64) (Outcome, error) {
	options := []client.DeleteOption{client.Preconditions{UID: &pod.UID}}
	if grace != nil {
		options = append(options, client.GracePeriodSeconds(*grace))
	}
	if e.DryRun {
		options = append(options, client.DryRunAll)
	}
	err := e.Client.Delete(ctx, pod.DeepCopy(), options...)
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot delete resource ") {
		return Outcome{Kind: Misconfigured, Message: "the controller may not delete pods: install the chart with drain.deletePods=true"}, nil
	}
	outcome, known := classify(err)
	if !known {
		return Outcome{}, fmt.Errorf("deleting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if outcome.Kind == Evicted {
		outcome.Kind = kind
	}
	return outcome, nil
}

// classify says what the server's answer means to us; known is false where it says nothing about the pod.
func classify(err error) (outcome Outcome, known bool) {
	var status apierrors.APIStatus
	switch {
	case err == nil:
		// 201: the pod is marked DisruptionTarget and has its deletion time.
		return Outcome{Kind: Evicted}, true
	case !errors.As(err, &status):
		return Outcome{}, false
	case apierrors.IsNotFound(err) && about(status, "namespaces"):
		return Outcome{Kind: Gone, Message: "its namespace no longer exists"}, true
	case apierrors.IsNotFound(err):
		// 404: it ended between our read and our request.
		return Outcome{Kind: Gone, Message: "it no longer exists"}, true
	case apierrors.IsConflict(err) && strings.Contains(err.Error(), "UID in the precondition"):
		// 409 by the UID precondition: another pod has its name now (a StatefulSet's, say), and is not ours to evict.
		return Outcome{Kind: Gone, Message: "another pod has its name now"}, true
	case apierrors.IsConflict(err):
		// 409 otherwise: the server lost a race with another writer of the pod more often than it tries again.
		return Outcome{Kind: Blocked, Message: "the pod changed while it was being evicted", RetryAfter: time.Second, Passing: true}, true
	case apierrors.IsTooManyRequests(err) && refusedByBudget(status):
		// 429 with the cause DisruptionBudget: a budget says not now.
		return blocked(status), true
	case apierrors.IsForbidden(err) && refusedByBudget(status):
		// 403 with the same cause: the budget's own bookkeeping is behind (too many evictions not yet confirmed).
		return blocked(status), true
	case apierrors.IsForbidden(err) && terminatingNamespace(status):
		return Outcome{Kind: Terminating, Message: "its namespace is being deleted"}, true
	case webhooked.MatchString(status.Status().Message):
		// An admission webhook refuses, as KubeVirt's does while it migrates a virtual machine, or cannot.
		return Outcome{Kind: Blocked, Message: status.Status().Message, RetryAfter: DefaultRetryAfter}, true
	case status.Status().Code == http.StatusInternalServerError && strings.Contains(status.Status().Message, moreThanOne):
		// 500 with this message is permanent: the pod stays unevictable while two budgets select it.
		return Outcome{Kind: Misconfigured, Message: "more than one PodDisruptionBudget selects it, and the Eviction API " +
			"refuses such pods for good; delete or narrow one"}, true
	}
	// Anything else is about the server or about us: 429 without the cause is its own load, 401 and 403 our rights,
	// 500 a webhook or the store, 504 a lost race for the budget.
	return Outcome{}, false
}

// webhooked is how the server words a refusal by a webhook (ToStatusErr in k8s.io/apiserver's webhook errors); what a webhook that
// cannot be reached gives is another text.
var webhooked = regexp.MustCompile(`^admission webhook "[^"]*" denied the request`)

// moreThanOne is how eviction.go words the only permanent refusal; the status has no reason and no cause to tell by.
const moreThanOne = "more than one PodDisruptionBudget"

func about(status apierrors.APIStatus, resource string) bool {
	details := status.Status().Details
	return details != nil && details.Kind == resource
}

func refusedByBudget(status apierrors.APIStatus) bool {
	return len(budgetCauses(status)) > 0
}

func budgetCauses(status apierrors.APIStatus) []string {
	details := status.Status().Details
	if details == nil {
		return nil
	}
	var messages []string
	for _, cause := range details.Causes {
		if cause.Type == policyv1.DisruptionBudgetCause {
			messages = append(messages, cause.Message)
		}
	}
	return messages
}

func terminatingNamespace(status apierrors.APIStatus) bool {
	details := status.Status().Details
	if details == nil {
		return false
	}
	for _, cause := range details.Causes {
		if cause.Type == corev1.NamespaceTerminatingCause {
			return true
		}
	}
	return false
}

// budgetName finds the budget's name in "The disruption budget NAME needs 3 healthy pods and has 3 currently": no field
// of the answer has it.
var budgetName = regexp.MustCompile(`disruption budget ([a-z0-9]([-a-z0-9.]*[a-z0-9])?)`)

func blocked(status apierrors.APIStatus) Outcome {
	causes := budgetCauses(status)
	outcome := Outcome{Kind: Blocked, Message: strings.Join(causes, "; "), RetryAfter: DefaultRetryAfter}
	outcome.Passing = strings.HasSuffix(outcome.Message, "is still being processed by the server.")
	for _, cause := range causes {
		if match := budgetName.FindStringSubmatch(cause); match != nil {
			outcome.Budgets = append(outcome.Budgets, match[1])
		}
	}
	// client-go puts the header Retry-After here too.
	if details := status.Status().Details; details.RetryAfterSeconds > 0 {
		outcome.RetryAfter = time.Duration(details.RetryAfterSeconds) * time.Second
	}
	return outcome
}

// whetherStuck looks at the budgets that refuse, live. Where one cannot be read, nothing is said of it.
func (e Evictor) whetherStuck(ctx context.Context, pod *corev1.Pod, outcome Outcome) Outcome {
	for _, name := range outcome.Budgets[:min(len(outcome.Budgets), maxAsked)] {
		budget := &policyv1.PodDisruptionBudget{}
		if err := e.Client.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: name}, budget); err != nil {
			continue
		}
		if outcome.Stuck = Stuck(budget, pod); outcome.Stuck != "" {
			return outcome
		}
	}
	return outcome
}

// maxAsked bounds the budgets that are looked at for one refusal.
const maxAsked = 4

// maxBudgets bounds the list that is asked for when budgets must be named.
const maxBudgets = 500

// nameBudgets adds the names of the budgets that select the pod. Where they cannot be read, the outcome stands without.
func (e Evictor) nameBudgets(ctx context.Context, pod *corev1.Pod, outcome Outcome) Outcome {
	list := &policyv1.PodDisruptionBudgetList{}
	if err := e.Client.List(ctx, list, client.InNamespace(pod.Namespace), client.Limit(maxBudgets)); err != nil {
		outcome.Message += fmt.Sprintf(" (which ones is not known: %v)", err)
		return outcome
	}
	outcome.Budgets = selecting(list.Items, pod)
	if len(outcome.Budgets) > 0 {
		outcome.Message += ": " + strings.Join(outcome.Budgets, ", ")
	}
	return outcome
}
