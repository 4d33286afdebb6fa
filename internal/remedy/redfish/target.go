package redfish

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/roundhouse-dev/roundhouse/internal/remedy"
)

const (
	// caKey is the key of the Secret that has the authority of the BMC's certificate.
	caKey = "ca.crt"
	// maxAddress bounds the value of a label or annotation that is read as an address.
	maxAddress = 300
)

// refusal is an error that a person must mend, in words for that person.
type refusal struct {
	text string
	// denied says that the BMC did not take user and password.
	denied bool
}

func (r refusal) Error() string { return r.text }

func refuse(format string, args ...any) error {
	return refusal{text: clip(fmt.Sprintf(format, args...), maxMessage)}
}

// target is the BMC of one node, and what it takes to talk to it.
type target struct {
	// host is what the URL has: a name or an IP address, with a port unless it is 443.
	host string
	// from says where the address is from, for texts: "label x of node y".
	from string
	// secret names the Secret, for texts: "Secret ns/name".
	secret string
	// version changes whenever the Secret does.
	version            string
	username, password string
	// roots are the authorities of the BMC's certificate; nil for the system's.
	roots *x509.CertPool
}

// target reads the Node and the Secret. Its errors are refusals, but for those of the API server.
func (r *Remedy) target(ctx context.Context, a remedy.Attempt) (target, error) {
	where := a.Rung.Redfish
	if where == nil {
		return target{}, refuse("rung %s of the policy has no redfish: it must say where the node's BMC is", a.Rung.Name)
	}
	kind, key, values := "label", where.AddressLabel, a.Node.Labels
	if key == "" {
		kind, key, values = "annotation", where.AddressAnnotation, a.Node.Annotations
	}
	t := target{from: fmt.Sprintf("%s %s of node %s", kind, key, a.Node.Name)}
	value, ok := values[key]
	if !ok {
		return target{}, refuse("%s is not there: it must have the address of the BMC", t.from)
	}
	host, err := parseAddress(value)
	if err != nil {
		return target{}, refuse("%s: %s", t.from, err)
	}
	t.host = host
	return t, r.credentials(ctx, where.SecretRef.Name, &t)
}

// credentials reads the Secret into t.
func (r *Remedy) credentials(ctx context.Context, name string, t *target) error {
	t.secret = fmt.Sprintf("Secret %s/%s", r.namespace, name)
	var secret corev1.Secret
	err := r.secrets.Get(ctx, types.NamespacedName{Namespace: r.namespace, Name: name}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return refuse("%s is not there: it must have username and password of the BMC", t.secret)
	case apierrors.IsForbidden(err):
		return refuse("the controller may not read %s: add %s to the chart's remedies.redfish.secrets", t.secret, name)
	case err != nil:
		return fmt.Errorf("reading %s: %w", t.secret, err)
	case secret.Type != corev1.SecretTypeBasicAuth:
		return refuse("%s is of type %s: it must be of type %s", t.secret, secret.Type, corev1.SecretTypeBasicAuth)
	}
	t.version = string(secret.UID) + "/" + secret.ResourceVersion
	if t.username, err = word(secret.Data[corev1.BasicAuthUsernameKey]); err != nil {
		return refuse("key %s of %s %s", corev1.BasicAuthUsernameKey, t.secret, err)
	}
	if t.password, err = word(secret.Data[corev1.BasicAuthPasswordKey]); err != nil {
		return refuse("key %s of %s %s", corev1.BasicAuthPasswordKey, t.secret, err)
	}
	if pem, ok := secret.Data[caKey]; ok {
		t.roots = x509.NewCertPool()
		if !t.roots.AppendCertsFromPEM(pem) {
			return refuse("key %s of %s has no certificate in PEM: put one there, or take the key away", caKey, t.secret)
		}
	}
	return nil
}

// word is a user name or a password. A line break in one is what an editor or echo left there; the BMC would count it as a
// wrong password, and lock the account after a few.
func word(value []byte) (string, error) {
	switch {
	case len(value) == 0:
		return "", errors.New("is empty")
	case strings.ContainsAny(string(value), "\r\n\x00"):
		return "", errors.New("has a line break: make it without (printf, not echo)")
	}
	return string(value), nil
}

// parseAddress reads a host name or IP address with an optional port, and gives it as the host of a URL. Nothing else may
// come through: whoever may label a Node must not choose more of the URL than that.
func parseAddress(value string) (string, error) {
	const form = "must be a host name or an IP address, with a port if need be, as bmc-17.example.com, 10.0.0.7:8443 or [fd00::7]:8443"
	wrong := fmt.Errorf("%q %s", clip(value, 80), form)
	if value == "" || len(value) > maxAddress {
		return "", wrong
	}
	if inner, ok := strings.CutPrefix(value, "["); ok && strings.HasSuffix(inner, "]") {
		host, ok := hostOf(strings.TrimSuffix(inner, "]"))
		if !ok || !strings.HasPrefix(host, "[") {
			return "", wrong
		}
		return host, nil
	}
	if host, ok := hostOf(value); ok {
		return host, nil
	}
	name, port, err := net.SplitHostPort(value)
	if err != nil {
		return "", wrong
	}
	host, ok := hostOf(name)
	number, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil || number == 0 {
		return "", wrong
	}
	if number == 443 {
		return host, nil
	}
	return host + ":" + strconv.FormatUint(number, 10), nil
}

// hostOf gives a host name or an IP address as a URL has it.
func hostOf(value string) (string, bool) {
	if ip, err := netip.ParseAddr(value); err == nil {
		ip = ip.Unmap()
		switch {
		case ip.Zone() != "":
			return "", false
		case ip.Is6():
			return "[" + ip.String() + "]", true
		}
		return ip.String(), true
	}
	name := strings.ToLower(value)
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return "", false
	}
	// A name that ends in a number is an IP address with a mistake in it.
	if _, err := strconv.ParseUint(name[strings.LastIndexByte(name, '.')+1:], 0, 64); err == nil {
		return "", false
	}
	return name, true
}
