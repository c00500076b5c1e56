// Package auditlog writes events of the audit to a file, a line of JSON each, or to the machine's
// syslog.
//
// A file is bounded: at 64 MiB it becomes `FILE.1`, and there are four of those at most. It may
// also be moved away by others: the next event makes a new one.
package auditlog

import (
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Syslog is the target that stands for the machine's syslog.
const Syslog = "syslog"

const (
	maxSize = 64 << 20
	// older is how many full files are kept.
	older = 4
	// deniedPer, deniedBurst and maxPeers bound what one peer's denied calls write, and the peers
	// that are counted apart.
	deniedPer   = time.Second
	deniedBurst = 20
	maxPeers    = 10_000
)

// Log takes events. Its methods may be called at the same time.
type Log struct {
	path string // empty for syslog
	max  int64
	now  func() time.Time

	mu     sync.Mutex
	to     io.WriteCloser
	file   *os.File // to, if it is one
	size   int64
	peers  map[netip.Addr]*rate.Limiter
	passed int32 // denied calls that were not written since the last
}

// Open opens a file for more, or [Syslog].
func Open(target string) (*Log, error) {
	if target == Syslog {
		return openSyslog("", "") // the machine's own
	}
	l := newLog()
	l.path = target
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return l, nil
}

func newLog() *Log {
	return &Log{max: maxSize, now: time.Now, peers: make(map[netip.Addr]*rate.Limiter)}
}

func openSyslog(network, address string) (*Log, error) {
	w, err := syslog.Dial(network, address, syslog.LOG_AUTHPRIV|syslog.LOG_INFO, "edgewalk")
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l := newLog()
	l.to = w
	return l, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.to, l.file, l.size = f, f, info.Size()
	return nil
}

// Close ends the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return nil
	}
	err := l.to.Close()
	l.to, l.file = nil, nil
	return err
}

// Write writes an event. It has been handed to the operating system when Write returns nil.
func (l *Log) Write(event *adminv1.AuditEvent) error {
	text, err := protojson.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode an event of the audit: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path != "" {
		if err := l.ready(); err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
	}
	if l.to == nil {
		return fmt.Errorf("write the audit log: %w", os.ErrClosed)
	}
	n, err := l.to.Write(append(text, '\n'))
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

// Denied writes the event of a denied call, unless its peer has had too many. Those that were left
// out are counted in the next that is written.
func (l *Log) Denied(event *adminv1.AuditEvent) error {
	peer, _ := netip.ParseAddrPort(event.GetPeer())
	l.mu.Lock()
	limiter := l.peers[peer.Addr()]
	if limiter == nil {
		if len(l.peers) >= maxPeers {
			clear(l.peers)
		}
		limiter = rate.NewLimiter(rate.Every(deniedPer), deniedBurst)
		l.peers[peer.Addr()] = limiter
	}
	if !limiter.AllowN(l.now(), 1) {
		l.passed++
		l.mu.Unlock()
		return nil
	}
	event.MoreDenied, l.passed = l.passed, 0
	l.mu.Unlock()
	return l.Write(event)
}

// ready makes the file one that has room and lies where it should.
func (l *Log) ready() error {
	if l.file != nil && l.size >= l.max {
		for n := older - 1; n >= 1; n-- {
			if err := os.Rename(fmt.Sprintf("%s.%d", l.path, n), fmt.Sprintf("%s.%d", l.path, n+1)); err != nil &&
				!errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if l.file != nil {
		have, err := l.file.Stat()
		if err != nil {
			return err
		}
		if named, err := os.Stat(l.path); err == nil && os.SameFile(have, named) {
			return nil
		}
		_ = l.file.Close() // it was moved away, with all that was written
		l.to, l.file = nil, nil
	}
	return l.open()
}
