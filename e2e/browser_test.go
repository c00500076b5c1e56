package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// browser keeps a few connections, asks for no compression, and follows nothing.
var browser = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 8, IdleConnTimeout: 5 * time.Second},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       soon,
}

// reply is a whole answer.
type reply struct {
	status int
	header http.Header
	body   string
}

// String is what a failing test shows.
func (r reply) String() string {
	body := r.body
	if len(body) > 200 {
		body = body[:200] + "..."
	}
	return fmt.Sprintf("%d, Cache-Status %q, body %q", r.status, r.header.Get("Cache-Status"), body)
}

// hit reports whether the edge answered without asking an origin for it: from what it had stored,
// or along with an earlier request whose last byte was sent and whose reply was still being put
// away.
func (r reply) hit() bool {
	status := r.header.Get("Cache-Status")
	return strings.HasPrefix(status, "edgewalk; hit") || strings.Contains(status, "; collapsed")
}

// visit asks an address for a path under a host name.
func visit(ctx context.Context, address, host, path string) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return reply{}, err
	}
	r.Host = host
	if path == "/metrics" { // of a control plane; an edge asks for no token
		r.Header.Set("Authorization", "Bearer "+theToken)
	}
	answer, err := browser.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return reply{}, fmt.Errorf("read %s: %w", path, err)
	}
	return reply{answer.StatusCode, answer.Header, string(body)}, nil
}

// get fetches a path from the shared host, such as /acme/a.jpg.
func (e *edge) get(t testing.TB, path string) reply {
	t.Helper()
	return e.getFrom(t, "localhost", path)
}

// getFrom fetches a path from a host.
func (e *edge) getFrom(t testing.TB, host, path string) reply {
	t.Helper()
	r, err := visit(t.Context(), e.http, host, path)
	if err != nil {
		t.Fatalf("%s: GET http://%s%s: %v", e.name, host, path, err)
	}
	return r
}

// serves fails the test unless the edge answers 200 with the body.
func (e *edge) serves(t testing.TB, path, body string) reply {
	t.Helper()
	return e.servesFrom(t, "localhost", path, body)
}

func (e *edge) servesFrom(t testing.TB, host, path, body string) reply {
	t.Helper()
	r := e.getFrom(t, host, path)
	if r.status != http.StatusOK || r.body != body {
		t.Errorf("%s: GET http://%s%s: %s; want 200 with %q", e.name, host, path, r, body)
	}
	return r
}

// refuses fails the test unless the edge answers with the status.
func (e *edge) refuses(t testing.TB, path string, status int) reply {
	t.Helper()
	r := e.get(t, path)
	if r.status != status {
		t.Errorf("%s: GET %s: %s; want %d", e.name, path, r, status)
	}
	return r
}

// isReady asks a daemon whether it is.
func isReady(address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := visit(ctx, address, address, "/readyz")
	return err == nil && r.status == http.StatusOK
}
