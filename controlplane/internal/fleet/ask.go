package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
)

const (
	// askTimeout bounds a question whose asker brings no deadline.
	askTimeout = 30 * time.Second
	// maxAsking bounds the questions of other control planes that are under way at this one.
	maxAsking = 64
)

// ErrNoEdge says that no such edge is connected, that it left before it answered, or that its
// control plane cannot ask it.
var ErrNoEdge = errors.New("no such edge is connected")

// ErrBusy says that too many questions are under way.
var ErrBusy = errors.New("too many questions")

// Ask puts a question to the edge with an id, or to any of a region; both may be empty. An edge of
// this control plane is preferred; one of another is asked through that. An error of the edge
// stands in its answer. The id and timeout of the question are set here. It returns an [ErrNoEdge]
// when there is no such edge or it cannot be reached, an [ErrBusy], and the error of ctx.
func (f *Fleet) Ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	answer, err := f.ask(ctx, edge, region, question)
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
	f.metrics.asks.WithLabelValues(outcome).Inc()
	return answer, err
}

func (f *Fleet) ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	here, there, err := f.choose(edge, region, question)
	switch {
	case err != nil:
		return nil, err
	case here != nil:
		return here.Ask(ctx, question)
	}
	return there.ask(ctx, edge, region, question)
}

// elsewhere is another control plane that has an edge.
type elsewhere struct {
	server string
	client fleetv1.FleetServiceClient // nil when it cannot be reached
	since  time.Time
}

// choose picks a connected edge at random, so that questions do not all meet one: one of this
// control plane, or else the control plane of another.
func (f *Fleet) choose(edge, region string, question *edgev1.Ask) (*Conn, *elsewhere, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if here := f.here(edge, region, question); len(here) > 0 {
		return here[rand.IntN(len(here))], nil, nil
	}
	there := make(map[string]*elsewhere)
	for _, p := range f.peers {
		for id, m := range p.members.byID {
			since := m.GetSince().AsTime()
			if !p.connected(m) || edge != "" && edge != id || region != "" && region != m.GetEdge().GetRegion() ||
				there[id] != nil && !since.After(there[id].since) { // it has moved on
				continue
			}
			there[id] = &elsewhere{server: p.server(), since: since}
			if p.link != nil {
				there[id].client = p.link.client
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

// here returns the streams of this control plane's edges that have an id and a region, and may be
// asked a question: an edge of a pool receives no accounts of other pools, and knows less than
// others of what belongs to none. The caller holds mu.
func (f *Fleet) here(edge, region string, question *edgev1.Ask) (conns []*Conn) {
	var pooled []*Conn
	for id, e := range f.edges {
		switch {
		case e.conn == nil || edge != "" && edge != id || region != "" && region != e.hello.GetRegion():
		case e.conn.Pool == "":
			conns = append(conns, e.conn)
		case question.GetTestOrigin() == nil ||
			f.cfg.Feed.View().In(e.conn.Pool).Has(question.GetTestOrigin().GetAccount()):
			pooled = append(pooled, e.conn)
		}
	}
	if len(conns) == 0 {
		return pooled
	}
	return conns
}

// ask puts a question to an edge of another control plane. ctx has a deadline.
func (e *elsewhere) ask(ctx context.Context, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	if e.client == nil {
		return nil, fmt.Errorf("%w to this control plane, and %q, which has one, cannot be reached", ErrNoEdge, e.server)
	}
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	// The other control plane answers before the time is up that an edge is slow. Without that
	// answer it counts as dead.
	grace := min(left/10, time.Second)
	call, cancel := context.WithTimeout(ctx, left-grace)
	defer cancel()
	resp, err := e.client.Ask(call,
		&fleetv1.AskRequest{Edge: edge, Region: region, Ask: question, Timeout: durationpb.New(left - 2*grace)},
		grpc.WaitForReady(true)) // it may not have seen this control plane's record yet
	switch {
	case err == nil:
		return resp.GetAnswer(), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("wait for the answer of the control plane %q: %w", e.server, ctx.Err())
	case call.Err() != nil:
		return nil, fmt.Errorf("%w to this control plane, and %q, which had one, does not answer", ErrNoEdge, e.server)
	case status.Code(err) == codes.DeadlineExceeded:
		return nil,
			fmt.Errorf("wait for the answer of an edge of the control plane %q: %w", e.server, context.DeadlineExceeded)
	case status.Code(err) == codes.ResourceExhausted:
		return nil, fmt.Errorf("%w at the control plane %q", ErrBusy, e.server)
	}
	return nil, fmt.Errorf("%w to this control plane, and %q, which had one, could not ask it: %s", ErrNoEdge, e.server, status.Convert(err).Message())
}

// answer puts a question of another control plane to an edge of this one.
func (f *Fleet) answer(ctx context.Context, req *fleetv1.AskRequest) (*fleetv1.AskResponse, error) {
	if !f.asking.TryAcquire(1) {
		return nil, status.Error(codes.ResourceExhausted, "too many questions are under way")
	}
	defer f.asking.Release(1)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(req.GetTimeout().AsDuration(), askTimeout))
	defer cancel()
	f.mu.Lock()
	conns := f.here(req.GetEdge(), req.GetRegion(), req.GetAsk())
	f.mu.Unlock()
	if len(conns) == 0 {
		return nil, status.Error(codes.Unavailable, "the edge has moved to another one: try again")
	}
	answer, err := conns[rand.IntN(len(conns))].Ask(ctx, req.GetAsk())
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, status.Error(codes.DeadlineExceeded, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &fleetv1.AskResponse{Answer: answer}, nil
}
