package persistent

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

type entry struct {
	key   string
	value int
}

// masks are what is left of the hashes of keys.
var masks = map[string]uint64{
	"random": ^uint64(0),
	"few hashes, so that entries share nodes down to the last bit": 3 << 60,
	"one hash": 0,
}

// It must be what a map is, whatever its keys hash to, and what readers hold of it must not change.
func TestItIsAMapThatReadersMayKeep(t *testing.T) {
	t.Parallel()
	for name, mask := range masks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, 2))
			m := New(func(e *entry) string { return e.key })
			m.mask = mask
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

// A map that was filled at once is the map that was filled one by one, also when keys come twice.
func TestFillIsManyPuts(t *testing.T) {
	t.Parallel()
	for name, mask := range masks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, 2))
			for n := range 150 {
				filled, put := New(func(e *entry) string { return e.key }), New(func(e *entry) string { return e.key })
				filled.mask, put.mask, put.seed = mask, mask, filled.seed
				batch := new(Batch)
				values := make([]*entry, n)
				want := map[string]int{}
				for i := range values {
					values[i] = &entry{fmt.Sprint(rng.IntN(100)), i}
					put.Put(batch, values[i])
					want[values[i].key] = i
				}
				filled.Fill(batch, values)
				sameEntries(t, &filled, want)
				sameShape(t, filled.root, put.root)
				kept := filled
				for key := range want {
					filled.Drop(new(Batch), key)
				}
				if filled.root != nil || filled.len != 0 {
					t.Fatalf("after dropping everything: %d entries, root %v", filled.len, filled.root)
				}
				sameEntries(t, &kept, want)
			}
		})
	}
}

func sameShape(t *testing.T, a, b *node[*entry]) {
	t.Helper()
	if a == nil || b == nil {
		if a != b {
			t.Fatalf("a node is %v, want %v", a, b)
		}
		return
	}
	if a.batch != b.batch || a.leaves != b.leaves || a.kids != b.kids || !slices.Equal(a.values, b.values) ||
		len(a.children) != len(b.children) {
		t.Fatalf("a node is %+v, want %+v", a, b)
	}
	for i := range a.children {
		sameShape(t, a.children[i], b.children[i])
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
