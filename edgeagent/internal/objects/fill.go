package objects

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// startBytes is how much of a body is kept in memory before it is written to the disk. Most
	// bodies are not longer: their readers never wait for the disk, and it gets them in one piece.
	startBytes = chunkBytes

	// A body of unknown length reserves space in steps that double from firstStep to lastStep.
	firstStep = 64 << 10
	lastStep  = 1 << 20

	// A fill continues without the disk once it has waited for it for slowAfter, at less than
	// slowRate bytes per second, because its clients wait too. Any disk that a cache belongs on
	// takes many times that, also when the processors are busy.
	slowAfter = 3 * time.Second
	slowRate  = 2 << 20

	// A reader waits for the end of a body until it is stored, but for no longer than endWait.
	endWait = time.Second
)

// starts are the beginnings of bodies.
var starts = sync.Pool{New: func() any { return new([startBytes]byte) }}

var (
	errNoRoom     = errors.New("no room in the cache")
	errNotScanned = errors.New("cache folder is still being read")
	errUnusable   = errors.New("cache disk is not usable")
	errHung       = errors.New("cache disk does not answer")
	errSlow       = errors.New("cache disk is slow")
	errBigHead    = fmt.Errorf("head above %d bytes", maxHeadBytes)
	errUnwanted   = errors.New("will never be used")
	errSuperseded = errors.New("a copy of a later revision is there")
	errClosed     = errors.New("cache is closed")
	errNoHead     = errors.New("body before head")
	errEnded      = errors.New("fill has ended")

	// ErrUnread ends the Write of a fill that can keep nothing and that nobody reads any more.
	ErrUnread = errors.New("fill has no readers and is not stored")
	// ErrPassed says that a reader came too late for a fill that is not on disk: those bytes were
	// dropped.
	ErrPassed = errors.New("fill has passed this offset")
)

// Fill is one body on its way into the store, and to any number of readers while it comes.
//
// One goroutine, the leader, calls Head, then Write, then Commit or Abort. It writes at the
// origin's speed, up to 64 KiB to memory and more to a file: readers read what is there, each at
// its own speed. If the file cannot be made or fails (disk full, broken or slow, body too large for
// the store), the fill goes on through a window of at most 1 MiB in memory; from then on Write
// waits for the slowest reader, and nothing is stored. A reader that is taken before the first
// Write never misses a byte in either way, unless it takes nothing for 5 s while others wait for
// it.
//
// A reader gets the end of a body once that is stored, or is known not to be: who has had a whole
// reply finds it in the store.
type Fill struct {
	s    *Store
	key  Key
	seq  uint64
	asof int64

	mu      sync.Mutex
	wake    chan struct{} // closed when there is more for readers; nil while none waits
	room    chan struct{} // closed when the window has room for the leader; nil while it does not wait
	head    *Head
	own     Head              // the memory of head
	size    int64             // bytes that arrived
	kept    int64             // of these in start or in file; all of them while win is nil
	start   *[startBytes]byte // of the body, until there is a file or the fill has ended; nil before and after
	file    *os.File
	win     *window
	readers []*Reader
	first   [1]*Reader // the memory of readers while that is one
	whole   bool       // all bytes have arrived; Commit stores them
	ended   bool       // committed or aborted
	err     error      // of the abort
	unkept  error      // why nothing will be stored; nil while it may be
	tmp     string     // the temporary file, "" without one
	stored  bool       // it is an object now
	closed  bool       // file, memory and reservation were given back

	// Disk space in bytes, changed by the leader alone, under mu: what it has claimed for the whole
	// body, and what of that it has reserved. It reserves as it writes, because other objects may
	// have to be deleted for that, and the first reader is not to wait for it.
	claimed, reserved int64

	// The leader's own.
	headBytes int    // that the head takes in the file
	crcs      []byte // of whole chunks, 4 bytes each
	crc       uint32 // of the chunk that is being written
	step      int64
	waited    time.Duration // for the disk
}

// Begin starts a fill of key for a walk that began at revision asof. It cannot fail.
func (s *Store) Begin(k Key, asof int64) *Fill {
	return &Fill{s: s, key: k, asof: asof, seq: s.seq.Add(1), step: firstStep}
}

// Copy returns what [Entry.Copy] returns of the object, once it is stored.
func (f *Fill) Copy() uint64 { return f.seq }

// Head sets the head of the reply. It is called once, before the first Write. What it refers to
// does not change until Commit. It fails for more tags than [purges.MaxTags] and for a length that
// is none; a list that is none makes Commit fail.
func (f *Fill) Head(h Head) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("head of a fill: %w", err)
	}
	h.Asof = f.asof
	f.headBytes = h.encodedBytes()
	claimed, unkept := f.claimSpace(h.Length)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended || f.head != nil {
		f.s.release(claimed, 0)
		return fmt.Errorf("head of a fill: %w", f.endError())
	}
	f.own = h
	f.head, f.claimed, f.unkept = &f.own, claimed, unkept
	if unkept != nil {
		f.win = &window{budget: &f.s.window}
	}
	f.broadcast()
	return nil
}

// claimSpace claims space for a body, or returns why nothing will be stored. A short body need
// not wait until it is known how much space there is.
func (f *Fill) claimSpace(length int64) (claimed int64, unkept error) {
	need := int64(firstStep)
	if length >= 0 {
		need = f.fileBlocks(length)
	}
	switch s := f.s; {
	case f.headBytes > maxHeadBytes:
		return 0, errBigHead
	case s.disk() != DiskOK:
		return 0, errUnusable
	case need > s.largest():
		return 0, errNoRoom
	case !s.scanned.Load() && length > startBytes:
		return 0, errNotScanned
	case !s.scanned.Load():
		return 0, nil
	case !s.claim(need):
		return 0, errNoRoom
	}
	return need, nil
}

// fileBlocks returns the disk space of the whole file for a body of length bytes.
func (f *Fill) fileBlocks(length int64) int64 {
	return blocks(length+tableBytes(length)+int64(f.headBytes)+trailerBytes) * blockBytes
}

// Write appends to the body. It fails if the fill was aborted, if the body gets longer than its
// head said, or with [ErrUnread]; after each the leader should Abort.
func (f *Fill) Write(p []byte) (int, error) {
	f.mu.Lock()
	var err error
	switch {
	case f.ended:
		err = f.endError()
	case f.head == nil:
		err = errNoHead
	case f.head.Length >= 0 && f.size+int64(len(p)) > f.head.Length:
		err = fmt.Errorf("body is longer than its %d bytes", f.head.Length)
	}
	start, file, spool := f.start, f.file, f.win != nil
	gathers := err == nil && !spool && file == nil && f.size+int64(len(p)) <= startBytes
	if gathers {
		f.gather(p)
	}
	f.mu.Unlock()
	switch {
	case err != nil || len(p) == 0:
		return 0, err
	case gathers:
		return len(p), nil
	case spool:
		return f.spool(p)
	}
	n := 0
	if file == nil {
		file, err = f.moveToDisk(start, p)
	}
	if err == nil {
		n, err = f.writeFile(file, p)
	}
	if err == nil {
		return n, nil
	}
	if err := f.leaveDisk(err); err != nil {
		return n, err
	}
	m, err := f.spool(p[n:])
	return n + m, err
}

// gather keeps the beginning of a body in memory. Callers hold mu.
func (f *Fill) gather(p []byte) {
	if f.start == nil {
		f.start = starts.Get().(*[startBytes]byte)
	}
	f.size += int64(copy(f.start[f.size:], p))
	f.kept = f.size
	f.broadcast()
}

// moveToDisk makes the file of a body that becomes longer, by p, than what is gathered in start.
func (f *Fill) moveToDisk(start *[startBytes]byte, p []byte) (*os.File, error) {
	if !f.s.scanned.Load() {
		return nil, errNotScanned
	}
	if err := f.grow(f.fileBlocks(f.size + int64(len(p)))); err != nil {
		return nil, err
	}
	watched, ok := f.s.enterUnlessHung()
	if !ok {
		return nil, errHung
	}
	began := time.Now()
	tmp := filepath.Join(f.s.cfg.Dir, tmpFolder, strconv.FormatUint(f.seq, 16))
	file, err := f.create(tmp)
	if err == nil && f.size > 0 {
		f.checksum(0, start[:f.size])
		_, err = file.WriteAt(start[:f.size], 0)
	}
	f.waited += time.Since(began)
	f.s.watch.leaveTurn(watched)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.ended {
		err = f.endError()
	}
	if err != nil {
		if file != nil {
			file.Close()
			f.s.unlinkTmp(tmp)
		}
		return nil, err
	}
	f.file, f.tmp = file, tmp
	if f.start != nil {
		starts.Put(f.start)
		f.start = nil
	}
	return file, nil
}

// create makes the temporary file.
func (f *Fill) create(tmp string) (*os.File, error) {
	if f.s.disk() != DiskOK {
		return nil, errUnusable
	}
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		f.s.note("create", err)
		return nil, fmt.Errorf("%w: %w", errUnusable, err)
	}
	return file, nil
}

// writeFile writes to the file. The leader reads size without mu, because nobody else moves it.
func (f *Fill) writeFile(file *os.File, p []byte) (int, error) {
	if err := f.grow(f.fileBlocks(f.size + int64(len(p)))); err != nil {
		return 0, err
	}
	watched := f.s.watch.enterInTurn()
	began := time.Now()
	n, err := file.WriteAt(p, f.size)
	f.waited += time.Since(began)
	f.s.watch.leaveTurn(watched)
	f.checksum(f.size, p[:n])
	if n > 0 {
		f.mu.Lock()
		f.size += int64(n)
		f.kept = f.size
		f.broadcast()
		f.mu.Unlock()
	}
	if err == nil && f.waited > slowAfter && float64(f.size) < slowRate*f.waited.Seconds() {
		err = errSlow
	}
	return n, err
}

// grow reserves in steps until need bytes are reserved.
func (f *Fill) grow(need int64) error {
	for f.reserved < need {
		step := f.step
		if left := f.claimed - f.reserved; left > 0 {
			step = min(step, left)
		}
		if err := f.reserve(step); err != nil {
			return err
		}
		f.step = min(2*f.step, lastStep)
	}
	return nil
}

// reserve reserves n more bytes. It claims what of them is not yet claimed.
func (f *Fill) reserve(n int64) error {
	more := max(f.reserved+n-f.claimed, 0)
	if more > 0 && (f.reserved+n > f.s.largest() || !f.s.claim(more)) {
		return errNoRoom
	}
	if !f.s.reserve(n) {
		f.s.release(more, 0)
		return errNoRoom
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		f.s.release(more, n)
		return f.endError()
	}
	f.claimed += more
	f.reserved += n
	return nil
}

// checksum goes on with the chunks' checksums, at an offset.
func (f *Fill) checksum(at int64, p []byte) {
	for len(p) > 0 {
		n := min(int64(len(p)), chunkBytes-at%chunkBytes)
		f.crc = crc32.Update(f.crc, castagnoli, p[:n])
		p, at = p[n:], at+n
		if at%chunkBytes == 0 {
			f.crcs = appendUint32(f.crcs, f.crc)
			f.crc = 0
		}
	}
}

// leaveDisk continues in memory from now on. It returns an error only if the fill has ended
// meanwhile.
func (f *Fill) leaveDisk(cause error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return f.endError()
	}
	switch {
	case errors.Is(cause, errNoRoom), errors.Is(cause, errSlow), errors.Is(cause, errNotScanned),
		errors.Is(cause, errUnusable): // which is known, or no fault of the disk's
	default:
		f.s.note("write", cause)
	}
	f.unkept = cause
	f.win = &window{budget: &f.s.window, lo: f.size, hi: f.size}
	return nil
}

// spool appends to the window, and waits for readers while it is full.
func (f *Fill) spool(p []byte) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(p) > 0 {
		if f.ended {
			return n, f.endError()
		}
		if m := f.win.append(p); m > 0 {
			n, p, f.size = n+m, p[m:], f.size+int64(m)
			f.broadcast()
			continue
		}
		if len(f.readers) == 0 {
			return n, ErrUnread
		}
		f.awaitRoom()
	}
	return n, nil
}

// stuckAfter is how long other readers wait for one that takes nothing from a window.
const stuckAfter = 5 * time.Second

// awaitRoom waits for the slowest readers. It leaves those behind that are stuck, if others wait
// for more. Callers hold mu.
func (f *Fill) awaitRoom() {
	least := f.leastRead()
	if least == f.size {
		f.trim() // they all wait for what is still to come, and none of them would make room
		return
	}
	f.broadcast() // for Await
	if f.wait(context.Background(), &f.room, stuckAfter) == nil {
		return
	}
	waited := false
	for _, r := range f.readers {
		waited = waited || r.off >= f.size
	}
	if !waited {
		return
	}
	f.readers = slices.DeleteFunc(f.readers, func(r *Reader) bool {
		r.left = r.off == least
		return r.left
	})
	f.trim()
}

// Abort ends the fill: every reader gets err, and nothing is kept. It may be called from any
// goroutine, also to free a leader that waits in Write. From a Commit on it does nothing.
func (f *Fill) Abort(err error) {
	if err == nil {
		err = context.Canceled
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended && !f.whole {
		f.err = err
		f.finish(err)
	}
}

// finish ends the fill; its readers have the whole body unless err is set. Callers hold mu.
func (f *Fill) finish(unkept error) {
	f.ended, f.unkept = true, unkept
	if f.tmp != "" && unkept != nil {
		f.s.unlinkTmp(f.tmp)
	}
	f.broadcast()
	notify(&f.room)
	f.closeIfIdle()
}

// closeIfIdle releases file, space and memory when the fill has ended and the last reader has left.
// Callers hold mu.
func (f *Fill) closeIfIdle() {
	if !f.ended || f.closed || len(f.readers) > 0 {
		return
	}
	f.closed = true
	if f.file != nil {
		f.file.Close()
		if f.stored {
			f.s.unpin(f.key, f.seq)
		}
	}
	if !f.stored {
		f.s.release(f.claimed, f.reserved)
	}
	if f.start != nil && f.whole { // else the leader may be writing it to the disk
		starts.Put(f.start)
	}
	f.start = nil
	if f.win != nil {
		f.win.trim(f.win.hi)
	}
}

func (f *Fill) endError() error {
	if f.err != nil {
		return f.err
	}
	return errEnded
}

// broadcast wakes the readers that wait. Callers hold mu.
func (f *Fill) broadcast() { notify(&f.wake) }

func notify(ch *chan struct{}) {
	if *ch != nil {
		close(*ch)
		*ch = nil
	}
}

// errWaited says that a wait has taken as long as it may.
var errWaited = errors.New("waited in vain")

// wait releases mu until the next notify of ch, until ctx ends, or for at most a time; 0 is no
// limit.
func (f *Fill) wait(ctx context.Context, ch *chan struct{}, most time.Duration) error {
	if *ch == nil {
		*ch = make(chan struct{})
	}
	wake := *ch
	var late <-chan time.Time
	if most > 0 {
		timer := time.NewTimer(most)
		defer timer.Stop()
		late = timer.C
	}
	f.mu.Unlock()
	defer f.mu.Lock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-late:
		return errWaited
	}
}

// Progress returns how many bytes have arrived, and whether the fill has ended.
func (f *Fill) Progress() (size int64, ended bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.whole || f.ended
}

// Await waits until n bytes have arrived, no more come until a reader has read some, or the fill
// has ended, and returns its progress. The error is the abort's, or that of ctx.
func (f *Fill) Await(ctx context.Context, n int64) (size int64, ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.size < n && !f.whole && !f.ended && f.room == nil && err == nil {
		err = f.wait(ctx, &f.wake, 0)
	}
	if f.err != nil {
		err = f.err
	}
	return f.size, f.whole || f.ended, err
}

// Keeping reports whether the body is being stored, as far as is known: false once it goes through
// memory alone.
func (f *Fill) Keeping() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unkept == nil
}

var errShort = fmt.Errorf("body is shorter than its head said: %w", io.ErrUnexpectedEOF)
