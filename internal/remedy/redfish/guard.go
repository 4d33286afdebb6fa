package redfish

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/stmcginnis/gofish/schemas"
)

const (
	// maxAnswer bounds one answer, unpacked. A ComputerSystem is some 10 KiB.
	maxAnswer = 1 << 20
	// maxHeader bounds the header of one.
	maxHeader = 64 << 10
	// maxPatience is the longest Retry-After that is waited for, and maxTries how often the same thing is asked.
	maxPatience = 10 * time.Second
	maxTries    = 3
	// maxRedirects bounds how many of the BMC's own redirects are followed.
	maxRedirects = 3
)

var (
	errElsewhere = errors.New("the BMC points to another host, which is not asked")
	errTwice     = errors.New("the BMC wants the same request once more, which is not made twice")
	errNotSent   = errors.New("nothing was sent")
)

// guard is the only way to the BMC. Credentials are put on in here, after the destination was looked at: whatever link a
// BMC answers with, and however the library puts a URL together, they go to that one host by TLS or nowhere. And it lets
// nothing be posted twice.
type guard struct {
	next *http.Transport
	host string

	mu                 sync.Mutex
	token              string
	username, password string
	posted             map[string]bool
}

// newHTTPClient is the client of one visit to the target, and its guard. No proxy is used: a BMC is near, or nowhere.
func newHTTPClient(t target, timeout time.Duration) (*http.Client, *guard) {
	g := &guard{
		host:   t.host,
		posted: map[string]bool{},
		next: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: timeout / 3}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: t.roots, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    timeout / 2,
			MaxResponseHeaderBytes: maxHeader,
		},
	}
	return &http.Client{Transport: g, Timeout: timeout, CheckRedirect: followed}, g
}

// followed lets a GET be sent on within the BMC, and nothing else: a POST that is sent on is a POST made twice.
func followed(_ *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet || len(via) > maxRedirects {
		return http.ErrUseLastResponse
	}
	return nil
}

// authenticate has later requests carry the token, or the user name and password where there is none.
func (g *guard) authenticate(token, username, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.token, g.username, g.password = token, username, password
}

// count is how much was posted.
func (g *guard) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.posted)
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	out, err := g.admit(req)
	if err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	for try := 1; ; try++ {
		resp, err := g.next.RoundTrip(out)
		if err != nil {
			return nil, err
		}
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
		wait, ok := patience(resp)
		if !ok || try == maxTries || req.Method != http.MethodGet {
			return resp, nil
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err := sleep(req.Context(), wait); err != nil {
			return nil, err
		}
	}
}

// admit looks at where a request goes, and puts the credentials on a copy of it.
func (g *guard) admit(req *http.Request) (*http.Request, error) {
	if req.URL.Scheme != "https" || canonical(req.URL.Host) != canonical(g.host) {
		return nil, errElsewhere
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if req.Method == http.MethodPost {
		if g.posted[req.URL.Path] {
			return nil, errTwice
		}
		g.posted[req.URL.Path] = true
	}
	out := req.Clone(req.Context())
	switch {
	case g.token != "":
		out.Header.Set("X-Auth-Token", g.token)
	case g.username != "":
		out.SetBasicAuth(g.username, g.password)
	}
	return out, nil
}

// canonical is a URL's host with its port.
func canonical(host string) string {
	u := url.URL{Host: strings.ToLower(host)}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// patience is how long a busy BMC asks to be left alone, where that is not too long.
func patience(resp *http.Response) (time.Duration, bool) {
	if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusTooManyRequests {
		return 0, false
	}
	at, err := schemas.ParseRetryAfter(resp.Header.Get("Retry-After"))
	if err != nil {
		return 0, false
	}
	wait := time.Until(at)
	return wait, wait <= maxPatience
}

// sleep waits, but no longer than the context.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
