package evict

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// asking answers evictions and deletions each in its own way, and keeps what it was asked, in order.
type asking struct {
	server
	deletion int
	why      any
	log      []string
}

func (s *asking) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var options metav1.DeleteOptions
	if r.Method == http.MethodDelete {
		_ = json.NewDecoder(r.Body).Decode(&options)
		s.note("delete", &options)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(s.deletion)
		_ = json.NewEncoder(w).Encode(s.why)
		return
	}
	s.server.ServeHTTP(w, r)
	if n := len(s.asked); n > 0 && r.Method == http.MethodPost {
		s.note("evict", s.asked[n-1].DeleteOptions)
	}
}

func (s *asking) note(verb string, options *metav1.DeleteOptions) {
	if p := options.Preconditions; p == nil || p.UID == nil || *p.UID != "pod-uid" {
		verb += " whatever has its name"
	}
	if options.GracePeriodSeconds != nil {
		verb += fmt.Sprintf(" in %ds", *options.GracePeriodSeconds)
	}
	if len(options.DryRun) > 0 {
		verb += ", dry"
	}
	s.log = append(s.log, verb)
}

func TestHowHardAPodIsAskedToGo(t *testing.T) {
	ok := metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusSuccess}
	refused := failure(429, metav1.StatusReasonTooManyRequests, "no", byBudget("The disruption budget b needs 1 healthy pods and has 1 currently", 0))
	blocked := Outcome{Kind: Blocked, Message: "The disruption budget b needs 1 healthy pods and has 1 currently", RetryAfter: DefaultRetryAfter, Budgets: []string{"b"}}
	noRight := blocked
	noRight.Message += "; the controller may not delete pods: install the chart with drain.deletePods=true"
	hooked := failure(429, metav1.StatusReasonTooManyRequests, `admission webhook "virt-launcher-eviction-interceptor.kubevirt.io" denied the request: VMI cannot migrate`, nil)
	going := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }
	tests := map[string]struct {
		how      How
		change   func(*corev1.Pod)
		dry      bool
		eviction int
		answer   any
		deletion int
		why      any
		want     Outcome
		log      []string
		err      bool
	}{
		"an eviction with the pod's own grace":               {eviction: 201, answer: ok, want: Outcome{Kind: Evicted}, log: []string{"evict"}},
		"an eviction with a shorter grace":                   {how: How{Grace: time.Minute}, eviction: 201, answer: ok, want: Outcome{Kind: Evicted}, log: []string{"evict in 60s"}},
		"one that is going is asked to go sooner":            {how: How{Grace: time.Minute}, change: going, eviction: 201, answer: ok, want: Outcome{Kind: Evicted}, log: []string{"evict in 60s"}},
		"no deletion where the eviction is granted":          {how: How{Delete: true}, eviction: 201, answer: ok, want: Outcome{Kind: Evicted}, log: []string{"evict"}},
		"no deletion of a refused one where nobody says so":  {how: How{Force: true}, eviction: 429, answer: refused, want: blocked, log: []string{"evict"}},
		"a deletion where the eviction is refused":           {how: How{Delete: true}, eviction: 429, answer: refused, deletion: 200, why: ok, want: Outcome{Kind: Deleted}, log: []string{"evict", "delete"}},
		"with the same grace":                                {how: How{Delete: true, Grace: time.Minute}, eviction: 429, answer: refused, deletion: 200, why: ok, want: Outcome{Kind: Deleted}, log: []string{"evict in 60s", "delete in 60s"}},
		"no deletion where the server is busy":               {how: How{Delete: true}, eviction: 500, answer: failure(500, "InternalError", "etcd", nil), err: true, log: []string{"evict"}},
		"without the right to delete, both reasons are told": {how: How{Delete: true}, eviction: 429, answer: refused, deletion: 403, why: failure(403, metav1.StatusReasonForbidden, `pods "train-1" is forbidden: User "u" cannot delete resource "pods" in API group "" in the namespace "ml"`, nil), want: noRight, log: []string{"evict", "delete"}},
		"a refusal for another reason is told as it is":      {how: How{Delete: true}, eviction: 429, answer: refused, deletion: 403, why: failure(403, metav1.StatusReasonForbidden, "denied by policy", nil), err: true, log: []string{"evict", "delete"}},
		"no deletion where the server would rather be asked later": {how: How{Delete: true}, eviction: 429,
			answer: failure(429, metav1.StatusReasonTooManyRequests, "no", byBudget("The disruption budget b is still being processed by the server.", 0)),
			want:   Outcome{Kind: Blocked, Message: "The disruption budget b is still being processed by the server.", RetryAfter: DefaultRetryAfter, Budgets: []string{"b"}, Passing: true}, log: []string{"evict"}},
		"a deletion where a webhook refuses the eviction": {how: How{Delete: true}, eviction: 429, answer: hooked, deletion: 200, why: ok, want: Outcome{Kind: Deleted}, log: []string{"evict", "delete"}},
		"a webhook's refusal is named":                    {eviction: 429, answer: hooked, want: Outcome{Kind: Blocked, RetryAfter: DefaultRetryAfter, Message: hooked.Message}, log: []string{"evict"}},
		"a webhook that fails says nothing of the pod": {eviction: 500, err: true, log: []string{"evict"},
			answer: failure(500, "InternalError", `Internal error occurred: failed calling webhook "v.kubevirt.io": no endpoints`, nil)},
		"a deletion that comes too late":                          {how: How{Delete: true}, eviction: 429, answer: refused, deletion: 404, why: failure(404, metav1.StatusReasonNotFound, "gone", nil), want: Outcome{Kind: Gone, Message: "it no longer exists"}, log: []string{"evict", "delete"}},
		"a deletion of which nothing is known":                    {how: How{Delete: true}, eviction: 429, answer: refused, deletion: 500, why: failure(500, "InternalError", "etcd", nil), err: true, log: []string{"evict", "delete"}},
		"force, of one that is going":                             {how: How{Force: true, Delete: true}, change: going, deletion: 200, why: ok, want: Outcome{Kind: Forced}, log: []string{"delete in 0s"}},
		"force without the right":                                 {how: How{Force: true}, change: going, deletion: 403, why: failure(403, metav1.StatusReasonForbidden, `pods "train-1" is forbidden: User "u" cannot delete resource "pods" in API group "" in the namespace "ml"`, nil), want: Outcome{Kind: Misconfigured, Message: "the controller may not delete pods: install the chart with drain.deletePods=true"}, log: []string{"delete in 0s"}},
		"never force of one that nobody has asked to go":          {how: How{Force: true}, eviction: 201, answer: ok, want: Outcome{Kind: Evicted}, log: []string{"evict"}},
		"a rehearsal of all of it":                                {how: How{Delete: true}, dry: true, eviction: 429, answer: refused, deletion: 200, why: ok, want: Outcome{Kind: Deleted}, log: []string{"evict, dry", "delete, dry"}},
		"one that is going and whose time is right is left to it": {how: How{Delete: true}, change: going, want: Outcome{Kind: Terminating, Message: "it is already being deleted"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			s := &asking{server: server{status: tc.eviction, answer: tc.answer}, deletion: tc.deletion, why: tc.why}
			pod := newPod()
			if tc.change != nil {
				tc.change(pod)
			}
			got, err := Evictor{Client: newClient(t, s), DryRun: tc.dry}.Evict(t.Context(), pod, tc.how)
			if (err != nil) != tc.err {
				t.Errorf("error is %v", err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.log, s.log); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}
