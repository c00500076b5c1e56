package edgehttp

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
	"github.com/edgewalk/edgewalk/edgeagent/internal/tracing"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// exchange is one request, and memory that the next one uses too.
type exchange struct {
	handled

	// front.Exchange's MayWait and OnLeave, without a new closure for each request.
	mayWait func()
	onLeave func(f func()) (stop func() bool)

	line   []byte // of the access log
	fields []byte // of the reply
	hit    httpcache.Reply
}

// handled is one request, with what is counted and logged of it. Until [front.Exchange.Own] is
// called, its strings may lie in memory that is used again after the answer.
type handled struct {
	*front.Exchange
	client  netip.Addr
	holder  netip.Addr                            // the network of client, whom its places are counted for
	waits   struct{ client, account *share.Held } // its places among those that wait for origins
	account string                                // uid
	known   *location                             // where it leads, nil if that was not known
	// endpoint is nil until it is known.
	endpoint *topology.Endpoint
	entry    accessEntry
	query    string // the kept one
	asked    httpcache.Request
	steps    []walk.StepReport
	outcome  outcome
	hsts     bool         // the domain has said Strict-Transport-Security
	id       [32]byte     // see newRequestID
	block    *front.Block // sent before the fields
	sent     front.Reply
}

func newExchange() *exchange {
	x := new(exchange)
	x.mayWait = func() { x.MayWait() }
	x.onLeave = func(f func()) (stop func() bool) { return x.OnLeave(f) }
	return x
}

// serve answers one request.
func (s *Server) serve(request *front.Exchange) {
	x, ok := request.Kept.(*exchange)
	if !ok {
		x = newExchange()
	}
	request.Kept = nil // until it is done
	x.Exchange, x.client, x.outcome, x.id = request, s.client(request), outcomeRefused, newRequestID()
	defer s.finish(x)
	x.holder = listen.Client(x.client)
	place, verdict := s.requests.clients.Take(x.holder, 0)
	if !s.place(x, verdict, "client") {
		return
	}
	defer s.requests.clients.Release(place)
	defer s.leave(x)
	s.answer(x)
}

// place refuses a request that got no place of its client's or its account's.
func (s *Server) place(x *exchange, verdict share.Verdict, of string) bool {
	reason, text := "requests", "the edge is busy"
	switch verdict {
	case share.Taken:
		return true
	case share.OverShare:
		reason, text = "requests_per_"+of, "too many requests at once for one "+of
	}
	s.metrics.refused.WithLabelValues(reason).Inc()
	x.add("Retry-After", "1")
	x.refuse(http.StatusServiceUnavailable, text)
	return false
}

// admit reports whether a request may wait for an origin. Some places are only for requests that
// need not wait, so that what is stored is served while origins are slow.
func (s *Server) admit(x *exchange) bool {
	if x.waits.client != nil {
		return true
	}
	client, verdict := s.waiting.clients.Take(x.holder, 0)
	of := "client"
	if verdict == share.Taken {
		of = "account"
		if x.waits.account, verdict = s.waiting.accounts.Take(x.account, 0); verdict != share.Taken {
			s.waiting.clients.Release(client)
		}
	}
	switch verdict {
	case share.Taken:
		x.waits.client = client
	case share.Full:
		s.metrics.refused.WithLabelValues("waiting").Inc()
	case share.OverShare:
		s.metrics.refused.WithLabelValues("waiting_per_" + of).Inc()
	}
	return verdict == share.Taken
}

// leave gives back what admit took.
func (s *Server) leave(x *exchange) {
	if x.waits.client != nil {
		s.waiting.clients.Release(x.waits.client)
		s.waiting.accounts.Release(x.waits.account)
	}
}

// finish counts and logs a request. If a fault of the edge has ended it without a whole reply, it
// reports the fault.
func (s *Server) finish(x *exchange) {
	fault := recover()
	took := x.Took()
	s.metrics.observe(x.outcome, x.entry.Status, took)
	if x.entry.Bytes > 0 {
		s.metrics.bytes.Add(float64(x.entry.Bytes))
	}
	if x.entry.Aborted {
		s.metrics.aborted.Inc()
	}
	if x.endpoint != nil {
		s.metrics.count(x)
	}
	if s.access != nil && s.access.wants(x.entry.Status) {
		s.note(x, took)
	}
	if fault != nil {
		s.panicked(fault, debug.Stack(), "request_id", string(x.id[:]), "method", x.Method, "host", x.entry.Host,
			"path", x.entry.Path)
		return
	}
	x.hit.Reset()
	request := x.Exchange
	x.handled, x.fields = handled{}, x.fields[:0]
	request.Kept = x
}

// note writes a request into the access log.
func (s *Server) note(x *exchange, took time.Duration) {
	e := &x.entry
	e.Time, e.RequestID, e.Version, e.TLS, e.Method = x.Now, x.id, x.Version, x.Conn.TLSVersion, x.Method
	e.Client, e.Query, e.Outcome, e.Steps, e.Took = x.client, x.query, x.outcome.String(), x.steps, took
	e.UserAgent, e.Referer = fromBrowser(&x.Fields)
	if e.Host == "" {
		e.Host = x.Authority
	}
	if e.FirstByte == 0 {
		e.FirstByte = took
	}
	x.line = e.append(x.line[:0])
	s.access.add(x.line)
	if cap(x.line) > maxLine {
		x.line = nil
	}
}

// maxLine is what is kept for lines of the access log between two requests.
const maxLine = 4 << 10

// panicked counts a fault of the edge, and logs some of them.
func (s *Server) panicked(fault any, stack []byte, about ...any) {
	s.metrics.panics.Inc()
	s.panics.error("a request ended by a fault of edgewalk", append(about, "panic", fault, "stack", string(stack))...)
}

// answer answers a request, or passes it to what does.
func (s *Server) answer(x *exchange) {
	if x.Method == http.MethodOptions && ofServer(x.Target) {
		x.outcome = outcomeOptions
		x.add("Allow", allowed)
		x.addID()
		x.reply(front.Reply{Status: http.StatusNoContent})
		return
	}
	root := s.cfg.Table.Root()
	e := &x.entry
	e.Revision = root.Revision()
	known, hash := s.locations.find(x.Exchange, root)
	if x.known = known; known != nil {
		x.asked.Target, x.asked.Key = known.target, known.key
	} else if !s.locate(x, root) {
		return
	}
	target := &x.asked.Target
	e.Host, e.Account, e.Endpoint, e.Path, x.query = target.Host, target.Account.ID, target.Endpoint.ID, target.Path,
		target.Query
	x.account, x.endpoint = target.Account.UID, target.Endpoint
	if d := target.Domain; d != nil && x.Conn.TLS && (d.NoTLS || d.MinTLS13 && x.Conn.TLSVersion < tls.VersionTLS13) {
		x.refuse(http.StatusMisdirectedRequest, "the host is not served over such a connection")
		return
	}
	place, verdict := s.requests.accounts.Take(x.account, target.Account.MaxRequests)
	if !s.place(x, verdict, "account") {
		return
	}
	defer s.requests.accounts.Release(place)
	if x.hsts = x.Conn.TLS && target.Domain != nil && target.Domain.HSTS != ""; x.hsts {
		x.add("Strict-Transport-Security", target.Domain.HSTS)
	}
	if s.redirects(x, root, target) {
		return
	}
	switch {
	case x.Method == http.MethodOptions:
		x.outcome = outcomeOptions
		x.preflight(target.Endpoint)
	case x.Method != http.MethodGet && x.Method != http.MethodHead:
		x.add("Allow", allowed)
		x.refuse(http.StatusMethodNotAllowed, "files are read with GET and HEAD")
	case x.HasContent():
		x.refuse(http.StatusBadRequest, "a request for a file has no body")
	case s.loops(&x.Fields):
		x.refuse(http.StatusLoopDetected, hereBefore)
	case !fits(&x.Fields):
		x.refuse(
			http.StatusLoopDetected,
			"the request has been through more CDNs than it could have without going in a circle",
		)
	case target.Domain == nil && wantsWorker(&x.Fields):
		x.refuse(
			http.StatusForbidden,
			"a service worker would act for every account of this host; serve it from a domain of your own",
		)
	default:
		a := &x.asked
		a.Method, a.Revision, a.Epoch, a.Fields = x.Method, root.Revision(), root.Epoch(), &x.Fields
		a.Client, a.Holder, a.Now, a.BeforeDisk = s.speaksFor(x, target), x.holder, x.Now, x.mayWait
		switch {
		case target.AccountAlone():
			s.serveFolder(x)
		case s.serveFile(x) && known == nil:
			s.locations.hit(x.Exchange, root, hash, target)
		}
	}
}

// ofServer reports whether the target of OPTIONS stands for the server as a whole: `*`, or a URL
// without a path and a query (RFC 9112 3.2.4).
func ofServer(target string) bool {
	if target == "*" {
		return true
	}
	_, path, _, ok := topology.SplitTarget(target)
	return ok && path == "" && !strings.Contains(target, "?")
}

// locate sets where a request leads. It reports false if it has answered: a challenge, or a request
// that leads nowhere.
func (s *Server) locate(x *exchange, root *route.Root) bool {
	authority, path, query, ok := topology.SplitTarget(x.Target)
	if !ok {
		x.refuse(http.StatusBadRequest, "the request target is no path")
		return false
	}
	if authority == "" {
		authority = x.Authority
	}
	x.entry.Host, x.entry.Path = authority, path
	target, refusal := topology.Locate(root, topology.Request{
		Host: authority, RawPath: path, RawQuery: query, AccountHosts: s.cfg.AccountHosts, TLS: x.Conn.TLS,
		SNI: x.Conn.SNI,
	})
	x.asked.Target = target
	if s.challenge(x, path, target.Domain) {
		return false
	}
	if refusal == nil {
		return true
	}
	if host, err := topology.CanonicalHost(authority); err == nil && root.Pending(host) {
		s.pending.note(host)
	}
	if refusal.Status == http.StatusServiceUnavailable {
		x.add("Retry-After", "1")
	}
	if s.loops(&x.Fields) {
		// A 404 would tell an edge whose origin this edge is that the file does not exist.
		x.refuse(http.StatusLoopDetected, hereBefore)
		return false
	}
	x.refuse(refusal.Status, refusal.Reason)
	return false
}

// serveFolder answers for a path that names only an account (see [topology.Target.AccountAlone]).
func (s *Server) serveFolder(x *exchange) {
	_, _, query, _ := topology.SplitTarget(x.Target)
	query = strings.Clone(query)
	asked := s.own(x)
	asked.Method, asked.Target.Path = http.MethodHead, "/"
	reply := s.cfg.Cache.Serve(s.within(x), asked)
	defer reply.Close()
	x.steps = reply.Steps
	switch {
	case reply.Outcome == httpcache.Failed || reply.Outcome == httpcache.Refused || reply.Outcome == httpcache.Canceled:
		x.outcome = outcome(reply.Outcome)
		x.refuse(reply.Status, "whether the account has a file here is not known")
	case reply.Outcome == httpcache.NotFound || reply.Outcome == httpcache.DefaultImage:
		x.outcome = outcome(httpcache.NotFound)
		x.refuse(http.StatusNotFound, "an account's files are below /"+asked.Target.Account.ID+"/")
	default:
		x.outcome, x.entry.Supplier = outcome(reply.Outcome), reply.Supplier
		location := "/" + asked.Target.Account.ID + "/"
		if query != "" {
			location += "?" + inURI(query)
		}
		x.add("Location", location)
		x.refuse(http.StatusMovedPermanently, "the file is at "+location)
	}
}

// serveFile lets the cache answer, and reports whether it was a hit.
func (s *Server) serveFile(x *exchange) (hit bool) {
	if s.cfg.Cache.Hit(&x.asked, &x.hit) {
		s.send(x, &x.asked.Target, &x.hit)
		return true
	}
	asked := s.own(x)
	asked.Interim = x.interim(&asked.Target)
	s.send(x, &asked.Target, s.cfg.Cache.Serve(s.within(x), asked))
	return false
}

// within returns the context of a request that has to wait. It is part of the trace that a trusted
// proxy names. Nobody else may name one: strangers could have all their requests traced, or put
// them into traces of others.
func (s *Server) within(x *exchange) context.Context {
	if !s.cfg.Traces || !contains(s.cfg.TrustedProxies, x.Conn.Remote.Addr().Unmap()) {
		return x.Context()
	}
	return tracing.Within(x.Context(), &x.Fields)
}

// own returns the request to the cache of a client's request that has to wait, with strings and
// memory that the cache may keep.
func (s *Server) own(x *exchange) *httpcache.Request {
	x.Own()
	held := &struct {
		asked  httpcache.Request
		fields field.Lines
	}{x.asked, x.Fields}
	asked, t := &held.asked, &held.asked.Target
	own(t)
	asked.Method, asked.Fields, asked.OnLeave, asked.BeforeDisk = x.Method, &held.fields, x.onLeave, nil
	// What a client of HTTP/2 has given up must not count among what it may ask for at once.
	asked.Stays = x.Version < front.HTTP2
	asked.Admit = func() bool { return s.admit(x) }
	x.entry.Host, x.entry.Path, x.query = t.Host, t.Path, t.Query
	return asked
}

// send sends a reply of the cache.
func (s *Server) send(x *exchange, target *topology.Target, reply *httpcache.Reply) {
	defer reply.Close()
	x.outcome, x.entry.Supplier, x.steps = outcome(reply.Outcome), reply.Supplier, reply.Steps
	x.addHead(target, reply)
	if s.access != nil && !leavesAtOnce(reply) {
		x.entry.FirstByte = time.Since(x.Now)
	}
	x.reply(front.Reply{
		Status: reply.Status, Length: reply.Length, Mem: reply.Mem, File: reply.File, Offset: reply.Offset,
		Unsent: reply.Unsent, Stream: reply.Stream,
	})
}

// leavesAtOnce reports whether the first byte of a reply leaves with its last, so that the clock is
// read once for both.
func leavesAtOnce(r *httpcache.Reply) bool {
	return r.Stream == nil && r.Length <= 16<<10
}

// interim returns what passes interim replies on to the client, without the fields that the
// endpoint removes or sets.
func (x *exchange) interim(target *topology.Target) func(int, []byte) {
	return func(status int, fields []byte) {
		own := ownFields{target.Endpoint.ResponseHeaders, target}
		var list []byte
		for name, value := range field.Fields(fields) {
			if mayPass(name, target) && !own.decides(name) {
				list = field.Append(list, name, value)
			}
		}
		_ = x.Interim(status, list) // It fails if the client is gone, and then the reply fails too.
	}
}

// add adds a field to the reply.
func (x *exchange) add(name, value string) { x.fields = field.Append(x.fields, name, value) }

// addID adds the request's id.
func (x *exchange) addID() {
	x.fields = field.AppendBytes(field.AppendBytes(x.fields, "X-Request-Id"), x.id[:])
}

// reply sends the reply with the fields of x.
func (x *exchange) reply(r front.Reply) {
	x.sent = r
	x.sent.Block, x.sent.Fields = x.block, x.fields
	x.entry.Status = r.Status
	var err error
	x.entry.Bytes, err = x.Reply(&x.sent)
	x.entry.Aborted = err != nil
}

// refuse answers with an error in one line of text, which may not be stored.
func (x *exchange) refuse(status int, reason string) {
	x.add("Cache-Control", "no-store")
	x.add("Content-Type", "text/plain; charset=utf-8")
	x.add("X-Content-Type-Options", "nosniff")
	x.addID()
	x.reply(front.Reply{Status: status, Mem: []byte(strconv.Itoa(status) + " " + reason + "\n")})
}

// hereBefore is the reason for refusing a request that has come back to this deployment.
const hereBefore = "the request has been here before; an origin leads back to the edge"

// loops reports whether the deployment's own id is in a CDN-Loop field (RFC 8586 2: cdn-info, a
// list of ids with parameters).
func (s *Server) loops(fields *field.Lines) bool {
	if !fields.Has(field.CDNLoop) {
		return false
	}
	id := s.cfg.LoopID()
	for line := range fields.Values(field.CDNLoop) {
		for info := range strings.SplitSeq(line, ",") {
			name, _, _ := strings.Cut(info, ";")
			if strings.TrimSpace(name) == id {
				return true
			}
		}
	}
	return false
}

// maxLoop bounds a CDN-Loop field, all of which goes to origins (RFC 8586 2). Ten CDNs take some
// 200 bytes.
const maxLoop = 1 << 10

// fits reports whether a CDN-Loop field is short enough to be passed on.
func fits(fields *field.Lines) bool {
	n := 0
	for line := range fields.Values(field.CDNLoop) {
		n += len(line) + len(", ")
	}
	return n <= maxLoop
}

// speaksFor returns the client of a request, for an endpoint whose origins get its address.
func (s *Server) speaksFor(x *exchange, t *topology.Target) httpcache.Client {
	if !t.Endpoint.ForwardClientIP {
		return httpcache.Client{}
	}
	scheme := "http"
	if x.Conn.TLS {
		scheme = "https"
	}
	if contains(s.cfg.TrustedProxies, x.Conn.Remote.Addr().Unmap()) {
		list := x.Fields.List(field.XForwardedProto)
		last := strings.ToLower(strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:]))
		if last == "http" || last == "https" {
			scheme = last
		}
	}
	return httpcache.Client{Address: x.client, Scheme: scheme}
}

// client returns the address that a request came from. If that is a trusted proxy, it is the last
// address of X-Forwarded-For; if that is one too, the one before it, and so on.
func (s *Server) client(x *front.Exchange) netip.Addr {
	client := x.Conn.Remote.Addr().Unmap().WithZone("")
	if !contains(s.cfg.TrustedProxies, client) {
		return client
	}
	hops := strings.Split(x.Fields.List(field.XForwardedFor), ",")
	for i := len(hops) - 1; i >= 0 && contains(s.cfg.TrustedProxies, client); i-- {
		next, err := parseHop(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = next.Unmap().WithZone("")
	}
	return client
}

// parseHop reads an address of X-Forwarded-For. Some proxies write the client's port behind it.
func parseHop(hop string) (netip.Addr, error) {
	address, err := netip.ParseAddr(hop)
	if err == nil {
		return address, nil
	}
	withPort, err := netip.ParseAddrPort(hop)
	return withPort.Addr(), err
}

// newRequestID returns a random id, by which a reply can be found in the log.
func newRequestID() (id [32]byte) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	hex.Encode(id[:], b[:])
	return id
}

// errUnready is the answer to health checks while requests are drained.
var errUnready = errors.New("stopping")

// Ready returns an error while clients should go elsewhere.
func (s *Server) Ready() error {
	if s.draining.Load() {
		return errUnready
	}
	return nil
}

func contains(prefixes []netip.Prefix, ip netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
