package httpcache

import (
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/coding"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// meta is what the cache stores beside a reply.
type meta struct {
	fresh    rfc9111.Freshness
	supplier walk.Supplier
	step     int
	version  uint64
	library  [8]byte
}

func (m *meta) fromLibrary() bool { return m.supplier.UID == walk.LibraryUID }

const (
	metaFormat = 1
	metaFixed  = 3 + 3*8 + 4*8 + 4

	flagSetByUs   = 1 << 0
	flagNoCache   = 1 << 1
	flagNoStale   = 1 << 2
	flagImmutable = 1 << 3
	flagCapped    = 1 << 4
	flagTargeted  = 1 << 5
)

var errMeta = errors.New("record beside a stored reply is malformed")

// append appends what is stored of m beside the fields of a reply.
func (m *meta) append(b []byte, f fields) []byte {
	var flags byte
	for _, flag := range [...]struct {
		bit byte
		set bool
	}{
		{flagSetByUs, m.fresh.SetByUs}, {flagNoCache, m.fresh.NoCache}, {flagNoStale, m.fresh.NoStale},
		{flagImmutable, m.fresh.Immutable}, {flagCapped, m.fresh.Capped}, {flagTargeted, m.fresh.Targeted},
	} {
		if flag.set {
			flags |= flag.bit
		}
	}
	b = slices.Grow(b, metaFixed+len(m.supplier.UID))
	le := binary.LittleEndian
	b = append(b, metaFormat, flags, byte(m.step))
	b = le.AppendUint64(b, m.version)
	b = le.AppendUint64(b, m.supplier.Target)
	b = append(b, m.library[:]...)
	for _, d := range [...]time.Duration{m.fresh.Lifetime, m.fresh.InitialAge, m.fresh.StaleWhileRevalidate,
		m.fresh.StaleIfError} {
		b = le.AppendUint64(b, uint64(d))
	}
	b = le.AppendUint32(b, uint32(len(f.shown)))
	return append(b, m.supplier.UID...)
}

// encode returns what is stored of the fields of a reply, and of m beside them. It uses room behind
// f.shown.
func (m *meta) encode(f fields) (list, record []byte) {
	list = f.list()
	n := len(list)
	both := m.append(list, f)
	return both[:n:n], both[n:]
}

// parseMeta decodes what append wrote.
func parseMeta(h *objects.Head) (m meta, f fields, err error) {
	b := h.Meta
	if len(b) < metaFixed || b[0] != metaFormat {
		return m, f, errMeta
	}
	le := binary.LittleEndian
	flags := b[1]
	m.step = int(b[2])
	m.version = le.Uint64(b[3:])
	m.supplier.Target = le.Uint64(b[11:])
	copy(m.library[:], b[19:])
	m.fresh = rfc9111.Freshness{
		SetByUs: flags&flagSetByUs != 0, NoCache: flags&flagNoCache != 0, NoStale: flags&flagNoStale != 0,
		Immutable: flags&flagImmutable != 0, Capped: flags&flagCapped != 0,
		Targeted: flags&flagTargeted != 0,
		Lifetime: time.Duration(le.Uint64(b[27:])), InitialAge: time.Duration(le.Uint64(b[35:])),
		StaleWhileRevalidate: time.Duration(le.Uint64(b[43:])), StaleIfError: time.Duration(le.Uint64(b[51:])),
	}
	shown := int(le.Uint32(b[59:]))
	if shown > len(h.Fields) {
		return m, f, errMeta
	}
	f = fields{h.Fields[:shown:shown], h.Fields[shown:]}
	if uid := b[metaFixed:]; string(uid) == walk.LibraryUID {
		m.supplier.UID = walk.LibraryUID
	} else {
		m.supplier.UID = string(uid)
	}
	return m, f, nil
}

// fields are those of a reply, as two field lists. They are stored one behind the other.
type fields struct {
	// shown is what every client gets.
	shown []byte
	// hidden are fields that clients do not get, or not as the origin sent them, and that count
	// again when a 304 changes others (RFC 9111 3.2).
	hidden []byte
}

// list returns both as one list. It uses room behind shown.
func (f fields) list() []byte { return append(f.shown, f.hidden...) }

// fieldsOf makes the fields of a reply from an origin's header, without those that are never passed
// on.
func fieldsOf(h field.Map, f rfc9111.Freshness) (all fields) {
	rewrites := f.RewritesCacheControl()
	all.shown = make([]byte, 0, 512) // enough for most
	var room [24]field.Named         // so too
	for _, of := range h.AppendSorted(room[:0]) {
		switch of.Name {
		case "Age", "Content-Length", "Accept-Ranges":
			continue // written for each reply
		}
		if rfc9111.Dropped(of.Name) {
			continue
		}
		seen := clientValues(of.Name, of.Values, rewrites, f.Capped)
		for _, value := range seen {
			all.shown = field.Append(all.shown, of.Name, value)
		}
		if !slices.Equal(seen, of.Values) {
			for _, value := range of.Values {
				all.hidden = field.Append(all.hidden, of.Name, value)
			}
		}
	}
	if f.Capped && !rewrites && len(h["Cache-Control"]) == 0 {
		all.shown = field.Append(all.shown, "Cache-Control", rfc9111.CapMaxAge("", capped))
	}
	return all
}

// clientValues returns what clients see of a field, if they are sent another Cache-Control, or one
// that is capped.
func clientValues(name string, values []string, rewritten, isCapped bool) []string {
	switch name {
	case "Cdn-Cache-Control":
		return nil
	case "Date":
		// Where the edge has set the lifetime, the reply has the date on which it is sent. By the
		// date of the origin, a client would take a part of the lifetime for used up.
		if rewritten {
			return nil
		}
	case "Expires", "Pragma":
		if rewritten || isCapped {
			return nil
		}
	case "Cache-Control":
		if rewritten {
			return nil
		}
		if isCapped {
			return []string{rfc9111.CapMaxAge(strings.Join(values, ", "), capped)}
		}
	}
	return values
}

// origin returns the header as the origin sent it.
func (f fields) origin() field.Map {
	h := make(field.Map)
	for name, value := range field.Fields(f.shown) {
		h[name] = append(h[name], value)
	}
	replaced := make(map[string]bool)
	for name, value := range field.Fields(f.hidden) {
		if !replaced[name] {
			replaced[name] = true
			delete(h, name)
		}
		h[name] = append(h[name], value)
	}
	return h
}

// decoded is what a hit needs of a reply. It is kept in memory with the head, so that a hit parses
// nothing.
type decoded struct {
	meta
	fields
	vals rfc9111.Validators
	vary []string // selecting names
	// compressible: the file gets smaller, and may be changed.
	compressible bool
	// Of a compressible file, weak is the entity tag for other bytes that mean the same, and varied
	// the first Vary that clients see, with Accept-Encoding; "" without one.
	weak, varied string
	shared       *sharedHeads
}

// kept is a decoded reply with the memory of its shared.
type kept struct {
	decoded
	heads sharedHeads
}

// decode returns what is kept in memory of a reply, which is k. It looks at each field once.
func (k *kept) decode(status int, selecting []byte, m meta, f fields) *decoded {
	d := &k.decoded
	f.shown = slices.Clip(f.shown) // what is stored of the reply may lie behind it
	d.meta, d.fields, d.vary, d.shared = m, f, selectingNames(selecting), &k.heads
	typed, fixed := false, status != http.StatusOK
	last, vary, varies := "", "", false
	for _, list := range [...][]byte{f.shown, f.hidden} {
		for name, value := range field.Fields(list) {
			first := name != last // Lines of one name stand together.
			last = name
			switch name {
			case "Cache-Control", "Cdn-Cache-Control":
				fixed = fixed || noTransform(value)
			case "Content-Encoding":
				fixed = fixed || !strings.EqualFold(value, "identity")
			case "Content-Range":
				fixed = true // it has no effect here and is passed on, so its bytes may not change
			case "Content-Type":
				typed = true
				fixed = fixed || !coding.Compressible(value)
			case "Date":
				if first {
					d.vals.Date = value
				}
			case "Etag":
				if first {
					d.vals.ETag = value
				}
			case "Last-Modified":
				if first {
					d.vals.LastModified = value
				}
			case "Vary":
				if first {
					vary, varies = value, true
				}
			}
		}
	}
	if d.compressible = typed && !fixed; d.compressible {
		d.weak = weak(d.vals.ETag)
		if varies {
			h := field.Map{"Vary": {vary}}
			rfc9111.AddVary(h, "Accept-Encoding")
			d.varied = h.Get("Vary")
		}
	}
	return d
}

// Decode is the Decode function of a store that the cache uses.
func Decode(h *objects.Head) any {
	m, f, err := parseMeta(h)
	if err != nil {
		return nil // it is of another version of edgewalk
	}
	return new(kept).decode(h.Status, h.Selecting, m, f)
}
