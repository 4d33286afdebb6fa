package remediation

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/decide"
)

// ask writes the action into the NodeHealth: on the object that was just read live, with its resourceVersion and a
// higher fence. A leader that was frozen before this write fails here.
func (r *Reconciler) ask(ctx context.Context, w *work, s *decide.Snapshot, d decide.Decision, st *v1alpha1.RemediationStatus) error {
	if err := r.mayAct(ctx, w, s); err != nil {
		return err
	}
	if err := r.stillHeld(ctx, w); err != nil {
		return err
	}
	if d.Action.Type == v1alpha1.ActionResetDevice {
		if err := r.pause(ctx, w); err != nil {
			return err
		}
	}
	h, err := r.liveHealth(ctx, w)
	if err != nil {
		return err
	}
	if h.Status.BootID != d.Action.BootID || (h.Spec.Action != nil && h.Spec.Action.ID == d.Action.ID) || h.Spec.Fence > st.Fence {
		return errDecideAgain
	}
	h.Spec.Action = d.Action
	if err := r.writeHealth(ctx, w, h, st); err != nil {
		return err
	}
	r.Metrics.ActionsAsked.WithLabelValues(string(d.Action.Type)).Inc()
	return nil
}

// move is what a change of phase needs beside its being written down. One that begins an attempt writes down how high the fence is
// before it: whoever takes the attempt back raises it first, and what was decided before that is then not asked for any more.
func (r *Reconciler) move(ctx context.Context, w *work, d decide.Decision, st *v1alpha1.RemediationStatus) error {
	if d.Phase != v1alpha1.PhaseRepairing || d.Step == nil {
		return nil
	}
	h, err := r.liveHealth(ctx, w)
	if apierrors.IsNotFound(err) || err == nil && h.Status.BootID != d.Step.BootID {
		return errDecideAgain
	}
	if err != nil {
		return err
	}
	st.Fence = h.Spec.Fence
	return nil
}

// stillHeld fails where the budget slot is gone.
func (r *Reconciler) stillHeld(ctx context.Context, w *work) error {
	held, err := r.Budgets.Held(ctx, w.node, w.rem)
	if err != nil {
		return fmt.Errorf("reading the budget slot: %w", err)
	}
	if !held {
		w.slotLost = true
		return fmt.Errorf("%w: the budget slot is gone", errDecideAgain)
	}
	return nil
}

// withdraw takes the action back. Where the agent has started meanwhile there is nothing to take back. The fence rises
// even where nothing is asked: a leader that was frozen before it asked must fail.
func (r *Reconciler) withdraw(ctx context.Context, w *work, s *decide.Snapshot, d *decide.Decision, st *v1alpha1.RemediationStatus) error {
	h, err := r.liveHealth(ctx, w)
	if apierrors.IsNotFound(err) {
		return r.unclaim(ctx, w, s, *d, st) // a NodeHealth that is gone asks for nothing.
	}
	if err != nil {
		return err
	}
	if a := h.Status.Action; a != nil && st.Step != nil && a.ID == st.Step.ActionID && a.State != v1alpha1.ActionAccepted {
		return errDecideAgain
	}
	h.Spec.Action = nil
	if err := r.writeHealth(ctx, w, h, st); err != nil {
		return err
	}
	return r.unclaim(ctx, w, s, *d, st)
}

// liveHealth reads the node's NodeHealth from the server; the next decision sees it too.
func (r *Reconciler) liveHealth(ctx context.Context, w *work) (*v1alpha1.NodeHealth, error) {
	h := &v1alpha1.NodeHealth{}
	if err := r.Live.Get(ctx, types.NamespacedName{Name: w.name}, h); err != nil {
		return nil, fmt.Errorf("reading nodehealth: %w", err)
	}
	w.health, w.healthLive = h.DeepCopy(), true
	return h, nil
}

func (r *Reconciler) writeHealth(ctx context.Context, w *work, h *v1alpha1.NodeHealth, st *v1alpha1.RemediationStatus) error {
	h.Spec.Fence++
	w.healthLive = false
	if err := r.Client.Update(ctx, h); err != nil {
		return fmt.Errorf("writing nodehealth: %w", err)
	}
	w.health, w.healthLive = h, true
	st.Fence = h.Spec.Fence
	return nil
}

// maxEvidence bounds the lists of the evidence, as the schema has it.
const maxEvidence = 16

// evidence is what the repair will erase.
func evidence(s *decide.Snapshot) *v1alpha1.Evidence {
	if s.Health == nil {
		return nil
	}
	st := s.Health.Status
	e := &v1alpha1.Evidence{At: metav1.NewTime(s.Now), BootID: st.BootID}
	e.Faults = slices.Clone(st.Faults[:min(len(st.Faults), maxEvidence)])
	for _, d := range st.Devices {
		if slices.Contains(s.Remediation.Spec.Devices, d.ID) && len(e.Devices) < maxEvidence {
			e.Devices = append(e.Devices, d)
		}
	}
	data, err := json.Marshal(struct {
		Faults  []v1alpha1.Fault
		Devices []v1alpha1.Device
	}{e.Faults, e.Devices})
	if err != nil {
		return e // cannot be: these are plain structs; the evidence itself is kept all the same.
	}
	sum := sha256.Sum256(data)
	e.SHA256 = hex.EncodeToString(sum[:])
	return e
}
