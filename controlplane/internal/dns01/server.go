package dns01

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/edgewalk/edgewalk/internal/listen"
)

const (
	// ratePerSource and burstPerSource bound answers over UDP to one network, a /24 of IPv4 or a
	// /56 of IPv6, and as many over TCP. Authorities ask a few times for each order, from several
	// places.
	ratePerSource, burstPerSource = 30, 60
	// maxSources bounds the networks that are counted one by one.
	maxSources = 8192
	// ratePerTransport bounds answers over UDP to all networks together, because each has a look
	// into etcd, and as many over TCP. Whoever asks in the name of many networks, which nobody can
	// over TCP, leaves those answers to others.
	ratePerTransport = 500
	// atOnce bounds the questions over UDP that are being answered.
	atOnce = 256
	// maxConns and connsPerClient bound connections, connTimeout the time that one waits for a
	// question, and questionsPerConn the questions.
	maxConns, connsPerClient = 256, 16
	connTimeout              = 5 * time.Second
	questionsPerConn         = 100
	// lookTimeout bounds a look into etcd; who asks has given up by then.
	lookTimeout = 3 * time.Second
)

// ServerConfig is what a Server needs.
type ServerConfig struct {
	// Listener and Packets are sockets of one address.
	Listener net.Listener
	Packets  *net.UDPConn
	// Zone is canonical.
	Zone string
	// Servers are the zone's name servers, as its parent has them. Default: `ns.` and the zone, at
	// the sockets' address.
	Servers []string
	// Answers returns the answers of a label; see [store.Store.ChallengeAnswers].
	Answers func(ctx context.Context, label string) ([]string, error)
	// Logger takes what goes wrong. Default: slog.Default().
	Logger *slog.Logger
	// Now is the clock of serial numbers. Default: time.Now.
	Now func() time.Time
}

// Server answers DNS questions for the zone that challenges are delegated to, and for nothing else:
// it asks nobody (RFC 1034 4.3.1).
type Server struct {
	zone     zone
	listener net.Listener
	packets  *net.UDPConn
	log      *slog.Logger
	places   listen.Places
	udp, tcp *rate.Limiter

	mu      sync.Mutex // sources are looked up and made under it
	sources *lru.Cache[netip.Prefix, *source]
}

// source is a network that asks.
type source struct {
	udp, tcp *rate.Limiter
	refused  uint // over UDP
}

// Listen opens the sockets of a Server at `host:port`. With port 0, both get the same.
func Listen(address string) (net.Listener, *net.UDPConn, error) {
	for attempt := 0; ; attempt++ {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("listen at %s: %w", address, err)
		}
		packets, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, packets.(*net.UDPConn), nil
		}
		l.Close()
		if _, port, _ := net.SplitHostPort(address); port != "0" || attempt == 20 {
			return nil, nil, fmt.Errorf("listen at %s: %w", address, err)
		}
	}
}

// NewServer returns a server, which Run starts.
func NewServer(cfg ServerConfig) (*Server, error) {
	s := &Server{
		zone:     zone{name: cfg.Zone, servers: cfg.Servers, now: cfg.Now},
		listener: cfg.Listener, packets: cfg.Packets, log: cfg.Logger,
		places: listen.Places{Max: maxConns, PerClient: connsPerClient},
		udp:    rate.NewLimiter(ratePerTransport, ratePerTransport),
		tcp:    rate.NewLimiter(ratePerTransport, ratePerTransport),
	}
	if s.zone.now == nil {
		s.zone.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if len(cfg.Servers) == 0 {
		s.zone.servers = []string{ownServer(cfg.Zone)}
		if at := listen.IP(cfg.Listener.Addr()); at.IsValid() && !at.IsUnspecified() {
			s.zone.addrs = []netip.Addr{at.Unmap()}
		}
	}
	s.zone.answers = func(ctx context.Context, label string) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		return cfg.Answers(ctx, label)
	}
	var err error
	s.sources, err = lru.New[netip.Prefix, *source](maxSources)
	return s, err
}

// Run answers until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	defer context.AfterFunc(ctx, func() {
		s.listener.Close()
		s.packets.Close()
	})()
	running.Go(func() { s.serveTCP(ctx, &running) })
	s.serveUDP(ctx, &running)
	return ctx.Err()
}

func (s *Server) serveUDP(ctx context.Context, running *sync.WaitGroup) {
	buf := make([]byte, 4096)
	places := make(chan struct{}, atOnce)
	for {
		n, from, err := s.packets.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("dns01: read a question", "err", err)
			continue
		}
		send, cut := s.admit(from.Addr())
		switch {
		case cut:
			if out := refusal(buf[:n]); out != nil {
				_, _ = s.packets.WriteToUDPAddrPort(out, from) // a client that gets no answer asks again
			}
			continue
		case !send:
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			continue // the client asks again
		}
		packed := append([]byte(nil), buf[:n]...)
		running.Go(func() {
			defer func() { <-places }()
			if out := s.zone.answer(ctx, packed, true); out != nil {
				_, _ = s.packets.WriteToUDPAddrPort(out, from) // a client that gets no answer asks again
			}
		})
	}
}

// admit decides whether a network is answered over UDP. Of what is too much, every other question
// is sent to TCP, which nobody can do in the name of others.
func (s *Server) admit(ip netip.Addr) (send, cut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, from := s.zone.now(), s.source(ip)
	if from.udp.AllowN(now, 1) {
		send = s.udp.AllowN(now, 1)
		return send, !send
	}
	from.refused++
	return false, from.refused%2 == 0
}

// admitTCP decides whether a network is answered over TCP.
func (s *Server) admitTCP(ip netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.zone.now()
	return s.source(ip).tcp.AllowN(now, 1) && s.tcp.AllowN(now, 1)
}

// source returns the network of an address. The caller holds s.mu.
func (s *Server) source(ip netip.Addr) *source {
	ip = ip.Unmap()
	bits := 56
	if ip.Is4() {
		bits = 24
	}
	network, _ := ip.WithZone("").Prefix(bits) // addresses that are none count as one network
	from, ok := s.sources.Get(network)
	if !ok {
		from = &source{
			udp: rate.NewLimiter(ratePerSource, burstPerSource), tcp: rate.NewLimiter(ratePerSource, burstPerSource),
		}
		s.sources.Add(network, from)
	}
	return from
}

func (s *Server) serveTCP(ctx context.Context, running *sync.WaitGroup) {
	limited := listen.Limit(s.listener, &s.places, func(string) {})
	for {
		conn, err := limited.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Warn("dns01: accept", "err", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // as when all file descriptors are taken
			}
			continue
		}
		running.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.converse(ctx, conn)
		})
	}
}

// converse answers the questions of a connection, one after the other (RFC 7766 6.2.1).
func (s *Server) converse(ctx context.Context, conn net.Conn) {
	for range questionsPerConn {
		_ = conn.SetDeadline(time.Now().Add(connTimeout)) // what fails then, fails
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		packed := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, packed); err != nil {
			return
		}
		if !s.admitTCP(listen.IP(conn.RemoteAddr())) {
			return // the client asks again
		}
		out := s.zone.answer(ctx, packed, false)
		if out == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil {
			return
		}
	}
}
