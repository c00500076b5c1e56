package http1

import (
	"sync"
	"time"
)

const (
	// A host that has sent stray bytes is not trusted with a second request on one connection for
	// strayFor. At most maxStrays such hosts are known.
	strayFor  = 10 * time.Minute
	maxStrays = 1024
)

// strays knows the hosts that have sent bytes beyond a reply. Bytes that come a moment later than
// the reply cannot be distinguished from the reply to a request that was sent in between, so
// connections to such hosts carry one request each.
type strays struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func newStrays() *strays { return &strays{until: make(map[string]time.Time)} }

func (s *strays) note(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.until) >= maxStrays {
		clear(s.until)
	}
	s.until[host] = time.Now().Add(strayFor)
}

func (s *strays) known(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until[host])
}
