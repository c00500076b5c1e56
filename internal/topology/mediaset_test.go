package topology

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"testing"
)

func shaOf(n uint64) (sha [8]byte) {
	binary.LittleEndian.PutUint64(sha[:], n)
	return sha
}

func TestMediaSetIsEmpty(t *testing.T) {
	t.Parallel()
	var s *MediaSet
	if _, ok := s.Lookup("a"); ok || s.Len() != 0 {
		t.Error("a nil set holds something")
	}
	if s = s.Without("a"); s.Len() != 0 {
		t.Error("removing from nothing leaves something")
	}
	s = s.With("a", shaOf(1)).Without("a")
	if _, ok := s.Lookup("a"); ok || s.Len() != 0 || s.root != nil {
		t.Error("a set emptied again holds something")
	}
}

// Random edits against a map; every set made on the way stays what it was.
func TestMediaSetAgreesWithMap(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var set *MediaSet
	model := make(map[string][8]byte)
	type version struct {
		set   *MediaSet
		model map[string][8]byte
	}
	var versions []version
	for step := range 60 {
		edit := set.Edit()
		for range r.IntN(1500) {
			path := fmt.Sprintf("folder/%d.jpg", r.IntN(20000))
			if step >= 30 && r.IntN(4) > 0 || r.IntN(5) == 0 {
				edit.Delete(path)
				delete(model, path)
				continue
			}
			sha := shaOf(r.Uint64())
			edit.Set(path, sha)
			model[path] = sha
		}
		set = edit.Done()
		versions = append(versions, version{set, maps.Clone(model)})
	}
	for i, v := range versions {
		if v.set.Len() != len(v.model) {
			t.Fatalf("version %d has %d files, want %d", i, v.set.Len(), len(v.model))
		}
		for n := range 20000 {
			path := fmt.Sprintf("folder/%d.jpg", n)
			got, ok := v.set.Lookup(path)
			if want, wantOK := v.model[path]; ok != wantOK || got != want {
				t.Fatalf("version %d: %s is %x, %v; want %x, %v", i, path, got, ok, want, wantOK)
			}
		}
	}
	edit := set.Edit()
	for path := range model {
		edit.Delete(path)
	}
	if set = edit.Done(); set.Len() != 0 || set.root != nil {
		t.Errorf("%d files are left of none", set.Len())
	}
}

func TestMediaSetIsSmall(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	const files = 1_000_000
	before := heap()
	edit := (*MediaSet)(nil).Edit()
	for i := range files {
		edit.Set(fmt.Sprintf("products/%d/front.jpg", i), shaOf(uint64(i)))
	}
	set := edit.Done()
	perFile := float64(heap()-before) / files
	t.Logf("%.1f bytes a file", perFile)
	if perFile > 22 {
		t.Errorf("%.1f bytes a file, want about 16", perFile)
	}
	if set.Len() != files {
		t.Errorf("%d files, want %d", set.Len(), files)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkMediaSet(b *testing.B) {
	edit := (*MediaSet)(nil).Edit()
	for i := range 100_000 {
		edit.Set(fmt.Sprintf("products/%d/front.jpg", i), shaOf(uint64(i)))
	}
	set := edit.Done()
	b.Run("lookup", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set.Lookup("products/4711/front.jpg")
		}
	})
	b.Run("with", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			set.With("products/4711/front.jpg", shaOf(1))
		}
	})
}
