package edgehttp

import (
	"hash/maphash"
	"strings"
	"sync/atomic"

	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// locations remembers where often hit URLs lead, while the topology does not change. That depends
// only on the URL and the connection.
type locations struct {
	seed  maphash.Seed
	slots [locationSlots]locationSlot
}

// locationSlots are at most some 4 MB.
const locationSlots = 4096

type locationSlot struct {
	known atomic.Pointer[location]
	// last is the hash of the URL that was hit last and was not known. Only the second hit of a
	// URL is remembered, because most of many URLs are asked for once.
	last atomic.Uint64
}

// location is where a URL leads.
type location struct {
	root           *route.Root
	conn           front.Conn // without Remote
	authority, raw string     // as in the request
	target         topology.Target
	key            objects.Key
	counted        atomic.Pointer[counted] // what its requests are counted with, nil before the first
}

func newLocations() *locations { return &locations{seed: maphash.MakeSeed()} }

// find returns where a request leads, nil if it is not known, and the hash of its URL.
func (l *locations) find(x *front.Exchange, root *route.Root) (*location, uint64) {
	hash := maphash.String(l.seed, x.Target) ^ 3*maphash.String(l.seed, x.Authority)
	at := l.slots[hash%locationSlots].known.Load()
	if at != nil && at.root == root && at.raw == x.Target && at.authority == x.Authority &&
		at.conn.TLS == x.Conn.TLS && at.conn.SNI == x.Conn.SNI {
		return at, hash
	}
	return nil, hash
}

// hit records where a request led that find did not know and that was a hit.
func (l *locations) hit(x *front.Exchange, root *route.Root, hash uint64, t *topology.Target) {
	slot := &l.slots[hash%locationSlots]
	if slot.last.Swap(hash) != hash {
		return
	}
	at := &location{
		root: root, conn: front.Conn{TLS: x.Conn.TLS, SNI: x.Conn.SNI}, authority: strings.Clone(x.Authority),
		raw: strings.Clone(x.Target), target: *t,
	}
	own(&at.target)
	at.key = httpcache.KeyOf(root.Epoch(), &at.target)
	slot.known.Store(at)
}

// own replaces the strings of a target by copies, in one piece of memory.
func own(t *topology.Target) {
	parts := [...]*string{&t.Host, &t.Path, &t.Query, &t.Object}
	var text strings.Builder // a sum of strings of which all but one are empty is no copy
	text.Grow(len(t.Host) + len(t.Path) + len(t.Query) + len(t.Object))
	for _, part := range parts {
		text.WriteString(*part)
	}
	all := text.String()
	for _, part := range parts {
		*part, all = all[:len(*part)], all[len(*part):]
	}
}
