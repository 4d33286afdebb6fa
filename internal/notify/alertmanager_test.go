package notify

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var at = time.Date(2026, 11, 23, 10, 0, 0, 0, time.FixedZone("JST", 9*60*60))

// received is an Alertmanager that checks requests by the published schema (api/v2/openapi.yaml).
type received struct {
	t        *testing.T
	batches  [][]map[string]any
	requests []*http.Request
	status   int
	answer   string
}

// labelName is Prometheus' rule for the names of labels.
var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

func (r *received) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.requests = append(r.requests, request)
	if request.Method != http.MethodPost || request.Header.Get("Content-Type") != "application/json" {
		r.t.Errorf("got %s of %s", request.Method, request.Header.Get("Content-Type"))
	}
	var batch []map[string]any
	if err := json.NewDecoder(request.Body).Decode(&batch); err != nil {
		r.t.Errorf("the body is not a list of alerts: %v", err)
	}
	for _, alert := range batch {
		r.check(alert)
	}
	r.batches = append(r.batches, batch)
	if r.status != 0 {
		w.WriteHeader(r.status)
	}
	_, _ = fmt.Fprint(w, r.answer)
}

// check holds one alert against postableAlert: labels are required, times are date-times, nothing else is there.
func (r *received) check(alert map[string]any) {
	labels, ok := alert["labels"].(map[string]any)
	if !ok || len(labels) == 0 {
		r.t.Errorf("labels are required: %v", alert)
	}
	for name, value := range labels {
		if text, ok := value.(string); !ok || text == "" || !labelName.MatchString(name) {
			r.t.Errorf("label %s is %v", name, value)
		}
	}
	for field, value := range alert {
		switch field {
		case "labels", "annotations":
		case "startsAt", "endsAt":
			if _, err := time.Parse(time.RFC3339, value.(string)); err != nil {
				r.t.Errorf("%s: %v", field, err)
			}
		case "generatorURL":
		default:
			r.t.Errorf("the schema has no field %s", field)
		}
	}
}

func send(t *testing.T, r *received, config Config, alerts ...Alert) error {
	t.Helper()
	r.t = t
	web := httptest.NewServer(r)
	t.Cleanup(web.Close)
	config.URL = web.URL + config.URL
	alertmanager, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return alertmanager.Send(t.Context(), alerts)
}

func TestSend(t *testing.T) {
	r := &received{}
	err := send(t, r, Config{URL: "/alertmanager/"},
		Alert{Labels: map[string]string{"alertname": "A", "device": ""}, Annotations: map[string]string{"message": "m"}, StartsAt: at, EndsAt: at.Add(time.Hour)},
		Alert{Labels: map[string]string{"alertname": "B"}})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]map[string]any{{
		{
			"labels": map[string]any{"alertname": "A"}, "annotations": map[string]any{"message": "m"},
			"startsAt": "2026-11-23T01:00:00Z", "endsAt": "2026-11-23T02:00:00Z",
		},
		{"labels": map[string]any{"alertname": "B"}},
	}}
	if diff := cmp.Diff(want, r.batches); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
	if got := r.requests[0].URL.Path; got != "/alertmanager/api/v2/alerts" {
		t.Errorf("path is %s", got)
	}
}

func TestSendBoundsItsBatchesAndTriesAllOfThem(t *testing.T) {
	r := &received{status: http.StatusInternalServerError, answer: "no room\n"}
	alerts := make([]Alert, 2*maxBatch+1)
	for i := range alerts {
		alerts[i].Labels = map[string]string{"alertname": fmt.Sprint(i)}
	}
	err := send(t, r, Config{}, alerts...)
	if err == nil || !strings.Contains(err.Error(), "500 Internal Server Error: no room") {
		t.Errorf("error is %v", err)
	}
	sizes := make([]int, 0, len(r.batches))
	for _, batch := range r.batches {
		sizes = append(sizes, len(batch))
	}
	if diff := cmp.Diff([]int{maxBatch, maxBatch, 1}, sizes); diff != "" {
		t.Errorf("sizes (-want +got):\n%s", diff)
	}
}

func TestSendAuthenticates(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "secret")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		config Config
		want   string
		err    string
	}{
		"nothing":                         {},
		"a bearer token":                  {config: Config{TokenFile: file}, want: "Bearer s3cret"},
		"a user name and a password":      {config: Config{Username: "u", PasswordFile: file}, want: "Basic dTpzM2NyZXQ="},
		"a token that is not there (yet)": {config: Config{TokenFile: file + "-not"}, err: "reading the secret for Alertmanager"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := &received{}
			err := send(t, r, c.config, Alert{Labels: map[string]string{"alertname": "A"}})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("error is %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := r.requests[0].Header.Get("Authorization"); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSendChecksTheCertificate(t *testing.T) {
	r := &received{t: t}
	web := httptest.NewTLSServer(r)
	t.Cleanup(web.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	for file, ok := range map[string]bool{"": false, ca: true} {
		alertmanager, err := New(Config{URL: web.URL, CAFile: file})
		if err != nil {
			t.Fatal(err)
		}
		err = alertmanager.Send(t.Context(), []Alert{{Labels: map[string]string{"alertname": "A"}}})
		if (err == nil) != ok {
			t.Errorf("with CA %q the error is %v", file, err)
		}
	}
}

func TestSendGivesUpOnASilentServer(t *testing.T) {
	done := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-done }))
	t.Cleanup(web.Close)
	t.Cleanup(func() { close(done) })
	alertmanager, err := New(Config{URL: web.URL, Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := alertmanager.Send(t.Context(), []Alert{{Labels: map[string]string{"alertname": "A"}}}); err == nil {
		t.Error("a server that never answers is no error")
	}
}

func TestNewRefuses(t *testing.T) {
	for name, config := range map[string]Config{
		"no address":                     {},
		"an address without a scheme":    {URL: "alertmanager:9093"},
		"an address of another kind":     {URL: "ftp://alertmanager"},
		"a token and a user name":        {URL: "http://a", TokenFile: "t", Username: "u"},
		"a CA that is not there":         {URL: "https://a", CAFile: "/does/not/exist"},
		"a certificate without its key":  {URL: "https://a", CertFile: "/does/not/exist"},
		"an address that cannot be read": {URL: "http://a b"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(config); err == nil {
				t.Error("it was taken")
			}
		})
	}
}
