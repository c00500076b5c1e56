package front

import (
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// verdict on a request.
type verdict uint8

const (
	goodRequest verdict = iota
	badRequest          // RFC 9113 8.1.1
	largeRequest
)

// headerBlock takes the fields of a request, or its trailers.
func (h *h2conn) headerBlock(id uint32, block []byte) error {
	h.decoder.begin(block)
	if id <= h.newest {
		return h.trailers(id)
	}
	h.newest = id
	st := h.newStream(id)
	v, err := h.decode(st)
	if err != nil {
		return err
	}
	if h.blockSelf {
		v = badRequest
	}
	h.mu.Lock()
	h.served = true
	h.addPast(id)
	switch {
	case h.knowsLast && id > h.last: // The client knows that nobody looks at it (RFC 9113 6.8).
		err = h.glitchLocked(h.decoder.size)
	case v == badRequest:
		h.appendReset(id, codeProtocol)
		err = h.glitchLocked(h.decoder.size)
	case v == largeRequest && h.glitchLocked(h.decoder.size) != nil:
		err = codeCalm
	case h.running >= maxStreams:
		h.appendReset(id, codeRefused)
		if h.refused++; h.refused > maxRefused+h.answered {
			err = codeCalm
		}
	default:
		h.running++
		h.useful += len(block)
		st.window = h.first
		h.mu.Unlock()
		h.answered++
		if v == largeRequest {
			st.refuse(&refusal{431, "more than 32 KiB or 256 lines of fields"})
		} else {
			st.handle()
		}
		slowed := st.slowed
		st.finish()
		if slowed {
			return errElsewhere
		}
		h.keep(st)
		return nil
	}
	h.mu.Unlock()
	h.keep(st)
	return err
}

// trailers ends a request.
func (h *h2conn) trailers(id uint32) error {
	defer h.takeText()
	ok := h.blockEnds
	for {
		f, more, err := h.decoder.next()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		ok = ok && !f.badValue && f.kind != kindBad && f.kind != kindHop && f.name[0] != ':' &&
			h.decoder.size <= maxHeaderList
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	open := h.open[id]
	if open == nil {
		switch past := h.pastOf(id); {
		case past.id != id: // an identifier that was passed over (RFC 9113 5.1.1)
			return codeProtocol
		case !past.reset:
			return codeClosed
		}
		return h.glitchLocked(h.decoder.size)
	}
	switch {
	case open.ended:
		h.reset(open, codeClosed)
	case !ok || open.length >= 0 && open.got != open.length:
		h.reset(open, codeProtocol)
		return h.glitchLocked(h.decoder.size)
	default:
		open.ended = true
		open.notify()
	}
	return nil
}

// decode decodes a header block into a request. It decodes all of it, because later blocks refer to
// what it adds to the decoder's table.
func (h *h2conn) decode(st *h2stream) (verdict, error) {
	x, v := &st.x, goodRequest
	var scheme, host string
	var seen [kindPath + 1]bool
	regular, cookies := false, 0
	for {
		kept := len(h.decoder.text.b)
		f, more, err := h.decoder.next()
		if err != nil {
			return v, err
		}
		if !more {
			break
		}
		if h.decoder.size > maxHeaderList || x.Fields.Len() == maxFields {
			if v == goodRequest {
				v = largeRequest
			}
			h.decoder.text.b = h.decoder.text.b[:kept]
			continue
		}
		if f.badValue {
			v = badRequest
		}
		switch f.kind {
		case kindMethod, kindScheme, kindAuthority, kindPath:
			if regular || seen[f.kind] {
				v = badRequest
			}
			seen[f.kind] = true
			switch f.kind {
			case kindMethod:
				x.Method = f.value
			case kindScheme:
				scheme = f.value
			case kindAuthority:
				x.Authority = f.value
			case kindPath:
				x.Target = f.value
			}
			continue
		case kindBad, kindHop:
			v = badRequest
		case kindTE:
			if f.value != "trailers" {
				v = badRequest
			}
		case kindHost:
			if host != "" || f.value == "" {
				v = badRequest
			}
			host = f.value
			regular = true
			continue
		case kindLength:
			n, ok := contentLength(f.value)
			if !ok || st.length >= 0 && st.length != n {
				v = badRequest
			}
			st.length = n
		case kindCookie:
			cookies++
		}
		regular = true
		x.Fields.AppendKnown(f.id, f.name, f.value)
	}
	st.ended, st.content = h.blockEnds, !h.blockEnds
	if v != goodRequest {
		return v, nil
	}
	if cookies > 1 {
		joinCookies(&x.Fields)
	}
	switch {
	case host != "" && x.Authority == "":
		if seen[kindAuthority] { // an empty one
			return badRequest, nil
		}
		x.Authority = host
	case host != "" && !strings.EqualFold(host, x.Authority):
		return badRequest, nil
	}
	switch {
	case x.Authority == "" || !validHost(x.Authority), !field.IsToken(x.Method):
		return badRequest, nil
	case x.Method == "CONNECT": // RFC 9113 8.5
		if seen[kindScheme] || seen[kindPath] {
			return badRequest, nil
		}
		x.Target = x.Authority
	case scheme != "https" && scheme != "http":
		return badRequest, nil
	case x.Target == "*" && x.Method == "OPTIONS":
	case x.Target == "" || x.Target[0] != '/' || !validTarget(x.Target):
		return badRequest, nil
	}
	if st.ended && st.length > 0 {
		return badRequest, nil
	}
	return goodRequest, nil
}

// joinCookies joins the Cookie lines to one (RFC 9113 8.2.3).
func joinCookies(lines *field.Lines) {
	var all []string
	joined := field.Lines{}
	for line := range lines.All() {
		if line.Name == "cookie" {
			all = append(all, line.Value)
		} else {
			joined.AppendKnown(line.ID, line.Name, line.Value)
		}
	}
	joined.AppendKnown(field.Other, "cookie", strings.Join(all, "; "))
	*lines = joined
}

// contentLength reads a length of digits.
func contentLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, true
}
