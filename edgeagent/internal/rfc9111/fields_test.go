package rfc9111

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/internal/cachepolicy"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestEveryDayAndMonth(t *testing.T) {
	t.Parallel()
	for want := t0.UTC().Truncate(24 * time.Hour); want.Year() < t0.Year()+2; want = want.AddDate(0, 0, 1) {
		for _, form := range []string{http.TimeFormat, time.ANSIC, "Monday, 02-Jan-06 15:04:05 GMT"} {
			s := want.Format(form)
			for _, spelt := range []string{s, strings.ToLower(s), strings.ToUpper(s)} {
				if got, ok := ParseDate(spelt, t0); !ok || !got.Equal(want) {
					t.Fatalf("ParseDate(%q) = %v, %v", spelt, got, ok)
				}
			}
		}
	}
	for _, month := range []string{"anF", "nFe", "ebM", "cJa", "   ", "JaN ", "Ja"} {
		if got, ok := ParseDate("Sun, 06 "+month+" 1994 08:49:37 GMT", t0); ok {
			t.Errorf("%q is taken for a month: %v", month, got)
		}
	}
}

// What a request negotiates is shared, and is the same as what is normalised.
func TestNegotiation(t *testing.T) {
	t.Parallel()
	for range 2 {
		for _, h := range []http.Header{
			{}, {"Accept": {"image/webp,*/*;q=0.1"}}, {"Accept-Encoding": {"gzip", "br;q=0"}},
			{"Accept": {"video/webm, image/avif"}, "Accept-Encoding": {"*"}},
		} {
			want := field.Map{
				"Accept":          {NormaliseAccept(h["Accept"])},
				"Accept-Encoding": {NormaliseAcceptEncoding(h["Accept-Encoding"])},
			}
			got := Negotiation(h.Values)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%v: %v, want %v", h, got, want)
			}
			for name, values := range got {
				if cap(values) != 1 {
					t.Errorf("%v: an append to %s would change that of others", h, name)
				}
			}
		}
	}
}

func TestParseDate(t *testing.T) {
	t.Parallel()
	want := time.Date(1994, 11, 6, 8, 49, 37, 0, time.UTC)
	for _, s := range []string{
		"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
	} {
		if got, ok := ParseDate(s, t0); !ok || !got.Equal(want) {
			t.Errorf("ParseDate(%q) = %v, %v", s, got, ok)
		}
	}
	// RFC 9110 5.6.7: more than 50 years ahead is the past, whatever century Go's own pivot would
	// choose.
	for yy, year := range map[string]int{"75": 2075, "76": 2076, "77": 1977, "26": 2026, "00": 2000} {
		got, ok := ParseDate("Sunday, 01-Jan-"+yy+" 00:00:00 GMT", t0)
		if !ok || got.Year() != year {
			t.Errorf("year %s read as %v, %v; want %d", yy, got, ok, year)
		}
	}
	// RFC 9111 4.2: case does not count. Nor does a wrong day of the week.
	for _, s := range []string{
		"SUN, 06 nov 1994 08:49:37 gmt", "sunday, 06-NOV-94 08:49:37 GMT", "sun nov  6 08:49:37 1994",
		"Mon, 06 Nov 1994 08:49:37 GMT",
	} {
		if got, ok := ParseDate(s, t0); !ok || !got.Equal(want) {
			t.Errorf("ParseDate(%q) = %v, %v", s, got, ok)
		}
	}
	for _, s := range notDates {
		if got, ok := ParseDate(s, t0); ok {
			t.Errorf("ParseDate(%q) = %v", s, got)
		}
	}
}

// notDates are like dates, but of no form of RFC 9110 5.6.7, or of no day there is.
var notDates = []string{
	"", "0", "-1", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 6 Nov 1994 08:49:37 GMT", "1994-11-06T08:49:37Z",
	"Sun, 06 Nov 1994 08:49:37 +0200", "Sun Nov 1 0:00:00,1 0000", "Thu, 18  Aug  2050 02:01:18 GMT",
	"Thu, 18 Aug 2050 2:01:18 GMT", "Thu, 18 Aug 2050 02:01:18  GMT", "Thu 18 Aug 2050 02:01:18 GMT",
	"Thu, 18 Aug 50 02:01:18 GMT", "Thu, 18-Aug-2050 02:01:18 GMT", "Thu, 18 Aug 2050 02.01.18 GMT",
	"Thursday, 18 Aug 2050 02:01:18 GMT", "Thu, 18-Aug-50 02:01:18 GMT", "Thu, 18 Aug 2050 02:01:18.5 GMT",
	"Thu, 18 Aug 2050 02:01:18 GMT ", " Thu, 18 Aug 2050 02:01:18 GMT", "Xyz, 18 Aug 2050 02:01:18 GMT",
	"Thu, 18 Agu 2050 02:01:18 GMT", "Thu Aug 8 02:01:18 2050", "Thu Aug  18 02:01:18 2050",
	"Thu Aug 18 02:01:18 2050 GMT", "Thu, 31 Jun 2050 02:01:18 GMT", "Thu, 00 Aug 2050 02:01:18 GMT",
	"Thu, 18 Aug 2050 24:01:18 GMT", "Thu, 18 Aug 2050 02:60:18 GMT", "Thu, 18 Aug 2050 02:01:61 GMT",
	"Thu, 29 Feb 2050 02:01:18 GMT",
}

// isDate is the grammar of RFC 9110 5.6.7, with the days that months have.
func isDate(s string) bool {
	var day, month, year string
	for _, form := range dateForms {
		if m := form.FindStringSubmatch(s); m != nil {
			day, month, year = m[form.SubexpIndex("d")], m[form.SubexpIndex("m")], m[form.SubexpIndex("y")]
			break
		}
	}
	if len(year) == 2 { // of the century of t0, as all dates but 29 February may be of any
		year = "20" + year
	}
	if len(day) == 2 && day[0] == ' ' {
		day = "0" + day[1:]
	}
	_, err := time.Parse("02 Jan 2006", day+" "+month+" "+year)
	return year != "" && err == nil && strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 }) < 0
}

var dateForms = func() (forms []*regexp.Regexp) {
	const (
		months = "(?P<m>Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
		clock  = "([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
		short  = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
		long   = "(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
	)
	for _, form := range []string{
		short + ", (?P<d>[0-9]{2}) " + months + " (?P<y>[0-9]{4}) " + clock + " GMT",
		long + ", (?P<d>[0-9]{2})-" + months + "-(?P<y>[0-9]{2}) " + clock + " GMT",
		short + " " + months + " (?P<d>[0-9]{2}| [0-9]) " + clock + " (?P<y>[0-9]{4})",
	} {
		forms = append(forms, regexp.MustCompile("(?i)^"+form+"$"))
	}
	return forms
}()

func TestPreconditions(t *testing.T) {
	t.Parallel()
	const (
		monday  = "Mon, 06 Oct 2025 00:00:00 GMT"
		tuesday = "Tue, 07 Oct 2025 00:00:00 GMT"
	)
	stored := Validators{ETag: `"a"`, LastModified: monday, Date: tuesday}
	weak := Validators{ETag: `W/"a"`, LastModified: monday, Date: tuesday}
	tests := []struct {
		c    Conditions
		v    Validators
		want Outcome
	}{
		{Conditions{}, stored, Proceed},
		{Conditions{IfNoneMatch: `"a"`}, stored, NotModified},
		{Conditions{IfNoneMatch: `W/"a"`}, stored, NotModified},
		{Conditions{IfNoneMatch: `"a"`}, weak, NotModified},
		{Conditions{IfNoneMatch: ` "x,y" ,,W/"z","a"`}, stored, NotModified},
		{Conditions{IfNoneMatch: `"x, "a", "`}, stored, Proceed},
		{Conditions{IfNoneMatch: `a`}, stored, Proceed},
		{Conditions{IfNoneMatch: `*`}, Validators{}, NotModified},
		{Conditions{IfNoneMatch: `"b"`, IfModifiedSince: monday}, stored, Proceed},
		{Conditions{IfNoneMatch: `"a"`, IfModifiedSince: tuesday}, stored, NotModified},
		{Conditions{IfModifiedSince: monday}, stored, NotModified},
		{Conditions{IfModifiedSince: "Monday, 06-Oct-25 00:00:00 GMT"}, stored, NotModified},
		// A newer date is another supplier's: the bytes differ.
		{Conditions{IfModifiedSince: tuesday}, stored, Proceed},
		{Conditions{IfModifiedSince: "yesterday"}, stored, Proceed},
		{Conditions{IfModifiedSince: "yesterday"}, Validators{LastModified: "yesterday"}, Proceed},
		{Conditions{IfModifiedSince: monday}, Validators{}, Proceed},
		{Conditions{IfMatch: `"a"`}, stored, Proceed},
		{Conditions{IfMatch: `*`}, stored, Proceed},
		{Conditions{IfMatch: `"a"`}, weak, PreconditionFailed},
		{Conditions{IfMatch: `"b"`}, stored, PreconditionFailed},
		{Conditions{IfMatch: `"b"`, IfNoneMatch: `"a"`}, stored, PreconditionFailed},
		{Conditions{IfUnmodifiedSince: monday}, stored, Proceed},
		{Conditions{IfUnmodifiedSince: "Sun, 05 Oct 2025 00:00:00 GMT"}, stored, PreconditionFailed},
		{Conditions{IfUnmodifiedSince: "nonsense"}, stored, Proceed},
		{Conditions{IfUnmodifiedSince: monday}, Validators{ETag: `"a"`}, Proceed},
		{Conditions{IfUnmodifiedSince: monday}, Validators{LastModified: "nonsense"}, Proceed},
		// Tags whose origin forgot the quotes, as clients send them back.
		{Conditions{IfNoneMatch: `a1`}, Validators{ETag: `a1`}, NotModified},
		{Conditions{IfNoneMatch: `"x", a1 , "y"`}, Validators{ETag: `a1`}, NotModified},
		{Conditions{IfNoneMatch: `a,1`}, Validators{ETag: `a,1`}, NotModified},
		{Conditions{IfNoneMatch: `W/a1`}, Validators{ETag: `a1`}, NotModified},
		{Conditions{IfNoneMatch: `"a1`}, Validators{ETag: `"a1`}, NotModified},
		{Conditions{IfNoneMatch: `"a1"`}, Validators{ETag: `a1`}, Proceed},
		{Conditions{IfNoneMatch: `W/`}, Validators{ETag: `W/`}, Proceed},
		{Conditions{IfMatch: `a1`}, Validators{ETag: `a1`}, PreconditionFailed},
		{Conditions{IfMatch: `"a"`, IfUnmodifiedSince: "Sun, 05 Oct 2025 00:00:00 GMT"}, stored, Proceed},
	}
	for _, tt := range tests {
		if got := tt.c.Evaluate(tt.v, t0); got != tt.want {
			t.Errorf("%+v of %+v = %d, want %d", tt.c, tt.v, got, tt.want)
		}
	}
	ranges := []struct {
		ifRange string
		v       Validators
		want    bool
	}{
		{"", stored, true},
		{`"a"`, stored, true},
		{`W/"a"`, weak, false},
		{`"a"`, weak, false},
		{`"b"`, stored, false},
		{monday, stored, true},
		{tuesday, stored, false},
		{monday, Validators{LastModified: monday, Date: monday}, false},
		{monday, Validators{LastModified: monday}, false},
		{"junk", Validators{LastModified: "junk", Date: tuesday}, false},
		{"a1", Validators{ETag: "a1"}, false},
	}
	for _, tt := range ranges {
		if got := (Conditions{IfRange: tt.ifRange}).RangeApplies(tt.v, t0); got != tt.want {
			t.Errorf("If-Range %q of %+v = %v, want %v", tt.ifRange, tt.v, got, tt.want)
		}
	}
}

func TestConfirms(t *testing.T) {
	t.Parallel()
	stored := Validators{ETag: `"a"`, LastModified: "Mon, 06 Oct 2025 00:00:00 GMT"}
	for _, tt := range []struct {
		v    Validators
		want bool
	}{
		{Validators{}, true},
		{Validators{ETag: `"a"`}, true},
		{Validators{ETag: `W/"a"`}, true},
		{Validators{ETag: `"b"`}, false},
		{Validators{LastModified: stored.LastModified}, true},
		{Validators{LastModified: "Tue, 07 Oct 2025 00:00:00 GMT"}, false},
	} {
		if got := tt.v.Confirms(stored); got != tt.want {
			t.Errorf("%+v confirms %+v: %v", tt.v, stored, got)
		}
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	many := "bytes=0-0" + strings.Repeat(",9-9", 16)
	tests := []struct {
		value string
		size  int64
		want  RangeResult
		parts []ByteRange
	}{
		{"bytes=0-4", 10, RangeSatisfiable, []ByteRange{{0, 5}}},
		{"BYTES=0-", 10, RangeSatisfiable, []ByteRange{{0, 10}}},
		{"bytes=5-", 10, RangeSatisfiable, []ByteRange{{5, 5}}},
		{"bytes=-3", 10, RangeSatisfiable, []ByteRange{{7, 3}}},
		{"bytes=-30", 10, RangeSatisfiable, []ByteRange{{0, 10}}},
		{"bytes=8-99999999999999999999", 10, RangeSatisfiable, []ByteRange{{8, 2}}},
		{"bytes=10-", 10, RangeUnsatisfiable, nil},
		{"bytes=-0", 10, RangeUnsatisfiable, nil},
		{"bytes=0-", 0, RangeUnsatisfiable, nil},
		{"bytes=-1", 0, RangeUnsatisfiable, nil},
		{"bytes=5-4", 10, RangeIgnored, nil},
		{"bytes=", 10, RangeIgnored, nil},
		{"bytes=-", 10, RangeIgnored, nil},
		{"bytes=+1-2", 10, RangeIgnored, nil},
		{"bytes=0-1x", 10, RangeIgnored, nil},
		{"items=0-1", 10, RangeIgnored, nil},
		{"bytes 0-1", 10, RangeIgnored, nil},
		{many, 10, RangeIgnored, nil},
		{"bytes=7-8, 0-1", 10, RangeSatisfiable, []ByteRange{{7, 2}, {0, 2}}},
		{"bytes=0-1, 20-30", 10, RangeSatisfiable, []ByteRange{{0, 2}}},
		{"bytes=0-1,1-3,4-4,8-8", 10, RangeSatisfiable, []ByteRange{{0, 5}, {8, 1}}},
	}
	for _, tt := range tests {
		parts, got := Resolve(ParseRange(tt.value, nil), tt.size, nil)
		if got != tt.want || !slices.Equal(parts, tt.parts) {
			t.Errorf("%q of %d = %v %d, want %v %d", tt.value, tt.size, parts, got, tt.parts, tt.want)
		}
	}
}

func TestContentRange(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"bytes 0-9/100": "{0 10} 100 true", "bytes 5-5/*": "{5 1} -1 true", "bytes */100": "{0 0} 0 false",
		"bytes 5-4/10": "{0 0} 0 false", "bytes 0-10/10": "{0 0} 0 false", "items 0-1/2": "{0 0} 0 false",
		"": "{0 0} 0 false",
	} {
		r, size, ok := ParseContentRange(value)
		if got := fmt.Sprint(r, size, ok); got != want {
			t.Errorf("%q = %s, want %s", value, got, want)
		}
	}
	if got := string(ByteRange{3, 4}.AppendContentRange(nil, 10)); got != "bytes 3-6/10" {
		t.Error(got)
	}
	if got := string(ByteRange{3, 4}.AppendContentRange(nil, -1)); got != "bytes 3-6/*" {
		t.Error(got)
	}
	if got := string(AppendUnsatisfied(nil, 10)); got != "bytes */10" {
		t.Error(got)
	}
}

func TestVary(t *testing.T) {
	t.Parallel()
	names, star := ParseVary([]string{"Accept-Encoding, accept", " ACCEPT ,,"})
	if star || !slices.Equal(names, []string{"accept", "accept-encoding"}) {
		t.Errorf("names %v, star %v", names, star)
	}
	if _, star := ParseVary([]string{"Accept", "X, *"}); !star {
		t.Error("star in a later line was missed")
	}
	for _, line := range []string{"Acc ept", "Accept, a b", `"Accept"`, "Accept;q=1", "Accept:", "\x00"} {
		if _, star := ParseVary([]string{line}); !star {
			t.Errorf("%q is taken for a list of field names", line)
		}
	}
	same := [][2]http.Header{
		{{"Accept": {"image/webp, image/*;q=0.8"}}, {"Accept": {"image/*; q=0.8,IMAGE/WEBP"}}},
		{{"Accept": {"image/webp"}}, {"Accept": {"text/html", "image/webp;q=0.1"}}},
		{{"Accept": {"text/html"}}, {"Accept": {"image/*"}}},
		{{"Accept-Encoding": {"gzip, deflate, br"}}, {"Accept-Encoding": {"br;q=1.0", "GZIP"}}},
		{{"Accept-Encoding": {"deflate"}}, {"Accept-Encoding": {"identity"}}},
		{{"Accept-Language": {"en-GB,de"}}, {"Accept-Language": {"DE, en-gb"}}},
		{{"X-A": {" a "}}, {"X-A": {"a"}}},
		{{"X-A": {"1,2"}}, {"X-A": {" 1 ,\t2 "}}},
		{{"X-A": {"1", "2"}}, {"X-A": {"1, 2"}}},
		{{"X-A": {`"a, \" , b" , 2`}}, {"X-A": {`"a, \" , b",2`}}},
	}
	other := [][2]http.Header{
		{{}, {"Accept": {""}}},
		{{"Accept": {"image/webp"}}, {"Accept": {"image/webp;q=0.0"}}},
		{{"Accept-Encoding": {"gzip"}}, {"Accept-Encoding": {"gzip;q=0.0"}}},
		{{"X-A": {"a"}}, {"X-A": {"A"}}},
		{{"X-A": {"a"}}, {"X-A": {"a", "b"}}},
		{{"X-A": {"1 2"}}, {"X-A": {"1, 2"}}},
		{{"X-A": {`"1,2"`}}, {"X-A": {`"1, 2"`}}},
		{{"Cookie": {"a=1,2"}}, {"Cookie": {"a=1, 2"}}},
		{{"Authorization": {"x 1,2"}}, {"Authorization": {"x 1, 2"}}},
	}
	all := []string{"accept", "accept-encoding", "accept-language", "authorization", "cookie", "x-a"}
	selecting := func(h http.Header) string {
		var out strings.Builder
		for _, name := range all {
			value, present := Selecting(name, h.Values)
			fmt.Fprintf(&out, "%s %v %q\n", name, present, value)
		}
		return out.String()
	}
	for _, pair := range same {
		if a, b := selecting(pair[0]), selecting(pair[1]); a != b {
			t.Errorf("%v and %v select differently: %q, %q", pair[0], pair[1], a, b)
		}
	}
	for _, pair := range other {
		if a, b := selecting(pair[0]), selecting(pair[1]); a == b {
			t.Errorf("%v and %v select the same: %q", pair[0], pair[1], a)
		}
	}
}

// Stored replies must not give away who asked for them.
func TestSelectingHoldsNoCredentials(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"authorization", "cookie"} {
		h := http.Header{}
		h.Set(name, "secret")
		if value, present := Selecting(name, h.Values); !present || len(value) != 64 ||
			strings.Contains(value, "secret") {
			t.Errorf("%s is kept as %q", name, value)
		}
	}
}

func TestNormaliseAcceptEncoding(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "identity", "gzip": "gzip", "gzip, deflate, br, zstd": "br, zstd, gzip", "x-gzip;q=0.5": "gzip",
		"br;q=0, gzip;q=0.000": "identity", "*": "br, zstd, gzip", "*, br;q=0": "zstd, gzip", "*;q=0, gzip": "gzip",
		"gzip; Q=0": "identity", "compress": "identity",
	} {
		if got := NormaliseAcceptEncoding([]string{in}); got != want {
			t.Errorf("%q = %q, want %q", in, got, want)
		}
	}
}

// However a client spells its Accept, an origin sees one of a few short values.
func TestNormaliseAccept(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "*/*", "*/*": "*/*", "text/html": "*/*", "image/png": "*/*", "image/*": "*/*", "video/*;q=0.8": "*/*",
		"image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8": "image/avif,image/webp,*/*",
		"image/webp,image/avif,image/jxl,image/heic,video/*;q=0.8":         "image/avif,image/jxl,image/webp,*/*",
		" IMAGE/WEBP ; q=0.1 ": "image/webp,*/*", "image/webp;q=0": "*/*",
		"image/webp;q=0, image/webp":                              "image/webp,*/*",
		"video/webm, video/mp4;q=0.5":                             "video/mp4,video/webm,*/*",
		strings.Repeat("text/x,", 20000) + "image/webp":           "image/webp,*/*",
		strings.Repeat("image/webp,image/avif;q=0.9,", 1000):      "image/avif,image/webp,*/*",
		"image/webp\x00, image/avif\r\nX: y, image/jxl;;;q;=;q=1": "image/jxl,*/*",
	} {
		if got := NormaliseAccept([]string{in}); got != want {
			t.Errorf("%.80q = %q, want %q", in, got, want)
		}
	}
	if got := NormaliseAccept(nil); got != "*/*" {
		t.Errorf("no Accept = %q", got)
	}
	if got := NormaliseAccept([]string{"image/webp", "image/avif"}); got != "image/avif,image/webp,*/*" {
		t.Errorf("two lines = %q", got)
	}
}

func TestStrip(t *testing.T) {
	t.Parallel()
	h := http.Header{
		"Connection": {"close"}, "Keep-Alive": {"5"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"X"},
		"Set-Cookie": {"a=b"}, "Clear-Site-Data": {"*"}, "Strict-Transport-Security": {"max-age=1"}, "Alt-Svc": {"h3"},
		"Nel": {"{}"}, "Report-To": {"{}"}, "Service-Worker-Allowed": {"/"}, "Server": {"nginx"},
		"Cache-Tag": {"a"}, "Surrogate-Key": {"b"}, "X-Amz-Request-Id": {"1"}, "X-Ms-Version": {"1"},
		"X-Goog-Hash": {"1"}, "X-Secret": {"1"}, "X-Mine": {"2"}, "Access-Control-Allow-Origin": {"*"},
		"Access-Control-Allow-Credentials": {"true"}, "Timing-Allow-Origin": {"*"},
		"Cache-Control": {`no-cache="x-secret", private=X-Mine`}, "Content-Type": {"image/png"}, "Etag": {`"a"`},
	}
	Strip(h)
	want := http.Header{
		"Cache-Control": {`no-cache="x-secret", private=X-Mine`}, "Content-Type": {"image/png"}, "Etag": {`"a"`},
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("kept %v", h)
	}
}

// A 304 brings what is stored up to date, but for what describes the bytes: it has none (RFC 9111
// 3.2).
func TestUpdate(t *testing.T) {
	t.Parallel()
	bytes := []string{"Content-Length", "Content-Encoding", "Content-Type", "Content-Language", "Content-Disposition",
		"Content-Range",
		"Content-Md5", "Content-Digest", "Repr-Digest", "Digest"}
	others := []string{
		"Cache-Control", "Content-Foo", "Content-Location", "Content-Security-Policy", "Etag", "Expires", "Link",
		"X-Frame-Options",
	}
	for _, names := range []struct {
		names []string
		want  string
	}{{bytes, "stored"}, {others, "fresh"}} {
		for _, name := range names.names {
			stored := http.Header{name: {"stored"}, "X-Kept": {"1"}}
			Update(stored, http.Header{name: {"fresh"}})
			if got := stored.Get(name); got != names.want || stored.Get("X-Kept") != "1" {
				t.Errorf("%s is %q", name, got)
			}
		}
	}
}

func TestCodings(t *testing.T) {
	t.Parallel()
	for line, want := range map[string][]string{
		"": nil, "identity": nil, "GZip": {"gzip"}, " gzip , ,br": {"gzip", "br"},
	} {
		if got := Codings(http.Header{"Content-Encoding": {line}}.Values); !slices.Equal(got, want) {
			t.Errorf("%q: %q", line, got)
		}
	}
}

func TestAddVary(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ in, want []string }{
		{nil, []string{"Accept-Encoding"}},
		{[]string{"", "X-A"}, []string{"X-A, Accept-Encoding"}},
		{[]string{"X-A", "X-B"}, []string{"X-A, X-B, Accept-Encoding"}},
		{[]string{"X-A, accept-encoding"}, []string{"X-A, accept-encoding"}},
		{[]string{"*"}, []string{"*"}},
	} {
		h := http.Header{"Vary": tt.in}
		if AddVary(h, "Accept-Encoding"); !slices.Equal(h["Vary"], tt.want) {
			t.Errorf("%q becomes %q", tt.in, h["Vary"])
		}
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	h := http.Header{"Cache-Tag": {"a, b c,,a", "d"}, "Surrogate-Key": {"  e f a "}}
	if got := Tags(h.Values); !slices.Equal(got, []string{"a", "b c", "d", "e", "f"}) {
		t.Errorf("tags %q", got)
	}
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("t%d", i))
	}
	if got := Tags(http.Header{"Cache-Tag": {strings.Join(many, ",")}}.Values); len(got) != 64 {
		t.Errorf("%d tags kept", len(got))
	}
}

func TestCacheStatus(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]CacheStatus{
		"edgewalk; hit; ttl=59":                     {Hit: true, TTL: 58100 * time.Millisecond, HasTTL: true},
		"edgewalk; fwd=uri-miss; stored; collapsed": {Forward: ForwardURIMiss, Stored: true, Collapsed: true},
		"edgewalk; fwd=stale; fwd-status=304; ttl=10": {
			Forward: ForwardStale, ForwardStatus: 304, TTL: 10 * time.Second, HasTTL: true,
		},
		"edgewalk; hit; ttl=-5; detail=stale-if-error": {
			Hit: true, TTL: -5900 * time.Millisecond, HasTTL: true, Detail: "stale-if-error",
		},
		"edgewalk; fwd=bypass; detail=no-store": {Forward: ForwardBypass, Detail: RefusedNoStore.String()},
	} {
		if got := string(c.Append(nil)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestHitPathDoesNotAllocate(t *testing.T) {
	h := http.Header{"Accept-Encoding": {"gzip, deflate, br"}}
	header := Fields(h.Values)
	c := Conditions{IfNoneMatch: `"x", "a"`}
	f := Evaluate(Response{Status: 200, Header: http.Header{}.Values, RequestTime: t0, ResponseTime: t0},
		cachepolicy.Default())
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() {
		value, _ := Selecting("accept-encoding", header)
		buf = append(buf[:0], value...)
		buf = CacheStatus{Hit: true, TTL: f.At(t0, t0).TTL, HasTTL: true}.Append(buf)
		buf = f.AppendCacheControl(buf, cachepolicy.Default())
		if c.Evaluate(Validators{ETag: `"a"`}, t0) != NotModified {
			t.Error("no match")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-4", "bytes=-1", "bytes=1-,0-0", "bytes=9223372036854775807-"} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, value string, size int64) {
		size = max(size, 0)
		parts, result := Resolve(ParseRange(value, nil), size, nil)
		if (result == RangeSatisfiable) != (len(parts) > 0) || len(parts) > maxRanges {
			t.Fatalf("%q: %v %d", value, parts, result)
		}
		var total int64
		for _, p := range parts {
			if p.Start < 0 || p.Length <= 0 || p.Start > size-p.Length {
				t.Fatalf("%q of %d: part %v", value, size, p)
			}
			total += p.Length
		}
		if total > size {
			t.Fatalf("%q of %d sends %d bytes", value, size, total)
		}
		ParseContentRange(value)
	})
}

func FuzzETags(f *testing.F) {
	for _, s := range []string{`"a"`, `W/"a", "b"`, `"x,y"`, `"`, "*", `W/`} {
		f.Add(s, `"a"`)
	}
	f.Fuzz(func(t *testing.T, list, etag string) {
		strong, weak := listMatches(list, etag, StrongMatch), listMatches(list, etag, WeakMatch)
		if strong && !weak {
			t.Fatalf("%q matches %q strongly only", list, etag)
		}
		if IsStrong(etag) && !listMatches(list+`,"z",`+etag, etag, StrongMatch) && strings.Count(list, `"`)%2 == 0 {
			t.Fatalf("%q is not found behind %q", etag, list)
		}
	})
}

// Folding a selecting field changes spaces beside commas and nothing else, and folds no further the
// second time.
func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"1, 2", `"a, b" ,c`, `"\", `, "\t,\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Normalise("x-a", []string{s})
		bare := strings.NewReplacer(" ", "", "\t", "")
		if again := Normalise("x-a", []string{got}); again != got {
			t.Fatalf("%q: %q, then %q", s, got, again)
		}
		if bare.Replace(got) != bare.Replace(s) || strings.Contains(got, ", ") && strings.Count(s, `"`) == 0 {
			t.Fatalf("%q: %q", s, got)
		}
	})
}

func FuzzDate(f *testing.F) {
	for _, s := range append(
		notDates, "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
		"Tue, 30 Jun 2015 23:59:60 GMT",
	) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		date, ok := ParseDate(s, t0)
		if ok != isDate(s) {
			t.Fatalf("%q: %v, by the grammar %v", s, ok, !ok)
		}
		if !ok || date.Year() > 9999 {
			return
		}
		if again, ok := ParseDate(string(AppendDate(nil, date)), t0); !ok || !again.Equal(date) {
			t.Fatalf("%q: %v, then %v", s, date, again)
		}
	})
}
