// Package origin asks one origin for one file. For each kind of storage it builds and signs the
// request, restricts where the connection may lead, bounds how long it may take, and classifies the
// answer. It obtains and keeps the tokens that some credentials are exchanged for.
//
// In which order origins are asked, and what follows from all their answers, is walk's business;
// what is kept of a reply is httpcache's.
//
// What always holds: an answer is NotHere only where the table of its kind says that it is
// definite; an answer that no row describes is Inconclusive. No connection leads to an address that
// the guard refuses, whatever a name resolves to and wherever a redirect points; only the
// operator's media URL is exempt. Secrets and request_headers are sent to no host but the origin's
// own, and are part of no error, log line, metric or report. The body of a reply that is not whole
// ends with an error and never with io.EOF, as far as its framing shows that. An origin in trouble
// uses no more of the edge than its caps allow, and is sent no more requests than its budgets
// allow; what is remembered of origins is bounded.
package origin
