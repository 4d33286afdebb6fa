package remediation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/occupancy"
)

// offers are how the devices of a node are offered to pods, as one look at its ResourceSlices showed it.
type offers struct {
	handles map[string]decide.Handle
	// otherwise is how a device is offered that no slice lists: not any more where the node has slices; by a device
	// plugin where it has none.
	otherwise decide.Offer
	// taints are those that drivers themselves have on the devices.
	taints []decide.DriverTaint
	// current says that the look saw everything that had been written before it; at is when it was.
	current bool
	at      time.Time
}

// offersMaxAge is how long one look serves the steps of a Reconcile.
const offersMaxAge = time.Second

// handles looks up how each device of the node is offered. The API server answers at once from what it has cached, and
// a tenth of a second later with what is current, which is long where a bad device waits to be kept out. So the first
// is asked for, and believed where it names every device in question; confirm asks again once the rules are on. With
// rules, it is also looked where those are, and only what is current will do.
func (r *Reconciler) handles(ctx context.Context, w *work, s *decide.Snapshot, rules bool) error {
	if w.offers == nil || s.Now.Sub(w.offers.at) > offersMaxAge || (rules && !w.offers.current) {
		_, toConfirm := r.justPlaced(w.rem)
		offers, err := r.look(ctx, s.Node.Name, toConfirm || rules)
		if err == nil && !offers.current && !offers.name(inQuestion(w, s)) {
			offers, err = r.look(ctx, s.Node.Name, true)
		}
		if err != nil {
			return err
		}
		w.offers = offers
	}
	s.Handles, s.Otherwise, s.Dropped = w.offers.handles, w.offers.otherwise, dropped(s.Node, s.Health)
	if s.DriverTaints == nil {
		s.DriverTaints = w.offers.taints
	}
	if !rules {
		return nil
	}
	if err := r.rules(ctx, s); err != nil {
		return err
	}
	if len(decide.Misplaced(s)) == 0 {
		r.seen(s)
	}
	return nil
}

// seenAt is when, and in which boot, an incident's rules were last seen where they belong.
type seenAt struct {
	at   time.Time
	boot string
}

func (r *Reconciler) lastLook(rem *v1alpha1.Remediation) (time.Time, string) {
	known, _ := r.looked.Load(rem.UID)
	last, _ := known.(seenAt)
	return last.at, last.boot
}

// seen remembers that the incident's rules are where they belong.
func (r *Reconciler) seen(s *decide.Snapshot) {
	last := seenAt{at: s.Now}
	if s.Health != nil {
		last.boot = s.Health.Status.BootID
	}
	r.looked.Store(s.Remediation.UID, last)
	s.LookedAt, s.LookedBoot = last.at, last.boot
}

// rules looks where the incident's rules are. Where the server has no such kind there are none.
func (r *Reconciler) rules(ctx context.Context, s *decide.Snapshot) error {
	var list resourcev1.DeviceTaintRuleList
	err := r.Live.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelRemediation: s.Remediation.Name})
	if err != nil && !noSuchKind(err) {
		return fmt.Errorf("listing device taint rules: %w", err)
	}
	s.Rules = map[string]decide.Handle{}
	for i := range list.Items {
		on := decide.Handle{Offer: decide.OfferedByDRA}
		if sel := list.Items[i].Spec.DeviceSelector; sel != nil {
			on.Driver, on.Pool, on.Device = ptr.Deref(sel.Driver, ""), ptr.Deref(sel.Pool, ""), ptr.Deref(sel.Device, "")
		}
		s.Rules[list.Items[i].Name] = on
	}
	return nil
}

// noSuchKind says whether the server does not have the kind that it was asked for.
func noSuchKind(err error) bool { return apierrors.IsNotFound(err) || meta.IsNoMatchError(err) }

// inQuestion are the devices that a decision may want to find.
func inQuestion(w *work, s *decide.Snapshot) []string {
	var ids []string
	for _, m := range s.Faults {
		if m.Fault.Device != "" {
			ids = append(ids, m.Fault.Device)
		}
	}
	if w.rem != nil {
		ids = append(ids, w.rem.Spec.Devices...)
	}
	return ids
}

// name says whether the slices list all of these devices.
func (o *offers) name(ids []string) bool {
	return !slices.ContainsFunc(ids, func(id string) bool {
		_, ok := o.handles[id]
		return !ok
	})
}

// look lists the node's ResourceSlices, as they are now or as the API server last heard of them. Where it has no such
// kind there are none.
func (r *Reconciler) look(ctx context.Context, node string, current bool) (*offers, error) {
	o := &offers{current: current, at: r.Clock.Now(), otherwise: decide.OfferedByPlugin}
	options := &client.ListOptions{}
	if !current {
		// Any version will do (Kubernetes API concepts, resourceVersion="0").
		options.Raw = &metav1.ListOptions{ResourceVersion: "0"}
	}
	var list resourcev1.ResourceSliceList
	err := r.Live.List(ctx, &list, options, client.MatchingFields{resourcev1.ResourceSliceSelectorNodeName: node})
	if err != nil && !noSuchKind(err) {
		return nil, fmt.Errorf("listing resource slices: %w", err)
	}
	if len(list.Items) > 0 {
		o.otherwise = decide.NotOffered
	}
	o.handles, o.taints = occupancy.Resolve(list.Items), occupancy.DriverTaints(list.Items)
	return o, nil
}

// dropped is how many devices the kubelet's allocatable lacks of its capacity: its plugin has called them unhealthy, and
// no new pod gets them. A device that is shared in time is offered as many, and takes all of them with it.
func dropped(node *corev1.Node, health *v1alpha1.NodeHealth) int {
	var n int64
	for name, capacity := range node.Status.Capacity {
		if !strings.HasSuffix(string(name), "/gpu") {
			continue
		}
		allocatable := node.Status.Allocatable[name]
		n += max(0, capacity.Value()-allocatable.Value()) / shares(string(name), capacity.Value(), health)
	}
	return int(n)
}

// shares is as how many each device is offered: capacity over the devices of the resource's vendor, rounded up, so that what
// is not even counts for less.
func shares(resource string, capacity int64, health *v1alpha1.NodeHealth) int64 {
	if health == nil {
		return 1
	}
	domain, _, _ := strings.Cut(strings.ToLower(resource), "/")
	var devices int64
	for _, d := range health.Status.Devices {
		if d.Vendor == "" || strings.Contains(domain, strings.ToLower(d.Vendor)) {
			devices++
		}
	}
	if devices == 0 {
		return 1
	}
	return max(1, (capacity+devices-1)/devices)
}
