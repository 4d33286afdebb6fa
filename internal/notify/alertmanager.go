// Package notify tells Alertmanager, by its v2 API, what acts and what waits for a human.
package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	// DefaultTimeout bounds one request.
	DefaultTimeout = 10 * time.Second
	// maxBatch bounds how many alerts go into one request.
	maxBatch = 256
	// maxAnswer bounds how much of an error's answer is read.
	maxAnswer = 1024
	// maxSecret bounds a file with a password or a token.
	maxSecret = 64 << 10
)

// Alert is one alert, as POST /api/v2/alerts takes it (alertmanager, api/v2/openapi.yaml, postableAlert). Two alerts with
// the same labels are the same alert.
type Alert struct {
	Labels       map[string]string
	Annotations  map[string]string
	StartsAt     time.Time
	EndsAt       time.Time
	GeneratorURL string
}

// Config says where Alertmanager is, and how it is talked to.
type Config struct {
	// URL is its address, with the prefix it is served under, if any; empty for no Alertmanager.
	URL string
	// Timeout bounds one request; DefaultTimeout without it.
	Timeout time.Duration
	// CAFile has the certificates that its own is checked against; the system's without it.
	CAFile string
	// CertFile and KeyFile are our certificate, where it asks for one.
	CertFile, KeyFile string
	// Username and PasswordFile are for basic authentication.
	Username, PasswordFile string
	// TokenFile is for a bearer token. Files are read again for each request, so that they may be rotated.
	TokenFile string
}

// Alertmanager sends alerts to one Alertmanager.
type Alertmanager struct {
	config   Config
	endpoint string
	client   *http.Client
}

// New reads the configuration. It does not connect.
func New(config Config) (*Alertmanager, error) {
	base, err := url.Parse(config.URL)
	if err != nil {
		return nil, fmt.Errorf("reading the address of Alertmanager: %w", err)
	}
	if (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" {
		return nil, fmt.Errorf("the address of Alertmanager %q must be http(s)://host[:port][/prefix]", config.URL)
	}
	if config.TokenFile != "" && config.Username != "" {
		return nil, errors.New("alertmanager: set a token or a user name, not both")
	}
	if config.Timeout <= 0 {
		config.Timeout = DefaultTimeout
	}
	transport, err := newTransport(config)
	if err != nil {
		return nil, err
	}
	return &Alertmanager{
		config:   config,
		endpoint: base.JoinPath("api", "v2", "alerts").String(),
		client:   &http.Client{Transport: transport, Timeout: config.Timeout},
	}, nil
}

func newTransport(config Config) (*http.Transport, error) {
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.CAFile != "" {
		pem, err := os.ReadFile(config.CAFile)
		if err != nil {
			return nil, fmt.Errorf("reading the CA of Alertmanager: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading the CA of Alertmanager: no certificate in %s", config.CAFile)
		}
	}
	if config.CertFile != "" || config.KeyFile != "" {
		if _, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile); err != nil {
			return nil, fmt.Errorf("reading our certificate for Alertmanager: %w", err)
		}
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(config.CertFile, config.KeyFile)
			return &pair, err
		}
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: config.Timeout,
		MaxIdleConns:        2,
		IdleConnTimeout:     2 * time.Minute,
		ForceAttemptHTTP2:   true,
	}, nil
}

// postableAlert is the schema's; empty times must be absent.
type postableAlert struct {
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	StartsAt     *time.Time        `json:"startsAt,omitempty"`
	EndsAt       *time.Time        `json:"endsAt,omitempty"`
	GeneratorURL string            `json:"generatorURL,omitempty"`
}

// Send posts alerts, some hundreds a request. Sending the same alert again is how it stays alive: Alertmanager takes one
// that it has not heard of for resolve_timeout as resolved. All batches are tried; the errors of all come back.
func (a *Alertmanager) Send(ctx context.Context, alerts []Alert) error {
	var errs []error
	for first := 0; first < len(alerts) && ctx.Err() == nil; first += maxBatch {
		errs = append(errs, a.post(ctx, alerts[first:min(first+maxBatch, len(alerts))]))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func (a *Alertmanager) post(ctx context.Context, alerts []Alert) error {
	batch := make([]postableAlert, 0, len(alerts))
	for _, alert := range alerts {
		batch = append(batch, postableAlert{
			Labels: labelled(alert.Labels), Annotations: alert.Annotations, GeneratorURL: alert.GeneratorURL,
			StartsAt: instant(alert.StartsAt), EndsAt: instant(alert.EndsAt),
		})
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return fmt.Errorf("encoding alerts: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.endpoint, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking Alertmanager: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	if err := a.authenticate(request); err != nil {
		return err
	}
	response, err := a.client.Do(request)
	if err != nil {
		return fmt.Errorf("sending %d alerts: %w", len(alerts), err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode/100 == 2 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sending %d alerts: %s", len(alerts), response.Status)
	}
	return fmt.Errorf("sending %d alerts: %s: %s", len(alerts), response.Status, bytes.TrimSpace(answer))
}

// labelled drops empty labels: to Alertmanager a label without a value is one that is not there.
func labelled(labels map[string]string) map[string]string {
	set := make(map[string]string, len(labels))
	for name, value := range labels {
		if value != "" {
			set[name] = value
		}
	}
	return set
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}

func (a *Alertmanager) authenticate(request *http.Request) error {
	switch {
	case a.config.TokenFile != "":
		token, err := secret(a.config.TokenFile)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+token)
	case a.config.Username != "":
		password := ""
		if a.config.PasswordFile != "" {
			var err error
			if password, err = secret(a.config.PasswordFile); err != nil {
				return err
			}
		}
		request.SetBasicAuth(a.config.Username, password)
	}
	return nil
}

// secret reads a file with one secret, its closing newline apart.
func secret(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading the secret for Alertmanager: %w", err)
	}
	defer func() { _ = file.Close() }()
	text, err := io.ReadAll(io.LimitReader(file, maxSecret))
	if err != nil {
		return "", fmt.Errorf("reading the secret for Alertmanager: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
