package route

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

// A trie must be what a map is, whatever its keys hash to, and what readers hold of it must not change.
func TestTrieIsAMapThatReadersMayKeep(t *testing.T) {
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
			tr := newTrie(func(e *entry) string { return e.key })
			if hash != nil {
				tr.hash = hash
			}
			want := map[string]int{}
			var kept trie[*entry]
			var keptWant map[string]int
			for step := range 2100 {
				key := fmt.Sprint(rng.IntN(100))
				if rng.IntN(5) < 2 {
					tr.drop(uint64(step/7), key)
					delete(want, key)
				} else {
					tr.put(uint64(step/7), &entry{key, step})
					want[key] = step
				}
				if step%7 == 6 { // the batch ends
					if kept.root != nil {
						sameEntries(t, &kept, keptWant)
					}
					kept, keptWant = tr, maps.Clone(want)
				}
			}
			sameEntries(t, &tr, want)
			for key := range want {
				tr.drop(1<<40, key)
			}
			if tr.root != nil || tr.len != 0 {
				t.Errorf("after dropping everything: %d entries, root %v", tr.len, tr.root)
			}
		})
	}
}

func sameEntries(t *testing.T, tr *trie[*entry], want map[string]int) {
	t.Helper()
	if tr.len != len(want) {
		t.Fatalf("len = %d, want %d", tr.len, len(want))
	}
	for i := range 100 {
		key := fmt.Sprint(i)
		e, ok := tr.get(key)
		value, has := want[key]
		if ok != has || ok && e.value != value {
			t.Fatalf("get(%s) = %v, %v; want %d, %v", key, e, ok, value, has)
		}
	}
}
