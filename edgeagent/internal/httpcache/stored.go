package httpcache

import (
	"io"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// entrySource is a stored body for one reply. All its parts are of one open body, because the
// object may be replaced or evicted between two of them.
type entrySource struct {
	entry objects.Entry
	// called before the disk is used, see [Request.BeforeDisk]; nil for nothing
	beforeDisk func()
	mem        []byte        // the body, or
	body       *objects.Body // the body while parts are open
	parts      int           // that are open
}

func (s *entrySource) open(offset, length int64) (part, error) {
	if s.mem == nil && s.parts == 0 {
		if s.mem = s.entry.Bytes(); s.mem == nil {
			body, err := s.openBody()
			if err != nil {
				return part{}, err
			}
			s.mem, s.body = body.Bytes(), body
		}
	}
	if s.mem != nil {
		return part{mem: s.mem[offset : offset+length]}, nil
	}
	s.parts++
	if file := s.body.File(); file != nil {
		return part{file: file, offset: offset, at: s.body, closer: s}, nil
	}
	return part{stream: io.NewSectionReader(s.body, offset, length), closer: s}, nil
}

func (s *entrySource) openBody() (*objects.Body, error) {
	if s.beforeDisk == nil {
		return s.entry.Open()
	}
	return s.entry.OpenAfter(s.beforeDisk)
}

// Close closes one part.
func (s *entrySource) Close() error {
	if s.parts--; s.parts > 0 {
		return nil
	}
	return s.body.Close()
}
