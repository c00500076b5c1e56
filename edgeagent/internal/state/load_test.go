package state

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// What is read ahead comes in order, up to the error or as far as it is wanted.
func TestReadingAheadChangesNothing(t *testing.T) {
	t.Parallel()
	failed := errors.New("torn")
	for _, n := range []int{0, 1, 255, 256, 257, 5000} {
		for _, wanted := range []int{0, 1, 300, 10_000} {
			got := 0
			var err error
			for c, e := range ahead(func(yield func(Change, error) bool) {
				for i := range n {
					if !yield(Change{Key: fmt.Sprint(i)}, nil) {
						return
					}
				}
				yield(Change{}, failed)
			}) {
				if err = e; err != nil || got == wanted {
					break
				}
				if c.Key != fmt.Sprint(got) {
					t.Fatalf("of %d, change %d is %q", n, got, c.Key)
				}
				got++
			}
			if want := min(n, wanted); got != want {
				t.Errorf("of %d, %d came, want %d", n, got, want)
			}
			if (err == failed) != (wanted >= n) {
				t.Errorf("of %d, after %d: %v", n, got, err)
			}
		}
	}
}

// What the disk does not let be read may be there again at the next start, so nothing is removed or
// cut off for it. What comes before it in a journal counts.
func TestWhatCannotBeReadIsLeft(t *testing.T) {
	t.Parallel()
	const steps = 200
	for _, test := range []struct {
		kind  string
		block int // of the file, the first that cannot be read
		ok    bool
	}{{"snapshot", 0, false}, {"journal", 10, true}} {
		t.Run(test.kind, func(t *testing.T) {
			t.Parallel()
			disk := disktest.NewImage(t, 16<<20, "^has_journal")
			dir := filepath.Join(disk.Dir, "state")
			f, err := Open(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			s := f.Spool(Position{Epoch: "e1"}, &edgev1.Welcome_Settings{})
			s.Add([]Change{{Key: "a", Mod: 1, Create: 1, Value: []byte("first")}})
			f.Install(s, 1, time.Now())
			files := map[string]string{
				"snapshot": f.path("snapshot", f.snapshot), "journal": f.path("journal", f.number),
			}
			disk.FirstBlock(files["snapshot"]) // So it has its place before the journal.
			for revision := int64(2); revision < steps; revision++ {
				changes := []Change{{Key: "a", Mod: revision, Create: 1, Value: bytes.Repeat([]byte("x"), 1000)}}
				f.Count(changes)
				if err := f.Append(revision, nil, changes, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			f.Close()
			sizes := func() (all []int64) {
				for _, name := range files {
					info, err := os.Stat(name)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, info.Size())
				}
				slices.Sort(all)
				return all
			}
			before := sizes()
			bad := disk.FirstBlock(files[test.kind]) + test.block
			disk.Unmount()
			disk.Mount()
			disk.Cut(bad)

			f, err = Open(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			_, _, ok := f.Load(func(s Step) error {
				for _, err := range s.Changes {
					if err != nil {
						return err
					}
				}
				return nil
			})
			if at := f.At().Revision; ok != test.ok || ok && (at < 2 || at >= steps-1) {
				t.Errorf("loaded %v, at revision %d", ok, at)
			}
			if _, durable := f.Durable(); durable {
				t.Error("it says that it keeps what comes")
			}
			if after := sizes(); !slices.Equal(after, before) {
				t.Errorf("the files have %v bytes, %v before", after, before)
			}
			// The next full state goes to the disk again.
			s = f.Spool(Position{Epoch: "e1"}, &edgev1.Welcome_Settings{})
			s.Add([]Change{{Key: "a", Mod: steps, Create: 1, Value: []byte("last")}})
			f.Install(s, steps, time.Now())
			if _, durable := f.Durable(); !durable {
				t.Error("a full state is not kept")
			}
			f.Close()
			again, resources := held(t, dir)
			if again.At().Revision != steps || resources["a"] != "last" {
				t.Errorf("then it is at revision %d with %q", again.At().Revision, resources["a"])
			}
		})
	}
}
