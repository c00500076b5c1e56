// Package share divides what is scarce among holders, such as accounts, so that none of them can take what the others need.
//
// What always holds: no more than the pool's places are taken; a holder that has less than its share, an eighth of them, is
// refused only when all are taken; what it takes beyond that it takes from the first half, so that the second half is there
// for those who have little.
package share

import "sync"

// Verdict is what a pool says to who wants a place.
type Verdict uint8

const (
	// Taken: the place is there, and has to be given back.
	Taken Verdict = iota
	// Full: all places are taken.
	Full
	// OverShare: the holder has its share, and the others need the rest.
	OverShare
)

// Pool hands out places. Its methods may be called from any goroutine.
type Pool struct {
	places int

	mu    sync.Mutex
	taken int
	held  map[string]int
}

// NewPool returns a pool of at least one place.
func NewPool(places int) *Pool { return &Pool{places: max(places, 1), held: map[string]int{}} }

// Take takes a place for a holder. Who was given one calls Release.
func (p *Pool) Take(holder string) Verdict {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held[holder]
	switch {
	case p.taken >= p.places:
		return Full
	case held >= max(p.places/8, 1) && p.taken >= p.places/2:
		return OverShare
	}
	p.taken++
	p.held[holder] = held + 1
	return Taken
}

// Release gives a place of a holder back.
func (p *Pool) Release(holder string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.held[holder]--; p.held[holder] == 0 {
		delete(p.held, holder)
	}
}

// Taken is how many places are taken.
func (p *Pool) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}
