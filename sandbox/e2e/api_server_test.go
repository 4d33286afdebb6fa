package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// apiServer is a real API server with some of Roundhouse's manifests applied, and an administrator's client.
type apiServer struct {
	*controlplane.ControlPlane
	core kubernetes.Interface
}

// startAPIServer starts one for one test, without scheduler and controller manager, and applies directories of config/.
func startAPIServer(t *testing.T, directories ...string) *apiServer {
	t.Helper()
	cp := controlplane.ForTest(t, controlplane.Options{})
	if err := cp.Apply(t.Context(), config.Files, directories...); err != nil {
		t.Fatalf("applying config/: %v", err)
	}
	return &apiServer{ControlPlane: cp, core: coreClient(t, cp.AdminConfig())}
}

// coreClient makes a client of one configuration.
func coreClient(t *testing.T, restConfig *rest.Config) kubernetes.Interface {
	t.Helper()
	restConfig.WarningHandler = rest.NoWarnings{} // of unknown fields, which some tests send on purpose
	core, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		t.Fatal(err)
	}
	return core
}

// call is one request to the API server, as a table shows it.
type call struct {
	method string
	path   string // may have a query
	body   string // JSON; what it patches with, for PATCH
}

// Paths of the objects under test.
const (
	nodes        = "/api/v1/nodes/"
	nodeHealths  = "/apis/roundhouse.dev/v1alpha1/nodehealths/"
	policies     = "/apis/roundhouse.dev/v1alpha1/remediationpolicies/"
	remediations = "/apis/roundhouse.dev/v1alpha1/remediations/"
	holds        = "/apis/roundhouse.dev/v1alpha1/remediationholds/"
	budgets      = "/apis/roundhouse.dev/v1alpha1/nodedisruptionbudgets/"
	records      = "/apis/roundhouse.dev/v1alpha1/devicerecords/"
	taintRules   = "/apis/resource.k8s.io/v1/devicetaintrules/"
)

// dryRun returns the call with the server told to store nothing; admission runs all the same.
func (c call) dryRun() call {
	separator := "?"
	if strings.Contains(c.path, "?") {
		separator = "&"
	}
	c.path += separator + "dryRun=All"
	return c
}

// contentType is how the API server reads the body: Nodes are patched as the agent and the controller do it, by
// strategic merge; custom resources know only JSON merge.
func (c call) contentType() string {
	switch {
	case c.method != http.MethodPatch:
		return "application/json"
	case strings.HasPrefix(c.path, "/api/"):
		return "application/strategic-merge-patch+json"
	default:
		return "application/merge-patch+json"
	}
}

// do makes the call and returns the body of the answer.
func (c call) do(ctx context.Context, client kubernetes.Interface) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	// The paths of collections below end in a slash for the names that follow; a POST has none.
	path := strings.TrimSuffix(strings.Replace(c.path, "/?", "?", 1), "/")
	request := client.Discovery().RESTClient().Verb(c.method).RequestURI(path).SetHeader("Content-Type", c.contentType())
	if c.body != "" {
		request = request.Body([]byte(c.body))
	}
	result := request.Do(ctx)
	if err := result.Error(); err != nil {
		return nil, err
	}
	return result.Raw()
}

// must makes a call that the test cannot do without.
func (c call) must(t *testing.T, client kubernetes.Interface) []byte {
	t.Helper()
	answer, err := c.do(t.Context(), client)
	if err != nil {
		t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	return answer
}

// eventually repeats a check until it passes or ten seconds are over. Policies and their parameters reach the
// admission plugin through informers, a new policy after up to a second.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// wantRefusal says how an error differs from a refusal that holds the text.
func wantRefusal(err error, text string) error {
	if err == nil {
		return errors.New("the request was accepted")
	}
	if message := err.Error(); !strings.Contains(message, text) {
		return fmt.Errorf("refused with %q, which does not say %q", message, text)
	}
	return nil
}
