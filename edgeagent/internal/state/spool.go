package state

import (
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Spool holds a full state until its end has come and its digest is known to be right. It is
// written as the next snapshot as it arrives; what the disk does not take is held in memory, so
// that an agent with a full disk is kept in step too.
type Spool struct {
	base     Position
	settings *edgev1.Welcome_Settings
	index    *index

	file   *os.File
	size   int64 // of file, in whole changes
	err    error // the disk's
	tail   []Change
	frames []byte // buffer
}

// newSpool begins the file at path. With an error in err it holds everything in memory.
func newSpool(path string, base Position, settings *edgev1.Welcome_Settings, broken error) *Spool {
	s := &Spool{base: base, settings: settings, index: newIndex(), err: broken}
	if s.err != nil {
		return s
	}
	head, err := appendSettings(appendHeader(nil, base), settings)
	if err != nil {
		s.err = err
		return s
	}
	if s.file, s.err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, FileMode); s.err != nil {
		return s
	}
	s.write(head)
	return s
}

// Add adds changes. In a full state, a deleted resource is one that does not exist.
func (s *Spool) Add(changes []Change) {
	s.frames = s.frames[:0]
	for _, c := range changes {
		s.index.apply(c)
		if s.err == nil {
			s.frames = appendChange(s.frames, c)
		}
	}
	if !s.write(s.frames) {
		s.tail = append(s.tail, changes...)
	}
}

func (s *Spool) write(frames []byte) bool {
	if s.err != nil {
		return false
	}
	if _, s.err = s.file.Write(frames); s.err != nil {
		return false
	}
	s.size += int64(len(frames))
	return true
}

// Changes yields what was added.
func (s *Spool) Changes() iter.Seq2[Change, error] {
	return ahead(func(yield func(Change, error) bool) {
		if s.file != nil && s.size > 0 {
			f, _, err := readHeader(io.NewSectionReader(s.file, 0, s.size))
			if err != nil {
				yield(Change{}, fmt.Errorf("read back a full state: %w", err))
				return
			}
			for {
				kind, body, err := f.next()
				if err == io.EOF {
					break
				}
				if kind == frameSet && err == nil {
					continue
				}
				c, ok := decodeChange(kind, body)
				if err != nil || !ok {
					yield(Change{}, fmt.Errorf("read back a full state: %w", errDamaged))
					return
				}
				if !yield(c, nil) {
					return
				}
			}
		}
		for _, c := range s.tail {
			if !yield(c, nil) {
				return
			}
		}
	})
}

// seal writes the commit that ends the file.
func (s *Spool) seal(end commit) error {
	s.write(appendCommit(nil, end))
	return s.err
}

// Discard removes the file, unless it has become a snapshot.
func (s *Spool) Discard() {
	if s.file != nil {
		os.Remove(s.file.Name())
		s.file.Close()
		s.file = nil
	}
}

// Epoch returns the epoch that the state is kept under.
func (s *Spool) Epoch() string { return s.base.Epoch }

// Digest returns the digest of what was added.
func (s *Spool) Digest() topology.Digest { return s.index.digest }

// Lasting returns how many resources were added, without purges.
func (s *Spool) Lasting() int { return s.index.lasting }
