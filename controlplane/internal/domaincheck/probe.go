package domaincheck

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
)

const (
	// ChallengePath is what the paths of challenges begin with (RFC 8555 8.3).
	ChallengePath = "/.well-known/acme-challenge/"
	// ForwardedField is what edges add to the answer of a challenge that was forwarded to them.
	ForwardedField = "Edgewalk-Forwarded"
	// probeTimeout is for the whole of a probe.
	probeTimeout = 2 * time.Second
	// maxProbeBytes is more than an edge answers.
	maxProbeBytes = 1 << 10
	// maxProbeRedirects are the redirects that are followed.
	maxProbeRedirects = 3
)

// Prober asks addresses whether an edge is behind them.
type Prober struct {
	// Thumbprints are what edges put behind the token of a challenge (RFC 8555 8.1): several while
	// they are being told of another one. Without any, nobody is asked.
	Thumbprints func() []string
	// Port is the port that is asked, and TLSPort that to which a redirect to https:// leads.
	// Defaults: 80 and 443.
	Port, TLSPort int
	// Timeout is for one address. Default: 2 s.
	Timeout time.Duration
	// Allow says which addresses may be asked, because anybody chooses those. Default: public ones.
	Allow func(netip.Addr) bool
}

// look asks an address for a challenge that nobody has been given: edges answer any, and only they
// know what comes behind it.
func (p *Prober) look(ctx context.Context, name string, at *Address) {
	allow := resolver.Public
	if p != nil && p.Allow != nil {
		allow = p.Allow
	}
	if !allow(at.Addr) {
		at.Kind, at.Text = AddressForeign, "it is none of the Internet's"
		return
	}
	if p == nil || len(p.Thumbprints()) == 0 {
		at.Kind, at.Text = AddressSilent, "nobody asked it"
		return
	}
	at.Kind, at.Text = p.ask(ctx, strings.Replace(name, "*.", "edgewalk-probe.", 1), at.Addr)
}

func (p *Prober) ask(ctx context.Context, name string, addr netip.Addr) (AddressKind, string) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.Timeout, probeTimeout))
	defer cancel()
	ports := map[string]int{"80": cmp.Or(p.Port, 80), "443": cmp.Or(p.TLSPort, 443)}
	transport := &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		// What the certificate says counts as little as it does for authorities that follow a
		// redirect: there is perhaps none yet.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, _, to string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(to)
			at := net.JoinHostPort(addr.String(), strconv.Itoa(ports[port]))
			return new(net.Dialer).DialContext(ctx, "tcp", at)
		},
	}
	defer transport.CloseIdleConnections()
	token := rand.Text()
	target := &url.URL{Scheme: "http", Host: name, Path: ChallengePath + token}
	for redirects := 0; ; redirects++ {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
		if err != nil {
			return AddressSilent, err.Error()
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			kind, text := notAnswered(err, target.Scheme)
			if redirects > 0 {
				text = "it redirects to " + target.Scheme + "://, and there " + text
			}
			return kind, text
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBytes))
		_ = resp.Body.Close() // It was only read.
		to, err2 := resp.Location()
		thumbprint, answers := strings.CutPrefix(strings.TrimSpace(string(body)), token+".")
		switch {
		case answers && slices.Contains(p.Thumbprints(), thumbprint):
			return behind(resp, redirects)
		case err != nil && resp.StatusCode == http.StatusOK:
			return notAnswered(err, target.Scheme)
		case resp.StatusCode < 300 || resp.StatusCode > 399 || err2 != nil:
			return AddressForeign, answered(resp)
		case redirects == maxProbeRedirects:
			return AddressForeign, "it redirects again and again"
		case !followed(to, name):
			return AddressForeign, fmt.Sprintf("it redirects to %s://%s", printable(to.Scheme), printable(to.Host))
		}
		target = to
	}
}

// behind says of a right answer whether it came straight from an edge.
func behind(resp *http.Response, redirects int) (AddressKind, string) {
	if redirects > 0 || resp.Header.Get(ForwardedField) != "" || resp.Header.Get("Via") != "" ||
		resp.Header.Get("Age") != "" {
		return AddressProxied, "it forwards to an edge"
	}
	return AddressOurs, "an edge answers there"
}

func answered(resp *http.Response) string {
	text := fmt.Sprintf("it answered %d", resp.StatusCode)
	if server := product(resp.Header.Get("Server")); server != "" {
		text += " as " + server
	}
	return text
}

// followed reports whether a redirect leads to the name that was asked for, at a port that
// authorities follow redirects to. CDNs redirect so from plain HTTP to HTTPS, and authorities
// follow (RFC 8555 8.3, https://letsencrypt.org/docs/challenge-types/#http-01-challenge).
func followed(to *url.URL, name string) bool {
	port := map[string]string{"http": "80", "https": "443"}[to.Scheme]
	return port != "" && strings.EqualFold(to.Hostname(), name) && cmp.Or(to.Port(), port) == port
}

// product is the name of a server's software, as far as it can be shown.
func product(server string) string {
	name, _, _ := strings.Cut(server, "/")
	return printable(name)
}

// printable is the beginning of a text from outside, as far as it can be shown in a sentence.
func printable(text string) string {
	if end := strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }); end >= 0 {
		text = text[:end]
	}
	return text[:min(len(text), 80)]
}

// notAnswered separates errors that are evidence from those that are none: who refuses is there.
func notAnswered(err error, scheme string) (AddressKind, string) {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return AddressSilent, "it did not answer in time"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		port := map[string]string{"http": "80", "https": "443"}[scheme]
		return AddressForeign, "nothing listens at its port " + port
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return AddressSilent, "it cannot be reached from here"
	}
	return AddressForeign, "it does not answer with " + strings.ToUpper(scheme)
}
