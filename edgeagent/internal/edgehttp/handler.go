package edgehttp

import (
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Outcomes of requests that the cache is not asked about, beside those of httpcache.
const (
	outcomeRefused = "refused"
	outcomeOptions = "options"
)

// exchange is one request and what is said of it afterwards.
type exchange struct {
	w       http.ResponseWriter
	r       *http.Request
	start   time.Time
	client  netip.Addr
	holder  netip.Addr // the network of client, whom its places are counted for
	waits   bool       // it holds places among those that wait for origins
	account string     // uid
	entry   accessEntry
	query   string // the kept one
	asked   httpcache.Request
	steps   []walk.StepReport
	outcome string
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 2 {
		w = progressWriter{w, s.cfg.WriteStall}
	}
	x := &exchange{w: w, r: r, start: time.Now(), client: s.client(r), outcome: outcomeRefused}
	x.entry.RequestID = newRequestID()
	w.Header()["X-Request-Id"] = []string{x.entry.RequestID}
	defer s.recovered(x)
	// A reply that breaks off panics, by net/http's rule; it is logged all the same.
	defer s.finish(x)
	if r.ContentLength != 0 {
		x.leaveBody()
	}
	x.holder = listen.Client(x.client)
	if !s.place(x, s.requests.clients.Take(x.holder, 0), "client") {
		return
	}
	defer s.requests.clients.Release(x.holder)
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
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
	x.w.Header().Set("Retry-After", "1")
	x.refuse(http.StatusServiceUnavailable, text)
	return false
}

// admit reports whether a request may wait for an origin. Some places are only for those that need
// not, so that what is stored is served while origins are slow.
func (s *Server) admit(x *exchange) bool {
	if x.waits {
		return true
	}
	verdict, of := s.waiting.clients.Take(x.holder, 0), "client"
	if verdict == share.Taken {
		if verdict, of = s.waiting.accounts.Take(x.account, 0), "account"; verdict != share.Taken {
			s.waiting.clients.Release(x.holder)
		}
	}
	x.waits = verdict == share.Taken
	switch verdict {
	case share.Full:
		s.metrics.refused.WithLabelValues("waiting").Inc()
	case share.OverShare:
		s.metrics.refused.WithLabelValues("waiting_per_" + of).Inc()
	}
	return x.waits
}

// leave gives back what admit took.
func (s *Server) leave(x *exchange) {
	if x.waits {
		s.waiting.clients.Release(x.holder)
		s.waiting.accounts.Release(x.account)
	}
}

// leaveBody sees to it that a body, which no request here needs, is not waited for, and that
// nothing that follows it on the connection is taken for a request: where it ends may be understood
// differently by something in front (RFC 9112 11.2).
func (x *exchange) leaveBody() {
	if x.r.ProtoMajor != 1 {
		return // a stream of its own, which net/http ends
	}
	x.w.Header().Set("Connection", "close")
	// Its error is that the connection is gone, which the reply finds out too.
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(bodyTimeout))
}

// recovered tells of a fault of ours. net/http then ends the connection or the stream.
func (s *Server) recovered(x *exchange) {
	fault := recover()
	if fault == nil {
		return
	}
	if fault != http.ErrAbortHandler {
		s.metrics.panics.Inc()
		s.panics.error("a request ended by a fault of edgewalk", "request_id", x.entry.RequestID, "method", x.r.Method,
			"host", x.entry.Host, "path", x.entry.Path, "panic", fault, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// finish counts and logs.
func (s *Server) finish(x *exchange) {
	took := time.Since(x.start)
	s.metrics.observe(x.outcome, x.entry.Status, took)
	s.metrics.bytes.Add(float64(x.entry.Bytes))
	if x.entry.Aborted {
		s.metrics.aborted.Inc()
	}
	if s.access == nil {
		return
	}
	e := &x.entry
	e.Time, e.Protocol, e.Method, e.Outcome = x.start.UTC(), x.r.Proto, x.r.Method, x.outcome
	e.Client, e.QueryHash, e.Steps = x.client.String(), hashOf(x.query), stepsOf(x.steps)
	e.DurationMS = milliseconds(took)
	if e.Host == "" {
		e.Host = x.r.Host
	}
	s.access.add(e)
}

// answer decides what becomes of a request.
func (s *Server) answer(x *exchange) {
	r := x.r
	if r.Method == http.MethodOptions && r.RequestURI == "*" {
		x.outcome, x.entry.Status = outcomeOptions, http.StatusNoContent
		x.w.Header().Set("Allow", allowed)
		x.w.WriteHeader(http.StatusNoContent)
		return
	}
	authority, path, query, ok := topology.SplitTarget(r.RequestURI)
	if !ok {
		x.refuse(http.StatusBadRequest, "the request target is no path")
		return
	}
	if authority == "" {
		authority = r.Host
	}
	root := s.cfg.Table.Root()
	x.entry.Revision, x.entry.Path = root.Revision(), path
	request := topology.Request{Host: authority, RawPath: path, RawQuery: query, AccountHosts: s.cfg.AccountHosts}
	if r.TLS != nil {
		request.TLS, request.SNI = true, r.TLS.ServerName
	}
	target, refusal := topology.Locate(root, request)
	if refusal != nil {
		if refusal.Status == http.StatusServiceUnavailable {
			x.w.Header().Set("Retry-After", "1")
		}
		if s.loops(r.Header["Cdn-Loop"]) {
			// A 404 would say of an origin that leads back here that it has no such file.
			x.refuse(http.StatusLoopDetected, hereBefore)
			return
		}
		x.refuse(refusal.Status, refusal.Reason)
		return
	}
	e := &x.entry
	e.Host, e.Account, e.Endpoint, e.Path, x.query = target.Host, target.Account.ID, target.Endpoint.ID, target.Path, target.Query
	x.account = target.Account.UID
	if !s.place(x, s.requests.accounts.Take(x.account, target.Account.MaxRequests), "account") {
		return
	}
	defer s.requests.accounts.Release(x.account)
	switch {
	case r.Method == http.MethodOptions:
		x.outcome, e.Status = outcomeOptions, http.StatusNoContent
		preflight(x.w, r, target.Endpoint)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		x.w.Header().Set("Allow", allowed)
		x.refuse(http.StatusMethodNotAllowed, "files are read with GET and HEAD")
	case hasBody(x.w, r):
		x.refuse(http.StatusBadRequest, "a request for a file has no body")
	case s.loops(r.Header["Cdn-Loop"]):
		x.refuse(http.StatusLoopDetected, hereBefore)
	case !fits(r.Header["Cdn-Loop"]):
		x.refuse(http.StatusLoopDetected, "the request has been through more CDNs than it could have without going in a circle")
	case target.Domain == nil && wantsWorker(r.Header):
		x.refuse(http.StatusForbidden, "a service worker would act for every account of this host; serve it from a domain of your own")
	case target.AccountAlone():
		s.serveFolder(x, target, root.Revision(), root.Epoch(), query)
	default:
		s.serveFile(x, target, root.Revision(), root.Epoch())
	}
}

// hasBody reports whether a request has content. Where HTTP/2 does not announce a length, its next
// frame tells, which may be the end.
func hasBody(w http.ResponseWriter, r *http.Request) bool {
	if r.ContentLength >= 0 || r.ProtoMajor == 1 {
		return r.ContentLength != 0
	}
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(readHeaderTimeout)) != nil {
		return true // the stream is gone
	}
	n, err := r.Body.Read(make([]byte, 1))
	return n > 0 || err != io.EOF || control.SetReadDeadline(time.Time{}) != nil
}

// serveFolder answers for an account alone (see [topology.Target.AccountAlone]).
func (s *Server) serveFolder(x *exchange, target topology.Target, revision int64, epoch, query string) {
	target.Path = "/"
	ctx, leaving := patience(x.r)
	x.asked = s.request(x, &target, revision, epoch)
	x.asked.Method, x.asked.Leaving = http.MethodHead, leaving
	reply := s.cfg.Cache.Serve(ctx, &x.asked)
	x.steps = reply.Steps
	switch {
	case reply.Outcome == httpcache.Failed || reply.Outcome == httpcache.Refused || reply.Outcome == httpcache.Canceled:
		x.outcome = reply.Outcome.String()
		x.refuse(reply.Status, "whether the account has a file here is not known")
	case reply.Outcome == httpcache.NotFound || reply.Outcome == httpcache.DefaultImage:
		x.outcome = httpcache.NotFound.String()
		x.refuse(http.StatusNotFound, "an account's files are below /"+target.Account.ID+"/")
	default:
		x.outcome, x.entry.Supplier = reply.Outcome.String(), reply.Supplier
		location := "/" + target.Account.ID + "/"
		if query != "" {
			location += "?" + query
		}
		x.w.Header().Set("Location", location)
		x.refuse(http.StatusMovedPermanently, "the file is at "+location)
	}
}

// request is what the cache is asked.
func (s *Server) request(x *exchange, target *topology.Target, revision int64, epoch string) httpcache.Request {
	return httpcache.Request{
		Method: x.r.Method, Target: *target, Revision: revision, Epoch: epoch, Fields: linesOf(x.r.Header), Client: s.speaksFor(x, target),
		Holder: x.holder, Admit: func() bool { return s.admit(x) },
	}
}

// linesOf has the fields of a request as the cache takes them.
func linesOf(h http.Header) *field.Lines {
	lines := new(field.Lines)
	for name, values := range h {
		for _, value := range values {
			lines.Append(name, value)
		}
	}
	return lines
}

// serveFile has the cache answer.
func (s *Server) serveFile(x *exchange, target topology.Target, revision int64, epoch string) {
	ctx, leaving := patience(x.r)
	x.asked = s.request(x, &target, revision, epoch)
	x.asked.Leaving, x.asked.Interim = leaving, x.interim(&target)
	reply := s.cfg.Cache.Serve(ctx, &x.asked)
	defer reply.Close()
	e := &x.entry
	x.outcome, e.Status, e.Supplier, x.steps = reply.Outcome.String(), reply.Status, reply.Supplier, reply.Steps
	h := x.w.Header()
	for name, value := range field.Fields(reply.Fields) {
		h[name] = append(h[name], value)
	}
	if reply.Length >= 0 && reply.Status != http.StatusNotModified {
		h["Content-Length"] = []string{strconv.FormatInt(reply.Length, 10)}
	}
	dropOrders(h, &target)
	addCanonicalLink(h, &target, reply.Supplier)
	addCORS(h, target.Endpoint, x.r.Header.Get("Origin"))
	h["X-Request-Id"] = []string{e.RequestID}
	applyOwn(h, &target)
	protect(h, &target, reply.Status)
	if _, typed := h["Content-Type"]; !typed {
		h["Content-Type"] = nil // net/http would guess one from the first bytes.
	}
	e.FirstByteMS = milliseconds(time.Since(x.start))
	x.w.WriteHeader(reply.Status)
	if x.r.Method == http.MethodHead {
		return
	}
	n, err := send(x.w, reply)
	e.Bytes = n
	if err != nil {
		e.Aborted = true
		panic(http.ErrAbortHandler)
	}
}

// interim returns what passes interim replies on to the client; nil for one of HTTP/1.0, which
// knows none (RFC 9110 15.2).
func (x *exchange) interim(target *topology.Target) func(int, []byte) {
	if !x.r.ProtoAtLeast(1, 1) {
		return nil
	}
	return func(status int, list []byte) {
		h := x.w.Header()
		own := h.Clone()
		fields := make(http.Header)
		for name, value := range field.Fields(list) {
			fields[name] = append(fields[name], value)
		}
		dropOrders(fields, target)
		maps.Copy(h, fields)
		x.w.WriteHeader(status)
		clear(h)
		maps.Copy(h, own)
	}
}

// send sends a body; one that lies in a file by sendfile(2) where that pays and the connection allows it.
func send(w http.ResponseWriter, reply *httpcache.Reply) (int64, error) {
	switch {
	case reply.Stream != nil:
		return sendAsItComes(w, reply.Stream, reply.Length)
	case reply.File == nil && len(reply.Mem) == 0:
		return 0, nil
	case reply.File == nil:
		n, err := w.Write(reply.Mem)
		return int64(n), err
	case reply.Length <= smallBody:
		return sendSmall(w, reply.Unsent(0), reply.Length)
	}
	n, err := sendFile(w, reply)
	if err == nil && n == reply.Length || err != nil && !errors.Is(err, syscall.EIO) {
		return n, err
	}
	rest, err := io.Copy(w, reply.Unsent(n)) // It is the store's to find out what is wrong with its file.
	return n + rest, err
}

// sendFile sends from a descriptor of its own, because net/http sends from the position of a file. It sends nothing where
// there is none to be had.
func sendFile(w http.ResponseWriter, reply *httpcache.Reply) (int64, error) {
	file, err := os.Open(reply.File.Name())
	if err != nil {
		return 0, nil
	}
	defer file.Close()
	if _, err := file.Seek(reply.Offset, io.SeekStart); err != nil {
		return 0, nil
	}
	return io.Copy(w, io.LimitReader(file, reply.Length))
}

// sendAsItComes copies a body that may come slowly, of a length that may be known. What has come
// leaves at once, rather than when a buffer is full: a read that does not fill the buffer had to do
// with what there was. The last bytes leave when the body has ended.
func sendAsItComes(w http.ResponseWriter, body io.Reader, length int64) (sent int64, err error) {
	buffer := copyBuffers.Get().(*[copyPiece]byte)
	defer copyBuffers.Put(buffer)
	control := http.NewResponseController(w)
	for {
		n, err := body.Read(buffer[:])
		if n > 0 {
			written, failed := w.Write(buffer[:n])
			sent += int64(written)
			if failed == nil && err == nil && n < len(buffer) && sent != length {
				failed = control.Flush()
			}
			if failed != nil {
				return sent, failed
			}
		}
		if err == io.EOF {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
}

// smallBody is up to which length a body is copied. Its head and it then leave in one write, and at 1 KB in one packet; for
// sendfile(2), net/http writes the head first.
const smallBody = 16 << 10

var smallBuffers = sync.Pool{New: func() any { return new([smallBody]byte) }}

// sendSmall writes a body of a known length in one piece.
func sendSmall(w io.Writer, body io.Reader, length int64) (int64, error) {
	buffer := smallBuffers.Get().(*[smallBody]byte)
	defer smallBuffers.Put(buffer)
	if _, err := io.ReadFull(body, buffer[:length]); err != nil {
		return 0, err
	}
	n, err := w.Write(buffer[:length])
	return int64(n), err
}

// addCanonicalLink names the file's URL at its origin, where that is wished (RFC 6596).
func addCanonicalLink(h http.Header, t *topology.Target, supplier string) {
	o := t.Account.Origin(supplier)
	if o == nil || !o.Spec.GetIncludeCanonicalHeader() {
		return
	}
	base := o.Spec.GetBaseUrlForCanonicalHeader()
	if base == "" {
		base = o.Spec.GetWeb().GetBaseUrl()
	}
	if base == "" {
		return
	}
	h.Add("Link", "<"+strings.TrimSuffix(base, "/")+t.Path+`>; rel="canonical"`)
}

// refuse answers with an error in one line of text, which nobody keeps.
func (x *exchange) refuse(status int, reason string) {
	x.entry.Status = status
	h := x.w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	body := strconv.Itoa(status) + " " + reason + "\n"
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		n, _ := io.WriteString(x.w, body) // The client may have gone; there is nothing more to say.
		x.entry.Bytes = int64(n)
	}
}

// hereBefore is what a request in a circle is told.
const hereBefore = "the request has been here before; an origin leads back to the edge"

// loops reports whether the deployment's own id is in a CDN-Loop field (RFC 8586 2: cdn-info, a list of ids with parameters).
func (s *Server) loops(lines []string) bool {
	if len(lines) == 0 {
		return false
	}
	id := s.cfg.LoopID()
	for _, line := range lines {
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
func fits(lines []string) bool {
	n := 0
	for _, line := range lines {
		n += len(line) + len(", ")
	}
	return n <= maxLoop
}

// speaksFor is the client of a request, for an endpoint whose origins are told.
func (s *Server) speaksFor(x *exchange, t *topology.Target) httpcache.Client {
	if !t.Endpoint.ForwardClientIP {
		return httpcache.Client{}
	}
	scheme := "http"
	if x.r.TLS != nil {
		scheme = "https"
	}
	peer, err := netip.ParseAddrPort(x.r.RemoteAddr)
	if err == nil && contains(s.cfg.TrustedProxies, peer.Addr().Unmap()) {
		said := x.r.Header["X-Forwarded-Proto"]
		if last := len(said) - 1; last >= 0 && (said[last] == "http" || said[last] == "https") {
			scheme = said[last]
		}
	}
	return httpcache.Client{Address: x.client, Scheme: scheme}
}

// client is the address a request came from. A trusted proxy is believed about whom it speaks for, and so on backwards.
func (s *Server) client(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	client := peer.Addr().Unmap().WithZone("")
	if !contains(s.cfg.TrustedProxies, client) {
		return client
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0 && contains(s.cfg.TrustedProxies, client); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = next.Unmap().WithZone("")
	}
	return client
}

func newRequestID() string {
	var b [16]byte
	for i, v := range [...]uint64{rand.Uint64(), rand.Uint64()} {
		for j := range 8 {
			b[8*i+j] = byte(v >> (8 * j))
		}
	}
	return hex.EncodeToString(b[:])
}

// errUnready is what health checks say while requests are drained.
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
