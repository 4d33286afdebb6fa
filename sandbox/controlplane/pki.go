package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// validity is how long a certificate lasts. A sandbox is meant for hours; a laptop
// that slept over a weekend should still find its own working.
const validity = 7 * 24 * time.Hour

// authority is a certificate authority that lives in memory; only its certificate,
// never its key, is written to disk.
type authority struct {
	cert    *x509.Certificate
	certPEM []byte
	key     *ecdsa.PrivateKey
}

// keyPair is a certificate and its key, PEM encoded.
type keyPair struct{ cert, key []byte }

// newAuthority makes a self-signed CA. notBefore lies an hour back so that a clock
// which is stepped during the start breaks nothing.
func newAuthority(name string, now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of CA %s: %w", name, err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(validity),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing CA %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parsing CA %s: %w", name, err)
	}
	return &authority{cert: cert, certPEM: encodePEM("CERTIFICATE", der), key: key}, nil
}

// issue signs a certificate for a user or a server. Kubernetes reads the user's name
// from the common name and the groups from the organisations. Servers listen on
// loopback only, so that is all their certificates speak for.
func (a *authority) issue(user string, groups []string, now time.Time, usage ...x509.ExtKeyUsage) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, fmt.Errorf("making the key of %s: %w", user, err)
	}
	serial, err := newSerial()
	if err != nil {
		return keyPair{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: user, Organization: groups},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  usage,
		DNSNames:     []string{"localhost", "kubernetes", "kubernetes.default.svc"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return keyPair{}, fmt.Errorf("signing the certificate of %s: %w", user, err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return keyPair{}, err
	}
	return keyPair{cert: encodePEM("CERTIFICATE", der), key: keyPEM}, nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a private key: %w", err)
	}
	return encodePEM("EC PRIVATE KEY", der), nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	return serial, nil
}

// pki is every key of one control plane. Two authorities keep etcd apart: whoever
// may speak to the API server may not for that reason read etcd.
type pki struct {
	dir        string
	api, store *authority
}

// newPKI makes the authorities and writes what the components read from files.
func newPKI(dir string, now time.Time) (*pki, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the key directory: %w", err)
	}
	p := &pki{dir: dir}
	var err error
	if p.api, err = newAuthority("roundhouse-sandbox", now); err != nil {
		return nil, err
	}
	if p.store, err = newAuthority("roundhouse-sandbox-etcd", now); err != nil {
		return nil, err
	}
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the service-account key: %w", err)
	}
	signingPEM, err := encodeKey(signing)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"ca.crt": p.api.certPEM, "etcd-ca.crt": p.store.certPEM, "service-account.key": signingPEM}
	if err := p.addPairs(files, now); err != nil {
		return nil, err
	}
	for name, data := range files {
		if err := os.WriteFile(p.file(name), data, 0o600); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	return p, nil
}

// addPairs issues the certificates that components read from files.
func (p *pki) addPairs(files map[string][]byte, now time.Time) error {
	pairs := []struct {
		name   string
		issuer *authority
		usage  []x509.ExtKeyUsage
	}{
		{"serving", p.api, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		// etcd shows its own serving certificate to its peers, itself included.
		{"etcd", p.store, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
		{"etcd-client", p.store, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	}
	for _, pair := range pairs {
		issued, err := pair.issuer.issue(pair.name, nil, now, pair.usage...)
		if err != nil {
			return err
		}
		files[pair.name+".crt"], files[pair.name+".key"] = issued.cert, issued.key
	}
	return nil
}

// file is the path of one key or certificate.
func (p *pki) file(name string) string { return filepath.Join(p.dir, name) }
