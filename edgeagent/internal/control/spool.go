package control

import (
	"fmt"
	"io"
	"iter"
	"os"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// spool holds a full state until its end has come and its digest is known to be right. It is written as the next snapshot
// as it arrives; what the disk does not take is held in memory, so that an agent with a full disk is kept in step too.
type spool struct {
	base     position
	settings *edgev1.Welcome_Settings
	index    *index

	file   *os.File
	size   int64 // of file, in whole changes
	err    error // the disk's
	tail   []change
	frames []byte // buffer
}

// newSpool begins the file at path. With an error in err it holds everything in memory.
func newSpool(path string, base position, settings *edgev1.Welcome_Settings, broken error) *spool {
	s := &spool{base: base, settings: settings, index: newIndex(), err: broken}
	if s.err != nil {
		return s
	}
	head, err := appendSettings(appendHeader(nil, base), settings)
	if err != nil {
		s.err = err
		return s
	}
	if s.file, s.err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode); s.err != nil {
		return s
	}
	s.write(head)
	return s
}

// add takes changes in. In a full state, a deleted resource is no resource.
func (s *spool) add(changes []change) {
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

func (s *spool) write(frames []byte) bool {
	if s.err != nil {
		return false
	}
	if _, s.err = s.file.Write(frames); s.err != nil {
		return false
	}
	s.size += int64(len(frames))
	return true
}

// changes reads back what was added.
func (s *spool) changes() iter.Seq2[change, error] {
	return ahead(func(yield func(change, error) bool) {
		if s.file != nil && s.size > 0 {
			f, _, err := readHeader(io.NewSectionReader(s.file, 0, s.size))
			if err != nil {
				yield(change{}, fmt.Errorf("read back a full state: %w", err))
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
					yield(change{}, fmt.Errorf("read back a full state: %w", errDamaged))
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

// seal ends the file with a commit.
func (s *spool) seal(end commit) error {
	s.write(appendCommit(nil, end))
	return s.err
}

// discard removes the file, unless it has become a snapshot.
func (s *spool) discard() {
	if s.file != nil {
		os.Remove(s.file.Name())
		s.file.Close()
		s.file = nil
	}
}
