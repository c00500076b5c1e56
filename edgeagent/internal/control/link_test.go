package control

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/busyclock"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A control plane that goes away in the middle of a state leaves the agent as it was, at whatever
// message that happens. The agent then takes the state from another one, whole.
func TestStateCutAnywhereChangesNothing(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	was := h.clone()
	p, a, d := synced(t, h)
	other := newHistory("e2")
	for i := range 5 {
		other.domain(fmt.Sprint("account-", i), fmt.Sprintf("d%d.test.example", i))
		other.account(fmt.Sprint("account-", i))
	}
	d.close(nil)
	whole := compressed(t, other.full())
	for _, messages := range [][]message{other.full(), whole} {
		for n := range messages {
			d = p.accept()
			a.sees(t, was)
			d.send(other.welcome()).send(messages[:n]...)
			d.close(status.Error(codes.Unavailable, "going away"))
		}
	}
	d = p.accept()
	a.sees(t, was)
	d.send(other.welcome()).send(whole...)
	d.applied(other.revision)
	a.sees(t, other)
}

// link forwards connections to a control plane, or swallows every byte, both ways: to each end the
// connection then looks alive.
type link struct {
	listener net.Listener
	to       string
	gone     chan struct{} // closed: swallow

	mu    sync.Mutex
	conns []net.Conn
	all   sync.WaitGroup
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, to: to, gone: make(chan struct{})}
	l.all.Go(l.accept)
	t.Cleanup(func() {
		listener.Close()
		l.mu.Lock()
		for _, c := range l.conns {
			c.Close()
		}
		l.mu.Unlock()
		l.all.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", l.to)
		if err != nil {
			near.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, near, far)
		l.mu.Unlock()
		l.all.Go(func() { l.copy(near, far) })
		l.all.Go(func() { l.copy(far, near) })
	}
}

func (l *link) copy(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		select {
		case <-l.gone:
			io.Copy(io.Discard, from)
			return
		default:
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}

// A connection over which nothing comes any more, though neither end has closed it, is given up
// within 30 s, and the agent goes to another control plane.
func TestHalfOpenLinkIsGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for keepalives, up to 30 s")
	}
	t.Parallel()
	h := smallHistory()
	silent, answering := newPeer(t), newPeer(t)
	l := newLink(t, silent.address)
	start(t, testConfig(t, t.TempDir(), l.listener.Addr().String(), answering.address))
	var d *dialogue
	select { // the agent begins with either
	case d = <-silent.streams:
	case d = <-answering.streams:
		d.close(status.Error(codes.Unavailable, "not yet"))
		d = silent.accept()
	}
	d.send(h.welcome()).send(h.full()...)
	d.applied(h.revision)

	close(l.gone)
	took := busyclock.Start(t)
	select {
	case d = <-answering.streams:
	case <-time.After(5 * time.Minute):
		t.Fatal("the agent stays with a control plane that says nothing")
	}
	if took := took(); took > keepaliveTime+keepaliveTimeout+5*time.Second {
		t.Errorf("the agent left after %v", took)
	}
	if d.hello.GetHave().GetRevision() != h.revision {
		t.Errorf("the agent resumes from %v, want %d", d.hello.GetHave(), h.revision)
	}
}
