package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/notify"
)

// startTimeout bounds Alertmanager's start, and tellTimeout how long it may take to tell of an alert.
const (
	startTimeout = 20 * time.Second
	tellTimeout  = 20 * time.Second
)

// unpacked is where hack/test-setup.sh has unpacked Debian's package.
func unpacked(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", ".cache", "alertmanager", "root"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "usr", "bin", "prometheus-alertmanager")); err != nil {
		t.Fatalf("Alertmanager is missing: run hack/test-setup.sh (%v)", err)
	}
	return root
}

// run starts Alertmanager where it finds its templates, which Debian's looks for below /usr/share: it is not installed, so
// it gets a mount namespace of its own with nothing but them there.
const run = `mount -t tmpfs tmpfs /usr/share && cp -r "$0/usr/share/prometheus" /usr/share/ &&
exec "$0/usr/bin/prometheus-alertmanager" "$@"`

// startAlertmanager runs the real one on the loopback, without a cluster; it tells hook of each alert at once.
func startAlertmanager(t *testing.T, hook string) (url string) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "alertmanager.yml")
	text := fmt.Sprintf(`
route: {receiver: hook, group_by: ["..."], group_wait: 0s, group_interval: 100ms}
receivers: [{name: hook, webhook_configs: [{url: %q, send_resolved: true}]}]
`, hook)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var log bytes.Buffer
	args := []string{"--mount", "sh", "-c", run, unpacked(t), "--config.file=" + config, "--storage.path=" + dir,
		"--web.listen-address=" + address, "--cluster.listen-address="}
	if os.Geteuid() != 0 {
		args = append([]string{"--map-root-user"}, args...)
	}
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("Alertmanager's log:\n%s", log.String())
		}
	})
	url = "http://" + address
	until(t, startTimeout, "Alertmanager is ready", func() bool {
		status, _ := ask(t, http.MethodGet, url+"/-/ready", "")
		return status == http.StatusOK
	})
	return url
}

func freeAddress(t *testing.T) string {
	t.Helper()
	var listen net.ListenConfig
	l, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// ask gives the status and the body of an answer; 0 where there is none.
func ask(t *testing.T, method, url, body string) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil
	}
	return response.StatusCode, answer
}

func until(t *testing.T, within time.Duration, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s, still not so: %s", within, what)
		}
	}
}

// hook is where Alertmanager tells of alerts; it gives each alert's name and state, as it comes.
func hook(t *testing.T) (url string, told <-chan string) {
	t.Helper()
	out := make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var message struct {
			Alerts []struct {
				Status string            `json:"status"`
				Labels map[string]string `json:"labels"`
			} `json:"alerts"`
		}
		if err := json.NewDecoder(r.Body).Decode(&message); err != nil {
			out <- err.Error()
		}
		for _, a := range message.Alerts {
			out <- a.Labels["alertname"] + " " + a.Status
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, out
}

// TestTheRealAlertmanagerTellsOfAnAlert sends what the controller sends, and hears of it by a webhook.
func TestTheRealAlertmanagerTellsOfAnAlert(t *testing.T) {
	to, told := hook(t)
	sender, err := notify.New(notify.Config{URL: startAlertmanager(t, to)})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for _, step := range []struct {
		ends time.Duration
		want string
	}{{time.Hour, "RoundhouseEscalated firing"}, {-time.Second, "RoundhouseEscalated resolved"}} {
		err := sender.Send(t.Context(), []notify.Alert{{
			Labels:      map[string]string{"alertname": "RoundhouseEscalated", "node": "gpu-40", "device": ""},
			Annotations: map[string]string{"summary": "3 repairs in 30d"},
			StartsAt:    now.Add(-time.Minute), EndsAt: now.Add(step.ends),
		}})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-told:
			if got != step.want {
				t.Errorf("told of %q, want %q", got, step.want)
			}
		case <-time.After(tellTimeout):
			t.Fatalf("after %s nobody was told of %s", tellTimeout, step.want)
		}
	}
}

// TestTheReceiverAnswersAsTheRealAlertmanager keeps the stand-in of the scenarios true: both get the same requests.
func TestTheReceiverAnswersAsTheRealAlertmanager(t *testing.T) {
	to, _ := hook(t)
	genuine := startAlertmanager(t, to)
	r, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Stop(context.WithoutCancel(t.Context())) })
	for name, body := range map[string]string{
		"an alert":                 `[{"labels": {"alertname": "a"}}]`,
		"with everything":          `[{"labels": {"alertname": "b"}, "annotations": {"summary": "s"}, "startsAt": "2026-11-23T10:00:00Z", "generatorURL": "http://x/y"}]`,
		"an alert that is over":    `[{"labels": {"alertname": "c"}, "startsAt": "2026-11-23T10:00:00Z", "endsAt": "2026-11-23T11:00:00Z"}]`,
		"an empty label, dropped":  `[{"labels": {"alertname": "d", "device": ""}}]`,
		"an empty list":            `[]`,
		"no list":                  `{"labels": {"alertname": "e"}}`,
		"not JSON":                 `[{`,
		"no labels":                `[{"annotations": {"a": "b"}}]`,
		"only empty labels":        `[{"labels": {"a": ""}}]`,
		"a label's name":           `[{"labels": {"a-b": "c"}}]`,
		"a label that is a number": `[{"labels": {"a": 1}}]`,
		"an end before the start":  `[{"labels": {"alertname": "f"}, "startsAt": "2026-11-23T10:00:00Z", "endsAt": "2026-11-23T09:00:00Z"}]`,
		"a time that is none":      `[{"labels": {"alertname": "g"}, "startsAt": "ten"}]`,
	} {
		t.Run(name, func(t *testing.T) {
			want, reason := ask(t, http.MethodPost, genuine+"/api/v2/alerts", body)
			got, answer := ask(t, http.MethodPost, r.URL()+"/api/v2/alerts", body)
			if want == 0 || (want/100 == 2) != (got/100 == 2) {
				t.Errorf("the receiver answers %d: %s; Alertmanager %d: %s", got, answer, want, reason)
			}
		})
	}
	_, list := ask(t, http.MethodGet, genuine+"/api/v2/alerts", "")
	var active []struct {
		Labels map[string]string `json:"labels"`
	}
	if err := json.Unmarshal(list, &active); err != nil {
		t.Fatalf("reading %s: %v", list, err)
	}
	var want, got []string
	for _, a := range active {
		want = append(want, fingerprint(a.Labels))
	}
	r.mu.Lock()
	for key, a := range r.alerts {
		if !a.Resolved {
			got = append(got, key)
		}
	}
	r.mu.Unlock()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("what fires, Alertmanager and the receiver (-want +got):\n%s", diff)
	}
}
