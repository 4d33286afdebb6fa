package redfish

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestCheckRefuses: each refusal names what a person must mend.
func TestCheckRefuses(t *testing.T) {
	cycler := func() []*system { return []*system{machine("On", "ForceOff", "PowerCycle")} }
	tests := map[string]struct {
		systems []*system
		change  func(w *world)
		want    []string
	}{
		"the Node has no label":       {change: func(w *world) { w.attempt.Node.Labels = nil }, want: []string{"label " + label + " of node gpu-0417 is not there"}},
		"the label has a scheme":      {change: relabel("https://10.0.0.7"), want: []string{label, `"https://10.0.0.7" must be a host name or an IP address`}},
		"the annotation is not there": {change: annotated, want: []string{"annotation example.com/bmc of node gpu-0417 is not there"}},
		"the rung says nothing of it": {change: func(w *world) { w.attempt.Rung.Redfish = nil }, want: []string{"rung power-cycle", "no redfish"}},
		"the Secret is not there":     {change: func(w *world) { w.api.secrets = nil }, want: []string{"Secret roundhouse-system/bmc is not there"}},
		"the Secret may not be read": {change: func(w *world) {
			w.api.err = apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "bmc", errors.New("no"))
		}, want: []string{"may not read Secret roundhouse-system/bmc", "remedies.redfish.secrets"}},
		"the Secret is of another type": {change: func(w *world) { w.secret.Type = corev1.SecretTypeOpaque }, want: []string{"type Opaque", "kubernetes.io/basic-auth"}},
		"the Secret has no user":        {change: func(w *world) { delete(w.secret.Data, "username") }, want: []string{"key username of Secret roundhouse-system/bmc is empty"}},
		"the password has a line break": {change: func(w *world) { w.secret.Data["password"] = []byte("x\n") }, want: []string{"key password of Secret roundhouse-system/bmc has a line break"}},
		"the authority is not PEM":      {change: func(w *world) { w.secret.Data["ca.crt"] = []byte("MII") }, want: []string{"key ca.crt of Secret roundhouse-system/bmc has no certificate"}},
		"the authority is empty":        {change: func(w *world) { w.secret.Data["ca.crt"] = nil }, want: []string{"key ca.crt of Secret roundhouse-system/bmc has no certificate"}},

		"the certificate is of an unknown authority": {change: func(w *world) { delete(w.secret.Data, "ca.crt") },
			want: []string{"unknown authority", "key ca.crt of Secret roundhouse-system/bmc"}},
		"the certificate is for another name": {change: func(w *world) {
			w.attempt.Node.Labels[label] = strings.Replace(w.bmc.address(), "127.0.0.1", "localhost", 1)
		}, want: []string{"not for that name", "localhost", "label " + label}},
		"the BMC speaks no TLS": {change: func(w *world) {
			plain := httptest.NewServer(w.bmc)
			w.bmc.t.Cleanup(plain.Close)
			w.attempt.Node.Labels[label] = plain.Listener.Addr().String()
		}, want: []string{"does not speak TLS"}},
		"nothing is at the address": {change: func(w *world) {
			dead, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				w.bmc.t.Fatal(err)
			}
			w.attempt.Node.Labels[label] = dead.Addr().String()
			_ = dead.Close()
		}, want: []string{"connection refused", "is label " + label + " of node gpu-0417 right"}},
		"no answer comes": {change: func(w *world) {
			w.timing.request = 300 * time.Millisecond
			w.bmc.before = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		}, want: []string{"no answer in time"}},
		"the password is wrong": {change: func(w *world) { w.secret.Data["password"] = []byte("battery staple") },
			want: []string{"does not take user roundhouse", "401 Unauthorized", "received an authorization error", "mend username and password in Secret roundhouse-system/bmc"}},
		"the password is wrong for a BMC without sessions": {change: func(w *world) {
			w.bmc.basic, w.secret.Data["password"] = true, []byte("battery staple")
		}, want: []string{"does not take user roundhouse"}},
		"the user may too little": {change: func(w *world) {
			w.bmc.before = at("/redfish/v1/Systems", func(w http.ResponseWriter, _ *http.Request) bool {
				fail(w, http.StatusForbidden, "Base.1.18.InsufficientPrivilege", "There are insufficient privileges for the account.", "Change the account.")
				return true
			})
		}, want: []string{"403 Forbidden: There are insufficient privileges for the account. Change the account.", "ConfigureComponents"}},

		"there are two systems": {systems: []*system{{id: "System_0"}, {id: "HGX_Baseboard_0"}},
			want: []string{"several systems", "redfish.systemID", "System_0, HGX_Baseboard_0"}},
		"there is no such system": {change: func(w *world) { w.attempt.Rung.Redfish.SystemID = "2" }, want: []string{"no system 2", "it has 1"}},
		"there is no system":      {systems: []*system{}, want: []string{"has no systems"}},
		"the system is of another machine": {change: func(w *world) { w.bmc.systems[0].uuid = "11111111-2222-3333-4444-555555555555" },
			want: []string{"of another machine", "11111111-2222-3333-4444-555555555555", nodeUUID, "mend label " + label}},
		"the system only restarts": {systems: []*system{machine("On", "GracefulRestart", "ForceRestart")},
			want: []string{"takes its power away", "PowerCycle is needed, or ForceOff and On; it takes On, GracefulRestart, ForceRestart"}},
		"the system can be turned off only":     {systems: []*system{machine("ForceOff")}, want: []string{"it takes ForceOff"}},
		"the system does not say what it takes": {systems: []*system{machine()}, want: []string{"ResetType@Redfish.AllowableValues"}},
		"the system does not say its power":     {change: func(w *world) { w.bmc.systems[0].power = "" }, want: []string{"PowerState"}},
		"the system is going off":               {change: func(w *world) { w.bmc.systems[0].power = "PoweringOff" }, want: []string{"PoweringOff", "something else"}},

		"the BMC is busy for long": {change: func(w *world) {
			w.bmc.before = at("/redfish/v1/Systems", func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("Retry-After", "120")
				fail(w, http.StatusServiceUnavailable, "Base.1.18.ServiceTemporarilyUnavailable", "The service is temporarily unavailable. Retry in 120 seconds.", "")
				return true
			})
		}, want: []string{"503 Service Unavailable", "Retry in 120 seconds"}},
		"an answer is too large":  {change: func(w *world) { w.bmc.before = at("/redfish/v1/Systems/1", raw(200, big)) }, want: []string{"more than 1024 KiB"}},
		"an error is too large":   {change: func(w *world) { w.bmc.before = at("/redfish/v1/Systems/1", raw(500, big)) }, want: []string{"too large"}},
		"an answer is cut short":  {change: func(w *world) { w.bmc.before = at("/redfish/v1/Systems", raw(200, `{"Members": [`)) }, want: []string{"not Redfish"}},
		"an answer is of another": {change: func(w *world) { w.bmc.before = at("/redfish/v1/Systems", raw(200, `["x"]`)) }, want: []string{"not Redfish"}},
		"an answer is a web page": {change: func(w *world) { w.bmc.before = raw(200, "<html>\x1b[31mlog in") }, want: []string{"not Redfish"}},
		"an error is a web page":  {change: func(w *world) { w.bmc.before = raw(502, "<html>\n\x1b[31mbad\ngateway") }, want: []string{"502 Bad Gateway: <html> [31mbad gateway"}},
		"the BMC sends us away": {change: func(w *world) {
			w.bmc.before = at("/redfish/v1", func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, "https://other.example.com/redfish/v1/", http.StatusFound)
				return true
			})
		}, want: []string{"points to another host"}},
		"the BMC sends us in a circle": {change: func(w *world) {
			w.bmc.before = at("/redfish/v1", func(w http.ResponseWriter, r *http.Request) bool {
				http.Redirect(w, r, r.URL.Path, http.StatusFound)
				return true
			})
		}, want: []string{"302 Found"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.systems == nil {
				tt.systems = cycler()
			}
			w := newWorld(t, tt.systems...)
			if tt.change != nil {
				tt.change(w)
			}
			got, err := w.Check(t.Context(), w.attempt)
			if err != nil || got == "" {
				t.Fatalf("got %q, %v, want a refusal", got, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q does not say %q", got, want)
				}
			}
			if strings.Contains(got, password) || utf8.RuneCountInString(got) > 512 || strings.ContainsAny(got, "\n\x1b") {
				t.Errorf("%q is no line for a status", got)
			}
			if resets, _, _ := w.bmc.counts(); len(resets) > 0 {
				t.Errorf("a Check posted %s", resets)
			}
			w.clean(t)
			// What Check refuses, Begin refuses, and posts nothing.
			begun, err := w.Begin(t.Context(), w.attempt)
			if resets, _, _ := w.bmc.counts(); err != nil || begun.State != "Refused" || len(resets) > 0 {
				t.Errorf("Begin: got %+v, %v and resets %s", begun, err, resets)
			}
		})
	}
}

func relabel(value string) func(*world) {
	return func(w *world) { w.attempt.Node.Labels[label] = value }
}

func annotated(w *world) {
	w.attempt.Rung.Redfish.AddressLabel, w.attempt.Rung.Redfish.AddressAnnotation = "", "example.com/bmc"
}

// TestCheckAllows: what stands in nobody's way.
func TestCheckAllows(t *testing.T) {
	busy := func(after string, times int32) func(w *world) {
		return func(w *world) {
			var asked atomic.Int32
			w.bmc.before = at("/redfish/v1/Systems", func(w http.ResponseWriter, _ *http.Request) bool {
				if asked.Add(1) > times {
					return false
				}
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			})
		}
	}
	tests := map[string]struct {
		systems []*system
		change  func(w *world)
	}{
		"a power cycle":              {systems: []*system{machine("On", "PowerCycle")}},
		"off and on":                 {systems: []*system{machine("On", "ForceOff", "ForceRestart")}},
		"off and on by force":        {systems: []*system{machine("ForceOn", "ForceOff")}},
		"what an ActionInfo says":    {systems: []*system{{id: "1", power: "On", takes: []string{"PowerCycle"}, info: true}}},
		"one of two systems":         {systems: []*system{{id: "HGX_Baseboard_0"}, machine("PowerCycle")}, change: func(w *world) { w.attempt.Rung.Redfish.SystemID = "1" }},
		"a machine that is off":      {systems: []*system{{id: "1", power: "Off", takes: []string{"On", "PowerCycle"}}}},
		"a UUID the other way round": {systems: []*system{{id: "1", uuid: "44454c4c-3500-1035-8052-B7C04F4B3033", power: "On", takes: []string{"PowerCycle"}}}},
		"a UUID of zeros":            {systems: []*system{{id: "1", uuid: "00000000-0000-0000-0000-000000000000", power: "On", takes: []string{"PowerCycle"}}}},
		"a kernel without a UUID":    {change: func(w *world) { w.attempt.Node.Status.NodeInfo.SystemUUID = "6b21" }},
		"a BMC without sessions":     {change: func(w *world) { w.bmc.basic = true }},
		"a BMC with no session left": {change: func(w *world) { w.bmc.before = at("/redfish/v1/SessionService/Sessions", raw(503, "")) }},
		"a BMC that was busy":        {change: busy("0", 2)},
		"the address in an annotation": {change: func(w *world) {
			annotated(w)
			w.attempt.Node.Annotations = map[string]string{"example.com/bmc": w.bmc.address()}
		}},
		"a redirect within the BMC": {change: func(w *world) {
			w.bmc.before = func(rw http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/redfish/v1/" {
					return false
				}
				http.Redirect(rw, r, w.bmc.URL+"/redfish/v1", http.StatusPermanentRedirect)
				return true
			}
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.systems == nil {
				tt.systems = []*system{machine("PowerCycle")}
			}
			w := newWorld(t, tt.systems...)
			if tt.change != nil {
				tt.change(w)
			}
			if got, err := w.Check(t.Context(), w.attempt); got != "" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			if resets, _, _ := w.bmc.counts(); len(resets) > 0 {
				t.Errorf("a Check posted %s", resets)
			}
			w.clean(t)
		})
	}
}

// TestBusyIsBounded: a BMC that is always busy is asked three times, not for ever.
func TestBusyIsBounded(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	var asked atomic.Int32
	w.bmc.before = at("/redfish/v1/Systems", func(w http.ResponseWriter, _ *http.Request) bool {
		asked.Add(1)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if got, err := w.Check(t.Context(), w.attempt); !strings.Contains(got, "503") || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if asked.Load() != maxTries {
		t.Errorf("asked %d times", asked.Load())
	}
}

// TestOurOwnTrouble is no refusal: nobody need mend it.
func TestOurOwnTrouble(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	w.api.err = errors.New("etcd has no leader")
	if got, err := w.Check(t.Context(), w.attempt); got != "" || err == nil || !strings.Contains(err.Error(), "etcd has no leader") {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestWrongPasswordIsNotTriedAgain: a BMC locks the account after a few.
func TestWrongPasswordIsNotTriedAgain(t *testing.T) {
	w := newWorld(t, machine("PowerCycle"))
	w.secret.Data["password"] = []byte("battery staple")
	tries := func(want int, when string) {
		t.Helper()
		for range 5 {
			if got, err := w.Check(t.Context(), w.attempt); err != nil || !strings.Contains(got, "mend username and password in Secret roundhouse-system/bmc") {
				t.Errorf("%s: got %q, %v", when, got, err)
			}
		}
		if _, logins, _ := w.bmc.counts(); logins != want {
			t.Errorf("%s: the BMC saw %d tries, want %d", when, logins, want)
		}
	}
	tries(1, "at first")
	w.clock = w.clock.Add(9 * time.Minute)
	tries(1, "after nine minutes")
	w.clock = w.clock.Add(2 * time.Minute)
	tries(2, "after eleven minutes")
	w.secret.ResourceVersion = "2"
	tries(3, "with another Secret")
	w.secret.ResourceVersion, w.secret.Data["password"] = "3", []byte(password)
	if got, err := w.Check(t.Context(), w.attempt); got != "" || err != nil {
		t.Errorf("with the right one: got %q, %v", got, err)
	}
}

// TestCredentialsGoNowhereElse: whatever a BMC links to, another host hears nothing.
func TestCredentialsGoNowhereElse(t *testing.T) {
	var heard atomic.Int32
	thief := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { heard.Add(1) }))
	t.Cleanup(thief.Close)
	host := thief.Listener.Addr().String()
	root := func(systems, sessions string) func(http.ResponseWriter, *http.Request) bool {
		return at("/redfish/v1", func(w http.ResponseWriter, _ *http.Request) bool {
			answer(w, 200, object{"Systems": object{"@odata.id": systems}, "Links": object{"Sessions": object{"@odata.id": sessions}}})
			return true
		})
	}
	sessions := "/redfish/v1/SessionService/Sessions"
	tests := map[string]func(http.ResponseWriter, *http.Request) bool{
		"a link that makes the address a user": root("@"+host+"/redfish/v1/Systems", sessions),
		"a session link that does":             root("/redfish/v1/Systems", "@"+host+"/x"),
		"a link that makes the port longer":    root("0/redfish/v1/Systems", sessions),
		"an absolute link":                     root("https://"+host+"/redfish/v1/Systems", sessions),
		"a redirect of the log-in":             at(sessions, redirect("https://"+host+"/")),
		"a redirect after the log-in":          at("/redfish/v1/Systems", redirect("https://"+host+"/")),
		"a redirect to the same host without TLS": at("/redfish/v1/Systems", func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://"+r.Host+"/redfish/v1/Systems/1", http.StatusFound)
			return true
		}),
	}
	for name, before := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, machine("PowerCycle"))
			w.bmc.before = before
			// The thief's certificate is of an authority that is trusted: only the address stops it.
			got, err := w.Check(t.Context(), w.attempt)
			if got == "" || err != nil || strings.Contains(name, "TLS") && !strings.Contains(got, errElsewhere.Error()) {
				t.Errorf("got %q, %v", got, err)
			}
			if heard.Load() > 0 {
				t.Error("the other host was asked")
			}
		})
	}
}

func redirect(to string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		return true
	}
}
