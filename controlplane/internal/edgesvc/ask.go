package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// askTimeout bounds a question whose asker brings no deadline.
const askTimeout = 30 * time.Second

// ErrNoEdge says that no such edge is connected to this control plane, or that it left before it answered.
var ErrNoEdge = errors.New("no such edge is connected")

// Ask puts a question to the edge with an id, or to any of a region; both may be empty. An error of the edge stands in its
// answer. The id and timeout of the question are set here. It returns an [ErrNoEdge] when there is no such edge, and the
// error of ctx.
func (s *Service) Ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	answer, err := s.ask(ctx, edge, region, question)
	outcome := "answered"
	switch {
	case errors.Is(err, ErrNoEdge):
		outcome = "no_edge"
	case err != nil:
		outcome = "timeout"
	case answer.GetError() != "":
		outcome = "error"
	}
	s.metrics.asks.WithLabelValues(outcome).Inc()
	return answer, err
}

func (s *Service) ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st, err := s.choose(edge, region)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.asked++
	id := strconv.FormatUint(s.asked, 10)
	s.mu.Unlock()
	deadline, _ := ctx.Deadline()
	ask := clone(question)
	ask.Id, ask.Timeout = id, durationpb.New(time.Until(deadline))
	answer := make(chan *edgev1.Answer, 1)
	if !st.expect(id, answer) {
		return nil, fmt.Errorf("edge %q: %w", st.hello.GetId(), ErrNoEdge)
	}
	defer st.forgetQuestion(id)
	select {
	case st.asks <- ask:
	case <-ctx.Done():
		return nil, fmt.Errorf("ask edge %q: %w", st.hello.GetId(), ctx.Err())
	}
	select {
	case a := <-answer:
		if a == nil {
			return nil, fmt.Errorf("edge %q left before it answered: %w", st.hello.GetId(), ErrNoEdge)
		}
		return a, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the answer of edge %q: %w", st.hello.GetId(), ctx.Err())
	}
}

// choose picks a connected edge at random, so that questions do not all meet one.
func (s *Service) choose(edge, region string) (*stream, error) {
	f := s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	var candidates []*stream
	for id, e := range f.edges {
		if e.stream != nil && (edge == "" || edge == id) && (region == "" || region == e.hello.GetRegion()) {
			candidates = append(candidates, e.stream)
		}
	}
	if len(candidates) > 0 {
		return candidates[rand.IntN(len(candidates))], nil
	}
	for _, p := range f.peers {
		for id, r := range p.edges {
			if p.present && r.Connected && (edge == "" || edge == id) && (region == "" || region == r.edge.GetRegion()) {
				return nil, fmt.Errorf("edge %q is connected to the control plane %q, ask there: %w", id, p.server, ErrNoEdge)
			}
		}
	}
	switch {
	case edge != "":
		return nil, fmt.Errorf("edge %q: %w", edge, ErrNoEdge)
	case region != "":
		return nil, fmt.Errorf("region %q: %w", region, ErrNoEdge)
	}
	return nil, ErrNoEdge
}

// expect notes where an answer goes. It is false for a stream that has ended.
func (st *stream) expect(id string, answer chan<- *edgev1.Answer) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.answers == nil {
		return false
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

// refuseQuestions tells those who wait that no answer will come.
func (st *stream) refuseQuestions() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, answer := range st.answers {
		answer <- nil
	}
	st.answers = nil
}
