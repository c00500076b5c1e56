package rfc9111

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/internal/cachepolicy"
	"github.com/edgewalk/edgewalk/internal/transcript"
)

// TestTranscripts replays testdata/*.txt. A transcript sets up an endpoint's policy and a reply,
// then asks; each answer stands behind "->" below its question. The clock starts at 2026-01-01
// 00:00:00 GMT.
//
//	policy mode=minimum default_ttl=1mthe endpoint; what is not named has its default
//	response 200 [library] [authorized] [took=2s] the reply; indented lines are its header
//	  cache-control: max-age=10
//	at +11s                           what may be done with it then, and what a client would see
//	request if-none-match: "a"        how such a GET of a 10-byte file is answered
func TestTranscripts(t *testing.T) {
	t.Parallel()
	transcript.Each(t, "testdata/*.txt", func(t *testing.T, script string) string {
		t.Parallel()
		return replay(t, script)
	})
}

type scene struct {
	policy cachepolicy.Policy
	resp   Response
	header http.Header
}

func replay(t *testing.T, in string) string {
	var out strings.Builder
	s := scene{policy: cachepolicy.Default()}
	scanner := bufio.NewScanner(strings.NewReader(in))
	for scanner.Scan() {
		line := scanner.Text()
		if strings.HasPrefix(line, "-> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		switch verb, rest, _ := strings.Cut(line, " "); {
		case line == "" || line[0] == '#':
		case line[0] == ' ':
			name, value, _ := strings.Cut(field.Trim(line), ": ")
			s.header.Add(name, value)
		case verb == "policy":
			s.policy = parsePolicy(t, rest)
		case verb == "response":
			s.respond(t, strings.Fields(rest))
		case verb == "at":
			fmt.Fprintln(&out, "-> "+s.at(duration(t, rest)))
		case verb == "request":
			fmt.Fprintln(&out, "-> "+s.request(rest))
		default:
			t.Fatalf("unknown line %q", line)
		}
	}
	return out.String()
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(strings.TrimPrefix(s, "+"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func parsePolicy(t *testing.T, s string) cachepolicy.Policy {
	p := cachepolicy.Default()
	for field := range strings.FieldsSeq(s) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "mode":
			p.Mode = map[string]cachepolicy.Mode{
				"respect": cachepolicy.Respect, "override": cachepolicy.Override, "minimum": cachepolicy.Minimum,
			}[value]
		case "default_ttl":
			p.DefaultTTL = duration(t, value)
		case "browser_ttl":
			p.BrowserTTL = duration(t, value)
		case "stale_while_revalidate":
			p.StaleWhileRevalidate = duration(t, value)
		case "stale_if_error":
			p.StaleIfError = duration(t, value)
		default:
			t.Fatalf("unknown policy %q", name)
		}
	}
	return p
}

func (s *scene) respond(t *testing.T, args []string) {
	status, err := strconv.Atoi(args[0])
	if err != nil {
		t.Fatal(err)
	}
	s.header = http.Header{}
	s.resp = Response{Status: status, Header: s.header.Values, RequestTime: t0, ResponseTime: t0}
	for _, arg := range args[1:] {
		if took, ok := strings.CutPrefix(arg, "took="); ok {
			s.resp.ResponseTime = t0.Add(duration(t, took))
			continue
		}
		s.resp.Library = s.resp.Library || arg == "library"
		s.resp.Authorized = s.resp.Authorized || arg == "authorized"
	}
}

func (s *scene) at(after time.Duration) string {
	f := Evaluate(s.resp, s.policy)
	if !f.Storable() {
		return "not stored: " + f.Refusal.String()
	}
	v := f.At(s.resp.ResponseTime, s.resp.ResponseTime.Add(after))
	words := []string{"stale"}
	if v.Fresh {
		words[0] = "fresh"
	}
	words = append(words, fmt.Sprintf("age=%d ttl=%d", v.Age/time.Second, v.TTL/time.Second))
	if !v.Fresh && v.WhileRevalidating {
		words = append(words, "while-revalidating")
	}
	if !v.Fresh && v.OnError {
		words = append(words, "on-error")
	}
	if f.RewritesCacheControl() {
		words = append(words, "client: "+string(f.AppendCacheControl(nil, s.policy)))
	}
	return strings.Join(words, " ")
}

func (s *scene) request(field string) string {
	name, value, _ := strings.Cut(field, ": ")
	rest := ""
	if i := strings.Index(value, " & "); i >= 0 {
		value, rest = value[:i], value[i+3:]
	}
	h := http.Header{}
	h.Set(name, value)
	if rest != "" {
		name, value, _ = strings.Cut(rest, ": ")
		h.Set(name, value)
	}
	c := Conditions{IfMatch: h.Get("If-Match"), IfNoneMatch: h.Get("If-None-Match"),
		IfModifiedSince:   h.Get("If-Modified-Since"),
		IfUnmodifiedSince: h.Get("If-Unmodified-Since"), IfRange: h.Get("If-Range")}
	v := Validators{ETag: s.header.Get("Etag"), LastModified: s.header.Get("Last-Modified"), Date: s.header.Get("Date")}
	switch c.Evaluate(v, t0) {
	case NotModified:
		return "304"
	case PreconditionFailed:
		return "412"
	}
	if h.Get("Range") == "" || !c.RangeApplies(v, t0) {
		return "200"
	}
	const size = 10
	parts, result := Resolve(ParseRange(h.Get("Range"), nil), size, nil)
	switch result {
	case RangeIgnored:
		return "200"
	case RangeUnsatisfiable:
		return "416 " + string(AppendUnsatisfied(nil, size))
	}
	answer := "206"
	for _, p := range parts {
		answer += " " + string(p.AppendContentRange(nil, size))
	}
	return answer
}
