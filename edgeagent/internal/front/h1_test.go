package front

import (
	"crypto/tls"
	"strings"
	"testing"
)

func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	for name, secure := range map[string]*tls.Config{"plain": nil, "TLS": overTLS()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := r.exchange(secure, "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /3 HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\n")
			if n := strings.Count(got, "HTTP/1.1 200 OK\r\n"); n != 3 ||
				!strings.HasSuffix(got, "HTTP/1.1 GET /3 host=a.test x-a=1") {
				t.Errorf("%d replies: %q", n, got)
			}
		})
	}
}
