package front

import (
	"errors"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/net/http2/hpack"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// errCompression says that a header block cannot be decoded. Later blocks of the connection cannot
// be either (RFC 9113 4.3).
var errCompression = errors.New("header block cannot be decoded")

const (
	// tableBytes is SETTINGS_HEADER_TABLE_SIZE, whose initial value stays (RFC 9113 6.5.2).
	tableBytes = 4 << 10
	// entryBytes is added to the length of name and value for the size of a table's entry and of a
	// list's field (RFC 7541 4.1, RFC 9113 6.5.2).
	entryBytes = 32
	// maxDecoded bounds what a header block makes in names and values, and entryBytes for each
	// field: 200 bytes that refer to one long entry of the table over and over may make megabytes.
	maxDecoded = 8 * maxHeaderList
)

// kind is what a name of a request field means to HTTP/2.
type kind uint8

const (
	kindField kind = iota
	kindBad        // a name with characters that it may not have
	kindMethod
	kindScheme
	kindAuthority
	kindPath
	kindHost
	kindCookie
	kindLength
	kindTE
	kindHop // connection-specific, see RFC 9113 8.2.2
)

// headerField is a decoded field.
type headerField struct {
	name, value string
	kind        kind // of the name
	id          field.ID
	badValue    bool // with characters that it may not have
}

func (f *headerField) size() int { return len(f.name) + len(f.value) + entryBytes }

// classify returns what a name means; kindBad if it is not in lower case (RFC 9113 8.2.1).
func classify(name string) (kind, field.ID) {
	switch name {
	case ":method":
		return kindMethod, field.Other
	case ":scheme":
		return kindScheme, field.Other
	case ":authority":
		return kindAuthority, field.Other
	case ":path":
		return kindPath, field.Other
	case "host":
		return kindHost, field.Host
	case "cookie":
		return kindCookie, field.Other
	case "content-length":
		return kindLength, field.ContentLength
	case "te":
		return kindTE, field.Other
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return kindHop, field.Other
	}
	if name == "" {
		return kindBad, field.Other
	}
	for i := range len(name) {
		if c := name[i]; class[c]&inToken == 0 || 'A' <= c && c <= 'Z' {
			return kindBad, field.Other
		}
	}
	return kindField, field.IDOf(name)
}

// validH2Value reports whether a value may be one (RFC 9110 5.5, RFC 9113 8.2.1).
func validH2Value(value string) bool {
	if value == "" {
		return true
	}
	if first, last := value[0], value[len(value)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return false
	}
	for i := range len(value) {
		if class[value[i]]&inValue == 0 {
			return false
		}
	}
	return true
}

// staticTable is that of RFC 7541, appendix A, counted from one.
var staticTable = func() []headerField {
	table := make([]headerField, 1, 62)
	decoder := hpack.NewDecoder(0, func(f hpack.HeaderField) {
		k, id := classify(f.Name)
		table = append(table, headerField{name: f.Name, value: f.Value, kind: k, id: id})
	})
	for i := range 61 {
		if _, err := decoder.Write([]byte{0x80 | byte(i+1)}); err != nil {
			panic(err)
		}
	}
	return table
}()

// headerTable is the dynamic table of a decoder (RFC 7541 2.3.2).
type headerTable struct {
	ring   []headerField // a power of two long
	newest int
	n      int
	size   int
	max    int
}

// at returns the entry of an index, counted from one with the newest.
func (t *headerTable) at(i uint64) *headerField {
	return &t.ring[(t.newest-int(i)+1+len(t.ring))&(len(t.ring)-1)]
}

func (t *headerTable) add(f headerField) {
	size := f.size()
	t.shrink(t.max - size)
	if size > t.max {
		return // an entry that is too large empties the table (RFC 7541 4.4)
	}
	if t.n == len(t.ring) {
		grown := make([]headerField, max(8, 2*t.n))
		for i := range t.n {
			grown[i] = *t.at(uint64(t.n - i))
		}
		t.ring, t.newest = grown, t.n-1
	}
	t.newest = (t.newest + 1) & (len(t.ring) - 1)
	t.ring[t.newest] = f
	t.n++
	t.size += size
}

// shrink evicts until the table has at most size bytes.
func (t *headerTable) shrink(size int) {
	for t.size > size && t.n > 0 {
		oldest := t.at(uint64(t.n))
		t.size -= oldest.size()
		*oldest = headerField{}
		t.n--
	}
}

// decoder decodes the header blocks of a connection (RFC 7541). It allocates only for what enters
// its table: other strings lie in text.
type decoder struct {
	table headerTable
	block []byte
	began bool
	size  int // of the fields of the block that came, see maxDecoded
	text  textBuffer
}

// textBuffer takes strings. They lie in it until it is used for the next request.
type textBuffer struct{ b []byte }

// Write implements [io.Writer].
func (t *textBuffer) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	return len(p), nil
}

// from is the string that begins at an offset. A string keeps its memory when the buffer grows.
func (t *textBuffer) from(at int) string {
	return unsafe.String(unsafe.SliceData(t.b[at:]), len(t.b)-at)
}

// begin takes a whole header block.
func (d *decoder) begin(block []byte) { d.block, d.began, d.size = block, false, 0 }

// next returns the next field; ok is false at the end of the block.
func (d *decoder) next() (f headerField, ok bool, err error) {
	f, ok, err = d.representation()
	if d.size += f.size(); d.size > maxDecoded {
		return f, false, codeCalm
	}
	return f, ok, err
}

// representation reads what stands for the next field (RFC 7541 6).
func (d *decoder) representation() (f headerField, ok bool, err error) {
	for len(d.block) > 0 {
		switch b := d.block[0]; {
		case b&0x80 != 0: // indexed
			d.began = true
			index, err := d.integer(7)
			if err != nil {
				return f, false, err
			}
			entry, err := d.entry(index)
			if err != nil {
				return f, false, err
			}
			return *entry, true, nil
		case b&0x40 != 0: // literal, and to be indexed
			d.began = true
			f, err := d.literal(6)
			if err == nil {
				d.table.add(owned(f))
			}
			return f, err == nil, err
		case b&0x20 != 0: // the table's size
			size, err := d.integer(5)
			if err != nil {
				return f, false, err
			}
			if d.began || size > tableBytes { // RFC 7541 4.2
				return f, false, errCompression
			}
			d.table.max = int(size)
			d.table.shrink(int(size))
		default: // literal, not to be indexed, or never
			d.began = true
			f, err := d.literal(4)
			return f, err == nil, err
		}
	}
	return f, false, nil
}

// owned copies what lies in the text of a request. A name that came from the dynamic table is
// copied too, because it would keep the memory of its entry.
func owned(f headerField) headerField {
	var both strings.Builder
	both.Grow(len(f.name) + len(f.value))
	both.WriteString(f.name)
	both.WriteString(f.value)
	f.value = both.String()[len(f.name):]
	f.name = both.String()[:len(f.name)]
	return f
}

func (d *decoder) entry(index uint64) (*headerField, error) {
	switch {
	case index == 0:
	case index < uint64(len(staticTable)):
		return &staticTable[index], nil
	case index-uint64(len(staticTable)) < uint64(d.table.n):
		return d.table.at(index - uint64(len(staticTable)) + 1), nil
	}
	return nil, errCompression
}

// literal reads a literal representation whose index has so many bits.
func (d *decoder) literal(bits uint) (f headerField, err error) {
	index, err := d.integer(bits)
	if err != nil {
		return f, err
	}
	if index > 0 {
		entry, err := d.entry(index)
		if err != nil {
			return f, err
		}
		f.name, f.id, f.kind = entry.name, entry.id, entry.kind
	} else {
		if f.name, err = d.string(); err != nil {
			return f, err
		}
		f.kind, f.id = classify(f.name)
	}
	f.value, err = d.string()
	f.badValue = !validH2Value(f.value)
	return f, err
}

// integer reads an integer with a prefix of so many bits (RFC 7541 5.1).
func (d *decoder) integer(bits uint) (uint64, error) {
	if len(d.block) == 0 {
		return 0, errCompression
	}
	n := uint64(d.block[0]) & (1<<bits - 1)
	d.block = d.block[1:]
	if n < 1<<bits-1 {
		return n, nil
	}
	for shift := uint(0); shift <= 28 && len(d.block) > 0; shift += 7 {
		b := d.block[0]
		d.block = d.block[1:]
		n += uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, nil
		}
	}
	return 0, errCompression
}

// string reads a string (RFC 7541 5.2).
func (d *decoder) string() (string, error) {
	if len(d.block) == 0 {
		return "", errCompression
	}
	huffman := d.block[0]&0x80 != 0
	n, err := d.integer(7)
	if err != nil || n > uint64(len(d.block)) {
		return "", errCompression
	}
	p, at := d.block[:n], len(d.text.b)
	d.block = d.block[n:]
	if !huffman {
		d.text.b = append(d.text.b, p...)
	} else if _, err := hpack.HuffmanDecode(&d.text, p); err != nil {
		return "", errCompression
	}
	return d.text.from(at), nil
}

// replyNames has the index in the static table of each name that is there, in the form that field
// lists have it. Names of fields that HTTP/2 has not have notSent (RFC 9113 8.2.2), and so has
// Content-Length, which is framing.
var replyNames = func() map[string]byte {
	names := map[string]byte{}
	for i := len(staticTable) - 1; i > 0; i-- {
		names[field.Canonical(staticTable[i].name)] = byte(i)
	}
	for _, name := range []string{
		"Connection", "Content-Length", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Upgrade",
	} {
		names[name] = notSent
	}
	return names
}()

const notSent = 0xff

// indexes of the static table
const (
	staticStatus        = 8 // its name, and :status 200
	staticContentLength = 28
	staticDate          = 33
)

// statuses have the indexes of the static table.
var statuses = [...]int{200, 204, 206, 304, 400, 404, 500}

// appendStatus appends the field of a status to a header block.
func appendStatus(b []byte, status int) []byte {
	if i := slices.Index(statuses[:], status); i >= 0 {
		return append(b, 0x80|byte(staticStatus+i))
	}
	return append(b, staticStatus, 3, byte('0'+status/100%10), byte('0'+status/10%10), byte('0'+status%10))
}

func appendValue(b []byte, value string) []byte {
	return append(appendInteger(b, 7, uint64(len(value))), value...)
}

// appendBlock appends a field list to a header block, as literals that are not to be indexed (RFC
// 7541 6.2.2). It reports whether there is a Date.
func appendBlock(b, fields []byte) (block []byte, dated bool) {
	for name, value := range field.Fields(fields) {
		index, known := replyNames[name]
		if !known {
			if canonical := field.Canonical(name); canonical != name {
				name = canonical
				index, known = replyNames[name]
			}
		}
		switch {
		case index == notSent:
			continue
		case known:
			dated = dated || index == staticDate
			b = appendInteger(b, 4, uint64(index))
		default:
			b = appendInteger(append(b, 0), 7, uint64(len(name)))
			for i := range len(name) {
				c := name[i]
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				b = append(b, c)
			}
		}
		if strings.IndexByte(value, '\n') >= 0 || strings.IndexByte(value, '\r') >= 0 {
			value = oneLine.Replace(value) // whoever passes it on in HTTP/1 would end its line early (RFC 9113 8.2.1)
		}
		b = appendValue(b, value)
	}
	return b, dated
}

// appendInteger appends an integer whose prefix has some bits, and zeros above it (RFC 7541 5.1).
func appendInteger(b []byte, bits uint, n uint64) []byte {
	if most := uint64(1)<<bits - 1; n < most {
		return append(b, byte(n))
	} else {
		b = append(b, byte(most))
		n -= most
	}
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
