package remediation

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// namespaceMaxAge is how long the labels of a namespace are believed: a drain looks several times a second.
const namespaceMaxAge = 30 * time.Second

// knownNamespace are the labels of a namespace, as they were read.
type knownNamespace struct {
	labels map[string]string
	at     time.Time
}

// namespaceLabels reads the labels of the namespaces of a node's pods, one by one: there are few on a node, and a watch would hold
// those of the whole cluster. One that cannot be read is left out; an expression that asks for its labels then fails, and its
// pods stay.
func (r *Reconciler) namespaceLabels(ctx context.Context, names []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	for _, name := range names {
		if known, ok := r.namespaces.Get(name); ok {
			if n, ok := known.(knownNamespace); ok && r.Clock.Now().Sub(n.at) < namespaceMaxAge {
				out[name] = n.labels
				continue
			}
		}
		var n corev1.Namespace
		err := r.Live.Get(ctx, types.NamespacedName{Name: name}, &n)
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading namespace %s: %w", name, err)
		}
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		out[name] = n.Labels
		r.namespaces.Add(name, knownNamespace{labels: n.Labels, at: r.Clock.Now()})
	}
	return out, nil
}
