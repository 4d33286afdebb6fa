package receiver

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/roundhouse-dev/roundhouse/internal/notify"
)

func TestWhatAlertmanagerRefusesIsRefused(t *testing.T) {
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct{ body, want string }{
		"no list":                  {`{"labels": {"a": "b"}}`, "reading alerts"},
		"null":                     {`null`, "a list is needed"},
		"no labels":                {`[{"annotations": {"a": "b"}}]`, "at least one label pair required"},
		"only empty labels":        {`[{"labels": {"a": ""}}]`, "at least one label pair required"},
		"a label's name":           {`[{"labels": {"a-b": "c"}}]`, `invalid name "a-b"`},
		"a label that is a number": {`[{"labels": {"a": 1}}]`, "reading alerts"},
		"an end before the start":  {`[{"labels": {"a": "b"}, "startsAt": "2026-11-23T10:00:00Z", "endsAt": "2026-11-23T09:00:00Z"}]`, "start time must be before end time"},
		"a time that is none":      {`[{"labels": {"a": "b"}, "startsAt": "ten"}]`, "reading alerts"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse([]byte(test.body), now); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestAlertsOfTheRealClientAreFollowed(t *testing.T) {
	r, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	var got []string
	defer r.Follow(func(a Alert) {
		state := "firing"
		if a.Resolved {
			state = "resolved"
		}
		got = append(got, a.Labels["alertname"]+" "+state)
	})()
	sender, err := notify.New(notify.Config{URL: r.URL()})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	send := func(name string, ends time.Duration) {
		t.Helper()
		err := sender.Send(t.Context(), []notify.Alert{{
			Labels: map[string]string{"alertname": name, "device": ""}, StartsAt: now.Add(-time.Minute), EndsAt: now.Add(ends),
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	send("A", time.Minute)
	send("A", 2*time.Minute) // the same alert, kept alive
	send("B", -time.Second)  // over before anybody heard of it
	send("A", -time.Second)
	if diff := cmp.Diff([]string{"A firing", "A resolved"}, got); diff != "" {
		t.Error(diff)
	}
	if r.Refused() > 0 {
		t.Errorf("%d requests refused", r.Refused())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`[{"labels": {"a": "b"}, "endsAt": "2026-11-23T09:00:00Z"}]`))
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, data []byte) {
		alerts, err := parse(data, now)
		if err != nil {
			return
		}
		for _, a := range alerts {
			if len(a.Labels) == 0 || a.EndsAt.Before(a.StartsAt) {
				t.Errorf("accepted %+v", a)
			}
		}
	})
}
