package evict

import "net/http"

// OnceOnly wraps a transport so that a write is sent once. Where an answer of 429 or 5xx carries a header Retry-After,
// client-go waits and sends the request again by itself, up to ten times (client-go, rest/with_retry.go): a worker would
// sleep for minutes, and an eviction would come through long after a hold was placed. Without the header the error comes
// back to us, and everything is decided again; the delay is in the answer's body too. Reads are left as they are.
func OnceOnly(next http.RoundTripper) http.RoundTripper {
	return onceOnly{next: next}
}

type onceOnly struct {
	next http.RoundTripper
}

// RoundTrip drops the header from answers to writes.
func (o onceOnly) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := o.next.RoundTrip(request)
	if response != nil && request.Method != http.MethodGet && request.Method != http.MethodHead {
		response.Header.Del("Retry-After")
	}
	return response, err
}
