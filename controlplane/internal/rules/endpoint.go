package rules

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func checkEndpoint(c *checker, s *topology.AccountState, id string) {
	e := s.Endpoints[id].Message
	if err := topology.ValidateEndpointID(id); err != nil {
		c.add("id", "%v", err)
	}
	checkWalk(c, s, e.GetOrigins())
	if image := e.GetDefaultImage(); image != nil {
		if _, err := topology.MediaPath(image.GetPath()); err != nil {
			c.add("default_image.path", "%v", err)
		}
	}
	if page := e.GetNotFoundPage(); page != "" {
		if _, err := topology.MediaPath(page); err != nil {
			c.add("not_found_page", "%v", err)
		}
	}
	query := e.GetCache().GetQuery()
	switch {
	case query.GetMode() == topologyv1.QueryPolicy_LIST && len(query.GetNames()) == 0:
		c.add("cache.query.names", "mode LIST needs names; to keep no query set mode to NONE")
	case query.GetMode() == topologyv1.QueryPolicy_MODE_UNSPECIFIED && len(query.GetNames()) > 0:
		c.add("cache.query.mode", "names count only with mode LIST: set it")
	}
	for i, origin := range e.GetCors().GetAllowOrigins() {
		if err := checkCorsOrigin(origin); err != nil {
			c.add(fmt.Sprintf("cors.allow_origins[%d]", i), "%v", err)
		}
	}
	checkResponseHeaders(c, e.GetResponseHeaders())
}

func checkWalk(c *checker, s *topology.AccountState, origins []string) {
	if len(origins) > topology.MaxOrigins {
		c.add("origins", "%d origins, at most %d are allowed", len(origins), topology.MaxOrigins)
	}
	for i, id := range origins {
		field := fmt.Sprintf("origins[%d]", i)
		_, known := s.Origins[id]
		switch {
		case isMediaLibrary(id):
			c.add(field, "the Media Library is always the first step and is not listed: drop it")
		case slices.Contains(origins[:i], id):
			c.add(field, "origin %q is listed twice: keep its first place", id)
		case !known:
			c.add(field, "there is no origin %q: create it or drop it", id)
		}
	}
}

// isMediaLibrary recognises what people write when they try to list the Media Library.
func isMediaLibrary(id string) bool {
	switch strings.ToLower(strings.NewReplacer("-", "", "_", "", " ", "").Replace(id)) {
	case topology.MediaStep, "medialibrary", "mediafiles":
		return true
	}
	return false
}

// checkCorsOrigin takes what browsers send in Origin (RFC 6454 6.2): a lower-case scheme and host,
// and no default port.
func checkCorsOrigin(origin string) error {
	if origin == "*" {
		return nil
	}
	u, err := url.Parse(origin)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("%q is not * or an origin such as https://shop.example.com", origin)
	case u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(origin, "#"):
		return fmt.Errorf("an origin is scheme, host and port alone: write %s://%s", u.Scheme, u.Host)
	case strings.Contains(u.Host, "*"):
		return fmt.Errorf("wildcards in a host are not known: list each origin, or *")
	}
	host, port, err := topology.SplitHost(u.Host)
	if err != nil {
		return err
	}
	if u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		port = ""
	}
	if port != "" {
		port = ":" + port
	}
	if canonical := u.Scheme + "://" + host + port; canonical != origin {
		return fmt.Errorf("browsers spell this origin %q", canonical)
	}
	return nil
}

func checkResponseHeaders(c *checker, h *topologyv1.ResponseHeaders) {
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(h.GetSet())) {
		field := fmt.Sprintf("response_headers.set[%q]", name)
		lower := strings.ToLower(name)
		if why := responseSetRefused(lower); why != "" {
			c.add(field, "%s", why)
		}
		if seen[lower] {
			c.add(field, "%s is set twice: names are compared without case", name)
		}
		seen[lower] = true
	}
	for i, name := range h.GetRemove() {
		if why := responseRemoveRefused(name); why != "" {
			c.add(fmt.Sprintf("response_headers.remove[%d]", i), "%s", why)
		}
	}
}
