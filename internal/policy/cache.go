package policy

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// Cache compiles policies only when they change: a text that compiled before is not compiled again because a status was
// written.
type Cache struct {
	mu       sync.Mutex
	versions []version
	set      *Set
}

// version says which state of a policy was read.
type version struct {
	uid             types.UID
	generation      int64
	resourceVersion string
}

func versionOf(policy *v1alpha1.RemediationPolicy) version {
	return version{uid: policy.UID, generation: policy.Generation, resourceVersion: policy.ResourceVersion}
}

// Get gives these policies compiled, with their statuses as they are given here.
func (c *Cache) Get(policies []v1alpha1.RemediationPolicy) *Set {
	versions := make([]version, 0, len(policies))
	for i := range policies {
		versions = append(versions, versionOf(&policies[i]))
	}
	slices.SortFunc(versions, func(a, b version) int {
		switch {
		case a.uid < b.uid:
			return -1
		case a.uid > b.uid:
			return 1
		}
		return 0
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set == nil || !slices.Equal(c.versions, versions) {
		c.set, c.versions = compileReusing(policies, c.set), versions
	}
	return c.set
}
