package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// maxEvents bounds what is kept of one node; a test makes some dozens.
const maxEvents = 4096

// event is one version of one object, as the API server told it to a watch.
type event struct {
	at       time.Time
	revision uint64
	gone     bool
	obj      client.Object
}

// history is every version of everything that concerns one node, so that a test can ask in which order things happened
// and misses nothing that was there only for a moment. Resource versions of one API server compare across kinds: they
// are etcd's revision (KEP-5504 makes that a promise within a kind; the sandbox has one etcd for all).
type history struct {
	mu     sync.Mutex
	events []event
	broken error
}

// follow records until ctx ends.
func follow(t *testing.T, ctx context.Context, node string) *history {
	t.Helper()
	h := &history{}
	for field, list := range map[string][]client.ObjectList{
		"metadata.name": {&corev1.NodeList{}, &v1alpha1.NodeHealthList{}},
		"spec.nodeName": {&corev1.PodList{}},
		"spec.node":     {&v1alpha1.RemediationList{}},
	} {
		for _, kind := range list {
			selected := client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector(field, node)}
			w, err := shared.admin.Watch(ctx, kind, selected)
			if err != nil {
				t.Fatal(err)
			}
			go h.record(ctx, w, fmt.Sprintf("%T", kind))
		}
	}
	return h
}

func (h *history) record(ctx context.Context, w watch.Interface, what string) {
	defer w.Stop()
	for e := range w.ResultChan() {
		h.add(e, what)
	}
	if ctx.Err() == nil {
		h.fail(fmt.Errorf("the watch of %s ended", what))
	}
}

func (h *history) add(e watch.Event, what string) {
	obj, ok := e.Object.(client.Object)
	if !ok {
		h.fail(fmt.Errorf("the watch of %s says %v", what, e.Object))
		return
	}
	revision, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
	if err != nil {
		h.fail(fmt.Errorf("the watch of %s: %w", what, err))
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.events) < maxEvents {
		h.events = append(h.events, event{at: time.Now(), revision: revision, gone: e.Type == watch.Deleted, obj: obj})
	}
}

func (h *history) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken == nil {
		h.broken = err
	}
}

// all returns what was recorded, in the order in which it happened.
func (h *history) all() ([]event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := slices.Clone(h.events)
	slices.SortStableFunc(out, func(a, b event) int { return cmp.Compare(a.revision, b.revision) })
	return out, h.broken
}

// first finds the first event that is as asked.
func (h *history) first(is func(event) bool) (event, bool, error) {
	all, err := h.all()
	i := slices.IndexFunc(all, is)
	if i < 0 {
		return event{}, false, err
	}
	return all[i], true, err
}

// after returns the writes since a revision.
func (h *history) after(revision uint64) ([]event, error) {
	all, err := h.all()
	return slices.DeleteFunc(all, func(e event) bool { return e.revision <= revision }), err
}

// latest is the newest revision recorded.
func (h *history) latest() uint64 {
	all, _ := h.all()
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].revision
}

// onHealth, onNode, onPod and onIncident ask of one kind only.
func onHealth(is func(*v1alpha1.NodeHealth) bool) func(event) bool {
	return func(e event) bool {
		h, ok := e.obj.(*v1alpha1.NodeHealth)
		return ok && !e.gone && is(h)
	}
}

func onNode(is func(*corev1.Node) bool) func(event) bool {
	return func(e event) bool {
		n, ok := e.obj.(*corev1.Node)
		return ok && !e.gone && is(n)
	}
}

func onIncident(is func(*v1alpha1.Remediation) bool) func(event) bool {
	return func(e event) bool {
		r, ok := e.obj.(*v1alpha1.Remediation)
		return ok && !e.gone && is(r)
	}
}

// String is the event in a line.
func (e event) String() string {
	kind := strings.TrimPrefix(fmt.Sprintf("%T", e.obj), "*")
	text := fmt.Sprintf("%s %d %s %s", e.at.UTC().Format("15:04:05.000"), e.revision, kind, e.obj.GetName())
	switch o := e.obj.(type) {
	case *v1alpha1.NodeHealth:
		text += fmt.Sprintf(": %s, boot %.8s, %d faults, fence %d", o.Status.Summary, o.Status.BootID, len(o.Status.Faults), o.Spec.Fence)
		if o.Spec.Action != nil {
			text += ", asked for " + string(o.Spec.Action.Type)
		}
		if a := o.Status.Action; a != nil {
			text += fmt.Sprintf(", action %s %s", a.State, a.Result)
		}
		for _, c := range o.Status.Checks {
			text += fmt.Sprintf(", %s %s %s %s", c.Name, c.Result, c.Reason, c.Message)
		}
	case *v1alpha1.Remediation:
		text += fmt.Sprintf(": %s/%s %s", o.Status.Phase, o.Status.Reason, o.Status.Message)
	case *corev1.Node:
		text += fmt.Sprintf(": taints %v, claim %q", keysOf(o.Spec.Taints), o.Annotations[v1alpha1.AnnotationClaim])
		for _, c := range o.Status.Conditions {
			text += fmt.Sprintf(", %s=%s", c.Type, c.Status)
		}
	case *corev1.Pod:
		text += fmt.Sprintf(": going %t, ready %t", o.DeletionTimestamp != nil, isReady(o))
	}
	if e.gone {
		text += " (gone)"
	}
	return text
}

func keysOf(taints []corev1.Taint) []string {
	keys := make([]string, 0, len(taints))
	for _, t := range taints {
		keys = append(keys, t.Key)
	}
	return keys
}
