// Package auditlog writes events of the audit to a file, a line of JSON each, or to the machine's
// syslog.
//
// Nobody fills it by calling: many calls of one caller share lines, each of which says how many
// calls it stands for. If the process is killed, lines that are not written yet are lost; the lines
// before them show that there were such calls.
//
// A file is bounded: at 64 MiB it becomes `FILE.1`, and there are four of those at most. It may
// also be moved away by others: the next event makes a new one.
package auditlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/listen"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Syslog is the target that stands for the machine's syslog.
const Syslog = "syslog"

const (
	maxSize = 64 << 20
	// older is how many full files are kept.
	older = 4
	// After so many calls of a caller from one address, or so many denied calls of an address,
	// there is a line for all of them every linePer.
	recordedBurst = 100
	deniedBurst   = 20
	linePer       = time.Minute
	// deniedPer and allDeniedBurst bound the lines of denied calls of all addresses together.
	deniedPer      = time.Second
	allDeniedBurst = 1000
	// maxSeries bounds the callers that are counted apart, and maxNames the bytes of the names that
	// one line tells.
	maxSeries = 4096
	maxNames  = 8 << 10
	// flushEvery is how often it is looked which lines are due.
	flushEvery = 10 * time.Second
)

// Log takes events. Its methods may be called at the same time.
type Log struct {
	path string // empty for syslog
	max  int64
	now  func() time.Time

	mu       sync.Mutex
	to       io.WriteCloser
	file     *os.File // to, if it is one
	size     int64
	broken   bool // the last line was not taken
	recorded map[caller]*series
	denied   map[netip.Addr]*series
	lines    *rate.Limiter // of denied calls
	others   series        // denied calls that are not counted apart
}

// caller is whose calls of a method are one series.
type caller struct {
	who, method string
	client      netip.Addr
}

// series are calls that share lines.
type series struct {
	limiter *rate.Limiter
	// left is what the next line tells, nil if each call so far has its line.
	left  *adminv1.AuditEvent
	names int // bytes of its resources
	due   time.Time
	seen  time.Time
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
	return &Log{
		max: maxSize, now: time.Now, recorded: make(map[caller]*series), denied: make(map[netip.Addr]*series),
		lines: rate.NewLimiter(rate.Every(deniedPer), allDeniedBurst),
	}
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

// Run writes the lines that stand for several calls as they come due, until ctx ends. It returns
// the error of ctx. What could not be written it tries again.
func (l *Log) Run(ctx context.Context) error {
	ticker := time.NewTicker(flushEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			l.mu.Lock()
			_ = l.flush(false)
			l.mu.Unlock()
		}
	}
}

// Close writes what is left, and ends the log.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		return nil
	}
	err := errors.Join(l.flush(true), l.to.Close())
	l.to, l.file = nil, nil
	return err
}

// Ready returns an error if an event would not be written now, as far as that can be known before.
func (l *Log) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if l.broken {
		return l.flush(true)
	}
	return nil
}

// Record writes the event of a call that was let through. It has been handed to the operating
// system when Record returns nil. Of a caller who makes more calls of a method from one address
// than recordedBurst it is counted, and a line every linePer tells of all. What is not taken is
// written later: as UNAVAILABLE where the call is then refused.
func (l *Log) Record(event *adminv1.AuditEvent, refused bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := caller{event.GetWho(), event.GetMethod(), clientOf(event)}
	s := l.recorded[key]
	if s == nil {
		if len(l.recorded) >= maxSeries {
			return l.write(event)
		}
		s = &series{limiter: rate.NewLimiter(rate.Every(linePer), recordedBurst)}
		l.recorded[key] = s
	}
	err := l.take(s, event, nil)
	if err != nil && refused {
		s.left.Code = "UNAVAILABLE"
	}
	return err
}

// Denied writes the event of a denied call, as Record does, bounded for each address and for all
// together.
func (l *Log) Denied(event *adminv1.AuditEvent) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := clientOf(event)
	s := l.denied[key]
	if s == nil {
		if len(l.denied) >= maxSeries {
			l.others.add(event, l.now())
			return nil
		}
		s = &series{limiter: rate.NewLimiter(rate.Every(linePer), deniedBurst)}
		l.denied[key] = s
	}
	return l.take(s, event, l.lines)
}

// take writes an event together with those that its series has left to the next line, or leaves it
// to that line too. The caller holds mu.
func (l *Log) take(s *series, event *adminv1.AuditEvent, lines *rate.Limiter) error {
	now := l.now()
	s.seen = now
	s.add(event, now)
	if !s.limiter.AllowN(now, 1) || lines != nil && !lines.AllowN(now, 1) {
		return nil
	}
	return l.writeLeft(s)
}

// clientOf is where an event's call came from, as far as clients are told apart.
func clientOf(event *adminv1.AuditEvent) netip.Addr {
	peer, _ := netip.ParseAddrPort(event.GetPeer())
	return listen.Client(peer.Addr().Unmap())
}

// add has the next line stand for an event too.
func (s *series) add(event *adminv1.AuditEvent, now time.Time) {
	before := s.left
	s.left = event
	event.Calls = max(event.GetCalls(), 1)
	if event.GetFirstTime() == nil {
		event.FirstTime = event.GetTime()
	}
	if before == nil {
		s.names, s.due = 0, now.Add(linePer)
		return
	}
	event.Calls += before.GetCalls()
	event.FirstTime, event.Resources = before.GetFirstTime(), before.GetResources()
	name := before.GetResource()
	if name != "" && name != event.GetResource() && s.names+len(name) <= maxNames &&
		!slices.Contains(event.GetResources(), name) {
		event.Resources, s.names = append(event.Resources, name), s.names+len(name)
	}
}

// writeLeft writes what a series has left, which stays where the log takes no line. The caller
// holds mu.
func (l *Log) writeLeft(s *series) error {
	event := s.left
	if event.GetCalls() == 1 { // it stands for itself
		event = proto.CloneOf(event)
		event.Calls, event.FirstTime = 0, nil
	}
	if err := l.write(event); err != nil {
		return err
	}
	s.left = nil
	return nil
}

// flush writes what is due, or all, and forgets who has not called for long. Denied calls of more
// addresses than may have lines are one line together. The caller holds mu.
func (l *Log) flush(all bool) error {
	now := l.now()
	var errs []error
	due := func(s *series) bool { return s.left != nil && (all || !now.Before(s.due)) }
	for key, s := range l.recorded {
		if due(s) {
			errs = append(errs, l.writeLeft(s))
		}
		if s.left == nil && now.Sub(s.seen) > recordedBurst*linePer {
			delete(l.recorded, key)
		}
	}
	for key, s := range l.denied {
		switch {
		case !due(s):
		case l.lines.AllowN(now, 1):
			errs = append(errs, l.writeLeft(s))
		default:
			l.others.add(s.left, now)
			s.left = nil
		}
		if s.left == nil && now.Sub(s.seen) > deniedBurst*linePer {
			delete(l.denied, key)
		}
	}
	if due(&l.others) {
		errs = append(errs, l.writeLeft(&l.others))
	}
	return errors.Join(errs...)
}

// write writes an event. The caller holds mu.
func (l *Log) write(event *adminv1.AuditEvent) error {
	text, err := protojson.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode an event of the audit: %w", err)
	}
	if err := l.ready(); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return l.put(append(text, '\n'))
}

// put writes a line, or nothing. The caller holds mu.
func (l *Log) put(line []byte) error {
	n, err := l.to.Write(line)
	if l.broken = err != nil; !l.broken {
		l.size += int64(n)
		return nil
	}
	if l.file != nil && n > 0 { // a part of a line would spoil the next
		info, statErr := l.file.Stat()
		if statErr == nil {
			statErr = l.file.Truncate(info.Size() - int64(n))
		}
		err = errors.Join(err, statErr)
	}
	return fmt.Errorf("write the audit log: %w", err)
}

// ready makes the file one that has room and lies where it should. The caller holds mu.
func (l *Log) ready() error {
	if l.path == "" {
		if l.to == nil {
			return os.ErrClosed
		}
		return nil
	}
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
