package issuer

import (
	"context"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Leader is a service at the control plane that leads.
type Leader struct{ *leader }

// NewLeader returns what Lead runs.
func (s *Service) NewLeader(fence *store.Fence) Leader { return Leader{newLeader(s, fence)} }

// Idle reports whether nothing is under way, and nothing begins before time passes or something
// changes.
func (l Leader) Idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if first := l.queue.First(); !l.loaded || l.looks > 0 || l.ready.Running() > 0 ||
		first != nil && !first.Due.After(now) {
		return false
	}
	wait, _ := l.wait(now)
	return l.ready.Len() == 0 || wait > 0
}

// Run is what Lead does.
func (l Leader) Run(ctx context.Context) error { return l.run(ctx) }

// WaitForEver has requests to authorities wait for their answers without a limit.
func (s *Service) WaitForEver() {
	for _, c := range s.clients {
		c.http.Timeout = 0
	}
}

// Times of rollovers.
const (
	DrainFor    = drainFor
	ChangeAgain = changeAgain
)
