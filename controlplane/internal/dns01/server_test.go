package dns01

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

// start serves the zone acme.example.net at an address of its own until the test ends.
func start(t *testing.T, answers func(context.Context, string) ([]string, error)) netip.AddrPort {
	t.Helper()
	l, packets, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewServer(ServerConfig{
		Listener: l, Packets: packets, Zone: "acme.example.net", Answers: answers,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// patience is for answers on a busy machine.
const patience = 30 * time.Second

func overUDP(t *testing.T, at netip.AddrPort, packed []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(packed); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func dialTCP(t *testing.T, at netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func overTCP(t *testing.T, conn net.Conn, packed []byte) []byte {
	t.Helper()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		t.Fatal(err)
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		t.Fatal(err)
	}
	out := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// What one control plane is told to answer, another answers as soon as that is said to be done, and
// neither does after it was taken back.
func TestAnyControlPlaneAnswers(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	leader := storetest.Open(t, store.Config{Prefix: prefix})
	other := storetest.Open(t, store.Config{Prefix: prefix})
	at := start(t, other.ChallengeAnswers)
	solver := NewSolver(Config{Store: leader, Zone: "acme.example.net"})
	ch := Challenge{Way: Delegated, Name: "_acme-challenge.example.com", Token: here, Value: value}
	question := ask(t, here+".acme.example.net TXT edns=1232")
	both := func() string {
		t.Helper()
		udp, tcp := rendered(t, overUDP(t, at, question)), rendered(t, overTCP(t, dialTCP(t, at), question))
		if udp != tcp {
			t.Errorf("UDP says %s, TCP %s", udp, tcp)
		}
		return udp
	}
	present := func(ch Challenge) {
		t.Helper()
		if err := solver.Present(t.Context(), nil, ch); err != nil {
			t.Fatal(err)
		}
	}
	clean := func(ch Challenge) {
		t.Helper()
		if err := solver.Cleanup(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	second := ch
	second.Value = strings.ToLower(value)
	if got := both(); !strings.HasPrefix(got, "NXDOMAIN aa") {
		t.Errorf("before: %s", got)
	}
	present(ch)
	present(ch)
	if got, want := both(), "NOERROR aa | 0 TXT "+value+" edns=1232"; got != want {
		t.Errorf("with one: %s, want %s", got, want)
	}
	present(second) // as of a wildcard and the name below which it is
	if got := both(); strings.Count(got, "TXT") != 2 {
		t.Errorf("with two: %s", got)
	}
	clean(ch)
	clean(ch)
	if got, want := both(), "NOERROR aa | 0 TXT "+second.Value+" edns=1232"; got != want {
		t.Errorf("with the second: %s, want %s", got, want)
	}
	clean(second)
	if got := both(); !strings.HasPrefix(got, "NXDOMAIN aa") {
		t.Errorf("after: %s", got)
	}
	// Who leads no more writes nothing.
	gone := &store.Fence{Key: prefix + "lead/nobody", Revision: 1}
	if err := solver.Present(t.Context(), gone, ch); err == nil {
		t.Error("an answer was written by one who does not lead")
	}
	for _, wrong := range []Challenge{{Way: Delegated, Token: "a/b", Value: "x"}, {Way: Delegated, Token: here}} {
		if err := solver.Present(t.Context(), nil, wrong); err == nil {
			t.Errorf("%+v was written", wrong)
		}
	}
}

// Several questions may come over one connection, and none makes it stay open for ever.
func TestConnections(t *testing.T) {
	t.Parallel()
	at := start(t, testZone().answers)
	conn := dialTCP(t, at)
	question := ask(t, here+".acme.example.net TXT")
	for range 3 {
		if got := rendered(t, overTCP(t, conn, question)); !strings.HasPrefix(got, "NOERROR aa | 0 TXT "+value) {
			t.Errorf("%s", got)
		}
	}
	for _, bad := range []string{"\x00\x03abc", "\x00\x00"} {
		conn := dialTCP(t, at)
		if _, err := conn.Write([]byte(bad)); err != nil {
			t.Fatal(err)
		}
		// What was not read of it may have the connection reset.
		if n, err := conn.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after %q: %d bytes, %v", bad, n, err)
		}
	}
	silent := dialTCP(t, at)
	if n, err := silent.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a connection without a question: %d bytes, %v", n, err)
	}
	// One client has so many connections at a time.
	var open []net.Conn
	for range connsPerClient {
		c := dialTCP(t, at)
		overTCP(t, c, question)
		open = append(open, c)
	}
	if n, err := dialTCP(t, at).Read(make([]byte, 1)); err == nil {
		t.Errorf("one more connection: %d bytes", n)
	}
	for _, c := range open {
		c.Close()
	}
}

// Of one network's questions so many are answered a second; of the rest, every other is told to
// come over TCP. Other networks are answered meanwhile.
func TestSourcesAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, packets, err := Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		defer packets.Close()
		s, err := NewServer(ServerConfig{Listener: l, Packets: packets, Zone: "acme.example.net"})
		if err != nil {
			t.Fatal(err)
		}
		count := func(n int, from string) (sent, cut int) {
			for i := range n {
				a, b := s.admit(netip.MustParseAddr(fmt.Sprintf(from, i%100)))
				if a {
					sent++
				}
				if b {
					cut++
				}
			}
			return sent, cut
		}
		if sent, cut := count(burstPerSource+100, "192.0.2.%d"); sent != burstPerSource || cut != 50 {
			t.Errorf("%d answers and %d to come over TCP, want %d and 50", sent, cut, burstPerSource)
		}
		if sent, _ := count(10, "::ffff:192.0.2.%d"); sent != 0 {
			t.Errorf("%d answers to the same network", sent)
		}
		if sent, _ := count(burstPerSource+10, "2001:db8:0:%x::1"); sent != burstPerSource {
			t.Errorf("%d answers, want %d", sent, burstPerSource)
		}
		if sent, _ := count(10, "198.51.100.%d"); sent != 10 {
			t.Errorf("%d answers to another network", sent)
		}
		time.Sleep(time.Second)
		if sent, _ := count(100, "192.0.2.%d"); sent != ratePerSource {
			t.Errorf("%d answers a second later, want %d", sent, ratePerSource)
		}
		for i := range 2 * maxSources {
			s.admit(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}))
		}
		if n := s.sources.Len(); n != maxSources {
			t.Errorf("%d sources are kept", n)
		}
	})
}

// Networks that are many, or that somebody makes up, are told to come over TCP once there are too
// many questions over UDP; and there, no network takes the answers of the others.
func TestNoNetworkTakesTheAnswersOfOthers(t *testing.T) {
	t.Parallel()
	l, packets, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer packets.Close()
	now := time.Now()
	s, err := NewServer(ServerConfig{
		Listener: l, Packets: packets, Zone: "acme.example.net", Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	for i := range 4 * ratePerTransport {
		if ok, cut := s.admit(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1})); ok {
			sent++
		} else if !cut {
			t.Fatal("a network that asks for the first time gets no answer")
		}
	}
	if sent != ratePerTransport {
		t.Errorf("%d answers over UDP, want %d", sent, ratePerTransport)
	}
	sent = 0
	for i := range 4 * ratePerTransport {
		if s.admitTCP(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})) {
			sent++
		}
	}
	if sent != burstPerSource {
		t.Errorf("%d answers to a network over TCP, want %d", sent, burstPerSource)
	}
	if !s.admitTCP(netip.MustParseAddr("198.51.100.1")) {
		t.Error("another network gets no answer over TCP")
	}
}

// A client that asks over TCP without end has no more looked for than its network's share.
func TestAClientOverTCPHasItsShare(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	at := start(t, func(context.Context, string) ([]string, error) { looks.Add(1); return []string{value}, nil })
	question := ask(t, here+".acme.example.net TXT")
	began := time.Now()
	message := append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...)
	for range 20 {
		conn := dialTCP(t, at)
		_, _ = conn.Write(bytes.Repeat(message, questionsPerConn))
		_, _ = io.Copy(io.Discard, conn) // it may be reset
		conn.Close()
	}
	share := burstPerSource + int64(ratePerSource*(time.Since(began).Seconds()+1))
	if n := looks.Load(); n > share {
		t.Errorf("%d answers to one client, want at most %d", n, share)
	}
}

func TestRefusalSaysToUseTCP(t *testing.T) {
	t.Parallel()
	question := ask(t, here+".acme.example.net TXT edns=1232")
	if got := rendered(t, refusal(question)); got != "NOERROR tc edns=1232" {
		t.Errorf("%s", got)
	}
	if out := refusal([]byte("no question at all")); out != nil {
		t.Errorf("%x", out)
	}
}

// Etcd is read for names that an account may have, and for no others.
func TestReadsAreOfTokens(t *testing.T) {
	t.Parallel()
	l, packets, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	defer packets.Close()
	reads := 0
	s, err := NewServer(ServerConfig{Listener: l, Packets: packets, Zone: "acme.example.net",
		Answers: func(context.Context, string) ([]string, error) { reads++; return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"random.", "", nobody + ".below."} {
		s.zone.answer(t.Context(), ask(t, name+"acme.example.net TXT"), true)
	}
	if reads != 0 {
		t.Error("etcd is read for a name that no account has")
	}
	if s.zone.answer(t.Context(), ask(t, nobody+".acme.example.net TXT"), true); reads != 1 {
		t.Errorf("%d reads for a name that an account may have", reads)
	}
}
