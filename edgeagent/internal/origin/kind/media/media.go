// Package media is the kind of storage that the Media Library is.
package media

import (
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// A library knows the URL of the Media Library, and the token that it wants. token may be nil.
type library struct{ url, token func() string }

// New returns the kind. url returns the URL of the Media Library, and token the bearer token that
// it wants; if token is nil, none is sent.
func New(url, token func() string) *kind.Kind {
	l := &library{url, token}
	return &kind.Kind{Name: topology.MediaStep, Keyed: true, Operator: true, Build: l.build, Rows: rows}
}

// build asks the Media Library for a file by its hash, and says which revision the edge has
// applied, so that a replica that is behind knows that it is.
func (l *library) build(e *kind.Edge, _ *topology.Origin, a *kind.Ask) (*http.Request, error) {
	base, err := url.Parse(l.url())
	if err != nil || base.Host == "" {
		return nil, kind.WrongConfig("the control plane has named no media URL",
			"start the control plane with --media-advertise-url")
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + "/media/" + kind.Escape(a.Account.ID, kind.Unreserved) + "/" +
		hex.EncodeToString(
			a.Library[:],
		) + "/" +
		kind.Escape(a.Object, kind.UnreservedOrSlash)
	req := kind.NewRequest(kind.ExactURL(base.Scheme, base.Host, path, ""))
	req.Header.Set("User-Agent", e.UserAgent)
	req.Header.Set("Edgewalk-Revision", strconv.FormatInt(a.Revision, 10))
	if l.token != nil {
		req.Header.Set("Authorization", "Bearer "+l.token())
	}
	return req, nil
}

// otherFile reports whether a reply carries another file than the one that was asked for.
func otherFile(r *kind.Reply) bool {
	if r.Status != http.StatusOK && r.Status != http.StatusPartialContent {
		return false
	}
	return !strings.HasPrefix(r.Header.Get("ETag"), `"`+hex.EncodeToString(r.Ask.Library[:]))
}

// rows say what the answers of the Media Library mean. It is asked only for files that it holds at
// the revision the edge has applied, so a 404 is a fault and not an answer.
var rows = kind.Table([]kind.Row{
	kind.Broken("a file with another hash", otherFile, "http_protocol_error",
		"check that all control planes have the same media bucket"),
}, kind.Usable, []kind.Row{
	kind.Broken("404 for a file in the set", kind.Status(404), "destination_unavailable",
		"check that the media bucket is the one that the control plane wrote to"),
}, kind.Rest)
