package evict

import (
	"net/http"
	"strings"
)

// OnceOnly wraps a transport so that an eviction is asked for once. Where the answer carries a header Retry-After,
// client-go waits and asks again by itself, up to ten times (client-go, rest/with_retry.go): a worker would sleep for
// minutes, and the eviction would come through long after a hold was placed. Without the header it comes back to us, and
// is decided again; the delay is in the answer's body too.
func OnceOnly(next http.RoundTripper) http.RoundTripper {
	return onceOnly{next: next}
}

type onceOnly struct {
	next http.RoundTripper
}

// RoundTrip drops the header from answers to evictions.
func (o onceOnly) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(request)
	if response != nil && request.Method == http.MethodPost && strings.HasSuffix(request.URL.Path, "/eviction") {
		response.Header.Del("Retry-After")
	}
	return response, err
}
