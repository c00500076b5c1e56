package httpcache

import (
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// memory keeps something about keys for a while, the latest max of them.
type memory[V any] struct {
	mu    sync.Mutex
	items map[objects.Key]remembered[V]
	order []objects.Key // a ring of keys in the order they came; it may name keys that are gone
	next  int
	max   int
}

type remembered[V any] struct {
	value       V
	since, till time.Time
}

func newMemory[V any](max int) *memory[V] {
	return &memory[V]{items: make(map[objects.Key]remembered[V]), max: max}
}

func (m *memory[V]) put(k objects.Key, v V, now time.Time, ttl time.Duration) {
	if ttl <= 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.items[k]; !known {
		if len(m.order) < m.max {
			m.order = append(m.order, k)
		} else {
			delete(m.items, m.order[m.next])
			m.order[m.next] = k
			m.next = (m.next + 1) % m.max
		}
	}
	m.items[k] = remembered[V]{v, now, now.Add(ttl)}
}

// get returns what is known of k, and what remains of its time. A clock that was set back ends it
// too, so that nothing is remembered for longer than it should be.
func (m *memory[V]) get(k objects.Key, now time.Time) (v V, left time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.items[k]
	if !ok {
		return v, 0, false
	}
	if !now.Before(r.till) || now.Before(r.since) {
		delete(m.items, k)
		return v, 0, false
	}
	return r.value, r.till.Sub(now), true
}

func (m *memory[V]) drop(k objects.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.items, k)
}

func (m *memory[V]) len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.items)
}
