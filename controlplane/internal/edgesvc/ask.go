package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// askTimeout bounds a question whose asker brings no deadline.
const askTimeout = 30 * time.Second

// ErrNoEdge says that no such edge is connected, that it left before it answered, or that its control plane cannot ask it.
var ErrNoEdge = errors.New("no such edge is connected")

// ErrBusy says that too many questions are under way.
var ErrBusy = errors.New("too many questions")

// Ask puts a question to the edge with an id, or to any of a region; both may be empty. An edge of this control plane is
// preferred; one of another is asked through that. An error of the edge stands in its answer. The id and timeout of the
// question are set here. It returns an [ErrNoEdge] when there is no such edge or it cannot be reached, an [ErrBusy], and the
// error of ctx.
//
// The secrets of a question to another control plane must be the stored ones of its origin: it fills them in itself.
func (s *Service) Ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	answer, err := s.ask(ctx, edge, region, question)
	outcome := "answered"
	switch {
	case errors.Is(err, ErrNoEdge):
		outcome = "no_edge"
	case errors.Is(err, ErrBusy):
		outcome = "busy"
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
	here, there, err := s.choose(edge, region)
	switch {
	case err != nil:
		return nil, err
	case here != nil:
		return s.askHere(ctx, here, question)
	}
	return s.askThere(ctx, there, edge, region, question)
}

// askHere puts a question to an edge of this control plane. ctx has a deadline.
func (s *Service) askHere(ctx context.Context, st *stream, question *edgev1.Ask) (*edgev1.Answer, error) {
	id := s.number()
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

// number returns a new id of a question.
func (s *Service) number() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	return strconv.FormatUint(s.asked, 10)
}

// elsewhere is another control plane that has an edge.
type elsewhere struct {
	name   string // of the process
	server string
	since  time.Time
}

// choose picks a connected edge at random, so that questions do not all meet one: one of this control plane, or else the
// control plane of another.
func (s *Service) choose(edge, region string) (*stream, *elsewhere, error) {
	f := s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	var here []*stream
	for id, e := range f.edges {
		if e.stream != nil && (edge == "" || edge == id) && (region == "" || region == e.hello.GetRegion()) {
			here = append(here, e.stream)
		}
	}
	if len(here) > 0 {
		return here[rand.IntN(len(here))], nil, nil
	}
	there := make(map[string]*elsewhere)
	for name, p := range f.peers {
		for id, r := range p.edges {
			if p.present && r.Connected && (edge == "" || edge == id) && (region == "" || region == r.edge.GetRegion()) &&
				(there[id] == nil || r.Since.After(there[id].since)) { // else it has moved on
				there[id] = &elsewhere{name: name, server: p.server, since: r.Since}
			}
		}
	}
	switch {
	case len(there) > 0:
		all := slices.Collect(maps.Values(there))
		return nil, all[rand.IntN(len(all))], nil
	case edge != "":
		return nil, nil, fmt.Errorf("edge %q: %w", edge, ErrNoEdge)
	case region != "":
		return nil, nil, fmt.Errorf("region %q: %w", region, ErrNoEdge)
	}
	return nil, nil, ErrNoEdge
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
