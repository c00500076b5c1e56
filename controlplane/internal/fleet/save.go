package fleet

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What a control plane says of itself below `fleet/`, for as long as its process lives and
// presenceFor after; but the first goes as soon as it ends in order.
//
//	hello/{process}          a record, in JSON
//	edges/{process}/{bucket} who its edges are, encoded Members: rewritten as edges come and go
const (
	helloKey = store.HelloPrefix
	edgesKey = "edges/"

	// buckets divides edges by a hash of their ids. With 10,000 edges a bucket is some 20 KB.
	buckets = 64
	// saveAfter and savePerEdge give the time between two writes of who the edges are, in which
	// changes gather: 1 s with 10,000 edges.
	saveAfter   = 20 * time.Millisecond
	savePerEdge = 100 * time.Microsecond
)

// record is how others find a control plane.
type record struct {
	Server string `json:"server"`
	// Address is where it listens for other control planes, and Certificate the hash of the
	// certificate that it shows.
	Address     string `json:"address,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	// Schema is the newest that it knows; see store.Schema.
	Schema int `json:"schema"`
}

// save writes how to find this control plane, and who its edges are whenever that changes.
func (f *Fleet) save(ctx context.Context) {
	hello, err := json.Marshal(record{
		Server: f.cfg.Server, Address: f.cfg.Address, Certificate: f.identity.hash, Schema: store.Schema,
	})
	if err != nil {
		panic(err) // strings and a number
	}
	f.presence.Put(helloKey+f.self, hello)
	saved := make(map[string]string)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.joined:
		}
		edges := f.saveChanged(saved)
		select {
		case <-ctx.Done():
		case <-time.After(saveAfter + time.Duration(edges)*savePerEdge):
		}
	}
}

// saveChanged writes the buckets that are not as saved, and returns how many edges there are.
func (f *Fleet) saveChanged(saved map[string]string) int {
	f.mu.Lock()
	all := make(map[string]*fleetv1.Members)
	for id, e := range f.edges {
		if e.hello == nil {
			continue
		}
		m := f.member(e)
		m.Contender = nil
		m.Edge = &topologyv1.Edge{Id: id, Region: m.GetEdge().GetRegion(), Address: m.GetEdge().GetAddress(),
			Version: m.GetEdge().GetVersion(), Connected: m.GetEdge().GetConnected(), LastSeen: m.GetSince()}
		if m.GetLost() != nil {
			m.Edge.LastSeen = m.GetLost()
		}
		bucket := bucketOf(id)
		if all[bucket] == nil {
			all[bucket] = new(fleetv1.Members)
		}
		all[bucket].Members = append(all[bucket].Members, m)
	}
	edges := len(f.edges)
	f.mu.Unlock()
	for bucket, members := range all {
		sortMembers(members.GetMembers())
		if value := encode(members); saved[bucket] != string(value) {
			saved[bucket] = string(value)
			f.presence.Put(edgesKey+f.self+"/"+bucket, value)
		}
	}
	for bucket := range saved {
		if all[bucket] == nil {
			delete(saved, bucket)
			f.presence.Put(edgesKey+f.self+"/"+bucket, nil)
		}
	}
	return edges
}

func bucketOf(id string) string {
	var h uint32 = 2166136261 // FNV-1a
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return strconv.Itoa(int(h % buckets))
}

// encode cannot fail for messages whose strings came out of a message.
func encode(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}
