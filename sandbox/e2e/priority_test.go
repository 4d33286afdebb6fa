package e2e

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/roundhouse-dev/roundhouse/config"
	"github.com/roundhouse-dev/roundhouse/sandbox/controlplane"
)

// flowSchemaOf is the response header that names the FlowSchema a request was put under (kubernetes.io, API Priority and
// Fairness).
const flowSchemaOf = "X-Kubernetes-Pf-Flowschema-Uid"

func TestTheLeadersLeaseGoesBeforeOtherRequests(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac", "admission")
	schema, err := s.core.FlowcontrolV1().FlowSchemas().Get(t.Context(), "roundhouse-leader-election", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const leases = "/apis/coordination.k8s.io/v1/namespaces/"
	for name, test := range map[string]struct {
		account, path string
		first         bool
	}{
		"the controller's own Lease":    {config.ControllerServiceAccount, leases + config.Namespace + "/leases/" + config.LeaderLease, true},
		"another's Lease":               {config.ControllerServiceAccount, leases + "medik8s-leases/leases/node-a", false},
		"everything else of its":        {config.ControllerServiceAccount, "/api/v1/nodes", false},
		"the Lease, asked for by agent": {config.AgentServiceAccount, leases + config.Namespace + "/leases/" + config.LeaderLease, false},
	} {
		t.Run(name, func(t *testing.T) {
			as, err := s.ServiceAccountConfig(t.Context(), config.Namespace, test.account, controlplane.Binding{})
			if err != nil {
				t.Fatal(err)
			}
			client, err := rest.HTTPClientFor(as)
			if err != nil {
				t.Fatal(err)
			}
			// The API server takes a new FlowSchema up after a moment.
			eventually(t, name, func() error {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, as.Host+test.path, http.NoBody)
				if err != nil {
					return err
				}
				response, err := client.Do(request)
				if err != nil {
					return err
				}
				defer func() { _ = response.Body.Close() }()
				if _, err := io.Copy(io.Discard, response.Body); err != nil {
					return err
				}
				uid := response.Header.Get(flowSchemaOf)
				if uid == "" || (uid == string(schema.UID)) != test.first {
					return fmt.Errorf("%s: FlowSchema %q; roundhouse-leader-election is %s", response.Status, uid, schema.UID)
				}
				return nil
			})
		})
	}
}
