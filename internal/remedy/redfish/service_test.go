package redfish

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

const (
	namespace = "roundhouse-system"
	label     = "node-restriction.kubernetes.io/bmc"
	password  = "correct horse"
	oldBoot   = "0fc70fad-6980-4f05-acf8-5f6c56122bb4"
	newBoot   = "5d1c9a44-1f1e-4c0b-9d65-9c1d8c0c7a11"
	nodeUUID  = "4c4c4544-0035-3510-8052-b7c04f4b3033"
)

var start = time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)

// quick has short waits where a test waits for the end of one; a busy machine may take its time for the others.
var quick = timing{
	request: 20 * time.Second, visit: time.Minute, leave: 10 * time.Second,
	settle: 30 * time.Second, off: time.Minute, patience: 20 * time.Minute,
	poll: 5 * time.Millisecond, follow: 100 * time.Millisecond,
	fresh: time.Minute, denied: 10 * time.Minute,
}

type object = map[string]any

// system is one machine of the BMC.
type system struct {
	id, uuid, power string
	takes           []string
	// info has takes in an ActionInfo instead of beside the action.
	info bool
	// stuck is a machine that does not come on again.
	stuck bool
	// noTarget leaves out where the reset is posted to.
	noTarget bool
}

// service is a BMC: a Redfish service over TLS, by the names of DSP0266 (protocol) and DSP0268 (schemas).
type service struct {
	*httptest.Server
	t *testing.T

	mu      sync.Mutex
	systems []*system
	// basic has no SessionService.
	basic bool
	// sessions are the open ones, by token; logins counts how often user and password were looked at.
	sessions map[string]bool
	logins   int
	// resets are the ResetTypes that were posted, answered or not.
	resets []string
	// before is asked first; what it answers is the answer.
	before func(w http.ResponseWriter, r *http.Request) bool
	// onReset answers a reset instead of the machine.
	onReset func(w http.ResponseWriter, s *system, kind string)
	task    object
}

func machine(takes ...string) *system {
	return &system{id: "1", uuid: nodeUUID, power: "On", takes: takes}
}

func newService(t *testing.T, systems ...*system) *service {
	s := &service{t: t, systems: systems, sessions: map[string]bool{}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // half of the tests end in a broken connection
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *service) address() string { return s.Listener.Addr().String() }

func (s *service) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.before != nil && s.before(w, r) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimSuffix(r.URL.Path, "/")
	switch {
	case path == "/redfish/v1":
		s.root(w)
	case path == "/redfish/v1/SessionService/Sessions" && !s.basic && r.Method == http.MethodPost:
		s.logIn(w, r)
	case !s.authenticated(r):
		fail(w, http.StatusUnauthorized, "Base.1.18.NoValidSession", "There is no valid session established with the implementation.", "Establish a session.")
	case strings.HasPrefix(path, "/redfish/v1/SessionService/Sessions/") && r.Method == http.MethodDelete:
		delete(s.sessions, r.Header.Get("X-Auth-Token"))
		w.WriteHeader(http.StatusNoContent)
	case path == "/redfish/v1/TaskService/Tasks/7" && s.task != nil:
		answer(w, http.StatusOK, s.task)
	case path == "/redfish/v1/Systems":
		s.collection(w)
	default:
		s.aSystem(w, r, path)
	}
}

func (s *service) root(w http.ResponseWriter) {
	root := object{
		"@odata.id": "/redfish/v1/", "@odata.type": "#ServiceRoot.v1_16_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
		"RedfishVersion": "1.18.0", "Systems": object{"@odata.id": "/redfish/v1/Systems"}, "Links": object{},
	}
	if !s.basic {
		root["SessionService"] = object{"@odata.id": "/redfish/v1/SessionService"}
		root["Links"] = object{"Sessions": object{"@odata.id": "/redfish/v1/SessionService/Sessions"}}
	}
	answer(w, http.StatusOK, root)
}

func (s *service) logIn(w http.ResponseWriter, r *http.Request) {
	var asked struct{ UserName, Password string }
	s.logins++
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.UserName != "roundhouse" || asked.Password != password {
		fail(w, http.StatusUnauthorized, "Base.1.18.ResourceAtUriUnauthorized", "While accessing the resource, the service received an authorization error.", "")
		return
	}
	token := fmt.Sprintf("token-%d", s.logins)
	s.sessions[token] = true
	w.Header().Set("X-Auth-Token", token)
	w.Header().Set("Location", s.URL+"/redfish/v1/SessionService/Sessions/"+token)
	answer(w, http.StatusCreated, object{"@odata.type": "#Session.v1_7_0.Session", "Id": token, "UserName": asked.UserName})
}

func (s *service) authenticated(r *http.Request) bool {
	if user, pass, ok := r.BasicAuth(); ok {
		s.logins++
		return user == "roundhouse" && pass == password
	}
	return s.sessions[r.Header.Get("X-Auth-Token")]
}

func (s *service) collection(w http.ResponseWriter) {
	members := []object{}
	for _, system := range s.systems {
		members = append(members, object{"@odata.id": "/redfish/v1/Systems/" + system.id})
	}
	answer(w, http.StatusOK, object{"@odata.id": "/redfish/v1/Systems", "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
		"Name": "Computer System Collection", "Members": members, "Members@odata.count": len(members)})
}

func (s *service) aSystem(w http.ResponseWriter, r *http.Request, path string) {
	for _, system := range s.systems {
		self := "/redfish/v1/Systems/" + system.id
		switch {
		case path == self && r.Method == http.MethodGet:
			w.Header().Set("ETag", `"1"`)
			answer(w, http.StatusOK, system.resource(self))
			return
		case path == self+"/ResetActionInfo":
			answer(w, http.StatusOK, object{"@odata.type": "#ActionInfo.v1_4_2.ActionInfo", "Id": "ResetActionInfo", "Name": "Reset Action Info",
				"Parameters": []object{{"Name": "ResetType", "Required": true, "DataType": "String", "AllowableValues": system.takes}}})
			return
		case path == self+"/Actions/ComputerSystem.Reset" && r.Method == http.MethodPost:
			s.reset(w, r, system)
			return
		}
	}
	fail(w, http.StatusNotFound, "Base.1.18.ResourceMissingAtURI", "The resource at the URI "+path+" was not found.", "")
}

func (m *system) resource(self string) object {
	action := object{"target": self + "/Actions/ComputerSystem.Reset"}
	if m.noTarget {
		delete(action, "target")
	}
	switch {
	case m.info:
		action["@Redfish.ActionInfo"] = self + "/ResetActionInfo"
	case m.takes != nil:
		action["ResetType@Redfish.AllowableValues"] = m.takes
	}
	resource := object{
		"@odata.id": self, "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem", "Id": m.id, "Name": "System", "SystemType": "Physical",
		"Manufacturer": "Contoso", "UUID": m.uuid, "Status": object{"State": "Enabled", "Health": "OK"},
		"Actions": object{"#ComputerSystem.Reset": action},
	}
	if m.power != "" {
		resource["PowerState"] = m.power
	}
	return resource
}

func (s *service) reset(w http.ResponseWriter, r *http.Request, m *system) {
	var asked struct{ ResetType string }
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		fail(w, http.StatusBadRequest, "Base.1.18.MalformedJSON", "The request body was malformed JSON.", "")
		return
	}
	s.resets = append(s.resets, asked.ResetType)
	switch {
	case r.Header.Get("If-Match") != "":
		fail(w, http.StatusPreconditionFailed, "Base.1.18.PreconditionFailed", "The ETag supplied did not match.", "")
	case s.onReset != nil:
		s.onReset(w, m, asked.ResetType)
	case !slices.Contains(m.takes, asked.ResetType):
		fail(w, http.StatusBadRequest, "Base.1.18.ActionParameterValueNotInList", "The value is not in the list of acceptable values.", "")
	default:
		m.do(asked.ResetType)
		w.WriteHeader(http.StatusNoContent)
	}
}

// do is what the machine does.
func (m *system) do(kind string) {
	switch {
	case kind == "ForceOff", m.stuck:
		m.power = "Off"
	case kind == "PowerCycle", kind == "On" && m.power == "Off":
		m.power = "On"
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, code int, id, message, resolution string) {
	answer(w, code, object{"error": object{"code": id, "message": "A general error has occurred. See ExtendedInfo for more information.",
		"@Message.ExtendedInfo": []object{{"@odata.type": "#Message.v1_2_1.Message", "MessageId": id, "Message": message, "Resolution": resolution}}}})
}

// counts reads what the BMC counted.
func (s *service) counts() (resets []string, logins, open int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.resets), s.logins, len(s.sessions)
}

// secrets is the API server: Secrets, and what it answers instead.
type secrets struct {
	err     error
	secrets []*corev1.Secret
}

func (s *secrets) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	if s.err != nil {
		return s.err
	}
	for _, secret := range s.secrets {
		if secret.Namespace == key.Namespace && secret.Name == key.Name {
			secret.DeepCopyInto(into.(*corev1.Secret))
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
}

func (s *secrets) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("secrets are not listed")
}

// world is one node with its BMC.
type world struct {
	*Remedy
	bmc     *service
	api     *secrets
	secret  *corev1.Secret
	attempt remedy.Attempt
	clock   time.Time
}

func newWorld(t *testing.T, systems ...*system) *world { return newWorldOn(newService(t, systems...)) }

func newWorldOn(bmc *service) *world {
	w := &world{bmc: bmc, clock: start}
	w.secret = &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bmc", UID: "5f1c", ResourceVersion: "1"},
		Type:       corev1.SecretTypeBasicAuth,
		Data:       map[string][]byte{"username": []byte("roundhouse"), "password": []byte(password), "ca.crt": w.bmc.ca()},
	}
	w.api = &secrets{secrets: []*corev1.Secret{w.secret}}
	w.attempt = remedy.Attempt{
		ID:          "gpu-0417-k3q7x2m9aa-1",
		Remediation: &v1alpha1.Remediation{Status: v1alpha1.RemediationStatus{Step: &v1alpha1.Step{BootID: oldBoot}}},
		Node: &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "gpu-0417", Labels: map[string]string{label: w.bmc.address()}},
			Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: oldBoot, SystemUUID: nodeUUID, MachineID: "6b21"}}},
		Rung: v1alpha1.Rung{Name: "power-cycle", Action: v1alpha1.RungPowerCycle,
			Redfish: &v1alpha1.Redfish{AddressLabel: label, SecretRef: v1alpha1.LocalReference{Name: "bmc"}}},
	}
	w.restart()
	return w
}

// restart is another process of the controller, which remembers nothing.
func (w *world) restart() {
	w.Remedy = New(w.api, namespace)
	w.timing, w.now = quick, func() time.Time { return w.clock }
}

// record is what the controller writes down.
func (w *world) record(p remedy.Progress) {
	step := w.attempt.Remediation.Status.Step
	if step.Remedy == nil {
		step.Remedy = &v1alpha1.RemedyStatus{Begun: metav1.NewTime(w.clock)}
	}
	step.Remedy.State, step.Remedy.Message = p.State, p.Message
}

// clean fails the test when a session stayed open.
func (w *world) clean(t *testing.T) {
	t.Helper()
	if _, _, open := w.bmc.counts(); open > 0 {
		t.Errorf("%d sessions stay open", open)
	}
}

// raw answers with the text, whatever was asked.
func raw(code int, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(text))
		return true
	}
}

// at has before answer one path only.
func at(path string, then func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		return strings.TrimSuffix(r.URL.Path, "/") == path && then(w, r)
	}
}

var big = string(bytes.Repeat([]byte(" "), maxAnswer)) + "{}"
