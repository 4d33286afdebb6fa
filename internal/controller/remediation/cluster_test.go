package remediation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/lru"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/budget"
	"github.com/roundhouse-dev/roundhouse/internal/claim"
	"github.com/roundhouse-dev/roundhouse/internal/evict"
	"github.com/roundhouse-dev/roundhouse/internal/metrics"
	"github.com/roundhouse-dev/roundhouse/internal/policy"
)

// began is when a cluster's clock begins, seen when its first fault was seen.
var (
	began = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	seen  = began.Add(-time.Minute)
)

// cluster is a whole Reconciler on an API server of one node, n, whose cache may be behind and whose writes may fail.
type cluster struct {
	*Reconciler
	t      *testing.T
	server client.WithWatch
	clock  *clocktesting.FakePassiveClock
	// oldNode, oldHealth and oldBudgets are what the cache shows where it is behind; noIncidents says that it has none.
	oldNode     *corev1.Node
	oldHealth   *v1alpha1.NodeHealth
	oldBudgets  []v1alpha1.NodeDisruptionBudget
	noIncidents bool
	// refuse makes a write fail, by its verb and object.
	refuse func(verb string, o client.Object) error
	// refuseStatusPatch does so for patches of a status, which are not noted.
	refuseStatusPatch func(ctx context.Context, o client.Object) error
	// done are the writes and live reads, as "verb Kind".
	done []string
}

func newCluster(t *testing.T, objects ...client.Object) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, clock: clocktesting.NewFakePassiveClock(began)}
	c.server = c.writes(fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).
		WithStatusSubresource(&v1alpha1.NodeDisruptionBudget{}, &v1alpha1.Remediation{}, &v1alpha1.DeviceRecord{}, &v1alpha1.NodeHealth{}).
		WithIndex(&v1alpha1.Remediation{}, IndexNode, indexed(func(r *v1alpha1.Remediation) string { return r.Spec.Node })).
		WithIndex(&corev1.Pod{}, nodePods, indexed(func(p *corev1.Pod) string { return p.Spec.NodeName })).
		WithIndex(&resourcev1.ResourceSlice{}, resourcev1.ResourceSliceSelectorNodeName,
			indexed(func(s *resourcev1.ResourceSlice) string { return *s.Spec.NodeName })).
		Build())
	c.restart()
	return c
}

// indexed makes an index of a field.
func indexed[T client.Object](field func(T) string) client.IndexerFunc {
	return func(o client.Object) []string {
		of, ok := o.(T)
		if !ok {
			return nil
		}
		return []string{field(of)}
	}
}

// restart begins anew with a controller that knows nothing.
func (c *cluster) restart() {
	c.t.Helper()
	counts, err := metrics.NewController(prometheus.NewRegistry())
	if err != nil {
		c.t.Fatal(err)
	}
	cached, live := c.cache(), c.live()
	c.Reconciler = &Reconciler{
		Options: Options{Client: cached, Live: live, Clock: c.clock, Metrics: counts, Retention: DefaultRetention,
			Policies: func(ctx context.Context) (*policy.Set, error) {
				var list v1alpha1.RemediationPolicyList
				err := c.server.List(ctx, &list)
				return policy.Compile(list.Items), err
			},
			Budgets: budget.NewKeeper(budget.Options{Client: cached, Live: live, Now: c.clock.Now})},
		evictor: evict.Evictor{Client: cached}, requests: evict.Requests{Client: cached}, foreign: claim.Finder{Reader: live}, claims: lru.New(maxGiven), refusals: lru.New(maxGiven),
		namespaces: lru.New(maxGiven),
	}
}

// writes notes the writes, and gives new objects what a server gives them.
func (c *cluster) writes(server client.WithWatch) client.WithWatch {
	created := 0
	note := func(verb string, o client.Object) error {
		if c.refuse != nil {
			if err := c.refuse(verb, o); err != nil {
				return err
			}
		}
		c.note(verb, o)
		return nil
	}
	return interceptor.NewClient(server, interceptor.Funcs{
		Create: func(ctx context.Context, api client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := note("create", o); err != nil {
				return err
			}
			created++
			o.SetUID(types.UID(fmt.Sprint("uid-", created)))
			o.SetCreationTimestamp(metav1.NewTime(c.clock.Now()))
			return api.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, api client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return errors.Join(note("update", o), api.Update(ctx, o, opts...))
		},
		Patch: func(ctx context.Context, api client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return errors.Join(note("patch", o), api.Patch(ctx, o, p, opts...))
		},
		Delete: func(ctx context.Context, api client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return errors.Join(note("delete", o), api.Delete(ctx, o, opts...))
		},
		SubResourceCreate: func(ctx context.Context, api client.Client, sub string, o, with client.Object, opts ...client.SubResourceCreateOption) error {
			if err := note(sub, o); err != nil {
				return err
			}
			return api.SubResource(sub).Create(ctx, o, with, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, api client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			if err := note(sub, o); err != nil {
				return err
			}
			return api.SubResource(sub).Update(ctx, o, opts...)
		},
		SubResourcePatch: func(ctx context.Context, api client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			if c.refuseStatusPatch != nil {
				if err := c.refuseStatusPatch(ctx, o); err != nil {
					return err
				}
			}
			return api.SubResource(sub).Patch(ctx, o, p, opts...)
		},
	})
}

// note writes a request down.
func (c *cluster) note(verb string, o any) {
	kind := fmt.Sprintf("%T", o)
	c.done = append(c.done, verb+" "+kind[strings.LastIndex(kind, ".")+1:])
}

// cache reads what may be behind.
func (c *cluster) cache() client.WithWatch {
	return interceptor.NewClient(c.server, interceptor.Funcs{
		Get: func(ctx context.Context, api client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			switch o := o.(type) {
			case *corev1.Node:
				if c.oldNode != nil {
					c.oldNode.DeepCopyInto(o)
					return nil
				}
			case *v1alpha1.NodeHealth:
				if c.oldHealth != nil {
					c.oldHealth.DeepCopyInto(o)
					return nil
				}
			}
			return api.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, api client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			switch list := list.(type) {
			case *v1alpha1.RemediationList:
				if c.noIncidents {
					return nil
				}
			case *v1alpha1.NodeDisruptionBudgetList:
				if c.oldBudgets != nil {
					list.Items = slices.Clone(c.oldBudgets)
					return nil
				}
			}
			return api.List(ctx, list, opts...)
		},
	})
}

// live reads what is, and notes it.
func (c *cluster) live() client.Reader {
	return interceptor.NewClient(c.server, interceptor.Funcs{
		Get: func(ctx context.Context, api client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			c.note("get", o)
			return api.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, api client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			c.note("list", list)
			return api.List(ctx, list, opts...)
		},
	})
}

// turn works on the node once.
func (c *cluster) turn() (ctrl.Result, error) {
	return c.Reconcile(c.t.Context(), ctrl.Request{NamespacedName: types.NamespacedName{Name: "n"}})
}

// turns works on the node some times, a while apart, and expects no error.
func (c *cluster) turns(n int, apart time.Duration) {
	c.t.Helper()
	for range n {
		if _, err := c.turn(); err != nil {
			c.t.Fatal(err)
		}
		c.clock.SetTime(c.clock.Now().Add(apart))
	}
}

// count says how often something was asked for.
func (c *cluster) count(what string) int {
	return len(slices.DeleteFunc(slices.Clone(c.done), func(did string) bool { return did != what }))
}

// read reads an object as it is.
func (c *cluster) read(name string, o client.Object) {
	c.t.Helper()
	if err := c.server.Get(c.t.Context(), types.NamespacedName{Name: name}, o); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) node() *corev1.Node {
	c.t.Helper()
	o := &corev1.Node{}
	c.read("n", o)
	return o
}

func (c *cluster) health() *v1alpha1.NodeHealth {
	c.t.Helper()
	o := &v1alpha1.NodeHealth{}
	c.read("n", o)
	return o
}

// incidents are the node's, by name.
func (c *cluster) incidents() []v1alpha1.Remediation {
	c.t.Helper()
	var list v1alpha1.RemediationList
	if err := c.server.List(c.t.Context(), &list); err != nil {
		c.t.Fatal(err)
	}
	return list.Items
}

// incident is the only one.
func (c *cluster) incident() *v1alpha1.Remediation {
	c.t.Helper()
	all := c.incidents()
	if len(all) != 1 {
		c.t.Fatalf("%d incidents, want 1", len(all))
	}
	return &all[0]
}

// rules are the names of the devices that rules are on.
func (c *cluster) rules() []string {
	c.t.Helper()
	var list resourcev1.DeviceTaintRuleList
	if err := c.server.List(c.t.Context(), &list); err != nil {
		c.t.Fatal(err)
	}
	var on []string
	for i := range list.Items {
		on = append(on, *list.Items[i].Spec.DeviceSelector.Device)
	}
	return on
}

// slots counts the slots that are taken.
func (c *cluster) slots() int {
	c.t.Helper()
	var list v1alpha1.NodeDisruptionBudgetList
	if err := c.server.List(c.t.Context(), &list); err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for i := range list.Items {
		n += len(list.Items[i].Status.Reservations)
	}
	return n
}

// policy changes the policy.
func (c *cluster) policy(change func(*v1alpha1.RemediationPolicySpec)) {
	c.t.Helper()
	p := &v1alpha1.RemediationPolicy{}
	c.read("p", p)
	change(&p.Spec)
	c.must(c.server.Update(c.t.Context(), p))
}

// faults makes these the node's.
func (c *cluster) faults(now ...v1alpha1.Fault) {
	c.t.Helper()
	h := c.health()
	h.Status.Faults = now
	c.must(c.server.Status().Update(c.t.Context(), h))
}

// cancel is a human's word.
func (c *cluster) cancel() {
	c.t.Helper()
	rem := c.incident()
	rem.Spec.Cancel = true
	c.must(c.server.Update(c.t.Context(), rem))
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// faulty is a cluster whose node has two devices and these faults, under a policy that reboots at once.
func faulty(faults ...v1alpha1.Fault) []client.Object {
	slice := pool(1, bad, "GPU-1")
	return []client.Object{aNode(), aPolicy(), aHealth(faults...), &slice, aBudget("a", "a")}
}

func aNode() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "node-uid", Labels: map[string]string{"pool": "a"}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue}, {Type: v1alpha1.ConditionReporting, Status: corev1.ConditionTrue}}}}
}

func aPolicy() *v1alpha1.RemediationPolicy {
	return &v1alpha1.RemediationPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "p"},
		Spec: v1alpha1.RemediationPolicySpec{Mode: v1alpha1.ModeRemediate,
			Rules: []v1alpha1.Rule{{Name: "critical", Match: v1alpha1.RuleMatch{Severities: []v1alpha1.Severity{v1alpha1.SeverityCritical}},
				Response: v1alpha1.ResponseRepair, When: v1alpha1.WhenNow, Ladder: []string{"reboot", "human"}}},
			Rungs: []v1alpha1.Rung{{Name: "reboot", Action: v1alpha1.RungReboot}, {Name: "human", Action: v1alpha1.RungEscalate, Message: "ask"}}},
		Status: v1alpha1.RemediationPolicyStatus{Conditions: []metav1.Condition{{Type: v1alpha1.ConditionAccepted, Status: metav1.ConditionTrue}}}}
}

func aFault(code, device string) v1alpha1.Fault {
	return v1alpha1.Fault{Code: code, Check: "kernel-log", Device: device, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
		Recommended: v1alpha1.RecommendReboot, FirstSeen: metav1.NewTime(seen), LastSeen: metav1.NewTime(seen), Count: 1, Root: true}
}

func aHealth(faults ...v1alpha1.Fault) *v1alpha1.NodeHealth {
	return &v1alpha1.NodeHealth{ObjectMeta: metav1.ObjectMeta{Name: "n", UID: "h"}, Spec: v1alpha1.NodeHealthSpec{NodeUID: "node-uid"},
		Status: v1alpha1.NodeHealthStatus{Summary: v1alpha1.SummaryFaulty, BootID: "b1", SupportedActions: []v1alpha1.ActionType{v1alpha1.ActionReboot},
			Faults: faults, CompletedRound: &v1alpha1.Round{BootID: "b1", At: metav1.NewTime(seen)},
			Devices: []v1alpha1.Device{{ID: bad, Health: v1alpha1.DeviceUnhealthy}, {ID: "GPU-1", Health: v1alpha1.DeviceHealthy}}}}
}

// aBudget allows one of the nodes with a label.
func aBudget(name, pool string) *v1alpha1.NodeDisruptionBudget {
	one := intstr.FromInt32(1)
	uid := types.UID("budget-" + name)
	return &v1alpha1.NodeDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: name, UID: uid},
		Spec:   v1alpha1.NodeDisruptionBudgetSpec{MaxUnavailable: &one, NodeSelector: metav1.LabelSelector{MatchLabels: map[string]string{"pool": pool}}},
		Status: v1alpha1.NodeDisruptionBudgetStatus{RebuiltFor: string(uid)}}
}
