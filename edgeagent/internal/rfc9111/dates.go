package rfc9111

import (
	"net/http"
	"strings"
	"time"
)

const (
	shortDays   = "MonTueWedThuFriSatSun"
	shortMonths = "JanFebMarAprMayJunJulAugSepOctNovDec"
)

var longDays = [...]string{"Monday, ", "Tuesday, ", "Wednesday, ", "Thursday, ", "Friday, ", "Saturday, ", "Sunday, "}

// ParseDate reads an HTTP date in one of the three forms of RFC 9110 5.6.7 to the letter, but for
// the case of letters, which does not count (RFC 9111 4.2). Whether the day of the week is that of
// the date does not count either. A two-digit year that would lie more than 50 years after now
// means the last century.
func ParseDate(s string, now time.Time) (time.Time, bool) {
	r := dateReader{rest: s, ok: true}
	switch {
	case len(s) == len(http.TimeFormat) && s[3] == ',': // Sun, 06 Nov 1994 08:49:37 GMT
		r.name(shortDays)
		r.text(", ")
		day := r.number(2)
		r.text(" ")
		month := r.name(shortMonths)
		r.text(" ")
		year := r.number(4)
		r.text(" ")
		return r.date(year, month, day, r.clock(), " GMT")
	case len(s) == len(time.ANSIC) && s[3] == ' ': // Sun Nov  6 08:49:37 1994
		r.name(shortDays)
		r.text(" ")
		month := r.name(shortMonths)
		r.text(" ")
		var day int
		if rest, padded := strings.CutPrefix(r.rest, " "); padded {
			r.rest = rest
			day = r.number(1)
		} else {
			day = r.number(2)
		}
		r.text(" ")
		clock := r.clock()
		r.text(" ")
		return r.date(r.number(4), month, day, clock, "")
	}
	for _, name := range longDays { // Sunday, 06-Nov-94 08:49:37 GMT
		if len(s) < len(name) || !strings.EqualFold(s[:len(name)], name) {
			continue
		}
		r.rest = s[len(name):]
		day := r.number(2)
		r.text("-")
		month := r.name(shortMonths)
		r.text("-")
		year := now.UTC().Year()/100*100 + r.number(2)
		r.text(" ")
		t, ok := r.date(year, month, day, r.clock(), " GMT")
		// A copy, so that now does not escape to the heap, with all that it is a part of.
		if copied := time.Unix(now.Unix(), int64(now.Nanosecond())); ok && t.After(copied.AddDate(50, 0, 0)) {
			t = t.AddDate(-100, 0, 0)
		}
		return t, ok
	}
	return time.Time{}, false
}

// dateReader reads a date from left to right. Once something is not as it has to be, ok is false
// for good.
type dateReader struct {
	rest string
	ok   bool
}

func (r *dateReader) take(n int) string {
	if !r.ok || len(r.rest) < n {
		r.ok = false
		return ""
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *dateReader) text(want string) {
	got := r.take(len(want))
	r.ok = (got == want || strings.EqualFold(got, want)) && r.ok
}

// number reads exactly n digits.
func (r *dateReader) number(n int) (value int) {
	for _, c := range []byte(r.take(n)) {
		r.ok = r.ok && isDigit(c)
		value = value*10 + int(c-'0')
	}
	return value
}

// name reads one of a row of names of three letters and returns its place, from 1 on.
func (r *dateReader) name(names string) int {
	got := r.take(3)
	if i := strings.Index(names, got); i%3 == 0 && r.ok { // as nearly all are spelt
		return i/3 + 1
	}
	for i := 0; i < len(names) && r.ok; i += 3 {
		if got[0]|0x20 == names[i]|0x20 && strings.EqualFold(got, names[i:i+3]) {
			return i/3 + 1
		}
	}
	r.ok = false
	return 0
}

// clock reads a time of day.
func (r *dateReader) clock() (clock [3]int) {
	for i := range clock {
		if i > 0 {
			r.text(":")
		}
		clock[i] = r.number(2)
	}
	return clock
}

// date puts the parts together if end is all that remains and there is such a date. A second of 60
// is a leap second.
func (r *dateReader) date(year, month, day int, clock [3]int, end string) (time.Time, bool) {
	r.text(end)
	if !r.ok || r.rest != "" || clock[0] > 23 || clock[1] > 59 || clock[2] > 60 {
		return time.Time{}, false
	}
	midnight := time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
	if midnight.Day() != day {
		return time.Time{}, false
	}
	return midnight.Add(
		time.Duration(clock[0])*time.Hour + time.Duration(clock[1])*time.Minute + time.Duration(clock[2])*time.Second,
	), true
}

// AppendDate appends t as an IMF-fixdate.
func AppendDate(dst []byte, t time.Time) []byte { return t.UTC().AppendFormat(dst, http.TimeFormat) }
