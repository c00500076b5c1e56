package state

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// A state file is the magic and then frames: length and CRC32C of a payload, 4 bytes little-endian
// each, and the payload, which begins with its type. The first frame is a header. Then come steps:
// changes and settings, closed by a commit; what no commit closes never happened. A snapshot holds
// one step, from nothing; a journal holds any number, from the position in its header on.
const (
	// magic ends in the version of the format. A file of another version is as good as none: a full
	// state replaces it.
	magic = "EWSTATE1"

	frameHeader byte = 'H'
	framePut    byte = 'P'
	frameDelete byte = 'D'
	frameCommit byte = 'C'
	frameSet    byte = 'S'

	frameHead = 8
	// maxFrame is far above the largest record, because etcd takes no value over 1.5 MiB by
	// default, and keeps a damaged length from asking for all the memory there is.
	maxFrame = 16 << 20
)

var (
	errDamaged = errors.New("damaged state file")
	errUnread  = errors.New("the disk does not let a state file be read")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Change is one resource's new state, as exactly the bytes that were received, because a key of a
// kind that this agent does not know counts in the digest too.
type Change struct {
	Key         string
	Mod, Create int64
	Value       []byte // nil when deleted
}

// Position is a place in a history and the digest of everything up to there.
type Position struct {
	// Epoch is that of the control plane, or one of the agent's own within it, see [Own].
	Epoch    string
	Revision int64
	Digest   topology.Digest
}

// ownMark separates the two; no epoch of a control plane contains it.
const ownMark = "\n"

// Own returns an epoch of this agent's own within one of the control plane. It begins when the
// control plane says that the history before was another one, so that what is remembered by epoch
// and revision is not taken for part of it.
func Own(epoch string) string { return epoch + ownMark + rand.Text() }

// Common returns the epoch as the control plane knows it.
func Common(epoch string) string {
	epoch, _, _ = strings.Cut(epoch, ownMark)
	return epoch
}

// commit closes a step.
type commit struct {
	revision int64
	digest   topology.Digest
	asOf     time.Time // zero when unknown
}

// appendFrame adds a frame whose payload fill appends.
func appendFrame(b []byte, fill func([]byte) []byte) []byte {
	start := len(b)
	b = fill(append(b, make([]byte, frameHead)...))
	payload := b[start+frameHead:]
	binary.LittleEndian.PutUint32(b[start:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(payload, castagnoli))
	return b
}

func appendHeader(b []byte, base Position) []byte {
	return appendFrame(append(b, magic...), func(b []byte) []byte {
		b = append(b, frameHeader)
		b = binary.AppendUvarint(b, uint64(base.Revision))
		b = append(b, base.Digest[:]...)
		return append(b, base.Epoch...)
	})
}

func appendChange(b []byte, c Change) []byte {
	return appendFrame(b, func(b []byte) []byte {
		if c.Value == nil {
			b = append(b, frameDelete)
		} else {
			b = append(b, framePut)
		}
		b = binary.AppendUvarint(b, uint64(c.Mod))
		b = binary.AppendUvarint(b, uint64(c.Create))
		b = binary.AppendUvarint(b, uint64(len(c.Key)))
		b = append(b, c.Key...)
		return append(b, c.Value...)
	})
}

func appendSettings(b []byte, s *edgev1.Welcome_Settings) ([]byte, error) {
	raw, err := proto.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	return appendFrame(b, func(b []byte) []byte { return append(append(b, frameSet), raw...) }), nil
}

func appendCommit(b []byte, c commit) []byte {
	return appendFrame(b, func(b []byte) []byte {
		b = append(b, frameCommit)
		b = binary.AppendUvarint(b, uint64(c.revision))
		b = append(b, c.digest[:]...)
		var ms uint64
		if !c.asOf.IsZero() {
			ms = uint64(c.asOf.UnixMilli())
		}
		return binary.AppendUvarint(b, ms)
	})
}

// frameReader reads a state file from its beginning.
type frameReader struct {
	r *bufio.Reader
	// good is the offset behind the last whole frame.
	good    int64
	payload []byte
}

// readHeader checks the magic and returns the position that the file starts from.
func readHeader(r io.Reader) (*frameReader, Position, error) {
	f := &frameReader{r: bufio.NewReaderSize(r, 256<<10)}
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(f.r, head); err != nil {
		return nil, Position{}, torn(err)
	}
	if string(head) != magic {
		return nil, Position{}, errDamaged
	}
	f.good = int64(len(magic))
	kind, body, err := f.next()
	if err != nil {
		return nil, Position{}, torn(err)
	}
	base, ok := decodeHeader(body)
	if kind != frameHeader || !ok {
		return nil, Position{}, errDamaged
	}
	return f, base, nil
}

// torn returns the error of a frame where reading ends with err: errDamaged at the end of the file,
// and errUnread if there may be more.
func torn(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errDamaged
	}
	if errors.Is(err, errDamaged) || errors.Is(err, errUnread) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnread, err)
}

// next returns the next frame's type and body, which is valid until the call after it. The error is
// io.EOF at the end of the file, errDamaged where the file is torn or damaged, and errUnread where
// the disk does not let it be read.
func (f *frameReader) next() (kind byte, body []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		if err == io.EOF {
			return 0, nil, io.EOF
		}
		return 0, nil, torn(err)
	}
	n := binary.LittleEndian.Uint32(head[:4])
	if n == 0 || n > maxFrame {
		return 0, nil, errDamaged
	}
	payload, err := f.read(int(n))
	if err != nil {
		return 0, nil, torn(err)
	}
	if crc32.Checksum(payload, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return 0, nil, errDamaged
	}
	f.good += frameHead + int64(n)
	return payload[0], payload[1:], nil
}

// read reads n bytes. Its buffer grows as they arrive, so that a damaged length costs no more
// memory than the file has bytes.
func (f *frameReader) read(n int) ([]byte, error) {
	const step = 1 << 20
	f.payload = f.payload[:0]
	for len(f.payload) < n {
		start := len(f.payload)
		f.payload = append(f.payload, make([]byte, min(step, n-start))...)
		if _, err := io.ReadFull(f.r, f.payload[start:]); err != nil {
			return nil, err
		}
	}
	return f.payload, nil
}

func decodeHeader(b []byte) (Position, bool) {
	revision, b, ok := cutInt(b)
	if !ok || len(b) < len(topology.Digest{}) {
		return Position{}, false
	}
	p := Position{Revision: revision, Digest: topology.Digest(b[:16]), Epoch: string(b[16:])}
	return p, true
}

// decodeChange returns a change that shares nothing with b.
func decodeChange(kind byte, b []byte) (c Change, ok bool) {
	if c.Mod, b, ok = cutInt(b); !ok {
		return Change{}, false
	}
	if c.Create, b, ok = cutInt(b); !ok {
		return Change{}, false
	}
	n, b, ok := cutInt(b)
	if !ok || n > int64(len(b)) || kind == frameDelete && n != int64(len(b)) {
		return Change{}, false
	}
	c.Key = string(b[:n])
	if kind == framePut {
		c.Value = append(make([]byte, 0, len(b)-int(n)), b[n:]...)
	}
	return c, true
}

func decodeCommit(b []byte) (c commit, ok bool) {
	if c.revision, b, ok = cutInt(b); !ok || len(b) < len(c.digest) {
		return commit{}, false
	}
	c.digest = topology.Digest(b[:16])
	ms, rest, ok := cutInt(b[16:])
	if !ok || len(rest) > 0 {
		return commit{}, false
	}
	if ms > 0 {
		c.asOf = time.UnixMilli(ms)
	}
	return c, true
}

func cutInt(b []byte) (v int64, rest []byte, ok bool) {
	u, n := binary.Uvarint(b)
	if n <= 0 || u > math.MaxInt64 {
		return 0, nil, false
	}
	return int64(u), b[n:], true
}
