package rules

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func checkOrigin(c *checker, id string, o *topologyv1.Origin, secrets map[string]string) {
	if err := topology.ValidateOriginID(id); err != nil {
		c.add("id", "%v", err)
	}
	if u := o.GetBaseUrlForCanonicalHeader(); u != "" {
		checkBaseURL(c, "base_url_for_canonical_header", u)
	}
	checkRequestHeaders(c, o, secrets)
	checkKeyText(c, "probe_key", o.GetProbeKey())
	switch kind := o.GetKind().(type) {
	case *topologyv1.Origin_Web:
		checkBaseURL(c, "web.base_url", kind.Web.GetBaseUrl())
		checkSite(c, kind.Web)
		for i, name := range kind.Web.GetForwardRequestHeaders() {
			if why := requestFieldRefused(name); why != "" {
				c.add(fmt.Sprintf("web.forward_request_headers[%d]", i), "%s", why)
			}
		}
	case *topologyv1.Origin_S3:
		checkS3(c, kind.S3, secrets)
	case *topologyv1.Origin_Gcs:
		checkEndpointURL(c, "gcs.endpoint", kind.Gcs.GetEndpoint())
		checkKeyText(c, "gcs.prefix", kind.Gcs.GetPrefix())
	case *topologyv1.Origin_AzureBlob:
		checkEndpointURL(c, "azure_blob.endpoint", kind.AzureBlob.GetEndpoint())
		checkKeyText(c, "azure_blob.prefix", kind.AzureBlob.GetPrefix())
		if secrets[topology.SecretSASToken] != "" && secrets[topology.SecretAccountKey] != "" {
			c.add(topology.SecretSASToken, "give sasToken or accountKey, not both")
		}
	case *topologyv1.Origin_WebProxy:
		checkAllowedHosts(c, kind.WebProxy.GetAllowedHosts())
	case *topologyv1.Origin_Akeneo:
		checkBaseURL(c, "akeneo.base_url", kind.Akeneo.GetBaseUrl())
	default:
		c.add("kind", "set exactly one kind of storage")
	}
}

// checkSite takes what a web server is asked for by and known by.
func checkSite(c *checker, web *topologyv1.WebOrigin) {
	if host := web.GetHostHeader(); host != "" {
		if web.GetForwardHostHeader() {
			c.add("web.host_header", "forwardHostHeader sends the host of the client's URL: drop one of the two")
		}
		if _, port, err := topology.SplitHost(host); err != nil {
			c.add("web.host_header", "%v", err)
		} else if strings.HasSuffix(host, ":") || port != "" && strings.Trim(port, "0") == "" {
			c.add("web.host_header", "the port must be 1 to 65535")
		}
	}
	if name := web.GetTlsServerName(); name != "" {
		if _, err := topology.CanonicalName(name); err != nil {
			c.add("web.tls_server_name", "%v", err)
		}
	}
	switch cas := web.GetCaPem(); {
	case cas == "":
	case web.TlsVerify != nil && !*web.TlsVerify:
		c.add("web.ca_pem", "nothing is checked while tlsVerify is false: drop one of the two")
	default:
		if err := checkCAs(cas); err != nil {
			c.add("web.ca_pem", "%v", err)
		}
	}
}

// checkCAs takes certificates in PEM and nothing else but text between them.
func checkCAs(text string) error {
	rest := []byte(text)
	for n := 1; ; n++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && n == 1:
			return errors.New("it holds no PEM block: want one or more of -----BEGIN CERTIFICATE-----")
		case block == nil && strings.Contains(string(rest), "-----BEGIN"):
			return fmt.Errorf("PEM block %d cannot be read", n)
		case block == nil:
			return nil
		case strings.Contains(block.Type, "PRIVATE KEY"):
			return fmt.Errorf("PEM block %d is a private key, which belongs here no more than anywhere else: give the certificates of CAs", n)
		case block.Type != "CERTIFICATE":
			return fmt.Errorf("PEM block %d is a %s: give the certificates of CAs", n, block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("PEM block %d is no certificate: %v", n, err)
		}
	}
}

func checkS3(c *checker, s3 *topologyv1.S3Origin, secrets map[string]string) {
	checkEndpointURL(c, "s3.endpoint", s3.GetEndpoint())
	checkKeyText(c, "s3.prefix", s3.GetPrefix())
	if !s3.GetUseAmbientCredentials() {
		return
	}
	if s3.GetAccessKeyId() != "" {
		c.add("s3.access_key_id", "useAmbientCredentials takes the credentials of the edge's machine: drop accessKeyId or switch it off")
	}
	if secrets[topology.SecretS3Key] != "" {
		c.add(topology.SecretS3Key, "useAmbientCredentials takes the credentials of the edge's machine: clear secretAccessKey or switch it off")
	}
}

func checkAllowedHosts(c *checker, hosts []string) {
	if len(hosts) == 0 {
		c.add("web_proxy.allowed_hosts", "name at least one host")
	}
	for i, host := range hosts {
		canonical, err := canonicalAllowedHost(host)
		field := fmt.Sprintf("web_proxy.allowed_hosts[%d]", i)
		switch {
		case err != nil:
			c.add(field, "%v", err)
		case canonical != host:
			c.add(field, "write it as %q", canonical)
		}
	}
}

// canonicalAllowedHost takes a host, an address or `*.example.com`, with a scheme and a port if
// they are not https and its default.
func canonicalAllowedHost(raw string) (string, error) {
	scheme, authority, found := strings.Cut(raw, "://")
	if !found {
		scheme, authority = "https", raw
	}
	scheme = strings.ToLower(scheme)
	if scheme != "http" && scheme != "https" {
		return "", fmt.Errorf("the scheme must be http or https")
	}
	base, wildcard := strings.CutPrefix(authority, "*.")
	host, port, err := topology.SplitHost(base)
	switch {
	case strings.ContainsAny(authority, "/?#@"):
		return "", fmt.Errorf("give the host, perhaps with a scheme before and a port behind it, and nothing else")
	case err != nil:
		return "", err
	case strings.HasSuffix(base, ":") || port != "" && strings.Trim(port, "0") == "":
		return "", fmt.Errorf("the port must be 1 to 65535")
	case wildcard && topology.IsAddress(host):
		return "", fmt.Errorf("an address has no wildcard")
	}
	if wildcard {
		host = "*." + host
	}
	return topology.AllowedHost(scheme, host, port), nil
}

// checkKeyText takes what becomes part of an object's key. Software on the way could resolve dot
// segments, and leave the bucket.
func checkKeyText(c *checker, field, text string) {
	if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
		c.add(field, "it must be UTF-8 without NUL")
	}
	for segment := range strings.SplitSeq(strings.ReplaceAll(text, `\`, "/"), "/") {
		if segment == "." || segment == ".." {
			c.add(field, "it must not have a . or .. segment")
			return
		}
	}
}

func checkEndpointURL(c *checker, field, raw string) {
	if raw != "" {
		checkBaseURL(c, field, raw)
	}
}

// checkBaseURL takes a URL that paths are appended to.
func checkBaseURL(c *checker, field, raw string) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		c.add(field, "it is not a URL: %v", unwrapURL(err))
		return
	case u.Scheme != "http" && u.Scheme != "https":
		c.add(field, "it must begin with http:// or https://")
		return
	case u.User != nil:
		c.add(field, "it must not hold a user or password: send them with requestHeaders")
		return
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(raw, "#"):
		c.add(field, "it must not hold a query or fragment")
		return
	}
	if _, port, err := topology.SplitHost(u.Host); err != nil {
		c.add(field, "%v", err)
	} else if strings.HasSuffix(u.Host, ":") || port != "" && strings.Trim(port, "0") == "" {
		c.add(field, "the port must be 1 to 65535")
	}
	path, err := topology.CanonicalPath(u.EscapedPath())
	if err != nil {
		c.add(field, "%v", err)
	} else if strings.TrimSuffix(path, "/") != strings.TrimSuffix(u.EscapedPath(), "/") {
		c.add(field, "write its path as %q", path)
	}
}

// unwrapURL leaves out the URL, which may hold a password.
func unwrapURL(err error) error {
	if parse, ok := err.(*url.Error); ok {
		return parse.Err
	}
	return err
}

func checkRequestHeaders(c *checker, o *topologyv1.Origin, secrets map[string]string) {
	seen := make(map[string]bool)
	for i, h := range o.GetRequestHeaders() {
		field := fmt.Sprintf("request_headers[%d]", i)
		name := strings.ToLower(h.GetName())
		if why := requestFieldRefused(name); why != "" {
			c.add(field+".name", "%s", why)
		}
		if seen[name] {
			c.add(field+".name", "%s is listed twice: merge the two", h.GetName())
		}
		seen[name] = true
		switch secret := h.GetSecretValue() != "" || secrets[topology.HeaderSecret(name)] != ""; {
		case secret && h.GetValue() != "":
			c.add(field+".value", "give value or secretValue, not both")
		case !secret && h.GetValue() == "":
			c.add(field+".value", "give value or secretValue")
		}
	}
}
