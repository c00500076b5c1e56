package rfc9111

import (
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/internal/cachepolicy"
)

// clientMaxAge is the longest max-age that a client is sent for a reply whose lifetime edgewalk set
// and no browser_ttl says otherwise. A purge does not reach browsers, so it bounds how long they
// show what was purged.
const clientMaxAge = time.Hour

// AppendCacheControl appends the Cache-Control that replaces the origin's where
// [Freshness.RewritesCacheControl], with Expires, Pragma and Age dropped. It counts from the moment
// the client gets it, so it does not shrink as the stored reply ages.
func (f Freshness) AppendCacheControl(dst []byte, p cachepolicy.Policy) []byte {
	age := p.BrowserTTL
	if age < 0 {
		age = min(f.Lifetime, clientMaxAge)
	}
	if f.Capped {
		age = min(age, f.Lifetime)
	}
	return AppendPublic(dst, age)
}

// AppendPublic appends "public, max-age=" with d in whole seconds.
func AppendPublic(dst []byte, d time.Duration) []byte {
	dst = append(dst, "public, max-age="...)
	return AppendSeconds(dst, d)
}

// AppendSeconds appends d as delta-seconds, never negative.
func AppendSeconds(dst []byte, d time.Duration) []byte {
	return strconv.AppendInt(dst, Seconds(d), 10)
}

// Seconds returns the whole seconds of a time, as ages are sent.
func Seconds(d time.Duration) int64 { return int64(max(d, 0) / time.Second) }

// CapMaxAge rewrites a Cache-Control so that it grants clients at most limit: for a reply that a
// later origin supplied while an earlier one could not be asked, and which edgewalk may not store.
func CapMaxAge(value string, limit time.Duration) string {
	var b strings.Builder
	found := false
	for rest := value; rest != ""; {
		var name, arg string
		var hasValue, quoted bool
		name, arg, hasValue, quoted, rest = nextDirective(rest)
		switch strings.ToLower(name) {
		case "", "immutable", "stale-while-revalidate", "stale-if-error": // they let a client use it for longer
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name)
		switch {
		case strings.EqualFold(name, "max-age"), strings.EqualFold(name, "s-maxage"):
			found = true
			b.WriteByte('=')
			b.Write(AppendSeconds(nil, min(deltaSeconds(arg), limit)))
		case quoted:
			b.WriteString(`="` + arg + `"`)
		case hasValue:
			b.WriteString("=" + arg)
		}
	}
	if !found {
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString("max-age=")
		b.Write(AppendSeconds(nil, limit))
	}
	return b.String()
}
