package store_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Others write and etcd forgets all history while a write is being decided: it is decided again on
// what is there.
func TestWriteOverACompaction(t *testing.T) {
	t.Parallel()
	s, _, stop := server(t, filepath.Join(t.TempDir(), "data"), 0)
	t.Cleanup(stop)
	mustPut(t, s, "a", accountPut("a", ""))
	decided := 0
	_, err := s.Write(t.Context(), "a", store.RequestID{}, func(*store.State) (*store.Edit, error) {
		if decided++; decided == 1 {
			mustPut(t, s, "b", accountPut("b", ""))
			mustPut(t, s, "b", accountPut("b", "again"))
			if err := s.Compact(t.Context()); err != nil {
				return nil, err
			}
		}
		return &store.Edit{Puts: []store.Put{domainPut("a", "_wildcard.example.com")}}, nil
	})
	if err != nil || decided != 2 {
		t.Errorf("%v after %d decisions, want success after two", err, decided)
	}
	state, err := s.AccountState(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := state.Get(t.Context(), key("origins", "b", "o")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("read of a current state: %v", err)
	}
}
