package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
)

// A Stopper ends its request wherever that is, with its connection, and the request is not sent
// again.
func TestStopperEndsRequests(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n"
	for name, sent := range map[string]string{"head": "", "rest of the head": head, "body": head + "\r\n"} {
		for _, kept := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " over a kept connection"}[kept], func(t *testing.T) {
				t.Parallel()
				o := faultorigin.New(t)
				gone, wants := make(chan struct{}), call(o)
				wants.Stopper = new(Stopper)
				o.On("/warm", faultorigin.Reply(200, "warm"))
				o.On("/a", func(x *faultorigin.Exchange) {
					x.Send(sent)
					wants.Stopper.Stop()
					x.Wait(nil)
					close(gone)
				})
				c := newTestClient(t)
				if kept {
					if _, _, err := fetch(t, c, o, "GET", "/warm"); err != nil {
						t.Fatal(err)
					}
					wants.Dial = func(context.Context) (net.Conn, error) { return nil, errors.New("it dials") }
				}
				resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), wants)
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				if err == nil || errors.Is(err, io.EOF) || err.Error() == "it dials" {
					t.Errorf("ended with %v", err)
				}
				<-gone
				if c.count != 0 || o.Connections() != 1 || o.Count("/a") != 1 {
					t.Errorf("%d connections kept of %d, asked %d times", c.count, o.Connections(), o.Count("/a"))
				}
			})
		}
	}
}

// One that was used before there was a connection ends the request as soon as there is one; one
// that is used after the body has ended leaves the connection to others.
func TestStopperBeforeAndAfter(t *testing.T) {
	t.Parallel()
	o := faultorigin.New(t)
	o.On("/a", faultorigin.Reply(200, "JPEG"))
	c, wants := newTestClient(t), call(o)
	wants.Stopper = new(Stopper)
	dial := wants.Dial
	wants.Dial = func(ctx context.Context) (net.Conn, error) {
		wants.Stopper.Stop()
		return dial(ctx)
	}
	if _, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), wants); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
	wants.Dial, wants.Stopper = dial, new(Stopper)
	for range 2 {
		resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), wants)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "JPEG" || err != nil {
			t.Errorf("read %q, %v", body, err)
		}
		wants.Stopper.Stop()
		wants.Stopper = new(Stopper)
	}
	if n := o.Count("/a"); n != 2 || c.count != 1 || o.Connections() != 2 {
		t.Errorf("asked %d times over %d connections, of which %d are kept", n, o.Connections(), c.count)
	}
}
