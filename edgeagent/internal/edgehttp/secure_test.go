package edgehttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/certs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/internal/certfile"
	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// secured is an edge whose domains have certificates of a test authority.
type secured struct {
	*edge
	authority *certtest.Authority
	ring      *seal.Ring
	domains   *certs.Certificates
	resources map[string]proto.Message

	mu      sync.Mutex
	stored  map[topology.CertificateID]*topologyv1.SealedCertificate
	fetches int
}

func newSecured(t testing.TB, change func(*Config)) *secured {
	t.Helper()
	keys, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{
		authority: certtest.New(t), ring: seal.NewRing("topology", map[string]*seal.Keyset{"default": keys}),
		stored: make(map[topology.CertificateID]*topologyv1.SealedCertificate), resources: acme(newOrigin(t, oneFile)),
	}
	s.edge = newEdge(t, func(c *Config) {
		s.domains, err = certs.New(certs.Config{
			Dir: t.TempDir(), Root: c.Table.Root, Fetch: s.fetch, Logger: discard, Registerer: prometheus.NewRegistry(),
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Domains = s.domains
		c.Certificates = []certfile.Pair{newCertificate(t, "shared.test"), newCertificate(t, "*.file.test")}
		if change != nil {
			change(c)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.domains.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	s.show()
	return s
}

// show makes resources what the edge sees.
func (s *secured) show() {
	s.t.Helper()
	if _, err := s.table.Apply(route.Step{Revision: s.table.Root().Revision(), Ring: s.ring}); err != nil {
		s.t.Fatal(err)
	}
	s.apply(maps.Clone(s.resources))
}

func (s *secured) domain(name string, change func(*topologyv1.CustomDomain)) {
	d := &topologyv1.CustomDomain{
		Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
	}
	if change != nil {
		change(d)
	}
	s.resources["customDomains/acme/"+topology.DomainID(name)] = d
}

// certify gives a domain of acme a new certificate.
func (s *secured) certify(name string, change func(*topologyv1.Certificate)) {
	s.t.Helper()
	pair := s.authority.Issue([]string{name})
	s.mu.Lock()
	defer s.mu.Unlock()
	id := topology.CertificateID{byte(len(s.stored)), byte(len(s.stored) >> 8), 1}
	sealed, err := topology.SealKeyPair(s.ring, "default", "", id,
		&topologyv1.KeyPair{Leaf: pair.Leaf.Raw, Key: pair.PKCS8(s.t)})
	if err != nil {
		s.t.Fatal(err)
	}
	sealed.Id = id[:]
	s.stored[id] = sealed
	record := &topologyv1.Certificate{Id: id[:], NotAfter: pair.Leaf.NotAfter.Unix()}
	if change != nil {
		change(record)
	}
	s.resources["certificates/acme/"+topology.DomainID(name)] = record
}

// ended makes a certificate one that is over.
func ended(c *topologyv1.Certificate) { c.NotAfter = time.Now().Add(-time.Second).Unix() }

func (s *secured) fetch(
	_ context.Context, ids []topology.CertificateID,
) (found []*topologyv1.SealedCertificate, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetches++
	for _, id := range ids {
		if stored := s.stored[id]; stored != nil {
			found = append(found, stored)
		}
	}
	return found, nil
}

// shake makes a handshake and returns what the server showed.
func (s *secured) shake(conf *tls.Config) (tls.ConnectionState, error) {
	conf.InsecureSkipVerify = true
	conn, err := tls.Dial("tcp", s.https, conf)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	return conn.ConnectionState(), nil
}

func shownName(state tls.ConnectionState) string {
	leaf := state.PeerCertificates[0]
	return strings.Join(leaf.DNSNames, " ")
}

// Which certificate a client is shown, by the name that it asks for. A name that nobody has is an
// alert, not somebody else's certificate.
func TestWhichCertificate(t *testing.T) {
	t.Parallel()
	s := newSecured(t, func(c *Config) { c.AccountHosts = true })
	s.domain("own.test", nil)
	s.domain("*.wild.test", nil)
	s.domain("a.wild.test", nil)
	s.domain("off.wild.test",
		func(d *topologyv1.CustomDomain) { d.Tls = &topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF} })
	s.domain("new.test", nil)
	s.domain("a.file.test", nil)
	s.domain("new.file.test", nil)
	s.domain("over.file.test", nil)
	s.domain("over.test", nil)
	s.domain("pending.test", func(d *topologyv1.CustomDomain) { d.State = topologyv1.CustomDomain_PENDING })
	for _, name := range []string{"own.test", "*.wild.test", "pending.test", "new.file.test"} {
		s.certify(name, nil)
	}
	for _, name := range []string{"over.test", "over.file.test"} {
		s.certify(name, ended)
	}
	s.show()
	const unknown = "remote error: tls: unrecognized name"
	for name, want := range map[string]string{
		"own.test":         "own.test",
		"OWN.test":         "own.test",
		"a.wild.test":      "*.wild.test",
		"b.wild.test":      "*.wild.test",
		"off.wild.test":    unknown,
		"a.b.wild.test":    unknown,
		"wild.test":        unknown,
		"new.test":         unknown,
		"a.file.test":      "*.file.test",
		"new.file.test":    "new.file.test",
		"over.file.test":   "*.file.test", // which has not ended
		"over.test":        "over.test",
		"pending.test":     unknown,
		"nobody.test":      unknown,
		"shared.test":      "shared.test",
		"acme.shared.test": "shared.test",
		"x.shared.test":    unknown,
		"":                 "shared.test",
	} {
		state, err := s.shake(&tls.Config{ServerName: name})
		got := ""
		if err == nil {
			got = shownName(state)
		} else {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q is shown %q, want %q", name, got, want)
		}
	}
}

func TestMinimumVersion(t *testing.T) {
	t.Parallel()
	s := newSecured(t, nil)
	s.domain("old.test", nil)
	s.domain("new.test", func(d *topologyv1.CustomDomain) { d.Tls = &topologyv1.DomainTls{MinVersion: "1.3"} })
	s.certify("old.test", nil)
	s.certify("new.test", nil)
	s.show()
	for _, c := range []struct {
		name    string
		version uint16
		good    bool
	}{
		{"old.test", tls.VersionTLS12, true}, {"old.test", tls.VersionTLS13, true},
		{"new.test", tls.VersionTLS12, false}, {"new.test", tls.VersionTLS13, true},
		{"old.test", tls.VersionTLS11, false},
	} {
		state, err := s.shake(&tls.Config{
			ServerName: c.name, MinVersion: tls.VersionTLS10, MaxVersion: c.version, NextProtos: []string{"h2"},
		})
		if (err == nil) != c.good || err == nil && (state.Version != c.version || state.NegotiatedProtocol != "h2") {
			t.Errorf("%s with %s: %v, %s", c.name, tls.VersionName(c.version), err, state.NegotiatedProtocol)
		}
	}
}

// oneSession keeps the last session, whatever name it was for.
type oneSession struct {
	mu      sync.Mutex
	session *tls.ClientSessionState
	got     chan struct{}
}

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.session, o.session != nil
}

func (o *oneSession) Put(_ string, session *tls.ClientSessionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if session != nil && o.session == nil {
		o.session = session
		close(o.got)
	}
}

// session makes a handshake that leaves a ticket.
func (s *secured) session(name string, version uint16) *oneSession {
	s.t.Helper()
	kept := &oneSession{got: make(chan struct{})}
	pool := s.authority.Pool()
	conn, err := tls.Dial("tcp", s.https,
		&tls.Config{ServerName: name, RootCAs: pool, ClientSessionCache: kept, MaxVersion: version})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if version == tls.VersionTLS13 { // its tickets come behind the handshake
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: "+name+"\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	}
	select {
	case <-kept.got:
	case <-time.After(30 * time.Second):
		s.t.Fatal("no ticket")
	}
	return kept
}

// resumes makes a handshake with a session and reports whether it was taken.
func (s *secured) resumes(kept *oneSession, name string, version uint16) (resumed bool, err error) {
	// The client would itself refuse to use a session for another name, if it looked at
	// certificates.
	state, err := s.shake(&tls.Config{ServerName: name, ClientSessionCache: kept, MaxVersion: version})
	return state.DidResume, err
}

// A ticket is good for the name and the owner that it was given for, and for as long as those are
// served. Otherwise the handshake is a full one, or is refused.
func TestTickets(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			s := newSecured(t, nil)
			s.domain("a.test", nil)
			s.domain("b.test", nil)
			s.certify("a.test", nil)
			s.certify("b.test", nil)
			s.show()
			kept := s.session("a.test", version)
			if resumed, err := s.resumes(kept, "a.test", version); err != nil || !resumed {
				t.Errorf("for its own name: resumed %v, %v", resumed, err)
			}
			if resumed, err := s.resumes(kept, "b.test", version); err != nil || resumed {
				t.Errorf("for another name: resumed %v, %v", resumed, err)
			}
			s.certify("a.test", nil)
			s.show()
			if resumed, err := s.resumes(kept, "a.test", version); err != nil || !resumed {
				t.Errorf("after a renewal: resumed %v, %v", resumed, err)
			}
			domain, certificate := s.resources["customDomains/acme/a.test"], s.resources["certificates/acme/a.test"]
			delete(s.resources, "customDomains/acme/a.test")
			delete(s.resources, "certificates/acme/a.test")
			s.show()
			if resumed, err := s.resumes(kept, "a.test", version); err == nil || resumed {
				t.Errorf("after the removal: resumed %v, %v", resumed, err)
			}
			s.resources["customDomains/other/a.test"], s.resources["certificates/other/a.test"] = domain, certificate
			s.show()
			if resumed, err := s.resumes(kept, "a.test", version); err != nil || resumed {
				t.Errorf("when another account has the name: resumed %v, %v", resumed, err)
			}
		})
	}
}

// A connection that is open when its name is removed is sent elsewhere.
func TestRemovedNameOnAnOpenConnection(t *testing.T) {
	t.Parallel()
	s := newSecured(t, nil)
	s.domain("a.test", nil)
	s.certify("a.test", nil)
	s.show()
	client := s.client("a.test")
	ask := func() int {
		response, err := client.Get("https://a.test/a.txt")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.ProtoMajor != 2 {
			t.Errorf("%s", response.Proto)
		}
		return response.StatusCode
	}
	if status := ask(); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	delete(s.resources, "customDomains/acme/a.test")
	delete(s.resources, "certificates/acme/a.test")
	s.show()
	if status := ask(); status != http.StatusMisdirectedRequest {
		t.Errorf("status %d after the removal", status)
	}
}

// A host that is for TLS 1.3 alone, or for plain HTTP, is not reached over another connection that
// was opened for another name, for none, or before that was so.
func TestTLSOfAnOpenConnection(t *testing.T) {
	t.Parallel()
	s := newSecured(t, nil)
	newOnly := func(d *topologyv1.CustomDomain) { d.Tls = &topologyv1.DomainTls{MinVersion: "1.3"} }
	s.domain("old.test", nil)
	s.domain("new.test", newOnly)
	s.domain("off.test",
		func(d *topologyv1.CustomDomain) { d.Tls = &topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF} })
	for _, name := range []string{"old.test", "new.test"} {
		s.certify(name, nil)
	}
	s.show()
	dial := func(name string, version uint16) func(host string, want int) {
		conn, err := tls.Dial("tcp", s.https, &tls.Config{
			ServerName: name, MaxVersion: version, InsecureSkipVerify: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		replies := bufio.NewReader(conn)
		return func(host string, want int) {
			t.Helper()
			fmt.Fprintf(conn, "GET /a.txt HTTP/1.1\r\nHost: %s\r\n\r\n", host)
			reply, err := http.ReadResponse(replies, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, reply.Body)
			if reply.StatusCode != want {
				t.Errorf("%s over %s for %q: %d, want %d", host, tls.VersionName(version), name, reply.StatusCode, want)
			}
		}
	}
	older, nameless, newer := dial("old.test", tls.VersionTLS12), dial("", tls.VersionTLS12),
		dial("old.test", tls.VersionTLS13)
	for range 3 { // so that it is known where the URL leads
		older("old.test", http.StatusOK)
		newer("new.test", http.StatusOK)
		older("new.test", http.StatusMisdirectedRequest)
		nameless("new.test", http.StatusMisdirectedRequest)
		newer("off.test", http.StatusMisdirectedRequest)
		nameless("off.test", http.StatusMisdirectedRequest)
	}
	s.domain("old.test", newOnly)
	s.show()
	older("old.test", http.StatusMisdirectedRequest)
	newer("old.test", http.StatusOK)
}

// When plain HTTP is redirected. Each line is a domain's https, what its certificate is, what is
// asked and with which field.
func TestRedirects(t *testing.T) {
	t.Parallel()
	s := newSecured(t, nil)
	redirect := func(d *topologyv1.CustomDomain) { d.Https = topologyv1.CustomDomain_REDIRECT }
	s.domain("allow.test", nil)
	s.domain("yes.test", redirect)
	s.domain("none.test", redirect)
	s.domain("cdn.test", redirect)
	s.domain("away.test", redirect)
	s.domain("a.file.test", redirect)
	s.domain("off.test", func(d *topologyv1.CustomDomain) {
		redirect(d)
		d.Tls = &topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF}
	})
	s.domain("*.wild.test", nil)
	s.domain("own.wild.test", redirect)
	s.domain("cdn.wild.test", func(d *topologyv1.CustomDomain) {
		redirect(d)
		d.Routing = &topologyv1.DomainRouting{State: topologyv1.DomainRouting_PROXIED}
	})
	for _, name := range []string{"allow.test", "yes.test", "off.test", "*.wild.test"} {
		s.certify(name, nil)
	}
	for _, name := range []string{"over.test", "over.file.test"} {
		s.domain(name, redirect)
		s.certify(name, ended)
	}
	s.certify("cdn.test", func(c *topologyv1.Certificate) { c.Proxied = true })
	s.certify("away.test", func(c *topologyv1.Certificate) { c.Id = slices.Repeat([]byte{0xee}, 16) })
	s.show()
	// The edge holds what it was asked for.
	for _, name := range []string{"yes.test", "cdn.test", "over.test", "own.wild.test"} {
		if _, err := s.shake(&tls.Config{ServerName: name}); err != nil {
			t.Fatal(err)
		}
	}
	port := s.https[strings.LastIndexByte(s.https, ':'):]
	for _, c := range []struct{ host, target, field, want string }{
		{"yes.test", "/a.txt?x=1", "A: b", "308 https://yes.test/a.txt?x=1"},
		{"YES.test:80", "/a%20b", "A: b", "308 https://yes.test/a%20b"},
		{"yes.test:8080", "/a.txt", "A: b", "308 https://yes.test" + port + "/a.txt"},
		{"yes.test", "http://yes.test/a.txt", "A: b", "308 https://yes.test/a.txt"},
		{"yes.test", "/caf\xc3\xa9%C3\xa9\\|.txt?x=\"\xe9[]", "A: b",
			"308 https://yes.test/caf%C3%A9%C3%A9%5C%7C.txt?x=%22%E9[]"},
		{"yes.test", "/a.txt", "X-Forwarded-Proto: http", "308 https://yes.test/a.txt"},
		{"yes.test", "/a.txt", "X-Forwarded-Proto: https", "200 "},
		{"yes.test", "/a.txt", "X-Forwarded-Proto: https,HTTPS", "200 "},
		{"yes.test", "/a.txt", "CDN-Loop: other", "200 "},
		{"yes.test", "/.well-known/acme-challenge/abc", "A: b", "404 "},
		{"allow.test", "/a.txt", "A: b", "200 "},
		{"none.test", "/a.txt", "A: b", "200 "},
		{"over.test", "/a.txt", "A: b", "200 "},
		{"cdn.test", "/a.txt", "A: b", "200 "},
		{"away.test", "/a.txt", "A: b", "200 "},
		{"off.test", "/a.txt", "A: b", "200 "},
		{"own.wild.test", "/a.txt", "A: b", "308 https://own.wild.test/a.txt"},
		{"cdn.wild.test", "/a.txt", "A: b", "200 "},
		{"a.file.test", "/a.txt", "A: b", "308 https://a.file.test/a.txt"},
		{"over.file.test", "/a.txt", "A: b", "308 https://over.file.test/a.txt"},
	} {
		response, _ := s.get(c.host, c.target, c.field)
		if got := fmt.Sprintf("%d %s", response.StatusCode, response.Header.Get("Location")); got != c.want {
			t.Errorf("%s %s with %q: %s, want %s", c.host, c.target, c.field, got, c.want)
		}
		if response.StatusCode == http.StatusPermanentRedirect &&
			response.Header.Get("Cache-Control") != "max-age=300" {
			t.Errorf("it may be kept by %q", response.Header.Get("Cache-Control"))
		}
	}
	response, err := s.client("yes.test").Get("https://yes.test/a.txt")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("over TLS: %d", response.StatusCode)
	}
}

// Strict-Transport-Security is said over TLS alone, once, with every reply.
func TestStrictTransportSecurity(t *testing.T) {
	t.Parallel()
	s := newSecured(t, nil)
	s.resources["urlEndpoints/acme/default"] = &topologyv1.UrlEndpoint{
		Origins:         []string{"legacy"},
		ResponseHeaders: &topologyv1.ResponseHeaders{Set: map[string]string{"Strict-Transport-Security": "max-age=1"}},
	}
	hour := durationpb.New(time.Hour)
	for name, hsts := range map[string]*topologyv1.DomainHsts{
		"plain.test": nil, "hour.test": {MaxAge: hour}, "end.test": {},
		"all.test": {MaxAge: hour, IncludeSubdomains: true, Preload: true},
	} {
		s.domain(name, func(d *topologyv1.CustomDomain) { d.Hsts = hsts })
		s.certify(name, nil)
	}
	s.show()
	for name, want := range map[string]string{
		"plain.test": "max-age=1", "hour.test": "max-age=3600", "end.test": "max-age=0",
		"all.test": "max-age=3600; includeSubDomains; preload",
	} {
		for _, path := range []string{"/a.txt", "/none.txt"} {
			response, err := s.client(name).Get("https://" + name + path)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			got := response.Header["Strict-Transport-Security"]
			if path == "/none.txt" && name == "plain.test" {
				continue
			}
			if len(got) != 1 || got[0] != want {
				t.Errorf("%s%s says %q, want %q", name, path, got, want)
			}
		}
		plain, _ := s.get(name, "/none.txt", "X: y")
		if got := plain.Header["Strict-Transport-Security"]; len(got) > 0 && got[0] != "max-age=1" {
			t.Errorf("%s says %q in plain HTTP", name, got)
		}
	}
}

// Random names cost nothing: no call to the control plane, and no memory that stays.
func TestRandomNames(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 500
	}
	s := newSecured(t, nil)
	s.domain("a.test", nil)
	s.certify("a.test", nil)
	s.show()
	if _, err := s.shake(&tls.Config{ServerName: "a.test"}); err != nil {
		t.Fatal(err)
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; i < n; i += 8 {
				if _, err := s.shake(&tls.Config{ServerName: fmt.Sprintf("n%d.nobody.test", i)}); err == nil {
					t.Error("somebody is there")
				}
			}
		})
	}
	wg.Wait()
	if grown := int64(heap()) - int64(before); grown > 8<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetches > 2 { // for a.test: by its handshake, and in the background if that looked at once too
		t.Errorf("%d calls for certificates", s.fetches)
	}
}

// While certificates are replaced all the time, every handshake gets one that is good.
func TestHandshakesWhileCertificatesChange(t *testing.T) {
	t.Parallel()
	steps := 10_000
	if testing.Short() {
		steps = 300
	}
	s := newSecured(t, nil)
	s.domain("a.test", nil)
	s.certify("a.test", nil)
	s.show()
	ids := make([]*topologyv1.Certificate, 0, 8)
	for range cap(ids) {
		s.certify("a.test", nil)
		ids = append(ids, s.resources["certificates/acme/a.test"].(*topologyv1.Certificate))
	}
	pool := s.authority.Pool()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	shakes := 0
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := tls.Dial("tcp", s.https, &tls.Config{ServerName: "a.test", RootCAs: pool})
				if err != nil {
					t.Errorf("a handshake failed: %v", err)
					return
				}
				conn.Close()
				mu.Lock()
				shakes++
				mu.Unlock()
			}
		})
	}
	for i := range steps {
		value, err := topology.Encode(ids[i%len(ids)])
		if err != nil {
			t.Fatal(err)
		}
		key := topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: "a.test"}
		_, err = s.table.Apply(route.Step{Revision: s.table.Root().Revision() + 1, Records: routetest.Records(
			topology.Record{Key: key, CreateRevision: 1, ModRevision: int64(i) + 10, Value: value},
		)})
		if err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 { // let some handshakes come between
			for {
				mu.Lock()
				enough := shakes > i/100
				mu.Unlock()
				if enough || t.Failed() {
					break
				}
				runtime.Gosched()
			}
		}
	}
	close(stop)
	wg.Wait()
	if shakes == 0 {
		t.Error("no handshakes")
	}
}

// Hosts of domains that wait to be verified are remembered when somebody asks for them, twenty at
// most; others never.
func TestPendingHosts(t *testing.T) {
	t.Parallel()
	s := newSecured(t, nil)
	for i := range 30 {
		s.domain(fmt.Sprintf("p%d.test", i),
			func(d *topologyv1.CustomDomain) { d.State = topologyv1.CustomDomain_PENDING })
	}
	s.domain("*.wait.test", func(d *topologyv1.CustomDomain) { d.State = topologyv1.CustomDomain_PENDING })
	s.show()
	for range 2 {
		for _, host := range []string{"A.wait.test", "p1.test:8080", "nobody.test", "img.acme.test", "shared.test"} {
			s.get(host, "/a.txt")
		}
	}
	if got := s.server.PendingHosts(); !slices.Equal(got, []string{"a.wait.test", "p1.test"}) {
		t.Errorf("asked for %q", got)
	}
	for i := range 30 {
		s.get(fmt.Sprintf("p%d.test", i), "/a.txt")
	}
	if got := s.server.PendingHosts(); len(got) != maxPending {
		t.Errorf("%d are remembered", len(got))
	}
	if got := s.server.PendingHosts(); len(got) > 0 {
		t.Errorf("%q are told twice", got)
	}
}

// Without any file, domains are served, and nobody else.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	s := newSecured(t, func(c *Config) { c.Certificates = nil })
	s.domain("a.test", nil)
	s.certify("a.test", nil)
	s.show()
	if state, err := s.shake(&tls.Config{ServerName: "a.test"}); err != nil || shownName(state) != "a.test" {
		t.Errorf("a.test: %v", err)
	}
	for _, name := range []string{"shared.test", ""} {
		if _, err := s.shake(&tls.Config{ServerName: name}); err == nil {
			t.Errorf("%q is shown a certificate", name)
		}
	}
}
