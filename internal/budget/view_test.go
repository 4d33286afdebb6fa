package budget

import (
	"testing"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestWhatIsCountedAgain(t *testing.T) {
	keys := func(generation int64) (named, implicit string) {
		a := newBudget("a", intstr.FromInt32(1), func(b *v1alpha1.NodeDisruptionBudget) { b.Generation = generation })
		b := newBudget(v1alpha1.ImplicitBudget, intstr.FromInt32(1))
		all := readGuards([]v1alpha1.NodeDisruptionBudget{*a, *b})
		return all.key(all.named[0].budget), all.key(all.implicit)
	}
	named1, implicit1 := keys(1)
	again, implicitAgain := keys(1)
	if named1 != again || implicit1 != implicitAgain {
		t.Error("nothing changed, and nodes are counted again")
	}
	named2, implicit2 := keys(2)
	if named1 == named2 {
		t.Error("a budget's text changed, and its nodes are not counted again")
	}
	if implicit1 == implicit2 {
		t.Error("another budget's selector changed, and the implicit budget's nodes are not counted again")
	}
}
