package fleet

import (
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
)

// reached counts the edges that are connected, and those of them that clients reach over HTTPS. One
// that does not say whether it serves HTTPS counts as one that does.
type reached struct{ connected, https int }

// count adds an edge, or takes one away, by 1 or -1.
func (r *reached) count(connected bool, servesHTTPS *bool, by int) {
	if !connected {
		return
	}
	r.connected += by
	if servesHTTPS == nil || *servesHTTPS {
		r.https += by
	}
}

// members are the edges of another control plane by id, which put and remove alone change.
type members struct {
	byID    map[string]*fleetv1.Member
	reached reached
}

func newMembers() *members { return &members{byID: make(map[string]*fleetv1.Member)} }

func (m *members) put(one *fleetv1.Member) {
	id := one.GetEdge().GetId()
	m.remove(id)
	m.byID[id] = one
	m.count(one, 1)
}

func (m *members) remove(id string) {
	if old := m.byID[id]; old != nil {
		m.count(old, -1)
		delete(m.byID, id)
	}
}

func (m *members) count(one *fleetv1.Member, by int) {
	if e := one.GetEdge(); e != nil {
		m.reached.count(e.GetConnected(), e.ServesHttps, by)
	}
}

// PlainHTTP reports whether clients reach no edge over HTTPS: some are connected, to any control
// plane, and each says so.
func (f *Fleet) PlainHTTP() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.reached
	for _, p := range f.peers {
		if p.present() {
			all.connected += p.members.reached.connected
			all.https += p.members.reached.https
		}
	}
	return all.connected > 0 && all.https == 0
}
