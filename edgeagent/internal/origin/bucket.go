package origin

import (
	"context"
	"net/http"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// askBucket decides about a 404 that does not say what is missing: it is NotHere if the bucket is
// there, because then the object is missing. The bucket is asked for at most once in DeniedFor.
func (c *Client) askBucket(ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, health *health, a *Answer) {
	p := c.proofs.of(o)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return
	}
	if there, fresh := p.bucketKnown(); fresh && !there || !fresh && !c.seekBucket(ctx, k, o, ask, health, p) {
		return
	}
	a.Outcome, a.Reason, a.ProxyError, a.Advice = NotHere, "", "", ""
	a.Detail += ", and the bucket is there"
}

func (p *proof) bucketKnown() (there, fresh bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bucket, !p.bucketAsked.IsZero() && time.Since(p.bucketAsked) < DeniedFor
}

// seekBucket lists one object of the bucket, and reports whether that was answered.
func (c *Client) seekBucket(ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, h *health, p *proof) bool {
	req, err := k.Bucket(c.edge, o)
	if err != nil {
		return false
	}
	hop := c.newHop(k, o, &Ask{Request: forKey(ask.Account, ""), Deadline: ask.Deadline}, h, req)
	if err := sign(ctx, k, hop); err != nil {
		return false
	}
	a, _, _ := c.exchange(ctx, k, hop)
	if a.Response != nil {
		a.Response.Body.Close()
	}
	there := a.Outcome == Found && a.Status == http.StatusOK
	if there || a.Reason == Misconfigured {
		p.mu.Lock()
		p.bucketAsked, p.bucket = time.Now(), there
		p.mu.Unlock()
	}
	return there
}
