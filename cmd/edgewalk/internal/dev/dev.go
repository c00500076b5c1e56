package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/admincli"
	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/devca"
	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/edgeagent"
	"github.com/edgewalk/edgewalk/internal/listen"
)

// Config of a demonstration.
type Config struct {
	// StateDir keeps all state. Default ./.edgewalk-dev.
	StateDir string
	// Reset deletes the state of earlier runs first.
	Reset bool
	// The addresses are those of the two daemons, with their defaults.
	HTTPAddr, MetricsAddr, AdminAddr, EdgeAddr, StatusAddr, MediaAddr string
	// ACME gives the demo's domains certificates, of an authority of its own, and serves HTTPS at
	// HTTPSAddr.
	ACME      bool
	HTTPSAddr string
	// MaxUpload is that of the control plane.
	MaxUpload int64

	Version string
	// Out is where the tour is printed, and a line for each request.
	Out    io.Writer
	Logger *slog.Logger
}

// Defaults: the daemons' own, so that what is learnt here holds there.
const (
	DefaultStateDir    = "./.edgewalk-dev"
	DefaultHTTPAddr    = edgeagent.DefaultHTTPAddr
	DefaultHTTPSAddr   = "127.0.0.1:8443"
	DefaultMetricsAddr = edgeagent.DefaultMetricsAddr
	DefaultAdminAddr   = controlplane.DefaultAdminAddr
	DefaultEdgeAddr    = controlplane.DefaultEdgeAddr
	DefaultStatusAddr  = controlplane.DefaultHTTPAddr
	DefaultMediaAddr   = controlplane.DefaultMediaAddr
)

// cacheBytes is plenty for a demonstration.
const cacheBytes = 1 << 30

// marker is a file by which a state folder is known as ours: only such a folder is ever deleted.
const marker = "edgewalk-dev"

// Run runs everything until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	mark, err := prepare(cfg.StateDir, cfg.Reset)
	if err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	}
	defer mark.Close()
	var origins []*runningOrigin
	defer func() {
		for _, o := range origins {
			o.server.Close()
			o.listen.Close()
		}
	}()
	for _, sample := range sampleOrigins {
		o, err := sample.start()
		if err != nil {
			return err
		}
		origins = append(origins, o)
	}
	log := quiet(cfg.Logger)
	// The port is part of the URLs that the control plane shows, so the socket is there before it.
	pictures, err := listen.Open("--http-addr", cfg.HTTPAddr)
	if err != nil {
		return err
	}
	defer pictures.Close()
	authority, err := openAuthority(cfg, pictures)
	if err != nil {
		return err
	}
	planeConfig := controlplane.Config{
		DataDir: filepath.Join(cfg.StateDir, "controlplane"), AdminAddr: cfg.AdminAddr, EdgeAddr: cfg.EdgeAddr,
		HTTPAddr: cfg.StatusAddr, MediaAddr: cfg.MediaAddr,
		// Another --http-addr is another URL, and here nobody has linked the old one.
		SharedHost: "localhost:" + portOf(pictures.Addr().String()), ReplaceSharedHost: true, Open: true,
		MaxUpload: cfg.MaxUpload, Logger: log,
	}
	if authority != nil {
		defer authority.Close()
		planeConfig.ACMEIssuers = []string{"name=dev,directory=" + authority.Directory}
		planeConfig.ACMEAgreeTOS, planeConfig.ACMECAFile = true, authority.RootFile
	}
	control, err := controlplane.New(ctx, planeConfig)
	if err != nil {
		return err
	}
	all, allCtx := errgroup.WithContext(ctx)
	all.Go(func() error { return control.Run(allCtx) })
	for _, o := range origins {
		all.Go(func() error { return o.run(allCtx) })
	}
	if authority != nil {
		all.Go(func() error { return authority.Run(allCtx) })
	}
	all.Go(func() error { return runEdge(allCtx, cfg, pictures, control, authority, origins, log) })
	return all.Wait()
}

// openAuthority is the authority of --acme, nil without. It asks the edge at its listener.
func openAuthority(cfg Config, pictures net.Listener) (*devca.Authority, error) {
	if !cfg.ACME {
		return nil, nil
	}
	authority, err := devca.New(devca.Config{
		Dir: filepath.Join(cfg.StateDir, "acme"), Edge: pictures.Addr().String(),
	})
	if err != nil {
		return nil, fmt.Errorf("--acme: %w", err)
	}
	return authority, nil
}

// runEdge runs the edge, and once it serves the demo account prints the tour.
func runEdge(
	ctx context.Context, cfg Config, pictures net.Listener, control *controlplane.ControlPlane,
	authority *devca.Authority, origins []*runningOrigin, log *slog.Logger,
) error {
	select {
	case <-control.Loaded():
	case <-ctx.Done():
		return nil
	}
	at := control.Addresses()
	edgeConfig := edgeagent.Config{
		ControlPlane: []string{at.Edge}, HTTPListener: pictures, MetricsAddr: cfg.MetricsAddr,
		StateDir: filepath.Join(cfg.StateDir, "edge"), CacheSize: cacheBytes, Region: "dev", ID: "dev",
		AllowPrivateOrigins: true, Version: cfg.Version, Logger: log, Requests: requests{cfg.Out},
		MetricsMaxSeries: 2000,
	}
	if authority != nil {
		edgeConfig.HTTPSAddr = cfg.HTTPSAddr
	}
	agent, err := edgeagent.New(edgeConfig)
	if err != nil {
		return err
	}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return agent.Run(ctx) })
	both.Go(func() error {
		if err := prepareDemo(ctx, at.Admin, origins, authority != nil); err != nil {
			return err
		}
		secure, trust := "", ""
		if authority != nil {
			secure, trust = portOf(agent.Addresses().HTTPS), authority.RootFile
		}
		places{
			secure: secure, trust: trust,
			port: portOf(agent.Addresses().HTTP), admin: at.Admin, metrics: "http://" + agent.Addresses().Metrics,
			status: "http://" + at.HTTP, binary: binary(), server: serverFlag(at.Admin), dashboard: control.SignInURL(),
		}.write(cfg.Out)
		return nil
	})
	return both.Wait()
}

// startTimeout bounds how long the first picture may take to be served.
const startTimeout = time.Minute

func prepareDemo(ctx context.Context, admin string, origins []*runningOrigin, secure bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := seed(ctx, conn, origins); err != nil || !secure {
		return err
	}
	return awaitCertificates(ctx, conn)
}

// prepare makes the state folder, or empties one that is ours. The file it returns is locked until
// it is closed: the folder belongs to this run.
func prepare(dir string, reset bool) (mark *os.File, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ours := slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == marker })
	if !ours && len(entries) > 0 {
		return nil, fmt.Errorf("%s holds something else: choose an empty folder", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	mark, err = os.OpenFile(filepath.Join(dir, marker), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			mark.Close()
		}
	}()
	if err := unix.Flock(int(mark.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another edgewalk dev runs on %s (%w): stop it, or choose another folder", dir, err)
	}
	if reset {
		for _, e := range entries {
			if e.Name() == marker {
				continue
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	_, err = mark.WriteAt([]byte("State of edgewalk dev. It may be deleted while that does not run.\n"), 0)
	return mark, err
}

// quiet keeps what is no trouble out of the way of the tour.
func quiet(log *slog.Logger) *slog.Logger { return slog.New(warnings{log.Handler()}) }

// warnings passes on warnings and errors.
type warnings struct{ slog.Handler }

// Enabled implements [slog.Handler].
func (h warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (h warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h warnings) WithGroup(name string) slog.Handler { return warnings{h.Handler.WithGroup(name)} }

// binary is how this program was called, as far as a shell elsewhere can repeat it.
func binary() string {
	if strings.Contains(os.Args[0], string(filepath.Separator)) {
		return os.Args[0]
	}
	return "edgewalk"
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address) // A listener's address always has one.
	return port
}

func serverFlag(admin string) string {
	if admin == DefaultAdminAddr && !admincli.InUse() {
		return ""
	}
	return " --server " + admin
}
