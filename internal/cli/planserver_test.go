package cli

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/internal/cli/plan"
)

const wouldEvict = "1 pod would be evicted in 1 namespace if the effect was NoExecute."

// taintServer is an API server whose device-taint manager answers as it is told, and what it was asked for.
type taintServer struct {
	client.WithWatch
	made []resourcev1.DeviceTaintRule
	// most is how many rules there were at once.
	most int
}

func newTaintServer(t *testing.T, answer func(*resourcev1.DeviceTaintRule), funcs interceptor.Funcs, objects ...client.Object) *taintServer {
	t.Helper()
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	s := &taintServer{}
	create := funcs.Create
	funcs.Create = func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
		rule, ok := o.(*resourcev1.DeviceTaintRule)
		if !ok {
			return errors.New("only rules are made")
		}
		answer(rule)
		if err := c.Create(ctx, rule, opts...); err != nil {
			return err
		}
		s.made = append(s.made, *rule.DeepCopy())
		s.most = max(s.most, len(s.left(ctx, t)))
		if create != nil {
			return create(ctx, c, o, opts...)
		}
		return nil
	}
	s.WithWatch = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithInterceptorFuncs(funcs).Build()
	return s
}

// left are the rules that are there now.
func (s *taintServer) left(ctx context.Context, t *testing.T) []string {
	t.Helper()
	var list resourcev1.DeviceTaintRuleList
	if err := s.WithWatch.List(context.WithoutCancel(ctx), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names
}

func says(rule *resourcev1.DeviceTaintRule) {
	rule.Status.Conditions = []metav1.Condition{{Type: resourcev1.DeviceTaintConditionEvictionInProgress, Status: metav1.ConditionFalse, Reason: "NoEffect", Message: wouldEvict}}
}

func silent(*resourcev1.DeviceTaintRule) {}

// ofAnotherGeneration answers about the rule as it was before.
func ofAnotherGeneration(rule *resourcev1.DeviceTaintRule) {
	says(rule)
	rule.Status.Conditions[0].ObservedGeneration = 7
}

// ofAnotherType says something else.
func ofAnotherType(rule *resourcev1.DeviceTaintRule) {
	says(rule)
	rule.Status.Conditions[0].Type = "Other"
}

func about(ids ...string) []plan.DryRun {
	var out []plan.DryRun
	for _, id := range ids {
		out = append(out, plan.DryRun{DeviceID: id, Driver: "gpu.example.com", Pool: "n", Device: "dev-" + strings.ToLower(id)})
	}
	return out
}

var taintRules = schema.GroupResource{Group: "resource.k8s.io", Resource: "devicetaintrules"}

func TestWhatTheServerSaysAndWhatIsLeft(t *testing.T) {
	refuse := func(err error) interceptor.Funcs {
		return interceptor.Funcs{List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return err }}
	}
	rule := func(name string, age time.Duration) client.Object {
		return &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Now().Add(-age)), Labels: map[string]string{labelPlan: "server"}}}
	}
	quarantine := &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "inc-0", CreationTimestamp: metav1.NewTime(time.Now().Add(-time.Hour))}}
	nowhere := about("A")
	nowhere[0].Pool = ""
	for name, tc := range map[string]struct {
		answer  func(*resourcev1.DeviceTaintRule)
		funcs   interceptor.Funcs
		objects []client.Object
		about   []plan.DryRun
		said    string
		failed  string
		made    int
		left    string
		err     string
	}{
		"it says what it would evict, device by device": {answer: says, about: about("A", "B"), said: wouldEvict, made: 2},
		"it says nothing":                 {answer: silent, about: about("A"), failed: "it said nothing within", made: 1},
		"it speaks of another generation": {answer: ofAnotherGeneration, about: about("A"), failed: "it said nothing within", made: 1},
		"it speaks of something else":     {answer: ofAnotherType, about: about("A"), failed: "it said nothing within", made: 1},
		"it has no such kind": {funcs: refuse(&meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: taintRules.Group, Kind: "DeviceTaintRule"}}),
			about: about("A"), failed: "this server has no DeviceTaintRules"},
		"one may not": {funcs: refuse(apierrors.NewForbidden(taintRules, "", errors.New("no"))), about: about("A"), failed: "you may not create"},
		"one may list but not create": {answer: silent, about: about("A"), failed: "you may not create", made: 1, funcs: interceptor.Funcs{
			Create: func(ctx context.Context, c client.WithWatch, o client.Object, _ ...client.CreateOption) error {
				return errors.Join(apierrors.NewForbidden(taintRules, "", errors.New("no")), c.Delete(ctx, o))
			},
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
				return c.Delete(ctx, o, opts...)
			}}},
		"the answer to the create is lost, and the rule is deleted all the same": {answer: says, about: about("A"), failed: "lost", made: 1, funcs: interceptor.Funcs{
			Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
				return errors.New("the connection was lost")
			}}},
		"a rule that cannot be deleted is named, with the command": {answer: says, about: about("A", "B"), said: wouldEvict, failed: "is left", made: 1,
			left: "roundhouse-plan-", err: "kubectl delete devicetaintrule roundhouse-plan-", funcs: interceptor.Funcs{
				Delete: func(context.Context, client.WithWatch, client.Object, ...client.DeleteOption) error {
					return apierrors.NewForbidden(taintRules, "", errors.New("no"))
				}}},
		"what a killed command left is deleted first":  {answer: says, objects: []client.Object{rule("old", time.Hour), quarantine}, about: about("A"), said: wouldEvict, made: 1, left: "inc-0"},
		"another's is left alone":                      {answer: says, objects: []client.Object{rule("theirs", time.Second)}, about: about("A"), failed: "another plan --server is asking (DeviceTaintRule theirs)", left: "theirs"},
		"no device is bad":                             {answer: says, about: nil, failed: "name one with --device"},
		"a device without a pool is never asked about": {answer: says, about: nowhere, failed: "must all be known"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTaintServer(t, tc.answer, tc.funcs, tc.objects...)
			a := &serverAsker{client: s, poll: time.Millisecond, within: 50 * time.Millisecond}
			got, err := a.ask(t.Context(), "n", tc.about)
			var found *foundError
			switch {
			case tc.err == "" && err != nil, tc.err != "" && (!errors.As(err, &found) || !strings.Contains(found.what, tc.err)):
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if len(got) == 0 || got[0].Said != tc.said || !strings.Contains(got[0].Failed, tc.failed) || tc.failed == "" && got[0].Failed != "" {
				t.Errorf("got %+v, want it to say %q and fail for %q", got, tc.said, tc.failed)
			}
			if len(s.made) != tc.made || s.most > 1+len(tc.objects) {
				t.Errorf("%d rules made, want %d; %d at once", len(s.made), tc.made, s.most)
			}
			if tc.funcs.List == nil {
				if left := strings.Join(s.left(t.Context(), t), " "); !strings.HasPrefix(left, tc.left) || tc.left == "" && left != "" {
					t.Errorf("left: %q, want %q", left, tc.left)
				}
			}
		})
	}
}

// TestTheRuleOfAPlanHarmsNothing: effect None, one device, and nothing by which it would be taken for a quarantine.
func TestTheRuleOfAPlanHarmsNothing(t *testing.T) {
	s := newTaintServer(t, says, interceptor.Funcs{})
	a := &serverAsker{client: s, poll: time.Millisecond, within: time.Second}
	if _, err := a.ask(t.Context(), "n", about("A", "B", "C")); err != nil {
		t.Fatal(err)
	}
	if s.most != 1 || len(s.made) != 3 {
		t.Errorf("%d rules, %d of them at once", len(s.made), s.most)
	}
	names := map[string]bool{}
	for i := range s.made {
		rule := &s.made[i]
		names[rule.Name] = true
		on := rule.Spec.DeviceSelector
		if on == nil || on.Driver == nil || *on.Driver != "gpu.example.com" || on.Pool == nil || *on.Pool != "n" || on.Device == nil ||
			*on.Device != []string{"dev-a", "dev-b", "dev-c"}[i] {
			t.Errorf("selector %+v", on)
		}
		if rule.Spec.Taint.Effect != resourcev1.DeviceTaintEffectNone || rule.Spec.Taint.Key != "roundhouse.dev/plan" || rule.Labels[labelPlan] == "" {
			t.Errorf("taint %+v, labels %v", rule.Spec.Taint, rule.Labels)
		}
		if _, ok := rule.Labels["roundhouse.dev/remediation"]; ok {
			t.Error("the controller would adopt it")
		}
	}
	if len(names) != 3 {
		t.Errorf("names %v", names)
	}
}

// TestAnInterruptLeavesNoRule interrupts while the server is waited for.
func TestAnInterruptLeavesNoRule(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	s := newTaintServer(t, silent, interceptor.Funcs{Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
		interrupt()
		return ctx.Err()
	}, Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return c.Delete(ctx, o, opts...)
	}})
	a := &serverAsker{client: s, poll: time.Millisecond, within: time.Minute}
	if _, err := a.ask(ctx, "n", about("A", "B")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if len(s.made) != 1 || len(s.left(t.Context(), t)) > 0 {
		t.Errorf("made %d, left %v", len(s.made), s.left(t.Context(), t))
	}
}

func TestOneCommandAsksAboutSoManyDevices(t *testing.T) {
	var ids []string
	for i := range maxServerDevices + 2 {
		ids = append(ids, string(rune('A'+i)))
	}
	s := newTaintServer(t, says, interceptor.Funcs{})
	got, err := (&serverAsker{client: s, poll: time.Millisecond, within: time.Second}).ask(t.Context(), "n", about(ids...))
	if err != nil || len(s.made) != maxServerDevices || !strings.Contains(got[maxServerDevices].Failed, "at most") {
		t.Errorf("%d rules; %+v, %v", len(s.made), got[maxServerDevices], err)
	}
}
