package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// thumbprint is what an edge has behind the token of a challenge.
func (e *issuingEdge) thumbprint(t *testing.T) string {
	t.Helper()
	const token = "0123456789abcdef"
	r := e.getFrom(t, "anything.example.com", "/.well-known/acme-challenge/"+token)
	thumbprint, ok := strings.CutPrefix(r.body, token+".")
	if r.status != http.StatusOK || !ok {
		t.Errorf("%s answers a challenge with %s", e.id, r)
	}
	return thumbprint
}

// The key of the ACME account is changed while three edges are connected: they answer by the new
// one when the command ends, and the next renewal is validated by them. An edge that is away
// meanwhile answers by it as soon as it is back, and another control plane orders with it.
func TestAccountKeyIsRolledOver(t *testing.T) {
	t.Parallel()
	s := startIssuing(t, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	const first, second = "first.example.com", "second.example.com"
	s.do(t, "create", "domain", first, "-A", "acme", "--set", "mode=ACCOUNT")
	shown := s.served(t, first)
	before := s.edges[0].thumbprint(t)

	rollover := func(edges ...*issuingEdge) string {
		t.Helper()
		said := s.do(t, "domains", "issuers", "rollover-key")
		_, now, _ := strings.Cut(strings.TrimSpace(said), "another key: ")
		if now == "" || now == before || strings.Contains(said, "old key") {
			t.Errorf("rollover-key says %q", said)
		}
		for _, e := range edges {
			if has := e.thumbprint(t); has != now {
				t.Errorf("%s answers by %s after the rollover to %s", e.id, has, now)
			}
		}
		return now
	}
	rollover(s.edges...)
	s.do(t, "domains", "renew", first, "-A", "acme")
	eventually(t, startWithin, "the certificate to be renewed", func() bool {
		leaf, err := s.edges[0].leaf(first)
		return err == nil && !leaf.Equal(shown)
	})
	s.served(t, first)

	away := s.edges[2]
	away.kill9(t)
	now := rollover(s.edges[:2]...)
	away.start(t)
	away.waitReady(t)
	eventually(t, startWithin, "the edge that was away to answer by the new key", func() bool {
		return away.thumbprint(t) == now
	})

	leader, lease := s.leader(t)
	s.server = s.cps[1-leader].admin
	s.cps[leader].kill9(t)
	s.expire(t, lease)
	s.do(t, "create", "domain", second, "-A", "acme", "--set", "mode=ACCOUNT")
	s.served(t, second)
	s.ordered(t, map[string]int{first: 2, second: 1})
}
