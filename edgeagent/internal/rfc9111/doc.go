// Package rfc9111 holds the rules of a shared HTTP cache as pure functions: freshness and age (RFC
// 9111, 5861, 8246, 9213), Vary, validators and preconditions (RFC 9110 8.8, 13), byte ranges (RFC
// 9110 14), Cache-Status (RFC 9211), and which header fields are kept.
//
// It does no I/O, starts nothing, logs nothing and never asks the time: "now" is always an
// argument. Which reply is stored, and who asks for it, is httpcache's business; whether a purge
// covers it is that of purges.
//
// What always holds: input that cannot be understood makes a reply less reusable, never more, but
// for an Age, which counts for nothing then (RFC 9111 5.1); a duration read from a header lies
// between 0 and [MaxDelta]; no function keeps what it was given.
package rfc9111

// Fields returns the values of the named field, one for each line it came in, in order. Names are
// given in canonical form ("Cache-Control").
type Fields = func(name string) []string
