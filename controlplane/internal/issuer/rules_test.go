package issuer

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestParseAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	good, bad := write("good", "c2VjcmV0LXNlY3JldC1zZWNyZXQ=\n"), write("bad", "s e c r e t")
	const le = "name=le,directory=https://ca.example/dir"
	for text, want := range map[string]string{
		le:                                       "le https://ca.example/dir profile= kid= mac= 300",
		le + ",profile=short,orders-per-3h=1500": "le https://ca.example/dir profile=short kid= mac= 1500",
		le + ",eab-kid=k1,eab-key-file=" + good:  "le https://ca.example/dir profile= kid=k1 mac=c2VjcmV0LXNlY3JldC1zZWNyZXQ 300",
		"":                                       `"": want KEY=VALUE`,
		"le":                                     `"le": want KEY=VALUE`,
		"directory=https://ca.example/dir":       "name is missing",
		"name=le":                                "directory is missing",
		"name=Le,directory=https://ca.example/dir":   "name=Le: want lower case",
		"name=le,directory=http://ca.example/dir":    "directory=http://ca.example/dir: want an https:// URL",
		"name=le,directory=https://u:p@ca.example/d": "want an https:// URL",
		"name=le,directory=":                         "directory has no value",
		le + ",name=b":                               "name is there twice",
		le + ",profil=x":                             `"profil" is no key`,
		le + ",orders-per-3h=0":                      "orders-per-3h=0: want a number from 1",
		le + ",orders-per-3h=many":                   "orders-per-3h=many: want a number",
		le + ",eab-kid=k1":                           "eab-kid and eab-key-file go together",
		le + ",eab-key-file=" + good:                 "eab-kid and eab-key-file go together",
		le + ",eab-kid=k1,eab-key-file=" + bad:       "in base64url",
		le + ",eab-kid=k1,eab-key-file=/none":        "eab-key-file: open /none",
	} {
		a, err := ParseAuthority(text)
		got := fmt.Sprintf("%s %s profile=%s kid=%s mac=%s %d",
			a.Name, a.Directory, a.Profile, a.KeyID, a.MACKey, a.Orders)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) || strings.Contains(got, "s e c r e t") {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}

// A bucket takes as many as its limit has at once, and then one as often as they are given back.
func TestBucket(t *testing.T) {
	t.Parallel()
	of := limit{4, time.Hour}
	now := time.Unix(1_800_000_000, 0)
	var b bucket
	for i := range 4 {
		if wait := b.wait(of, now); wait > 0 {
			t.Fatalf("take %d waits %s", i, wait)
		}
		b = b.take(of, now)
	}
	if wait := b.wait(of, now); wait != 15*time.Minute || b.used(of, now) != 4 {
		t.Errorf("a full bucket waits %s, with %d in it", wait, b.used(of, now))
	}
	now = now.Add(31 * time.Minute)
	if wait := b.wait(of, now); wait != 0 || b.used(of, now) != 2 {
		t.Errorf("half an hour later: %s, with %d in it", wait, b.used(of, now))
	}
	ahead := bucket{}.take(of, now.Add(time.Hour))
	if wait := ahead.wait(of, now); wait != 0 || ahead.used(of, now) != 0 || ahead.take(of, now).used(of, now) != 1 {
		t.Errorf("filled by a clock that was ahead: %s, with %d in it", wait, ahead.used(of, now))
	}
	if wait := (bucket{}).wait(limit{}, now); wait != 0 {
		t.Errorf("no limit: %s", wait)
	}
	le := Authority{Directory: "https://acme-v02.api.letsencrypt.org/directory", Orders: 300}
	if le.orders().count != 240 || le.registered().count != 40 || failedValidations.count != 4 {
		t.Errorf("of Let's Encrypt: %v, %v, %v", le.orders(), le.registered(), failedValidations)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]time.Duration{
		1: time.Minute, 2: 5 * time.Minute, 3: 20 * time.Minute, 4: time.Hour, 5: 3 * time.Hour, 6: 6 * time.Hour,
		7: 12 * time.Hour, 1000: 12 * time.Hour,
	} {
		for range 100 {
			if got := backoff(failures); got < want*4/5 || got > want*6/5 {
				t.Errorf("%d failures: %s, want %s and a fifth more or less", failures, got, want)
			}
		}
	}
}

// Whose fault it is decides whether another issuer is asked, and whether the failure counts as one
// of the name.
func TestFaults(t *testing.T) {
	t.Parallel()
	request := func(status int, kind, detail string) error {
		return fmt.Errorf("attempt 1: %w",
			acme.Problem{Status: status, Type: acme.ProblemTypeNamespace + kind, Detail: detail})
	}
	validation := func(kind, detail string) error {
		return fmt.Errorf("authorization failed: %w",
			acme.Problem{Type: acme.ProblemTypeNamespace + kind, Detail: detail, Resource: acme.Authorization{}})
	}
	for _, c := range []struct {
		err   error
		after time.Duration
		want  string
	}{
		{errors.New("dial tcp: refused"), 0, "ISSUER_DOWN issuer everywhere"},
		{request(500, "serverInternal", "oops"), 0, "ISSUER_DOWN issuer everywhere"},
		{request(503, "serverInternal", "busy"), time.Minute, "ISSUER_DOWN issuer everywhere 1m0s"},
		{request(403, "unauthorized", "account is deactivated"), 0, "ISSUER_DOWN issuer everywhere"},
		{request(400, "accountDoesNotExist", "none"), 0, "ISSUER_DOWN issuer lost"},
		{request(400, "malformed", "JWS verification error"), 0, "ISSUER_DOWN issuer lost"},
		{request(400, "malformed", "Domain name has more than 10 labels (parts)"), 0, "ISSUER_REJECTED issuer"},
		{request(404, "malformed", "no such order"), 0, "ISSUER_DOWN gone"},
		{request(400, "rejectedIdentifier", "policy"), 0, "ISSUER_REJECTED"},
		{request(403, "caa", "forbidden"), 0, "CAA"},
		{
			request(429, "rateLimited", "too many new orders (300) from this account"), time.Hour,
			"ISSUER_BUSY issuer everywhere 1h0m0s",
		},
		{
			request(429, "rateLimited", "too many certificates (50) already issued for \"example.com\""), 0,
			"ISSUER_BUSY issuer 1h0m0s",
		},
		{
			request(429, "rateLimited", "temporarily prevented from requesting; visit https://ca/unpause?x"), 0,
			"ISSUER_PAUSED 24h0m0s",
		},
		{validation("dns", "NXDOMAIN"), 0, "ISSUER_DNS validation"},
		{validation("connection", "refused"), 0, "ISSUER_CONNECTION validation"},
		{validation("tls", "alert"), 0, "ISSUER_CONNECTION validation"},
		{validation("unauthorized", "another answer"), 0, "ISSUER_UNAUTHORIZED validation"},
		{validation("caa", "forbidden"), 0, "CAA validation"},
		{validation("serverInternal", "oops"), 0, "ISSUER_DOWN issuer"},
		{
			fmt.Errorf("the order is invalid: %w", &acme.Problem{Type: acme.ProblemTypeDNS, Detail: "x"}), 0,
			"ISSUER_DNS validation",
		},
		{fmt.Errorf("x: %w", acme.Problem{Type: acme.ProblemTypeCompound, Status: 400, Subproblems: []acme.Subproblem{
			{Problem: acme.Problem{Type: acme.ProblemTypeRejectedIdentifier, Detail: "policy"}},
		}}), 0, "ISSUER_REJECTED"},
	} {
		f := faultOf(c.err, c.after)
		got := f.reason.String()
		for _, one := range []struct {
			is   bool
			word string
		}{
			{f.issuers, "issuer"}, {f.everywhere, "everywhere"}, {f.validation, "validation"}, {f.lost, "lost"},
			{f.gone, "gone"}, {f.after > 0, f.after.String()},
		} {
			if one.is {
				got += " " + one.word
			}
		}
		if got != c.want {
			t.Errorf("%v\n got %s\nwant %s", c.err, got, c.want)
		}
	}
	text := clean("a\x1b[31m\nb\u202e" + strings.Repeat("c", 1000))
	if strings.ContainsAny(text, "\x1b\n\u202e") || len(text) > 500 {
		t.Errorf("a text from outside is shown as %q", text)
	}
}

// An order says no more what it replaces when it was refused for that, and for nothing else.
func TestRefusedForWhatItReplaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status       int
		kind, detail string
		want         bool
	}{
		{409, "alreadyReplaced", "", true},
		{409, "malformed", "conflict", true},
		{404, "malformed", "Could not validate ARI 'replaces' field :: no current certificate with serial 00", true},
		{403, "unauthorized", "requester account did not request the certificate being replaced by this order", true},
		{400, "malformed", "parsing ARI CertID failed", true},
		{500, "serverInternal", "could not find an order for the given certificate: none", true},
		{500, "serverInternal", "down for maintenance", false},
		{503, "serverInternal", "", false},
		{429, "rateLimited", "too many certificates (5) already issued, use replaces", false},
		{400, "rejectedIdentifier", "policy forbids it", false},
		{403, "unauthorized", "account is deactivated", false},
		{400, "accountDoesNotExist", "none", false},
		{403, "userActionRequired", "agree to the terms", false},
		{403, "caa", "CAA forbids it", false},
	} {
		p := acme.Problem{Status: c.status, Type: acme.ProblemTypeNamespace + c.kind, Detail: c.detail}
		if got := refusesReplaces(&p); got != c.want {
			t.Errorf("%d %s %q: %v", c.status, c.kind, c.detail, got)
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	from := time.Unix(1_800_000_000, 0)
	const day = 24 * time.Hour
	for life, want := range map[time.Duration]time.Duration{
		90 * day: 60 * day, 45 * day: 30 * day, 10 * day: 5 * day, 6 * day: 3 * day,
	} {
		if got := renewal(from, from.Add(life)).Sub(from); got != want {
			t.Errorf("of a life of %s: after %s, want %s", life, got, want)
		}
	}
	for life, want := range map[time.Duration]time.Duration{90 * day: askEvery, time.Hour: 30 * time.Minute} {
		now := from.Add(life * 9 / 10) // by a clock that is ahead
		if got := soonestRenewal(from, from.Add(life), now).Sub(now); got != want {
			t.Errorf("issued for %s: not within %s, want %s", life, got, want)
		}
	}
	w, err := parseWindow([]byte(`{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-03T00:00:00Z"},
		"explanationURL":"https://ca/why"}`))
	if err != nil || w.why != "https://ca/why" {
		t.Fatalf("%+v, %v", w, err)
	}
	for range 100 {
		if at := w.moment(); at.Before(w.start) || !at.Before(w.end) {
			t.Errorf("%s is outside of the window", at)
		}
	}
	for _, text := range []string{
		"", "{}", `{"suggestedWindow":{"start":"2026-01-03T00:00:00Z","end":"2026-01-01T00:00:00Z"}}`,
	} {
		if w, err := parseWindow([]byte(text)); err == nil {
			t.Errorf("%q is a window: %+v", text, w)
		}
	}
}

// An issuer that does not answer when to renew is not asked for each certificate in turn: looks at
// domains of other issuers would wait for it. One that does not know a certificate answers.
func TestASilentIssuerIsAskedOnce(t *testing.T) {
	t.Parallel()
	var status, asked atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dir" {
			fmt.Fprintf(w, `{"newNonce": "https://%[1]s/n", "newAccount": "https://%[1]s/a", "newOrder": "https://%[1]s/o",
				"renewalInfo": "https://%[1]s/ari"}`, r.Host)
			return
		}
		asked.Add(1)
		w.WriteHeader(int(status.Load()))
	}))
	defer server.Close()
	now := time.Unix(1_800_000_000, 0)
	trusted := x509.NewCertPool()
	trusted.AddCert(server.Certificate())
	c := newClient(Config{Roots: trusted, Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler)},
		Authority{Name: "le", Directory: server.URL + "/dir"})
	defer c.close()
	for _, step := range []struct {
		status, asks, asked int
		passes              time.Duration
	}{
		{http.StatusNotFound, 3, 3, 0},
		{http.StatusServiceUnavailable, 3, 1, 0},
		{http.StatusNotFound, 3, 0, 59 * time.Second},
		{http.StatusNotFound, 3, 3, time.Second},
		{http.StatusTooManyRequests, 3, 1, 0},
	} {
		now = now.Add(step.passes)
		status.Store(int64(step.status))
		asked.Store(0)
		for range step.asks {
			if _, _, err := c.window(t.Context(), "id", now); err == nil {
				t.Errorf("status %d is an answer", step.status)
			}
		}
		if n := asked.Load(); n != int64(step.asked) {
			t.Errorf("status %d after %s: asked %d times, want %d", step.status, step.passes, n, step.asked)
		}
	}
}

func FuzzParseWindow(f *testing.F) {
	f.Add([]byte(`{"suggestedWindow":{"start":"2026-01-01T00:00:00Z","end":"2026-01-03T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := parseWindow(body)
		if err == nil && (w.moment().Before(w.start) || w.moment().After(w.end)) {
			t.Errorf("%q: %+v", body, w)
		}
	})
}

// decide is the table of when there is an order, and why there is none.
func TestDecide(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	const day = 24 * time.Hour
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	id := topology.CertificateID{1}
	held := func(left time.Duration) *topology.Certificate {
		return &topology.Certificate{ID: id, NotAfter: now.Add(left).Unix()}
	}
	got := func(age, renew, ask time.Duration) *storev1.Issuance {
		g := &storev1.IssuedCertificate{Id: id[:], Issuer: "le", NotBefore: at(-age), Renew: at(renew)}
		if ask != 0 {
			g.Ask = at(ask)
		}
		return &storev1.Issuance{Got: g}
	}
	with := func(i *storev1.Issuance, edit func(*storev1.Issuance)) *storev1.Issuance {
		edit(i)
		return i
	}
	uploaded := &topologyv1.DomainTls{Mode: topologyv1.DomainTls_UPLOADED}
	fallback := &topologyv1.DomainTls{Mode: topologyv1.DomainTls_UPLOADED, FallbackManaged: true}
	for name, c := range map[string]struct {
		state    topologyv1.CustomDomain_State
		tls      *topologyv1.DomainTls
		held     *topology.Certificate
		wildcard *topology.Certificate
		issuance *storev1.Issuance
		want     string
	}{
		"a new name": {want: "order fresh"},
		"not proven": {state: topologyv1.CustomDomain_PENDING, want: "rest 24h0m0s WAITING OWNERSHIP"},
		"suspended": {
			state: topologyv1.CustomDomain_SUSPENDED, held: held(day), issuance: got(89*day, -day, 0),
			want: "rest 24h0m0s WAITING OWNERSHIP",
		},
		"without TLS": {
			tls:  &topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF},
			want: "rest 24h0m0s NONE",
		},
		"uploaded":                  {tls: uploaded, held: held(time.Hour), want: "rest 24h0m0s NONE"},
		"a wildcard covers it":      {wildcard: held(80 * day), want: "rest 24h0m0s NONE COVERED"},
		"a wildcard that ends soon": {wildcard: held(10 * day), want: "order fresh"},
		"held, and a wildcard covers it": {
			held: held(80 * day), issuance: got(10*day, 50*day, 0), wildcard: held(60 * day),
			want: "rest 1200h0m0s ISSUED",
		},
		"to be renewed, and a wildcard covers it": {
			held: held(30 * day), issuance: got(60*day, -1, day), wildcard: held(60 * day),
			want: "use wildcard NONE COVERED",
		},
		"ended, and a wildcard covers it": {
			held: held(-day), issuance: got(91*day, -day, 0), wildcard: held(60 * day),
			want: "use wildcard NONE COVERED",
		},
		"brought, about to end, and a wildcard covers it": {
			tls: fallback, held: held(20 * day), wildcard: held(60 * day), want: "use wildcard NONE COVERED",
		},
		"a wildcard that has ended": {wildcard: held(-1), want: "order fresh"},
		"held": {
			held: held(80 * day), issuance: got(10*day, 50*day, 0),
			want: "rest 1200h0m0s ISSUED",
		},
		"held, to be asked about": {
			held: held(80 * day), issuance: got(10*day, 50*day, 6*time.Hour),
			want: "rest 6h0m0s ISSUED",
		},
		"held, asked about now": {held: held(80 * day), issuance: got(10*day, 50*day, -1), want: "ask"},
		"two thirds are over":   {held: held(30 * day), issuance: got(60*day, -1, day), want: "order renewing"},
		"a sixth is left":       {held: held(15 * day), issuance: got(75*day, -day, day), want: "order expiring"},
		"ended":                 {held: held(-day), issuance: got(91*day, -day, 0), want: "order expiring"},
		"of another issuer": {
			tls: &topologyv1.DomainTls{Issuer: "zero"}, held: held(80 * day), issuance: got(10*day, 50*day, 0),
			want: "order renewing",
		},
		"brought, and now managed": {held: held(300 * day), want: "order renewing"},
		"fallback, long before":    {tls: fallback, held: held(100 * day), want: "rest 1896h0m0s NONE"},
		"fallback, 20 days before": {tls: fallback, held: held(20 * day), want: "order renewing"},
		"fallback, held by now": {
			tls: fallback, held: held(80 * day), issuance: got(10*day, 50*day, 0),
			want: "rest 1200h0m0s ISSUED",
		},
		"renew": {
			held:     held(80 * day),
			issuance: with(got(day, 50*day, 0), func(i *storev1.Issuance) { i.Asked, i.Renew = at(0), true }),
			want:     "order renewing",
		},
		"asked, and nothing to do": {
			held: held(80 * day), issuance: with(got(day, 50*day, 0), func(i *storev1.Issuance) { i.Asked = at(0) }),
			want: "rest 1200h0m0s ISSUED",
		},
		"failed a while ago": {
			issuance: &storev1.Issuance{Failures: 2, Retry: at(time.Minute)},
			want:     "rest 1m0s",
		},
		"failed, and asked": {
			issuance: &storev1.Issuance{Failures: 2, Retry: at(time.Minute), Asked: at(0)},
			want:     "order retrying",
		},
		"failed too often": {issuance: &storev1.Issuance{
			Failures: 4, Asked: at(0), Failed: []*timestamppb.Timestamp{
				at(-50 * time.Minute), at(-40 * time.Minute), at(-2 * time.Minute), at(-time.Minute),
			},
		}, want: "rest 10m0s WAITING QUOTA"},
		"failed often, long ago": {issuance: &storev1.Issuance{
			Failures: 4, Failed: []*timestamppb.Timestamp{
				at(-90 * time.Minute), at(-40 * time.Minute), at(-2 * time.Minute), at(-time.Minute),
			},
		}, want: "order retrying"},
		"failed, by a clock that was ahead": {
			issuance: &storev1.Issuance{Failures: 1, Retry: at(day), Tried: at(day - time.Minute)},
			want:     "order retrying",
		},
		"failed, by a clock that was a little ahead": {
			issuance: &storev1.Issuance{Failures: 1, Retry: at(time.Hour), Tried: at(5 * time.Minute)},
			want:     "rest 1h0m0s",
		},
		"failed too often, by a clock that was ahead": {issuance: &storev1.Issuance{
			Failures: 4, Asked: at(0), Failed: []*timestamppb.Timestamp{at(day), at(day), at(day), at(day)},
		}, want: "order retrying"},
		"held, asked about by a clock that was ahead": {
			held: held(80 * day), issuance: got(10*day, 50*day, 40*day), want: "ask",
		},
	} {
		domain := &topologyv1.CustomDomain{Domain: "img.example.com", State: c.state, Tls: c.tls}
		if domain.State == topologyv1.CustomDomain_STATE_UNSPECIFIED {
			domain.State = topologyv1.CustomDomain_ACTIVE
		}
		s := &subject{
			domain: domain, held: c.held, wildcard: c.wildcard,
			facts: store.DomainFacts{Facts: &storev1.DomainFacts{Issuance: c.issuance}},
		}
		v := decide(now, s)
		said := [...]string{rest: "rest", ask: "ask", order: "order", useWildcard: "use wildcard"}[v.step]
		switch v.step {
		case rest, useWildcard:
			if v.step == rest {
				said += " " + v.due.Sub(now).String()
			}
			if v.fact != nil {
				said += " " + v.fact.GetState().String()
			}
			if v.fact.GetReason() != topologyv1.DomainCertificate_REASON_UNSPECIFIED {
				said += " " + v.fact.GetReason().String()
			}
		case order:
			said += " " + [...]string{
				expiring: "expiring", renewing: "renewing", fresh: "fresh", retrying: "retrying",
			}[v.class]
		}
		if said != c.want {
			t.Errorf("%s: %s, want %s", name, said, c.want)
		}
	}
}

// An issuer is asked where a name leads once in six hours, and at once if that was by a clock that
// was ahead.
func TestGuessesOfAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	l := &leader{Service: &Service{now: func() time.Time { return now }}}
	for guessed, waits := range map[time.Duration]bool{
		-7 * time.Hour: false, -5 * time.Hour: true, time.Minute: true, 24 * time.Hour: false,
	} {
		sub := &subject{facts: store.DomainFacts{Facts: &storev1.DomainFacts{
			Routing:  &topologyv1.DomainRouting{State: topologyv1.DomainRouting_UNKNOWN},
			Issuance: &storev1.Issuance{Guessed: timestamppb.New(now.Add(guessed))},
		}}}
		if fact := l.checkRouting(sub, method{kind: acme.ChallengeTypeHTTP01}, nil); (fact != nil) != waits {
			t.Errorf("asked %s from now: %v", guessed, fact)
		}
	}
}

// A program that sets records and takes too long is no fault of the issuer's. One that was stopped
// with the control plane is nobody's.
func TestASlowHook(t *testing.T) {
	t.Parallel()
	l := &leader{Service: &Service{dns01: dns01.NewSolver(dns01.Config{Hook: "/bin/true"})}}
	m := l.byDNS(dns01.Challenge{Way: dns01.ByHook, Name: "_acme-challenge.example.com"})
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	<-late.Done()
	err := m.publish(late, acme.Challenge{})
	if f, ok := errors.AsType[fault](err); !ok || f.reason != topologyv1.DomainCertificate_ISSUER_DNS || f.issuers {
		t.Errorf("it took too long: %#v", err)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := m.publish(stopped, acme.Challenge{}); err == nil || errors.As(err, new(fault)) {
		t.Errorf("it was stopped: %#v", err)
	}
}

// What of a TXT record that lets an account have certificates for good counts.
func TestParsePersist(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"ca.test; accounturi=https://ca.test/1":                           "ca.test https://ca.test/1 false",
		" CA.test ;\tAccountURI = https://ca.test/1 ; policy = WildCard ": "ca.test https://ca.test/1 true",
		"ca.test;accounturi=u;policy=none":                                "ca.test u false",
		"ca.test;accounturi=u;persistUntil=60;later=x":                    "ca.test u false until 60",
		"ca.test":                             "",
		"":                                    "",
		"; accounturi=u":                      "",
		"ca.test; accounturi=u;":              "",
		"ca.test; accounturi":                 "",
		"ca.test; accounturi=u; accounturi=u": "",
		"ca.test; accounturi=u; persistUntil=soon": "",
	} {
		got := ""
		if p, ok := parsePersist(text); ok {
			got = fmt.Sprint(p.issuer, " ", p.account, " ", p.wildcard)
			if !p.until.IsZero() {
				got += fmt.Sprint(" until ", p.until.Unix())
			}
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzParsePersist(f *testing.F) {
	f.Add("ca.test; accounturi=https://ca.test/1; policy=wildcard; persistUntil=60")
	f.Fuzz(func(t *testing.T, text string) {
		if p, ok := parsePersist(text); ok && (p.issuer == "" || strings.Contains(p.account, ";")) {
			t.Errorf("%q is read as %+v", text, p)
		}
	})
}
