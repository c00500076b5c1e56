package httpcache

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// memory remembers a value for each key for some time. When it is full, it drops the one that was
// not used for longest.
type memory[V any] struct {
	items *lru.Cache[objects.Key, remembered[V]]
}

type remembered[V any] struct {
	value       V
	since, till time.Time
}

func newMemory[V any](most int) *memory[V] {
	items, err := lru.New[objects.Key, remembered[V]](most)
	if err != nil {
		panic(err) // most is not positive
	}
	return &memory[V]{items}
}

func (m *memory[V]) put(k objects.Key, v V, now time.Time, ttl time.Duration) {
	if ttl > 0 {
		m.items.Add(k, remembered[V]{v, now, now.Add(ttl)})
	}
}

// get returns the value of k, and how long it is still valid. It is no longer valid after the clock
// was set back, because it would otherwise be valid for too long. Its time has also passed if it
// has by the clock of the wall alone, because the other one stands still while the machine sleeps.
func (m *memory[V]) get(k objects.Key, now time.Time) (v V, left time.Duration, ok bool) {
	r, ok := m.items.Get(k)
	if !ok {
		return v, 0, false
	}
	if !now.Before(r.till) || !now.Round(0).Before(r.till) || now.Before(r.since) {
		m.items.Remove(k)
		return v, 0, false
	}
	return r.value, r.till.Sub(now), true
}

func (m *memory[V]) drop(k objects.Key) { m.items.Remove(k) }

func (m *memory[V]) len() int { return m.items.Len() }
