package walk

import (
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
)

// LibraryUID is the uid by which the Media Library stands as a supplier and a step.
const LibraryUID = "media"

// Supplier names where a reply came from: the origin's uid, and its target when it answered.
type Supplier struct {
	// UID is [LibraryUID] for the Media Library.
	UID    string
	Target uint64
}

// Request is what a walk is for. The walk remembers answers as of its Revision. They mean nothing
// in another Epoch, where the same uids may be other resources.
type Request = origin.Request

// Stored is what a walk needs to know of a stored reply that it may confirm. The zero value stands
// for none. The validators are sent to the supplier only, and only at the target it had.
type Stored struct {
	Supplier           Supplier
	ETag, LastModified string
	// Library is the start of the SHA-256 of a reply that the Media Library supplied.
	Library [8]byte
	// UseOnError ends the walk at the first step that does not answer, because the reply may then
	// be used.
	UseOnError bool
}

// Conditions are what [Walker.From] asks one supplier for.
type Conditions = origin.Conditions

// Kind is how a walk ends.
type Kind uint8

const (
	// Failed: nobody has the file, and some step did not answer. It says nothing about the file.
	Failed Kind = iota
	// NotFound: every step said, definitely, that it has no such file.
	NotFound
	// NotModified: the supplier confirms the stored reply; Response holds the 304's header.
	NotModified
	// Found: Response is the file.
	Found
)

var kinds = [...]string{Failed: "failed", NotFound: "not_found", NotModified: "not_modified", Found: "found"}

func (k Kind) String() string { return kinds[k] }

// Result is what came of a walk.
type Result struct {
	Kind Kind
	// Response is set for Found and NotModified; its body must be closed, and ends with an error if
	// the walk's context ends.
	Response *origin.Response
	// Supplier and Step say who answered, Version what a stored reply of that step depends on; for
	// Found and NotModified.
	Supplier Supplier
	Step     int
	Version  uint64
	// Library is the start of the file's SHA-256, if the Media Library supplied it.
	Library [8]byte
	// Left is set for NotFound: for how long the answers may still be used, the oldest and the
	// weakest of them included.
	Left time.Duration
	// Forwarded holds the names of the client's fields that origins up to the supplier are sent
	// because they list them, in canonical form, sorted, for Found and NotModified. The Vary of a
	// Response that is Found names those of them that the file may depend on, but for
	// Authorization.
	Forwarded []string
	// EarlierInconclusive says that a step before the supplier did not answer.
	EarlierInconclusive bool
	// Steps holds, in order, what each step did that the walk reached.
	Steps []StepReport
	// Status, RetryAfter and ProxyError are for Failed: 502, 503 or 504; the Retry-After of a 503;
	// the error type of RFC 9209 2.3.
	Status     int
	RetryAfter time.Duration
	ProxyError string
}

// StepReport is what one step of a walk did. It holds no secret.
type StepReport struct {
	// Origin is the origin's id, "media" for the Media Library.
	Origin string
	Kind   string
	// Skipped says that the walk did not reach the step.
	Skipped bool
	Outcome origin.Outcome
	Reason  origin.Reason
	// Status is the status of the origin's answer, 0 without one.
	Status int
	// Unreached says that the edge could not connect to the origin.
	Unreached bool
	Duration  time.Duration
	// Request says what was asked; empty if nothing was sent.
	Request        string
	Detail, Advice string
}
