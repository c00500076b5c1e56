package edgehttp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/logtest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// loopback lets a test speak for any client, in X-Forwarded-For.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func from(client string) string { return "X-Forwarded-For: " + client }

// stuck has /slow..., whose replies never come, and one file.
func stuck(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/slow") {
		<-r.Context().Done()
		return
	}
	oneFile(w, r)
}

// crowd are requests that have no reply yet.
type crowd struct {
	e     *edge
	conns []net.Conn
}

func (e *edge) crowd() *crowd {
	c := &crowd{e: e}
	e.t.Cleanup(c.leave)
	return c
}

// ask asks for a path of the shared host on a connection of its own, and waits for no reply.
func (c *crowd) ask(path, client string) {
	c.e.t.Helper()
	conn, err := net.Dial("tcp", c.e.http)
	if err == nil {
		_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: shared.test\r\n%s\r\n\r\n", path, from(client))
	}
	if err != nil {
		c.e.t.Fatal(err)
	}
	c.conns = append(c.conns, conn)
}

func (c *crowd) leave() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// refused are the requests that found no place among those that may wait for origins.
func (e *edge) refused() (n float64) {
	for _, reason := range []string{"waiting", "requests"} {
		for _, share := range []string{"", "_per_client", "_per_account"} {
			n += e.metric("edgewalk_edge_refused_total " + reason + share)
		}
	}
	return n
}

// However many requests wait for origins that never answer: what is stored is served, to those who
// wait as well.
func TestHitsAreServedWhileMissesFillEverySlot(t *testing.T) {
	t.Parallel()
	const requests = 64
	e := newEdge(t, func(c *Config) { c.MaxRequests, c.TrustedProxies = requests, loopback })
	resources := acme(newOrigin(t, stuck))
	for i := range 8 {
		account := fmt.Sprintf("a%d", i)
		resources["accounts/"+account] = &topologyv1.Account{State: topologyv1.Account_ACTIVE}
		resources["origins/"+account+"/o"] = proto.Clone(resources["origins/acme/legacy"])
		resources["urlEndpoints/"+account+"/default"] = &topologyv1.UrlEndpoint{Origins: []string{"o"}}
	}
	e.apply(resources)
	e.get("shared.test", "/acme/a.txt")
	e.awaitStored(1)
	attack := e.crowd()
	const waiting, asked = requests * 3 / 4, 4 * requests
	for i := range asked {
		attack.ask(fmt.Sprintf("/a%d/slow%d", i%8, i), fmt.Sprintf("192.0.2.%d", i%100))
	}
	e.await("every place is taken", func() bool {
		return e.metric("edgewalk_edge_requests_in_flight") == waiting && e.refused() == asked-waiting
	})
	for _, client := range []string{"198.51.100.1", "192.0.2.1", "2001:db8::1"} {
		if response, body := e.get("shared.test", "/acme/a.txt", from(client)); response.StatusCode != 200 ||
			body != fileText {
			t.Errorf("a hit of %s is %d", client, response.StatusCode)
		}
		miss, _ := e.get("shared.test", "/acme/b.txt", from(client))
		if miss.StatusCode != 503 || miss.Header.Get("Retry-After") == "" {
			t.Errorf("a miss of %s is %d", client, miss.StatusCode)
		}
	}
}

// The misses of an account whose origins never answer leave places to the other accounts'.
func TestOneAccountLeavesRequestsToOthers(t *testing.T) {
	t.Parallel()
	const requests = 64
	e := newEdge(t, func(c *Config) { c.MaxRequests, c.TrustedProxies = requests, loopback })
	resources := acme(newOrigin(t, stuck))
	resources["origins/other/o"] = proto.Clone(resources["origins/acme/legacy"])
	resources["urlEndpoints/other/default"] = &topologyv1.UrlEndpoint{Origins: []string{"o"}}
	e.apply(resources)
	attack := e.crowd()
	for i := range 2 * requests {
		attack.ask(fmt.Sprintf("/acme/slow%d", i), fmt.Sprintf("192.0.2.%d", i))
	}
	const waiting = requests * 3 / 4 * 3 / 4
	e.await("the attack has all that it can have", func() bool { return e.refused() == 2*requests-waiting })
	// Those that come while others are being refused may find all places taken.
	if n := e.metric("edgewalk_edge_refused_total waiting_per_account"); n == 0 {
		t.Error("none was refused as too many of one account")
	}
	if response, body := e.get("shared.test", "/other/a.txt", from("198.51.100.1")); response.StatusCode != 200 {
		t.Errorf("a miss of another account is %d %s", response.StatusCode, body)
	}
}

// An account that may have less than its share of an edge gets that.
func TestAnAccountTakesNoMoreRequestsThanItsLimit(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(c *Config) { c.TrustedProxies = loopback })
	resources := acme(newOrigin(t, stuck))
	resources["accounts/acme"] = &topologyv1.Account{
		State: topologyv1.Account_ACTIVE, Limits: &topologyv1.AccountLimits{Requests: proto.Int32(3)},
	}
	resources["origins/other/o"] = proto.Clone(resources["origins/acme/legacy"])
	resources["urlEndpoints/other/default"] = &topologyv1.UrlEndpoint{Origins: []string{"o"}}
	e.apply(resources)
	attack := e.crowd()
	for i := range 8 {
		attack.ask(fmt.Sprintf("/acme/slow%d", i), fmt.Sprintf("192.0.2.%d", i))
	}
	e.await("five of eight are refused",
		func() bool { return e.metric("edgewalk_edge_refused_total requests_per_account") == 5 })
	if response, body := e.get("shared.test", "/other/a.txt", from("198.51.100.1")); response.StatusCode != 200 {
		t.Errorf("another account got %d %s", response.StatusCode, body)
	}
}

// Addresses of one client count together, and so do its connections and their streams.
func TestOneClientLeavesRequestsToOthers(t *testing.T) {
	t.Parallel()
	const requests = 64
	for name, address := range map[string]func(i int) string{
		"IPv4":    func(int) string { return "192.0.2.1" },
		"IPv6":    func(i int) string { return fmt.Sprintf("2001:db8:0:%x::%x", i%256, i) },
		"streams": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, func(c *Config) { c.MaxRequests, c.TrustedProxies = requests, loopback })
			e.apply(acme(newOrigin(t, stuck)))
			const waiting = requests * 3 / 4 / 2
			if address == nil {
				for connection := range 4 {
					var paths []string
					for i := range requests / 2 {
						paths = append(paths, fmt.Sprintf("/slow%d-%d", connection, i))
					}
					e.windowless("img.acme.test", paths...)
				}
			} else {
				attack := e.crowd()
				for i := range 2 * requests {
					attack.ask(fmt.Sprintf("/acme/slow%d", i), address(i))
				}
			}
			e.await("the attack has all that it can have", func() bool { return e.refused() >= 2*requests-waiting })
			if n := e.metric("edgewalk_edge_requests_in_flight"); n > requests {
				t.Errorf("%v requests are under way", n)
			}
			for _, other := range []string{"192.0.2.2", "2001:db8:0:100::1"} {
				if response, body := e.get("shared.test", "/acme/a.txt", from(other)); response.StatusCode != 200 {
					t.Errorf("%s got %d %s", other, response.StatusCode, body)
				}
			}
		})
	}
}

// The limits as they are by default, against what an account and a client can really bring.
func TestDefaultLimitsHoldAgainstThousands(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of connections")
	}
	var held atomic.Int64
	e := newEdge(t, func(c *Config) { c.TrustedProxies = loopback })
	resources := acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		held.Add(1)
		defer held.Add(-1)
		stuck(w, r)
	}))
	resources["origins/other/o"] = &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
		BaseUrl: newOrigin(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, fileText) }),
	}}}
	resources["urlEndpoints/other/default"] = &topologyv1.UrlEndpoint{Origins: []string{"o"}}
	e.apply(resources)
	e.get("shared.test", "/acme/a.txt")
	e.awaitStored(1)

	attack := e.crowd()
	for i := range 2300 {
		attack.ask(fmt.Sprintf("/acme/slow%d", i), fmt.Sprintf("192.0.2.%d", i%8))
	}
	for i := range 300 {
		response, body := e.get("shared.test", fmt.Sprintf("/other/%d", i), from("198.51.100.1"))
		if response == nil || response.StatusCode != 200 {
			t.Fatalf("another account's miss %d: %v %s", i, response, body)
		}
	}
	t.Logf("the origins hold %d requests", held.Load())
	attack.leave()
	left := time.Now()
	e.await("the places are free", func() bool { return held.Load() == 0 })
	if took := time.Since(left); took > 5*time.Second {
		t.Errorf("the places were free after %v", took)
	}

	var paths []string
	for i := range maxStreams {
		paths = append(paths, fmt.Sprintf("/slow%d", i))
	}
	for range 160 {
		e.windowless("img.acme.test", paths...)
	}
	for i := range 300 {
		response, _ := e.get("shared.test", "/acme/a.txt", from("198.51.100.2"))
		if response == nil || response.StatusCode != 200 {
			t.Fatalf("another client's hit %d: %v", i, response)
		}
	}
	t.Logf("%v requests in flight, %v refused", e.metric("edgewalk_edge_requests_in_flight"), e.refused())
}

// Who asks for large files and takes nothing gives their descriptors back, of which there is one a
// file.
func TestStalledReadersGiveBackTheirFiles(t *testing.T) {
	t.Parallel()
	const streams = 40
	big := make([]byte, 1<<20)
	e := newEdge(t, func(c *Config) { c.WriteStall = 500 * time.Millisecond })
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Write(big)
	})))
	e.get("shared.test", "/acme/big")
	e.awaitStored(1)
	paths := make([]string, streams)
	for i := range paths {
		paths[i] = "/big"
	}
	e.windowless("img.acme.test", paths...)
	e.await("the streams are answered", func() bool { return e.metric("edgewalk_edge_requests_in_flight") == streams })
	if n := e.openFiles(); n > 1 {
		t.Errorf("%d files are open for one object", n)
	}
	e.awaitAborted(streams)
	if err := e.store.Close(); err != nil { // which closes what nobody reads
		t.Fatal(err)
	}
	e.await("they have given the file back", func() bool { return e.openFiles() == 0 })
}

// openFiles is how many files of the cache this process has open, but for its lock.
func (e *edge) openFiles() (n int) {
	e.t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		e.t.Skip("/proc is missing: open files are counted on Linux")
	}
	for _, d := range descriptors {
		name, _ := os.Readlink("/proc/self/fd/" + d.Name())
		if rest, ok := strings.CutPrefix(name, e.dir); ok && strings.Count(rest, "/") > 1 {
			n++
		}
	}
	return n
}

// smallSockets has the kernel take little of what is sent.
type smallSockets struct{ net.Listener }

func (l smallSockets) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		err = conn.(*net.TCPConn).SetWriteBuffer(16 << 10)
	}
	return conn, err
}

// A file that the kernel sends is whole for a client that needs several times WriteStall for it, as
// long as it takes something in each.
func TestSlowClientGetsFilesWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("slow, because even a busy machine takes something in each WriteStall: run make test-long")
	}
	t.Parallel()
	big := make([]byte, 3<<20)
	for i := range big {
		big[i] = byte(i >> 8 * 7)
	}
	e := newEdge(t, func(c *Config) { c.HTTP, c.WriteStall = smallSockets{c.HTTP}, 10*time.Second })
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Write(big)
	})))
	e.get("shared.test", "/acme/big")
	e.awaitStored(1)
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "GET /acme/big HTTP/1.1\r\nHost: shared.test\r\nConnection: close\r\n\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(600 * time.Millisecond)
	defer tick.Stop()
	var got bytes.Buffer
	for err == nil {
		<-tick.C
		_, err = io.CopyN(&got, response.Body, 64<<10)
	}
	if err != io.EOF || !bytes.Equal(got.Bytes(), big) {
		t.Errorf("%d of %d bytes, %v", got.Len(), len(big), err)
	}
}

// A body that is announced and never sent holds its connection for a moment, whatever it is
// announced for.
func TestAnnouncedBodyThatNeverComesIsBounded(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	for _, head := range []string{
		"POST /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 100\r\n\r\n",
		"POST /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 100\r\n\r\nonly this",
		"OPTIONS /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 100\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 100\r\n\r\n",
		"PUT /nobody HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
	} {
		t.Run(strings.ReplaceAll(head[:strings.Index(head, " HTTP")], "/", "_"), func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", e.http)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(11 * time.Second))
			io.WriteString(conn, head)
			answer, err := io.ReadAll(conn)
			closes := bytes.Contains(answer, []byte("\r\nConnection: close\r\n"))
			if err != nil || bytes.Count(answer, []byte("HTTP/1.1 ")) != 1 || !closes {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
}

// Where a body ends may be understood differently by something in front, so that nothing is read
// behind one.
func TestNothingIsReadBehindABody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	const behind = "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n"
	for _, method := range []string{"POST", "OPTIONS", "GET", "DELETE"} {
		for name, framing := range map[string]string{
			"Content-Length":                       "Content-Length: 2\r\n\r\nhi",
			"Transfer-Encoding":                    "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
			"Content-Length and Transfer-Encoding": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"Transfer-Encoding and Content-Length": "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				conn, err := net.Dial("tcp", e.http)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				io.WriteString(conn, method+" /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n"+framing+behind)
				answer, _ := io.ReadAll(conn) // what was not read may reset the connection
				if n := bytes.Count(answer, []byte("HTTP/1.1 ")); n != 1 {
					t.Errorf("%d replies: %q", n, answer)
				}
			})
		}
	}
}

// failing is a listener whose first Accepts fail as they do when no descriptor is left.
type failing struct {
	net.Listener
	mu    sync.Mutex
	times int
}

func (l *failing) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.times > 0 {
		l.times--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAcceptErrorsAreLogged(t *testing.T) {
	t.Parallel()
	var log logtest.Buffer
	e := newEdge(t, func(c *Config) {
		c.Logger, c.HTTP = slog.New(slog.NewTextHandler(&log, nil)), &failing{Listener: c.HTTP, times: 3}
	})
	e.apply(acme(newOrigin(t, oneFile)))
	if response, _ := e.get("shared.test", "/acme/a.txt"); response == nil || response.StatusCode != 200 {
		t.Error("no answer after descriptors were free again")
	}
	if n := e.metric("edgewalk_edge_accept_errors_total"); n != 3 {
		t.Errorf("%v counted, want 3", n)
	}
	text := log.String()
	if strings.Count(text, "too many open files") != 1 || !strings.Contains(text, "connection cannot be accepted") {
		t.Errorf("log: %s", text)
	}
}

func TestPanicIsLogged(t *testing.T) {
	t.Parallel()
	var log logtest.Buffer
	e := newEdge(t, func(c *Config) {
		c.Logger, c.LoopID = slog.New(slog.NewTextHandler(&log, nil)), func() string { panic("out of order") }
	})
	e.apply(acme(newOrigin(t, oneFile)))
	for range 3 {
		if response, _ := e.get("shared.test", "/acme/a.txt", "CDN-Loop: x"); response != nil {
			t.Errorf("got %d", response.StatusCode)
		}
	}
	e.await("each is counted", func() bool { return e.metric("edgewalk_edge_panics_total") == 3 })
	text := log.String()
	if strings.Count(text, "out of order") != 1 || !strings.Contains(text, "path=/a.txt") ||
		!strings.Contains(text, "loops") {
		t.Errorf("log: %s", text)
	}
	if response, _ := e.get("shared.test", "/acme/a.txt"); response == nil || response.StatusCode != 200 {
		t.Error("no answer after a panic")
	}
	e.await("none is counted any more", func() bool { return e.metric("edgewalk_edge_requests_in_flight") == 0 })
}
