package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Walk is the sequence that a request to an endpoint goes through: [MediaStep], then the ids of its
// origins.
func Walk(e *topologyv1.UrlEndpoint) []string {
	return append([]string{topology.MediaStep}, e.GetOrigins()...)
}

// URLs are the URL prefixes that an endpoint of an account answers on, each with a trailing "/":
// the shared host, `host[:port]`, first, then those of domains that are ACTIVE and lead to it,
// sorted.
//
// They begin with https://, which a public host needs today, unless no edge is reached over it
// (plain), or there can hardly be a certificate: a shared host with a port or named localhost gets
// http://. Domains below .localhost get http:// and the shared host's port, because they are for
// trying things on one machine.
func URLs(sharedHost, account, endpoint string, domains []*topologyv1.CustomDomain, plain bool) []string {
	folder := endpoint + "/"
	if endpoint == topology.DefaultEndpointID {
		folder = ""
	}
	var urls []string
	host, port, err := topology.ParseSharedHost(sharedHost)
	if err == nil {
		urls = append(urls, sharedBase(host, port, plain)+account+"/"+folder)
	}
	shared := len(urls)
	for _, d := range domains {
		switch {
		case d.GetState() != topologyv1.CustomDomain_ACTIVE:
		case d.GetMode() == topologyv1.CustomDomain_ACCOUNT:
			urls = append(urls, domainBase(d.GetDomain(), port, plain)+folder)
		case d.GetUrlEndpoint() == endpoint:
			urls = append(urls, domainBase(d.GetDomain(), port, plain))
		}
	}
	slices.Sort(urls[shared:])
	return urls
}

func sharedBase(host, port string, plain bool) string {
	switch {
	case port != "":
		return "http://" + host + ":" + port + "/"
	case plain || topology.IsLocal(host):
		return "http://" + host + "/"
	}
	return "https://" + host + "/"
}

func domainBase(domain, sharedPort string, plain bool) string {
	switch {
	case topology.IsLocal(domain) && sharedPort != "":
		return "http://" + domain + ":" + sharedPort + "/"
	case plain || topology.IsLocal(domain):
		return "http://" + domain + "/"
	}
	return "https://" + domain + "/"
}

// ShadowWarning warns that a media file cannot be reached through the default endpoint, because an
// identifier takes its first folder. It is empty when that is not so.
func ShadowWarning(identifier, mediaPath string) string {
	first, _, _ := strings.Cut(mediaPath, "/")
	if first != identifier || identifier == topology.DefaultEndpointID {
		return ""
	}
	return fmt.Sprintf("media file %q: its first folder equals the identifier of endpoint %q, so URLs of the default endpoint that "+
		"begin with /%s lead to that endpoint; the file answers at %s/%s", mediaPath, identifier, first, identifier, mediaPath)
}
