package redfish

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

func TestParseAddress(t *testing.T) {
	tests := map[string]string{
		"10.0.0.7":             "10.0.0.7",
		"10.0.0.7:443":         "10.0.0.7",
		"10.0.0.7:8443":        "10.0.0.7:8443",
		"::ffff:10.0.0.7":      "10.0.0.7",
		"fd00::7":              "[fd00::7]",
		"[fd00::7]":            "[fd00::7]",
		"[fd00::7]:8443":       "[fd00::7]:8443",
		"BMC-17.Example.com":   "bmc-17.example.com",
		"bmc-17.example.com:1": "bmc-17.example.com:1",
		"bmc17":                "bmc17",

		"":                                "",
		"https://10.0.0.7":                "",
		"10.0.0.7/redfish":                "",
		"10.0.0.7?x":                      "",
		"10.0.0.7#x":                      "",
		"admin@10.0.0.7":                  "",
		"admin:secret@10.0.0.7":           "",
		"10.0.0.7:8443@evil.example.com":  "",
		"10.0.0.7:0":                      "",
		"10.0.0.7:65536":                  "",
		"10.0.0.7:https":                  "",
		"10.0.0.7:+80":                    "",
		"10.0.0.7:":                       "",
		":8443":                           "",
		"10.0.0":                          "",
		"10.0.0.300":                      "",
		"10.0.0.0x7":                      "",
		"2130706433":                      "",
		"[10.0.0.7]":                      "",
		"[bmc17]":                         "",
		"[fd00::7":                        "",
		"fe80::1%eth0":                    "",
		"[fe80::1%25eth0]:443":            "",
		"bmc_17":                          "",
		"bmc 17":                          "",
		" bmc17":                          "",
		"bmc17\n":                         "",
		"bmc17.":                          "",
		"-bmc17":                          "",
		"bmc%2e17":                        "",
		strings.Repeat("a.", 200) + "com": "",
	}
	for value, want := range tests {
		if got, err := parseAddress(value); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: got %q, %v, want %q", value, got, err, want)
		}
	}
}

// FuzzParseAddress: what comes through is a host and a port of a URL, and nothing more.
func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"10.0.0.7:8443", "[fd00::7]:8443", "bmc.example.com", "a:b@c", "https://x/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		host, err := parseAddress(value)
		if err != nil {
			return
		}
		u, err := url.Parse("https://" + host)
		if err != nil {
			t.Fatalf("%q gives %q, which is no host: %v", value, host, err)
		}
		if u.Host != host || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" {
			t.Errorf("%q gives %q, which is more than a host: %#v", value, host, u)
		}
		if again, err := parseAddress(host); err != nil || again != host {
			t.Errorf("%q gives %q, and that %q, %v", value, host, again, err)
		}
	})
}

// FuzzAnswer answers every request with anything: a Check says something about it, and does not panic.
func FuzzAnswer(f *testing.F) {
	w := (&system{power: "On", takes: []string{"PowerCycle"}}).resource("/redfish/v1/Systems/1")
	recorder := httptest.NewRecorder()
	answer(recorder, http.StatusOK, w)
	f.Add(200, recorder.Body.Bytes(), "")
	f.Add(200, []byte(`{"Systems": {"@odata.id": "/redfish/v1"}, "Members": [{"@odata.id": "/redfish/v1"}], "PowerState": "On", "Actions": {"#ComputerSystem.Reset": {"target": "/x", "@Redfish.ActionInfo": "/x"}}}`), "")
	f.Add(503, []byte(`{"error": {"code": "x", "@Message.ExtendedInfo": [{"Message": "no"}]}}`), "0")
	f.Add(401, []byte(`{"error": null}`), "-1")
	f.Fuzz(func(t *testing.T, code int, body []byte, retry string) {
		if code < 200 || code > 599 {
			return
		}
		bmc := newService(t, machine("PowerCycle"))
		bmc.before = func(w http.ResponseWriter, _ *http.Request) bool {
			if retry != "" && len(retry) < 2 {
				w.Header().Set("Retry-After", "0")
			}
			w.WriteHeader(code)
			_, _ = w.Write(body)
			return true
		}
		world := newWorldOn(bmc)
		got, err := world.Check(t.Context(), world.attempt)
		if err != nil || utf8.RuneCountInString(got) > 512 || strings.ContainsAny(got, "\n\r\x1b\x00") {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestOtherMachine(t *testing.T) {
	tests := map[string]struct {
		node, machineID, system string
		other                   bool
	}{
		"the same":                             {node: nodeUUID, system: strings.ToUpper(nodeUUID)},
		"the first three fields the other way": {node: nodeUUID, system: "44454c4c-3500-1035-8052-b7c04f4b3033"},
		"one of the fields the other way":      {node: nodeUUID, system: "44454c4c-0035-3510-8052-b7c04f4b3033", other: true},
		"another":                              {node: nodeUUID, system: "11111111-2222-3333-4444-555555555555", other: true},
		"the BMC does not tell":                {node: nodeUUID},
		"the BMC tells ones":                   {node: nodeUUID, system: "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"},
		"the node does not tell":               {system: nodeUUID},
		"the node tells its machine ID":        {node: "6b21aabbccddeeff00112233445566ff", machineID: "6b21aabbccddeeff00112233445566ff", system: nodeUUID},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := otherMachine(corev1.NodeSystemInfo{SystemUUID: tt.node, MachineID: tt.machineID}, tt.system)
			if (got != "") != tt.other {
				t.Errorf("got %q", got)
			}
		})
	}
}
