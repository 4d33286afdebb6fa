package redfish

import (
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

// TestRealService asks a Redfish service that somebody else made: ROUNDHOUSE_REDFISH_ADDRESS, _USERNAME, _PASSWORD, _CA (a
// file) and _SYSTEM say which. It changes nothing, unless ROUNDHOUSE_REDFISH_RESET is "yes": then it takes the power away.
func TestRealService(t *testing.T) {
	get := func(name string) string { return os.Getenv("ROUNDHOUSE_REDFISH_" + name) }
	if get("ADDRESS") == "" {
		t.Skip("ROUNDHOUSE_REDFISH_ADDRESS names no Redfish service to ask")
	}
	ca, err := os.ReadFile(get("CA"))
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bmc"}, Type: corev1.SecretTypeBasicAuth,
		Data: map[string][]byte{"username": []byte(get("USERNAME")), "password": []byte(get("PASSWORD")), "ca.crt": ca}}
	r := New(&secrets{secrets: []*corev1.Secret{secret}}, namespace)
	a := remedy.Attempt{
		ID:          "real",
		Remediation: &v1alpha1.Remediation{Status: v1alpha1.RemediationStatus{Step: &v1alpha1.Step{}}},
		Node:        &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "real", Annotations: map[string]string{"bmc": get("ADDRESS")}}},
		Rung: v1alpha1.Rung{Name: "power-cycle", Redfish: &v1alpha1.Redfish{AddressAnnotation: "bmc", SystemID: get("SYSTEM"),
			SecretRef: v1alpha1.LocalReference{Name: "bmc"}}},
	}
	why, err := r.Check(t.Context(), a)
	t.Logf("Check: %q, %v", why, err)
	if why != "" || err != nil {
		t.Fail()
	}
	if get("RESET") != "yes" {
		return
	}
	status := &v1alpha1.RemedyStatus{State: v1alpha1.RemedyBegun, Begun: metav1.Now()}
	a.Remediation.Status.Step.Remedy = status
	p, err := r.Begin(t.Context(), a)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Second) {
		t.Logf("%s: %s, %v", p.State, p.Message, err)
		if p.State.Over() || err != nil || time.Now().After(end) {
			break
		}
		status.State, status.Message = p.State, p.Message
		p, err = r.Look(t.Context(), a)
	}
	if p.State != v1alpha1.RemedySucceeded || err != nil {
		t.Errorf("ended %+v, %v", p, err)
	}
}
