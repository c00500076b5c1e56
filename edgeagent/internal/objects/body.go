package objects

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// verifyAtOnce is the size up to which Open verifies a body that was not verified since boot: that
// takes some 100 µs a MiB, and makes a corrupt object a miss instead of a broken reply.
const verifyAtOnce = 1 << 20

// inMemory is the size up to which a body that is asked for a second time is kept in memory,
// because opening and closing its file costs more than copying it. The first request is not enough,
// because most files of a large cache are asked for once.
const inMemory = 64 << 10

var chunkPool = sync.Pool{New: func() any { return new([chunkBytes]byte) }}

// Body is the open body of an object: an io.ReaderAt for any number of goroutines. It stays
// readable when the object is evicted or dropped. Close it.
//
// Every byte is verified before it is returned, once since boot: until then reads go chunk by chunk
// through a buffer, and a chunk that does not match its checksum is an error that also drops the
// object.
type Body struct {
	s      *Store
	o      *object
	file   *os.File // nil if mem is the body
	shared bool     // file is not this body's own
	mem    []byte

	mu       sync.Mutex // guards what follows
	table    []byte     // checksums; nil when the body is verified
	buf      *[chunkBytes]byte
	have     int64 // chunk in buf, -1 for none
	verified int64 // chunks that matched, from the first on without gap
	closed   bool
}

// Bytes returns the body if it is in memory, nil otherwise. It must not be changed, and stays what
// it is.
func (e Entry) Bytes() []byte {
	if mem := e.o.body.Load(); mem != nil && !e.s.hung.Load() {
		return *mem
	}
	return nil
}

// Open opens the body. [ErrGone] means that there is none any more, or that it is corrupt: treat it
// as a miss.
func (e Entry) Open() (*Body, error) { return e.OpenAfter(func() {}) }

// OpenAfter is Open, and calls beforeDisk if it has to ask the disk, before it does.
func (e Entry) OpenAfter(beforeDisk func()) (*Body, error) {
	s, o := e.s, e.o
	if s.hung.Load() {
		return nil, ErrGone
	}
	if mem := e.Bytes(); mem != nil {
		return &Body{s: s, o: o, mem: mem}, nil
	}
	sh := s.shards[o.key.shard()]
	b := &Body{s: s, o: o, file: sh.pins.borrow(o.seq), shared: true, have: -1}
	if b.file == nil {
		beforeDisk()
		var err error
		if b, err = e.openFile(sh); err != nil {
			return nil, err
		}
	}
	if b.table == nil && o.head.Length <= inMemory && o.asked.Swap(true) {
		beforeDisk()
		b.remember()
	}
	return b, nil
}

// openFile opens a body whose file is not shared yet.
func (e Entry) openFile(sh *shard) (*Body, error) {
	s, o := e.s, e.o
	sh.mu.RLock()
	i := sh.find(o.key, o.seq)
	verified := atomic.LoadUint32(&sh.slots[i].flags)&flagVerified != 0
	sh.mu.RUnlock()
	if i == 0 {
		return nil, ErrGone
	}
	// The pin comes before the open, so that a file that is deleted after it stays in the account.
	sh.pins.take(o.seq)
	b, err := s.openBody(o, verified)
	if err != nil {
		s.unpin(o.key, o.seq)
		s.dropUnreadable(o.id, err)
		return nil, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if b.table == nil {
		file := sh.pins.share(o.seq, b.file)
		if file != b.file {
			b.file.Close()
		}
		b.file, b.shared = file, true
	}
	return b, nil
}

// remember keeps the body in memory. If it cannot be read, its reader gets the error.
func (b *Body) remember() {
	body := make([]byte, b.Size())
	if readFull(b.file, body, 0) != nil {
		return
	}
	sh := b.s.shards[b.o.key.shard()]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.keepBody(b.o, body, b.s.memoryShare())
}

func (s *Store) openBody(o *object, verified bool) (*Body, error) {
	watched, ok := s.enterUnlessHung()
	if !ok {
		return nil, errHung
	}
	defer s.watch.leaveTurn(watched)
	file, err := os.Open(s.path(o.id))
	if err != nil {
		return nil, err
	}
	b := &Body{s: s, o: o, file: file, have: -1}
	if verified {
		st, err := file.Stat()
		if err == nil && st.Size() != o.size {
			err = errCorrupt
		}
		if err != nil {
			file.Close()
			return nil, err
		}
		return b, nil
	}
	if err := b.prepare(); err != nil {
		file.Close()
		b.recycle()
		return nil, err
	}
	return b, nil
}

// prepare reads the checksums of a body that is not verified, and verifies a small one.
func (b *Body) prepare() error {
	if _, err := readTail(b.file, b.o.id); err != nil {
		return err
	}
	length := b.o.head.Length
	b.table = make([]byte, tableBytes(length))
	if err := readFull(b.file, b.table, length); err != nil {
		return err
	}
	if crc32.Checksum(b.table, castagnoli) != b.o.tableCRC {
		return errCorrupt
	}
	if length > verifyAtOnce {
		return nil
	}
	for c := int64(0); c*chunkBytes < length; c++ {
		if err := b.fetch(c); err != nil {
			return err
		}
	}
	b.noteVerified()
	return nil
}

// Size returns the length of the body in bytes.
func (b *Body) Size() int64 { return b.o.head.Length }

// Bytes returns the body if it is in memory, nil otherwise. It must not be changed.
func (b *Body) Bytes() []byte { return b.mem }

// File returns the file of the body, for sendfile. The body is its first Size bytes; what follows
// is not part of it. The file is shared, so its position must not be used. It is nil while the body
// is not verified, and if the body is in memory: then read it.
func (b *Body) File() *os.File {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.table != nil {
		return nil
	}
	return b.file
}

// ReadAt is an io.ReaderAt over the body alone.
func (b *Body) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("read before the start of a body")
	}
	if off >= b.Size() {
		return 0, io.EOF
	}
	var eof error
	if rest := b.Size() - off; int64(len(p)) > rest {
		p, eof = p[:rest], io.EOF
	}
	if b.mem != nil {
		return copy(p, b.mem[off:]), eof
	}
	watched := b.s.watch.enterInTurn()
	n, err := b.readAt(p, off)
	b.s.watch.leaveTurn(watched)
	if errors.Is(err, os.ErrClosed) {
		return n, err
	}
	if err != nil {
		b.s.dropUnreadable(b.o.id, err)
		return n, fmt.Errorf("read body: %w", err)
	}
	return n, eof
}

func (b *Body) readAt(p []byte, off int64) (n int, err error) {
	b.mu.Lock()
	if b.table == nil {
		b.mu.Unlock()
		if err := readFull(b.file, p, off); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	defer b.mu.Unlock()
	for n < len(p) {
		c := (off + int64(n)) / chunkBytes
		if err := b.fetch(c); err != nil {
			return n, err
		}
		end := min(b.Size()-c*chunkBytes, chunkBytes)
		n += copy(p[n:], b.buf[(off+int64(n))%chunkBytes:end])
	}
	return n, nil
}

// fetch reads chunk c into buf and verifies it. Callers hold mu.
func (b *Body) fetch(c int64) error {
	if b.have == c {
		return nil
	}
	if b.closed {
		return os.ErrClosed
	}
	if b.buf == nil {
		b.buf = chunkPool.Get().(*[chunkBytes]byte)
	}
	b.have = -1
	part := b.buf[:min(b.Size()-c*chunkBytes, chunkBytes)]
	if err := readFull(b.file, part, c*chunkBytes); err != nil {
		return err
	}
	if crc32.Checksum(part, castagnoli) != binary.LittleEndian.Uint32(b.table[c*4:]) {
		return errCorrupt
	}
	b.have = c
	if c == b.verified {
		b.verified++
	}
	return nil
}

// noteVerified records that every chunk of the body matched. The table stays, because a reader may
// be at its last chunk.
func (b *Body) noteVerified() {
	if b.table == nil || b.verified*chunkBytes < b.Size() {
		return
	}
	b.table = nil
	b.recycle()
	sh := b.s.shards[b.o.key.shard()]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	if i := sh.find(b.o.key, b.o.seq); i != 0 {
		sh.mark(i, flagVerified)
	}
}

func (b *Body) recycle() {
	if b.buf != nil {
		chunkPool.Put(b.buf)
		b.buf, b.have = nil, -1
	}
}

// Close ends the use of the file.
func (b *Body) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return os.ErrClosed
	}
	b.closed = true
	if b.mem != nil {
		b.mu.Unlock()
		return nil
	}
	b.noteVerified()
	b.recycle()
	var err error
	if !b.shared {
		err = b.file.Close()
	}
	b.mu.Unlock()
	b.s.unpin(b.o.key, b.o.seq)
	return err
}
