package store

import (
	"container/list"
	"sync"
)

// cacheBytes bounds the values that cached states hold together.
const cacheBytes = 64 << 20

// stateCache keeps the states of recently written accounts. A state may be used while its guard is the current one, since
// every change of an account raises the guard.
type stateCache struct {
	mu     sync.Mutex
	recent list.List // of *State, the latest used first
	places map[string]*list.Element
	bytes  int
}

func (c *stateCache) get(account string, guard guard) *State {
	c.mu.Lock()
	defer c.mu.Unlock()
	place, ok := c.places[account]
	if !ok {
		return nil
	}
	state := place.Value.(*State)
	if state.Guard != guard.revision || state.write != guard.Write {
		return nil
	}
	c.recent.MoveToFront(place)
	return state
}

// put keeps state unless a later one of the account is kept. An account that was never written, or that is being deleted,
// has no use for it.
func (c *stateCache) put(state *State) {
	if state.Guard == 0 || state.Deleting() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if place, ok := c.places[state.Account]; ok {
		old := place.Value.(*State)
		if old.Guard > state.Guard {
			return
		}
		c.drop(place)
	}
	if c.places == nil {
		c.places = make(map[string]*list.Element)
	}
	c.places[state.Account] = c.recent.PushFront(state)
	c.bytes += state.size()
	for c.bytes > cacheBytes {
		c.drop(c.recent.Back())
	}
}

// clear forgets all states.
func (c *stateCache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.recent.Init()
	c.places, c.bytes = nil, 0
}

func (c *stateCache) drop(place *list.Element) {
	state := c.recent.Remove(place).(*State)
	delete(c.places, state.Account)
	c.bytes -= state.size()
}

// size is roughly what a state costs in memory.
func (s *State) size() int {
	size := 256
	for key, record := range s.Records {
		size += 256 + 2*len(key.ID) + len(record.Value)
	}
	return size
}
