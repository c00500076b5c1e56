package edgesvc

import (
	"context"
	"sync"
	"time"
)

// sender is the sending side of a stream. What is due is done by one goroutine at a time, which
// ends when nothing is.
type sender struct {
	mu      sync.Mutex
	todo    uint32
	busy    bool // there is a goroutine
	stopped bool
	done    sync.WaitGroup // the goroutine
	begun   bool           // the goroutine's
}

// What the sender of a stream has to do; see stream.due.
const (
	beginDue    = 1 << iota // the edge is to be welcomed, before all else
	stepDue                 // there may be a step to send, or room for one, or a full state is due
	bookmarkDue             // a sign of life
	askDue                  // a question waits
	drainDue                // the edge is to go elsewhere
	oldDue                  // so it is for the stream's age
)

// due makes the sender do something. It does not wait for that.
func (st *stream) due(what uint32) {
	s := &st.sender
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo |= what
	if s.busy || s.stopped {
		return
	}
	s.busy = true
	s.done.Add(1)
	go st.send()
}

// take returns what is due, and leaves when nothing is.
func (s *sender) take() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.todo
	s.todo = 0
	s.busy = due != 0
	return due
}

// send does what is due until nothing is. When it cannot, it ends the stream.
func (st *stream) send() {
	defer st.sender.done.Done()
	for {
		due := st.sender.take()
		if due == 0 {
			return
		}
		if err := st.doDue(st.ctx, due); err != nil {
			st.end(err)
			return // busy, so that no other begins
		}
	}
}

// begin records that the window knows where the edge begins.
func (st *stream) begin() {
	if !st.sender.begun {
		st.sender.begun = true
		close(st.begun)
	}
}

// stopSender waits until nothing is sent any more. The stream has ended, and so does what waits for
// its edge.
func (st *stream) stopSender() {
	st.sender.mu.Lock()
	st.sender.stopped = true
	st.sender.mu.Unlock()
	st.sender.done.Wait()
	if st.bookmarks != nil {
		st.bookmarks.Stop()
		st.old.Stop()
	}
}

// doDue does what is due.
func (st *stream) doDue(ctx context.Context, due uint32) error {
	if due&beginDue != 0 {
		if err := st.welcome(); err != nil {
			return err
		}
		if err := st.start(ctx); err != nil {
			return err
		}
		st.bookmarks = time.AfterFunc(st.svc.timing.bookmarkEvery, func() { st.due(bookmarkDue) })
		st.old = time.AfterFunc(st.svc.timing.age(), func() { st.due(oldDue) })
	}
	if due&stepDue != 0 {
		if err := st.advance(ctx); err != nil {
			return err
		}
	}
	if due&bookmarkDue != 0 || st.cursor.owes {
		if st.svc.cutOff() && st.svc.now().After(st.stays) && st.svc.cfg.Fleet.HasOthers() {
			return st.sendOff(ctx, "this control plane has lost etcd, which others may not have")
		}
		limit, err := st.limit()
		if err != nil {
			return err
		}
		if err := st.bookmark(limit.View); err != nil {
			return err
		}
		st.bookmarks.Reset(st.svc.timing.bookmarkEvery)
	}
	if due&askDue != 0 {
		if err := st.sendAsks(); err != nil {
			return err
		}
	}
	switch {
	case due&drainDue != 0:
		return st.sendOff(ctx, st.drainReason())
	case due&oldDue != 0:
		return st.sendOff(ctx, "spread edges over control planes")
	}
	return nil
}
