package objects

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync/atomic"
)

// An object file is
//
//	body | CRC32C of each 64 KiB of the body | head | trailer
//
// The body comes first, so that sendfile can send it from a fresh descriptor's own position; what
// is known only at the end comes last, so that nothing written is ever written again. The trailer
// is fixed in size, is found from the end of the file, and its checksum covers the lengths and
// checksums of all the rest: a file without a good one is no object.
//
// A sidecar file, named like its object plus ".h", is head | trailer, and replaces the head (RFC
// 9111 4.3.4). One that does not verify is ignored: the object's own head is older but was never
// wrong.
const (
	chunkBytes   = 64 << 10
	blockBytes   = 4 << 10
	trailerBytes = 64

	objectMagic  = "ewobject"
	sidecarMagic = "ewhead.."
	version      = 1

	sidecarSuffix = ".h"
	nameBytes     = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("corrupt object")

type trailer struct {
	magic    string
	key      Key
	seq      uint64
	length   int64 // of the body
	headLen  uint32
	tableCRC uint32
	headCRC  uint32
}

func (t *trailer) append(b []byte) []byte {
	start := len(b)
	b = append(b, t.magic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, t.headLen)
	b = append(b, t.key[:]...)
	b = binary.LittleEndian.AppendUint64(b, t.seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.length))
	b = binary.LittleEndian.AppendUint32(b, t.tableCRC)
	b = binary.LittleEndian.AppendUint32(b, t.headCRC)
	b = append(b, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// parseTrailer reads a trailer that must belong to an object or sidecar (magic) of fileSize bytes.
func parseTrailer(b []byte, magic string, fileSize int64) (trailer, error) {
	le := binary.LittleEndian
	if len(b) != trailerBytes || string(b[:8]) != magic || le.Uint32(b[8:]) != version ||
		le.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return trailer{}, errCorrupt
	}
	t := trailer{
		magic: magic, headLen: le.Uint32(b[12:]), key: Key(b[16:32]), seq: le.Uint64(b[32:]),
		length: int64(le.Uint64(b[40:])), tableCRC: le.Uint32(b[48:]), headCRC: le.Uint32(b[52:]),
	}
	want := int64(t.headLen) + trailerBytes
	if magic == objectMagic {
		want += t.length + tableBytes(t.length)
	}
	if t.length < 0 || t.headLen > maxHeadBytes || want != fileSize {
		return trailer{}, errCorrupt
	}
	return t, nil
}

func tableBytes(length int64) int64 { return (length + chunkBytes - 1) / chunkBytes * 4 }

// blocks returns the number of 4 KiB blocks that a file of n bytes is charged.
func blocks(n int64) int64 { return (n + blockBytes - 1) / blockBytes }

// object is one stored reply as decoded from disk. It never changes; a new head makes a new object
// of the same file and body.
type object struct {
	id
	size     int64 // of the object file
	tableCRC uint32
	head     Head
	weight   int64       // bytes of memory without body, about
	visited  atomic.Bool // used since memory was last freed

	asked atomic.Bool            // its body was asked for before
	body  atomic.Pointer[[]byte] // the whole body; set only while the object is in its shard's heads, under its mu
}

// id is the content of a file's name: enough to account for, order and replace an object without
// opening it.
type id struct {
	key    Key
	seq    uint64 // unique; later commits have higher ones. Never 0
	blocks uint32 // of the object file, without sidecar
	sel    uint32 // hash of Selecting
}

func (i id) name() string {
	var b [nameBytes]byte
	hex.Encode(b[:32], i.key[:])
	var n [16]byte
	binary.BigEndian.PutUint64(n[:], i.seq)
	binary.BigEndian.PutUint32(n[8:], i.blocks)
	binary.BigEndian.PutUint32(n[12:], i.sel)
	hex.Encode(b[32:], n[:])
	return string(b[:])
}

func parseName(name string) (id, bool) {
	var raw [nameBytes / 2]byte
	if len(name) != nameBytes {
		return id{}, false
	}
	if _, err := hex.Decode(raw[:], []byte(name)); err != nil {
		return id{}, false
	}
	i := id{
		key: Key(raw[:16]), seq: binary.BigEndian.Uint64(raw[16:]),
		blocks: binary.BigEndian.Uint32(raw[24:]), sel: binary.BigEndian.Uint32(raw[28:]),
	}
	return i, i.seq != 0 && i.name() == name
}

func selectingHash(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// folder returns the number of the folder of a key: 12 bits, so there are 4,096 folders, of which
// the first 4 bits pick the shard. 10,000,000 objects make about 2,400 files a folder.
func (k Key) folder() int { return int(k[0])<<4 | int(k[1])>>4 }

func (k Key) shard() int { return int(k[0]) >> 4 }

// folderPath is relative to the cache folder.
func folderPath(folder int) string {
	const digits = "0123456789abcdef"
	path := []byte("objects/0/00")
	path[8], path[10], path[11] = digits[folder>>8], digits[folder>>4&0xf], digits[folder&0xf]
	return string(path)
}

// readObject decodes the tail of an object file and, if sidecar, the newer head beside it.
func (s *Store) readObject(i id, sidecar bool) (*object, error) {
	watched, ok := s.enterUnlessHung()
	if !ok {
		return nil, errHung
	}
	defer s.watch.leaveTurn(watched)
	f, err := os.Open(s.path(i))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o, err := readTail(f, i)
	if err != nil {
		return nil, err
	}
	defer s.decode(o)
	if !sidecar {
		return o, nil
	}
	b, err := os.ReadFile(s.path(i) + sidecarSuffix)
	if err == nil {
		err = o.replaceHead(b)
	}
	if err != nil {
		s.note("read", fmt.Errorf("read newer head of %s: %w", i.name(), err))
	}
	return o, nil
}

// tailGuess covers trailer, head and checksums of most objects with one read.
const tailGuess = 4 << 10

func readTail(f *os.File, i id) (*object, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := st.Size()
	if size < trailerBytes || blocks(size) != int64(i.blocks) {
		return nil, errCorrupt
	}
	buf := make([]byte, min(size, tailGuess))
	if err := readFull(f, buf, size-int64(len(buf))); err != nil {
		return nil, err
	}
	t, err := parseTrailer(buf[len(buf)-trailerBytes:], objectMagic, size)
	if err != nil {
		return nil, err
	}
	if t.key != i.key || t.seq != i.seq {
		return nil, errCorrupt
	}
	if need := int(t.headLen) + trailerBytes; need > len(buf) {
		buf = make([]byte, need)
		if err := readFull(f, buf, size-int64(need)); err != nil {
			return nil, err
		}
	}
	end := len(buf) - trailerBytes
	raw := append([]byte(nil), buf[end-int(t.headLen):end]...)
	o := &object{id: i, size: size, tableCRC: t.tableCRC}
	if err := o.setHead(raw, t); err != nil {
		return nil, err
	}
	if selectingHash(o.head.Selecting) != i.sel {
		return nil, errCorrupt
	}
	return o, nil
}

// setHead decodes raw, which the object keeps.
func (o *object) setHead(raw []byte, t trailer) error {
	if crc32.Checksum(raw, castagnoli) != t.headCRC {
		return errCorrupt
	}
	h, err := parseHead(raw)
	if err != nil {
		return errCorrupt
	}
	h.Length = t.length
	o.head, o.weight = h, int64(len(raw))+objectOverhead
	return nil
}

// held returns how much memory the object takes. Callers hold the shard's mu.
func (o *object) held() int64 {
	if body := o.body.Load(); body != nil {
		return o.weight + int64(len(*body))
	}
	return o.weight
}

// objectOverhead is about what a decoded object costs beside its head's bytes: the struct and its
// place in a map.
const objectOverhead = 400

// decodedOverhead is about what the result of Config.Decode takes: some strings, and where they are
// in the head.
const decodedOverhead = 500

func (o *object) replaceHead(b []byte) error {
	cut := len(b) - trailerBytes
	if cut < 0 {
		return errCorrupt
	}
	t, err := parseTrailer(b[cut:], sidecarMagic, int64(len(b)))
	if err != nil {
		return err
	}
	if t.key != o.key || t.seq != o.seq || t.length != o.head.Length {
		return errCorrupt
	}
	return o.setHead(b[:cut:cut], t)
}

// readFull reads all of p at off; a file that ends before is corrupt.
func readFull(f io.ReaderAt, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return errCorrupt
	}
	return err
}
