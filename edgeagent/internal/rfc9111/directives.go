package rfc9111

import (
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// MaxDelta is the longest duration a delta-seconds value can mean: 2^31 s, to which RFC 9111 1.2.2
// saturates.
const MaxDelta = (1 << 31) * time.Second

// Delta is an optional delta-seconds value. One that was present but unreadable is 0: RFC 9111
// 4.2.1 encourages caches to treat invalid freshness information as stale.
type Delta struct {
	Duration time.Duration
	Set      bool
}

// least keeps the shorter of two values of one directive. RFC 9111 4.2.1 allows the first
// occurrence or staleness, and the shortest is never fresher than the first.
func (d *Delta) least(v time.Duration) {
	if !d.Set || v < d.Duration {
		d.Duration = v
	}
	d.Set = true
}

// Directives is what a Cache-Control or CDN-Cache-Control field says. Unknown directives are
// ignored.
type Directives struct {
	MaxAge, SMaxAge                    Delta
	StaleWhileRevalidate, StaleIfError Delta

	NoStore, NoCache, Private, Public bool
	MustRevalidate, ProxyRevalidate   bool
	MustUnderstand, Immutable         bool
	OnlyIfCached                      bool

	// NoCacheFields and PrivateFields are the names in the qualified forms no-cache="..." and
	// private="...". Such a field may not be reused without asking, so it is taken out before
	// storing; the rest of the reply is not concerned.
	NoCacheFields, PrivateFields []string
}

// ParseCacheControl reads the lines of a Cache-Control field. It never fails: what is malformed is
// read in the way that allows the least reuse.
func ParseCacheControl(lines []string) Directives {
	var d Directives
	for _, line := range lines {
		for line != "" {
			var name, value string
			var quoted, hasValue bool
			name, value, hasValue, quoted, line = nextDirective(line)
			d.set(name, value, hasValue, quoted)
		}
	}
	return d
}

func (d *Directives) set(name, value string, hasValue, quoted bool) {
	switch strings.ToLower(name) {
	case "max-age":
		d.MaxAge.least(deltaSeconds(value))
	case "s-maxage":
		d.SMaxAge.least(deltaSeconds(value))
	case "stale-while-revalidate":
		d.StaleWhileRevalidate.least(deltaSeconds(value))
	case "stale-if-error":
		d.StaleIfError.least(deltaSeconds(value))
	case "no-cache":
		d.NoCache = !qualified(value, hasValue, quoted, &d.NoCacheFields) || d.NoCache
	case "private":
		d.Private = !qualified(value, hasValue, quoted, &d.PrivateFields) || d.Private
	// Those that take no argument count all the same if they come with one.
	case "no-store":
		d.NoStore = true
	case "public":
		d.Public = true
	case "must-revalidate":
		d.MustRevalidate = true
	case "proxy-revalidate":
		d.ProxyRevalidate = true
	case "must-understand":
		d.MustUnderstand = true
	case "immutable":
		d.Immutable = true
	case "only-if-cached":
		d.OnlyIfCached = true
	}
}

// qualified appends the field names of a qualified directive and reports whether there were any.
// Without them the directive concerns the whole reply.
func qualified(value string, hasValue, quoted bool, names *[]string) bool {
	if !hasValue {
		return false
	}
	if quoted {
		value = strings.ReplaceAll(value, `\`, "")
	}
	found := false
	for part := range strings.SplitSeq(value, ",") {
		part = field.Trim(part)
		if part == "" {
			continue
		}
		if !field.IsToken(part) {
			return false
		}
		*names = append(*names, part)
		found = true
	}
	return found
}

// nextDirective cuts the first directive off s. value is the inside of a quoted string, its escapes
// kept.
func nextDirective(s string) (name, value string, hasValue, quoted bool, rest string) {
	end := 0
	for end < len(s) && s[end] != ',' && s[end] != '=' {
		end++
	}
	switch {
	case end == len(s):
		return field.Trim(s), "", false, false, ""
	case s[end] == ',':
		return field.Trim(s[:end]), "", false, false, s[end+1:]
	}
	name, s = field.TrimLeft(s[:end]), s[end+1:]
	if strings.HasSuffix(name, " ") || strings.HasSuffix(name, "\t") || strings.HasPrefix(s, " ") ||
		strings.HasPrefix(s, "\t") {
		// "max-age = 60" is not in the grammar. The directive still counts, its value does not.
		_, rest, _ = strings.Cut(s, ",")
		return field.Trim(name), "", true, false, rest
	}
	if strings.HasPrefix(s, `"`) {
		if inside, after, ok := cutQuoted(s); ok {
			tail, rest, _ := strings.Cut(after, ",")
			if field.Trim(tail) != "" {
				inside = "" // bytes after the closing quote: the value means nothing
			}
			return name, inside, true, true, rest
		}
		// An unclosed quote must not swallow a no-store behind it.
	}
	value, rest, _ = strings.Cut(s, ",")
	return name, field.Trim(value), true, false, rest
}

// cutQuoted splits a string that starts with a quote after its closing one.
func cutQuoted(s string) (inside, after string, ok bool) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return s[1:i], s[i+1:], true
		}
	}
	return "", "", false
}

// deltaSeconds reads RFC 9111 1.2.2. Anything that is not a run of digits is 0; more than 2^31 is
// [MaxDelta].
func deltaSeconds(s string) time.Duration {
	if s == "" {
		return 0
	}
	var n int64
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0
		}
		if n = n*10 + int64(s[i]-'0'); n > 1<<31 {
			n = 1 << 31
		}
	}
	return time.Duration(n) * time.Second
}
