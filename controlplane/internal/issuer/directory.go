package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// directory is an authority's directory (RFC 8555 7.1.1). It is fetched here, and the ACME
// library's own request for it is answered from here. The library holds a lock for all authorities
// while it waits, so that one that does not answer would stop the others.
type directory struct {
	mu      sync.Mutex
	text    []byte // empty before it is known
	read    acme.Directory
	again   time.Time    // when it is read anew
	library *acme.Client // one for each text, because it keeps what it has read
	version int
}

const (
	// directoryFor is how long a directory is kept. directoryAgain is the time until the next try
	// if it could not be fetched again.
	directoryFor   = 24 * time.Hour
	directoryAgain = time.Hour
	// maxDirectory bounds a directory, in bytes.
	maxDirectory = 64 << 10
)

// knownDirectory answers the ACME library's request for the directory. It passes all others on.
type knownDirectory struct {
	text []byte
	url  string
	next http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (k knownDirectory) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet || req.URL.String() != k.url {
		return k.next.RoundTrip(req)
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(k.text)),
		ContentLength: int64(len(k.text)), Request: req,
	}, nil
}

// library returns the ACME library for the present directory, which must have been fetched.
func (c *client) library() *acme.Client {
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	return c.dir.library
}

// directory returns the authority's directory. If it cannot be fetched again, the old one is used.
func (c *client) directory(ctx context.Context) (acme.Directory, error) {
	now := c.now()
	c.dir.mu.Lock()
	read, again := c.dir.read, c.dir.again
	c.dir.mu.Unlock()
	if now.Before(again) {
		return read, nil
	}
	text, read, err := c.readDirectory(ctx)
	c.dir.mu.Lock()
	defer c.dir.mu.Unlock()
	switch {
	case err != nil && c.dir.library == nil:
		return read, err
	case err != nil:
		c.dir.again = now.Add(directoryAgain)
		c.log.WarnContext(ctx, "issuer: read the directory anew", "issuer", c.Name, "error", clean(err.Error()))
		return c.dir.read, nil
	}
	c.dir.again = now.Add(directoryFor)
	if c.dir.library == nil || !bytes.Equal(text, c.dir.text) {
		c.dir.text, c.dir.read = text, read
		c.dir.version++
		// The library keeps directories by URL, for all its clients.
		url := fmt.Sprintf("%s#%d", c.Directory, c.dir.version)
		c.dir.library = &acme.Client{
			Directory: url, UserAgent: c.userAgent, PollInterval: pollEvery, PollTimeout: validationTimeout,
			HTTPClient: &http.Client{Timeout: c.http.Timeout, Transport: knownDirectory{text, url, c.http.Transport}},
		}
	}
	return c.dir.read, nil
}

func (c *client) readDirectory(ctx context.Context) (text []byte, read acme.Directory, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Directory, http.NoBody)
	if err != nil {
		return nil, read, err
	}
	req.Header.Set("User-Agent", c.userAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, read, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, maxDirectory))
	switch {
	case err != nil:
		return nil, read, fmt.Errorf("read %s: %w", c.Directory, err)
	case resp.StatusCode != http.StatusOK:
		return nil, read, fmt.Errorf("read %s: HTTP status %d", c.Directory, resp.StatusCode)
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return nil, read, fmt.Errorf("read %s: it is no directory: %w", c.Directory, err)
	}
	if read.NewNonce == "" || read.NewAccount == "" || read.NewOrder == "" {
		return nil, read, fmt.Errorf("read %s: it lacks newNonce, newAccount or newOrder (RFC 8555 7.1.1)", c.Directory)
	}
	return text, read, nil
}
