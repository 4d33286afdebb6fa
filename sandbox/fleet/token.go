package fleet

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/roundhouse-dev/roundhouse/config"
)

// tokenLife is what a kubelet asks for when it mounts a service account's token (kubelet, projected volumes).
const tokenLife = time.Hour

// boundTo is the object that a token lives and dies with, and that it names.
type boundTo struct {
	kind, name string
	uid        types.UID
}

// credential adds one agent's own token to its requests. The token is asked for when the first request goes out, because
// 30,000 at once would be half a minute of the API server's time for agents that have nothing to say yet, and anew when
// four fifths of its life are over, as kubelets do.
//
// A token is bound to the agent's pod where there is one. Where agents are no pods it is bound to the Node itself
// (ServiceAccountTokenNodeBinding), and names the node in the same claims. Either way the admission policy holds it to
// its own node: nothing here could write for another.
type credential struct {
	kube  kubernetes.Interface
	base  http.RoundTripper
	bound boundTo

	mu    sync.Mutex
	token string
	renew time.Time
}

var _ http.RoundTripper = (*credential)(nil)

// RoundTrip sends a request as the agent.
func (c *credential) RoundTrip(request *http.Request) (*http.Response, error) {
	token, err := c.current(request.Context())
	if err != nil {
		return nil, err
	}
	// A RoundTripper must not change the request it is given.
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+token)
	return c.base.RoundTrip(request)
}

func (c *credential) current(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.renew) {
		return c.token, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	seconds := int64(tokenLife / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: c.bound.kind, Name: c.bound.name, UID: c.bound.uid,
		},
	}}
	answer, err := c.kube.CoreV1().ServiceAccounts(config.Namespace).
		CreateToken(ctx, config.AgentServiceAccount, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for the token of the agent that is bound to %s %s: %w", c.bound.kind, c.bound.name, err)
	}
	c.token, c.renew = answer.Status.Token, now.Add(tokenLife*4/5)
	return c.token, nil
}
