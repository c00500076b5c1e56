package state

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// partOf is the rule of topology.Digest for keys that it cannot parse.
func TestDigestsAreThoseOfTopology(t *testing.T) {
	t.Parallel()
	x := newIndex()
	var want topology.Digest
	for i := range int64(50) {
		key := fmt.Sprintf("mediaFiles/acme/folder/%d", i%20)
		k, err := topology.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if i >= 20 {
			want.Remove(topology.Record{Key: k, ModRevision: i - 20, Value: []byte(fmt.Sprint(i - 20))})
		}
		want.Add(topology.Record{Key: k, ModRevision: i, Value: []byte(fmt.Sprint(i))})
		u := x.apply(Change{Key: key, Mod: i, Value: []byte(fmt.Sprint(i))})
		x.revert([]undone{u})
		x.apply(Change{Key: key, Mod: i, Value: []byte(fmt.Sprint(i))})
		if x.digest != want {
			t.Fatalf("after %d: %x, want %x", i, x.digest, want)
		}
	}
	if x.lasting != 20 {
		t.Errorf("%d resources, want 20", x.lasting)
	}
}

// What is replaced and removed among many counts as if the others had never been anything else.
func TestIndexOfMany(t *testing.T) {
	t.Parallel()
	put := func(i int) Change { return Change{Key: fmt.Sprint("k", i), Mod: int64(i), Value: []byte{1}} }
	random := rand.New(rand.NewPCG(1, 2))
	const n = 20_000
	changed, want := newIndex(), newIndex()
	for i := range n {
		changed.add(put(i))
	}
	for range 2 * n {
		i := random.IntN(n)
		c := Change{Key: put(i).Key}
		if random.IntN(2) == 0 {
			c = put(i)
			c.Mod += n
		}
		if u := changed.apply(c); random.IntN(2) == 0 {
			changed.revert([]undone{u})
		}
	}
	for i := range n {
		changed.apply(put(i))
		want.add(put(i))
	}
	if changed.digest != want.digest || changed.lasting != want.lasting {
		t.Errorf("%x of %d, want %x of %d", changed.digest, changed.lasting, want.digest, want.lasting)
	}
}
