package origin

import (
	"net/http"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
)

// These are the types of package kind for questions and outcomes, so that callers need only this
// package.
type (
	// Request is [kind.Request].
	Request = kind.Request
	// Ask is [kind.Ask].
	Ask = kind.Ask
	// Conditions is [kind.Conditions].
	Conditions = kind.Conditions
	// Outcome is [kind.Outcome].
	Outcome = kind.Outcome
	// Reason is [kind.Reason].
	Reason = kind.Reason
	// Response is [kind.Response].
	Response = kind.Response
)

// The outcomes and reasons of package kind.
const (
	Inconclusive = kind.Inconclusive
	NotHere      = kind.NotHere
	Found        = kind.Found

	SoftNotFound  = kind.SoftNotFound
	Denied        = kind.Denied
	Unasked       = kind.Unasked
	Remembered    = kind.Remembered
	Misconfigured = kind.Misconfigured
	Busy          = kind.Busy
	Failed        = kind.Failed
	Timeout       = kind.Timeout
	BreakerOpen   = kind.BreakerOpen
	Canceled      = kind.Canceled
)

// Forwarded is [web.Forwarded].
var Forwarded = web.Forwarded

// Answer is the result of asking one origin.
type Answer struct {
	Outcome Outcome
	Reason  Reason
	// Kind is the origin's kind, such as "web"; "media" for the Media Library.
	Kind string
	// Response is set for Found only.
	Response *Response
	// Status is the status of the origin's answer, 0 without one.
	Status int
	// Request describes the request, such as "GET http://host/a.jpg", without any secret; empty if
	// nothing was sent.
	Request string
	// Detail says what happened and Advice what an admin can do about it, for people, without any
	// secret.
	Detail, Advice string
	// RetryAfter is how long the origin asks to be left alone, 0 if it does not say.
	RetryAfter time.Duration
	// ProxyError is the RFC 9209 2.3 error type of an Inconclusive answer, such as
	// "connection_refused".
	ProxyError string
	// Unreached says that no connection to the origin's own host was made.
	Unreached bool
	// Duration is how long it took, until the first byte of the body.
	Duration time.Duration
	// hurried says that the caller's deadline has passed, and not the origin's own timeout.
	hurried bool
	// elsewhere says that the answer is that of another host, to which the origin redirected.
	elsewhere bool
}

// unfinished reports whether a body is still to come.
func (a *Answer) unfinished() bool { return a.Response != nil && a.Response.Body != http.NoBody }
