package origin

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
)

// "5xx, other 2xx, unasked 206/304, bad framing, TLS, refused, DNS, timeout": the faults on the
// way, each broken for real.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		at     func(t *testing.T, o *faultorigin.Origin) (baseURL string)
		reason Reason
		proxy  string
	}{
		{name: "refused", at: down, reason: Failed, proxy: "connection_refused"},
		{name: "reset", answer: faultorigin.Reset(), reason: Failed, proxy: "connection_terminated"},
		{name: "hangup", answer: faultorigin.Hangup(), reason: Failed, proxy: "connection_terminated"},
		{name: "hangup within the head", answer: faultorigin.Raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n"),
			reason: Failed, proxy: "connection_terminated"},
		{name: "first byte timeout", answer: faultorigin.Stall(nil, nil), reason: Timeout,
			proxy: "http_response_timeout"},
		{name: "no HTTP", answer: faultorigin.Raw("220 mail.example.com ESMTP " + theSecret + "\r\n"), reason: Failed,
			proxy: "http_protocol_error"},
		{name: "two lengths", answer: faultorigin.Raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"), reason: Failed, proxy: "http_protocol_error"},
		{name: "bad length", answer: faultorigin.Raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nxx"), reason: Failed,
			proxy: "http_protocol_error"},
		{name: "bad chunk before the first byte", answer: faultorigin.Raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
			reason: Failed, proxy: "http_protocol_error"},
		{name: "endless head", answer: faultorigin.EndlessHead(), reason: Failed,
			proxy: "http_response_header_section_size"},
		{name: "body ends before its first byte", answer: faultorigin.Cut("0123456789", 0), reason: Failed,
			proxy: "http_response_incomplete"},
		{name: "chunks end before the first byte", answer: faultorigin.CutChunks(nil), reason: Failed,
			proxy: "http_response_incomplete"},
		{name: "lengthless body without a byte", answer: faultorigin.Lengthless(200, ""), reason: Failed,
			proxy: "http_response_incomplete"},
		{name: "body stalls before its first byte", answer: faultorigin.StallAfter("0123456789", 0), reason: Timeout,
			proxy: "connection_read_timeout"},
		{name: "unknown host", at: host("nowhere.test"), reason: Failed, proxy: "dns_error"},
		{name: "stalled look-up", at: host("silent.test"), reason: Timeout, proxy: "connection_timeout"},
		{name: "untrusted certificate", at: untrusted, reason: Failed, proxy: "tls_certificate_error"},
		{name: "no TLS", at: noTLS, reason: Failed, proxy: "tls_protocol_error"},
		{name: "stalled TLS handshake", at: silentTLS, reason: Timeout, proxy: "connection_timeout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			if test.answer != nil {
				fault.On(faultorigin.Any, test.answer)
			}
			base := fault.URL()
			if test.at != nil {
				base = test.at(t, fault)
			}
			dns := newDNS(t, map[string][]string{"silent.test.": nil})
			c := newTestClient(t, Config{AllowCIDRs: loopback, Resolver: dns.resolver()})
			o := webOrigin(t, base)
			if test.reason == Timeout {
				o.Connect, o.FirstByte, o.Idle = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
			}
			a := c.Get(t.Context(), o, get("/a.jpg"))
			discard(t, a)
			if a.Outcome != Inconclusive || a.Reason != test.reason || a.ProxyError != test.proxy {
				t.Errorf("got %s %q %q: %s, want %q %q", a.Outcome, a.Reason, a.ProxyError, a.Detail, test.reason,
					test.proxy)
			}
			if a.Detail == "" || a.Request == "" || a.Advice == "" {
				t.Errorf("an answer that tells too little: %+v", a)
			}
		})
	}
}

func down(_ *testing.T, o *faultorigin.Origin) string { o.Down(); return o.URL() }

func host(name string) func(*testing.T, *faultorigin.Origin) string {
	return func(_ *testing.T, o *faultorigin.Origin) string {
		return strings.Replace(o.URL(), "127.0.0.1", name, 1)
	}
}

func untrusted(t *testing.T, _ *faultorigin.Origin) string {
	server := httptest.NewUnstartedServer(nil)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func noTLS(_ *testing.T, o *faultorigin.Origin) string {
	o.On(faultorigin.Any, faultorigin.Raw("HTTP/1.1 400 Bad Request\r\n\r\n"))
	return strings.Replace(o.URL(), "http:", "https:", 1)
}

// silentTLS takes connections and never says a word.
func silentTLS(t *testing.T, _ *faultorigin.Origin) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return "https://" + listener.Addr().String()
}

// Another address of the host is tried when one refuses.
func TestConnectTriesOtherAddresses(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	dns := newDNS(t, map[string][]string{"two.test.": {"127.0.0.2", "127.0.0.3", "127.0.0.1"}})
	c := newTestClient(t, Config{AllowPrivate: true, Resolver: dns.resolver()})
	a := c.Get(t.Context(), webOrigin(t, host("two.test")(t, fault)), get("/a.jpg"))
	discard(t, a)
	if a.Outcome != Found {
		t.Errorf("got %s: %s", a.Outcome, a.Detail)
	}
}

// The address is checked at each connection: a name that was public a moment ago gains nothing by
// turning inwards.
func TestRebinding(t *testing.T) {
	t.Parallel()
	for _, inwards := range []string{
		"127.0.0.2", "169.254.169.254", "0.0.0.0", "10.0.0.1", "::1", "::ffff:169.254.169.254", "fd00:ec2::254",
	} {
		t.Run(inwards, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, faultorigin.Reply(200, "x", "Connection: close"))
			dns := newDNS(t, map[string][]string{"shop.test.": {"127.0.0.1"}})
			c := newTestClient(t, Config{AllowCIDRs: loopback, Resolver: dns.resolver()})
			o := webOrigin(t, host("shop.test")(t, fault))
			a := c.Get(t.Context(), o, get("/a.jpg"))
			discard(t, a)
			if a.Outcome != Found {
				t.Fatalf("got %s: %s", a.Outcome, a.Detail)
			}
			dns.set("shop.test.", inwards)
			a = c.Get(t.Context(), o, get("/a.jpg"))
			discard(t, a)
			if a.Outcome != Inconclusive || a.Reason != Misconfigured || a.ProxyError != "destination_ip_prohibited" {
				t.Errorf("got %s %s %s: %s", a.Outcome, a.Reason, a.ProxyError, a.Detail)
			}
			if !strings.Contains(a.Detail, "shop.test") || a.Advice == "" {
				t.Errorf("the admin is told %q, %q", a.Detail, a.Advice)
			}
			saw(t, fault, 1)
			// Of several addresses only those that are allowed are tried.
			dns.set("shop.test.", inwards, "127.0.0.1")
			if a = c.Get(t.Context(), o, get("/a.jpg")); a.Outcome != Found {
				t.Errorf("got %s: %s", a.Outcome, a.Detail)
			}
			discard(t, a)
		})
	}
}

// By default no origin is on loopback, however it is spelled, and no allowance opens the metadata
// services.
func TestAddressesAreGuarded(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	port := fault.Host()[strings.LastIndexByte(fault.Host(), ':'):]
	for _, name := range []string{
		"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1", "2130706433", "0x7f.1",
	} {
		a := newTestClient(t, Config{}).Get(t.Context(), webOrigin(t, "http://"+name+port), get("/a.jpg"))
		discard(t, a)
		if a.Outcome != Inconclusive || a.ProxyError != "destination_ip_prohibited" && a.ProxyError != "dns_error" {
			t.Errorf("%s: got %s %s: %s", name, a.Outcome, a.ProxyError, a.Detail)
		}
	}
	for _, name := range []string{"169.254.169.254", "[fd00:ec2::254]", "[fe80::1]", "0.0.0.0", "100.100.100.200"} {
		a := newTestClient(t, Config{AllowPrivate: true}).Get(t.Context(), webOrigin(t, "http://"+name+port),
			get("/a.jpg"))
		if a.ProxyError != "destination_ip_prohibited" {
			t.Errorf("%s: got %s %s: %s", name, a.Outcome, a.ProxyError, a.Detail)
		}
	}
	saw(t, fault, 0)
}

// What is open to one account is open to no other: not by a look-up, and not by a connection that
// was made for the one. The message does not say what a name resolves to.
func TestRangesOfAnAccount(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	dns := newDNS(t, map[string][]string{"intern.test.": {"127.0.0.1"}})
	c := newTestClient(t, Config{Resolver: dns.resolver()})
	ask := func(open ...netip.Prefix) *Answer {
		o := webOrigin(t, host("intern.test")(t, fault))
		o.Private = open
		a := c.Get(t.Context(), o, get("/a.jpg"))
		discard(t, a)
		return a
	}
	for range 2 {
		if a := ask(loopback...); a.Outcome != Found {
			t.Errorf("with the range: %s: %s", a.Outcome, a.Detail)
		}
		for _, open := range [][]netip.Prefix{nil, {netip.MustParsePrefix("10.0.0.0/8")}} {
			a := ask(open...)
			if a.ProxyError != "destination_ip_prohibited" || strings.Contains(a.Detail, "127.0.0.1") ||
				!strings.Contains(a.Advice, "limits.privateCidrs") {
				t.Errorf("with %v: %s %s: %s; %s", open, a.Outcome, a.ProxyError, a.Detail, a.Advice)
			}
		}
	}
	saw(t, fault, 2)
}

// A connection that the library's exempt client made is never lent to an origin.
func TestMediaConnectionsAreApart(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x", `ETag: "0000000000000000aa"`))
	c := newTestClient(t, Config{MediaURL: fault.URL})
	a := c.Get(t.Context(), nil, get("/a.jpg"))
	if _, err := read(t, a); err != nil || a.Outcome != Found {
		t.Fatalf("got %s, %v", a.Outcome, err)
	}
	if a = c.Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg")); a.ProxyError != "destination_ip_prohibited" {
		t.Errorf("got %s %s", a.Outcome, a.ProxyError)
	}
}

// The walk's deadline ends the wait for a head, and no later wait.
func TestDeadlineEndsWithTheHead(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/stall", faultorigin.Stall(nil, nil))
	next := make(chan struct{})
	fault.On("/drip", faultorigin.Drip([]string{"a", "b", "c"}, next))
	o := webOrigin(t, fault.URL())
	c := localClient(t)
	ask := get("/stall")
	ask.Deadline = time.Now().Add(50 * time.Millisecond)
	a := c.Get(t.Context(), o, ask)
	if a.Reason != Timeout || a.Detail != errWalkDeadline.Error() {
		t.Errorf("got %s %s: %s", a.Outcome, a.Reason, a.Detail)
	}
	ask = get("/drip")
	ask.Deadline = time.Now().Add(500 * time.Millisecond)
	ctx, cancel := context.WithDeadline(t.Context(), ask.Deadline)
	defer cancel()
	go func() {
		<-ctx.Done()
		for range 3 {
			next <- struct{}{}
		}
	}()
	if body, err := read(t, c.Get(t.Context(), o, ask)); body != "abc" || err != nil {
		t.Errorf("read %q, %v", body, err)
	}
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/stall", faultorigin.Stall(nil, nil))
	fault.On("/body", faultorigin.StallAfter("0123456789", 3, `ETag: "v1"`))
	o := webOrigin(t, fault.URL())
	c := localClient(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("a cause of the caller's own"))
	if a := c.Get(ctx, o, get("/stall")); a.Reason != Canceled || a.Outcome != Inconclusive {
		t.Errorf("got %s %s", a.Outcome, a.Reason)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	a := c.Get(ctx, o, get("/body"))
	cancel(nil)
	if body, err := read(t, a); err == nil || body != "012" {
		t.Errorf("read %q, %v", body, err)
	}
	saw(t, fault, 1) // nothing is resumed for a caller that has gone
}

// A busy origin gets one retry, unless it asks for more patience than a walk has.
func TestBusyRetry(t *testing.T) {
	t.Parallel()
	ok := faultorigin.Reply(200, "x")
	for _, test := range []struct {
		name     string
		script   []faultorigin.Answer
		requests int
		outcome  Outcome
	}{
		{"recovers", []faultorigin.Answer{faultorigin.Busy(503, ""), ok}, 2, Found},
		{"recovers after a second", []faultorigin.Answer{faultorigin.Busy(429, "1"), ok}, 2, Found},
		{"stays busy", []faultorigin.Answer{faultorigin.Busy(503, "")}, 2, Inconclusive},
		{"asks for patience", []faultorigin.Answer{faultorigin.Busy(429, "10"), ok}, 1, Inconclusive},
		{"fails, which is not busy", []faultorigin.Answer{faultorigin.Reply(500, ""), ok}, 1, Inconclusive},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, test.script...)
			a := localClient(t).Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg"))
			discard(t, a)
			if a.Outcome != test.outcome {
				t.Errorf("got %s: %s", a.Outcome, a.Detail)
			}
			saw(t, fault, test.requests)
		})
	}
}

// A short body that nobody wants is read, so that the connection can be used for the next question.
// It comes with its head here: nobody would wait for it.
func TestMissesKeepTheConnection(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", func(x *faultorigin.Exchange) {
		x.Send("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone")
	})
	c := localClient(t)
	o := webOrigin(t, fault.URL())
	for range 5 {
		discard(t, c.Get(t.Context(), o, get("/a.jpg")))
	}
	if n := fault.Connections(); n != 1 {
		t.Errorf("5 misses took %d connections", n)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2025, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-1": 0, "soon": 0, "99999999": 24 * time.Hour,
		"99999999999999999999": 24 * time.Hour, "-99999999999999999999": 0,
		"Thu, 02 Jan 2025 03:04:15 GMT": 10 * time.Second, "Thu, 02 Jan 2025 03:04:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q is %s, want %s", value, got, want)
		}
	}
}
