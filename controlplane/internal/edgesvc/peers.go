package edgesvc

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What a control plane says of itself below `fleet/{process}/`, for as long as it lives:
//
//	hello          its name
//	summary        how far its edges are, together: rewritten as they move on
//	edges/{bucket} who its edges are: rewritten as edges come and go, and now and then
//	want           the highest revision that somebody waits for at it
//	ask/{n}        a question to an edge of another one; see relay
//	answer/{n}     the reply to another one's question
//
// A summary is small whatever the number of edges, since it names only those that are behind the others. The hello goes when
// the process ends; the rest stays for a while, for the process that takes its place.
const (
	helloKey   = "hello"
	summaryKey = "summary"
	edgesKey   = "edges/"
	wantKey    = "want"

	// buckets divides edges by a hash of their ids. With 10,000 edges a bucket is some 40 KB.
	buckets = 64
)

// peer is what another control plane says.
type peer struct {
	server  string
	present bool
	gone    time.Time // when it went
	edges   map[string]*record
	summary *peerSummary
	want    int64
}

// peerSummary is how far the connected edges of a control plane are.
type peerSummary struct {
	// Floor is what every edge has applied that is not in Behind.
	Floor int64 `json:"floor"`
	// Behind holds what the others have applied, by id.
	Behind map[string]int64 `json:"behind,omitempty"`
	// Joined is the number of the last edge to connect that Floor speaks for; see record.
	Joined uint64 `json:"joined"`
	// Rejected holds what edges refuse, by id, as encoded topologyv1.Rejected.
	Rejected map[string][][]byte `json:"rejected,omitempty"`

	rejected map[string][]*topologyv1.Rejected
}

// record is who an edge is.
type record struct {
	// Boot is the id of the agent's start.
	Boot string `json:"boot"`
	// Connected says that it has a stream, Since since when, and Lost when it last had one before.
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Lost      time.Time `json:"lost"`
	// Joined counts the edges that connected to the control plane before and with this one. A summary that was made before
	// does not speak for it.
	Joined uint64 `json:"joined"`
	// Edge is an encoded topologyv1.Edge.
	Edge []byte `json:"edge"`

	edge *topologyv1.Edge
}

// applied is what the edge of a record has applied, as far as the control plane has said.
func (p *peer) applied(id string, r *record) int64 {
	if !p.present || !r.Connected || p.summary == nil || p.summary.Joined < r.Joined {
		return r.edge.GetAppliedRevision()
	}
	if applied, ok := p.summary.Behind[id]; ok {
		return applied
	}
	return max(p.summary.Floor, r.edge.GetAppliedRevision())
}

// rejections is what it refuses.
func (p *peer) rejections(id string, r *record) []*topologyv1.Rejected {
	if p.present && r.Connected && p.summary != nil && p.summary.Joined >= r.Joined {
		return p.summary.rejected[id]
	}
	return r.edge.GetRejected()
}

func (p *peer) standings(now time.Time, consider func(string, standing)) {
	for id, r := range p.edges {
		s := standing{
			region:    r.edge.GetRegion(),
			connected: p.present && r.Connected,
			applied:   p.applied(id, r),
			rejected:  p.rejections(id, r),
		}
		s.counts = s.connected || now.Sub(p.lost(r)) < lostGrace
		consider(id, s)
	}
	if p.present && p.summary == nil {
		// It has only now come up and will soon say who its edges are.
		consider("(edges of "+p.server+")", standing{counts: true, connected: true, unknown: true})
	}
}

// lost is when an edge that is not connected lost its stream.
func (p *peer) lost(r *record) time.Time {
	if r.Connected {
		return p.gone
	}
	return r.Lost
}

// resource is the edge as admins see it, without its lag. The caller holds fleet.mu.
func (p *peer) resource(r *record) *topologyv1.Edge {
	e := clone(r.edge)
	e.AppliedRevision = p.applied(e.GetId(), r)
	e.Rejected = p.rejections(e.GetId(), r)
	e.Connected = p.present && r.Connected
	if e.Connected {
		e.Server = p.server
	} else {
		e.Server = ""
	}
	return e
}

// allPeers takes what every control plane says.
func (s *Service) allPeers(entries []store.Entry) {
	f := s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[string]bool)
	for _, entry := range entries {
		there[entry.Key] = true
	}
	for name, p := range f.peers {
		if !there[name+"/"+helloKey] {
			p.leave(f.now())
		}
		p.want = 0
	}
	for _, entry := range entries {
		s.takeEntry(entry)
	}
	f.changed()
	select {
	case <-f.met:
	default:
		close(f.met)
	}
}

// onePeer takes a change.
func (s *Service) onePeer(entry store.Entry) {
	s.fleet.mu.Lock()
	defer s.fleet.mu.Unlock()
	s.takeEntry(entry)
	s.fleet.changed()
}

// takeEntry takes one key of another control plane. The caller holds fleet.mu.
func (s *Service) takeEntry(entry store.Entry) {
	name, key, _ := strings.Cut(entry.Key, "/")
	if name == s.self {
		return
	}
	p := s.fleet.peers[name]
	if p == nil {
		if entry.Value == nil {
			return
		}
		p = &peer{gone: s.now(), edges: make(map[string]*record)} // until its hello
		s.fleet.peers[name] = p
	}
	if err := s.takeKey(p, key, entry.Value); err != nil {
		s.metrics.summaryErrors.Inc()
		s.log.Error("edgesvc: read what another control plane says", "key", entry.Key, "error", err)
	}
}

func (s *Service) takeKey(p *peer, key string, value []byte) error {
	switch {
	case key == helloKey && value == nil:
		p.leave(s.now())
	case key == helloKey:
		p.server, p.present, p.gone = string(value), true, time.Time{}
	case value == nil && key != wantKey:
		// The rest goes with its hello. What was known of its edges stays known.
	case key == summaryKey:
		return p.takeSummary(value)
	case key == wantKey:
		p.want, _ = strconv.ParseInt(string(value), 10, 64)
	case strings.HasPrefix(key, edgesKey):
		return s.takeBucket(p, strings.TrimPrefix(key, edgesKey), value)
	}
	return nil
}

func (p *peer) leave(now time.Time) {
	if !p.present {
		return
	}
	p.present, p.gone, p.want = false, now, 0
	for id, r := range p.edges {
		if r.Connected && p.summary != nil {
			// Where it was last known to stand is where it is waited for.
			r.edge.AppliedRevision = max(r.edge.GetAppliedRevision(), p.appliedBefore(id, r))
		}
	}
	p.summary = nil
}

// appliedBefore is what applied was while the peer was present.
func (p *peer) appliedBefore(id string, r *record) int64 {
	present := *p
	present.present = true
	return present.applied(id, r)
}

func (p *peer) takeSummary(value []byte) error {
	var s peerSummary
	if err := json.Unmarshal(value, &s); err != nil {
		return fmt.Errorf("decode summary: %w", err)
	}
	s.rejected = make(map[string][]*topologyv1.Rejected, len(s.Rejected))
	for id, list := range s.Rejected {
		for _, raw := range list {
			rejected := new(topologyv1.Rejected)
			if err := proto.Unmarshal(raw, rejected); err != nil {
				return fmt.Errorf("decode what edge %q refuses: %w", id, err)
			}
			s.rejected[id] = append(s.rejected[id], rejected)
		}
	}
	p.summary = &s
	return nil
}

// takeBucket takes who is in a bucket. An id that has gone on to another agent at this control plane loses its older stream.
func (s *Service) takeBucket(p *peer, bucket string, value []byte) error {
	var records map[string]*record
	if err := json.Unmarshal(value, &records); err != nil {
		return fmt.Errorf("decode edges: %w", err)
	}
	for id, r := range records {
		r.edge = new(topologyv1.Edge)
		if err := proto.Unmarshal(r.Edge, r.edge); err != nil {
			return fmt.Errorf("decode edge %q: %w", id, err)
		}
		r.Edge = nil
	}
	for id := range p.edges {
		if bucketOf(id) == bucket && records[id] == nil {
			delete(p.edges, id)
		}
	}
	for id, r := range records {
		if before := p.edges[id]; r.Connected && (before == nil || !before.Connected || before.Joined != r.Joined) {
			s.moved(id, r.Since)
		}
		p.edges[id] = r
	}
	return nil
}

// moved ends this control plane's stream of an edge that has since connected to another one: it is a leftover of the same
// agent, or lost the id to another agent. The caller holds fleet.mu.
func (s *Service) moved(id string, since time.Time) {
	if e := s.fleet.edges[id]; e != nil && e.stream != nil && since.After(e.since) {
		e.stream.end(errSuperseded)
	}
}

func bucketOf(id string) string {
	var h uint32 = 2166136261 // FNV-1a
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return strconv.Itoa(int(h % buckets))
}
