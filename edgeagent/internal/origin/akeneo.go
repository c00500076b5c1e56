package origin

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	akeneoAPI    = "/api/rest/v1/"
	akeneoTokens = "/api/oauth/v1/token"

	adviceAkeneo = "check akeneo.client_id, client_secret, username and password"
)

// akeneoFolders are the kinds of media files of the REST API, by how their downloads end.
var akeneoFolders = [...]struct{ folder, end string }{
	{"media-files/", "/download"}, {"asset-media-files/", ""}, {"reference-entities-media-files/", ""},
}

// buildAkeneo asks for the download of a media file. The path is a folder of the API and the file's code; a path elsewhere is
// not there.
func buildAkeneo(c *Client, o *topology.Origin, a *Ask) (*http.Request, error) {
	end, ok := akeneoEnd(a.Object)
	if !ok {
		return nil, &unaskedError{"the path is not below media-files/, asset-media-files/ or reference-entities-media-files/", ""}
	}
	base, err := akeneoBase(o)
	if err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(base.EscapedPath(), "/") + akeneoAPI + escape(a.Object, unreservedOrSlash) + end
	req := newRequest(exactURL(base.Scheme, base.Host, path, ""))
	setRequestHeaders(req, o)
	req.Header.Set("User-Agent", c.userAgent)
	return req, nil
}

func akeneoEnd(object string) (end string, ok bool) {
	for _, known := range akeneoFolders {
		if code, ok := strings.CutPrefix(object, known.folder); ok && code != "" {
			return known.end, true
		}
	}
	return "", false
}

func akeneoBase(o *topology.Origin) (*url.URL, error) {
	base, err := url.Parse(o.Spec.GetAkeneo().GetBaseUrl())
	if err != nil || base.Host == "" {
		return nil, &configError{"base_url is not a URL", "correct akeneo.base_url"}
	}
	return base, nil
}

// signAkeneo lets a request in with a token of the connection.
func signAkeneo(ctx context.Context, c *Client, h *hop) error {
	o := h.origin
	spec := o.Spec.GetAkeneo()
	if spec.GetClientId() == "" || spec.GetUsername() == "" || o.Secrets["akeneo.client_secret"] == "" || o.Secrets["akeneo.password"] == "" {
		return &configError{"client_id, client_secret, username or password is missing", "set all four"}
	}
	return c.bearer(ctx, h, func(ctx context.Context, refresh string) (grant, error) {
		if refresh != "" {
			got, err := c.akeneoGrant(ctx, o, map[string]string{"grant_type": "refresh_token", "refresh_token": refresh})
			var refused *tokenError
			if !errors.As(err, &refused) || !refused.denied {
				return got, err
			}
			// It lives for two weeks, and ends with the user's sessions: the password gets another.
		}
		return c.akeneoGrant(ctx, o, map[string]string{
			"grant_type": "password", "username": spec.GetUsername(), "password": o.Secrets["akeneo.password"],
		})
	})
}

func (c *Client) akeneoGrant(ctx context.Context, o *topology.Origin, ask map[string]string) (grant, error) {
	base, err := akeneoBase(o)
	if err != nil {
		return grant{}, err
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return grant{}, err
	}
	req, err := postRequest(base.Scheme+"://"+base.Host+strings.TrimSuffix(base.EscapedPath(), "/")+akeneoTokens, "application/json", string(body))
	if err != nil {
		return grant{}, err
	}
	setRequestHeaders(req, o)
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(o.Spec.GetAkeneo().GetClientId(), o.Secrets["akeneo.client_secret"])
	return c.askToken(ctx, o, req, adviceAkeneo)
}

// akeneoCode names what a 404 of the API is about: the file, or the route.
func akeneoCode(_ http.Header, body []byte) string {
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
