// Package edgeagent is the edge agent: it serves files to clients from its disk and from origins,
// by a topology that a control plane streams to it and that it keeps on disk.
//
// The parts are under internal. This package puts them together in the order in which they depend
// on each other, and stops them in the reverse order.
//
// What always holds: an agent that has had a topology once serves by the last one it had, whether
// or not a control plane can be reached, also after a restart.
package edgeagent

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgewalk/edgewalk/edgeagent/internal/certs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/control"
	"github.com/edgewalk/edgewalk/edgeagent/internal/tracing"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/debughttp"
	"github.com/edgewalk/edgewalk/internal/listen"
)

// Config of an agent. Each field is a flag of `edgewalk edgeagent`; none is read again after the
// start, but for the files of certificates and keys.
type Config struct {
	// ControlPlane holds the addresses of control planes, `host:port`, or a host alone for port
	// 7071. Default 127.0.0.1:7071.
	ControlPlane []string
	// HTTPAddr is where plain HTTP is served. Default 127.0.0.1:8080; `off` for none,
	// `systemd:NAME` for a socket that systemd has opened.
	HTTPAddr string
	// HTTPListener serves plain HTTP in HTTPAddr's place, for a caller that has to know the port
	// before the agent exists. The agent closes it. Default none.
	HTTPListener net.Listener
	// HTTPSAddr is where HTTPS is served, in the forms of HTTPAddr. Default none.
	HTTPSAddr string
	// TLSCerts and TLSKeys are the files of certificate chains and keys for HTTPSAddr, as many of
	// each, PEM. They are read again when they change. They are for the shared host and for domains
	// that have no certificate of their own; the first is shown to clients that name no host.
	TLSCerts, TLSKeys []string
	// MetricsAddr is where /metrics, /healthz and /readyz are served. Default 127.0.0.1:8081; only
	// loopback, unless InsecureListen is set.
	MetricsAddr string
	// StateDir keeps the last good topology and the agent's id. Default ./edgewalk-edge.
	StateDir string
	// StateKeyFile holds the key that protects the secrets of origins in StateDir. Default:
	// `state-key` in StateDir, made at the first start; then nothing but the rest of the folder is
	// protected.
	StateKeyFile string
	// CacheDir keeps replies. Default the folder cache in StateDir.
	CacheDir string
	// CacheSize bounds CacheDir in bytes. Default 10 GiB.
	CacheSize int64
	// CertStoreSize bounds what certificates of custom domains take of StateDir, in bytes. A
	// million take about 1.3 GB. Default 2 GiB.
	CertStoreSize int64
	// CertCache is how many of them are kept ready in memory, about 1.5 kB each. Default 20,000.
	CertCache int
	// Region is where the agent says it is. Default local.
	Region string
	// ID names the edge: lower-case letters, digits, `.`, `_` and `-`. Default random, kept in
	// StateDir.
	ID string
	// EdgeTokenFile holds the token that control planes and their media listeners ask for, the
	// first one if it holds several. It is read again when it changes. Default none.
	EdgeTokenFile string
	// JoinTokenFile holds a join token, with which the agent gets its first certificate; id and
	// region are what that says. The agent keeps it in StateDir and renews it by itself, so that
	// the file is not needed afterwards. Another token makes it join anew. Default none.
	JoinTokenFile string
	// CA is a file with the authorities of the control planes' certificates; the stream then uses
	// TLS. `system` for those of the machine. Default: for an agent that joins, the authority that
	// its token names; for others none, in the clear.
	CA string
	// Cert and Key are files with the certificate that the agent shows to control planes that ask
	// for one, PEM. They are read at each connection, so they may be renewed. Default none.
	Cert, Key string
	// AllowPrivateOrigins lets origins have loopback and private addresses. Default false: an admin
	// of an account could otherwise read what is inside the operator's network.
	AllowPrivateOrigins bool
	// AllowOriginCIDRs lets origins have addresses in these ranges. Default none.
	AllowOriginCIDRs []string
	// AllowAmbientCredentials lets S3 origins with use_ambient_credentials read what this machine
	// may read. Default false: an admin of any account could otherwise read the operator's own
	// buckets.
	AllowAmbientCredentials bool
	// AccountHosts serves each account also at `{account}.{shared host}`, where its pages are a web
	// origin of their own. An account whose id is no label of a host name, because it has a `_` or
	// ends with a `-`, has no such host. Default false.
	AccountHosts bool
	// VerifyOriginTLS refuses web origins with tls_verify off. Default false.
	VerifyOriginTLS bool
	// TrustedProxies are the ranges of proxies whose X-Forwarded-For and X-Forwarded-Proto are
	// believed: for the access log, for origins with forward_client_ip, and for limits per client.
	// Their traceparent is believed for traces. Default none.
	TrustedProxies []string
	// AccessLog is a file that a line of JSON is appended to for each request, or `-` for standard
	// output. [Agent.ReopenAccessLog] opens it again. Default none.
	AccessLog string
	// AccessLogSample is the share of requests that have a line there, more than 0 and at most 1;
	// those with a status of 500 and more always have. Default: all.
	AccessLogSample float64
	// MetricsMaxSeries bounds the series of metrics that are about one endpoint or origin of an
	// account. What is beyond is counted together, as account and id `other`.
	MetricsMaxSeries int
	// Requests takes the lines of the access log instead of a file. Default none.
	Requests io.Writer
	// OTLPEndpoint is the URL of an OpenTelemetry collector, such as `http://127.0.0.1:4317`, which
	// is sent a span for each walk and for each of its steps over OTLP/gRPC. Default none.
	OTLPEndpoint string
	// DebugAddr is where Go's profiles and the agent's state are served, to this machine alone.
	// Default none.
	DebugAddr string
	// InsecureListen lets MetricsAddr be any address, and EdgeTokenFile's token travel in the
	// clear.
	InsecureListen bool

	// Version is what the agent says of itself.
	Version string
	// Logger takes what the agent has to say. Default slog.Default().
	Logger *slog.Logger
}

// Defaults of the fields that have one.
const (
	DefaultControlPlane = "127.0.0.1:7071"
	DefaultHTTPAddr     = "127.0.0.1:8080"
	DefaultMetricsAddr  = "127.0.0.1:8081"
	DefaultStateDir     = "./edgewalk-edge"
	DefaultCacheSize    = 10 << 30
	DefaultRegion       = "local"

	DefaultCertStoreSize = certs.DefaultSize
	DefaultCertCache     = certs.DefaultReady
)

// controlPlanePort is the default port of --edge-addr.
const controlPlanePort = "7071"

// minCacheSize holds a handful of pictures; a smaller size is a typing error.
const minCacheSize = 1 << 20

// minCertStoreSize holds some hundreds of certificates.
const minCertStoreSize = 1 << 20

func (c *Config) setDefaults() {
	setDefault(&c.HTTPAddr, DefaultHTTPAddr)
	setDefault(&c.MetricsAddr, DefaultMetricsAddr)
	setDefault(&c.StateDir, DefaultStateDir)
	setDefault(&c.CacheDir, filepath.Join(c.StateDir, "cache"))
	setDefault(&c.Region, DefaultRegion)
	setDefault(&c.Version, "unknown")
	if len(c.ControlPlane) == 0 {
		c.ControlPlane = []string{DefaultControlPlane}
	}
	c.ControlPlane = slices.Clone(c.ControlPlane)
	for i, address := range c.ControlPlane {
		c.ControlPlane[i] = listen.WithPort(address, controlPlanePort)
	}
	if c.CacheSize == 0 {
		c.CacheSize = DefaultCacheSize
	}
	if c.CertStoreSize == 0 {
		c.CertStoreSize = DefaultCertStoreSize
	}
	if c.CertCache == 0 {
		c.CertCache = DefaultCertCache
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.HTTPAddr == "off" {
		c.HTTPAddr = ""
	}
}

func setDefault(value *string, otherwise string) {
	if *value == "" {
		*value = otherwise
	}
}

// parsed is what parse made of the texts of a Config.
type parsed struct {
	allow, proxies []netip.Prefix
	token          func() string // nil for none
	tls            *tls.Config
}

// parse checks what can be checked without changing anything, and reads the small files.
func (c *Config) parse() (p parsed, err error) {
	if c.ID != "" {
		if err := control.CheckID(c.ID); err != nil {
			return p, fmt.Errorf("--id: %w", err)
		}
	}
	if len(c.Region) > 63 {
		return p, errors.New("--region has more than 63 bytes")
	}
	if c.CacheSize < minCacheSize {
		return p, fmt.Errorf("--cache-size %d: at least 1 MiB", c.CacheSize)
	}
	if c.CertStoreSize < minCertStoreSize {
		return p, fmt.Errorf("--cert-store-size %d: at least 1 MiB", c.CertStoreSize)
	}
	if c.CertCache < 1 {
		return p, fmt.Errorf("--cert-cache %d: at least 1", c.CertCache)
	}
	if c.MetricsMaxSeries < 0 {
		return p, fmt.Errorf("--metrics-max-series %d: at least 0", c.MetricsMaxSeries)
	}
	if c.AccessLogSample < 0 || c.AccessLogSample > 1 {
		return p, fmt.Errorf("--access-log-sample %g: more than 0, at most 1", c.AccessLogSample)
	}
	if c.HTTPAddr == "" && c.HTTPSAddr == "" {
		return p, errors.New("nothing to serve on: set --http-addr or --https-addr")
	}
	if len(c.TLSCerts) != len(c.TLSKeys) {
		return p, fmt.Errorf("%d --tls-cert and %d --tls-key: each certificate needs its key", len(c.TLSCerts), len(c.TLSKeys))
	}
	if !c.InsecureListen && !listen.Loopback(c.MetricsAddr) {
		return p, fmt.Errorf("--metrics-addr %s is not loopback, and anybody there could read the metrics: use a loopback address or --insecure-listen", c.MetricsAddr)
	}
	if err := debughttp.CheckAddress(c.DebugAddr); err != nil {
		return p, err
	}
	if c.OTLPEndpoint != "" {
		if err := tracing.CheckEndpoint(c.OTLPEndpoint); err != nil {
			return p, fmt.Errorf("--otlp-endpoint %s: %w", c.OTLPEndpoint, err)
		}
	}
	if p.allow, err = prefixes("--allow-origin-cidr", c.AllowOriginCIDRs); err != nil {
		return p, err
	}
	if p.proxies, err = prefixes("--trusted-proxies", c.TrustedProxies); err != nil {
		return p, err
	}
	if c.EdgeTokenFile != "" {
		tokens, err := bearer.Load(c.EdgeTokenFile, c.Logger)
		if err != nil {
			return p, fmt.Errorf("--edge-token-file: %w", err)
		}
		p.token = tokens.First
	}
	if c.JoinTokenFile != "" && c.EdgeTokenFile != "" {
		return p, errors.New("--join-token-file and --edge-token-file: an edge has either a certificate of its own or the token of all")
	}
	p.tls, err = c.controlTLS()
	return p, err
}

// controlTLS returns the TLS settings of connections to control planes, nil for plain text.
func (c *Config) controlTLS() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	switch c.CA {
	case "":
		if c.Cert != "" || c.Key != "" {
			return nil, errors.New("--cert and --key need --ca, without which the stream uses no TLS")
		}
		return nil, nil
	case "system":
	default:
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--ca %s holds no PEM certificate", c.CA)
		}
	}
	if c.Cert == "" && c.Key == "" {
		return conf, nil
	}
	if _, err := c.clientCertificate(nil); err != nil {
		return nil, err
	}
	conf.GetClientCertificate = c.clientCertificate
	return conf, nil
}

// clientCertificate implements the GetClientCertificate of [tls.Config].
func (c *Config) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if c.Cert == "" || c.Key == "" {
		return nil, errors.New("--cert and --key go together")
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("read --cert %s and --key %s: %w", c.Cert, c.Key, err)
	}
	return &pair, nil
}

// prefixes reads ranges; a single address is a range of one.
func prefixes(flag string, texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			addr, addrErr := netip.ParseAddr(text)
			if addrErr != nil {
				return nil, fmt.Errorf("%s %q is no range of addresses such as 10.0.0.0/8", flag, text)
			}
			p = netip.PrefixFrom(addr, addr.BitLen())
		}
		all = append(all, p.Masked())
	}
	return all, nil
}
