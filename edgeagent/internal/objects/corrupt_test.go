package objects

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// neverWrong reads key 1 in every way; bytes may be missing but never be others. It reports whether
// all were there.
func neverWrong(t *testing.T, s *Store, want []byte) (whole bool) {
	t.Helper()
	length := len(want)
	entries := s.Lookup(testKey(1))
	if len(entries) == 0 {
		return false
	}
	e := entries[0]
	if h := e.Head(); string(h.Meta) != "meta-1" || h.Length != int64(length) {
		t.Fatalf("wrong head: %+v", h)
	}
	b, err := e.Open()
	if errors.Is(err, ErrGone) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	off := rand.Int64N(int64(length))
	p := make([]byte, min(1000, int64(length)-off))
	if n, _ := b.ReadAt(p, off); !bytes.Equal(p[:n], want[off:off+int64(n)]) {
		t.Fatalf("wrong bytes in a range at %d", off)
	}
	got, err := readAll(b)
	if !bytes.Equal(got, want[:len(got)]) {
		t.Fatal("wrong bytes")
	}
	return err == nil && len(got) == length
}

func TestDamageWhileServing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	path := s.path(put(t, s, 1, 300_000).o.id)
	if !neverWrong(t, s, testBody(1, 300_000)) {
		t.Fatal("not readable")
	}
	b, err := s.Lookup(testKey(1))[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := os.Truncate(path, 100_000); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(b); err == nil || !bytes.Equal(got, testBody(1, 300_000)[:len(got)]) {
		t.Errorf("an open body that was cut: %d bytes, %v", len(got), err)
	}
	if s.Lookup(testKey(1)) != nil || s.Stats().Errors["corrupt"] != 1 {
		t.Errorf("still there: %+v", s.Stats())
	}
}

// A damaged sidecar gives the head that the object was stored with.
func TestDamagedSidecar(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	e := put(t, s, 1, 5000)
	h := testHead(1, 0)
	h.Asof = 99
	if err := s.Freshen(e, h); err != nil {
		t.Fatal(err)
	}
	path := s.path(e.o.id) + sidecarSuffix
	s.Close()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for off := range len(good) {
		bad := bytes.Clone(good)
		bad[off] ^= 0x10
		if off%2 == 0 {
			bad = good[:off]
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if off%20 > 1 && off > 2 {
			continue // a store for every tenth is enough
		}
		s := openStore(t, dir)
		got := s.Lookup(testKey(1))
		if len(got) != 1 || got[0].Head().Asof != 10 || !neverWrong(t, s, testBody(1, 5000)) {
			t.Errorf("offset %d: %+v", off, got)
		}
		s.Close()
	}
}

func TestFilesThatAreNoObjectsGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	e := put(t, s, 1, 5000)
	path := s.path(e.o.id)
	s.Close()
	moved := filepath.Dir(path) + "/" + strings.Repeat("0", 40) + strings.Repeat("1", 24)
	for _, name := range []string{
		filepath.Dir(path) + "/junk", moved + sidecarSuffix, filepath.Dir(path) + "/" + strings.Repeat("Z", nameBytes),
	} {
		if err := os.WriteFile(name, []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, dir)
	if left := filesIn(t, filepath.Join(dir, objFolder)); len(left) != 1 || left[0] != path {
		t.Errorf("files: %v", left)
	}
	wantStored(t, s, 1, 5000)
	s.Close()
	// An object under another object's name is not that object.
	other := e.o.id
	other.key[15] ^= 1
	if err := os.Rename(path, filepath.Join(filepath.Dir(path), other.name())); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if got := s.Lookup(other.key); got != nil {
		t.Errorf("found %+v", got)
	}
}

func FuzzParseHead(f *testing.F) {
	h := testHead(1, 5)
	f.Add(appendHead(nil, &h))
	h.Asof, h.Status, h.Scope.Tags = math.MinInt64, math.MaxInt, make([]string, 100)
	h.RequestTime, h.ResponseTime = time.Unix(0, math.MinInt64), time.Unix(0, math.MinInt64)
	f.Add(appendHead(nil, &h))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(bytes.Clone(b))
		if err != nil {
			return
		}
		encoded := appendHead(nil, &h)
		again, err := parseHead(encoded)
		if err != nil || !bytes.Equal(appendHead(nil, &again), encoded) {
			t.Errorf("%+v is not what it encodes to: %+v, %v", h, again, err)
		}
		if n := h.encodedBytes(); n != len(encoded) {
			t.Errorf("%+v takes %d bytes, reckoned as %d", h, len(encoded), n)
		}
		for range field.Fields(h.Fields) {
		}
	})
}

func FuzzTail(f *testing.F) {
	tr := trailer{magic: objectMagic, length: 0}
	f.Add(tr.append(nil), int64(trailerBytes))
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		if tr, err := parseTrailer(b, objectMagic, size); err == nil &&
			tr.length+tableBytes(tr.length)+int64(tr.headLen)+trailerBytes != size {
			t.Errorf("%+v in a file of %d bytes", tr, size)
		}
		o := &object{}
		o.replaceHead(b)
	})
}
