// Package objects keeps stored replies in files of one folder, bounded in bytes.
//
// It owns the folder and what is in it. What a reply means (freshness, Vary, validators, purges) is
// the caller's business.
//
// What always holds: an object is whole or it is none, also after kill -9 or a power cut; no byte
// that does not match its checksum is returned; the files never take more than the limit; and a
// disk that is full, broken or gone means that replies are not stored, never that a fill fails its
// readers.
//
// The file of an object is found by its key, so a store serves at once after a restart: a folder
// that the scan has not reached is read when a lookup needs it. docs/storage.md has the format and
// the reasons.
package objects

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/filelock"
)

// Config of a store.
type Config struct {
	// Dir is the cache folder. It is created, mode 0700, if it is missing; it must be empty or a
	// cache. Required.
	Dir string
	// MaxBytes bounds the disk space of all objects, in allocated blocks of 4 KiB. Required.
	// Nothing above an eighth of it is stored.
	MaxBytes int64
	// MemoryBytes bounds the memory for what hits need most: decoded heads, and bodies of up to 64
	// KiB that were asked for more than once. Default 128 MiB.
	MemoryBytes int64
	// WindowBytes bounds the memory of all fills that cannot go to disk, beyond the 32 KiB each of
	// them may always have. Default 128 MiB.
	WindowBytes int64
	// IdleFiles bounds the files that stay open while nobody reads them, because opening a file
	// takes longer than sending what is in most of them. Default 1,024; negative: none.
	IdleFiles int
	// Decode returns what the store's user needs of a head at each use. It is called once for each
	// head that is read or written, and its result is kept in memory with the head. nil: nothing.
	Decode func(*Head) any
	// Unwanted reports whether an object will never be used again. Such an object is not given a
	// name, and [Store.Sweep] deletes it. nil: none is.
	Unwanted func(*Head) bool
	// Patience is how long an operation of the disk may take. Then requests are served without the
	// disk until it answers. Default 5 s, which is more than a disk needs that is merely busy.
	Patience time.Duration
	// Logger default slog.Default().
	Logger *slog.Logger
	// Registerer for the metrics; nil for none.
	Registerer prometheus.Registerer
	// Now is the clock, default time.Now.
	Now func() time.Time
}

const (
	defaultMemoryBytes = 128 << 20
	defaultWindowBytes = 128 << 20
	defaultIdleFiles   = 1024
	defaultPatience    = 5 * time.Second

	// scanWait is how long after Open fetched replies wait for the folders to be read; after that
	// they are not stored. Run reads some 500,000 objects in that time.
	scanWait = time.Second
	// mostScanWaits is how many of them wait at once, because each holds a fill up. The others are
	// not stored.
	mostScanWaits = 64

	// logEvery bounds the log of a disk that fails at every request.
	logEvery = 10 * time.Second
)

var (
	// ErrNotStored is the error of a Commit that kept nothing although every reader got the whole
	// body.
	ErrNotStored = errors.New("not stored")
	// ErrGone says that an entry is no longer in the store: evicted, purged, replaced or found
	// corrupt. It is a miss.
	ErrGone = errors.New("object is gone")
)

// Store is an object store. Its methods may be called at any time from any goroutine.
type Store struct {
	cfg     Config
	shards  [shardCount]*shard
	space   space
	window  budget
	watch   watch
	metrics metrics

	seq        atomic.Uint64
	state      atomic.Int32 // DiskState, but for DiskHung
	hung       atomic.Bool
	scanned    atomic.Bool  // every folder is in the index, so used is exact
	lastLogged atomic.Int64 // Unix nanoseconds

	layoutMu sync.Mutex
	lock     *filelock.Lock
	cleaned  bool        // tmp was emptied since Open; later its files are those of running fills
	objFiles os.FileInfo // the objects folder that the index is about
	laidOut  atomic.Bool

	opened         time.Time
	scanMu         sync.Mutex
	scanNext       int           // folder
	firstScan      chan struct{} // closed when every folder has been read
	scanWaits      chan struct{} // one for each that waits for it
	closeFirstScan func()

	stuckMu sync.Mutex
	stuck   []slot

	damagedMu sync.Mutex
	damaged   map[string]uint64 // folders that could not be read, with how many probes there were then
	probes    uint64

	life   sync.RWMutex // held for reading while a file gets its final name
	closed atomic.Bool
}

// Open opens the cache in cfg.Dir for this process alone. It is an error if the folder is in use,
// may not be written or holds something else. A disk that is full, read-only or broken is no error:
// the store opens and stores nothing until the disk works.
func Open(cfg Config) (*Store, error) {
	if cfg.Dir == "" || cfg.MaxBytes <= 0 {
		return nil, errors.New("object store needs a folder and a limit in bytes")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Unwanted == nil {
		cfg.Unwanted = func(*Head) bool { return false }
	}
	cfg.MemoryBytes = cmp.Or(cfg.MemoryBytes, defaultMemoryBytes)
	cfg.WindowBytes = cmp.Or(cfg.WindowBytes, defaultWindowBytes)
	cfg.IdleFiles = cmp.Or(cfg.IdleFiles, defaultIdleFiles)
	cfg.Patience = cmp.Or(cfg.Patience, defaultPatience)
	cfg.Dir = filepath.Clean(cfg.Dir)

	s := &Store{
		cfg: cfg, watch: newWatch(), opened: time.Now(), firstScan: make(chan struct{}),
		scanWaits: make(chan struct{}, mostScanWaits), damaged: make(map[string]uint64),
	}
	s.closeFirstScan = sync.OnceFunc(func() { close(s.firstScan) })
	s.space.limit = cfg.MaxBytes
	s.window.free.Store(cfg.WindowBytes / windowChunk)
	s.seq.Store(uint64(cfg.Now().UnixNano()))
	for i := range s.shards {
		s.shards[i] = newShard(max(cfg.IdleFiles, 0) / shardCount)
	}
	s.metrics = newMetrics(s)
	s.lock = filelock.New(filepath.Join(cfg.Dir, lockFile))
	if err := s.layout(); err != nil {
		if !diskFault(err) {
			s.unlock()
			return nil, fmt.Errorf("open cache folder %s: %w", cfg.Dir, err)
		}
		s.note("open", err)
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(s.metrics); err != nil {
			s.unlock()
			return nil, fmt.Errorf("register cache metrics: %w", err)
		}
	}
	s.scan(func() bool { return false }) // an empty cache is ready at once
	return s, nil
}

// diskFault reports whether an error shows a disk in trouble, and not a wrong configuration.
func diskFault(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close unlocks the folder. Open bodies and readers stay usable; running fills store nothing any
// more.
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.closed.Swap(true) {
		return nil
	}
	if s.cfg.Registerer != nil {
		s.cfg.Registerer.Unregister(s.metrics)
	}
	for _, sh := range s.shards {
		sh.pins.dropIdle()
	}
	return s.unlock()
}

func (s *Store) unlock() error {
	s.layoutMu.Lock()
	defer s.layoutMu.Unlock()
	return s.lock.Release()
}

// Entry is one stored reply as a lookup found it.
type Entry struct {
	s *Store
	o *object
}

// Copy returns a number that no other object of the store ever has. It is the [Fill.Copy] of the
// fill that brought the object, and Freshen does not change it.
func (e Entry) Copy() uint64 { return e.o.seq }

// Head returns the head, which is shared and must not be changed.
func (e Entry) Head() *Head { return &e.o.head }

// Lookup returns the stored variants of k, the most recent reply first.
func (s *Store) Lookup(k Key) []Entry { return s.AppendLookup(nil, k, nil) }

// AppendLookup appends what Lookup returns. It reads the disk only for heads that are not in
// memory, and calls beforeDisk before it does, unless that is nil.
func (s *Store) AppendLookup(entries []Entry, k Key, beforeDisk func()) []Entry {
	if s.hung.Load() {
		return entries
	}
	sh := s.shards[k.shard()]
	sh.mu.RLock()
	if !sh.loaded[k.folder()%foldersPerShard] {
		sh.mu.RUnlock()
		if beforeDisk != nil {
			beforeDisk()
		}
		s.load(k.folder())
		sh.mu.RLock()
	}
	before, cold := len(entries), false
	for i := sh.byKey[k]; i != 0; i = sh.slots[i].next {
		sl := &sh.slots[i]
		sh.mark(i, flagVisited)
		o := sh.heads[sl.seq]
		if o == nil {
			cold = true
			continue
		}
		if !o.visited.Load() {
			o.visited.Store(true)
		}
		entries = append(entries, Entry{s: s, o: o})
	}
	sh.mu.RUnlock()
	if cold {
		if beforeDisk != nil {
			beforeDisk()
		}
		entries = s.appendCold(entries[:before], sh, k)
	}
	if found := entries[before:]; len(found) > 1 {
		slices.SortStableFunc(found, func(a, b Entry) int {
			if c := b.o.head.ResponseTime.Compare(a.o.head.ResponseTime); c != 0 {
				return c
			}
			return cmp.Compare(b.o.seq, a.o.seq)
		})
	}
	return entries
}

// appendCold is AppendLookup for variants whose heads are not all in memory, in no order.
func (s *Store) appendCold(entries []Entry, sh *shard, k Key) []Entry {
	var slots [maxVariants]slot
	n := 0
	sh.mu.RLock()
	for i := sh.byKey[k]; i != 0 && n < maxVariants; i = sh.slots[i].next {
		slots[n].id, slots[n].side = sh.slots[i].id, sh.slots[i].side
		n++
	}
	sh.mu.RUnlock()
	for _, sl := range slots[:n] {
		sh.mu.RLock()
		o := sh.heads[sl.seq]
		sh.mu.RUnlock()
		if o == nil {
			o = s.readHead(sh, sl)
		}
		if o != nil {
			entries = append(entries, Entry{s: s, o: o})
		}
	}
	return entries
}

// decode calls Config.Decode for a new head.
func (s *Store) decode(o *object) {
	if s.cfg.Decode != nil {
		o.head.Decoded = s.cfg.Decode(&o.head)
		o.weight += decodedOverhead
	}
}

// readHead reads and caches a head; nil if the object is not usable, which also drops it.
func (s *Store) readHead(sh *shard, sl slot) *object {
	o, err := s.readObject(sl.id, sl.side != 0)
	if err != nil {
		s.dropUnreadable(sl.id, err)
		return nil
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i := sh.find(o.key, o.seq)
	if i == 0 {
		return nil
	}
	if newer := sh.heads[o.seq]; newer != nil {
		return newer // put there by a Freshen
	}
	if (sh.slots[i].side != 0) == (sl.side != 0) {
		sh.keepHead(o, s.memoryShare())
	}
	return o
}

// dropUnreadable removes an object that turned out to be corrupt or missing, or that the disk
// cannot or must not read while it works otherwise. Missing is an error only if the index says it
// should be there, because evictions delete files while lookups read. Another error says nothing
// about the object: it stays, and this use of it is a miss.
func (s *Store) dropUnreadable(i id, err error) {
	op := "read"
	switch {
	case errors.Is(err, errCorrupt):
		op = "corrupt"
		s.remove(i.key, i.seq)
	case errors.Is(err, syscall.EIO), errors.Is(err, fs.ErrPermission):
		if s.disk() == DiskOK {
			s.remove(i.key, i.seq)
		}
	case errors.Is(err, fs.ErrNotExist):
		if !s.remove(i.key, i.seq) {
			return
		}
	}
	s.note(op, fmt.Errorf("object %s: %w", i.name(), err))
}

// memoryShare returns the memory that one shard may use.
func (s *Store) memoryShare() int64 { return s.cfg.MemoryBytes / shardCount }

// Drop removes an entry. Bodies that are open stay readable.
func (s *Store) Drop(e Entry) { s.remove(e.o.key, e.o.seq) }

// Stats are the store's figures at one moment.
type Stats struct {
	Objects   int64
	Bytes     int64 // allocated or reserved, never above Limit
	Limit     int64
	Evictions int64            // since Open
	Errors    map[string]int64 // since Open, by operation
	Disk      DiskState
	Scanned   bool // false after a restart until every folder was read; nothing is stored before
}

func (s *Store) Stats() Stats {
	return Stats{
		Objects: s.space.objects.Load(), Bytes: s.space.used.Load(), Limit: s.space.limit,
		Evictions: s.space.evicted.Load(),
		Errors:    s.metrics.errorCounts(), Disk: s.disk(), Scanned: s.scanned.Load(),
	}
}
