// Package walk looks for a file: in the Media Library first, then in the endpoint's origins in
// order. The first that has it wins, and later ones are not asked.
//
// How one origin is asked is origin's business; what is stored of a reply, and what a client is
// sent, is httpcache's.
//
// What always holds is rule zero: a walk ends NotFound only if every step said, definitely, that it
// has no such file. A step that did not answer makes the walk Failed, unless a later one has the
// file. What is remembered of a "no such file" hides a newer file for no longer than the endpoint's
// negative_ttl, and not beyond a purge.
package walk
