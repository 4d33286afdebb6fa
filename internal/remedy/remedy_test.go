package remedy_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

func TestLabel(t *testing.T) {
	long := strings.Repeat("gpu-node.example.com-", 4)
	seen := map[string]string{}
	for _, id := range []string{
		"gpu-17-k3q7x2m9aa-1", "gpu-17.rack.example.com-k3q7x2m9aa-1", "gpu-17-rack.example.com-k3q7x2m9aa-1", long + "1", long + "2",
		strings.Repeat("a", 62) + ".b-12", strings.Repeat("n", 52) + "-k3q7x2m9aa-1", strings.Repeat("n", 52) + "-k3q7x2m9aa-2",
	} {
		label := remedy.Label(id)
		if bad := validation.IsDNS1123Label(label); len(bad) > 0 {
			t.Errorf("%q of %q: %v", label, id, bad)
		}
		if other, ok := seen[label]; ok {
			t.Errorf("%q and %q are both %q", id, other, label)
		}
		seen[label] = id
	}
	if got := remedy.Label("gpu-17-k3q7x2m9aa-1"); got != "gpu-17-k3q7x2m9aa-1" {
		t.Errorf("a label stays as it is, and is %q", got)
	}
}
