package rfc9111

import (
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// Validators are a stored reply's, as its header has them; "" is none.
type Validators struct {
	ETag         string
	LastModified string
	// Date says whether LastModified is strong enough for If-Range.
	Date string
}

// Conditions are the precondition fields of a request, lists joined by commas; "" is absent.
type Conditions struct {
	IfMatch, IfNoneMatch               string
	IfModifiedSince, IfUnmodifiedSince string
	IfRange                            string
}

// Outcome is what the preconditions of a GET or HEAD lead to.
type Outcome uint8

const (
	// Proceed: answer as if there were no preconditions.
	Proceed Outcome = iota
	// NotModified: answer 304.
	NotModified
	// PreconditionFailed: answer 412.
	PreconditionFailed
)

// Evaluate applies RFC 9110 13.2.2 to a reply that would be a 200. If-Modified-Since matches only
// the very date that is stored, because the file behind a URL may change its supplier and then have
// an older date.
func (c Conditions) Evaluate(v Validators, now time.Time) Outcome {
	switch {
	case c.IfMatch != "":
		if !listMatches(c.IfMatch, v.ETag, StrongMatch) {
			return PreconditionFailed
		}
	case c.IfUnmodifiedSince != "": // RFC 9110 13.1.4: of no account where there is no modification date
		since, ok := ParseDate(c.IfUnmodifiedSince, now)
		modified, known := ParseDate(v.LastModified, now)
		if ok && known && modified.After(since) {
			return PreconditionFailed
		}
	}
	switch {
	case c.IfNoneMatch != "":
		if listMatches(c.IfNoneMatch, v.ETag, WeakMatch) {
			return NotModified
		}
	case c.IfModifiedSince != "" && v.LastModified != "":
		if sameDate(c.IfModifiedSince, v.LastModified, now) {
			return NotModified
		}
	}
	return Proceed
}

// RangeApplies reports whether If-Range lets a Range be answered: absent, a strong match, or
// exactly the stored date where that date is strong (RFC 9110 8.8.2.2: at least a second older than
// Date).
func (c Conditions) RangeApplies(v Validators, now time.Time) bool {
	s := c.IfRange
	if s == "" {
		return true
	}
	if strings.HasPrefix(s, `"`) || strings.HasPrefix(s, "W/") {
		return StrongMatch(s, v.ETag)
	}
	if v.LastModified == "" || !sameDate(s, v.LastModified, now) {
		return false
	}
	modified, ok := ParseDate(v.LastModified, now)
	date, dated := ParseDate(v.Date, now)
	return ok && dated && date.Sub(modified) >= time.Second
}

func sameDate(a, b string, now time.Time) bool {
	if a == b {
		_, ok := ParseDate(a, now)
		return ok
	}
	ta, oka := ParseDate(a, now)
	tb, okb := ParseDate(b, now)
	return oka && okb && ta.Equal(tb)
}

// IsStrong reports whether etag is a strong entity tag.
func IsStrong(etag string) bool {
	return len(etag) >= 2 && etag[0] == '"' && strings.IndexByte(etag[1:], '"') == len(etag)-2
}

// StrongMatch compares two entity tags by RFC 9110 8.8.3.2: equal and both strong.
func StrongMatch(a, b string) bool { return a == b && IsStrong(a) }

// WeakMatch compares two entity tags without regard to weakness. A tag whose origin forgot the
// quotes comes back from clients as it is, and matches itself.
func WeakMatch(a, b string) bool {
	a = strings.TrimPrefix(a, "W/")
	return a == strings.TrimPrefix(b, "W/") && a != ""
}

// listMatches reports whether a list of entity tags, or "*", holds etag. "*" stands for any reply
// there is.
func listMatches(list, etag string, match func(a, b string) bool) bool {
	whole := field.Trim(list)
	if whole == "*" {
		return true
	}
	if etag == "" {
		return false
	}
	if match(whole, etag) {
		return true // without quotes, a comma may be part of a tag
	}
	for list != "" {
		var tag string
		if tag, list = nextETag(list); match(tag, etag) {
			return true
		}
	}
	return false
}

// nextETag cuts the first member off a list of entity tags. Commas may stand inside the quotes.
func nextETag(list string) (tag, rest string) {
	list = strings.TrimLeft(list, " \t,")
	start := 0
	if strings.HasPrefix(list, "W/") {
		start = 2
	}
	if strings.HasPrefix(list[start:], `"`) {
		if end := strings.IndexByte(list[start+1:], '"'); end >= 0 {
			end += start + 2
			return list[:end], list[end:]
		}
	}
	tag, rest, _ = strings.Cut(list, ",")
	return field.Trim(tag), rest
}

// Confirms reports whether a 304 with these validators is about the stored reply (RFC 9111 4.3.4).
// One that names another entity tag is not, and the file has to be asked for anew.
func (v Validators) Confirms(stored Validators) bool {
	if v.ETag != "" && stored.ETag != "" {
		return strings.TrimPrefix(v.ETag, "W/") == strings.TrimPrefix(stored.ETag, "W/")
	}
	return v.LastModified == "" || stored.LastModified == "" || v.LastModified == stored.LastModified
}
