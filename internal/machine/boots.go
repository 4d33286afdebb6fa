package machine

import (
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// MaxBoots is how many boots NodeHealth lists.
const MaxBoots = 16

// RecordBoot is the list of boots with the present one in it, newest last. A boot already listed keeps its time and its
// cause, so that neither an adjusted clock nor a restarted agent rewrites history; action names the action of ours that
// asked for it, where one did.
func RecordBoot(boots []v1alpha1.Boot, id string, at time.Time, action string) []v1alpha1.Boot {
	if slices.ContainsFunc(boots, func(b v1alpha1.Boot) bool { return b.ID == id }) {
		return boots
	}
	boot := v1alpha1.Boot{ID: id, At: metav1.NewTime(at.Truncate(time.Second)), Cause: v1alpha1.BootByOther}
	if action != "" {
		boot.Cause, boot.Action = v1alpha1.BootByRoundhouse, action
	}
	boots = append(slices.Clone(boots), boot)
	if len(boots) > MaxBoots {
		boots = boots[len(boots)-MaxBoots:]
	}
	return boots
}
