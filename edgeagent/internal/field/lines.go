package field

import (
	"iter"
	"strings"
)

// ID stands for a name that the edge looks at. The zero ID is that of every other name.
type ID uint8

// The names of request fields that the edge looks at.
const (
	Other ID = iota
	Accept
	AcceptEncoding
	AccessControlRequestMethod
	Authorization
	CacheControl
	CDNLoop
	Connection
	ContentLength
	Expect
	Host
	IfMatch
	IfModifiedSince
	IfNoneMatch
	IfRange
	IfUnmodifiedSince
	Origin
	Pragma
	Range
	SecFetchDest
	ServiceWorker
	TransferEncoding
	XForwardedFor
	XForwardedProto
	ids
)

var names = [ids]string{
	Accept: "Accept", AcceptEncoding: "Accept-Encoding", AccessControlRequestMethod: "Access-Control-Request-Method",
	Authorization: "Authorization", CacheControl: "Cache-Control", CDNLoop: "Cdn-Loop", Connection: "Connection",
	ContentLength: "Content-Length", Expect: "Expect", Host: "Host", IfMatch: "If-Match",
	IfModifiedSince: "If-Modified-Since", IfNoneMatch: "If-None-Match", IfRange: "If-Range",
	IfUnmodifiedSince: "If-Unmodified-Since", Origin: "Origin", Pragma: "Pragma", Range: "Range",
	SecFetchDest: "Sec-Fetch-Dest", ServiceWorker: "Service-Worker", TransferEncoding: "Transfer-Encoding",
	XForwardedFor: "X-Forwarded-For", XForwardedProto: "X-Forwarded-Proto",
}

// String returns the name in the form of [net/textproto.CanonicalMIMEHeaderKey], "" for [Other].
func (id ID) String() string { return names[id] }

// byLength has the IDs whose names have so many bytes.
var byLength = func() (all [32][]ID) {
	for id := Other + 1; id < ids; id++ {
		n := len(names[id])
		all[n] = append(all[n], id)
	}
	return all
}()

// IDOf returns the ID of a name in any case, [Other] for one that has none.
func IDOf(name string) ID {
	if len(name) < len(byLength) {
		for _, id := range byLength[len(name)] {
			if names[id][0]|0x20 == name[0]|0x20 && (names[id] == name || strings.EqualFold(names[id], name)) {
				return id
			}
		}
	}
	return Other
}

// Line is one field line.
type Line struct {
	Name, Value string
	ID          ID
}

// Lines are the field lines of one request as they were received, each value without the whitespace
// around it. The zero value has none.
type Lines struct {
	lines []Line
	first [ids]uint16 // the place in lines, counted from one, of the first line of each ID
}

// maxLines is how many lines there can be.
const maxLines = 1<<16 - 1

// Append adds a line at the end. Lines beyond the 65,535th are dropped: whoever reads requests
// refuses such a one.
func (l *Lines) Append(name, value string) { l.AppendKnown(IDOf(name), name, value) }

// AppendKnown is Append for a name whose ID is known.
func (l *Lines) AppendKnown(id ID, name, value string) {
	if len(l.lines) >= maxLines {
		return
	}
	l.lines = append(l.lines, Line{name, value, id})
	if id != Other && l.first[id] == 0 {
		l.first[id] = uint16(len(l.lines))
	}
}

// Len is the number of lines.
func (l *Lines) Len() int { return len(l.lines) }

// All yields every line in order.
func (l *Lines) All() iter.Seq[Line] {
	return func(yield func(Line) bool) {
		for _, line := range l.lines {
			if !yield(line) {
				return
			}
		}
	}
}

// Has reports whether there is a line of the name.
func (l *Lines) Has(id ID) bool { return l.first[id] != 0 }

// Get returns the value of the first line of the name, "" without one.
func (l *Lines) Get(id ID) string {
	if at := l.first[id]; at != 0 {
		return l.lines[at-1].Value
	}
	return ""
}

// Values yields the values of the name in order.
func (l *Lines) Values(id ID) iter.Seq[string] {
	return func(yield func(string) bool) {
		at := int(l.first[id])
		if at == 0 {
			return
		}
		for _, line := range l.lines[at-1:] {
			if line.ID == id && !yield(line.Value) {
				return
			}
		}
	}
}

// List returns the values of the name as one list (RFC 9110 5.3). It copies them if there are
// several.
func (l *Lines) List(id ID) string {
	var joined string
	for value := range l.Values(id) {
		if joined == "" {
			joined = value
		} else {
			joined += ", " + value
		}
	}
	return joined
}

// AppendValues appends the values of a name, which need not have an ID, in order.
func (l *Lines) AppendValues(values []string, name string) []string {
	id := IDOf(name)
	if id != Other && !l.Has(id) {
		return values
	}
	for i := range l.lines {
		line := &l.lines[i]
		if line.ID == id && (id != Other || len(line.Name) == len(name) && strings.EqualFold(line.Name, name)) {
			values = append(values, line.Value)
		}
	}
	return values
}

// Reset removes all lines and keeps their memory.
func (l *Lines) Reset() {
	clear(l.lines)
	l.lines, l.first = l.lines[:0], [ids]uint16{}
}

// Clone returns lines that share no memory with l.
func (l *Lines) Clone() Lines {
	size := 0
	for _, line := range l.lines {
		size += len(line.Name) + len(line.Value)
	}
	var text strings.Builder
	text.Grow(size)
	for _, line := range l.lines {
		text.WriteString(line.Name)
		text.WriteString(line.Value)
	}
	all, c := text.String(), Lines{lines: make([]Line, len(l.lines)), first: l.first}
	for i, line := range l.lines {
		name, value := len(line.Name), len(line.Name)+len(line.Value)
		c.lines[i] = Line{all[:name], all[name:value], line.ID}
		all = all[value:]
	}
	return c
}
