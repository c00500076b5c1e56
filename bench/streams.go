package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// streams are light edges in a process of their own, so that what they do delays neither the calls
// nor the clock of the measurement. The process says on its standard output how far all of them
// are, and ends when its standard input does.
type streams struct {
	*process
	count int

	mu     sync.Mutex
	floors []floor       // in order
	moved  chan struct{} // closed when there is one more, or the process has ended
}

// floor is a revision that every stream has reached, and when the last one did.
type floor struct {
	revision int64
	at       time.Time
}

// streamsCommand is the first argument of the process of light streams.
const streamsCommand = "streams"

// startStreams opens light streams and returns when all are in step. first is the number in the id
// of the first one.
func (f *fleet) startStreams(ctx context.Context, first, count int) (*streams, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("streams from %d", first)
	s := &streams{
		process: &process{
			name: name, log: filepath.Join(f.b.dir, name+".log"), done: make(chan struct{}), started: time.Now(),
		},
		count: count, moved: make(chan struct{}),
	}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd = exec.Command(self, streamsCommand, "--to", f.edgeAddr, "--first", strconv.Itoa(first), "--count",
		strconv.Itoa(count), "--ca", f.certificate)
	s.cmd.SysProcAttr, s.cmd.Stderr = &syscall.SysProcAttr{Setpgid: true}, log
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		s.read(stdout)
		stdin.Close()
		s.cmd.Wait() // How it ended is seen in its log.
		close(s.done)
		s.tell(nil)
	}()
	f.b.started = append(f.b.started, s.process)
	f.b.note("opening %d streams", count)
	_, err = s.reached(ctx, 1)
	return s, err
}

// read takes what the process says.
func (s *streams) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var revision, at int64
		if _, err := fmt.Sscan(lines.Text(), &revision, &at); err == nil {
			s.tell(&floor{revision, time.Unix(0, at)})
		}
	}
}

// tell wakes the waits.
func (s *streams) tell(f *floor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil {
		s.floors = append(s.floors, *f)
	}
	close(s.moved)
	s.moved = make(chan struct{})
}

// reached waits until every stream is at a revision, and returns when the last one was.
func (s *streams) reached(ctx context.Context, revision int64) (time.Time, error) {
	for {
		s.mu.Lock()
		i := sort.Search(len(s.floors), func(i int) bool { return s.floors[i].revision >= revision })
		moved := s.moved
		if i < len(s.floors) {
			at := s.floors[i].at
			s.mu.Unlock()
			return at, nil
		}
		s.mu.Unlock()
		if s.ended() {
			return time.Time{}, fmt.Errorf("the light streams have ended: %s", s.tail())
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// serveStreams is the process of light streams.
func serveStreams(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(streamsCommand, flag.ContinueOnError)
	to := flags.String("to", "", "the control plane's `address`")
	first := flags.Int("first", 0, "the number in the first stream's id")
	count := flags.Int("count", 1, "how many")
	ca := flags.String("ca", "", "a `file` with the control plane's certificate; without it no TLS")
	if err := flags.Parse(args); err != nil {
		return err
	}
	secure, err := trusting(*ca)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	go func() {
		io.Copy(io.Discard, os.Stdin) // It ends when the measurement does.
		end(nil)
	}()
	l := newLevel(*count, func(f floor) { fmt.Println(f.revision, f.at.UnixNano()) })
	ids := make(chan string)
	for range min(*count, 64) {
		go func() {
			for id := range ids {
				s, err := openStream(ctx, *to, id, secure)
				if err != nil {
					end(fmt.Errorf("%s: %w", id, err))
					return
				}
				go func() { end(fmt.Errorf("%s: %w", id, s.follow(l.move))) }()
			}
		}()
	}
	for i := range *count {
		select {
		case ids <- fmt.Sprintf("light-%05d", *first+i):
		case <-ctx.Done():
		}
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// trusting is what a client of a control plane with a certificate of the measurements' host needs;
// nil without one.
func trusting(file string) (*tls.Config, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: pool, ServerName: benchHost}, nil
}

// level knows how far the last of many streams is.
type level struct {
	report func(floor)

	mu    sync.Mutex
	at    map[int64]int // the streams that stand at each revision
	least int64
}

// newLevel begins with all streams at 0.
func newLevel(count int, report func(floor)) *level {
	return &level{report: report, at: map[int64]int{0: count}}
}

// move records the step of one stream.
func (l *level) move(from, to int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at[to]++
	if l.at[from]--; l.at[from] > 0 {
		return
	}
	delete(l.at, from)
	if from != l.least {
		return
	}
	l.least = to
	for revision := range l.at {
		l.least = min(l.least, revision)
	}
	l.report(floor{l.least, time.Now()})
}
