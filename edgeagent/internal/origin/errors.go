package origin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"syscall"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/token"
)

// These end a request. context.Cause distinguishes them from a caller that gave up.
var (
	errConnectTimeout   = errors.New("connecting took too long")
	errFirstByteTimeout = errors.New("no answer in time")
	errIdleTimeout      = errors.New("the body stalled")
	errWalkDeadline     = errors.New("the walk's deadline has passed")
)

// ends are those of the reasons above for which this package ends a request.
var ends = []error{errConnectTimeout, errFirstByteTimeout, errIdleTimeout, errWalkDeadline}

// These say that an origin has as many requests as its caps allow.
var (
	errPending = errors.New("too many requests wait for this origin")
	errOpen    = errors.New("too many connections to this origin are in use")
)

// errEmptyBody ends a body that stops before its first byte although there should be one.
var errEmptyBody = errors.New("the body ended before its first byte")

// A refusedError says that a host has only addresses that may not be connected to.
type refusedError struct {
	host string
	err  error
}

func (e *refusedError) Error() string { return fmt.Sprintf("host %q: %v", e.host, e.err) }
func (e *refusedError) Unwrap() error { return e.err }

// A tlsError is an error of a TLS handshake.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// A fault is the meaning of an error.
type fault struct {
	reason Reason
	proxy  string // RFC 9209 2.3
	detail string
	advice string
}

// Each fault but a caller that gave up has advice on what to do about it.
const (
	adviceAddress = "use a public address, or have the operator open it to the account " +
		"(limits.privateCidrs) or at the edge (--allow-origin-cidr, --allow-private-origins)"
	adviceNever    = "use a public address: link-local addresses and metadata services are never allowed"
	adviceOwn      = "name the server that has the files: an edge has none of its own"
	adviceConnect  = "check the host, the port and the firewalls on the way, or raise timeouts.connect"
	adviceListen   = "check that a server listens at this host and port"
	adviceSlow     = "have the origin answer sooner, or raise timeouts.firstByte"
	adviceSooner   = "have the origin answer sooner"
	adviceDeadline = "raise the endpoint's walkDeadline, or shorten the timeouts of its origins"
	adviceIdle     = "see why the origin pauses, or raise timeouts.idle"
	adviceCrowd    = "have the origin answer sooner, or keep its files cached for longer"
	adviceDNS      = "check the host's name servers, and those of the edge"
	adviceFraming  = "correct the origin: a reply has one Content-Length, or Transfer-Encoding: chunked, " +
		"and is of HTTP/1.1"
	adviceHTTP = "check that an HTTP server is at this host and port"
)

// faultOf returns the meaning of an error of a request. Its detail never repeats the text of an
// unknown error, because that may contain bytes of the reply.
func faultOf(err error) fault {
	var config *kind.ConfigError
	var refused *refusedError
	var lookup *net.DNSError
	var noToken *token.Error
	switch {
	case errors.As(err, &noToken):
		return tokenFault(noToken)
	case errors.As(err, &config):
		return fault{Misconfigured, "proxy_configuration_error", config.Detail, config.Advice}
	case errors.As(err, &refused):
		var address *guard.AddressError
		advice := adviceAddress
		if errors.As(refused, &address) {
			advice = map[guard.Refusal]string{
				guard.NotPublic: adviceAddress, guard.Never: adviceNever, guard.Own: adviceOwn,
			}[address.Why]
		}
		return fault{Misconfigured, "destination_ip_prohibited", refused.Error(), advice}
	case errors.Is(err, errConnectTimeout):
		return fault{Timeout, "connection_timeout", err.Error(), adviceConnect}
	case errors.Is(err, errPending), errors.Is(err, errOpen):
		return fault{Busy, "connection_limit_reached", err.Error(), adviceCrowd}
	case errors.Is(err, errFirstByteTimeout):
		return fault{Timeout, "http_response_timeout", err.Error(), adviceSlow}
	case errors.Is(err, errWalkDeadline):
		return fault{Timeout, "http_response_timeout", err.Error(), adviceDeadline}
	case errors.Is(err, errIdleTimeout):
		return fault{Timeout, "connection_read_timeout", err.Error(), adviceIdle}
	case errors.Is(err, context.Canceled):
		return fault{Canceled, "proxy_internal_error", "the caller gave up", ""}
	case errors.Is(err, context.DeadlineExceeded):
		return fault{Timeout, "http_response_timeout", "no answer within the time that there was to ask", adviceSooner}
	case errors.As(err, &lookup):
		return lookupFault(lookup)
	}
	if f, ok := tlsFault(err); ok {
		return f
	}
	return connectionFault(err)
}

// tokenFault returns the meaning of an issuer's failure to give a token.
func tokenFault(e *token.Error) fault {
	var f fault
	switch {
	case e.Err != nil:
		f = faultOf(e.Err)
	case e.Status >= 200 && e.Status <= 299:
		f = fault{Failed, "http_protocol_error", "the answer holds no token", "check that this is a token endpoint"}
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable:
		f = fault{Busy, "destination_unavailable", "HTTP " + strconv.Itoa(e.Status), kind.AdviceBusy}
	case e.Status >= 300 && e.Status <= 499:
		f = fault{Misconfigured, "proxy_configuration_error", "HTTP " + strconv.Itoa(e.Status), e.Advice}
	default:
		f = fault{Failed, "destination_unavailable", "HTTP " + strconv.Itoa(e.Status), kind.AdviceLog}
	}
	if e.Code != "" && e.Err == nil {
		f.detail += " " + e.Code
	}
	f.detail = "token endpoint " + e.Endpoint + ": " + f.detail
	return f
}

// hurried reports whether the caller's deadline ended a request, and not a timeout of the origin.
func hurried(err error) bool {
	return errors.Is(err, errWalkDeadline) || errors.Is(err, context.DeadlineExceeded)
}

func lookupFault(err *net.DNSError) fault {
	switch {
	case err.IsTimeout:
		return fault{Timeout, "dns_timeout", fmt.Sprintf("looking up %q took too long", err.Name), adviceDNS}
	case err.IsNotFound:
		return fault{Failed, "dns_error", fmt.Sprintf("host %q is not known", err.Name), "check the host's name"}
	}
	return fault{Failed, "dns_error", fmt.Sprintf("look-up of %q went wrong", err.Name), adviceDNS}
}

func tlsFault(err error) (fault, bool) {
	var handshake *tlsError
	if !errors.As(err, &handshake) {
		return fault{}, false
	}
	var alert tls.AlertError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return fault{Failed, "tls_protocol_error", "the origin does not speak TLS",
			"use http, or the port at which the origin speaks TLS"}, true
	case errors.As(err, &certificate):
		detail, advice := certificateFault(certificate.Err)
		return fault{Failed, "tls_certificate_error", detail, advice}, true
	case errors.As(err, &alert):
		return fault{Failed, "tls_alert_received", "the origin refused the TLS handshake",
			"check that the origin takes TLS 1.2 or newer for this host; a web origin is asked " +
				"for another with tlsServerName"}, true
	}
	return fault{Failed, "tls_protocol_error", "the TLS handshake went wrong",
		"check that the origin speaks TLS at this port"}, true
}

func certificateFault(err error) (detail, advice string) {
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	advice = "renew or correct the origin's certificate"
	switch {
	case errors.As(err, &host):
		return fmt.Sprintf("the certificate is not for %q", host.Host),
			advice + "; a web origin is asked for another name with hostHeader or tlsServerName"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet", advice
	case errors.As(err, &unknown):
		return "the certificate is signed by an unknown authority",
			advice + "; of a web origin, caPem may name the authority"
	}
	return "the certificate is not valid", advice
}

func connectionFault(err error) fault {
	var bad *http1.FramingError
	switch {
	case errors.Is(err, http1.ErrSpeaksTLS):
		return fault{Failed, "http_protocol_error", http1.ErrSpeaksTLS.Error(), kind.AdviceTLS}
	case errors.Is(err, http1.ErrNotHTTP):
		return fault{Failed, "http_protocol_error", http1.ErrNotHTTP.Detail, adviceHTTP}
	case errors.As(err, &bad):
		return fault{Failed, "http_protocol_error", bad.Detail, adviceFraming}
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault{Failed, "connection_refused", "the connection was refused", adviceListen}
	case errors.Is(err, syscall.ETIMEDOUT):
		return fault{Timeout, "connection_timeout", errConnectTimeout.Error(), adviceConnect}
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fault{Failed, "destination_ip_unroutable", "no route to the host", adviceConnect}
	case errors.Is(err, errEmptyBody):
		return fault{Failed, "http_response_incomplete", err.Error(), kind.AdviceLog}
	case errors.Is(err, http1.ErrLargeHead):
		return fault{Failed, "http_response_header_section_size",
			fmt.Sprintf("the head is larger than %d bytes", http1.MaxHead),
			"have the origin send fewer or shorter headers"}
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return fault{Failed, "connection_terminated", "the connection was cut", kind.AdviceLog}
	}
	return fault{Failed, "http_protocol_error", "the reply is not valid HTTP", adviceHTTP}
}
