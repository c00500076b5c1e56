package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"

	"github.com/mholt/acmez/v3/acme"
)

// directory is an authority's directory (RFC 8555 7.1.1). It is read once, before the ACME library
// asks for it, which is then answered from here: the library holds a lock of all authorities while
// it waits, and one that does not answer would stop the others.
type directory struct {
	url  string
	next http.RoundTripper

	mu   sync.Mutex
	text []byte // empty before it is known
	read acme.Directory
}

// maxDirectory bounds a directory, in bytes.
const maxDirectory = 64 << 10

// RoundTrip implements http.RoundTripper.
func (d *directory) RoundTrip(req *http.Request) (*http.Response, error) {
	text, _ := d.known()
	if len(text) == 0 || req.Method != http.MethodGet || req.URL.String() != d.url {
		return d.next.RoundTrip(req)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text)),
		ContentLength: int64(len(text)), Request: req,
	}, nil
}

func (d *directory) known() ([]byte, acme.Directory) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.text, d.read
}

// directory returns the authority's directory.
func (c *client) directory(ctx context.Context) (acme.Directory, error) {
	if text, read := c.dir.known(); len(text) > 0 {
		return read, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Directory, http.NoBody)
	if err != nil {
		return acme.Directory{}, err
	}
	req.Header.Set("User-Agent", c.acme.UserAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return acme.Directory{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDirectory))
	var read acme.Directory
	switch {
	case err != nil:
		return read, fmt.Errorf("read %s: %w", c.Directory, err)
	case resp.StatusCode != http.StatusOK:
		return read, fmt.Errorf("read %s: HTTP status %d", c.Directory, resp.StatusCode)
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return read, fmt.Errorf("read %s: it is no directory: %w", c.Directory, err)
	}
	if read.NewNonce == "" || read.NewAccount == "" || read.NewOrder == "" {
		return read, fmt.Errorf("read %s: it lacks newNonce, newAccount or newOrder (RFC 8555 7.1.1)", c.Directory)
	}
	c.dir.mu.Lock()
	c.dir.text, c.dir.read = text, read
	c.dir.mu.Unlock()
	return read, nil
}
