package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/seal"
)

// Whatever number of control planes starts at the same time, they have one keyset of each name.
func TestControlPlanesShareKeysets(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	stores := make([]*store.Store, 5)
	var opening sync.WaitGroup
	for i := range stores {
		opening.Go(func() { stores[i] = storetest.Open(t, store.Config{Prefix: prefix}) })
	}
	opening.Wait()
	if t.Failed() {
		return
	}
	for i, s := range stores {
		sealed, err := s.Seal("auth/ca/1", []byte("canary"))
		if err != nil {
			t.Fatal(err)
		}
		other := stores[(i+1)%len(stores)]
		if plain, err := other.Open(t.Context(), "auth/ca/1", sealed); err != nil || string(plain) != "canary" {
			t.Errorf("opened at another control plane: %q, %v", plain, err)
		}
		if _, err := other.Open(t.Context(), "auth/ca/2", sealed); !errors.Is(err, seal.ErrForged) {
			t.Errorf("opened as another record: %v", err)
		}
	}
}

// What only control planes may read is sealed with what edges do not get.
func TestEdgesHaveNoKeysOfControlPlanes(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	sealed, err := s.Seal("auth/ca/1", []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	ring := s.EdgeKeys("")
	if names := ring.Names(); strings.Join(names, " ") != store.DefaultKeyset {
		t.Errorf("edges have %q", names)
	}
	for _, name := range ring.Names() {
		if ring.Keyset(name).Knows(sealed) {
			t.Errorf("keyset %q opens it", name)
		}
	}
}

func TestOpenWithAnotherKey(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	storetest.Open(t, store.Config{Prefix: prefix})
	other, err := seal.CreateKey(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	wrapped := ""
	_, err = store.Open(t.Context(),
		store.Config{Client: client, Prefix: prefix, Key: func(by string) (*seal.Key, error) {
			wrapped = by
			return other, nil
		}})
	if first, _ := storetest.Key(t)(""); !errors.Is(err, seal.ErrWrongKey) || wrapped != first.ID() {
		t.Errorf("opened: %v, and its keys are wrapped by %q, want %s", err, wrapped, first.ID())
	}
}

// Keysets in etcd are ciphertext.
func TestKeysetsAreWrapped(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	clear, err := s.EdgeKeys("").Keyset(store.DefaultKeyset).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	values, err := s.Values(t.Context(), "auth/dek/")
	if err != nil || len(values) != 2 {
		t.Fatalf("%d keysets, %v", len(values), err)
	}
	for key, value := range values {
		if bytes.Contains(value, clear[len(clear)-32:]) || bytes.Contains(value, []byte("type.googleapis.com")) {
			t.Errorf("%s lies in the clear", key)
		}
	}
}

// The key file is replaced without a pause: a new key behind the old one, then before it, a
// rotation, and the old one goes.
func TestKeyFileIsReplaced(t *testing.T) {
	t.Parallel()
	prefix, dir := storetest.Prefix(), t.TempDir()
	var lines []string
	for _, name := range []string{"old", "new"} {
		path := filepath.Join(dir, name)
		if _, err := seal.CreateKey(path); err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(line))
	}
	open := func(lines ...string) (*store.Store, error) {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := seal.ReadKey(path)
		if err != nil {
			t.Fatal(err)
		}
		client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return store.Open(t.Context(),
			store.Config{Client: client, Prefix: prefix, Key: func(string) (*seal.Key, error) { return key, nil }})
	}
	mustOpen := func(lines ...string) *store.Store {
		t.Helper()
		s, err := open(lines...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := mustOpen(lines[0])
	mustPut(t, first, "acme", append(secretPuts("acme", "shop", "canary"), accountPut("acme", ""))...)
	behind := mustOpen(lines[0], lines[1])
	if _, err := open(lines[1]); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("opened with the new key alone: %v", err)
	}
	before := mustOpen(lines[1], lines[0])
	if err := before.RotateSecrets(t.Context(), func(int) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := open(lines[0]); !errors.Is(err, seal.ErrWrongKey) {
		t.Errorf("opened with the old key alone: %v", err)
	}
	mustPut(t, mustOpen(lines[1]), "acme", secretPuts("acme", "shop", "canary-2")...)
	checkSecret(t, behind, "acme", "shop", "canary-2")
}
