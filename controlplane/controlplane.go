package controlplane

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc"
	"github.com/edgewalk/edgewalk/controlplane/internal/auditlog"
	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/dashboard"
	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/edgesvc"
	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/rest"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
	"github.com/edgewalk/edgewalk/internal/debughttp"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/systemd"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// ControlPlane is a control plane.
type ControlPlane struct {
	cfg       Config
	registry  *prometheus.Registry
	listeners listeners

	node       *etcdnode.Node // nil with an external etcd
	etcd       io.Closer
	store      *store.Store
	sharedHost string // host[:port]
	domains    *domaincheck.Service
	issuer     *issuer.Service // nil for none
	dns01      *dns01.Solver   // nil if it could answer nothing
	dnsServer  *dns01.Server   // nil without --acme-dns-addr
	library    *media.Library
	audit      *auditlog.Log
	feed       *feed.Feed
	rollout    *rollout.Rollout
	fleet      *fleet.Fleet
	identities *identity.Registry
	edges      *edgesvc.Service
	admin      *adminsvc.Service
	auth       *auth.Auth

	// adminConn is how rest and dashboard reach the admin API. dashboard may be nil.
	adminConn       *adminconn.Conn
	rest, dashboard http.Handler
	pages           *dashboard.Dashboard // the same as dashboard

	adminServer, edgeServer *grpc.Server
	mediaServer, httpServer *http.Server
}

// listeners are the sockets.
type listeners struct {
	admin, edge, http, media net.Listener
	peer                     net.Listener // nil with the embedded etcd
	debug                    net.Listener // nil without --debug-addr
	dns                      net.Listener // nil without --acme-dns-addr
	dnsPackets               *net.UDPConn // with dns
}

// openTimeout bounds one attempt of New to open the topology in etcd.
const openTimeout = 15 * time.Second

// New binds the sockets, starts the embedded etcd or connects to a cluster, and opens the media
// bucket. An error says which flag to change. What New returns must be Run.
func New(ctx context.Context, cfg Config) (*ControlPlane, error) {
	cfg.setDefaults()
	p, err := cfg.parse()
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{cfg: cfg, registry: prometheus.NewRegistry()}
	c.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		buildinfo.Collector())
	if p.certificates != nil {
		c.registry.MustRegister(p.certificates.Metrics())
	}
	if err := c.build(ctx, p); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// build makes the parts, each after what it depends on.
func (c *ControlPlane) build(ctx context.Context, p parsed) (err error) {
	cfg := &c.cfg
	if c.listeners, err = cfg.listen(); err != nil {
		return err
	}
	files, err := listen.OpenFiles()
	if err != nil {
		return err
	}
	c.listeners.limit(fitConnections(files), c.registry)
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	if err := c.openStore(ctx); err != nil {
		return err
	}
	if err := c.keepSharedHost(ctx); err != nil {
		return err
	}
	if err := c.openACME(ctx); err != nil {
		return err
	}
	dns := resolver.New(resolver.Config{Resolvers: p.resolvers})
	if err := c.openDNS01(p, dns); err != nil {
		return err
	}
	c.domains = c.checks(p, dns)
	c.issuer = c.orders(p, dns)
	c.library, err = media.Open(ctx,
		media.Config{URL: cfg.MediaURL, SpoolDir: cfg.DataDir, Logger: cfg.Logger, Registerer: c.registry})
	if err != nil {
		return fmt.Errorf("--media-url: %w", err)
	}
	if err := c.library.Identify(ctx, c.store); err != nil {
		return fmt.Errorf("--media-url: %w", err)
	}
	c.feed = feed.New(feed.Config{
		Store: c.store, AllowShrink: cfg.AllowShrink, Logger: cfg.Logger, Registerer: c.registry,
	})
	c.registry.MustRegister(c.domains.Metrics(c.feed))
	if c.issuer != nil {
		c.registry.MustRegister(c.issuer.Metrics())
	}
	c.rollout = rollout.New(rollout.Config{
		Feed: c.feed, Store: c.store, CanaryRegion: cfg.CanaryRegion, CanaryHold: cfg.CanaryHold, Logger: cfg.Logger,
	})
	c.fleet, err = fleet.New(fleet.Config{
		Feed: c.feed, Store: c.store, Rollout: c.rollout, FreezeEdges: p.freezeEdges, FreezePercent: p.freezePercent,
		Server: serverName(c.listeners.edge), Listener: c.listeners.peer, Address: c.peerAddress(ctx),
		Logger: cfg.Logger, Registerer: c.registry,
	})
	if err != nil {
		return err
	}
	c.identities = identity.New(identity.Config{Store: c.store, Logger: cfg.Logger})
	if err := c.openAuth(ctx, p); err != nil {
		return err
	}
	c.edges, err = edgesvc.New(edgesvc.Config{
		PendingAsked: c.domains.PendingAsked,
		Identities:   c.identities, Authorities: p.clientAuthorities(), JoinedMediaURL: c.joinedMediaURL(),
		Feed: c.feed, Store: c.store, Rollout: c.rollout, Fleet: c.fleet, Server: serverName(c.listeners.edge),
		MediaURL: c.mediaURL(), Authorize: c.checkEdge, AllowShrink: cfg.AllowShrink, Logger: cfg.Logger,
		Registerer: c.registry,
	})
	if err != nil {
		return err
	}
	target := cmp.Or(cfg.AuditLog, filepath.Join(cfg.DataDir, auditLogName))
	if c.audit, err = auditlog.Open(target); err != nil {
		return fmt.Errorf("--audit-log: %w", err)
	}
	adminConfig := adminsvc.Config{
		Domains: c.domains, Issuer: c.issuer, Verification: p.verification, Reserved: cfg.reservedHosts(),
		Identities: c.identities, EdgeAddress: edgeAddress(c.listeners.edge), Store: c.store, Library: c.library,
		Fleet: c.fleet, Rollout: c.rollout, Feed: c.feed, Auth: c.auth, Audit: c.audit,
		RootTokenFile: c.rootTokenFile(), MaxUpload: cfg.MaxUpload, Logger: cfg.Logger, Registerer: c.registry,
	}
	if c.admin, err = adminsvc.New(adminConfig); err != nil {
		return err
	}
	return c.buildServers(p)
}

func (c *ControlPlane) buildServers(p parsed) error {
	var secure []grpc.ServerOption
	if p.clients != nil {
		secure = append(secure, grpc.Creds(credentials.NewTLS(p.clients)))
	}
	c.adminServer = c.admin.NewServer(secure...)
	// Edges that have joined speak TLS, also where nobody else does.
	edgeCredentials := c.identities.Credentials(p.clients, p.server == nil && p.openEdge)
	c.edgeServer = grpc.NewServer(append(c.edges.ServerOptions(), grpc.Creds(edgeCredentials))...)
	edgev1.RegisterEdgeServiceServer(c.edgeServer, c.edges)
	c.identities.Register(c.edgeServer)
	handler, err := media.NewHandler(media.HandlerConfig{
		Library: c.library, Feed: c.feed, Store: c.store, Identities: c.identities, Authorize: c.checkEdge,
		Logger: c.cfg.Logger, Registerer: c.registry,
	})
	if err != nil {
		return err
	}
	// Each server changes its own copy; that of none is none.
	c.mediaServer = &http.Server{
		Handler: handler, ReadTimeout: mediaReadTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
	}
	if p.server != nil {
		c.mediaServer.TLSConfig = c.identities.TLS(p.server)
	}
	if c.adminConn, err = adminconn.New(c.admin.NewServer(grpc.MaxConcurrentStreams(math.MaxInt32))); err != nil {
		return err
	}
	api, err := rest.New(c.adminConn, c.admin)
	if err != nil {
		return err
	}
	c.rest = api
	if !c.cfg.NoDashboard {
		c.pages = dashboard.New(dashboard.Config{
			Conn: c.adminConn, Store: c.store, Open: c.cfg.Open, Secure: p.server != nil, Logger: c.cfg.Logger,
		})
		c.dashboard = c.pages
	}
	// Handlers that take longer move these deadlines by http.ResponseController.
	c.httpServer = &http.Server{
		Handler: c.httpHandler(), ReadTimeout: httpTimeout, WriteTimeout: httpTimeout, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: maxHeader,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
	}
	c.httpServer.RegisterOnShutdown(api.End)
	if c.pages != nil {
		c.httpServer.RegisterOnShutdown(c.pages.Stop)
	}
	if p.server != nil {
		c.httpServer.TLSConfig = p.server.Clone()
	}
	if cas := p.clientAuthorities(); cas != nil {
		// Who measures or probes needs none; see forAdmins.
		c.httpServer.TLSConfig.ClientCAs, c.httpServer.TLSConfig.ClientAuth = cas, tls.VerifyClientCertIfGiven
	}
	return nil
}

// openStore starts or finds etcd and opens the topology in it.
func (c *ControlPlane) openStore(ctx context.Context) error {
	cfg := &c.cfg
	endpoints, flag := cfg.EtcdEndpoints, "--etcd-endpoints"
	if len(endpoints) == 0 {
		flag = "--data-dir"
		node, err := etcdnode.Start(ctx,
			etcdnode.Config{Dir: filepath.Join(cfg.DataDir, etcdFolder), Logger: cfg.Logger})
		if err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
		c.node, endpoints = node, []string{node.Endpoint()}
	}
	to := cfg.dialConfig(endpoints)
	client, err := store.Dial(to)
	if err != nil {
		return fmt.Errorf("%s: %w", flag, err)
	}
	c.etcd = client
	c.store, err = c.awaitStore(ctx, to, store.Config{
		Client: client, Prefix: cfg.EtcdPrefix, Key: cfg.secretKey, Alone: c.node != nil, Logger: cfg.Logger,
		Registerer: c.registry,
	})
	if err != nil {
		return cfg.explainKey(flag, err)
	}
	return nil
}

// awaitStore opens the topology once etcd answers. A cluster of the operator's may come later than
// this program: until then it says so, and tries again. It gives up when ctx ends, and where trying
// again does not help: the embedded etcd has been started, and a certificate that is not trusted
// stays so.
func (c *ControlPlane) awaitStore(ctx context.Context, to store.DialConfig, cfg store.Config) (*store.Store, error) {
	for logged := false; ; {
		if c.node == nil && !logged {
			if why := to.Unreachable(ctx); why != nil {
				if untrusted(why) {
					return nil, why
				}
				c.cfg.Logger.Error(
					"etcd does not answer; edges cannot be served before it does",
					"endpoints",
					strings.Join(to.Endpoints, ","),
					"err",
					why,
				)
				logged = true
			}
		}
		opening, cancel := context.WithTimeout(ctx, openTimeout)
		opened, err := store.Open(opening, cfg)
		cancel()
		if err == nil {
			if logged {
				c.cfg.Logger.Info("etcd answers")
			}
			return opened, nil
		}
		if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil || c.node != nil {
			return nil, err
		}
		logged = false
	}
}

// untrusted reports whether TLS with a server failed because of its certificate.
func untrusted(err error) bool {
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError))
}

// auditLogName is the file of the audit log, in DataDir, unless Config says otherwise.
const auditLogName = "audit.log"

// etcdFolder is the embedded etcd's, in DataDir.
const etcdFolder = "etcd"

// keepSharedHost makes the stored shared host and the flag agree.
func (c *ControlPlane) keepSharedHost(ctx context.Context) error {
	wanted := &topologyv1.Settings{SharedHost: c.cfg.SharedHost}
	if c.cfg.ReplaceSharedHost && c.cfg.SharedHost != "" {
		c.sharedHost = wanted.SharedHost
		_, err := c.store.ChangeSettings(ctx, nil, func(s *topologyv1.Settings) { s.SharedHost = c.sharedHost })
		return err
	}
	if wanted.SharedHost == "" {
		wanted.SharedHost = DefaultSharedHost
	}
	stored, _, err := c.store.InitSettings(ctx, wanted)
	if err != nil {
		return err
	}
	if c.cfg.SharedHost != "" && stored.GetSharedHost() != c.cfg.SharedHost {
		return fmt.Errorf(
			"--shared-host %s: the topology is served at %s, and URLs under it would end: to change it, add --replace-shared-host",
			c.cfg.SharedHost,
			stored.GetSharedHost(),
		)
	}
	c.sharedHost = stored.GetSharedHost()
	return nil
}

// mediaURL is the URL at which edges read media files.
func (c *ControlPlane) mediaURL() string {
	if c.cfg.MediaAdvertiseURL != "" {
		return c.cfg.MediaAdvertiseURL
	}
	scheme := "http://"
	if c.cfg.TLSCert != "" {
		scheme = "https://"
	}
	return scheme + c.listeners.media.Addr().String()
}

// joinedMediaURL is the same for edges that have joined, whom the control plane knows by their
// certificate.
func (c *ControlPlane) joinedMediaURL() string {
	if c.cfg.MediaAdvertiseURL != "" {
		return c.cfg.MediaAdvertiseURL
	}
	return "https://" + c.listeners.media.Addr().String()
}

// edgeAddress is where edges connect, without a host if that is each address of the machine.
func edgeAddress(l net.Listener) string {
	at, ok := l.Addr().(*net.TCPAddr)
	if ok && at.IP.IsUnspecified() {
		return fmt.Sprintf(":%d", at.Port)
	}
	return l.Addr().String()
}

// serverName names this control plane for people.
func serverName(edge net.Listener) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	_, port, err := net.SplitHostPort(edge.Addr().String())
	if err != nil {
		return host
	}
	return host + ":" + port
}

// peerAddress is how other control planes reach this one. Where the listener is on every address of
// the machine, it is the one from which it reaches etcd, because they reach that etcd too.
func (c *ControlPlane) peerAddress(ctx context.Context) string {
	if c.listeners.peer == nil {
		return ""
	}
	at := c.listeners.peer.Addr().(*net.TCPAddr)
	if !at.IP.IsUnspecified() {
		return at.String()
	}
	host := "127.0.0.1"
	for _, endpoint := range c.cfg.EtcdEndpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" {
			u = &url.URL{Host: endpoint}
		}
		// Connecting UDP sends nothing; it finds the way.
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "udp",
			net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "2379")))
		if err != nil {
			continue
		}
		host = conn.LocalAddr().(*net.UDPAddr).IP.String()
		conn.Close()
		break
	}
	return net.JoinHostPort(host, strconv.Itoa(at.Port))
}

func (c *Config) listen() (l listeners, err error) {
	for _, one := range []struct {
		flag, address string
		to            *net.Listener
	}{
		{"--admin-addr", c.AdminAddr, &l.admin}, {"--edge-addr", c.EdgeAddr, &l.edge},
		{"--http-addr", c.HTTPAddr, &l.http}, {"--media-addr", c.MediaAddr, &l.media},
	} {
		bound, err := listen.Open(one.flag, one.address)
		if err != nil {
			l.close()
			return listeners{}, err
		}
		*one.to = bound
	}
	if c.DebugAddr != "" {
		if l.debug, err = listen.Open("--debug-addr", c.DebugAddr); err != nil {
			l.close()
			return listeners{}, err
		}
	}
	if c.ACMEDNSAddr != "" {
		if l.dns, l.dnsPackets, err = dns01.Listen(c.ACMEDNSAddr); err != nil {
			l.close()
			return listeners{}, fmt.Errorf("--acme-dns-addr: %w", err)
		}
	}
	if len(c.EtcdEndpoints) == 0 {
		return l, nil
	}
	if l.peer, err = listen.Open("--peer-addr", c.PeerAddr); err != nil {
		l.close()
		return listeners{}, err
	}
	return l, nil
}

func (l listeners) close() {
	for _, one := range []net.Listener{l.admin, l.edge, l.http, l.media, l.peer, l.debug, l.dns} {
		if one != nil {
			one.Close()
		}
	}
	if l.dnsPackets != nil {
		l.dnsPackets.Close()
	}
}

// Addresses are where the control plane listens.
type Addresses struct {
	Admin, Edge, HTTP, Media string
	DNS                      string // empty without --acme-dns-addr
}

// Addresses returns where the control plane listens.
func (c *ControlPlane) Addresses() Addresses {
	l := c.listeners
	at := Addresses{
		Admin: l.admin.Addr().String(), Edge: l.edge.Addr().String(), HTTP: l.http.Addr().String(),
		Media: l.media.Addr().String(),
	}
	if l.dns != nil {
		at.DNS = l.dns.Addr().String()
	}
	return at
}

// SignInURL returns the address of the dashboard, with what signs one browser in, once. That works
// with Open alone. It is empty with NoDashboard.
func (c *ControlPlane) SignInURL() string {
	if c.pages == nil {
		return ""
	}
	return "http://" + c.Addresses().HTTP + c.pages.SignInPath()
}

// describe puts the control plane's state in words.
func (c *ControlPlane) describe(to io.Writer) {
	_, text := c.readiness(context.Background())
	fmt.Fprintf(to, "%sepoch: %s\ngoroutines: %d\n", text, c.store.Epoch(), runtime.NumGoroutine())
}

// State is how the control plane stands, in a word and a line for people.
func (c *ControlPlane) State() systemd.State {
	select {
	case <-c.feed.Loaded():
		return systemd.State{Ready: true, Text: fmt.Sprintf("streams revision %d", c.feed.Revision())}
	default:
		return systemd.State{Text: "reads the topology from etcd"}
	}
}

// Loaded is closed once the topology has been read, and edges are served.
func (c *ControlPlane) Loaded() <-chan struct{} { return c.feed.Loaded() }

const (
	// drainTime bounds the end of edges' streams and of admins' calls.
	drainTime = 10 * time.Second
	// httpTimeout bounds requests at --http-addr.
	httpTimeout = 10 * time.Second
	// maxStreams are the requests at once of one HTTP/2 connection there.
	maxStreams = 64
	// mediaReadTimeout bounds what an edge sends of a request, which has no content.
	mediaReadTimeout = 5 * time.Second
	// maxHeader bounds the fields of a request, in bytes.
	maxHeader = 32 << 10
)

// Run serves until ctx ends. It stops early only if a part cannot go on.
func (c *ControlPlane) Run(ctx context.Context) error {
	defer c.close()
	at := c.Addresses()
	c.cfg.Logger.Info("control plane is up", "admin", at.Admin, "edge", at.Edge, "http", at.HTTP, "media", at.Media,
		"media_url", c.mediaURL(), "epoch", c.store.Epoch())
	// What servers use goes on until the last of them has stopped.
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	back, backCtx := errgroup.WithContext(behind)
	for _, run := range []func(context.Context) error{
		c.feed.Run, c.store.Run, c.rollout.Run, c.auth.Run, c.fleet.Run, c.identities.Run, c.edges.Run,
		func(ctx context.Context) error { return c.library.Run(ctx, c.store) }, c.domains.Run, c.leadDomains,
		c.audit.Run,
	} {
		back.Go(func() error { return run(backCtx) })
	}
	if c.pages != nil {
		back.Go(func() error { return c.pages.Run(backCtx) })
	}
	if c.dnsServer != nil {
		c.cfg.Logger.Info("dns-01 challenges are answered", "zone", c.cfg.ACMEDNSZone, "dns", at.DNS)
		back.Go(func() error { return c.dnsServer.Run(backCtx) })
	}
	if c.listeners.debug != nil {
		c.cfg.Logger.Info("profiles are served", "debug", c.listeners.debug.Addr().String())
		back.Go(func() error { return debughttp.Serve(backCtx, c.listeners.debug, c.describe) })
	}

	front, frontCtx := errgroup.WithContext(ctx)
	front.Go(func() error { return c.watchEtcd(frontCtx, backCtx) })
	front.Go(func() error { return c.admin.Run(frontCtx) })
	front.Go(func() error { return c.adminServer.Serve(c.listeners.admin) })
	front.Go(c.adminConn.Serve)
	front.Go(func() error { return c.edgeServer.Serve(c.listeners.edge) })
	front.Go(func() error { return c.serveMedia() })
	front.Go(func() error { return serveHTTP(c.httpServer, c.listeners.http) })
	front.Go(func() error {
		<-frontCtx.Done()
		c.drain(context.WithoutCancel(ctx))
		return nil
	})
	err := front.Wait()
	stopBehind()
	if backErr := back.Wait(); !errors.Is(backErr, context.Canceled) {
		err = errors.Join(err, backErr)
	}
	return err
}

// errPartEnded goes with the error of the part.
var errPartEnded = errors.New("a part of the control plane has ended")

// watchEtcd ends the control plane when what it stands on has ended.
func (c *ControlPlane) watchEtcd(ctx, back context.Context) error {
	var failed <-chan error
	if c.node != nil {
		failed = c.node.Err()
	}
	select {
	case err := <-failed:
		return err
	case <-back.Done():
		return errPartEnded // back.Wait has its error.
	case <-ctx.Done():
		return nil
	}
}

// serveMedia serves media. Without a certificate it serves in the clear and over TLS: each edge
// chooses by its first bytes.
func (c *ControlPlane) serveMedia() error {
	if c.mediaServer.TLSConfig != nil {
		return serveHTTP(c.mediaServer, c.listeners.media)
	}
	return serveHTTP(c.mediaServer, c.identities.Listen(c.listeners.media, nil))
}

func serveHTTP(server *http.Server, l net.Listener) error {
	var err error
	if server.TLSConfig != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// drain sends edges elsewhere, lets calls end, and closes the servers.
func (c *ControlPlane) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	var all errgroup.Group
	all.Go(func() error {
		c.edges.Drain(ctx)
		stopGRPC(ctx, c.edgeServer)
		return nil
	})
	all.Go(func() error { stopGRPC(ctx, c.adminServer); return nil })
	for _, s := range []*http.Server{c.mediaServer, c.httpServer} {
		all.Go(func() error {
			if s.Shutdown(ctx) != nil {
				s.Close()
			}
			return nil
		})
	}
	all.Wait()
	c.adminConn.Close() // after the requests that use it
}

// stopGRPC lets calls end until ctx does.
func stopGRPC(ctx context.Context, s *grpc.Server) {
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	s.GracefulStop()
}

// close gives back what build has taken, the last first.
func (c *ControlPlane) close() {
	c.listeners.close()
	if c.adminConn != nil {
		c.adminConn.Close()
	}
	if c.issuer != nil {
		c.issuer.Close()
	}
	if c.library != nil {
		c.library.Close()
	}
	if c.audit != nil {
		c.audit.Close()
	}
	if c.etcd != nil {
		c.etcd.Close()
	}
	if c.node != nil {
		if err := c.node.Stop(); err != nil {
			c.cfg.Logger.Error("embedded etcd does not stop", "err", err)
		}
	}
}
