// Package share divides what is scarce among holders, such as accounts or clients, so that none of
// them can take what the others need.
//
// What always holds: no more than the pool's places are taken; a holder that has less than its
// share, an eighth of them, is refused only when all are taken; what it takes beyond its share
// comes from the places that are open to all, so that the others are left for holders who have
// little.
package share

import (
	"maps"
	"sync"
)

// Verdict is the answer of a pool to a request for a place.
type Verdict uint8

const (
	// Taken: the place is there, and has to be given back.
	Taken Verdict = iota
	// Full: all places are taken.
	Full
	// OverShare: the holder has its share, and the others need the rest of the places.
	OverShare
)

// Pool hands out places. Its methods may be called from any goroutine.
type Pool[Holder comparable] struct {
	places, open int

	mu    sync.Mutex
	taken int
	// held holds the places of each holder. Holders without places stay, because most come back,
	// until there are tidyAt of them.
	held   map[Holder]*Held
	tidyAt int
}

// leastHeld is how many holders are remembered at least.
const leastHeld = 1024

// NewPool returns a pool of places, at least one, of which open are open to all.
func NewPool[Holder comparable](places, open int) *Pool[Holder] {
	return &Pool[Holder]{places: max(places, 1), open: open, held: map[Holder]*Held{}, tidyAt: leastHeld}
}

// NewClients returns a pool for clients: one of them gets half.
func NewClients[Holder comparable](places int) *Pool[Holder] {
	return NewPool[Holder](places, places/2)
}

// NewAccounts returns a pool for accounts: one of them gets three quarters, which is more than one
// of its clients can take.
func NewAccounts(places int) *Pool[string] { return NewPool[string](places, places*3/4) }

// Held counts the places of one holder.
type Held struct{ n int }

// Take takes a place for a holder that may have at most most places, or any number if that is 0. If
// the verdict is [Taken], the caller releases the place by calling Release with what Take returned.
func (p *Pool[Holder]) Take(holder Holder, most int) (*Held, Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held[holder]
	has := 0
	if held != nil {
		has = held.n
	}
	switch {
	case p.taken >= p.places:
		return nil, Full
	case has >= max(p.places/8, 1) && p.taken >= p.open, most > 0 && has >= most:
		return nil, OverShare
	}
	if held == nil {
		held = p.remember(holder)
	}
	p.taken++
	held.n++
	return held, Taken
}

// remember makes room for a holder. Callers hold mu.
func (p *Pool[Holder]) remember(holder Holder) *Held {
	if len(p.held) >= p.tidyAt {
		maps.DeleteFunc(p.held, func(_ Holder, held *Held) bool { return held.n == 0 })
		p.tidyAt = max(leastHeld, 2*len(p.held))
	}
	held := new(Held)
	p.held[holder] = held
	return held
}

// Release gives one place back.
func (p *Pool[Holder]) Release(held *Held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	held.n--
}

// Taken returns how many places are taken.
func (p *Pool[Holder]) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
