package fleet

import (
	"context"
	"fmt"
)

// watchRefusals has edges frozen before a revision that too many of them refuse, until ctx ends.
func (f *Fleet) watchRefusals(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.refused:
		}
		revision, refusing, connected := f.mostRefused()
		if refusing <= f.cfg.FreezeEdges || 100*refusing <= f.cfg.FreezePercent*connected {
			continue
		}
		reason := fmt.Sprintf("%d of %d edges refuse revision %d", refusing, connected, revision)
		if err := f.cfg.Rollout.FreezeBefore(ctx, revision, reason); err != nil {
			f.log.Error("fleet: edges cannot be frozen", "reason", reason, "error", err)
		}
	}
}

// mostRefused returns the revision of which the most connected edges refuse a resource, how many
// do, and how many are connected.
func (f *Fleet) mostRefused() (revision int64, refusing, connected int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := make(map[int64]int)
	for _, s := range f.standings() {
		if !s.connected {
			continue
		}
		connected++
		seen := make(map[int64]bool)
		for _, r := range s.rejected {
			if at := r.GetRevision(); !seen[at] {
				seen[at] = true
				counts[at]++
			}
		}
	}
	for at, n := range counts {
		if n > refusing || n == refusing && at < revision {
			revision, refusing = at, n
		}
	}
	return revision, refusing, connected
}

// refuses makes watchRefusals look. The caller holds mu.
func (f *Fleet) refuses() {
	select {
	case f.refused <- struct{}{}:
	default:
	}
}
