// Package feedtest has the least edge that there can be: what a stream's messages leave an edge
// with, and whether they keep the protocol's promises.
package feedtest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Edge is an edge's topology. The zero value has nothing.
type Edge struct {
	// Epoch, Revision and Digest are where it stands.
	Epoch    string
	Revision int64
	Digest   topology.Digest
	// Records is what it holds, by key.
	Records map[string]*edgev1.Change

	// Fulls, CatchUps, Lives and Bookmarks count what it was sent, Changes the changes in them,
	// Compressed the chunks that were compressed.
	Fulls, CatchUps, Lives, Bookmarks, Changes, Compressed int

	open   *edgev1.Begin
	chunks int64
	held   []*edgev1.Change
}

// Take applies a message. It reports whether a step was applied, and an error if the message breaks
// a promise.
func (e *Edge) Take(m *edgev1.SyncResponse) (step bool, err error) {
	switch m := m.GetMessage().(type) {
	case *edgev1.SyncResponse_Welcome:
		e.Epoch = m.Welcome.GetEpoch()
	case *edgev1.SyncResponse_Begin:
		return false, e.begin(m.Begin)
	case *edgev1.SyncResponse_Chunk:
		if e.open == nil || m.Chunk.GetSequence() != e.chunks {
			return false, fmt.Errorf("chunk %d out of turn", m.Chunk.GetSequence())
		}
		return false, e.chunk(m.Chunk)
	case *edgev1.SyncResponse_End:
		return true, e.end(m.End)
	case *edgev1.SyncResponse_Live:
		return true, e.live(m.Live)
	case *edgev1.SyncResponse_Bookmark:
		return false, e.bookmark(m.Bookmark)
	}
	return false, nil
}

func (e *Edge) begin(b *edgev1.Begin) error {
	switch {
	case e.open != nil:
		return errors.New("a state inside a state")
	case b.GetFull():
		e.Fulls++
	case b.GetFrom() != e.Revision:
		return fmt.Errorf("catch-up from %d, the edge is at %d", b.GetFrom(), e.Revision)
	default:
		e.CatchUps++
	}
	e.open, e.chunks, e.held = b, 0, nil
	return nil
}

func (e *Edge) chunk(c *edgev1.Chunk) error {
	e.chunks++
	e.held = append(e.held, c.GetChanges()...)
	if len(c.GetZstd()) == 0 {
		return nil
	}
	e.Compressed++
	plain, err := decoder().DecodeAll(c.GetZstd(), nil)
	if err != nil {
		return fmt.Errorf("chunk %d: %w", c.GetSequence(), err)
	}
	changes := new(edgev1.Changes)
	if err := proto.Unmarshal(plain, changes); err != nil {
		return fmt.Errorf("chunk %d: %w", c.GetSequence(), err)
	}
	e.held = append(e.held, changes.GetChanges()...)
	return nil
}

// decoder is bounded as the protocol says.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(4<<20),
		zstd.WithDecoderMaxWindow(4<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

func (e *Edge) end(end *edgev1.End) error {
	b := e.open
	switch {
	case b == nil:
		return errors.New("end without begin")
	case end.GetTarget() != b.GetTarget():
		return fmt.Errorf("end at %d, begin said %d", end.GetTarget(), b.GetTarget())
	}
	if b.GetFull() {
		e.Records, e.Digest = nil, topology.Digest{}
	}
	if err := e.apply(e.held); err != nil {
		return err
	}
	e.open, e.held, e.Revision = nil, nil, end.GetTarget()
	return e.check(end.GetDigest())
}

func (e *Edge) live(l *edgev1.Live) error {
	e.Lives++
	if e.open != nil {
		return errors.New("a live step inside a state")
	}
	if l.GetPrev() != e.Revision || l.GetRevision() <= e.Revision {
		return fmt.Errorf("live step %d after %d, the edge is at %d", l.GetRevision(), l.GetPrev(), e.Revision)
	}
	e.Revision = l.GetRevision()
	return e.apply(l.GetChanges())
}

func (e *Edge) bookmark(b *edgev1.Bookmark) error {
	if b.GetRevision() == 0 {
		return nil
	}
	e.Bookmarks++
	if b.GetRevision() < e.Revision {
		return fmt.Errorf("bookmark at %d, the edge is at %d", b.GetRevision(), e.Revision)
	}
	e.Revision = b.GetRevision()
	if len(b.GetDigest()) == 0 {
		return nil // not known
	}
	return e.check(b.GetDigest())
}

func (e *Edge) check(digest []byte) error {
	if !bytes.Equal(digest, e.Digest[:]) {
		return fmt.Errorf("at revision %d the edge holds something else than it should: digest %x, want %x", e.Revision, e.Digest, digest)
	}
	return nil
}

func (e *Edge) apply(changes []*edgev1.Change) error {
	if e.Records == nil {
		e.Records = make(map[string]*edgev1.Change)
	}
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		if seen[c.GetKey()] {
			return fmt.Errorf("key %q twice in one step", c.GetKey())
		}
		seen[c.GetKey()] = true
		e.Changes++
		if old := e.Records[c.GetKey()]; old != nil {
			e.Digest.Remove(record(old))
			delete(e.Records, c.GetKey())
		}
		if c.Value != nil {
			e.Digest.Add(record(c))
			e.Records[c.GetKey()] = c
		}
	}
	return nil
}

func record(c *edgev1.Change) topology.Record {
	key, err := topology.ParseKey(c.GetKey())
	if err != nil {
		panic(err) // a test wrote it
	}
	return topology.Record{
		Key: key, CreateRevision: c.GetCreateRevision(), ModRevision: c.GetModRevision(), Value: c.Value,
	}
}
