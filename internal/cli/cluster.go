package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

// requestTimeout bounds a request where --request-timeout does not; the longest is a page of a LIST.
const requestTimeout = 30 * time.Second

// pageSize is what a LIST asks for at a time: 30,000 nodes in one answer would be hundreds of megabytes.
const pageSize = 1000

// cluster is the API server, as the human may use it.
type cluster struct {
	client.Client
	config *rest.Config
}

// connect reads the kubeconfig. It asks the cluster nothing: the kinds it needs are known, so it needs no discovery.
func (a *app) connect() (*cluster, error) {
	config, err := a.flags.ToRESTConfig()
	if err != nil {
		if clientcmd.IsEmptyConfig(err) {
			return nil, errors.New("no cluster is configured: set KUBECONFIG, or give --kubeconfig or --server")
		}
		return nil, fmt.Errorf("reading the kubeconfig (--kubeconfig, --context): %w", err)
	}
	if config.Timeout == 0 {
		config.Timeout = requestTimeout
	}
	config.QPS = -1 // the server's own priority and fairness holds; a status is a handful of requests
	config.UserAgent = "kubectl-roundhouse/" + a.Version
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme, Mapper: newMapper()})
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return &cluster{Client: c, config: config}, nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, authenticationv1.AddToScheme, resourcev1.AddToScheme, v1alpha1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("building the scheme: %w", err)
		}
	}
	return scheme, nil
}

// newMapper names the resources that the commands use, which spares the discovery that kubectl's plugins often begin
// with.
func newMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{
		"RemediationPolicy", "Remediation", "RemediationHold", "NodeDisruptionBudget", "DeviceRecord",
	} {
		mapper.Add(v1alpha1.GroupVersion.WithKind(kind), meta.RESTScopeRoot)
	}
	health := v1alpha1.GroupVersion.WithResource("nodehealths")
	mapper.AddSpecific(v1alpha1.GroupVersion.WithKind("NodeHealth"), health, v1alpha1.GroupVersion.WithResource("nodehealth"), meta.RESTScopeRoot)
	for gvk, scope := range map[schema.GroupVersionKind]meta.RESTScope{
		corev1.SchemeGroupVersion.WithKind("Node"):                        meta.RESTScopeRoot,
		corev1.SchemeGroupVersion.WithKind("Namespace"):                   meta.RESTScopeRoot,
		corev1.SchemeGroupVersion.WithKind("Pod"):                         meta.RESTScopeNamespace,
		appsv1.SchemeGroupVersion.WithKind("DaemonSet"):                   meta.RESTScopeNamespace,
		appsv1.SchemeGroupVersion.WithKind("Deployment"):                  meta.RESTScopeNamespace,
		resourcev1.SchemeGroupVersion.WithKind("DeviceTaintRule"):         meta.RESTScopeRoot,
		resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"):           meta.RESTScopeRoot,
		resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"):           meta.RESTScopeNamespace,
		authenticationv1.SchemeGroupVersion.WithKind("SelfSubjectReview"): meta.RESTScopeRoot,
	} {
		mapper.Add(gvk, scope)
	}
	return mapper
}

// pages lists page by page, so that memory holds what fold keeps and one page. Each page is decoded into a fresh copy of
// the empty list it was given: decoding into a used one would leave its last token in place, and shares its arrays.
func pages[L client.ObjectList](ctx context.Context, c client.Reader, empty L, fold func(L), options ...client.ListOption) error {
	next := ""
	for range maxPages {
		list, ok := empty.DeepCopyObject().(L)
		if !ok {
			return fmt.Errorf("listing %T: its copy has another type", empty)
		}
		page := append([]client.ListOption{}, options...)
		page = append(page, client.Limit(pageSize), client.Continue(next))
		if err := c.List(ctx, list, page...); err != nil {
			return fmt.Errorf("listing: %w", err)
		}
		fold(list)
		if next = list.GetContinue(); next == "" {
			return nil
		}
	}
	return fmt.Errorf("listing: more than %d objects", maxPages*pageSize)
}

// maxPages is five million objects, more than any cluster has.
const maxPages = 5000

// whoami asks the server who the human is: the name goes into holds and approvals, where others look for it.
func (c *cluster) whoami(ctx context.Context) (string, error) {
	review := &authenticationv1.SelfSubjectReview{}
	if err := c.Create(ctx, review); err != nil {
		return "", fmt.Errorf("asking the server who you are (or give --by): %w", err)
	}
	return review.Status.UserInfo.Username, nil
}

// by is who asks, for the record; at most as long as the schema allows.
func (c *cluster) by(ctx context.Context, flag string) (string, error) {
	name := flag
	if name == "" {
		var err error
		if name, err = c.whoami(ctx); err != nil {
			return "", err
		}
	}
	if runes := []rune(name); len(runes) > maxBy {
		name = string(runes[:maxBy])
	}
	return name, nil
}

// maxBy is the bound of requestedBy and by in the schema.
const maxBy = 128

// explainError says what to do about an error of the API.
func explainError(err error) string {
	var dns *net.DNSError
	var connection *url.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted: " + err.Error()
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err) && isUnserved(err):
		return err.Error() + "\nRoundhouse's kinds are not served here: install it, or choose another cluster with --context"
	case apierrors.IsForbidden(err):
		return err.Error() + "\nask for ClusterRole roundhouse-viewer to look (and get, list on nodes), roundhouse-planner to plan, roundhouse-holder to hold, roundhouse-operator to release and approve"
	case apierrors.IsUnauthorized(err):
		return err.Error() + "\nthe credential is not accepted: log in again, or choose another with --user or --context"
	case errors.As(err, &dns), errors.As(err, &connection):
		return err.Error() + "\nthe API server was not reached: see --context, --kubeconfig and --server"
	}
	return err.Error()
}

// isUnserved tells "no such resource type" from "no such object": only the latter names what was asked for.
func isUnserved(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return false
	}
	details := status.Status().Details
	return details == nil || details.Name == "" || len(details.Causes) > 0 && details.Causes[0].Type == metav1.CauseTypeUnexpectedServerResponse
}
