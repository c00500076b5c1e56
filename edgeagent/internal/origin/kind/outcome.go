package kind

import (
	"io"
	"net/http"
	"time"
)

// Outcome is what one origin's answer says about one file.
type Outcome uint8

const (
	// Inconclusive: the origin did not answer the question. It is the zero value, so that what was
	// never decided is never taken for an answer.
	Inconclusive Outcome = iota
	// NotHere: the origin says, definitely, that it has no such file.
	NotHere
	// Found: the origin has the file, or confirms that a stored reply is still it.
	Found
)

var outcomes = [...]string{Inconclusive: "inconclusive", NotHere: "not_here", Found: "found"}

func (o Outcome) String() string { return outcomes[o] }

// Reason refines an outcome. There are few, because it is the label of a metric.
type Reason string

const (
	// SoftNotFound: a page where a file was asked for, which means "no such file".
	SoftNotFound Reason = "soft-404"
	// Denied: an object store that answers 403 for every missing key.
	Denied Reason = "denied"
	// Unasked: the path cannot be a key of the storage, or the Media Library has no such file, so
	// nothing was sent.
	Unasked Reason = "unasked"
	// Remembered: the origin said so a moment ago, so nothing was sent.
	Remembered Reason = "remembered"
	// Misconfigured: something an admin must correct; it says nothing about the origin's health.
	Misconfigured Reason = "config"
	// Busy: the origin asks the edge to wait.
	Busy Reason = "busy"
	// Failed: the origin, or the way to it, is broken.
	Failed Reason = "failed"
	// Timeout: one of the origin's timeouts, or the walk's deadline, has passed.
	Timeout Reason = "timeout"
	// BreakerOpen: the origin failed so often that it is not asked for a while.
	BreakerOpen Reason = "breaker-open"
	// Canceled: the caller gave up; it says nothing about the origin.
	Canceled Reason = "canceled"
)

// Response is a reply that is passed on: of status 200 or 203; 206 or 416 to a Range of the edge's;
// or 304 to a condition of the edge's.
type Response struct {
	Status int
	Header http.Header
	// Body is never nil and must be closed. Its first byte has arrived, unless it is empty. A read
	// error other than io.EOF says that the body is not whole. The body of a 304 or 416 is empty.
	Body io.ReadCloser
	// Length is the length of Body in bytes, -1 if unknown.
	Length int64
	// Framed is false if only the closed connection marks the end of Body, so that a cut cannot be
	// distinguished from the end.
	Framed bool
	// RequestTime is when the request was begun, ResponseTime when its head had arrived (RFC 9111
	// 4.2.3).
	RequestTime, ResponseTime time.Time
}
