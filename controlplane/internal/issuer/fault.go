package issuer

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// fault is why an order failed.
type fault struct {
	reason topologyv1.DomainCertificate_Reason
	text   string
	// issuers says that it is the issuer's, so that another one may do better.
	issuers bool
	// everywhere says that it holds for all orders at the issuer.
	everywhere bool
	// validation says that the issuer looked at the name, which it counts.
	validation bool
	// after is how long to wait at least.
	after time.Duration
	// lost says that the issuer does not know the account, and noAccount that it gives none.
	lost, noAccount bool
	// gone says that the issuer does not know the order.
	gone bool
}

func (f fault) Error() string { return f.text }

// busyFor is how long an issuer is left alone that says that it is too much and not for how long,
// and pausedFor how long a name that it has paused is.
const (
	busyFor   = time.Hour
	pausedFor = 24 * time.Hour
)

// faultOf returns whose fault an error of the ACME library is. after is the Retry-After of the
// answer.
func faultOf(err error, after time.Duration) fault {
	problem, validation := problemOf(err)
	if problem == nil {
		text := "it fails: "
		if _, unanswered := errors.AsType[*url.Error](err); unanswered {
			text = "it does not answer: "
		}
		return fault{
			reason: topologyv1.DomainCertificate_ISSUER_DOWN, text: text + clean(err.Error()),
			issuers: true, everywhere: true, after: after,
		}
	}
	f := fault{text: describe(problem), validation: validation, after: after}
	switch strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace) {
	case "rateLimited":
		return limited(f, problem)
	case "accountDoesNotExist":
		f.lost = true
	case "malformed", "unauthorized":
		// What is answered where the account has another key, as after a restore of etcd from
		// before a rollover, has no type of its own.
		f.lost = !validation && aboutSignature.MatchString(problem.Detail)
	}
	if f.lost {
		f.reason, f.issuers = topologyv1.DomainCertificate_ISSUER_DOWN, true
		return f
	}
	if !validation {
		return refused(f, problem)
	}
	switch strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace) {
	case "dns":
		f.reason = topologyv1.DomainCertificate_ISSUER_DNS
	case "connection", "tls":
		f.reason = topologyv1.DomainCertificate_ISSUER_CONNECTION
	case "unauthorized", "incorrectResponse":
		f.reason = topologyv1.DomainCertificate_ISSUER_UNAUTHORIZED
	case "caa":
		f.reason = topologyv1.DomainCertificate_CAA
	case "serverInternal":
		f.reason, f.issuers, f.validation = topologyv1.DomainCertificate_ISSUER_DOWN, true, false
	default:
		f.reason = topologyv1.DomainCertificate_ISSUER_REJECTED
	}
	return f
}

// registrationFault is the fault of an issuer that was asked for an account. One that refuses it,
// as where its external account is gone, will not think better of it soon.
func registrationFault(err error) error {
	problem, _ := problemOf(err)
	if problem == nil || problem.Status >= http.StatusInternalServerError ||
		problem.Type == acme.ProblemTypeRateLimited {
		return err
	}
	return fault{
		reason: topologyv1.DomainCertificate_ISSUER_DOWN, issuers: true, everywhere: true, noAccount: true,
		text: "it gives no account: " + describe(problem),
	}
}

// refused is the fault of an answer to a request, and not to a validation.
func refused(f fault, problem *acme.Problem) fault {
	switch kind := strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace); {
	case problem.Status == http.StatusNotFound:
		f.reason, f.gone = topologyv1.DomainCertificate_ISSUER_DOWN, true
	case kind == "caa":
		f.reason = topologyv1.DomainCertificate_CAA
	case kind == "dns":
		f.reason = topologyv1.DomainCertificate_ISSUER_DNS
	case kind == "rejectedIdentifier", kind == "unsupportedIdentifier", kind == "badCSR", kind == "badPublicKey":
		f.reason = topologyv1.DomainCertificate_ISSUER_REJECTED
	default: // the account, the service, or what this program sends
		f.reason, f.issuers, f.everywhere = topologyv1.DomainCertificate_ISSUER_DOWN, true, true
	}
	return f
}

// limited is the fault of a limit. RFC 8555 6.6 has one type for all of them; only the text
// says which.
func limited(f fault, problem *acme.Problem) fault {
	detail := strings.ToLower(problem.Detail)
	switch {
	case strings.Contains(detail, "unpause"), strings.Contains(detail, "temporarily prevented"):
		// https://letsencrypt.org/docs/rate-limits/#pausing
		f.reason, f.after, f.validation = topologyv1.DomainCertificate_ISSUER_PAUSED, max(f.after, pausedFor), false
		return f
	case strings.Contains(detail, "already issued"), strings.Contains(detail, "failed authorizations"):
		// Limits of one name or registered domain.
		f.reason, f.issuers = topologyv1.DomainCertificate_ISSUER_BUSY, true
	default:
		f.reason, f.issuers, f.everywhere = topologyv1.DomainCertificate_ISSUER_BUSY, true, true
	}
	f.after = cmp.Or(f.after, busyFor)
	return f
}

// problemOf is the problem document in an error, and whether it came of a validation.
func problemOf(err error) (problem *acme.Problem, validation bool) {
	var value acme.Problem
	switch {
	case errors.As(err, &problem) && problem != nil: // an order's own error
		return inner(problem), true
	case errors.As(err, &value):
		return inner(&value), value.Resource != nil
	}
	return nil, false
}

// refusesReplaces reports whether a problem of a new order is what it says that it replaces: that
// has been replaced (RFC 9773 5), or the issuer does not know it, or not as this account's. The
// latter has no type, and issuers differ: Let's Encrypt answers malformed with status 404, or
// unauthorized, and Pebble serverInternal.
func refusesReplaces(p *acme.Problem) bool {
	return p.Type == acme.ProblemTypeAlreadyReplaced || p.Status == http.StatusConflict ||
		p.Status == http.StatusNotFound ||
		p.Type != acme.ProblemTypeRateLimited && aboutReplaced.MatchString(p.Detail)
}

var aboutReplaced = regexp.MustCompile(`(?i)\breplaces?\b|\bbeing replaced\b|\bARI CertID\b|for the given certificate\b`)

var aboutSignature = regexp.MustCompile(`(?i)\bJWS verification\b|\bsignature\b`)

// inner is the first problem of a compound one (RFC 8555 6.7.1).
func inner(p *acme.Problem) *acme.Problem {
	if len(p.Subproblems) > 0 && (p.Type == acme.ProblemTypeCompound || p.Type == acme.ProblemTypeMalformed) {
		one := p.Subproblems[0].Problem
		one.Status = cmp.Or(one.Status, p.Status)
		return &one
	}
	return p
}

func describe(p *acme.Problem) string {
	kind := strings.TrimPrefix(p.Type, acme.ProblemTypeNamespace)
	if p.Detail == "" {
		return clean(fmt.Sprintf("%s (HTTP status %d)", cmp.Or(kind, "an error without a type"), p.Status))
	}
	return clean(p.Detail)
}

// maxText bounds what is kept of what an issuer says.
const maxText = 400

// clean is a text from outside as it may be shown.
func clean(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || !valid(r) }), " ")
	if len(text) > maxText {
		text = text[:maxText] + " ..."
	}
	return text
}

func valid(r rune) bool { return r < 0x80 }

// pauses are the times between failures of a domain.
var pauses = []time.Duration{
	time.Minute, 5 * time.Minute, 20 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// backoff is how long to wait after so many failures in a row, a fifth more or less.
func backoff(failures int) time.Duration {
	pause := pauses[min(max(failures, 1), len(pauses))-1]
	return pause*4/5 + rand.N(pause*2/5)
}
