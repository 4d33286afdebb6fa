package controlplane

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// AdminConfig returns a client configuration of group system:masters, without a
// client-side rate limit. RBAC and priority and fairness do not apply to it: use
// [ControlPlane.UserConfig] or [ControlPlane.ServiceAccountConfig] for anything whose
// permissions matter.
func (cp *ControlPlane) AdminConfig() *rest.Config { return rest.CopyConfig(cp.admin) }

// UserConfig returns a client configuration of a user with groups, authenticated by
// a client certificate. A kubelet is user "system:node:NAME" in group "system:nodes".
func (cp *ControlPlane) UserConfig(user string, groups ...string) (*rest.Config, error) {
	pair, err := cp.keys.api.issue(user, groups, time.Now(), x509.ExtKeyUsageClientAuth)
	if err != nil {
		return nil, err
	}
	config := cp.anonymous()
	config.CertData, config.KeyData = pair.cert, pair.key
	return config, nil
}

// anonymous is a configuration with the server's address and CA and no credential.
func (cp *ControlPlane) anonymous() *rest.Config {
	return &rest.Config{
		Host:            loopback(cp.ports.api),
		TLSClientConfig: rest.TLSClientConfig{CAData: cp.keys.api.certPEM},
		QPS:             -1, // no limit on this side; the server has its own
	}
}

// Binding is what a service-account token is bound to: it dies with that object,
// and names it in its claims. The zero value binds to nothing.
type Binding struct{ pod, node string }

// ToPod binds a token to a pod of the service account's namespace. Once the pod has
// been bound to a node, the token also names the node
// (authentication.kubernetes.io/node-name), as the tokens that a kubelet mounts do.
func ToPod(name string) Binding { return Binding{pod: name} }

// ToNode binds a token to a node, which it names as well, without a pod between.
func ToNode(name string) Binding { return Binding{node: name} }

// ServiceAccountConfig returns a client configuration with a real token of a service
// account that exists, asked for through the TokenRequest API and valid as long as
// [Options].TokenMaxExpiration.
func (cp *ControlPlane) ServiceAccountConfig(ctx context.Context, namespace, name string, bound Binding) (*rest.Config, error) {
	seconds := int64(cp.options.TokenMaxExpiration / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}
	reference, err := bound.reference(ctx, cp.client, namespace)
	if err != nil {
		return nil, err
	}
	request.Spec.BoundObjectRef = reference
	answer, err := cp.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("asking for a token of service account %s/%s: %w", namespace, name, err)
	}
	config := cp.anonymous()
	config.BearerToken = answer.Status.Token
	return config, nil
}

// reference reads the UID of the object that the token is to be bound to.
func (b Binding) reference(ctx context.Context, client kubernetes.Interface, namespace string) (*authenticationv1.BoundObjectReference, error) {
	switch {
	case b.pod != "":
		pod, err := client.CoreV1().Pods(namespace).Get(ctx, b.pod, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("reading the pod that the token is bound to: %w", err)
		}
		return &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}, nil
	case b.node != "":
		node, err := client.CoreV1().Nodes().Get(ctx, b.node, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("reading the node that the token is bound to: %w", err)
		}
		return &authenticationv1.BoundObjectReference{Kind: "Node", APIVersion: "v1", Name: node.Name, UID: node.UID}, nil
	default:
		return nil, nil
	}
}

// WriteKubeconfig writes an administrator's kubeconfig, readable by its owner only.
func (cp *ControlPlane) WriteKubeconfig(path string) error { return WriteKubeconfig(cp.admin, path) }

// WriteKubeconfig writes a client configuration as a kubeconfig with everything in it, readable by its owner only.
func WriteKubeconfig(config *rest.Config, path string) error {
	const name = "roundhouse-sandbox"
	out := clientcmdapi.NewConfig()
	out.Clusters[name] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	out.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData,
		ClientKeyData:         config.KeyData,
		Token:                 config.BearerToken,
	}
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	data, err := clientcmd.Write(*out)
	if err != nil {
		return fmt.Errorf("encoding a kubeconfig: %w", err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return nil
}
