package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// API is the API server as far as one node's credential reaches. Every call has a deadline in its context.
type API interface {
	// Health reads the node's NodeHealth.
	Health(ctx context.Context) (*v1alpha1.NodeHealth, error)
	// PutStatus writes the status of exactly the object version it is given, and returns what is stored then.
	PutStatus(ctx context.Context, h *v1alpha1.NodeHealth) (*v1alpha1.NodeHealth, error)
	// Watch watches the node's NodeHealth, beginning with its present state.
	Watch(ctx context.Context) (watch.Interface, error)
	// Node reads the Node.
	Node(ctx context.Context) (*corev1.Node, error)
	// PatchCondition writes one condition of the Node of that UID.
	PatchCondition(ctx context.Context, uid string, c corev1.NodeCondition) error
	// Holds lists every RemediationHold.
	Holds(ctx context.Context) ([]v1alpha1.RemediationHold, error)
}

const (
	// watchTimeout is when the server ends a watch.
	watchTimeout = 10 * time.Minute
	// holdsPage and maxHoldPages bound one read of the holds. More than that is an error, not a shorter list: a hold that
	// was not read must not be overlooked.
	holdsPage    = 500
	maxHoldPages = 20
)

// Client is the API of one node over REST. It is a few words of memory: thousands may share one http.Client, or one
// transport below a client each that adds the node's own token.
type Client struct {
	name       string
	core, ours rest.Interface
}

var _ API = (*Client)(nil)

// codecs are the same for every client and never change; a scheme for each of thousands would be gigabytes.
var codecs = sync.OnceValues(func() (runtime.NegotiatedSerializer, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return serializer.NewCodecFactory(scheme).WithoutConversion(), nil
})

// NewClient returns the API of the node. A nil httpClient is made from the configuration, with its credential.
func NewClient(config *rest.Config, httpClient *http.Client, node string) (*Client, error) {
	config = rest.CopyConfig(config)
	// The agent makes few requests and decides itself when to try again; the server has its own limits.
	config.QPS = -1
	if config.UserAgent == "" {
		config.UserAgent = "roundhouse-agent"
	}
	if httpClient == nil {
		made, err := rest.HTTPClientFor(config)
		if err != nil {
			return nil, fmt.Errorf("making a client: %w", err)
		}
		httpClient = made
	}
	codecs, err := codecs()
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	config.NegotiatedSerializer = codecs
	config.ContentType = runtime.ContentTypeJSON
	core, err := restFor(config, httpClient, "/api", corev1.SchemeGroupVersion)
	if err != nil {
		return nil, err
	}
	ours, err := restFor(config, httpClient, "/apis", v1alpha1.GroupVersion)
	if err != nil {
		return nil, err
	}
	return &Client{name: node, core: core, ours: ours}, nil
}

func restFor(config *rest.Config, httpClient *http.Client, path string, gv schema.GroupVersion) (rest.Interface, error) {
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = path, &gv
	client, err := rest.RESTClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("making a client for %s: %w", gv, err)
	}
	return client, nil
}

// Health reads the node's NodeHealth.
func (c *Client) Health(ctx context.Context) (*v1alpha1.NodeHealth, error) {
	h := &v1alpha1.NodeHealth{}
	if err := c.ours.Get().Resource("nodehealths").Name(c.name).MaxRetries(0).Do(ctx).Into(h); err != nil {
		return nil, fmt.Errorf("reading NodeHealth %s: %w", c.name, err)
	}
	return h, nil
}

// PutStatus writes the status of exactly the object version it is given. The request is never sent twice: whoever wants
// to try again decides again.
func (c *Client) PutStatus(ctx context.Context, h *v1alpha1.NodeHealth) (*v1alpha1.NodeHealth, error) {
	h = &v1alpha1.NodeHealth{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "NodeHealth"},
		ObjectMeta: metav1.ObjectMeta{Name: c.name, UID: h.UID, ResourceVersion: h.ResourceVersion},
		Spec:       h.Spec, Status: h.Status,
	}
	if h.ResourceVersion == "" {
		return nil, fmt.Errorf("writing status of NodeHealth %s: no resourceVersion", c.name)
	}
	out := &v1alpha1.NodeHealth{}
	err := c.ours.Put().Resource("nodehealths").Name(c.name).SubResource("status").Body(h).MaxRetries(0).Do(ctx).Into(out)
	if err != nil {
		return nil, fmt.Errorf("writing status of NodeHealth %s: %w", c.name, err)
	}
	return out, nil
}

// Watch watches the node's NodeHealth. Without a resourceVersion the server begins with the present state, and with
// bookmarks it says from time to time that it is still there.
func (c *Client) Watch(ctx context.Context) (watch.Interface, error) {
	w, err := c.ours.Get().Resource("nodehealths").
		Param("watch", "true").
		Param("allowWatchBookmarks", "true").
		Param("fieldSelector", fields.OneTermEqualSelector("metadata.name", c.name).String()).
		Param("timeoutSeconds", strconv.Itoa(int(watchTimeout/time.Second))).
		MaxRetries(0).Watch(ctx)
	if err != nil {
		return nil, fmt.Errorf("watching NodeHealth %s: %w", c.name, err)
	}
	return w, nil
}

// Node reads the Node.
func (c *Client) Node(ctx context.Context) (*corev1.Node, error) {
	node := &corev1.Node{}
	if err := c.core.Get().Resource("nodes").Name(c.name).MaxRetries(0).Do(ctx).Into(node); err != nil {
		return nil, fmt.Errorf("reading Node %s: %w", c.name, err)
	}
	return node, nil
}

// PatchCondition writes one condition by strategic merge patch, which merges conditions by type. The UID makes the patch
// fail on a Node that was created anew.
func (c *Client) PatchCondition(ctx context.Context, uid string, condition corev1.NodeCondition) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": uid},
		"status":   map[string]any{"conditions": []corev1.NodeCondition{condition}},
	})
	if err != nil {
		return fmt.Errorf("writing condition of Node %s: %w", c.name, err)
	}
	err = c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(c.name).SubResource("status").
		Body(patch).MaxRetries(0).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("writing condition of Node %s: %w", c.name, err)
	}
	return nil
}

// Holds lists every hold, page by page.
func (c *Client) Holds(ctx context.Context) ([]v1alpha1.RemediationHold, error) {
	var out []v1alpha1.RemediationHold
	next := ""
	for range maxHoldPages {
		page := &v1alpha1.RemediationHoldList{}
		request := c.ours.Get().Resource("remediationholds").Param("limit", strconv.Itoa(holdsPage)).MaxRetries(0)
		if next != "" {
			request = request.Param("continue", next)
		}
		if err := request.Do(ctx).Into(page); err != nil {
			return nil, fmt.Errorf("reading holds: %w", err)
		}
		out = append(out, page.Items...)
		if next = page.Continue; next == "" {
			return out, nil
		}
	}
	return nil, fmt.Errorf("reading holds: more than %d", holdsPage*maxHoldPages)
}

// Config returns the client configuration of an agent: the one of its pod, or that of a server outside, by CA and token
// file.
func Config(server, caFile, tokenFile string) (*rest.Config, error) {
	if server == "" {
		config, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("finding the API server: %w", err)
		}
		return config, nil
	}
	if _, err := url.Parse(server); err != nil {
		return nil, fmt.Errorf("finding the API server: %w", err)
	}
	return &rest.Config{
		Host: server, BearerTokenFile: tokenFile,
		TLSClientConfig: rest.TLSClientConfig{CAFile: caFile},
	}, nil
}
