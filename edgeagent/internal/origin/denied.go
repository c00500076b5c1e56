package origin

import (
	"context"
	"crypto/rand"
	"hash/maphash"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	lru "github.com/hashicorp/golang-lru/v2"
)

// DeniedFor is how long an origin is believed to deny missing keys, and a denied key to be missing.
const DeniedFor = 10 * time.Second

// maxProofs bounds how many proofs are kept, of about 250 bytes each. When there are more, the one
// that was not used for longest is dropped, and its origin has to prove itself again.
const maxProofs = 1 << 16

// proofs records which origins have ever answered with a file, and which deny every missing key.
type proofs struct {
	seed  maphash.Seed
	known *lru.Cache[kind.Identity, *proof]
}

type proof struct {
	// turn is held while a proof is sought, so that a thousand denials cause one.
	turn chan struct{}

	mu       sync.Mutex
	answered bool      // with a file, ever
	sought   time.Time // when the fields below were found out
	random   bool      // a random key was denied too
	probed   bool      // probe_key was there

	bucket      bool // it could be listed
	bucketAsked time.Time
}

func newProofs() *proofs {
	known, _ := lru.New[kind.Identity, *proof](maxProofs) // it fails only for a size that is not positive
	return &proofs{seed: maphash.MakeSeed(), known: known}
}

func (p *proofs) of(o *topology.Origin) *proof {
	id := kind.IdentityOf(p.seed, o)
	if found, ok := p.known.Get(id); ok {
		return found
	}
	added := &proof{turn: make(chan struct{}, 1)}
	if found, ok, _ := p.known.PeekOrAdd(id, added); ok {
		return found
	}
	return added
}

// succeeded records that the origin answered with a file, or confirmed one.
func (p *proofs) succeeded(o *topology.Origin) {
	found := p.of(o)
	found.mu.Lock()
	found.answered = true
	found.mu.Unlock()
}

// prove turns a denial into NotHere if the store denies a random key too, although the credentials
// are good: it has answered with a file before, or does for probe_key.
func (c *Client) prove(ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, h *health, a *Answer) {
	p := c.proofs.of(o)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return
	}
	if !p.fresh() && !c.seek(ctx, k, o, ask, h, p) {
		return
	}
	if p.denied() {
		a.Outcome, a.Reason, a.ProxyError, a.Advice = NotHere, Denied, "", k.DeniedAdvice
		a.Detail += ", as for every missing key"
	}
}

func (p *proof) fresh() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.sought.IsZero() && time.Since(p.sought) < DeniedFor
}

// denied reports whether a denial means that the key is missing.
func (p *proof) denied() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.random && (p.answered || p.probed)
}

func (p *proof) hasAnswered() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered
}

// seek asks for a random key and, if that is denied and there is no other proof, for probe_key. It
// reports whether the answers prove anything.
func (c *Client) seek(ctx context.Context, k *kind.Kind, o *topology.Origin, ask *Ask, h *health, p *proof) bool {
	probe := func(key string) (*Answer, *kind.Row) {
		a, row := c.try(ctx, k, o, &Ask{Request: forKey(ask.Account, key), Deadline: ask.Deadline}, h)
		if a.Response != nil {
			a.Response.Body.Close()
		}
		return a, row
	}
	a, row := probe(rand.Text())
	if a.Outcome == Inconclusive && a.Reason != Misconfigured {
		return false
	}
	random, probed := row != nil && row.Deniable, false
	if key := o.Spec.GetProbeKey(); random && key != "" && !p.hasAnswered() {
		a, _ = probe(key)
		probed = a.Outcome == Found
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sought, p.random, p.probed = time.Now(), random, probed
	return true
}
