package httpcache

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// meta is what the cache notes beside a stored reply.
type meta struct {
	fresh    rfc9111.Freshness
	supplier walk.Supplier
	step     int
	version  uint64
	library  [8]byte
	// shown is how many bytes of the stored fields clients see. Behind them are those that only the next judgement of the
	// reply needs (see splitFields).
	shown int
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
	flagToldApart = 1 << 5
)

var errMeta = errors.New("record beside a stored reply is malformed")

func (m *meta) append(b []byte) []byte {
	var flags byte
	for bit, set := range map[byte]bool{
		flagSetByUs: m.fresh.SetByUs, flagNoCache: m.fresh.NoCache, flagNoStale: m.fresh.NoStale,
		flagImmutable: m.fresh.Immutable, flagCapped: m.fresh.Capped,
		flagToldApart: m.fresh.ToldApart,
	} {
		if set {
			flags |= bit
		}
	}
	le := binary.LittleEndian
	b = append(b, metaFormat, flags, byte(m.step))
	b = le.AppendUint64(b, m.version)
	b = le.AppendUint64(b, m.supplier.Target)
	b = append(b, m.library[:]...)
	for _, d := range [...]time.Duration{m.fresh.Lifetime, m.fresh.InitialAge, m.fresh.StaleWhileRevalidate, m.fresh.StaleIfError} {
		b = le.AppendUint64(b, uint64(d))
	}
	b = le.AppendUint32(b, uint32(m.shown))
	return append(b, m.supplier.UID...)
}

// parseMeta decodes what append wrote.
func parseMeta(h *objects.Head) (m meta, err error) {
	b := h.Meta
	if len(b) < metaFixed || b[0] != metaFormat {
		return m, errMeta
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
		ToldApart: flags&flagToldApart != 0,
		Lifetime:  time.Duration(le.Uint64(b[27:])), InitialAge: time.Duration(le.Uint64(b[35:])),
		StaleWhileRevalidate: time.Duration(le.Uint64(b[43:])), StaleIfError: time.Duration(le.Uint64(b[51:])),
	}
	m.shown = int(le.Uint32(b[59:]))
	if m.shown > len(h.Fields) {
		return m, errMeta
	}
	if uid := b[metaFixed:]; string(uid) == walk.LibraryUID {
		m.supplier.UID = walk.LibraryUID
	} else {
		m.supplier.UID = string(uid)
	}
	return m, nil
}

// splitFields makes the list of fields that is stored with a reply, from a header that [rfc9111.Strip] has cleaned. The
// first shown bytes are what every client gets; behind them are fields that clients do not get, or not as the origin sent
// them, and that count again when a 304 changes others (RFC 9111 3.2).
func splitFields(h field.Map, f rfc9111.Freshness) (fields []byte, shown int) {
	var hidden []byte
	for _, name := range sortedNames(h) {
		switch name {
		case "Age", "Content-Length", "Accept-Ranges":
			continue // written for each reply
		}
		seen := clientValues(name, h[name], f)
		for _, value := range seen {
			fields = field.Append(fields, name, value)
		}
		if !slices.Equal(seen, h[name]) {
			for _, value := range h[name] {
				hidden = field.Append(hidden, name, value)
			}
		}
	}
	if f.Capped && !f.ClientsTold() && len(h["Cache-Control"]) == 0 {
		fields = field.Append(fields, "Cache-Control", rfc9111.CapMaxAge("", capped))
	}
	return append(fields, hidden...), len(fields)
}

// clientValues are what clients see of a field.
func clientValues(name string, values []string, f rfc9111.Freshness) []string {
	switch name {
	case "Cdn-Cache-Control":
		return nil
	case "Date":
		// Where we gave the lifetime, whoever sends the reply puts its own: with the origin's, a client would take the
		// lifetime as partly used up.
		if f.ClientsTold() {
			return nil
		}
	case "Expires", "Pragma":
		if f.ClientsTold() || f.Capped {
			return nil
		}
	case "Cache-Control":
		if f.ClientsTold() {
			return nil
		}
		if f.Capped {
			return []string{rfc9111.CapMaxAge(strings.Join(values, ", "), capped)}
		}
	}
	return values
}

func sortedNames(h field.Map) []string {
	names := make([]string, 0, len(h))
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// originHeader is the header as the origin sent it, from stored fields.
func originHeader(fields []byte, shown int) field.Map {
	h := make(field.Map)
	for name, value := range field.Fields(fields[:shown]) {
		h[name] = append(h[name], value)
	}
	replaced := make(map[string]bool)
	for name, value := range field.Fields(fields[shown:]) {
		if !replaced[name] {
			replaced[name] = true
			delete(h, name)
		}
		h[name] = append(h[name], value)
	}
	return h
}

// validators of a stored reply.
func validators(h *objects.Head, shown int) rfc9111.Validators {
	v := rfc9111.Validators{}
	v.ETag, _ = field.Get(h.Fields[:shown], "Etag")
	v.LastModified, _ = field.Get(h.Fields[:shown], "Last-Modified")
	v.Date, _ = field.Get(h.Fields, "Date")
	return v
}
