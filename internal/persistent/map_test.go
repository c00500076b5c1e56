package persistent

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

type entry struct {
	key   string
	value int
}

// It must be what a map is, whatever its keys hash to, and what readers hold of it must not change.
func TestItIsAMapThatReadersMayKeep(t *testing.T) {
	t.Parallel()
	hashes := map[string]func(string) uint64{
		"random": nil,
		"few hashes, so that entries share nodes down to the last bit": func(key string) uint64 { return uint64(len(key)) << 60 },
		"one hash": func(string) uint64 { return 0xfeedface },
	}
	for name, hash := range hashes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, 2))
			m := New(func(e *entry) string { return e.key })
			if hash != nil {
				m.hash = hash
			}
			want := map[string]int{}
			var kept Map[*entry]
			var keptWant map[string]int
			batch := new(Batch)
			for step := range 2100 {
				key := fmt.Sprint(rng.IntN(100))
				if rng.IntN(5) < 2 {
					m.Drop(batch, key)
					delete(want, key)
				} else {
					m.Put(batch, &entry{key, step})
					want[key] = step
				}
				if step%7 == 6 { // the batch ends
					if kept.root != nil {
						sameEntries(t, &kept, keptWant)
					}
					kept, keptWant = m, maps.Clone(want)
					batch = new(Batch)
				}
			}
			sameEntries(t, &m, want)
			for key := range want {
				m.Drop(new(Batch), key)
			}
			if m.root != nil || m.len != 0 {
				t.Errorf("after dropping everything: %d entries, root %v", m.len, m.root)
			}
		})
	}
}

func sameEntries(t *testing.T, m *Map[*entry], want map[string]int) {
	t.Helper()
	if m.len != len(want) {
		t.Fatalf("len = %d, want %d", m.len, len(want))
	}
	all := map[string]int{}
	for e := range m.All() {
		all[e.key] = e.value
	}
	if !maps.Equal(all, want) {
		t.Fatalf("all are %v, want %v", all, want)
	}
	for i := range 100 {
		key := fmt.Sprint(i)
		e, ok := m.Get(key)
		value, has := want[key]
		if ok != has || ok && e.value != value {
			t.Fatalf("get(%s) = %v, %v; want %d, %v", key, e, ok, value, has)
		}
	}
}
