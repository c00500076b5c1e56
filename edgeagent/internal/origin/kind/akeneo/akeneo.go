// Package akeneo is the kind of storage that the media files of an Akeneo PIM are.
package akeneo

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/token"
	"github.com/edgewalk/edgewalk/internal/topology"
	"golang.org/x/oauth2"
)

const (
	api = "/api/rest/v1/"
	// Tokens is the path, below base_url, that tokens come from.
	Tokens = "/api/oauth/v1/token"

	// Advice is what to do when no token is given.
	Advice = "check akeneo.clientId, clientSecret, username and password"
)

// New returns the kind.
func New(tokens *token.Cache) *kind.Kind {
	return &kind.Kind{
		Name: "akeneo", Keyed: true, Build: build, Code: code, Rows: rows, Folder: folders[0].folder,
		Sign: func(ctx context.Context, h *kind.Hop) error { return sign(ctx, tokens, h) },
	}
}

// folders are the collections of media files in the REST API, with the ends of their download URLs.
var folders = [...]struct{ folder, end string }{
	{"media-files/", "/download"}, {"asset-media-files/", ""}, {"reference-entities-media-files/", ""},
}

// build asks for the download of a media file. The path is a folder of the API and the file's code;
// a path elsewhere is not there.
func build(e *kind.Edge, o *topology.Origin, a *kind.Ask) (*http.Request, error) {
	end, ok := endOf(a.Object)
	if !ok {
		return nil, &kind.UnaskedError{Detail: "the path is not below media-files/, asset-media-files/ or reference-entities-media-files/"}
	}
	base, err := baseOf(o)
	if err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + api + kind.Escape(a.Object, kind.UnreservedOrSlash) + end
	req := kind.NewRequest(kind.ExactURL(base.Scheme, base.Host, path, ""))
	kind.SetRequestHeaders(req, o)
	req.Header.Set("User-Agent", e.UserAgent)
	return req, nil
}

func endOf(object string) (end string, ok bool) {
	for _, known := range folders {
		if code, ok := strings.CutPrefix(object, known.folder); ok && code != "" {
			return known.end, true
		}
	}
	return "", false
}

func baseOf(o *topology.Origin) (*url.URL, error) {
	if o.Base == nil {
		return nil, kind.WrongConfig("baseUrl is not a URL", "correct akeneo.baseUrl")
	}
	return o.Base, nil
}

// sign adds a token of the connection.
func sign(ctx context.Context, tokens *token.Cache, h *kind.Hop) error {
	o := h.Origin
	spec, secret, password := o.Spec.GetAkeneo(), o.Secrets[topology.SecretAkeneoClientSecret],
		o.Secrets[topology.SecretAkeneoPassword]
	if spec.GetClientId() == "" || spec.GetUsername() == "" || secret == "" || password == "" {
		return kind.WrongConfig("clientId, clientSecret, username or password is missing", "set all four")
	}
	base, err := baseOf(o)
	if err != nil {
		return err
	}
	config := oauth2.Config{
		ClientID: spec.GetClientId(), ClientSecret: secret,
		Endpoint: oauth2.Endpoint{
			TokenURL:  base.Scheme + "://" + base.Host + strings.TrimSuffix(base.EscapedPath(), "/") + Tokens,
			AuthStyle: oauth2.AuthStyleInHeader,
		},
	}
	return tokens.Bearer(ctx, h,
		token.Source{Headed: true, Advice: Advice,
			Get: func(ctx context.Context, last *oauth2.Token) (*oauth2.Token, error) {
				if last != nil && last.RefreshToken != "" {
					got, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: last.RefreshToken}).Token()
					if !token.Refused(err) {
						return got, err
					}
					// A refresh token is valid for two weeks, and ends with the user's sessions.
					// The password gets another one.
				}
				return config.PasswordCredentialsToken(ctx, spec.GetUsername(), password)
			}})
}

// code names what a 404 of the API is about: the file, or the route.
func code(_ http.Header, body []byte) string {
	var e struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	switch {
	case json.Unmarshal(body, &e) != nil || e.Code != http.StatusNotFound:
		return ""
	case strings.HasPrefix(e.Message, "No route found"):
		return "NoRoute"
	}
	return "NoFile"
}

// rows say what the answers of Akeneo's REST API mean.
var rows = kind.Table(kind.Usable, []kind.Row{
	{Says: "404 for a file", When: kind.Coded(404, "NoFile"), Outcome: kind.NotHere},
	kind.Wrong("404 that does not name a file", kind.Status(404),
		"check that akeneo.baseUrl is a PIM that has this kind of media files"),
	kind.Wrong("401 for a new token", kind.Status(401), Advice),
	kind.Wrong("403", kind.Status(403), "let the connection's role use the web API and read media files"),
}, kind.Rest)
