package http1

import (
	"sync"
	"time"
)

const (
	// After a host has sent stray bytes, each connection to it carries one request only, for
	// strayFor. At most maxStrays such hosts are remembered.
	strayFor  = 10 * time.Minute
	maxStrays = 1024
)

// strays remembers the hosts that have sent bytes beyond a reply. If such bytes come a moment later
// than the reply, they look like the reply to the next request.
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
	until, ok := s.until[host]
	return ok && time.Now().Before(until)
}
