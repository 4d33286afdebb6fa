package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
	"github.com/roundhouse-dev/roundhouse/internal/history"
)

// record folds an incident that is over into the records of its devices, and lets go of the object.
func (r *Reconciler) record(ctx context.Context, w *work, s *decide.Snapshot) (time.Duration, error) {
	if slices.Contains(w.rem.Finalizers, v1alpha1.FinalizerRemediation) {
		if err := errors.Join(r.putBack(ctx, w), r.served(ctx, w, s)); err != nil {
			return 0, err
		}
		// Another process, or one that has died, may have put them on anew since this one has taken them off.
		if err := r.deleteRules(ctx, w.rem); err != nil {
			return 0, err
		}
		for _, id := range w.rem.Spec.Devices {
			if err := r.fold(ctx, w, s, id); err != nil {
				return 0, err
			}
		}
		next := w.rem.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == v1alpha1.FinalizerRemediation })
		w.fresh = false
		if err := r.Client.Update(ctx, next); err != nil {
			return 0, fmt.Errorf("letting go of remediation: %w", err)
		}
		r.sure.Delete(w.rem.UID)
		r.placed.Delete(w.rem.UID)
		r.looked.Delete(w.rem.UID)
		r.told.Delete(w.rem.UID)
	}
	w.done = true
	// Whatever came after this incident on the node is looked at now.
	return time.Second / 5, nil
}

func (r *Reconciler) fold(ctx context.Context, w *work, s *decide.Snapshot, id string) error {
	name := history.RecordName(w.rem.Spec.Node, id)
	rec := &v1alpha1.DeviceRecord{}
	err := r.Client.Get(ctx, types.NamespacedName{Name: name}, rec)
	if apierrors.IsNotFound(err) {
		rec = &v1alpha1.DeviceRecord{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if err = r.Client.Create(ctx, rec); apierrors.IsAlreadyExists(err) {
			err = r.Live.Get(ctx, types.NamespacedName{Name: name}, rec)
		}
	}
	if err != nil {
		return fmt.Errorf("reading device record %s: %w", name, err)
	}
	next := rec.DeepCopy()
	history.Fold(&next.Status, w.rem, device(w.rem, s.Health, id), s.Now)
	if err := r.Client.Status().Update(ctx, next); err != nil {
		return fmt.Errorf("writing device record %s: %w", name, err)
	}
	return nil
}

// device is what is known of a device: from the evidence, where it may since have gone, else from the node's word.
func device(rem *v1alpha1.Remediation, h *v1alpha1.NodeHealth, id string) v1alpha1.Device {
	var lists [][]v1alpha1.Device
	if rem.Status.Evidence != nil {
		lists = append(lists, rem.Status.Evidence.Devices)
	}
	if h != nil {
		lists = append(lists, h.Status.Devices)
	}
	for _, list := range lists {
		for _, d := range list {
			if d.ID == id {
				return d
			}
		}
	}
	return v1alpha1.Device{ID: id, Health: v1alpha1.DeviceUnknown}
}
