package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/plan"
)

// inGang is a pod of a gang that has worked for two hours on eight devices since its last checkpoint.
func inGang(name, node string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name, UID: types.UID(name), Labels: map[string]string{"volcano.sh/job-name": "pretrain"},
		Annotations:     map[string]string{v1alpha1.AnnotationCheckpoint: now.Add(-2 * time.Hour).Format(time.RFC3339)},
		OwnerReferences: []metav1.OwnerReference{{Kind: "Job", Name: name, Controller: ptr.To(true)}}},
		Spec: corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "main", Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("8")}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, StartTime: &metav1.Time{Time: now.Add(-9 * time.Hour)}}}
	change(p)
	return p
}

// asked answers the requests for pods of a namespace, which are those for a gang's.
func asked(answer func(*corev1.PodList, client.ListOptions) error) interceptor.Funcs {
	return interceptor.Funcs{List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
		var o client.ListOptions
		o.ApplyOptions(opts)
		pods, ok := l.(*corev1.PodList)
		if !ok || o.Namespace == "" {
			return c.List(ctx, l, opts...)
		}
		if err := c.List(ctx, l, opts...); err != nil {
			return err
		}
		return answer(pods, o)
	}}
}

func TestAPlanSaysWhatAGangWouldLose(t *testing.T) {
	asIs := func(*corev1.Pod) {}
	byPodGroup := func(p *corev1.Pod) {
		p.Labels, p.Spec.SchedulingGroup = nil, &corev1.PodSchedulingGroup{PodGroupName: ptr.To("pretrain")}
	}
	for name, tc := range map[string]struct {
		pods  []*corev1.Pod
		funcs interceptor.Funcs
		says  string
	}{
		"wherever its pods run": {[]*corev1.Pod{inGang("a", "n", asIs), inGang("b", "m", asIs), inGang("c", "o", func(p *corev1.Pod) { p.Labels = nil })},
			interceptor.Funcs{}, "Gangs     Node: gang ml/pretrain: 16 devices on 2 nodes, 2.0 h since its last checkpoint: 32.0 device-hours would be lost\n"},
		"by its PodGroup, where it has no label": {[]*corev1.Pod{inGang("a", "n", byPodGroup), inGang("b", "m", byPodGroup), inGang("c", "o", asIs)},
			interceptor.Funcs{}, "Gangs     Node: gang ml/pretrain: 16 devices on 2 nodes, 2.0 h since its last checkpoint: 32.0 device-hours would be lost\n"},
		"that has no pod on the node is not asked about": {[]*corev1.Pod{inGang("b", "m", asIs)}, asked(func(*corev1.PodList, client.ListOptions) error {
			return errors.New("asked")
		}), ""},
		"not, where one may not look": {[]*corev1.Pod{inGang("a", "n", asIs)}, asked(func(*corev1.PodList, client.ListOptions) error {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "", errors.New("no"))
		}), "Gangs     Node: gang ml/pretrain: what it would lose is not known: you may not list the pods of namespace ml (ClusterRole roundhouse-planner may)\n"},
		"not, where the server does not answer": {[]*corev1.Pod{inGang("a", "n", asIs)}, asked(func(*corev1.PodList, client.ListOptions) error {
			return errors.New("no answer")
		}), "Gangs     Node: gang ml/pretrain: what it would lose is not known: listing its pods: no answer\n"},
		"at least, where it has more pods than are asked for": {[]*corev1.Pod{inGang("a", "n", asIs)}, asked(func(l *corev1.PodList, o client.ListOptions) error {
			if o.Limit != maxGangPods {
				return fmt.Errorf("limit %d", o.Limit)
			}
			l.Continue = "more"
			return nil
		}), "2.0 h since its last checkpoint: at least 16.0 device-hours would be lost, since it has more pods than were looked at\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c := planned(t, tc.funcs)
			for _, p := range tc.pods {
				if err := c.Create(t.Context(), p); err != nil {
					t.Fatal(err)
				}
			}
			var out bytes.Buffer
			a := &app{Options: Options{Out: &out, Now: func() time.Time { return now }, Zone: tokyo}.withDefaults()}
			if err := a.plan(t.Context(), c, &output{}, &planFlags{}, "n"); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), tc.says) || tc.says == "" && strings.Contains(out.String(), "Gangs") {
				t.Errorf("want %q in\n%s", tc.says, out.String())
			}
		})
	}
}

func TestTheGangsThatAreAskedAboutAreBounded(t *testing.T) {
	lists := 0
	c := planned(t, asked(func(*corev1.PodList, client.ListOptions) error { lists++; return nil }))
	for i := range maxGangs + 2 {
		p := inGang(fmt.Sprintf("p%02d", i), "n", func(p *corev1.Pod) { p.Labels["volcano.sh/job-name"] = fmt.Sprintf("g%02d", i) })
		if err := c.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	a := &app{Options: Options{Out: &out, Now: func() time.Time { return now }, Zone: tokyo}.withDefaults()}
	if err := a.plan(t.Context(), c, &output{format: formatJSON}, &planFlags{}, "n"); err != nil {
		t.Fatal(err)
	}
	var p plan.Plan
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	known := 0
	for _, g := range p.Gangs {
		switch {
		case g.AtRisk != nil && *g.AtRisk == 16 && g.Unknown == "":
			known++
		case g.AtRisk != nil || g.Unknown != "only the first 16 gangs are asked about":
			t.Errorf("%+v", g)
		}
	}
	if lists != maxGangs || known != maxGangs || len(p.Gangs) != maxGangs+2 {
		t.Errorf("%d of %d gangs were asked about, and %d are known", lists, len(p.Gangs), known)
	}
}
