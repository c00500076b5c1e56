package domaincheck

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
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
)

// Prober asks addresses whether an edge is behind them.
type Prober struct {
	// Thumbprint is what edges put behind the token of a challenge (RFC 8555 8.1).
	Thumbprint func() string
	// Port is the port that is asked. Default: 80.
	Port int
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
	if p == nil || p.Thumbprint() == "" {
		at.Kind, at.Text = AddressSilent, "nobody asked it"
		return
	}
	at.Kind, at.Text = p.ask(ctx, strings.Replace(name, "*.", "edgewalk-probe.", 1), at.Addr)
}

func (p *Prober) ask(ctx context.Context, name string, addr netip.Addr) (AddressKind, string) {
	timeout, port := probeTimeout, 80
	if p.Timeout > 0 {
		timeout = p.Timeout
	}
	if p.Port > 0 {
		port = p.Port
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	token := rand.Text()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+name+ChallengePath+token, http.NoBody)
	if err != nil {
		return AddressSilent, err.Error()
	}
	transport := &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(port)))
		},
	}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return notAnswered(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBytes))
	switch {
	case strings.TrimSpace(string(body)) != token+"."+p.Thumbprint():
	case resp.Header.Get(ForwardedField) != "" || resp.Header.Get("Via") != "" || resp.Header.Get("Age") != "":
		return AddressProxied, "it forwards to an edge"
	default:
		return AddressOurs, "an edge answers there"
	}
	switch {
	case err != nil && resp.StatusCode == http.StatusOK:
		return notAnswered(err)
	}
	text := fmt.Sprintf("it answered %d", resp.StatusCode)
	if server := product(resp.Header.Get("Server")); server != "" {
		text += " as " + server
	}
	return AddressForeign, text
}

// product is the name of a server's software, as far as it can be shown.
func product(server string) string {
	name, _, _ := strings.Cut(server, "/")
	end := strings.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
	if end >= 0 {
		name = name[:end]
	}
	return name[:min(len(name), 40)]
}

// notAnswered separates errors that are evidence from those that are none: who refuses is there.
func notAnswered(err error) (AddressKind, string) {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return AddressSilent, "it did not answer in time"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return AddressForeign, "nothing listens at its port 80"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return AddressSilent, "it cannot be reached from here"
	}
	return AddressForeign, "it does not answer with HTTP"
}
