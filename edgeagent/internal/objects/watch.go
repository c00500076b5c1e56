package objects

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// watchSlots operations are watched at once. A disk that hangs leaves more than enough of them
// unfinished.
const watchSlots = 128

// watch measures how long the running operations of the disk have taken. The kernel gives them no
// deadline: a disk that hangs keeps its callers, and the store can only send it no more.
type watch struct {
	began time.Time
	slots [watchSlots]atomic.Int64 // nanoseconds from began to when an operation began; 0 is free
	turns chan struct{}            // one for each operation that has a turn
}

// mostTurns bounds the operations that are in the kernel at once, each with a thread, beside one
// commit for each fill. Others wait outside, which costs no thread: a process with thousands of
// threads ends.
const mostTurns = 256

func newWatch() watch { return watch{began: time.Now(), turns: make(chan struct{}, mostTurns)} }

// enterInTurn is enter once few enough operations are under way. Nothing that has a turn may wait
// for another one.
func (w *watch) enterInTurn() int {
	w.turns <- struct{}{}
	return w.enter()
}

func (w *watch) leaveTurn(i int) {
	w.leave(i)
	<-w.turns
}

// enterUnlessHung is enterInTurn for operations that can be left out: ok is false once the disk
// hangs.
func (s *Store) enterUnlessHung() (i int, ok bool) {
	w := &s.watch
	select {
	case w.turns <- struct{}{}:
		return w.enter(), true
	default:
	}
	again := time.NewTicker(s.cfg.Patience / 4)
	defer again.Stop()
	for {
		select {
		case w.turns <- struct{}{}:
			return w.enter(), true
		case <-again.C:
			if s.hung.Load() {
				return 0, false
			}
		}
	}
}

// enter records that an operation begins. Its result is passed to leave.
func (w *watch) enter() int {
	now, at := int64(time.Since(w.began)), rand.IntN(watchSlots)
	for i := range 4 {
		i = (at + i) % watchSlots
		if s := &w.slots[i]; s.Load() == 0 && s.CompareAndSwap(0, now) {
			return i
		}
	}
	return -1 // enough others are watched
}

func (w *watch) leave(i int) {
	if i >= 0 {
		w.slots[i].Store(0)
	}
}

// oldest returns how long the operation has taken that began first.
func (w *watch) oldest() (took time.Duration) {
	now := time.Since(w.began)
	for i := range w.slots {
		if at := w.slots[i].Load(); at != 0 {
			took = max(took, now-time.Duration(at))
		}
	}
	return took
}

// Hung reports whether the disk does not answer. Until it answers, nothing is stored or found, and
// running operations may wait for it.
func (s *Store) Hung() bool { return s.hung.Load() }

// watchLoop checks whether the disk answers. It does not access the disk.
func (s *Store) watchLoop(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Patience / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.judgeWatch()
		}
	}
}

func (s *Store) judgeWatch() {
	took := s.watch.oldest()
	hung := took > s.cfg.Patience
	switch {
	case s.hung.Swap(hung) == hung:
	case hung:
		s.cfg.Logger.Error("cache disk does not answer, requests are served without it", "dir", s.cfg.Dir,
			"waiting", took)
	default:
		s.cfg.Logger.Info("cache disk answers again", "dir", s.cfg.Dir)
	}
}
