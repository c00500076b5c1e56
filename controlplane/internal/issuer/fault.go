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

// fault says why an order failed, and what follows from that.
type fault struct {
	reason topologyv1.DomainCertificate_Reason
	text   string
	// issuers says that the issuer is at fault, so that another one may succeed.
	issuers bool
	// everywhere says that all orders at the issuer would fail. Without it, the name has a part in
	// the fault, so that other names must not wait for it.
	everywhere bool
	// answered says that the issuer has answered so, and that the name may be why all the same.
	answered bool
	// validation says that a validation failed, which issuers count.
	validation bool
	// after is the least time to wait before the next try.
	after time.Duration
	// lost says that the issuer does not know the account. noAccount says that it refuses to make
	// one.
	lost, noAccount bool
	// gone says that the order cannot be used any more.
	gone bool
}

func (f fault) Error() string { return f.text }

// busyFor is how long nothing is sent to an issuer that refuses for its load without saying for how
// long. pausedFor is the same for a name that it has paused.
const (
	busyFor   = time.Hour
	pausedFor = 24 * time.Hour
)

// faultOf classifies an error of the ACME library. after is the Retry-After of the answer.
func faultOf(err error, after time.Duration) fault {
	problem, validation := problemOf(err)
	if problem == nil {
		text := "it fails: "
		_, unanswered := errors.AsType[*url.Error](err)
		if unanswered {
			text = "it does not answer: "
		}
		return fault{
			reason: topologyv1.DomainCertificate_ISSUER_DOWN, text: text + clean(err.Error()),
			issuers: true, everywhere: true, answered: !unanswered, after: after,
		}
	}
	f := fault{text: describe(problem), validation: validation, after: after}
	switch strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace) {
	case "rateLimited":
		return limited(f, problem)
	case "accountDoesNotExist":
		f.lost = true
	case "malformed", "unauthorized":
		// There is no type for "the account has another key", which is so after etcd was restored
		// from before a rollover.
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

// registrationFault classifies an error of a request for an account. A refusal, such as for an
// external account that is gone, lasts.
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

// refused classifies a problem in an answer to a request, rather than of a validation.
func refused(f fault, problem *acme.Problem) fault {
	switch kind := strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace); {
	case problem.Status == http.StatusNotFound:
		f.reason, f.gone = topologyv1.DomainCertificate_ISSUER_DOWN, true
	case kind == "caa":
		f.reason = topologyv1.DomainCertificate_CAA
	case kind == "dns":
		f.reason = topologyv1.DomainCertificate_ISSUER_DNS
	case kind == "malformed":
		// Let's Encrypt has no other type for names that it cannot have, such as those of more than
		// 10 labels.
		f.reason, f.issuers = topologyv1.DomainCertificate_ISSUER_REJECTED, true
	case kind == "rejectedIdentifier", kind == "unsupportedIdentifier", kind == "badCSR", kind == "badPublicKey":
		f.reason = topologyv1.DomainCertificate_ISSUER_REJECTED
	default: // the account, the service, or what this program sends
		f.reason, f.issuers, f.everywhere = topologyv1.DomainCertificate_ISSUER_DOWN, true, true
		f.answered = true
	}
	return f
}

// limited classifies a refusal for a rate limit. RFC 8555 6.6 has one type for all limits, so the
// text decides which one it is.
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
		f.answered = true
	}
	f.after = cmp.Or(f.after, busyFor)
	return f
}

// problemOf returns the problem document in an error, and whether a validation caused it.
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

// refusesReplaces reports whether the "replaces" field caused the problem of a new order: the
// certificate was replaced already (RFC 9773 5), the issuer does not know it, or it is another
// account's. The last two have no type of their own: Let's Encrypt answers malformed with status
// 404, or unauthorized, and Pebble serverInternal.
func refusesReplaces(p *acme.Problem) bool {
	return p.Type == acme.ProblemTypeAlreadyReplaced || p.Status == http.StatusConflict ||
		p.Status == http.StatusNotFound ||
		p.Type != acme.ProblemTypeRateLimited && aboutReplaced.MatchString(p.Detail)
}

var aboutReplaced = regexp.MustCompile(`(?i)\breplaces?\b|\bbeing replaced\b|\bARI CertID\b|for the given certificate\b`)

var aboutSignature = regexp.MustCompile(`(?i)\bJWS verification\b|\bsignature\b`)

// inner returns the first subproblem of a compound problem (RFC 8555 6.7.1).
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

// clean returns a text from outside in a form that may be shown: one line, printable, not too long.
func clean(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f || !valid(r) }), " ")
	if len(text) > maxText {
		text = text[:maxText] + " ..."
	}
	return text
}

func valid(r rune) bool { return r < 0x80 }

// pauses are the waits after the first, second and further failures of a domain.
var pauses = []time.Duration{
	time.Minute, 5 * time.Minute, 20 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
}

// backoff returns how long to wait after a number of failures in a row, with 20 % jitter.
func backoff(failures int) time.Duration {
	pause := pauses[min(max(failures, 1), len(pauses))-1]
	return pause*4/5 + rand.N(pause*2/5)
}
