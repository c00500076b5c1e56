package certs

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/diskfault"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// The file begins with fileMagic, padded. Then come records, each at a multiple of align, so that
// those behind a damaged one are found:
//
//	magic   4 bytes
//	length  4, of the body
//	id      16
//	body    CRC-32C, 4
//	head    CRC-32C of the 28 bytes so far, 4
//	body    a SealedCertificate, encoded
//
// Numbers are little-endian. Of an id that comes twice, either will do: certificates never change.
const (
	fileMagic   = "edgewalk certificates 1\n"
	recordMagic = 0x31574345
	headSize    = 32
	align       = 64
	// maxBody is more than the longest certificate with chain and key takes.
	maxBody = 64 << 10
	// typicalRecord is about what a certificate on P-256 takes.
	typicalRecord = 1280
	// maxUnits bounds the file: extents are kept in units of align.
	maxUnits = 1<<32 - 1
	// wasteful is how many bytes that nobody needs a file holds at least before it is compacted.
	wasteful = 16 << 20
	// leastReclaimed is the share of a full file that its compaction frees at least: 1/16.
	leastReclaimed = 16

	fileName = "certificates"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// errFull says that there is no room for a certificate.
	errFull = errors.New("--cert-store-size is used up")
	// errAbsent says that a certificate is not in the file.
	errAbsent = errors.New("not on disk")
	// errDamaged says that a record is not what was written.
	errDamaged = errors.New("the record is damaged")
)

// extent is where a record is, in units of align, and the length of its body.
type extent struct{ unit, length uint32 }

func units(length int) int64 { return int64(headSize+length+align-1) / align }

// file keeps sealed certificates on disk. Reads may run beside one writer.
type file struct {
	dir string
	max int64

	mu       sync.RWMutex
	f        *os.File // nil before load, and when there is no disk
	readOnly bool     // f is open for reading alone
	index    map[topology.CertificateID]extent
	end      int64 // where the next record goes
	live     int64 // bytes of the records that index has
}

func newFile(dir string, most int64) *file {
	return &file{dir: dir, max: min(most, maxUnits*align), index: make(map[topology.CertificateID]extent)}
}

// load opens the file and finds what is in it. It reports how many records it had to leave out.
// What is in a file that cannot be written is there too; the error says why nothing is added. It
// may run while certificates are asked for.
func (d *file) load() (damaged int, err error) {
	if err := state.MakeDir(d.dir); err != nil {
		return 0, err
	}
	name := filepath.Join(d.dir, fileName)
	f, unwritable := os.OpenFile(name, os.O_RDWR|os.O_CREATE, state.FileMode)
	if unwritable != nil {
		if f, err = os.Open(name); err != nil {
			return 0, unwritable
		}
	}
	disk := &sectors{f: f}
	s := scan{r: bufio.NewReaderSize(disk, 1<<20), found: func(id topology.CertificateID, at extent) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.put(id, at)
	}}
	room := 0
	if info, err := f.Stat(); err == nil {
		room = int(min(info.Size(), d.max) / typicalRecord)
	}
	d.mu.Lock()
	d.f, d.index = f, make(map[topology.CertificateID]extent, room)
	d.mu.Unlock()
	if err := s.run(); err != nil {
		return s.damaged, err
	}
	d.mu.Lock()
	d.end, d.readOnly = max(s.end, align), unwritable != nil
	if disk.bad > 0 { // A part of such a sector cannot be written.
		d.end = (d.end + sectorSize - 1) / sectorSize * sectorSize
	}
	end := d.end
	d.mu.Unlock()
	if unwritable != nil {
		return s.damaged, unwritable
	}
	if err := prepare(f, end, s.end <= align); err != nil || disk.bad == 0 {
		return s.damaged, err
	}
	// What is whole moves to other sectors. Where there is no room for that, it stays.
	_ = d.compact(func(topology.CertificateID) bool { return true })
	return s.damaged, nil
}

// prepare makes a file ready for records from end on. An empty one is given its head.
func prepare(f *os.File, end int64, empty bool) error {
	if empty {
		head := make([]byte, align)
		copy(head, fileMagic)
		if _, err := f.WriteAt(head, 0); err != nil {
			return err
		}
	}
	return f.Truncate(end)
}

const (
	// sectorSize is what cannot be read of a file where a disk is damaged, or a multiple of it.
	sectorSize = 4096
	// maxBadSectors is how many of them are passed over. A disk with more is broken.
	maxBadSectors = 1024
)

// sectors reads a file, and zeros where the disk cannot read it, which no record can be.
type sectors struct {
	f   *os.File
	at  int64
	bad int
}

// Read implements [io.Reader].
func (s *sectors) Read(p []byte) (int, error) {
	n, err := s.f.ReadAt(p, s.at)
	if n == 0 && diskfault.IsDamage(err) && s.bad < maxBadSectors {
		s.bad++
		n = int(min(int64(len(p)), sectorSize-s.at%sectorSize))
		clear(p[:n])
	}
	if s.at += int64(n); n > 0 {
		return n, nil
	}
	return 0, err
}

// scan finds the records of a file.
type scan struct {
	r       *bufio.Reader
	found   func(topology.CertificateID, extent)
	end     int64 // behind the last record that is whole; 0 if there is no head
	damaged int
}

func (s *scan) run() error {
	head := make([]byte, align)
	_, err := io.ReadFull(s.r, head)
	if err != nil || string(head[:len(fileMagic)]) != fileMagic {
		if err == nil && string(head) != string(make([]byte, align)) {
			s.damaged++ // another format, or damaged at its start: everything is fetched anew
		}
		return ignoreEnd(err)
	}
	s.end = align
	at, lost := int64(1), false // in units
	for {
		head, err := s.r.Peek(headSize)
		if err != nil {
			return s.cut(err, len(head) > 0)
		}
		id, length, sum, ok := parseHead(head)
		if !ok {
			if !lost {
				s.damaged++
			}
			lost = true
			if _, err := s.r.Discard(align); err != nil {
				return ignoreEnd(err)
			}
			at++
			continue
		}
		lost = false
		n := units(length)
		record, err := s.r.Peek(int(n * align)) // which the buffer has room for, and copies nothing
		if err != nil {
			return s.cut(err, true)
		}
		if crc32.Checksum(record[headSize:headSize+length], castagnoli) == sum {
			s.found(id, extent{uint32(at), uint32(length)})
		} else {
			s.damaged++
		}
		if _, err := s.r.Discard(len(record)); err != nil {
			return err
		}
		at += n
		s.end = at * align
	}
}

// cut ends a scan. The last record may be incomplete, because the machine stopped while it was
// written.
func (s *scan) cut(err error, torn bool) error {
	if err = ignoreEnd(err); err == nil && torn {
		s.damaged++
	}
	return err
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

func appendRecord(b []byte, id topology.CertificateID, body []byte) []byte {
	from := len(b)
	b = binary.LittleEndian.AppendUint32(b, recordMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = append(b, id[:]...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
	b = append(b, body...)
	return append(b, make([]byte, from+int(units(len(body)))*align-len(b))...)
}

func parseHead(b []byte) (id topology.CertificateID, length int, sum uint32, ok bool) {
	length = int(binary.LittleEndian.Uint32(b[4:]))
	copy(id[:], b[8:])
	ok = binary.LittleEndian.Uint32(b) == recordMagic && length <= maxBody &&
		binary.LittleEndian.Uint32(b[28:]) == crc32.Checksum(b[:28], castagnoli)
	return id, length, binary.LittleEndian.Uint32(b[24:]), ok
}

// put records where a certificate is. The caller holds mu.
func (d *file) put(id topology.CertificateID, at extent) {
	if was, ok := d.index[id]; ok {
		d.live -= units(int(was.length)) * align
	}
	d.index[id] = at
	d.live += units(int(at.length)) * align
}

// has reports whether a certificate is in the file.
func (d *file) has(id topology.CertificateID) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, ok := d.index[id]
	return ok
}

// read returns a certificate. One whose error is [errDamaged] is dropped from the file.
func (d *file) read(id topology.CertificateID) (*topologyv1.SealedCertificate, error) {
	stored, err := d.readRecord(id)
	if errors.Is(err, errDamaged) {
		d.drop(id)
	}
	return stored, err
}

func (d *file) readRecord(id topology.CertificateID) (*topologyv1.SealedCertificate, error) {
	record, length, err := d.bytes(id)
	if err != nil {
		return nil, err
	}
	stored := new(topologyv1.SealedCertificate)
	found, n, sum, ok := parseHead(record)
	body := record[headSize : headSize+length]
	if !ok || found != id || n != length || crc32.Checksum(body, castagnoli) != sum ||
		proto.Unmarshal(body, stored) != nil {
		return nil, fmt.Errorf("certificate %s: %w", id, errDamaged)
	}
	return stored, nil
}

// bytes reads a record without decoding it.
func (d *file) bytes(id topology.CertificateID) (record []byte, length int, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	at, ok := d.index[id]
	if !ok || d.f == nil {
		return nil, 0, errAbsent
	}
	record = make([]byte, units(int(at.length))*align)
	if _, err := d.f.ReadAt(record, int64(at.unit)*align); err != nil {
		return nil, 0, fmt.Errorf("certificate %s: %w: %w", id, errDamaged, err)
	}
	return record, int(at.length), nil
}

// drop removes a certificate from the index.
func (d *file) drop(id topology.CertificateID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was, ok := d.index[id]; ok {
		d.live -= units(int(was.length)) * align
		delete(d.index, id)
	}
}

// add writes certificates, and returns once they are on the disk. One goroutine adds at a time.
func (d *file) add(all []*topologyv1.SealedCertificate) error {
	if err := d.makeWritable(); err != nil {
		return err
	}
	d.mu.RLock()
	f, end := d.f, d.end
	d.mu.RUnlock()
	var b []byte
	var extents []extent
	var ids []topology.CertificateID
	for _, c := range all {
		body, err := proto.Marshal(c)
		if err != nil {
			return err
		}
		if len(body) > maxBody || len(c.GetId()) != len(topology.CertificateID{}) {
			continue
		}
		id := topology.CertificateID(c.GetId())
		extents = append(extents, extent{uint32((end + int64(len(b))) / align), uint32(len(body))})
		ids = append(ids, id)
		b = appendRecord(b, id, body)
	}
	if end+int64(len(b)) > d.max {
		return errFull
	}
	if _, err := f.WriteAt(b, end); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, id := range ids {
		d.put(id, extents[i])
	}
	d.end = end + int64(len(b))
	return nil
}

// makeWritable opens the file for writing if that could not be done when it was loaded.
func (d *file) makeWritable() error {
	d.mu.RLock()
	old, end, readOnly := d.f, d.end, d.readOnly
	d.mu.RUnlock()
	switch {
	case old == nil:
		_, err := d.load()
		return err
	case end == 0:
		return os.ErrClosed // It could not be read to its end.
	case !readOnly:
		return nil
	}
	f, err := os.OpenFile(filepath.Join(d.dir, fileName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := prepare(f, end, end == align); err != nil {
		return errors.Join(err, f.Close())
	}
	d.mu.Lock()
	d.f, d.readOnly = f, false
	d.mu.Unlock()
	_ = old.Close() // It was open for reading.
	return nil
}

// waste returns how many bytes of the file nobody needs, and its size.
func (d *file) waste() (waste, size int64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.end - align - d.live, d.end
}

// reclaimable returns how many bytes the file would have less with only the certificates that are
// wanted.
func (d *file) reclaimable(wanted func(topology.CertificateID) bool) int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	n := d.end - align - d.live
	for id, at := range d.index {
		if !wanted(id) {
			n += units(int(at.length)) * align
		}
	}
	return n
}

// count returns the number of certificates in the file.
func (d *file) count() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.index)
}

// ids returns the certificates in the file.
func (d *file) ids() []topology.CertificateID {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]topology.CertificateID, 0, len(d.index))
	for id := range d.index {
		all = append(all, id)
	}
	return all
}

// gone reports whether somebody has removed the file, or its folder. What it holds can still be
// read.
func (d *file) gone() bool {
	d.mu.RLock()
	f := d.f
	d.mu.RUnlock()
	if f == nil {
		return false
	}
	have, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(filepath.Join(d.dir, fileName))
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(have, there)
}

// compact writes the file anew, with only the certificates that are wanted. Nothing may be added
// meanwhile.
func (d *file) compact(wanted func(topology.CertificateID) bool) error {
	if err := state.MakeDir(d.dir); err != nil {
		return err
	}
	next := filepath.Join(d.dir, fileName+".next")
	f, err := os.OpenFile(next, os.O_RDWR|os.O_CREATE|os.O_TRUNC, state.FileMode)
	if err != nil {
		return err
	}
	index, end, err := d.copyTo(f, wanted)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(next, filepath.Join(d.dir, fileName))
	}
	if err != nil {
		_ = f.Close()
		_ = os.Remove(next)
		return err
	}
	d.mu.Lock()
	old := d.f
	d.f, d.readOnly, d.index, d.end, d.live = f, false, index, end, end-align
	d.mu.Unlock()
	_ = old.Close() // It was open for reading, so nothing can be lost.
	return state.SyncDir(d.dir)
}

func (d *file) copyTo(
	to io.Writer, wanted func(topology.CertificateID) bool,
) (index map[topology.CertificateID]extent, end int64, err error) {
	index = make(map[topology.CertificateID]extent)
	w := bufio.NewWriterSize(to, 1<<20)
	head := make([]byte, align)
	copy(head, fileMagic)
	if _, err := w.Write(head); err != nil {
		return nil, 0, err
	}
	end = align
	for _, id := range d.ids() {
		if !wanted(id) {
			continue
		}
		record, length, err := d.bytes(id)
		if err != nil {
			continue // it is fetched anew
		}
		if _, err := w.Write(record); err != nil {
			return nil, 0, err
		}
		index[id] = extent{uint32(end / align), uint32(length)}
		end += int64(len(record))
	}
	return index, end, w.Flush()
}

// close closes the file. Nothing is read from it any more.
func (d *file) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f != nil {
		_ = d.f.Close() // All that was added is on the disk.
		d.f, d.end = nil, 0
	}
}
