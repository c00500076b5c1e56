// Package objectstest holds what any store of replies has to keep, as tests that know nothing of
// how it lies on the disk: what is stored is there after a restart and a kill; a damaged file gives
// no wrong byte; a full disk loses no client; the disk never holds more than the limit; what is
// used stays; what is unwanted goes. Another format of the store is judged by them.
package objectstest

import (
	"context"
	"io"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// Store is a store as the tests see it. See [objects.Store].
type Store interface {
	Begin(k objects.Key, asof int64) Fill
	Lookup(k objects.Key) []Entry
	Freshen(e Entry, h objects.Head) error
	Drop(e Entry)
	Sweep(ctx context.Context) (whole bool)
	Stats() objects.Stats
	Run(ctx context.Context) error
	Close() error
}

// Fill is a body on its way into the store. See [objects.Fill].
type Fill interface {
	Head(h objects.Head) error
	io.Writer
	Commit() (Entry, error)
	Abort(err error)
	Reader(ctx context.Context, offset int64) (io.ReadCloser, error)
}

// Entry is a stored reply. See [objects.Entry].
type Entry interface {
	Head() *objects.Head
	// Open opens the body to be read at any offset. An error is a miss.
	Open() (Body, error)
}

// Body is an open body.
type Body interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Open opens a store.
type Open func(objects.Config) (Store, error)

// Objects opens the store of package objects.
func Objects(cfg objects.Config) (Store, error) {
	s, err := objects.Open(cfg)
	if err != nil {
		return nil, err
	}
	return store{s}, nil
}

type store struct{ *objects.Store }

func (s store) Begin(k objects.Key, asof int64) Fill { return fill{s.Store.Begin(k, asof)} }

func (s store) Lookup(k objects.Key) (all []Entry) {
	for _, e := range s.Store.Lookup(k) {
		all = append(all, entry{e})
	}
	return all
}

func (s store) Freshen(e Entry, h objects.Head) error { return s.Store.Freshen(e.(entry).Entry, h) }
func (s store) Drop(e Entry)                          { s.Store.Drop(e.(entry).Entry) }

type fill struct{ *objects.Fill }

func (f fill) Commit() (Entry, error) {
	e, err := f.Fill.Commit()
	return entry{e}, err
}

func (f fill) Reader(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return f.Fill.Reader(ctx, offset)
}

type entry struct{ objects.Entry }

func (e entry) Open() (Body, error) { return e.Entry.Open() }
