package controlplane

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pollEvery is how often what has to be there first is looked for.
const pollEvery = 20 * time.Millisecond

// waitBootstrapped waits for what a cluster has of itself shortly after it is ready
// and what nearly every caller needs at once: the namespace "default" and, where a
// controller makes it, its service account, without which no pod is admitted.
func (cp *ControlPlane) waitBootstrapped(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cp.options.ReadyTimeout)
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		_, err := cp.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{})
		return found(err)
	})
	if err != nil {
		return fmt.Errorf("waiting for namespace default: %w", err)
	}
	if !cp.options.WithControllerManager {
		return nil
	}
	err = poll(ctx, func() (bool, error) {
		_, err := cp.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return found(err)
	})
	if err != nil {
		return fmt.Errorf("waiting for service account default/default: %w", err)
	}
	return nil
}

// found turns the error of a GET into "is there", "is not there yet" or a failure.
func found(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// poll asks until the answer is true or an error, or ctx ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, err := done()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
