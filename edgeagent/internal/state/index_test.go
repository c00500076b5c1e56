package state

import (
	"fmt"
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
