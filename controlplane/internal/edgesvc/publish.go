package edgesvc

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// presenceFor is how long a control plane that has died still counts as present.
	presenceFor = 10 * time.Second
	// publishEvery is the least time between two summaries, unless somebody waits.
	publishEvery = time.Second
	// refreshEvery and refreshPerEdge give the time between two writes of what changes all the time, such as the size of
	// caches: with 10,000 edges about 40 KB/s.
	refreshEvery   = 10 * time.Second
	refreshPerEdge = 5 * time.Millisecond
	// maxBehind bounds the edges that a summary names, maxSummaryRejected the refusals, maxSummaryOrigins the unwell origins of
	// each edge.
	maxBehind          = 500
	maxSummaryRejected = 500
	maxSummaryOrigins  = 10
)

// publisher remembers what was said.
type publisher struct {
	svc       *Service
	last      time.Time // of the last summary
	refreshed time.Time
	lowest    int64 // what every connected edge had applied at the last summary
	summary   string
	steady    map[string]string // by bucket, what was said that does not change all the time
	comers    uint64            // fleet.comers then
	want      int64
}

// publish says who the edges are and, while there is another control plane to hear it, how far they are. Who they are is said
// in any case: the process that comes after this one has to know for whom to wait.
func (s *Service) publish(ctx context.Context) {
	p := &publisher{svc: s, steady: make(map[string]string)}
	s.presence.Put(s.self+"/"+helloKey, []byte(s.cfg.Server))
	timer := time.NewTimer(publishEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fleet.news:
		case <-timer.C:
		}
		next, edges := p.round()
		timer.Reset(next)
		if edges > 0 {
			// Many edges acknowledge at once: looking at all of them for each would be their number squared.
			pause := time.NewTimer(time.Duration(edges) * time.Microsecond)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
		}
	}
}

// round says what is due. It returns when there may be more to say, and how many edges it has looked at.
func (p *publisher) round() (next time.Duration, edges int) {
	f := p.svc.fleet
	f.mu.Lock()
	heard, want := f.audience()
	p.sayWant(heard)
	now := f.now()
	lowest := f.lowest()
	awaited := want > p.lowest && lowest > p.lowest
	if wait := publishEvery - now.Sub(p.last); wait > 0 && p.summary != "" && !awaited {
		edges = len(f.edges)
		f.mu.Unlock()
		return wait, edges
	}
	summary := encode(f.summarize())
	refresh := heard && now.Sub(p.refreshed) >= refreshEvery+time.Duration(len(f.edges))*refreshPerEdge
	var changed map[string][]byte
	if refresh || f.comers != p.comers {
		p.comers = f.comers
		changed = p.changedBuckets(refresh)
	}
	edges = len(f.edges)
	f.mu.Unlock()
	for bucket, value := range changed {
		p.svc.presence.Put(p.svc.self+"/"+edgesKey+bucket, value)
	}
	if string(summary) != p.summary && (heard || len(changed) > 0 || p.summary == "") {
		p.summary = string(summary)
		p.svc.presence.Put(p.svc.self+"/"+summaryKey, summary)
	}
	p.last, p.lowest = now, lowest
	if refresh {
		p.refreshed = now
	}
	return publishEvery, edges
}

// sayWant announces the highest revision that somebody waits for here, so that others say at once when their edges have
// reached it.
func (p *publisher) sayWant(heard bool) {
	want := p.svc.fleet.wanted()
	if !heard {
		want = 0
	}
	if want == p.want {
		return
	}
	p.want = want
	var value []byte
	if want > 0 {
		value = strconv.AppendInt(nil, want, 10)
	}
	p.svc.presence.Put(p.svc.self+"/"+wantKey, value)
}

// lowest is what every connected edge has applied. The caller holds mu.
func (f *fleet) lowest() int64 {
	lowest := int64(math.MaxInt64)
	for _, e := range f.edges {
		if e.stream != nil {
			lowest = min(lowest, e.applied)
		}
	}
	return lowest
}

// audience reports whether another control plane is present, and the highest revision that one waits for. The caller holds
// mu.
func (f *fleet) audience() (heard bool, want int64) {
	for _, p := range f.peers {
		heard = heard || p.present
		want = max(want, p.want)
	}
	return heard, want
}

// hasPeers reports whether there was another control plane when this one last heard.
func (f *fleet) hasPeers() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	heard, _ := f.audience()
	return heard
}

// summarize says how far the connected edges are. The caller holds mu.
func (f *fleet) summarize() peerSummary {
	s := peerSummary{Joined: f.joined, Behind: make(map[string]int64), Rejected: make(map[string][][]byte)}
	applied := make([]int64, 0, len(f.edges))
	for _, e := range f.edges {
		if e.stream != nil {
			applied = append(applied, e.applied)
		}
	}
	slices.Sort(applied)
	if n := len(applied); n > 0 {
		s.Floor = applied[min(maxBehind, n-1)]
	}
	refusals := 0
	for _, id := range slices.Sorted(maps.Keys(f.edges)) {
		e := f.edges[id]
		if e.stream == nil {
			continue
		}
		if e.applied < s.Floor {
			s.Behind[id] = e.applied
		}
		for _, rejected := range newest(e.rejected) {
			if refusals++; refusals <= maxSummaryRejected {
				s.Rejected[id] = append(s.Rejected[id], encodeProto(rejected))
			}
		}
	}
	return s
}

func newest(rejected map[string]*topologyv1.Rejected) []*topologyv1.Rejected {
	list := make([]*topologyv1.Rejected, 0, len(rejected))
	for _, r := range rejected {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b *topologyv1.Rejected) int {
		return cmp.Or(cmp.Compare(b.GetRevision(), a.GetRevision()), cmp.Compare(a.GetKey(), b.GetKey()))
	})
	return list[:min(len(list), maxNamed)]
}

// changedBuckets returns the buckets that have to be written. The caller holds mu.
func (p *publisher) changedBuckets(refresh bool) map[string][]byte {
	f := p.svc.fleet
	full := make(map[string]map[string]*record)
	steady := make(map[string]map[string]*record)
	for id, e := range f.edges {
		if e.hello == nil {
			continue
		}
		bucket := bucketOf(id)
		if full[bucket] == nil {
			full[bucket], steady[bucket] = make(map[string]*record), make(map[string]*record)
		}
		resource := e.resource(f.server)
		resource.Rejected = newest(e.rejected)
		resource.Origins = resource.Origins[:min(len(resource.Origins), maxSummaryOrigins)]
		r := &record{Boot: e.hello.GetBootId(), Connected: e.stream != nil, Since: e.since, Lost: e.lost, Joined: e.joined}
		same := *r
		r.Edge = encodeProto(resource)
		same.Edge = encodeProto(&topologyv1.Edge{Region: resource.Region, Version: resource.Version, Address: resource.Address, Durable: resource.Durable})
		full[bucket][id], steady[bucket][id] = r, &same
	}
	changed := make(map[string][]byte)
	for bucket, records := range full {
		said := string(encode(steady[bucket]))
		if refresh || p.steady[bucket] != said {
			p.steady[bucket] = said
			changed[bucket] = encode(records)
		}
	}
	for bucket := range p.steady {
		if full[bucket] == nil {
			delete(p.steady, bucket)
			changed[bucket] = nil
		}
	}
	return changed
}

// want notes that somebody waits for a revision, until the returned function is called.
func (s *Service) want(revision int64) (done func()) {
	f := s.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wants[revision]++
	f.changed()
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.wants[revision]--; f.wants[revision] == 0 {
			delete(f.wants, revision)
		}
	}
}

// wanted is the highest revision that somebody waits for. The caller holds mu.
func (f *fleet) wanted() (highest int64) {
	for revision := range f.wants {
		highest = max(highest, revision)
	}
	return highest
}

// encode cannot fail for what is encoded here: plain structs, maps by strings, numbers.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// encodeProto cannot fail for messages whose strings came out of a message.
func encodeProto(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}
