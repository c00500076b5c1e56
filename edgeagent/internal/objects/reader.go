package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// Reader follows a fill from an offset on. Like any io.Reader it is for one goroutine; Close it.
type Reader struct {
	f    *Fill
	ctx  context.Context
	off  int64    // written by the reader under f.mu
	left bool     // the fill goes on without it
	late bool     // it has waited for the end to be stored as long as it may
	body *os.File // for a reader that came after the fill was closed
}

// Reader opens a reader at off, which may be ahead of what has arrived. ctx ends its waiting. The
// error is the abort's; [ErrPassed] if bytes from off on were in memory only and are gone;
// [ErrGone] if the object was committed and deleted.
func (f *Fill) Reader(ctx context.Context, off int64) (*Reader, error) {
	r := new(Reader)
	if err := f.Follow(ctx, r, off); err != nil {
		return nil, err
	}
	return r, nil
}

// Follow is Reader in the memory of r, which must not move.
func (f *Fill) Follow(ctx context.Context, r *Reader, off int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	*r = Reader{f: f, ctx: ctx, off: off}
	switch {
	case off < 0:
		return fmt.Errorf("read a fill at offset %d", off)
	case f.err != nil:
		return f.err
	case f.win != nil && f.win.lo > f.kept && off < f.win.lo, f.closed && !f.stored:
		return ErrPassed
	case f.closed:
		file, err := f.s.reopen(f.key, f.seq)
		if err != nil {
			return err
		}
		r.body = file
		return nil
	}
	if f.readers == nil {
		f.readers = f.first[:0]
	}
	f.readers = append(f.readers, r)
	return nil
}

// reopen opens the file of an object that this process has written.
func (s *Store) reopen(k Key, seq uint64) (*os.File, error) {
	sh := s.shards[k.shard()]
	sh.mu.RLock()
	i := sh.find(k, seq)
	which := sh.slots[i].id
	sh.mu.RUnlock()
	if i == 0 {
		return nil, ErrGone
	}
	sh.pins.take(seq)
	watched := s.watch.enterInTurn()
	file, err := os.Open(s.path(which))
	s.watch.leaveTurn(watched)
	if err != nil {
		s.unpin(k, seq)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrGone
		}
		s.note("read", err)
		return nil, err
	}
	return file, nil
}

// Read waits for bytes. It returns io.EOF only at the end of a whole body.
func (r *Reader) Read(p []byte) (int, error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		end, storing := r.end()
		switch {
		case f.err != nil:
			return 0, f.err
		case r.left:
			return 0, ErrPassed
		case len(p) == 0:
			return 0, nil
		case r.off < min(f.kept, end) && f.start != nil:
			n := copy(p, f.start[r.off:min(f.kept, end)])
			r.advance(n)
			return n, nil
		case r.off < min(f.kept, end):
			return r.readFile(p[:min(int64(len(p)), min(f.kept, end)-r.off)])
		case r.off < end && r.off < f.win.lo:
			return 0, ErrPassed
		case r.off < end:
			n := f.win.read(p, r.off)
			r.advance(n)
			return n, nil
		case storing:
		case f.ended, f.whole, f.head != nil && f.head.Length >= 0 && r.off >= f.head.Length:
			return 0, io.EOF
		}
		if err := r.await(storing); err != nil {
			return 0, err
		}
	}
}

// end returns up to where the body may be read, and whether the rest waits until it is stored.
// Callers hold the fill's mu.
func (r *Reader) end() (end int64, storing bool) {
	f := r.f
	// While a body is being stored, its last byte may not be read. That does not hold for one that
	// is stored only once the folders are read.
	storing = !f.ended && f.unkept == nil && f.head != nil && (f.whole || f.size == f.head.Length) &&
		!r.late && f.s.scanned.Load()
	end = f.size
	if storing && f.head.Length >= 0 {
		end--
	}
	return end, storing
}

// Lend reads at most most bytes without a copy, and without a wait: those that stay in memory until
// the reader is closed.
func (r *Reader) Lend(most int64) []byte {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	// A body that may get longer than start leaves it for a file, whoever reads.
	if f.start == nil || f.err != nil || f.head.Length < 0 || f.head.Length > startBytes {
		return nil
	}
	end, _ := r.end()
	n := min(end-r.off, most)
	if n <= 0 {
		return nil
	}
	p := f.start[r.off : r.off+n : r.off+n]
	r.advance(int(n))
	return p
}

// await waits for more, or for the end to be stored. Callers hold the fill's mu.
func (r *Reader) await(storing bool) error {
	if !storing {
		return r.f.wait(r.ctx, &r.f.wake, 0)
	}
	err := r.f.wait(r.ctx, &r.f.wake, endWait)
	if errors.Is(err, errWaited) {
		r.late, err = true, nil
	}
	return err
}

// readFile reads what is on disk, without mu. Callers hold mu.
func (r *Reader) readFile(p []byte) (int, error) {
	f, file := r.f, r.f.file
	if r.body != nil {
		file = r.body
	}
	f.mu.Unlock()
	watched := f.s.watch.enterInTurn()
	n, err := file.ReadAt(p, r.off)
	f.s.watch.leaveTurn(watched)
	f.mu.Lock()
	if n > 0 {
		r.advance(n)
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // somebody has truncated the file
	}
	f.s.note("read", err)
	return 0, fmt.Errorf("read a fill: %w", err)
}

// advance moves the offset, and frees the memory that no reader needs any more.
func (r *Reader) advance(n int) {
	r.off += int64(n)
	r.f.trim()
}

// trim frees what all readers have read, in a window. Callers hold mu.
func (f *Fill) trim() {
	if f.win == nil || len(f.readers) == 0 {
		return
	}
	lo := f.win.lo
	if f.win.trim(f.leastRead()); f.win.lo != lo {
		notify(&f.room)
	}
}

// leastRead returns the offset up to which every reader has read. Callers hold mu.
func (f *Fill) leastRead() int64 {
	least := f.size
	for _, r := range f.readers {
		least = min(least, r.off)
	}
	return least
}

// Close ends the reader. It never fails.
func (r *Reader) Close() error {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.body != nil {
		r.body.Close()
		r.body = nil
		f.s.unpin(f.key, f.seq)
		return nil
	}
	if i := slices.Index(f.readers, r); i >= 0 {
		f.readers = slices.Delete(f.readers, i, i+1)
		if f.first[0] == r { // where readers have other memory by now
			f.first[0] = nil
		}
		f.trim()
		notify(&f.room) // the leader may have waited for this reader alone
		f.closeIfIdle()
	}
	return nil
}
