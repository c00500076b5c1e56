// Package origin asks one origin one question: have you got this file? For each kind of storage it
// builds and signs the request, guards where the connection may lead, bounds how long it may take,
// and classifies the answer. Where credentials have to be exchanged for a token, it keeps that, and
// gets the next behind the requests before the old one ends.
//
// In which order origins are asked, and what follows from their answers together, is walk's
// business; what is kept of a reply is httpcache's.
//
// What always holds: an answer is NotHere only where the table of its kind says that this answer is
// definite, and whatever no row knows is Inconclusive. No connection leads to an address that the
// guard refuses, whatever a name resolves to and wherever a redirect points; only the operator's
// media URL is exempt. Secrets and request_headers never reach another host than the origin's own,
// and appear in no error, log line, metric or report. A body that is not whole ends with an error,
// never with io.EOF, as far as its framing shows it. An origin in trouble holds no more of the edge
// than its caps allow, and is sent no more than its budgets do; what is known of origins is
// bounded.
package origin
