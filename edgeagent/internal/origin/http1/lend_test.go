package http1

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
)

// What is lent of a body and what is read of it are together what the server has sent, the end
// included, whatever the framing.
func TestLend(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: "
	for _, test := range []struct {
		name, reply string
		most        int
		lent        string
		ok          bool
		end         error // which comes along
		body        string
		kept        bool
	}{
		{"whole", head + "4\r\n\r\nJPEG", 9, "JPEG", true, io.EOF, "JPEG", true},
		{"whole, and no more may be lent", head + "4\r\n\r\nJPEG", 4, "JPEG", true, io.EOF, "JPEG", true},
		{"less than has come", head + "4\r\n\r\nJPEG", 3, "JPE", true, nil, "JPEG", true},
		{"surplus", head + "4\r\n\r\nJPEGHTTP", 9, "JPEG", true, io.EOF, "JPEG", false},
		{"cut", head + "9\r\n\r\nJPEG", 9, "JPEG", true, nil, "JPEG", false},
		{"cut at once", head + "9\r\n\r\n", 9, "", true, io.ErrUnexpectedEOF, "", false},
		{"last", head + "4\r\nConnection: close\r\n\r\nJPEG", 9, "JPEG", true, io.EOF, "JPEG", false},
		{"empty", head + "0\r\n\r\n", 9, "", false, nil, "", true},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nJPEG\r\n0\r\n\r\n", 9, "", false, nil,
			"JPEG", true},
		{"to the end", "HTTP/1.1 200 OK\r\n\r\nJPEG", 9, "", false, nil, "JPEG", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := faultorigin.New(t)
			o.On("/a", func(x *faultorigin.Exchange) {
				if x.Send(test.reply); !test.kept {
					x.Hangup()
				}
			})
			c := newTestClient(t)
			resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), call(o))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			piece, ok, err := Lend(resp.Body, test.most)
			if string(piece) != test.lent || ok != test.ok || err != test.end {
				t.Errorf("lent %q, %t, %v", piece, ok, err)
			}
			body := string(piece)
			if err == io.EOF {
				Return(resp.Body)
				Return(resp.Body)
			}
			rest, err := io.ReadAll(resp.Body)
			if body += string(rest); body != test.body ||
				errors.Is(err, io.ErrUnexpectedEOF) != strings.HasPrefix(test.name, "cut") {
				t.Errorf("read %q, %v", body, err)
			}
			if kept := c.count == 1; kept != test.kept {
				t.Errorf("%d connections kept", c.count)
			}
		})
	}
}

// What is lent stays as it is while the connection carries other requests.
func TestLentBytesStay(t *testing.T) {
	t.Parallel()
	o := faultorigin.New(t)
	o.On("/a", faultorigin.Reply(200, "JPEG"))
	o.On("/b", faultorigin.Reply(200, "html"))
	c := newTestClient(t)
	resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), call(o))
	if err != nil {
		t.Fatal(err)
	}
	piece, _, _ := Lend(resp.Body, 9)
	for range 10 {
		if _, body, err := fetch(t, c, o, "GET", "/b"); body != "html" || err != nil {
			t.Fatalf("read %q, %v", body, err)
		}
	}
	if string(piece) != "JPEG" || o.Connections() != 1 {
		t.Errorf("it is %q after others over %d connections", piece, o.Connections())
	}
	Return(resp.Body)
	resp.Body.Close()
}
