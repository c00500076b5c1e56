package state

import (
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// What is on the disk of one epoch is not said to be there of another, whose full state the disk
// does not take: whether it was there before, or comes there at the same moment.
func TestNothingOfAnotherEpochIsSaidToBePersisted(t *testing.T) {
	t.Parallel()
	for _, moment := range []string{"before", "at the same moment"} {
		t.Run(moment, func(t *testing.T) {
			t.Parallel()
			for range 20 {
				installUnwritable(t, moment == "before")
			}
		})
	}
}

func installUnwritable(t *testing.T, before bool) {
	t.Helper()
	d, err := Open(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	receive := func(epoch string, revision int64) *Spool {
		s := d.Spool(Position{Epoch: epoch, Revision: revision}, new(edgev1.Welcome_Settings))
		s.Add([]Change{{Key: "accounts/a", Mod: revision, Create: revision, Value: []byte("x")}})
		return s
	}
	first := receive("e1", 100)
	d.Install(first, 100, time.Time{})
	first.Discard()
	second := receive("e2", 150)
	defer second.Discard()
	if err := os.Mkdir(d.path("journal", 2), 0o700); err != nil { // as if there were no room for it
		t.Fatal(err)
	}
	var syncing sync.WaitGroup
	syncing.Go(d.sync)
	if before {
		syncing.Wait()
		if persisted, durable := d.Durable(); persisted != 100 || !durable {
			t.Fatalf("revision %d is persisted (durable: %v)", persisted, durable)
		}
	}
	d.Install(second, 150, time.Time{})
	syncing.Wait()
	if persisted, durable := d.Durable(); persisted != 0 || durable {
		t.Fatalf("of %s, of which nothing is there, revision %d is persisted (durable: %v)",
			d.At().Epoch, persisted, durable)
	}
}
