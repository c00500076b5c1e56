package edgehttp

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/certs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/internal/certfile"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// secure chooses the certificates that clients are shown in TLS handshakes.
type secure struct {
	table        *route.Table
	domains      *certs.Certificates // nil: domains have certificates of files alone
	files        *certfile.Files
	accountHosts bool
	unknown      func() // called for each handshake with a name that is not served
	// tickets holds the keys of session tickets, which crypto/tls replaces each day.
	tickets tls.Config
}

// config returns the TLS configuration of connections. There are two, made once, because the name
// in the handshake decides which TLS versions are accepted.
func (s *secure) config() *tls.Config {
	base := &tls.Config{
		MinVersion: tls.VersionTLS12, GetCertificate: s.certificate, NextProtos: []string{"h2", "http/1.1"},
		DynamicRecordSizingDisabled: true, WrapSession: s.wrapSession, UnwrapSession: s.unwrapSession,
	}
	modern := base.Clone()
	modern.MinVersion = tls.VersionTLS13
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if _, d := s.domain(hello.ServerName); d != nil && d.MinTLS13 {
			return modern, nil
		}
		return nil, nil
	}
	return base
}

// domain returns the name in a handshake, in canonical form, and the domain that it belongs to, if
// any.
func (s *secure) domain(name string) (host string, d *topology.Domain) {
	host, err := topology.CanonicalHost(name)
	if err != nil {
		return "", nil
	}
	return host, s.table.Root().DomainOf(host)
}

// certificate implements the GetCertificate of [tls.Config]. A name that is not served gets no
// certificate, so that the client gets the alert unrecognized_name (RFC 6066 3). Any other
// certificate would show the client other names that are served. A client that names no host gets
// the first certificate of the files.
func (s *secure) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == "" {
		return s.files.First(), nil
	}
	host, d := s.domain(hello.ServerName)
	if d != nil {
		shown, err := s.ofDomain(host, d)
		if shown == nil && err == nil {
			s.unknown()
		}
		return shown, err
	}
	shown := s.files.Named(host)
	if shown == nil && s.shared(host) {
		shown = s.files.First()
	}
	if shown == nil {
		s.unknown()
	}
	return shown, nil
}

// ofDomain returns the certificate of a domain: its own, or else one from a file. One from a file
// that is good also comes before an own one that has ended. A domain without TLS has none.
func (s *secure) ofDomain(host string, d *topology.Domain) (shown *tls.Certificate, err error) {
	if d.NoTLS {
		return nil, nil
	}
	now, named := time.Now(), s.files.Named(host)
	if own := s.table.Root().Certificate(d, now); own != nil && s.domains != nil {
		if own.Expired(now) && good(named, now) {
			return named, nil
		}
		if shown, err = s.domains.Get(own); err == nil {
			return shown, nil
		}
	}
	if named != nil {
		return named, nil
	}
	return nil, err
}

// good reports whether there is a certificate of a file, and it has not ended.
func good(named *tls.Certificate, now time.Time) bool {
	return named != nil && now.Before(named.Leaf.NotAfter)
}

// shared reports whether a host is the shared host, or an account's host below it. Before there is
// a topology, every host counts as shared.
func (s *secure) shared(host string) bool {
	shared := s.table.Root().SharedHost()
	if shared == "" || host == shared {
		return true
	}
	account, ok := strings.CutSuffix(host, "."+shared)
	return ok && s.accountHosts && s.table.Root().Account(account) != nil
}

// holds reports whether a domain can be served over TLS now.
func (s *secure) holds(root *route.Root, host string, d *topology.Domain, now time.Time) bool {
	own := root.Certificate(d, now)
	return own != nil && s.domains != nil && !own.Expired(now) && s.domains.Holds(own) || good(s.files.Named(host), now)
}

// ticketMark begins the data that a ticket is bound to.
const ticketMark = "edgewalk\x00"

// binding returns what a session is bound to: the name of its handshake, and the account that had
// it. A session is not resumed for another name (RFC 8446 4.2.11), nor after the name has moved to
// another account.
func (s *secure) binding(name string) (binding []byte, served bool) {
	if name == "" {
		return []byte(ticketMark), s.files.First() != nil
	}
	host, d := s.domain(name)
	if d == nil {
		return []byte(ticketMark + host), s.files.Named(host) != nil || s.shared(host) && s.files.First() != nil
	}
	served = !d.NoTLS && (s.table.Root().Certificate(d, time.Now()) != nil || s.files.Named(host) != nil)
	return []byte(ticketMark + host + "\x00" + d.Account), served
}

// wrapSession implements the WrapSession of [tls.Config].
func (s *secure) wrapSession(state tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	binding, _ := s.binding(state.ServerName)
	session.Extra = append(session.Extra, binding)
	return s.tickets.EncryptTicket(state, session)
}

// unwrapSession implements the UnwrapSession of [tls.Config]. Without a session, the handshake is a
// full one, which is refused if the name is not served any more.
func (s *secure) unwrapSession(ticket []byte, state tls.ConnectionState) (*tls.SessionState, error) {
	session, err := s.tickets.DecryptTicket(ticket, state)
	if session == nil || err != nil {
		return nil, err
	}
	binding, served := s.binding(state.ServerName)
	for _, extra := range session.Extra {
		if bytes.HasPrefix(extra, []byte(ticketMark)) {
			if served && bytes.Equal(extra, binding) {
				return session, nil
			}
			return nil, nil
		}
	}
	return nil, nil
}

// challengePath begins the paths of http-01 challenges (RFC 8555 8.3), which are asked for in plain
// HTTP.
const challengePath = "/.well-known/acme-challenge/"

// redirectFor is how long a client may remember that plain HTTP leads to HTTPS.
const redirectFor = "max-age=300"

// redirects answers a request over plain HTTP with a redirect to HTTPS, if its domain wants that
// and the edge could serve the file there. It does not redirect what another CDN or proxy passes
// on: the client may use TLS to that already, and the request would come again.
func (s *Server) redirects(x *exchange, root *route.Root, t *topology.Target) bool {
	d := t.Domain
	if d == nil || !d.Redirect || x.Conn.TLS || s.secure == nil {
		return false
	}
	authority, path, query, _ := topology.SplitTarget(x.Target)
	if authority == "" {
		authority = x.Authority
	}
	if strings.HasPrefix(path, challengePath) {
		return false
	}
	if own := root.Certificate(d, x.Now); own != nil && own.Proxied {
		return false
	}
	for scheme := range strings.SplitSeq(x.Fields.List(field.XForwardedProto), ",") {
		if strings.EqualFold(strings.TrimSpace(scheme), "https") {
			return false
		}
	}
	if x.Fields.Has(field.CDNLoop) || !s.secure.holds(root, t.Host, d, x.Now) {
		return false
	}
	location := "https://" + t.Host + s.securePort(authority) + inURI(path)
	if query != "" {
		location += "?" + inURI(query)
	}
	x.outcome = outcomeRedirect
	x.add("Location", location)
	x.add("Cache-Control", redirectFor)
	x.add("Content-Type", "text/plain; charset=utf-8")
	x.add("X-Content-Type-Options", "nosniff")
	x.addID()
	x.reply(front.Reply{
		Status: http.StatusPermanentRedirect,
		Mem:    []byte(strconv.Itoa(http.StatusPermanentRedirect) + " the file is at " + location + "\n"),
	})
	return true
}

// inURI returns a part of a request target with the bytes escaped that no URI has (RFC 3986 2), as
// those of text in UTF-8 are. Clients read such bytes of a Location in different ways.
func inURI(part string) string {
	return kind.Escape(part, func(c byte) bool { return c <= '~' && strings.IndexByte("\"<>\\^`{|}", c) < 0 })
}

// securePort returns the port to name in a redirect. For a client that used the default port of
// HTTP it is the default port of HTTPS; for one that named another port it is the port where the
// edge listens.
func (s *Server) securePort(authority string) string {
	if _, port, err := net.SplitHostPort(authority); err != nil || port == "80" {
		return ""
	}
	_, port, err := net.SplitHostPort(s.cfg.HTTPS.Addr().String())
	if err != nil || port == "443" {
		return ""
	}
	return ":" + port
}

// maxPending bounds the hosts that are remembered between two reports.
const maxPending = 20

// pendingHosts are hosts of domains that are not served yet, which were asked for.
type pendingHosts struct {
	mu    sync.Mutex
	hosts []string
	added chan struct{}
}

// note remembers a host. It copies the string.
func (p *pendingHosts) note(host string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.hosts {
		if known == host {
			return
		}
	}
	if len(p.hosts) < maxPending {
		p.hosts = append(p.hosts, strings.Clone(host))
		select {
		case p.added <- struct{}{}:
		default:
		}
	}
}

// PendingAdded receives when PendingHosts has something new.
func (s *Server) PendingAdded() <-chan struct{} { return s.pending.added }

// PendingHosts returns the hosts of domains that are not served yet and were asked for since the
// last call.
func (s *Server) PendingHosts() []string {
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	hosts := s.pending.hosts
	s.pending.hosts = nil
	return hosts
}
