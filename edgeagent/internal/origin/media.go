package origin

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// buildMedia asks the Media Library for a file by its hash, at the revision that the edge has applied: a replica that is behind
// then knows that it is.
func buildMedia(c *Client, _ *topology.Origin, a *Ask) (*http.Request, error) {
	base, err := url.Parse(c.mediaURL())
	if err != nil || base.Host == "" {
		return nil, &configError{"the control plane has named no media URL", "start the control plane with --media-advertise-url"}
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + "/media/" + escape(a.Account, unreserved) + "/" + hex.EncodeToString(a.Library[:]) + "/" +
		escape(a.Object, unreservedOrSlash)
	req := newRequest(exactURL(base.Scheme, base.Host, path, ""))
	req.Header.Set("User-Agent", c.userAgent)
	req.Header.Set("Edgewalk-Revision", strconv.FormatInt(a.Revision, 10))
	if c.mediaToken != nil {
		req.Header.Set("Authorization", "Bearer "+c.mediaToken())
	}
	return req, nil
}

// otherFile reports whether a reply that carries a file carries another one than was asked for.
func otherFile(r *reply) bool {
	if r.status != http.StatusOK && r.status != http.StatusPartialContent {
		return false
	}
	return !strings.HasPrefix(r.header.Get("ETag"), `"`+hex.EncodeToString(r.ask.Library[:]))
}

// newRequest returns a GET of u. Unlike http.NewRequest it does not parse the URL again.
func newRequest(u *url.URL) *http.Request {
	return &http.Request{Method: http.MethodGet, URL: u, Header: make(http.Header, 8), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
}
