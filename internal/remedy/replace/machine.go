package replace

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/internal/remedy/untyped"
)

// Cluster API's groups, kinds and versions; both versions are served by v1.11 and later, v1beta1 alone by those before.
const (
	groupCluster      = "cluster.x-k8s.io"
	groupControlPlane = "controlplane.cluster.x-k8s.io"
)

var (
	kindMachine     = schema.GroupKind{Group: groupCluster, Kind: "Machine"}
	kindCluster     = schema.GroupKind{Group: groupCluster, Kind: "Cluster"}
	kindHealthCheck = schema.GroupKind{Group: groupCluster, Kind: "MachineHealthCheck"}
	kindMachineSet  = schema.GroupKind{Group: groupCluster, Kind: "MachineSet"}
	kindKubeadm     = schema.GroupKind{Group: groupControlPlane, Kind: "KubeadmControlPlane"}

	versions = []string{"v1beta2", "v1beta1"}
)

// Annotations by which Cluster API says on a Node which Machine it is.
const (
	annotationMachine   = "cluster.x-k8s.io/machine"
	annotationNamespace = "cluster.x-k8s.io/cluster-namespace"
)

// findMachine finds the Machine of the node, or says why there is none.
//
// The node's annotations are only a hint where to look: a kubelet may write them, and a stolen one could name another
// node's Machine. The Machine's own word counts, which only Cluster API writes.
func findMachine(ctx context.Context, c client.Client, node *corev1.Node) (machine *unstructured.Unstructured, why string, err error) {
	mapping, err := untyped.Resolve(c.RESTMapper(), kindMachine, versions...)
	if errors.Is(err, untyped.ErrNotServed) {
		return nil, "Cluster API's Machines are not in this cluster: only those that are in the cluster of their own nodes can be found", nil
	}
	if err != nil {
		return nil, "", err
	}
	kind := mapping.GroupVersionKind
	if name, namespace := node.Annotations[annotationMachine], node.Annotations[annotationNamespace]; name != "" && namespace != "" {
		m, err := untyped.Get(ctx, c, kind, namespace, name)
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, "", err
		}
		if err == nil && isMachineOf(m, node) {
			return m, "", nil
		}
	}
	found, err := untyped.List(ctx, c, kind, func(m *unstructured.Unstructured) bool { return isMachineOf(m, node) })
	switch {
	case err != nil:
		return nil, "", err
	case len(found) == 0:
		return nil, fmt.Sprintf("no Machine of Cluster API has %s in status.nodeRef", node.Name), nil
	case len(found) > 1:
		return nil, fmt.Sprintf("%s and %s both have %s in status.nodeRef", untyped.Name(found[0]), untyped.Name(found[1]), node.Name), nil
	}
	return found[0], "", nil
}

// isMachineOf says whether the Machine says that the node is its own. v1beta1's nodeRef has a UID too.
func isMachineOf(m *unstructured.Unstructured, node *corev1.Node) bool {
	uid := untyped.String(m, "status", "nodeRef", "uid")
	provider := untyped.String(m, "spec", "providerID")
	return untyped.String(m, "status", "nodeRef", "name") == node.Name &&
		(uid == "" || uid == string(node.UID)) &&
		(provider == "" || node.Spec.ProviderID == "" || provider == node.Spec.ProviderID)
}
