package objects

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

func appendUint32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }

// Commit ends a whole body. Its readers read on to the end. The error is the abort's if there was
// one; if the body is shorter than its head said the fill is aborted; and it is [ErrNotStored],
// with the reason, if nothing was kept.
func (f *Fill) Commit() (Entry, error) {
	if unstored, err := f.complete(); unstored {
		return Entry{}, err
	}
	e, err := f.store()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.finish(err)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: %w", ErrNotStored, err)
	}
	return e, nil
}

// complete records that all bytes have arrived. If they are not to be stored it ends the fill, and
// returns the error for Commit.
func (f *Fill) complete() (unstored bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ended:
		return true, f.endError()
	case f.head == nil || f.head.Length >= 0 && f.size != f.head.Length:
		f.err = errShort
		if f.head == nil {
			f.err = errNoHead
		}
		f.finish(f.err)
		return true, f.err
	case f.unkept != nil:
		f.finish(f.unkept)
		return true, fmt.Errorf("%w: %w", ErrNotStored, f.unkept)
	}
	f.whole = true
	f.broadcast() // from now on readers wait for at most endWait
	return false, nil
}

// store makes the body an object. Nobody changes what it uses of the fill any more.
func (f *Fill) store() (Entry, error) {
	s := f.s
	if !s.awaitScan() {
		return Entry{}, errNotScanned
	}
	defer s.watch.leave(s.watch.enter())
	s.life.RLock()
	defer s.life.RUnlock()
	switch {
	case s.closed.Load():
		return Entry{}, errClosed
	case s.cfg.Unwanted(f.head):
		return Entry{}, errUnwanted
	}
	sh := s.shards[f.key.shard()]
	if !s.load(f.key.folder()) {
		return Entry{}, errUnusable
	}
	o, err := f.writeTail()
	if err != nil {
		return Entry{}, err
	}
	if f.superseded(sh, o) {
		return Entry{}, errSuperseded
	}
	if err := s.giveName(f.tmp, o.id); err != nil {
		s.note("rename", err)
		return Entry{}, err
	}
	f.stored = true
	if f.file != nil {
		sh.pins.take(o.seq)
	}
	s.space.objects.Add(1)
	s.release(f.claimed, f.reserved-int64(o.blocks)*blockBytes)
	for _, old := range sh.replace(o, s.memoryShare()) {
		s.deleteFiles(sh, old)
	}
	return Entry{s: s, o: o}, nil
}

// writeTail writes what comes after the body, and the body too if that is only in memory.
func (f *Fill) writeTail() (*object, error) {
	if f.start != nil { // its readers did not have to wait for its checksum
		f.checksum(0, f.start[:f.size])
	}
	if f.size%chunkBytes != 0 {
		f.crcs = appendUint32(f.crcs, f.crc)
	}
	head := appendHead(nil, f.head)
	t := trailer{
		magic: objectMagic, key: f.key, seq: f.seq, length: f.size, headLen: uint32(len(head)),
		tableCRC: crc32.Checksum(f.crcs, castagnoli), headCRC: crc32.Checksum(head, castagnoli),
	}
	if more := f.fileBlocks(f.size) - f.reserved; more > 0 {
		if err := f.reserve(more); err != nil {
			return nil, err
		}
	}
	var content []byte // from the beginning of the file, or of its tail
	if f.file == nil && f.start != nil {
		content = f.start[:f.size:startBytes] // readers never look at the room behind
	}
	body := len(content)
	content = t.append(append(append(content, f.crcs...), head...))
	if err := f.writeEnd(content); err != nil {
		return nil, err
	}
	size := f.size + int64(len(content)-body)
	o := &object{
		id:   id{key: f.key, seq: f.seq, blocks: uint32(blocks(size)), sel: selectingHash(f.head.Selecting)},
		size: size, tableCRC: t.tableCRC,
	}
	err := o.setHead(head, t)
	f.s.decode(o)
	return o, err
}

// writeEnd writes what of the file is not on the disk: all of it, or the tail.
func (f *Fill) writeEnd(content []byte) error {
	if f.file == nil {
		return f.writeWhole(content)
	}
	if _, err := f.file.WriteAt(content, f.size); err != nil {
		f.s.note("write", err)
		return err
	}
	return nil
}

// writeWhole makes the file of a body that was only gathered. It does so in the folder where the
// file stays, whose load deletes what a kill leaves there: a rename within a folder is cheaper than
// one out of another, of which Linux does one at a time. Package os would try to wait for the file
// with epoll(7), and look at what it renames it to.
func (f *Fill) writeWhole(content []byte) error {
	s := f.s
	if s.disk() != DiskOK {
		return errUnusable
	}
	folder := s.folder(f.key.folder())
	tmp := folder + "/" + strconv.FormatUint(f.seq, 16)
	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_CLOEXEC
	fd, err := openFile(tmp, flags)
	if errors.Is(err, fs.ErrNotExist) || s.setAsideDamaged(folder, err) {
		if err = makeFolder(folder); err == nil {
			fd, err = openFile(tmp, flags)
		}
	}
	if err != nil {
		s.note("create", err)
		return fmt.Errorf("%w: %w", errUnusable, err)
	}
	f.tmp = tmp
	err = writeFile(fd, content)
	if closed := unix.Close(fd); err == nil {
		err = closed
	}
	if err != nil {
		err = &fs.PathError{Op: "write", Path: tmp, Err: err}
		s.note("write", err)
	}
	return err
}

func openFile(path string, flags int) (fd int, err error) {
	for {
		fd, err = unix.Open(path, flags, 0o600)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func writeFile(fd int, content []byte) error {
	for len(content) > 0 {
		switch n, err := unix.Write(fd, content); {
		case err == unix.EINTR:
		case err != nil:
			return err
		default:
			content = content[n:]
		}
	}
	return nil
}

// superseded reports whether the store has a copy of the variant from a later walk: an old slow
// fill must not replace what was fetched after a purge.
func (f *Fill) superseded(sh *shard, o *object) bool {
	var same []slot
	sh.mu.RLock()
	for i := sh.byKey[o.key]; i != 0; i = sh.slots[i].next {
		if sl := &sh.slots[i]; sl.sel == o.sel {
			same = append(same, slot{id: sl.id, side: sl.side})
		}
	}
	sh.mu.RUnlock()
	for _, sl := range same {
		sh.mu.RLock()
		old := sh.heads[sl.seq]
		sh.mu.RUnlock()
		if old == nil {
			old = f.s.readHead(sh, sl)
		}
		if old != nil && old.head.Asof > f.asof {
			return true
		}
	}
	return false
}

// replace puts o into the index and removes what it replaces: the variant's older copies, and the
// oldest variants beyond the cap.
func (sh *shard) replace(o *object, headShare int64) (old []slot) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	kept := 1
	for i := sh.byKey[o.key]; i != 0; {
		next := sh.slots[i].next
		if kept++; sh.slots[i].sel == o.sel || kept > maxVariants {
			kept--
			old = append(old, sh.unlink(i))
		}
		i = next
	}
	sh.insert(slot{id: o.id, flags: flagVerified})
	sh.keepHead(o, headShare)
	return old
}

// giveName moves a finished file to its place.
func (s *Store) giveName(tmp string, i id) error {
	path := s.path(i)
	folder := path[:len(path)-len("/")-nameBytes]
	err := rename(tmp, path)
	if !errors.Is(err, fs.ErrNotExist) && !s.setAsideDamaged(folder, err) {
		return err
	}
	if err := makeFolder(folder); err != nil {
		return err
	}
	return rename(tmp, path)
}

func rename(from, to string) error {
	for {
		err := unix.Rename(from, to)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
	}
}

// makeFolder makes a folder of the fan-out: they appear with their first file.
func makeFolder(folder string) error {
	err := os.Mkdir(folder, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(folder), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Mkdir(folder, 0o700)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (s *Store) unlinkTmp(path string) {
	defer s.watch.leaveTurn(s.watch.enterInTurn())
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.note("delete", err) // it is deleted when the cache is next opened
	}
}

// Freshen gives an object the new head that a 304 brings (RFC 9111 4.3.4). Asof changes with it,
// Length does not. It returns [ErrGone] if the object is no longer there. On a disk that cannot be
// written the new head is in memory only.
func (s *Store) Freshen(e Entry, h Head) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("freshen: %w", err)
	}
	raw := appendHead(nil, &h)
	if len(raw) > maxHeadBytes {
		return fmt.Errorf("freshen: %w", errBigHead)
	}
	t := trailer{
		magic: sidecarMagic, key: e.o.key, seq: e.o.seq, length: e.o.head.Length,
		headLen: uint32(len(raw)), headCRC: crc32.Checksum(raw, castagnoli),
	}
	o := &object{id: e.o.id, size: e.o.size, tableCRC: e.o.tableCRC}
	if err := o.setHead(raw, t); err != nil {
		return fmt.Errorf("freshen: %w", err)
	}
	s.decode(o)
	sh := s.shards[o.key.shard()]
	sh.freshMu.Lock()
	defer sh.freshMu.Unlock()
	sh.mu.RLock()
	i := sh.find(o.key, o.seq)
	side := int64(0)
	if i != 0 {
		side = int64(sh.slots[i].side)
	}
	sh.mu.RUnlock()
	if i == 0 {
		return ErrGone
	}
	now := s.writeSidecar(o.id, t.append(raw), side)
	sh.mu.Lock()
	if i = sh.find(o.key, o.seq); i != 0 {
		sh.slots[i].side = uint32(now)
		sh.keepHead(o, s.memoryShare())
	}
	sh.mu.Unlock()
	if i == 0 {
		// The object was deleted meanwhile, with the sidecar that it had then.
		_ = os.Remove(s.path(o.id) + sidecarSuffix)
		s.space.used.Add(-max(now-side, 0) * blockBytes)
		return ErrGone
	}
	if now < side {
		s.space.used.Add((now - side) * blockBytes)
	}
	return nil
}

// writeSidecar returns how many blocks the sidecar has now, which is the old number if it could not
// be written. Blocks that it adds are in the account.
func (s *Store) writeSidecar(i id, b []byte, old int64) int64 {
	s.life.RLock()
	defer s.life.RUnlock()
	if s.closed.Load() || s.disk() != DiskOK {
		return old
	}
	defer s.watch.leave(s.watch.enter())
	now := blocks(int64(len(b)))
	more := max(now-old, 0) * blockBytes
	if more > 0 {
		if !s.claim(more) {
			return old
		}
		if !s.reserve(more) {
			s.release(more, 0)
			return old
		}
	}
	tmp := filepath.Join(s.cfg.Dir, tmpFolder, i.name()+sidecarSuffix)
	err := os.WriteFile(tmp, b, 0o600)
	if err == nil {
		err = os.Rename(tmp, s.path(i)+sidecarSuffix)
	}
	if err != nil {
		s.note("write", err)
		s.unlinkTmp(tmp)
		s.release(more, more)
		return old
	}
	s.release(more, 0)
	return now
}
