package edgesvc

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// ask puts a question to the edge and waits for the answer. ctx has a deadline.
func (st *stream) ask(ctx context.Context, question *edgev1.Ask) (*edgev1.Answer, error) {
	id := st.svc.number()
	deadline, _ := ctx.Deadline()
	ask := proto.Clone(question).(*edgev1.Ask)
	ask.Id, ask.Timeout = id, durationpb.New(time.Until(deadline))
	answer := make(chan *edgev1.Answer, 1)
	if !st.expect(id, answer) {
		return nil, fmt.Errorf("edge %q: %w", st.hello.GetId(), fleet.ErrNoEdge)
	}
	defer st.forgetQuestion(id)
	select {
	case st.questions() <- ask:
		st.due(askDue)
	case <-ctx.Done():
		return nil, fmt.Errorf("ask edge %q: %w", st.hello.GetId(), ctx.Err())
	}
	select {
	case a := <-answer:
		if a == nil {
			return nil, fmt.Errorf("edge %q left before it answered: %w", st.hello.GetId(), fleet.ErrNoEdge)
		}
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the answer of edge %q: %w", st.hello.GetId(), ctx.Err())
	}
}

// number returns a new id of a question.
func (s *Service) number() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return strconv.FormatUint(s.asked, 10)
}

// expect records where an answer goes. It returns false for a stream that has ended.
func (st *stream) expect(id string, answer chan<- *edgev1.Answer) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.gone {
		return false
	}
	if st.answers == nil {
		st.answers = make(map[string]chan<- *edgev1.Answer)
	}
	st.answers[id] = answer
	return true
}

func (st *stream) forgetQuestion(id string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.answers, id)
}

func (st *stream) takeAnswer(a *edgev1.Answer) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if answer, ok := st.answers[a.GetId()]; ok {
		delete(st.answers, a.GetId())
		answer <- a // there is room for one
	}
}

// refuseQuestions ends the waits for answers that will not come.
func (st *stream) refuseQuestions() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, answer := range st.answers {
		answer <- nil
	}
	st.answers, st.gone = nil, true
}

// questions are those that wait to be sent.
func (st *stream) questions() chan *edgev1.Ask {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.asks == nil {
		st.asks = make(chan *edgev1.Ask, maxQuestions)
	}
	return st.asks
}
