package edgehttp

import (
	"log/slog"
	"sync"
	"time"
)

// Limits of a listener and its requests, beside those of package front. They keep memory, sockets
// and goroutines bounded whatever clients do.
const (
	defaultMaxConnections = 50_000
	defaultMaxPerClient   = 4_096
	defaultMaxRequests    = 20_000
)

// rareLog logs what may happen often at most once in each rareLogEvery.
type rareLog struct {
	log *slog.Logger

	mu    sync.Mutex
	last  time.Time
	quiet int // how often nothing was said since
}

const rareLogEvery = 10 * time.Second

func (s *rareLog) error(message string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < rareLogEvery {
		s.quiet++
		return
	}
	s.log.Error(message, append(args, "not_logged", s.quiet)...)
	s.last, s.quiet = now, 0
}
