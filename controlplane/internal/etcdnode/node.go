// Package etcdnode starts and stops the etcd server that a control plane carries when it is given
// no cluster.
//
// It owns the server's data folder and private sockets, and says when the server may be used. What
// is stored is the store's business, which reaches the server as it would reach any cluster. One
// folder has one server at a time; a server listens to no network.
package etcdnode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/pkg/v3/featuregate"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/features"
	"google.golang.org/grpc"
)

const (
	// quotaBytes is the largest quota that etcd suggests (etcd.io, "System limits").
	quotaBytes = 8 << 30
	// history is how long changes are kept, so a watch may fall that far behind.
	history = "1h"
	// progressEvery is how often the server says how far a watch is, unasked.
	progressEvery = 5 * time.Second

	// DefaultStartTimeout bounds the start. A large database is checked first, at some 100 MB/s.
	DefaultStartTimeout = 2 * time.Minute
	// stopTimeout bounds the stop: etcd's own waits for requests and peers for up to 8 s.
	stopTimeout = 10 * time.Second

	clientSocket, httpSocket = "etcd", "http"

	memberName = "edgewalk"
	// peerURL names the only member in its cluster. Nobody listens there, because nobody joins.
	peerURL = "http://127.0.0.1:2380"
)

// Config says where a server keeps its data.
type Config struct {
	// Dir is the data folder. It is made when it does not exist. A folder with anything else in it
	// is refused.
	Dir string
	// Logger takes etcd's warnings and errors. Default: slog.Default().
	Logger *slog.Logger
	// StartTimeout bounds the start. Default: DefaultStartTimeout.
	StartTimeout time.Duration
	// QuotaBytes bounds the database. Default: 8 GiB.
	QuotaBytes int64
	// Unsafe trades durability for speed: nothing is synced to disk, and elections are quick. For
	// tests only.
	Unsafe bool
}

// Node is a running server.
type Node struct {
	server  *embed.Etcd
	grpc    atomic.Pointer[grpc.Server]
	sockets string
	lock    *dirLock
	err     chan error

	stopping atomic.Bool
	stopped  chan struct{} // closed by Stop
}

// Start runs a server over a folder and returns when it answers. It returns a clear error at once
// when another process uses the folder, or when the folder holds something else.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.StartTimeout == 0 {
		cfg.StartTimeout = DefaultStartTimeout
	}
	lock, err := openDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	n := &Node{lock: lock, stopped: make(chan struct{}), err: make(chan error, 1)}
	if err := n.start(ctx, cfg); err != nil {
		n.release()
		return nil, fmt.Errorf("start etcd in %q: %w", cfg.Dir, err)
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, cfg Config) (err error) {
	// The path of a unix socket may have about 100 bytes, so the sockets cannot lie in the data
	// folder.
	if n.sockets, err = os.MkdirTemp("", "ew"); err != nil {
		return fmt.Errorf("make a folder for sockets: %w", err)
	}
	if err := n.lock.sign(n.sockets); err != nil {
		return err
	}
	settings, err := n.settings(cfg)
	if err != nil {
		return err
	}
	if n.server, err = startEtcd(settings); err != nil {
		return err
	}
	select {
	case <-n.server.Server.ReadyNotify():
		if err = found(cfg.Dir); err == nil {
			go n.watch()
			return nil
		}
	case err = <-n.server.Err():
		if err == nil { // etcd closes the channel, or sends nil
			err = errors.New("the server stopped")
		}
	case <-time.After(cfg.StartTimeout):
		err = fmt.Errorf("not ready after %s", cfg.StartTimeout)
	case <-ctx.Done():
		err = ctx.Err()
	}
	n.shutDown()
	return err
}

// startEtcd turns a panic of etcd, its answer to a broken database, into an error.
func startEtcd(settings *embed.Config) (server *embed.Etcd, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("etcd gave up: %v", p)
		}
	}()
	return embed.StartEtcd(settings)
}

func (n *Node) settings(cfg Config) (*embed.Config, error) {
	peer, err := url.Parse(peerURL)
	if err != nil {
		return nil, err
	}
	client := url.URL{Scheme: "unix", Path: n.socket()}
	c := embed.NewConfig()
	c.Name = memberName
	c.Dir = cfg.Dir
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{*peer}
	c.ListenClientUrls = []url.URL{client}
	c.AdvertiseClientUrls = []url.URL{client}
	// HTTP has a socket of its own, so that gRPC's need not guess which is which.
	c.ListenClientHttpUrls = []url.URL{{Scheme: "unix", Path: filepath.Join(n.sockets, httpSocket)}}
	c.InitialCluster = c.InitialClusterFromName(memberName)
	c.CORS = map[string]struct{}{}
	c.HostWhitelist = map[string]struct{}{"localhost": {}}
	c.EnableGRPCGateway = false
	c.AuthToken = "" // no users: who reaches the socket is this process
	c.QuotaBackendBytes = quotaBytes
	if cfg.QuotaBytes != 0 {
		c.QuotaBackendBytes = cfg.QuotaBytes
	}
	c.AutoCompactionMode = embed.CompactorModePeriodic
	c.AutoCompactionRetention = history
	c.WatchProgressNotifyInterval = progressEvery
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapTo(cfg.Logger, &n.stopping))
	c.ServiceRegister = func(s *grpc.Server) { n.grpc.Store(s) }
	if cfg.Unsafe {
		c.UnsafeNoFsync = true
		c.TickMs, c.ElectionMs = 10, 100
	}
	gate, ok := c.ServerFeatureGate.(featuregate.MutableFeatureGate)
	if !ok {
		return nil, errors.New("etcd's feature gate cannot be set")
	}
	if err := gate.SetFromMap(map[string]bool{string(features.InitialCorruptCheck): true}); err != nil {
		return nil, fmt.Errorf("check data at start: %w", err)
	}
	return c, nil
}

func (n *Node) socket() string { return filepath.Join(n.sockets, clientSocket) }

// Endpoint is the address that clients dial.
func (n *Node) Endpoint() string { return "unix://" + n.socket() }

// Err returns a channel that gets at most one error, when the server stops by itself.
func (n *Node) Err() <-chan error { return n.err }

func (n *Node) watch() {
	select {
	case err, ok := <-n.server.Err():
		if ok && err != nil {
			n.err <- fmt.Errorf("etcd: %w", err)
		}
	case <-n.server.Server.StopNotify():
		select {
		case <-n.stopped:
		default:
			n.err <- errors.New("etcd stopped by itself")
		}
	case <-n.stopped:
	}
}

// Stop ends the server and its clients' requests, and frees the folder. It takes at most 10 s; a
// server that does not end by then keeps the folder locked until the process ends, and Stop says
// so. It is called once.
func (n *Node) Stop() error {
	close(n.stopped)
	if !n.shutDown() {
		return fmt.Errorf("stop etcd: still busy after %s", stopTimeout)
	}
	n.release()
	return nil
}

// shutDown reports whether the server has ended.
func (n *Node) shutDown() bool {
	n.stopping.Store(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s := n.grpc.Load(); s != nil {
			s.Stop() // else open watches hold up the end for seconds
		}
		// Close waits for servers that only begin once etcd is ready, so a server that never was
		// has to be stopped first.
		n.server.Server.Stop()
		n.server.Close()
	}()
	select {
	case <-done:
		return true
	case <-time.After(stopTimeout):
		return false
	}
}

func (n *Node) release() {
	if n.sockets != "" {
		_ = os.RemoveAll(n.sockets)
	}
	n.lock.release()
}
