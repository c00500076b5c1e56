package control

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/internal/listen"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Config is what an agent's stream needs. Fields without a default are required.
type Config struct {
	// Addresses are the control planes' `host:port`. They are tried in an order that is random for
	// each agent.
	Addresses []string
	// Token is asked at each call for the token to send. Nil = none.
	Token func() string
	// TLS is asked at each connection how to talk to the control plane. Nil = in the clear, which
	// with Token is refused for addresses that are not loopback unless Insecure is set.
	TLS      func() *tls.Config
	Insecure bool

	// StateDir is the folder that keeps the last good topology. It is made if it does not exist,
	// and belongs to one agent.
	StateDir string
	// StateKeyFile holds the key that wraps the keys of sealed secrets in StateDir. Default:
	// `state-key` in StateDir, made when it is not there.
	StateKeyFile string

	// ID, Region and Version are what the agent says of itself. See [ID].
	ID, Region, Version string
	// BootID is random for each start.
	BootID string
	// HTTPAddress names the HTTP listeners, joined by `,`. It is asked at each connection.
	HTTPAddress func() string
	// MetricsAddress is where metrics are served, `host:port`. Empty: nowhere.
	MetricsAddress string
	// ServesHTTPS says that clients may reach the agent over HTTPS.
	ServesHTTPS bool

	// Table is brought up to date. Only this package applies steps to it.
	Table *route.Table
	// InStep is called whenever the control plane has said that the agent has all that there is;
	// first says that it did so for the first time on this stream. May be nil.
	InStep func(first bool)
	// Report is asked every 10 s while connected.
	Report func() *edgev1.Report
	// ReportSoon receives when a report should not wait for that. Nil: none is early.
	ReportSoon <-chan struct{}
	// Settings is kept at what the control plane sent last, for parts that are older than the
	// control. It is never nil inside once New has returned. Default: a pointer of the control's
	// own.
	Settings *atomic.Pointer[edgev1.Welcome_Settings]
	// Answer answers one question, from several goroutines at a time, within its context. It sets
	// result only.
	Answer func(ctx context.Context, ask *edgev1.Ask) *edgev1.Answer

	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Backoff says how long to stay away from control planes. Its zero value is what agents use.
	Backoff Backoff
}

// Backoff says how long to wait before connecting again.
type Backoff struct {
	// Least and Most bound the wait after failures, which doubles from one to the other. Each wait
	// is uniform between zero and the bound, because a fleet that failed together must not return
	// together. Default: 500 ms and 60 s.
	Least, Most time.Duration
	// Spread bounds the wait, uniform from zero, after a session in step. Default: 5 s.
	Spread time.Duration
}

func (c *Config) setDefaults() {
	c.Backoff.Least = cmp.Or(c.Backoff.Least, 500*time.Millisecond)
	c.Backoff.Most = cmp.Or(c.Backoff.Most, time.Minute)
	c.Backoff.Spread = cmp.Or(c.Backoff.Spread, 5*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Settings == nil {
		c.Settings = new(atomic.Pointer[edgev1.Welcome_Settings])
	}
}

func (c *Config) validate() error {
	if len(c.Addresses) == 0 {
		return errors.New("no address of a control plane")
	}
	if c.TLS != nil || c.Token == nil || c.Insecure {
		return nil
	}
	for _, address := range c.Addresses {
		if !listen.Loopback(address) {
			return fmt.Errorf("the edge token would be sent to %s in the clear: use TLS, or say that it is insecure", address)
		}
	}
	return nil
}

const (
	// keepaliveTime and keepaliveTimeout find a dead connection within 30 s. The server allows a
	// ping each 10 s.
	keepaliveTime    = 20 * time.Second
	keepaliveTimeout = 10 * time.Second
	// flowWindow is what may be on its way to the agent: 40 MB/s over a line of 100 ms. It is
	// fixed, because gRPC otherwise estimates the bandwidth, with a ping for nearly each message.
	flowWindow = 4 << 20
)

// dial prepares a connection; nothing is sent before the first call.
func (c *Config) dial(address string) (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if c.TLS != nil {
		transport = credentials.NewTLS(c.TLS())
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithUserAgent("edgewalk/" + c.Version),
		grpc.WithStaticStreamWindowSize(flowWindow),
		grpc.WithStaticConnWindowSize(flowWindow),
	}
	if c.Token != nil {
		options = append(options, grpc.WithPerRPCCredentials(token{c.Token, c.TLS != nil}))
	}
	return grpc.NewClient(address, options...)
}

// token is sent with each call.
type token struct {
	value  func() string
	secure bool
}

func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + t.value()}, nil
}

func (t token) RequireTransportSecurity() bool { return t.secure }
