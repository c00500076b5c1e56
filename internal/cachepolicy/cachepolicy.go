// Package cachepolicy has what an endpoint says about caching, with its defaults filled in: one
// type from where the topology is compiled to where a reply is judged. What the rules make of it is
// rfc9111's business.
package cachepolicy

import "time"

// Mode says whose word counts for freshness.
type Mode uint8

const (
	// Respect takes the origin's explicit freshness; where a 200 or 203 without Set-Cookie gives
	// none, DefaultTTL.
	Respect Mode = iota
	// Override takes DefaultTTL whatever the origin says, no-store and private included.
	Override
	// Minimum takes at least DefaultTTL, but obeys no-store and private.
	Minimum
)

// Policy is what an endpoint says about caching. The zero Policy respects the origin and caches
// nothing else; [Default] is that of an endpoint that says nothing.
type Policy struct {
	Mode Mode
	// DefaultTTL is the lifetime edgewalk gives; 0 gives none.
	DefaultTTL time.Duration
	// BrowserTTL is the max-age clients see where edgewalk set the lifetime; [Unset] is
	// min(lifetime, 1 h).
	BrowserTTL time.Duration
	// NegativeTTL is how long "nobody has it" is remembered.
	NegativeTTL time.Duration
	// StaleWhileRevalidate and StaleIfError count where the origin's own directives do not say (RFC
	// 5861).
	StaleWhileRevalidate time.Duration
	StaleIfError         time.Duration
}

// Unset marks a duration of a [Policy] that was not given and whose zero means something else.
const Unset time.Duration = -1

// Default is the policy of an endpoint that says nothing: 1 h, because object stores rarely send
// Cache-Control.
func Default() Policy {
	return Policy{DefaultTTL: time.Hour, BrowserTTL: Unset, NegativeTTL: 30 * time.Second, StaleIfError: 24 * time.Hour}
}
