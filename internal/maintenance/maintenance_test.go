package maintenance

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

var asked = metav1.NewTime(time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC))

func later(d time.Duration) *metav1.Time { return &metav1.Time{Time: asked.Add(d)} }

func node(text string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-1", Annotations: map[string]string{v1alpha1.AnnotationMaintenance: text}}}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, want := range map[string]Request{
		"the least": {Reason: "new kernel", By: "y.sato", At: asked},
		"all": {Reason: "new kernel", By: "y.sato", At: asked, Rung: "reboot", When: v1alpha1.WhenWindow,
			NotBefore: later(time.Hour), Until: later(2 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Of(node(want.String()))
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b metav1.Time) bool { return a.Equal(&b) })
			if diff := cmp.Diff(&want, got, same); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got, err := Of(&corev1.Node{}); got != nil || err != nil {
		t.Errorf("nobody asks for anything: %v, %v", got, err)
	}
}

func TestWhatCannotBeReadSaysWhy(t *testing.T) {
	const good = `"reason":"r","by":"b","at":"2026-11-23T10:00:00Z"`
	for name, tc := range map[string]struct{ text, says string }{
		"no JSON":               {"reboot please", "kubectl roundhouse maintain"},
		"another field":         {`{` + good + `,"force":true}`, `"force"`},
		"two objects":           {`{` + good + `}{}`, "more after"},
		"too long":              {`{` + good + `}` + strings.Repeat(" ", maxText), "the most"},
		"no reason":             {`{"reason":" ","by":"b","at":"2026-11-23T10:00:00Z"}`, "reason is empty"},
		"a reason that is long": {`{"reason":"` + strings.Repeat("r", MaxReason+1) + `","by":"b","at":"2026-11-23T10:00:00Z"}`, "257 bytes"},
		"nobody":                {`{"reason":"r","at":"2026-11-23T10:00:00Z"}`, "say who asks"},
		"no time":               {`{"reason":"r","by":"b"}`, "at is missing"},
		"a time that is none":   {`{"reason":"r","by":"b","at":"yesterday"}`, "yesterday"},
		"a long rung":           {`{` + good + `,"rung":"` + strings.Repeat("x", maxName+1) + `"}`, "rung has 129 bytes"},
		"another moment":        {`{` + good + `,"when":"Soon"}`, "write Now, Idle or Window"},
		"an end before it begins": {`{` + good + `,"notBefore":"2026-11-24T10:00:00Z","until":"2026-11-24T10:00:00Z"}`,
			"until must come after notBefore"},
		"an end before it was asked": {`{` + good + `,"until":"2026-11-23T09:00:00Z"}`, "until must come after"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Of(node(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "annotation roundhouse.dev/maintenance of node gpu-1") {
				t.Errorf("%v; want the node, and %q", err, tc.says)
			}
		})
	}
}

func FuzzOf(f *testing.F) {
	r := Request{Reason: "new kernel", By: "y.sato", At: asked, Rung: "reboot", NotBefore: later(time.Hour)}
	f.Add(r.String())
	f.Add(`{"at":"0001-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Of(node(text))
		if err != nil {
			return
		}
		again, err := Of(node(r.String()))
		if err != nil {
			t.Fatalf("%q was read, and what it says is not: %v", text, err)
		}
		if again.Begins() != r.Begins() || again.Says() != r.Says() || again.Ends(asked.Time) != r.Ends(asked.Time) {
			t.Errorf("%q says %+v, and then %+v", text, r, again)
		}
		if r.Ends(asked.Time).Before(r.Begins()) {
			t.Errorf("%q ends before it begins", text)
		}
	})
}
