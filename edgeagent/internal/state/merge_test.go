package state

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// held is what a folder gives back when it is opened.
func held(t *testing.T, dir string) (f *Folder, resources map[string]string) {
	t.Helper()
	f, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	resources = map[string]string{}
	_, _, ok := f.Load(func(s Step) error {
		if s.Full {
			clear(resources)
		}
		for c, err := range s.Changes {
			if err != nil {
				return err
			}
			if c.Value == nil {
				delete(resources, c.Key)
				continue
			}
			resources[c.Key] = string(c.Value)
		}
		return nil
	})
	if !ok {
		t.Fatal("there is no state")
	}
	return f, resources
}

// filled is a folder with a full state and some steps, and what it holds.
func filled(t testing.TB) (dir string, resources map[string]string) {
	t.Helper()
	dir, resources = t.TempDir(), map[string]string{}
	f, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	change := func(i, revision int) Change {
		c := Change{
			Key: fmt.Sprintf("urlEndpoints/acme/e%d", i%5), Mod: int64(revision), Create: 1,
			Value: fmt.Append(nil, revision),
		}
		resources[c.Key] = string(c.Value)
		if revision%4 == 3 {
			c.Value = nil
			delete(resources, c.Key)
		}
		return c
	}
	s := f.Spool(Position{Epoch: "e1"}, &edgev1.Welcome_Settings{SharedHost: "files.example"})
	s.Add([]Change{change(0, 1), change(1, 1), change(2, 1)})
	f.Install(s, 1, time.Now())
	for revision := 2; revision < 12; revision++ {
		changes := []Change{change(revision, revision)}
		f.Count(changes)
		if err := f.Append(int64(revision), nil, changes, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return dir, resources
}

// A crash may come between any two steps of a merge: whichever files are there, the newest state is
// found.
func TestUnfinishedMerge(t *testing.T) {
	t.Parallel()
	dir, want := filled(t)
	is := func(when string, got map[string]string) {
		t.Helper()
		if !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	a, got := held(t, dir)
	is("before", got)
	a.mu.Lock()
	a.closed = true // the merge that begins now stops at once
	a.rotate()
	a.mu.Unlock()
	a.Close()
	if snapshots, journals := a.files(); len(snapshots) != 1 || len(journals) != 2 {
		t.Fatalf("%d snapshots and %d journals, want 1 and 2", len(snapshots), len(journals))
	}
	if err := os.WriteFile(filepath.Join(dir, "merging"), []byte(magic+"half"), FileMode); err != nil {
		t.Fatal(err)
	}
	b, got := held(t, dir)
	is("with half a snapshot", got)
	m := merge{dir: b, snapshot: b.snapshot, until: b.snapshot, end: b.at, settings: b.settings}
	f, _, err := m.write()
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := os.Rename(f.Name(), b.path("snapshot", b.snapshot+1)); err != nil {
		t.Fatal(err)
	}
	b.Close()
	c, got := held(t, dir)
	is("with both snapshots", got)
	c.Close()
	newer := c.path("snapshot", c.snapshot)
	damaged, err := os.ReadFile(newer)
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)/2] ^= 4
	if err := os.WriteFile(newer, damaged, FileMode); err != nil {
		t.Fatal(err)
	}
	_, got = held(t, dir)
	is("with a damaged one, the older one and the journals after it", got)
}
