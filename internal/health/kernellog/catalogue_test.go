package kernellog

import (
	"os"
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// TestEveryKindIsDescribed holds that a kind cannot be added without what is known of it, and that nothing of the host
// but a panic disturbs it.
func TestEveryKindIsDescribed(t *testing.T) {
	page, err := os.ReadFile("../../../docs/checks/kernel-log.md")
	if err != nil {
		t.Fatal(err)
	}
	for kind := range kinds {
		code, e, fault := Describe(Line{Kind: kind})
		switch kind {
		case None, UUIDOf, DriverLoaded, AMDResetDone:
			if fault {
				t.Errorf("kind %d is no fault and yet %s", kind, code)
			}
			continue
		case Xid, SXid:
			continue
		default:
		}
		if !fault || e.Class == "" || e.Severity == "" || e.Recommended == "" || e.ClearedBy == "" || e.Rank == 0 {
			t.Errorf("kind %d, %q, is not filled in: %+v", kind, code, e)
		}
		if !strings.Contains(string(page), "`"+code+"`") {
			t.Errorf("%s is not in docs/checks/kernel-log.md", code)
		}
		quiet := e.Recommended == v1alpha1.RecommendNone || e.Recommended == v1alpha1.RecommendRestartApplication
		switch {
		case e.Class == v1alpha1.ClassApplication && (e.Severity != v1alpha1.SeverityInfo || !quiet):
			t.Errorf("%s is an application's and yet %s, %s", code, e.Severity, e.Recommended)
		case e.Class == v1alpha1.ClassHost && kind != KernelPanic && !quiet && e.Recommended != v1alpha1.RecommendHuman:
			t.Errorf("%s is the host's and yet recommends %s", code, e.Recommended)
		case byKind[kind].onNode && e.Class != v1alpha1.ClassHost && e.Class != v1alpha1.ClassApplication && e.Class != v1alpha1.ClassDriver:
			t.Errorf("%s names no device and yet is of class %s", code, e.Class)
		}
	}
}
