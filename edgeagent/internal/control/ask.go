package control

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	// maxQuestions is how many are answered at a time; each may hold connections to origins.
	maxQuestions = 8
	// usualAnswer is the time for a question that comes without a timeout, longestAnswer the most
	// that any question gets.
	usualAnswer   = 30 * time.Second
	longestAnswer = 2 * time.Minute
)

// asking counts the questions that are being answered.
type asking struct {
	sync.WaitGroup
	mu   sync.Mutex
	busy int
}

func (a *asking) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy == maxQuestions {
		return false
	}
	a.busy++
	return true
}

func (a *asking) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.busy--
}

// ask answers a question beside the stream of changes, which never waits for it.
func (s *session) ask(q *edgev1.Ask) {
	if !s.asking.enter() {
		s.out.answer(refusal(q, "the edge is busy with other questions"))
		return
	}
	s.asking.Go(func() {
		timeout := usualAnswer
		if q.GetTimeout().AsDuration() > 0 {
			timeout = min(q.GetTimeout().AsDuration(), longestAnswer)
		}
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		defer cancel()
		a := s.control.cfg.Answer(ctx, q)
		if a == nil || a.GetResult() == nil {
			a = refusal(q, "the edge has no answer")
		}
		if why := a.GetError(); why != "" {
			a = refusal(q, why)
		}
		a.Id = q.GetId()
		readable(a.ProtoReflect())
		if n := proto.Size(a); n > maxAnswer {
			a = refusal(q, fmt.Sprintf("the edge's answer takes %d bytes, and at most %d are sent", n, maxAnswer))
		}
		s.asking.leave() // Who has the answer may ask again.
		s.out.answer(a)
	})
}

func refusal(q *edgev1.Ask, why string) *edgev1.Answer {
	return &edgev1.Answer{Id: q.GetId(), Result: &edgev1.Answer_Error{Error: cut(why)}}
}
