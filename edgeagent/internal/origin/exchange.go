package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxErrorBody bounds what is read of an object store's error. Such an error is an XML or JSON
	// text of some hundred bytes.
	maxErrorBody = 64 << 10
	// The rest of an unused body is read up to maxDrain, for at most drainFor, so that its
	// connection can be used again. Nobody waits for it.
	maxDrain = 16 << 10
	drainFor = 50 * time.Millisecond
	// maxRedirects is how many redirects are followed.
	maxRedirects = 3
)

// An exchange is one request and its reply, with all that is made of them: they are allocated
// together, with the attempt.
type exchange struct {
	ctx       context.Context // of the request and its body
	side      *side
	to        link
	connect   time.Duration // limits
	firstByte time.Duration
	idle      time.Duration
	watch     watch
	call      http1.Call
	stopper   http1.Stopper
	resp      *http.Response
	reply     kind.Reply
	answer    Answer
	response  Response
	stream    stream
	began     time.Time
	headAt    time.Time
	by        *attempt
	health    *health
	path      uint64      // its place within the origin's caps
	left      atomic.Bool // that place was released

	mu    sync.Mutex
	cause error                   // why it has ended, nil before
	dial  context.CancelCauseFunc // ends the dial, nil before it
}

// stop ends the exchange wherever it is.
func (x *exchange) stop(cause error) {
	x.because(cause)
	x.mu.Lock()
	dial := x.dial
	x.mu.Unlock()
	if dial != nil {
		dial(cause)
	}
	x.stopper.Stop()
}

// because records why the exchange ends, unless it has ended already.
func (x *exchange) because(cause error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause == nil && x.ctx.Err() == nil {
		x.cause = cause
	}
}

// dials makes a connection.
func (x *exchange) dials(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x.mu.Lock()
	if x.dial = cancel; x.cause != nil {
		cancel(x.cause)
	}
	x.mu.Unlock()
	x.by.setAddress(netip.Addr{}) // an idle connection may have been closed by the server
	x.watch.phase(x.connect, errConnectTimeout)
	conn, err := x.side.dialer.connect(ctx, x.to)
	x.sent()
	return conn, err
}

// sent begins the wait for the head.
func (x *exchange) sent() { x.watch.phase(x.firstByte, errFirstByteTimeout) }

// causeOf returns why the exchange was ended, or err if nothing but that has ended it.
func (x *exchange) causeOf(err error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.cause != nil {
		return x.cause
	}
	return causeOf(x.ctx, err)
}

// leave releases the exchange's place within the origin's caps. It may be called again.
func (x *exchange) leave() {
	if !x.left.Swap(true) {
		x.health.leave(x.path)
	}
}

// end closes the body, and releases what the exchange holds.
func (x *exchange) end() {
	x.resp.Body.Close()
	x.release()
}

// release releases what the exchange holds, but for the body.
func (x *exchange) release() {
	x.watch.end()
	x.because(context.Canceled)
	x.by.release()
	x.leave()
}

// exchange sends one request and classifies the reply. For a redirect that is followed it returns
// the next hop instead.
func (c *Client) exchange(ctx context.Context, k *kind.Kind, h *hop) (*Answer, *kind.Row, *hop) {
	x, err := c.reach(ctx, k, h)
	if err != nil {
		a := faultAnswer(faultOf(err))
		a.hurried, a.Unreached = hurried(err), h.Own && !h.reached.Load()
		return a, nil, nil
	}
	h.reached.Store(true)
	r := &x.reply
	*r = kind.Reply{
		Origin: h.Origin, Ask: h.Ask, Status: x.resp.StatusCode, Header: x.resp.Header, Length: x.resp.ContentLength,
	}
	if k.Next != nil && kind.Redirects(r) && k.Follows(h.Origin) {
		if location := r.Header.Get("Location"); location != "" {
			return c.redirected(k, h, x, location)
		}
	}
	if k.Code != nil && (r.Status == http.StatusBadRequest ||
		k.Keyed && r.Status >= 300 && r.Status != http.StatusNotModified) {
		if r.Code, err = x.errorCode(k); err != nil {
			return x.failed(err), nil, nil
		}
	}
	cleanCoding(r.Header)
	row := kind.Judge(k.Rows, r)
	a := x.answerOf(k, row)
	c.remark(k, a, x.call.Dropped)
	if row.Outcome != Found {
		h.health.noteAnswer(x.by.address(), row)
		x.drain()
		return a, row, nil
	}
	if a.Response, err = x.hold(); err != nil {
		return x.failed(err), nil, nil
	}
	return a, row, nil
}

// redirected ends the exchange and returns the hop that its redirect leads to, or an answer that
// says why it is not followed.
func (c *Client) redirected(k *kind.Kind, h *hop, x *exchange, location string) (*Answer, *kind.Row, *hop) {
	x.drain()
	refuse := func(why string) (*Answer, *kind.Row, *hop) {
		row := kind.Judge(k.Rows, &x.reply)
		a := x.answerOf(k, row)
		a.Detail += ", " + why
		return a, row, nil
	}
	if h.Count == maxRedirects {
		a, row, _ := refuse(fmt.Sprintf("after %d redirects", maxRedirects))
		a.Advice = "see where the redirects lead: they may go in a circle"
		return a, row, nil
	}
	req, err := k.Next(c.edge, &h.Hop, location)
	if err != nil {
		return refuse(err.Error())
	}
	next := *h
	next.Req, next.Own, next.Count = req, h.Own && kind.SameHost(h.Req.URL, req.URL), h.Count+1
	return nil, nil, &next
}

// cleanCoding removes from Content-Encoding what is no coding of the body: empty members,
// "identity", and the "aws-chunked" of an upload, which object stores keep and no client can
// decode.
func cleanCoding(h http.Header) {
	lines := h["Content-Encoding"]
	if len(lines) == 0 {
		return
	}
	var codings []string
	for _, line := range lines {
		for coding := range strings.SplitSeq(line, ",") {
			switch coding = strings.Trim(coding, " \t"); strings.ToLower(coding) {
			case "", "identity", "aws-chunked":
			default:
				codings = append(codings, coding)
			}
		}
	}
	if h.Del("Content-Encoding"); len(codings) > 0 {
		h.Set("Content-Encoding", strings.Join(codings, ", "))
	}
}

// remark adds the header lines that were left out to the detail of an answer, and counts them.
func (c *Client) remark(k *kind.Kind, a *Answer, notes []string) {
	if len(notes) == 0 {
		return
	}
	c.metrics.droppedLines.WithLabelValues(k.Name).Add(float64(len(notes)))
	a.Detail += ", " + strings.Join(notes, ", ")
	if a.Advice == "" {
		a.Advice = "correct the header that the origin sends"
	}
}

// failed ends the exchange and returns the answer for its error.
func (x *exchange) failed(err error) *Answer {
	a := faultAnswer(faultOf(err))
	a.Status, a.hurried = x.resp.StatusCode, hurried(err)
	x.health.noteError(x.by.address(), err)
	x.end()
	return a
}

// answerOf returns the answer for the reply, as a row of the kind judges it.
func (x *exchange) answerOf(k *kind.Kind, row *kind.Row) *Answer {
	r, a := &x.reply, &x.answer
	*a = Answer{
		Outcome: row.Outcome, Reason: row.Reason, Status: r.Status, ProxyError: row.Proxy, Advice: row.Advice,
		Detail: "HTTP 200",
	}
	if r.Status != http.StatusOK {
		a.Detail = "HTTP " + strconv.Itoa(r.Status)
	}
	if r.Code != "" {
		a.Detail += " " + r.Code
	}
	if row.Outcome == Inconclusive {
		a.RetryAfter = retryAfter(r.Header.Get("Retry-After"), time.Now())
	}
	if k.Elaborate != nil {
		detail, advice := k.Elaborate(r, row)
		a.Detail += detail
		a.Advice = cmp.Or(advice, a.Advice)
	}
	return a
}

// send sends one request and waits for the head of its reply.
func (c *Client) send(ctx context.Context, k *kind.Kind, h *hop, by *attempt) (*exchange, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := h.health.path(k, h.Ask)
	if err := h.health.enter(path); err != nil {
		return nil, err
	}
	by.health = h.health
	x := &by.exchange
	x.ctx, x.by, x.health, x.path, x.side = ctx, by, h.health, path, &c.origins
	if k.Operator {
		x.side = &c.operator
	}
	x.connect, x.firstByte, x.idle = timeouts(h.Origin)
	x.watch.cancel, x.watch.alarms, x.watch.deadline = x.stop, &c.alarms, h.Ask.Deadline
	x.to = h.link(by, x.connect)
	x.call = http1.Call{
		Key: x.to.key, Dial: x.dials, Connected: by.setAddress, Sent: x.sent, Interim: h.Ask.OnInterim,
		Stopper: &x.stopper,
	}
	x.began = time.Now()
	x.watch.phaseFrom(x.began, x.firstByte, errFirstByteTimeout)
	resp, err := x.side.client.Do(ctx, h.Req, &x.call)
	x.headAt = time.Now()
	x.watch.stop()
	h.health.answered(path)
	if err != nil {
		err = x.causeOf(err)
		if addressFault(err) {
			by.failedAt(by.address())
		}
		x.watch.end()
		x.leave()
		if by.address().IsValid() {
			h.reached.Store(true)
		}
		return nil, err
	}
	x.resp = resp
	return x, nil
}

// causeOf returns why this package has ended a request, or that its caller has, or err if neither
// did.
func causeOf(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == nil:
		return err
	case slices.Contains(ends, cause):
		return cause
	}
	return ctx.Err()
}

func timeouts(o *topology.Origin) (connect, firstByte, idle time.Duration) {
	if o == nil {
		return topology.DefaultConnect, topology.DefaultFirstByte, topology.DefaultIdle
	}
	return o.Connect, o.FirstByte, o.Idle
}

// errorCode reads the code of an object store's error.
func (x *exchange) errorCode(k *kind.Kind) (string, error) {
	x.watch.phase(x.idle, errIdleTimeout)
	defer x.watch.stop()
	text, err := io.ReadAll(io.LimitReader(x.resp.Body, maxErrorBody))
	if err != nil {
		return "", fmt.Errorf("read error: %w", x.causeOf(err))
	}
	return k.Code(x.resp.Header, text), nil
}

// drain ends the exchange. It keeps the connection if the rest of the body is short and comes soon.
func (x *exchange) drain() {
	http1.Discard(x.resp.Body, maxDrain, drainFor)
	x.release()
}

// hold returns a reply to pass on once the first byte of its body has come. A body that ends before
// that, although there should be one, is an error.
func (x *exchange) hold() (*Response, error) {
	x.watch.lift()
	r := &x.response
	*r = Response{
		Status: x.resp.StatusCode, Header: x.resp.Header, Length: x.resp.ContentLength, Body: http.NoBody,
		Framed:      x.resp.ContentLength >= 0 || len(x.resp.TransferEncoding) > 0,
		RequestTime: x.began, ResponseTime: x.headAt,
	}
	switch {
	case r.Status == http.StatusNotModified || r.Status == http.StatusRequestedRangeNotSatisfiable:
		r.Length, r.Framed = 0, true
		x.succeeded()
		x.drain()
		return r, nil
	case r.Length == 0:
		x.succeeded()
		x.end()
		return r, nil
	}
	s := &x.stream
	s.x = x
	if err := s.fill(); err != nil {
		return nil, err
	}
	switch {
	case s.err != io.EOF:
		r.Body = s
	case len(s.first) == 0 && !r.Framed:
		return nil, errEmptyBody
	default:
		if r.Framed {
			r.Length = int64(len(s.first))
		}
		s.Close()
		r.Body = s
	}
	return r, nil
}

// succeeded records that the address that was asked has answered as it should.
func (x *exchange) succeeded() { x.health.record(x.by.address(), true) }

// retryAfter reads a Retry-After: a number of seconds or a date (RFC 9110 10.2.3). It returns 0 for
// what it cannot read.
func retryAfter(value string, now time.Time) time.Duration {
	seconds, err := strconv.Atoi(value)
	if err == nil || errors.Is(err, strconv.ErrRange) { // beyond its range it is the end of that
		return time.Duration(min(max(seconds, 0), 86400)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
