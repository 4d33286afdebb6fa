package nodehealth

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

const (
	pageSize = 1000
	maxPages = 1000
)

// index knows which node each NodeHealth belongs to: the cache watches only those that are not Healthy. It is a memory of
// the API, never the truth: a wrong entry costs a refused create, or a NodeHealth that comes ten minutes late.
type index struct {
	mu      sync.Mutex
	seeded  bool
	owners  map[string]types.UID
	doubted map[string]bool
	created map[string]time.Time
	old     map[string]bool
	away    map[string]time.Time
	reasons map[string]string
}

func newIndex() *index {
	return &index{
		owners: map[string]types.UID{}, doubted: map[string]bool{}, created: map[string]time.Time{},
		old: map[string]bool{}, away: map[string]time.Time{}, reasons: map[string]string{},
	}
}

// seedOnce lists all NodeHealths before the first node is looked at. The others wait for it.
func (x *index) seedOnce(ctx context.Context, live client.Reader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.seeded {
		return nil
	}
	owners, err := listOwners(ctx, live)
	if err != nil {
		return err
	}
	x.owners, x.seeded = owners, true
	return nil
}

// seedAgain replaces what is known by what there is.
func (x *index) seedAgain(ctx context.Context, live client.Reader) error {
	owners, err := listOwners(ctx, live)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.owners, x.seeded = owners, true
	return nil
}

// listOwners lists every NodeHealth live, page by page and by its metadata only; whose it is, its owner reference says.
func listOwners(ctx context.Context, live client.Reader) (map[string]types.UID, error) {
	owners := map[string]types.UID{}
	token := ""
	for range maxPages {
		page := &metav1.PartialObjectMetadataList{}
		page.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeHealthList"))
		if err := live.List(ctx, page, client.Limit(pageSize), client.Continue(token)); err != nil {
			return nil, fmt.Errorf("listing NodeHealths: %w", err)
		}
		for i := range page.Items {
			owners[page.Items[i].Name] = ownerOf(&page.Items[i])
		}
		if token = page.Continue; token == "" {
			return owners, nil
		}
	}
	return nil, fmt.Errorf("listing NodeHealths: more than %d pages", maxPages)
}

// ownerOf is the UID of the Node that owns a NodeHealth; empty where none does, which makes it another node's.
func ownerOf(object metav1.Object) types.UID {
	for _, owner := range object.GetOwnerReferences() {
		if owner.Kind == "Node" && owner.APIVersion == corev1.SchemeGroupVersion.String() {
			return owner.UID
		}
	}
	return ""
}

func (x *index) owner(name string) types.UID {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.owners[name]
}

func (x *index) set(name string, owner types.UID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.owners[name] = owner
}

// creating and shown keep which NodeHealths the cache has not shown yet: one that it has shown and shows no longer is
// Healthy.
func (x *index) creating(name string, now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.created[name] = now
}

func (x *index) shown(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.created, name)
}

func (x *index) createdAt(name string) time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.created[name]
}

// replacing remembers that the next NodeHealth of this name takes the place of an earlier node's.
func (x *index) replacing(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.owners, name)
	x.old[name] = true
}

// why says for the metrics why a NodeHealth was created.
func (x *index) why(name string) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.old[name] {
		delete(x.old, name)
		return "replaced"
	}
	return "new"
}

func (x *index) forget(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, set := range []map[string]bool{x.doubted, x.old} {
		delete(set, name)
	}
	delete(x.owners, name)
	delete(x.created, name)
	delete(x.away, name)
}

// doubt says that a NodeHealth may have been deleted: it has left the watch, as one does that became Healthy.
func (x *index) doubt(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.doubted[name] = true
}

// verify asks live for a NodeHealth that is in doubt.
func (x *index) verify(ctx context.Context, name string, live client.Reader) error {
	x.mu.Lock()
	doubted := x.doubted[name]
	x.mu.Unlock()
	if !doubted {
		return nil
	}
	health := &metav1.PartialObjectMetadata{}
	health.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("NodeHealth"))
	err := live.Get(ctx, client.ObjectKey{Name: name}, health)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("reading the NodeHealth of node %s: %w", name, err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.doubted, name)
	if apierrors.IsNotFound(err) {
		delete(x.owners, name)
	} else {
		x.owners[name] = ownerOf(health)
	}
	return nil
}

// present and awayFor keep since when a node has no Ready agent, as far as this process saw.
func (x *index) present(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.away, name)
}

func (x *index) awayFor(name string, now time.Time) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	since, ok := x.away[name]
	if !ok {
		x.away[name] = now
		return 0
	}
	return now.Sub(since)
}
