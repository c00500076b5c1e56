package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a server on loopback.
type rig struct {
	t      testing.TB
	server *Server
	plain  string // address
	secure string
}

// newRig starts a server; change may alter what it is configured with.
func newRig(t testing.TB, handler Handler, change func(*Config)) *rig {
	t.Helper()
	cfg := Config{
		Handler: handler, MaxConnections: 50_000, MaxConnectionsPerClient: 50_000,
		Refused:      func(string) {},
		AcceptFailed: func(_ net.Addr, err error) { t.Logf("accept: %v", err) },
		Panicked:     func(fault any, stack []byte) { t.Errorf("panic: %v\n%s", fault, stack) },
	}
	if change != nil {
		change(&cfg)
	}
	r := &rig{t: t, server: New(cfg)}
	r.plain = r.listen(nil)
	r.secure = r.listen(&tls.Config{
		Certificates: []tls.Certificate{testCertificate(t)}, NextProtos: []string{"h2", "http/1.1"},
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) listen(secure *tls.Config) string {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	go r.server.Serve(l, secure)
	return l.Addr().String()
}

// stop ends the server, and fails the test if anything is left of its connections.
func (r *rig) stop() {
	r.server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		r.t.Errorf("connections are left: %v", err)
	}
	for i := range r.server.live {
		if n := len(r.server.live[i].conns); n > 0 {
			r.t.Errorf("%d connections are still known", n)
		}
	}
}

// dial connects over plain TCP, and over TLS if secure has a configuration.
func (r *rig) dial(secure *tls.Config) net.Conn {
	r.t.Helper()
	address := r.plain
	if secure != nil {
		address = r.secure
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if secure == nil {
		return conn
	}
	return tls.Client(conn, secure)
}

// overTLS is a client's configuration that chooses HTTP/1.1.
func overTLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: "a.test", NextProtos: []string{"http/1.1"}}
}

// exchange sends bytes on a connection of its own, ends what it sends, and returns all that comes
// back.
func (r *rig) exchange(secure *tls.Config, sent string) string {
	r.t.Helper()
	conn := r.dial(secure)
	go func() {
		io.WriteString(conn, sent)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}()
	answer, err := io.ReadAll(conn)
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		r.t.Errorf("no end after %q", answer)
	}
	conn.Close()
	return string(answer)
}

// openFile returns a file that a reply may have.
func openFile(t testing.TB, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// echo answers with what it was asked.
func echo(x *Exchange) {
	body := fmt.Sprintf("%s %s %s host=%s", x.Version, x.Method, x.Target, x.Authority)
	for line := range x.Fields.All() {
		body += fmt.Sprintf(" %s=%s", strings.ToLower(line.Name), line.Value)
	}
	if x.HasContent() {
		body += " +content"
	}
	x.Reply(&Reply{Status: 200, Fields: field.Append(nil, "Content-Type", "text/plain"), Mem: []byte(body)})
}
