package kind

import (
	"net/http"
	"slices"

	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Reply is the head of an origin's answer, with what its table looks at.
type Reply struct {
	Origin *topology.Origin // nil for the Media Library
	Ask    *Ask
	Status int
	Header http.Header
	Length int64 // of the body, -1 if unknown
	// Code is the error code that an object store's body or header names; "" for other kinds and
	// where there is none.
	Code string
}

// Row is one line of the table of outcomes: what an origin says, and what that means.
type Row struct {
	Says    string
	When    func(*Reply) bool
	Outcome Outcome
	Reason  Reason
	// Proxy is the RFC 9209 error type of an Inconclusive row.
	Proxy  string
	Advice string
	// Deniable marks an answer that means NotHere if the storage says it of every missing key.
	Deniable bool
	// Vague marks a 404 that means NotHere if the bucket is there.
	Vague bool
}

// Wrong is the row of what an admin has to correct.
func Wrong(says string, when func(*Reply) bool, advice string) Row {
	return Row{Says: says, When: when, Reason: Misconfigured, Proxy: "proxy_configuration_error", Advice: advice}
}

// DeniedKey is a [Wrong] that may mean that the key is missing.
func DeniedKey(says string, when func(*Reply) bool, advice string) Row {
	r := Wrong(says, when, advice)
	r.Deniable = true
	return r
}

// Patience is the row of an answer that asks the edge to wait.
func Patience(says string, when func(*Reply) bool) Row {
	return Row{Says: says, When: when, Reason: Busy, Proxy: "destination_unavailable", Advice: AdviceBusy}
}

// Broken is the row of an origin that has failed.
func Broken(says string, when func(*Reply) bool, proxy, advice string) Row {
	return Row{Says: says, When: when, Reason: Failed, Proxy: proxy, Advice: advice}
}

// Judge returns the first row that knows the reply. The last row of each table knows every reply.
func Judge(rows []Row, r *Reply) *Row {
	for i := range rows {
		if rows[i].When(r) {
			return &rows[i]
		}
	}
	panic("kind: a table of outcomes without an end")
}

// Table puts the parts of a table together.
func Table(parts ...[]Row) []Row { return slices.Concat(parts...) }

// Usable are the answers that carry the file, or confirm it.
var Usable = []Row{
	{Says: "200, 203", When: Status(200, 203), Outcome: Found},
	{Says: "206 to our Range", When: partAsked, Outcome: Found},
	{Says: "416 to our Range", When: unsatisfiedAsked, Outcome: Found},
	{Says: "304 to our validator", When: confirmationAsked, Outcome: Found},
}

// Rest are the answers that say nothing about the file, whatever the kind of storage. They end
// every table.
var Rest = []Row{
	Patience("429, 503", Status(429, 503)),
	Broken("unasked 206 or 304", Status(206, 304), "http_protocol_error",
		"correct the origin: it was not asked for a part, or not for that one, nor whether a copy is still good"),
	Wrong("3xx", between(300, 399), "point the origin at where the files are"),
	Wrong("401, 403", Status(401, 403), "check the credentials and what they may read"),
	Wrong("any other 4xx", between(400, 499), AdviceLog),
	Broken("5xx", between(500, 599), "destination_unavailable", AdviceLog),
	Broken("other 2xx, and what is no final status", func(*Reply) bool { return true }, "http_protocol_error",
		"correct the origin: this status does not carry a file"),
}

// Advice that several kinds give.
const (
	AdviceBusy = "raise the origin's limits, or keep its files cached for longer"
	AdviceLog  = "see the origin's log"
	AdviceTLS  = "use https://"
)

// Status returns a condition that is true of replies with one of the statuses.
func Status(of ...int) func(*Reply) bool {
	return func(r *Reply) bool { return slices.Contains(of, r.Status) }
}

// between returns a condition that is true of replies with a status in the range.
func between(low, high int) func(*Reply) bool {
	return func(r *Reply) bool { return low <= r.Status && r.Status <= high }
}

// Coded returns a condition that is true of an object store's error with the status, 0 for any, and
// one of the codes.
func Coded(status int, codes ...string) func(*Reply) bool {
	return func(r *Reply) bool { return (status == 0 || r.Status == status) && slices.Contains(codes, r.Code) }
}

func partAsked(r *Reply) bool {
	return r.Status == http.StatusPartialContent && r.Ask.Range != "" && partFits(r.Ask.Range, r.Header, r.Length)
}

// partFits reports whether a 206 holds a part that begins where the Range asked for it. It may be
// shorter (RFC 9110 15.3.7). Another start would put bytes in the wrong place, and a length other
// than that of Content-Range would leave bytes out.
func partFits(asked string, header http.Header, length int64) bool {
	specs := rfc9111.ParseRange(asked, nil)
	part, size, ok := rfc9111.ParseContentRange(header.Get("Content-Range"))
	if !ok || len(specs) != 1 || length >= 0 && length != part.Length {
		return false
	}
	spec := specs[0]
	if spec.First < 0 {
		return size >= 0 && part.Start == max(0, size-spec.Last)
	}
	return part.Start == spec.First && (spec.Last < 0 || part.Start+part.Length-1 <= spec.Last)
}

func unsatisfiedAsked(r *Reply) bool {
	return r.Status == http.StatusRequestedRangeNotSatisfiable && r.Ask.Range != ""
}

func confirmationAsked(r *Reply) bool {
	return r.Status == http.StatusNotModified && (r.Ask.IfNoneMatch != "" || r.Ask.IfModifiedSince != "")
}

// Redirects reports whether a reply is a redirect.
func Redirects(r *Reply) bool { return 300 <= r.Status && r.Status <= 399 && r.Status != 304 }
