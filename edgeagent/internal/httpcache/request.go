package httpcache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash/maphash"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/cachepolicy"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Request is one GET or HEAD for a file.
type Request struct {
	Method string
	// Key is that of [KeyOf]. If it is zero, the cache computes it.
	Key objects.Key
	// Request is what the request is for. The cache sets its Header from Fields and Client.
	walk.Request
	// Fields are the client's. They are only read.
	Fields *field.Lines
	// Client is whom the request is from, for origins that ask for it. It counts only where the
	// endpoint's ForwardClientIP is set.
	Client Client
	// Holder is the address or network that its fills are counted for.
	Holder netip.Addr
	// Now is when the request came. The zero Time stands for the moment it is served.
	Now time.Time
	// Admit says whether the request may wait for an origin. It is called at most once, and not for
	// what can be answered from here. nil: it may.
	Admit func() bool
	// BeforeDisk is called before each access to the disk, because that may take long. nil: nothing
	// is called.
	BeforeDisk func()
	// OnLeave calls f when the context ends that [Cache.Serve] is given, and also when the client
	// has closed its side of the connection. It may be gone then, or may wait for its reply. It
	// gets what is stored, but the edge fetches nothing that only this client waits for. The cache
	// stops each call before it asks for the next, and before Serve returns; stop reports whether f
	// is not called. nil: f is called when that context ends.
	OnLeave func(f func()) (stop func() bool)
	// Stays says that it costs little if the request goes on after its client has left: it makes
	// the walk itself, which is quicker, and ends with it. Else the walk has a goroutine of its
	// own.
	Stays bool
	// Interim is given interim replies (RFC 9110 15.2) that origins send while [Cache.Serve]
	// waits for the file, each with a field list; nil for nobody.
	Interim func(status int, fields []byte)
}

// Client is where a request came from.
type Client struct {
	Address netip.Addr
	// Scheme is "http" or "https".
	Scheme string
}

// query is a request with what the cache derives from it.
type query struct {
	*Request
	ctx    context.Context // ends reads of the reply's body
	key    objects.Key
	policy *cachepolicy.Policy
	cond   rfc9111.Conditions
	rang   string // the Range field, of GET only
	now    time.Time

	reload       bool          // the client asks for a revalidation, and the endpoint allows that
	maxAge       time.Duration // the oldest reply it accepts, if the endpoint allows that; negative: any
	onlyIfCached bool

	// What the current attempt has found.
	best     candidate
	forward  rfc9111.Forward // why an origin has to be asked
	vary     []string        // selecting names of a stored reply or of a fill
	sent     field.Map       // see header
	shares   bool            // see [Reply.Shared]
	reloaded bool            // the origin was asked for this very request

	answer answer // of one reply
	ofFill fillSource
	scratch
}

// scratch is memory that the next query uses too.
type scratch struct {
	lines   []string            // see endToEnd
	entries []objects.Entry     // of one look-up
	specs   []rfc9111.RangeSpec // see ranges
	spans   []rfc9111.ByteRange // see parts
}

// begin makes q the query of r.
func (c *Cache) begin(q *query, r *Request) {
	q.Request, q.key, q.policy = r, r.Key, &r.Target.Endpoint.Cache.Policy
	if q.key == (objects.Key{}) {
		q.key = KeyOf(r.Epoch, &r.Target)
	}
	q.now, q.maxAge = r.Now, -1
	if q.now.IsZero() {
		q.now = c.cfg.Now()
	}
	h := r.Fields
	q.cond = rfc9111.Conditions{
		IfMatch: h.List(field.IfMatch), IfNoneMatch: h.List(field.IfNoneMatch), IfRange: h.Get(field.IfRange),
		IfModifiedSince: h.Get(field.IfModifiedSince), IfUnmodifiedSince: h.Get(field.IfUnmodifiedSince),
	}
	if r.Method == http.MethodGet {
		q.rang = h.List(field.Range)
	}
	q.directives()
}

func (c *Cache) newQuery(r *Request) *query {
	q := new(query)
	c.begin(q, r)
	return q
}

// directives reads the client's Cache-Control. It counts only where the endpoint allows that,
// because anybody could make the edge ask the origins. Only only-if-cached always counts, because
// it asks for less.
func (q *query) directives() {
	honour := q.Target.Endpoint.Cache.HonorClientNoCache
	if !q.Fields.Has(field.CacheControl) {
		q.reload = honour && strings.EqualFold(q.Fields.Get(field.Pragma), "no-cache")
		return
	}
	q.lines = slices.AppendSeq(q.lines[:0], q.Fields.Values(field.CacheControl))
	d := rfc9111.ParseCacheControl(q.lines)
	q.onlyIfCached = d.OnlyIfCached
	if honour {
		q.reload = d.NoCache
		if d.MaxAge.Set {
			q.maxAge = d.MaxAge.Duration
		}
	}
}

// wantsNewer reports whether a reply of that age is too old for the client, and the endpoint allows
// that to count.
func (q *query) wantsNewer(age time.Duration) bool {
	return q.reload || q.maxAge >= 0 && age > q.maxAge
}

// KeyOf hashes everything by which one file differs from another. The uids keep an account or
// endpoint from being served what its predecessor of the same name left behind, and the epoch does
// so for histories, in two of which uids may be equal. The hash is a cryptographic one because
// clients choose what goes in, and two files of one key would be one.
func KeyOf(epoch string, t *topology.Target) objects.Key {
	var stack [512]byte
	b := stack[:0]
	host := ""
	if t.Endpoint.KeyHost {
		host = t.Host
	}
	for _, part := range [...]string{epoch, t.Account.UID, t.Endpoint.UID, t.File(), t.Query, host} {
		b = append(b, part...)
		b = append(b, 0) // in no part: canonical paths and queries hold no NUL
	}
	sum := sha256.Sum256(b)
	return objects.Key(sum[:16])
}

// scope returns the scope of this request's file for purges, without tags.
func (q *query) scope() purges.Scope {
	t := &q.Target
	return purges.Scope{Account: t.Account.UID, Endpoint: t.Endpoint.UID, Path: t.File(), Query: t.Query}
}

// library returns the hash of the file that the account's Media Library has for the path.
func (q *query) library() (sha [8]byte, ok bool) {
	if !q.Target.ObjectOK {
		return sha, false
	}
	return q.Target.Account.Media.Lookup(q.Target.Object)
}

// walkVersion depends on every step of the endpoint's walk.
func (q *query) walkVersion() uint64 {
	steps := q.Target.Endpoint.Steps
	if len(steps) == 0 {
		return 0
	}
	return steps[len(steps)-1].Version
}

// What a client that says nothing in them is taken to accept.
var (
	identity = []string{"identity"}
	anyType  = []string{"*/*"}
)

// field returns a request field as some web origin of the walk would see it: what is not forwarded
// is absent. Vary is evaluated on it. The result may be used until the next call.
func (q *query) field(name string) []string {
	if q.sent != nil {
		if name == cdnLoop && !q.forwards(name) {
			return nil
		}
		return q.sent[name]
	}
	switch name {
	case "Accept":
		if lines := q.endToEnd(name); len(lines) > 0 {
			return lines
		}
		return anyType
	case "Accept-Encoding":
		if lines := q.endToEnd(name); len(lines) > 0 {
			return lines
		}
		return identity
	}
	if q.Target.Endpoint.ForwardClientIP && (name == "X-Forwarded-For" || name == "X-Forwarded-Proto") {
		return q.header()[name]
	}
	if q.forwards(name) {
		return q.endToEnd(name)
	}
	return nil
}

// endToEnd returns the lines of a field, unless the client's Connection names it: then it is for
// the edge alone (RFC 9110 7.6.1). The result may be used until the next call.
func (q *query) endToEnd(name string) []string {
	for line := range q.Fields.Values(field.Connection) {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.Trim(option, " \t"), name) {
				return nil
			}
		}
	}
	q.lines = q.Fields.AppendValues(q.lines[:0], name)
	return q.lines
}

const cdnLoop = "Cdn-Loop"

// never are the fields that are not forwarded even if an origin lists them. They would make the
// reply something else than the file: the walk asks for whole files.
var never = []string{
	"connection", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "keep-alive",
	"proxy-connection", "range", "te", "trailer", "transfer-encoding", "upgrade",
}

func (q *query) forwards(name string) bool {
	for _, lower := range q.Target.Endpoint.ForwardRequestHeaders {
		if strings.EqualFold(lower, name) {
			_, no := slices.BinarySearch(never, lower)
			return !no
		}
	}
	return false
}

// forwarded returns the fields that make a reply the client's own, as far as is known before there
// is a reply. Authorization is not among them, because a reply that all clients may share is
// fetched once for all. A request that waited for a reply that turns out to be another client's own
// asks again.
func (q *query) forwarded() []string {
	return slices.DeleteFunc(slices.Clone(q.Target.Endpoint.ForwardRequestHeaders),
		func(name string) bool { return name == "authorization" })
}

// header returns what web origins may see of the client, by canonical name. Nobody may change it.
func (q *query) header() field.Map {
	if q.sent != nil {
		return q.sent
	}
	h, e := rfc9111.Negotiation(q.endToEnd), q.Target.Endpoint
	if e.ForwardClientIP || len(e.ForwardRequestHeaders) > 0 || q.Fields.Has(field.CDNLoop) {
		h = maps.Clone(h)
	}
	if e.ForwardClientIP && q.Client.Address.IsValid() {
		h["X-Forwarded-For"], h["X-Forwarded-Proto"] = []string{q.Client.Address.String()}, []string{q.Client.Scheme}
	}
	for _, lower := range e.ForwardRequestHeaders {
		name := field.Canonical(lower)
		if lines := q.endToEnd(name); len(lines) > 0 && h[name] == nil && q.forwards(name) {
			h[name] = slices.Clone(lines)
		}
	}
	// A client cannot remove the CDNs that a request came through (RFC 8586 3).
	if q.Fields.Has(field.CDNLoop) {
		h[cdnLoop] = slices.Collect(q.Fields.Values(field.CDNLoop))
	}
	q.sent = h
	return h
}

var askedSeed = maphash.MakeSeed()

// asked returns a hash of the client's fields that the ending of a walk may depend on: all that
// origins were sent, with Accept and CDN-Loop, because an origin may have no file in one of its
// forms. If every step said that there is no file, the address of the client is taken not to
// matter.
func (q *query) asked(definite bool) uint64 {
	var h maphash.Hash
	h.SetSeed(askedSeed)
	sent := q.header()
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		if definite && strings.HasPrefix(name, "X-Forwarded-") && !q.forwards(name) {
			continue
		}
		h.WriteString(name)
		for _, line := range sent[name] {
			h.WriteByte(0) // in no field
			h.WriteString(line)
		}
		h.WriteByte('\n') // nor this
	}
	return h.Sum64()
}

// absent is put before the name of a selecting field that the request does not have.
const absent = '!'

// appendSelecting appends the values by which a request that shows header selects a variant, in the
// form stored replies carry them.
func appendSelecting(b []byte, names []string, header rfc9111.Fields) []byte {
	for _, name := range names {
		value, present := rfc9111.Selecting(name, header)
		if !present {
			name = string(absent) + name
		}
		b = field.Append(b, name, value)
	}
	return b
}

// selects reports whether the request selects the variant with these selecting values.
func (q *query) selects(selecting []byte) bool {
	if len(selecting) == 0 {
		return true
	}
	for name, stored := range field.Fields(selecting) {
		wanted := true
		if name[0] == absent {
			name, wanted = name[1:], false
		}
		if value, present := rfc9111.Selecting(name, q.field); present != wanted || value != stored {
			return false
		}
	}
	return true
}

// selectingNames returns the names in a variant's selecting values.
func selectingNames(selecting []byte) []string {
	var names []string
	for name := range field.Fields(selecting) {
		names = append(names, strings.TrimPrefix(name, string(absent)))
	}
	return names
}

// sameVariant reports whether two requests, as origins would see them, select the same variant, as
// far as is known. Without names any two may.
func sameVariant(names []string, a, b rfc9111.Fields) bool {
	return len(names) == 0 || bytes.Equal(appendSelecting(nil, names, a), appendSelecting(nil, names, b))
}
