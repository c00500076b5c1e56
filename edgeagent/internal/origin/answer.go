package origin

import (
	"net/http"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
)

// What is asked and what comes of it are of package kind. Who asks origins needs this package
// alone.
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

// Answer is what came of asking one origin.
type Answer struct {
	Outcome Outcome
	Reason  Reason
	// Kind is the origin's kind, such as "web"; "media" for the Media Library.
	Kind string
	// Response is set for Found only.
	Response *Response
	// Status is the status of the origin's answer, 0 without one.
	Status int
	// Request says what was asked, such as "GET http://host/a.jpg", without any secret; empty if
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
	// Unreached says that no connection to the origin's own host came about.
	Unreached bool
	// Duration is how long it took, until the first byte of the body.
	Duration time.Duration
	// hurried says that not the origin's own timeout has passed, but the deadline of whoever asks.
	hurried bool
	// elsewhere says that the answer is that of another host, to which the origin redirected.
	elsewhere bool
}

// unfinished reports whether a body is still to come.
func (a *Answer) unfinished() bool { return a.Response != nil && a.Response.Body != http.NoBody }
