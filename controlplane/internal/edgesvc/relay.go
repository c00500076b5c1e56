package edgesvc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A question to an edge of another control plane is `fleet/{asker}/ask/{number}`, its reply
// `fleet/{answerer}/answer/{asker}-{number}`. The asker removes the question when it has the reply or waits no longer, which
// ends the other's work on it and removes the reply. When either process dies, its keys go with its lease.
const (
	askKey    = "ask/"
	answerKey = "answer/"

	// maxRelayed bounds the questions that are under way from this control plane, and those that it works on for others.
	maxRelayed = 64
	// maxRelayedBytes bounds a question and a reply. etcd takes 1.5 MiB.
	maxRelayedBytes = 512<<10 - 1
)

// relayedAsk is a question to a control plane.
type relayedAsk struct {
	// To is the process that shall put it to one of its edges: the one with an id, or any of a region.
	To     string `json:"to"`
	Edge   string `json:"edge,omitempty"`
	Region string `json:"region,omitempty"`
	// Ask is an encoded edgev1.Ask. Of secrets it names only the paths: only records of secrets may hold their values in etcd.
	Ask []byte `json:"ask"`
	// Secrets is the revision of the record that has the values.
	Secrets int64 `json:"secrets,omitempty"`
}

// relayedReply is one of three: an encoded edgev1.Answer, that the edge took too long, or why it cannot be asked.
type relayedReply struct {
	Answer []byte `json:"answer,omitempty"`
	Late   bool   `json:"late,omitempty"`
	Fault  string `json:"fault,omitempty"`
}

// relay is the questions under way between control planes.
type relay struct {
	mu sync.Mutex
	// waiting is who waits here, by the key of the reply.
	waiting map[string]chan<- relayedReply
	// answering holds, by the key of the question, what ends the work on it and removes its reply.
	answering map[string]func()
}

func newRelay() *relay {
	return &relay{waiting: make(map[string]chan<- relayedReply), answering: make(map[string]func())}
}

// askThere puts a question to an edge of another control plane.
func (s *Service) askThere(ctx context.Context, there *elsewhere, edge, region string, question *edgev1.Ask) (*edgev1.Answer, error) {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	// An edge that is slow is told from a control plane that is dead by the latter saying so before the time is up.
	grace := min(left/10, time.Second)
	ask, revision, err := s.withoutSecrets(ctx, there, question)
	if err != nil {
		return nil, err
	}
	ask.Timeout = durationpb.New(left - 2*grace)
	value := encode(relayedAsk{To: there.name, Edge: edge, Region: region, Ask: encodeProto(ask), Secrets: revision})
	if len(value) > maxRelayedBytes {
		return nil, fmt.Errorf("%w to this control plane, and the question is too large to be passed on to %q: ask there", ErrNoEdge, there.server)
	}
	number := s.number()
	answer := there.name + "/" + answerKey + s.self + "-" + number
	replies, err := s.relay.wait(answer)
	if err != nil {
		return nil, err
	}
	defer s.relay.leave(answer)
	s.presence.Put(s.self+"/"+askKey+number, value)
	defer s.presence.Put(s.self+"/"+askKey+number, nil)
	patience := time.NewTimer(left - grace)
	defer patience.Stop()
	select {
	case r := <-replies:
		return r.answer(there.server)
	case <-patience.C:
		return nil, fmt.Errorf("%w to this control plane, and %q, which had one, does not answer", ErrNoEdge, there.server)
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the answer of the control plane %q: %w", there.server, ctx.Err())
	}
}

// answer is what the control plane that has replied would have returned.
func (r relayedReply) answer(server string) (*edgev1.Answer, error) {
	switch {
	case r.Late:
		return nil, fmt.Errorf("wait for the answer of an edge of the control plane %q: %w", server, context.DeadlineExceeded)
	case r.Fault != "":
		return nil, fmt.Errorf("%w to this control plane, and %q, which had one, could not ask it: %s", ErrNoEdge, server, r.Fault)
	}
	answer := new(edgev1.Answer)
	if err := proto.Unmarshal(r.Answer, answer); err != nil {
		return nil, fmt.Errorf("decode the answer of the control plane %q: %w", server, err)
	}
	return answer, nil
}

// withoutSecrets is a question that names secrets but does not hold them, and the revision of the record that does. Secrets
// that are not stored cannot be passed on.
func (s *Service) withoutSecrets(ctx context.Context, there *elsewhere, question *edgev1.Ask) (*edgev1.Ask, int64, error) {
	ask := clone(question)
	test := ask.GetTestOrigin()
	if test == nil {
		return ask, 0, nil
	}
	test.Origin, _ = topology.SplitOrigin(test.GetOrigin())
	values := test.GetSecrets().GetValues()
	if len(values) == 0 {
		return ask, 0, nil
	}
	stored, revision, err := s.storedSecrets(ctx, test)
	if err != nil {
		return nil, 0, err
	}
	for path, value := range values {
		if value != stored[path] {
			return nil, 0, fmt.Errorf("%w to this control plane, and secrets that are not stored are not passed on: ask the control plane %q, or store the origin first", ErrNoEdge, there.server)
		}
		values[path] = ""
	}
	return ask, revision, nil
}

// withSecrets fills in the secrets that a question names. They must be those that the asker had before it, since others may
// be meant for another target.
func (s *Service) withSecrets(ctx context.Context, test *edgev1.Ask_TestOrigin, revision int64) error {
	values := test.GetSecrets().GetValues()
	if len(values) == 0 {
		return nil
	}
	stored, current, err := s.storedSecrets(ctx, test)
	if err != nil {
		return err
	}
	if current != revision {
		return errors.New("the origin's secrets have just changed: try again")
	}
	for path := range values {
		values[path] = stored[path]
	}
	return nil
}

// storedSecrets is what an origin holds in secret and the revision of the record, 0 without one.
func (s *Service) storedSecrets(ctx context.Context, test *edgev1.Ask_TestOrigin) (map[string]string, int64, error) {
	key := topology.Key{Kind: topology.KindOriginSecrets, Account: test.GetAccount(), ID: test.GetOrigin().GetId()}
	record, _, err := s.cfg.Store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	secrets := new(topologyv1.OriginSecrets)
	if err := proto.Unmarshal(record.Value, secrets); err != nil {
		return nil, 0, fmt.Errorf("decode %q: %w", key, err)
	}
	return secrets.GetValues(), record.ModRevision, nil
}

func (r *relay) wait(answer string) (<-chan relayedReply, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.waiting) >= maxRelayed {
		return nil, fmt.Errorf("%w: %d are under way to edges of other control planes", ErrBusy, maxRelayed)
	}
	replies := make(chan relayedReply, 1)
	r.waiting[answer] = replies
	return replies, nil
}

func (r *relay) leave(answer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, answer)
}

// deliver hands over the first reply. The caller holds mu.
func (r *relay) deliver(answer string, reply relayedReply) {
	select {
	case r.waiting[answer] <- reply:
	default: // nobody waits, or has a reply
	}
}

// gone tells those who wait for a control plane that it is no longer there. The caller holds mu.
func (r *relay) gone(name string) {
	for answer := range r.waiting {
		if strings.HasPrefix(answer, name+"/") {
			r.deliver(answer, relayedReply{Fault: "it has gone"})
		}
	}
}

// meet follows what the other control planes say and ask, until ctx ends.
func (s *Service) meet(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	_ = s.cfg.Store.WatchFleet(ctx, "", func(entries []store.Entry) {
		s.allPeers(entries)
		s.relay.catchUp(entries)
		for _, entry := range entries {
			s.relayed(ctx, &work, entry)
		}
	}, func(entry store.Entry) {
		s.onePeer(entry)
		s.relayed(ctx, &work, entry)
	})
}

// catchUp does what was missed of keys that have gone.
func (r *relay) catchUp(entries []store.Entry) {
	there := make(map[string]bool, len(entries))
	for _, entry := range entries {
		there[entry.Key] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for key := range r.answering {
		if !there[key] {
			r.end(key)
		}
	}
	for answer := range r.waiting {
		if name, _, _ := strings.Cut(answer, "/"); !there[name+"/"+helloKey] {
			r.gone(name)
		}
	}
}

// end ends the work on a question. The caller holds mu.
func (r *relay) end(key string) {
	if end := r.answering[key]; end != nil {
		end()
		delete(r.answering, key)
	}
}

// relayed takes one key of the fleet, if it is about questions.
func (s *Service) relayed(ctx context.Context, work *sync.WaitGroup, entry store.Entry) {
	s.relay.mu.Lock()
	defer s.relay.mu.Unlock()
	name, key, _ := strings.Cut(entry.Key, "/")
	var err error
	switch {
	case name == s.self:
	case key == helloKey && entry.Value == nil:
		s.relay.gone(name)
	case strings.HasPrefix(key, askKey) && entry.Value == nil:
		s.relay.end(entry.Key)
	case strings.HasPrefix(key, askKey):
		var q relayedAsk
		if err = json.Unmarshal(entry.Value, &q); err == nil && q.To == s.self && s.relay.answering[entry.Key] == nil {
			s.reply(ctx, work, entry.Key, s.self+"/"+answerKey+name+"-"+strings.TrimPrefix(key, askKey), q)
		}
	case strings.HasPrefix(key, answerKey) && entry.Value != nil:
		var r relayedReply
		if err = json.Unmarshal(entry.Value, &r); err == nil {
			s.relay.deliver(entry.Key, r)
		}
	}
	if err != nil {
		s.metrics.summaryErrors.Inc()
		s.log.Error("edgesvc: read a question of another control plane", "key", entry.Key, "error", err)
	}
}

// reply begins to work on a question. The caller holds relay.mu.
func (s *Service) reply(ctx context.Context, work *sync.WaitGroup, question, answer string, q relayedAsk) {
	if len(s.relay.answering) >= maxRelayed {
		s.presence.Put(answer, encode(relayedReply{Fault: "it is busy with other questions"}))
		s.relay.answering[question] = func() { s.presence.Put(answer, nil) }
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	s.relay.answering[question] = cancel
	work.Go(func() {
		defer cancel()
		value := encode(s.answerTo(ctx, q))
		if len(value) > maxRelayedBytes {
			value = encode(relayedReply{Fault: "the answer is too large to be passed on: ask there"})
		}
		if ctx.Err() != nil {
			return
		}
		s.presence.Put(answer, value)
		<-ctx.Done()
		s.presence.Put(answer, nil)
	})
}

// answerTo puts a question of another control plane to an edge of this one.
func (s *Service) answerTo(ctx context.Context, q relayedAsk) relayedReply {
	ask := new(edgev1.Ask)
	if err := proto.Unmarshal(q.Ask, ask); err != nil {
		return relayedReply{Fault: fmt.Sprintf("decode the question: %v", err)}
	}
	ctx, cancel := context.WithTimeout(ctx, ask.GetTimeout().AsDuration())
	defer cancel()
	err := s.withSecrets(ctx, ask.GetTestOrigin(), q.Secrets)
	var st *stream
	if err == nil {
		st, _, err = s.choose(q.Edge, q.Region)
	}
	var answer *edgev1.Answer
	switch {
	case err == nil && st == nil:
		return relayedReply{Fault: "the edge has moved to another one: try again"}
	case err == nil:
		answer, err = s.askHere(ctx, st, ask)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return relayedReply{Late: true}
	case err != nil:
		return relayedReply{Fault: err.Error()}
	}
	return relayedReply{Answer: encodeProto(answer)}
}
