// Package controlplane is the control plane: it keeps the topology in etcd, offers the admin API,
// streams the topology to edges, and serves them the bytes of Media Libraries.
//
// The parts are under internal. This package puts them together in the order in which they depend
// on each other, and stops them in the reverse order.
//
// What always holds: nothing is served to edges before the whole topology has been read; any number
// of control planes may share one etcd cluster and one media bucket.
package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/certfile"
	"github.com/edgewalk/edgewalk/internal/debughttp"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Config of a control plane. Each field is a flag of `edgewalk controlplane`; none is read again
// after the start, but for the files of the certificate and of tokens.
type Config struct {
	// DataDir keeps the embedded etcd's data and, by default, the media bucket. Default
	// ./edgewalk-data.
	DataDir string
	// EtcdEndpoints are those of an etcd cluster to use instead of the embedded server. Default
	// none.
	EtcdEndpoints []string
	// EtcdCACert, EtcdCert and EtcdKey are files for TLS with that cluster; EtcdUser and
	// EtcdPasswordFile log in to it.
	EtcdCACert, EtcdCert, EtcdKey, EtcdUser, EtcdPasswordFile string
	// EtcdPrefix stands before every key. Default /edgewalk/.
	EtcdPrefix string
	// AdminAddr, EdgeAddr, HTTPAddr and MediaAddr are where the admin API, the edges' streams,
	// metrics and health, and the media listener are. Defaults 127.0.0.1:7070 to 7073. Only
	// loopback, unless TLS and tokens are given or InsecureListen is set. Metrics at another
	// address ask for an admin token if there is one.
	AdminAddr, EdgeAddr, HTTPAddr, MediaAddr string
	// DashboardHosts are the names, `host` or `host:port`, under which browsers and programs may
	// call the REST API and the dashboard at HTTPAddr, besides that address itself. Default none.
	DashboardHosts []string
	// NoDashboard serves no dashboard at HTTPAddr.
	NoDashboard bool
	// PeerAddr is where other control planes of the same etcd cluster connect, each known by a
	// certificate whose hash it has put into etcd. Not used with the embedded etcd. Default :0, any
	// port.
	PeerAddr string
	// FreezeAfter is how many edges, and which share of those connected, must refuse resources of
	// one revision for all edges to be frozen before it: both numbers are to be passed. Default
	// "3,5%"; "off" for never.
	FreezeAfter string
	// CanaryRegion is the region whose edges get each step first. The others do after CanaryHold,
	// unless they are frozen. Default none; 30 s.
	CanaryRegion string
	CanaryHold   time.Duration
	// MediaAdvertiseURL is the URL under which edges reach MediaAddr. Default http(s):// and
	// MediaAddr.
	MediaAdvertiseURL string
	// MediaURL is the media bucket: a folder, file:///..., or s3://bucket?region=... Default the
	// folder media in DataDir.
	MediaURL string
	// MaxUpload is the most bytes that one uploaded file may have; what is on its way takes four
	// times as much of the disk at most. At most 16 TiB. Default 1 GiB.
	MaxUpload int64
	// SharedHost is `host[:port]`, the host under which every account is served. It is stored at
	// the first start; another one later is refused, unless ReplaceSharedHost is set. Default what
	// is stored, else localhost.
	SharedHost        string
	ReplaceSharedHost bool
	// DomainVerification says whose custom domains are served only once it is proven that the name
	// is the account's: `tenants`, those that are made with a token of an account; `all`; or `off`.
	// Default tenants.
	DomainVerification string
	// DomainTarget is the name below which each account has a host of its own,
	// `{token}.{DomainTarget}`, to which CNAME records of its domains lead. All names below it have
	// to lead to the edges. Default none: domains lead to the shared host, and are proven by TXT
	// records alone.
	DomainTarget string
	// DNSResolvers are recursive resolvers, each `address` or `address:port`. Default those of this
	// machine.
	DNSResolvers []string
	// ACMEIssuers are the certificate authorities that managed certificates of custom domains come
	// from, in the order of preference, each as `name=le,directory=URL` with, as far as they are
	// wanted, `profile=P`, `eab-kid=K`, `eab-key-file=F` and `orders-per-3h=N`. Default none: there
	// are no managed certificates.
	ACMEIssuers []string
	// ACMEAgreeTOS says that the operator agrees to the terms of service of all of them. Required
	// with ACMEIssuers.
	ACMEAgreeTOS bool
	// ACMEEmail is where they may write to. Default none.
	ACMEEmail string
	// ACMECAFile is a file with the authorities that are trusted for TLS with them, PEM. Default
	// those of this machine.
	ACMECAFile string
	// ACMEDNSZone is the zone that `_acme-challenge` records of domains lead into by CNAME, each to
	// `{token}.{ACMEDNSZone}`, so that their dns-01 challenges are answered (RFC 8555 8.4). Its
	// parent has to delegate it to ACMEDNSAddr, where this control plane answers DNS questions over
	// UDP and TCP. ACMEDNSServers are the names of the zone's name servers, as its parent has them.
	// Default none; `ns.{ACMEDNSZone}` at ACMEDNSAddr.
	ACMEDNSAddr, ACMEDNSZone string
	ACMEDNSServers           []string
	// ACMEDNSHook is a program that sets TXT records for dns-01 challenges of wildcards whose
	// `_acme-challenge` does not lead into ACMEDNSZone; see docs/domains.md. Default none.
	ACMEDNSHook string
	// TLSCert and TLSKey are files with the certificate of all listeners, PEM, read again when they
	// change. ClientCA is a file with the authorities that clients of the gRPC listeners must have
	// a certificate from. Default none, in the clear.
	TLSCert, TLSKey, ClientCA string
	// SecretKeyFile holds the key that protects all secrets in etcd. Each control plane of an etcd
	// needs the same, and so does one that is restored from a snapshot. Default the file secret-key
	// in DataDir. The first control plane of an etcd makes it when it is not there; without the
	// embedded etcd, only where it is asked for.
	SecretKeyFile string
	// AuditLog is a file for events of calls that are denied or let the caller have what is secret,
	// or `syslog`. Default the file audit.log in DataDir.
	AuditLog string
	// AdminTokenFile holds the tokens of which admins must present one, EdgeTokenFile those of
	// edges that have not joined, one a line, read again when they change. Default none. Where
	// there is none of admins or of edges, the first control plane of an etcd makes a token and
	// writes it to root-token or edge-token in DataDir.
	AdminTokenFile, EdgeTokenFile string
	// RequireJoin refuses edges that have not joined. EdgeAddr and MediaAddr may be any address
	// then, also without TLSCert: edges that join speak TLS all the same.
	RequireJoin bool
	// DebugAddr is where Go's profiles and the control plane's state are served, to this machine
	// alone. Default none.
	DebugAddr string
	// Open asks nobody for a token, at loopback addresses alone. It is for demonstrations.
	Open bool
	// InsecureListen lets listeners be on any address without TLS.
	InsecureListen bool
	// AllowShrink lets a topology replace one more than twice its size at every edge. Without it,
	// edges keep what they have.
	AllowShrink bool

	// Logger takes what the control plane has to say. Default slog.Default().
	Logger *slog.Logger
}

// Defaults of the fields that have one.
const (
	DefaultDataDir    = "./edgewalk-data"
	DefaultEtcdPrefix = "/edgewalk/"
	DefaultAdminAddr  = "127.0.0.1:7070"
	DefaultEdgeAddr   = "127.0.0.1:7071"
	DefaultHTTPAddr   = "127.0.0.1:7072"
	DefaultMediaAddr  = "127.0.0.1:7073"
	DefaultPeerAddr   = ":0"
	DefaultSharedHost = "localhost"

	DefaultFreezeAfter = "3,5%"
	DefaultCanaryHold  = 30 * time.Second
	DefaultMaxUpload   = adminsvc.DefaultMaxUpload
)

// maxMaxUpload is more than any file, and so little that some of them can be added up.
const maxMaxUpload = 16 << 40

func (c *Config) setDefaults() {
	for _, one := range []struct {
		value     *string
		otherwise string
	}{
		{&c.DataDir, DefaultDataDir}, {&c.EtcdPrefix, DefaultEtcdPrefix}, {&c.AdminAddr, DefaultAdminAddr},
		{&c.EdgeAddr, DefaultEdgeAddr}, {&c.HTTPAddr, DefaultHTTPAddr}, {&c.MediaAddr, DefaultMediaAddr},
		{&c.PeerAddr, DefaultPeerAddr}, {&c.FreezeAfter, DefaultFreezeAfter},
	} {
		if *one.value == "" {
			*one.value = one.otherwise
		}
	}
	if c.MediaURL == "" {
		c.MediaURL = filepath.Join(c.DataDir, "media")
	}
	if c.CanaryHold == 0 {
		c.CanaryHold = DefaultCanaryHold
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// parsed is what the texts and files of a Config mean.
type parsed struct {
	freezeEdges, freezePercent int
	adminTokens, edgeTokens    *bearer.Tokens // nil for none
	// server is the certificate of listeners, nil for none; clients is the same for the gRPC
	// listeners, with ClientCA.
	server, clients *tls.Config
	certificates    *certfile.Files // of server, nil for none
	// openEdge says of the listener for edges that it may speak without TLS: on loopback, or by
	// --insecure-listen.
	openEdge bool
	// verification and resolvers are about custom domains.
	verification adminsvc.Verification
	resolvers    []netip.AddrPort
	// authorities are the issuers of certificates; TLS with them trusts acmeRoots, nil for those of
	// this machine.
	authorities []issuer.Authority
	acmeRoots   *x509.CertPool
	dnsHook     string // the path of ACMEDNSHook
}

// clientAuthorities are those of ClientCA, nil without.
func (p parsed) clientAuthorities() *x509.CertPool {
	if p.clients == nil {
		return nil
	}
	return p.clients.ClientCAs
}

// parse checks what can be checked without starting anything.
func (c *Config) parse() (p parsed, err error) {
	if c.SharedHost != "" {
		if _, _, err := topology.ParseSharedHost(c.SharedHost); err != nil {
			return p, fmt.Errorf("--shared-host: %w", err)
		}
	}
	if err := debughttp.CheckAddress(c.DebugAddr); err != nil {
		return p, err
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return p, errors.New("--tls-cert and --tls-key go together")
	}
	if c.ClientCA != "" && c.TLSCert == "" {
		return p, errors.New("--client-ca needs --tls-cert and --tls-key")
	}
	if c.AdminTokenFile != "" {
		if p.adminTokens, err = bearer.Load(c.AdminTokenFile, c.Logger); err != nil {
			return p, fmt.Errorf("--admin-token-file: %w", err)
		}
	}
	if c.EdgeTokenFile != "" {
		if p.edgeTokens, err = bearer.Load(c.EdgeTokenFile, c.Logger); err != nil {
			return p, fmt.Errorf("--edge-token-file: %w", err)
		}
	}
	if c.TLSCert != "" {
		pair := []certfile.Pair{{Cert: c.TLSCert, Key: c.TLSKey}}
		if p.certificates, err = certfile.Load(pair, c.Logger); err != nil {
			return p, fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		if p.server, p.clients, err = c.serverTLS(p.certificates); err != nil {
			return p, err
		}
	}
	if err := c.checkMediaURL(); err != nil {
		return p, err
	}
	if p.freezeEdges, p.freezePercent, err = parseFreezeAfter(c.FreezeAfter); err != nil {
		return p, err
	}
	if err := c.parseDomains(&p); err != nil {
		return p, err
	}
	if c.MaxUpload < 0 || c.MaxUpload > maxMaxUpload {
		return p, fmt.Errorf("--max-upload %d: want at most 16TiB", c.MaxUpload)
	}
	if c.CanaryHold < 0 || c.CanaryHold > time.Hour {
		return p, fmt.Errorf("--canary-hold %s: want at most 1h", c.CanaryHold)
	}
	if c.RequireJoin && c.EdgeTokenFile != "" {
		return p, errors.New("--require-join and --edge-token-file: either every edge joins, or some have the token")
	}
	p.openEdge = (c.InsecureListen || listen.Loopback(c.EdgeAddr)) && !c.RequireJoin
	return p, c.checkAddresses()
}

func parseFreezeAfter(text string) (edges, percent int, err error) {
	if text == "off" {
		return 0, 100, nil
	}
	number, share, ok := strings.Cut(text, ",")
	edges, numberErr := strconv.Atoi(number)
	percent, shareErr := strconv.Atoi(strings.TrimSuffix(share, "%"))
	if !ok || !strings.HasSuffix(share, "%") || numberErr != nil || shareErr != nil || edges < 0 || percent < 0 ||
		percent > 100 {
		return 0, 0, fmt.Errorf(`--freeze-after %q: want a number of edges and a share, such as 3,5%%, or off`, text)
	}
	return edges, percent, nil
}

// checkMediaURL makes sure that edges can reach the URL.
func (c *Config) checkMediaURL() error {
	if c.MediaAdvertiseURL == "" {
		host, _, err := net.SplitHostPort(c.MediaAddr)
		if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
			return fmt.Errorf(
				"--media-addr %s is every address of this machine: say with --media-advertise-url which one edges are to use",
				c.MediaAddr,
			)
		}
		return nil
	}
	u, err := url.Parse(c.MediaAdvertiseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf(
			"--media-advertise-url %q: want http:// or https://, a host, and perhaps a port and a path",
			c.MediaAdvertiseURL,
		)
	}
	return nil
}

// checkAddresses refuses listeners that strangers could listen in on, or use.
func (c *Config) checkAddresses() error {
	for _, l := range []struct {
		flag, address string
		edges         bool
	}{
		{"--admin-addr", c.AdminAddr, false}, {"--edge-addr", c.EdgeAddr, true}, {"--media-addr", c.MediaAddr, true},
		{"--http-addr", c.HTTPAddr, false},
	} {
		switch {
		case listen.Loopback(l.address):
		case c.Open:
			return fmt.Errorf(
				"%s %s is not loopback, and nobody is asked for a token there: use a loopback address",
				l.flag,
				l.address,
			)
		case c.TLSCert != "", l.edges && c.RequireJoin:
		case !c.InsecureListen:
			or := ""
			if l.edges {
				or = "--require-join, or "
			}
			return fmt.Errorf(
				"%s %s is not loopback: give --tls-cert and --tls-key, or %sif the network is yours alone, --insecure-listen",
				l.flag,
				l.address,
				or,
			)
		default:
			c.Logger.Warn(
				"listener is in the clear: tokens and secrets can be read by whoever sees the network",
				"flag",
				l.flag,
				"address",
				l.address,
			)
		}
	}
	return nil
}

// serverTLS is how listeners speak TLS with a certificate, and those of gRPC.
func (c *Config) serverTLS(files *certfile.Files) (server, clients *tls.Config, err error) {
	server = &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.First(), nil },
	}
	clients = server.Clone()
	if c.ClientCA == "" {
		return server, clients, nil
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, nil, fmt.Errorf("--client-ca: %w", err)
	}
	clients.ClientCAs, clients.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !clients.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("--client-ca %s holds no PEM certificate", c.ClientCA)
	}
	return server, clients, nil
}
