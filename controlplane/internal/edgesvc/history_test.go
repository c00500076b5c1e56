package edgesvc

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

// etcd begins an epoch while edges are connected to two control planes: all come again and take everything, and none counts
// as having applied a revision by what it had applied in the epoch before, whichever control plane is asked.
func TestAnotherEpochWhileEdgesAreConnected(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	a, b := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	first := a.setting(t, "one")
	one, two := connect(t, a, hello("e1")), connect(t, b, hello("e2"))
	one.reaches(first)
	two.reaches(first)
	if got, err := a.WaitApplied(t.Context(), first, "", 2); err != nil || got.GetApplied() != 2 {
		t.Fatalf("before: %v, %v", got, err)
	}
	client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	epoch := a.Epoch()
	if _, err := client.Put(t.Context(), prefix+"meta/epoch", "another"); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*agent{one, two} {
		if err := e.ends(); status.Code(err) != codes.Aborted {
			t.Errorf("edge %s: the stream ended with %v", e.hello.GetId(), err)
		}
	}
	eventually(t, "both are in the epoch", func() bool { return a.Epoch() != epoch && a.Epoch() == b.Epoch() })
	for _, p := range []*plane{a, b} {
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		got, err := p.WaitApplied(short, first, "", 2)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || got.GetApplied() != 0 {
			t.Errorf("while the edges are away: %v, %v; want that none has applied it", got, err)
		}
	}
	one, two = connect(t, a, one.resume(), holding(one)), connect(t, b, two.resume(), holding(two))
	for _, e := range []*agent{one, two} {
		e.until("a full state of the epoch", func(e *feedtest.Edge) bool { return e.Fulls == 1 && e.Epoch == a.Epoch() })
	}
	second := b.setting(t, "two")
	for _, p := range []*plane{a, b} {
		if got, err := p.WaitApplied(t.Context(), second, "", 2); err != nil || got.GetApplied() != 2 {
			t.Errorf("after: %v, %v", got, err)
		}
	}
}
