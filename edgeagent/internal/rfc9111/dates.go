package rfc9111

import (
	"net/http"
	"time"
)

// ParseDate reads an HTTP date in any of the three forms of RFC 9110 5.6.7. A two-digit year that would lie more than 50
// years after now means the last century.
func ParseDate(s string, now time.Time) (time.Time, bool) {
	if t, err := time.Parse(http.TimeFormat, s); err == nil {
		return t, true
	}
	if t, err := time.Parse("Monday, 02-Jan-06 15:04:05 GMT", s); err == nil {
		century := now.UTC().Year() / 100 * 100
		t = t.AddDate(century+t.Year()%100-t.Year(), 0, 0)
		if t.After(now.AddDate(50, 0, 0)) {
			t = t.AddDate(-100, 0, 0)
		}
		return t, true
	}
	if t, err := time.Parse(time.ANSIC, s); err == nil {
		return t, true
	}
	return time.Time{}, false
}

// AppendDate appends t as an IMF-fixdate.
func AppendDate(dst []byte, t time.Time) []byte { return t.UTC().AppendFormat(dst, http.TimeFormat) }
