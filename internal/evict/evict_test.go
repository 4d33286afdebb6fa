package evict

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// server answers evictions as an API server does, and keeps what it was asked.
type server struct {
	status  int
	answer  any
	budgets policyv1.PodDisruptionBudgetList
	budget  *policyv1.PodDisruptionBudget
	asked   []policyv1.Eviction
	queries []string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet && !strings.HasSuffix(r.URL.Path, "/poddisruptionbudgets") {
		if s.budget == nil {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(failure(404, metav1.StatusReasonNotFound, "gone", nil))
			return
		}
		_ = json.NewEncoder(w).Encode(s.budget)
		return
	}
	if r.Method == http.MethodGet {
		_ = json.NewEncoder(w).Encode(s.budgets)
		return
	}
	var eviction policyv1.Eviction
	_ = json.NewDecoder(r.Body).Decode(&eviction)
	s.asked = append(s.asked, eviction)
	s.queries = append(s.queries, r.URL.Path+"?"+r.URL.RawQuery)
	if status, ok := s.answer.(metav1.Status); ok && status.Details != nil && status.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(s.status)
	_ = json.NewEncoder(w).Encode(s.answer)
}

// newClient is a real client of the server, with our transport: client-go's own retries are part of what is tested.
func newClient(t *testing.T, s http.Handler) client.Client {
	t.Helper()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	mapper.Add(schema.GroupVersionKind{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"}, meta.RESTScopeNamespace)
	config := &rest.Config{Host: web.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	config.Wrap(OnceOnly)
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper, HTTPClient: httpClient})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: "train-1", UID: "pod-uid", Labels: map[string]string{"app": "train"}}}
}

func failure(code int32, reason metav1.StatusReason, message string, details *metav1.StatusDetails) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: code, Reason: reason, Message: message, Details: details,
	}
}

func byBudget(message string, retryAfter int32) *metav1.StatusDetails {
	return &metav1.StatusDetails{
		RetryAfterSeconds: retryAfter,
		Causes:            []metav1.StatusCause{{Type: policyv1.DisruptionBudgetCause, Message: message}},
	}
}

func pdb(name string, labels map[string]string) policyv1.PodDisruptionBudget {
	return policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ml", Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}},
	}
}

func TestEvict(t *testing.T) {
	const refusal = "Cannot evict pod as it would violate the pod's disruption budget."
	cases := map[string]struct {
		status  int
		answer  any
		budgets []policyv1.PodDisruptionBudget
		want    Outcome
		err     bool
	}{
		"201: evicted": {status: 201, answer: metav1.Status{Status: metav1.StatusSuccess}, want: Outcome{Kind: Evicted}},
		"404: gone": {
			status: 404, answer: failure(404, metav1.StatusReasonNotFound, `pods "train-1" not found`, &metav1.StatusDetails{Kind: "pods", Name: "train-1"}),
			want: Outcome{Kind: Gone, Message: "it no longer exists"},
		},
		"409 by the UID precondition: another pod has the name": {
			status: 409, answer: failure(409, metav1.StatusReasonConflict, "Operation cannot be fulfilled on Pod \"train-1\": the UID in the precondition (pod-uid) does not match the UID in record (x). The object might have been deleted and then recreated", nil),
			want: Outcome{Kind: Gone, Message: "another pod has its name now"},
		},
		"409 otherwise: ask again": {
			status: 409, answer: failure(409, metav1.StatusReasonConflict, "Operation cannot be fulfilled on pods: the object has been modified", nil),
			want: Outcome{Kind: Blocked, Message: "the pod changed while it was being evicted", RetryAfter: time.Second, Passing: true},
		},
		"429: the budget needs its pods": {
			status: 429, answer: failure(429, metav1.StatusReasonTooManyRequests, refusal, byBudget("The disruption budget train-pdb needs 3 healthy pods and has 3 currently", 0)),
			want: Outcome{Kind: Blocked, Message: "The disruption budget train-pdb needs 3 healthy pods and has 3 currently", RetryAfter: 10 * time.Second, Budgets: []string{"train-pdb"}},
		},
		"429: the budget is not up to date, with a header that client-go would sleep for": {
			status: 429, answer: failure(429, metav1.StatusReasonTooManyRequests, refusal, byBudget("The disruption budget a.b is still being processed by the server.", 7)),
			want: Outcome{Kind: Blocked, Message: "The disruption budget a.b is still being processed by the server.", RetryAfter: 7 * time.Second, Budgets: []string{"a.b"}, Passing: true},
		},
		"429 without the cause: the server is busy, which says nothing about the pod": {
			status: 429, answer: failure(429, metav1.StatusReasonTooManyRequests, "too many requests", &metav1.StatusDetails{RetryAfterSeconds: 1}), err: true,
		},
		"403 by the budget: its bookkeeping is behind": {
			status: 403, answer: failure(403, metav1.StatusReasonForbidden, "forbidden", byBudget("The disruption budget train-pdb does not allow evicting pods currently: pdb disruptions allowed is negative", 0)),
			want: Outcome{Kind: Blocked, Message: "The disruption budget train-pdb does not allow evicting pods currently: pdb disruptions allowed is negative", RetryAfter: 10 * time.Second, Budgets: []string{"train-pdb"}},
		},
		"403: we may not": {status: 403, answer: failure(403, metav1.StatusReasonForbidden, "pods \"train-1\" is forbidden", nil), err: true},
		"403: the namespace is going": {
			status: 403, answer: failure(403, metav1.StatusReasonForbidden, "being terminated", &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}}),
			want: Outcome{Kind: Terminating, Message: "its namespace is being deleted"},
		},
		"500: two budgets, for good, and they are named": {
			status: 500, answer: failure(500, "", "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.", nil),
			budgets: []policyv1.PodDisruptionBudget{pdb("z", map[string]string{"app": "train"}), pdb("a", nil), pdb("other", map[string]string{"app": "x"})},
			want: Outcome{Kind: Misconfigured, Budgets: []string{"a", "z"}, Message: "more than one PodDisruptionBudget selects it, and the " +
				"Eviction API refuses such pods for good; delete or narrow one: a, z"},
		},
		"500: the server is broken": {status: 500, answer: failure(500, metav1.StatusReasonInternalError, "Internal error occurred: etcd", nil), err: true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := &server{status: c.status, answer: c.answer, budgets: policyv1.PodDisruptionBudgetList{
				TypeMeta: metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudgetList"}, Items: c.budgets,
			}}
			got, err := Evictor{Client: newClient(t, s)}.Evict(t.Context(), newPod(), How{})
			if (err != nil) != c.err {
				t.Errorf("error is %v", err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			if len(s.asked) != 1 {
				t.Fatalf("the server was asked %d times, want once", len(s.asked))
			}
			if uid := s.asked[0].DeleteOptions.Preconditions.UID; uid == nil || *uid != "pod-uid" {
				t.Errorf("the UID precondition is %v", uid)
			}
		})
	}
}

func TestAPodThatIsBeingDeletedIsNotAskedFor(t *testing.T) {
	s := &server{}
	pod := newPod()
	deleted := metav1.Now()
	pod.DeletionTimestamp = &deleted
	got, err := Evictor{Client: newClient(t, s)}.Evict(t.Context(), pod, How{})
	if err != nil || got.Kind != Terminating || len(s.asked) > 0 {
		t.Errorf("got %+v, %v after %d requests", got, err, len(s.asked))
	}
}

func TestAPodWithoutAUIDIsRefused(t *testing.T) {
	s := &server{}
	pod := newPod()
	pod.UID = ""
	if _, err := (Evictor{Client: newClient(t, s)}).Evict(t.Context(), pod, How{}); err == nil || len(s.asked) > 0 {
		t.Errorf("error is %v after %d requests", err, len(s.asked))
	}
}

func TestDryRunSaysSoTwice(t *testing.T) {
	s := &server{status: 201, answer: metav1.Status{Status: metav1.StatusSuccess}}
	if _, err := (Evictor{Client: newClient(t, s), DryRun: true}).Evict(t.Context(), newPod(), How{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{metav1.DryRunAll}, s.asked[0].DeleteOptions.DryRun); diff != "" {
		t.Errorf("in the body (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"/api/v1/namespaces/ml/pods/train-1/eviction?dryRun=All"}, s.queries); diff != "" {
		t.Errorf("in the address (-want +got):\n%s", diff)
	}
}

func TestARequestThatNeverEndsIsAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Evictor{Client: newClient(t, &server{status: 201})}).Evict(ctx, newPod(), How{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want that the context ended", err)
	}
}

func FuzzBudgetName(f *testing.F) {
	f.Add("The disruption budget train-pdb needs 3 healthy pods and has 3 currently", int32(0))
	f.Add("disruption budget ", int32(-1))
	f.Fuzz(func(t *testing.T, message string, seconds int32) {
		outcome := blocked(statusError{failure(429, metav1.StatusReasonTooManyRequests, "", byBudget(message, seconds))})
		if outcome.Kind != Blocked || outcome.RetryAfter <= 0 {
			t.Errorf("got %+v", outcome)
		}
	})
}

type statusError struct{ status metav1.Status }

func (s statusError) Error() string         { return s.status.Message }
func (s statusError) Status() metav1.Status { return s.status }
