package httpcache

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/internal/transcript"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// TestScripts plays testdata/*.txt, each against an edge of its own with the origins a and b (and
// c, where a script names it), asked in this order.
//
//	endpoint {"cache": {"defaultTtl": "60s"}}   the endpoint's settings but for its origins
//	origin a GET /x 200 BODY name: value | ...  what a says of a path; BODY is one word
//	origin a down | up                          refuse every request | answer again
//	origin a forwards X-A                       send this client field to it
//	origin a moves                              it looks in another folder from now on
//	origin a bucket                             it is a bucket b of S3 from now on
//	origins b a                                 the walk's order
//	GET /x name: value | ...                    one request (or HEAD); what follows is about it
//	code == 200 / body == TEXT / outcome == hit / supplier == a
//	header NAME == VALUE / header NAME has TEXT / no header NAME
//	asked a == 1                                how often since the last such line (or > N)
//	saw a NAME == VALUE                         a field of the last request it got
//	clock +11s
//	purge [hard] url /x | tag T | everything
//	missed                                      purges may have been missed from here on
//	upload /x TEXT | delete /x                  in the Media Library
//	image /x TEXT                               a default image; without TEXT its file is gone
func TestScripts(t *testing.T) {
	t.Parallel()
	transcript.Each(t, "testdata/*.txt", func(t *testing.T, text string) string {
		t.Parallel()
		s := &script{rig: newRig(t), t: t}
		s.addOrigin("a")
		s.addOrigin("b")
		for i, line := range strings.Split(text, "\n") {
			s.where = "line " + itoa(i+1)
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				s.line(line)
			}
		}
		return text
	})
}

type script struct {
	*rig
	t     *testing.T
	where string
	last  *Reply
	body  string
}

func (s *script) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("%s: "+format, append([]any{s.where}, args...)...)
}

func (s *script) line(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "GET", "HEAD":
		url, fields, _ := strings.Cut(rest, " ")
		s.last = s.serve(verb, url, s.fields(fields))
		var err error
		if s.body, err = read(s.last); err != nil {
			s.fatalf("read body: %v", err)
		}
		s.idle()
	case "clock":
		s.clock.add(s.duration(rest))
	case "endpoint":
		s.setEndpoint(rest)
	case "origins":
		s.endpoint.Origins = strings.Fields(rest)
		s.apply()
	case "origin":
		id, rest, _ := strings.Cut(rest, " ")
		s.originLine(id, rest)
	case "purge":
		s.purgeLine(strings.Fields(rest))
	case "missed":
		s.purges.AssumeMissed(patience)
	case "upload":
		path, text, _ := strings.Cut(rest, " ")
		s.upload(path, []byte(text))
	case "delete":
		s.upload(rest, nil)
	case "image":
		path, text, _ := strings.Cut(rest, " ")
		s.images[path] = text
	default:
		s.check(line)
	}
}

func (s *script) fields(text string) http.Header {
	h := http.Header{}
	for field := range strings.SplitSeq(text, " | ") {
		if name, value, ok := strings.Cut(field, ": "); ok {
			h.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		}
	}
	return h
}

func (s *script) duration(text string) time.Duration {
	d, err := time.ParseDuration(strings.TrimPrefix(text, "+"))
	if err != nil {
		s.fatalf("%v", err)
	}
	return d
}

func (s *script) setEndpoint(text string) {
	spec := &topologyv1.UrlEndpoint{}
	if err := protojson.Unmarshal([]byte(text), spec); err != nil {
		s.fatalf("%v", err)
	}
	spec.Origins = s.endpoint.Origins
	if spec.Cache == nil {
		spec.Cache = &topologyv1.CachePolicy{}
	}
	s.endpoint = spec
	s.apply()
}

func (s *script) originLine(id, rest string) {
	o := s.origins[id]
	if o == nil {
		o = s.addOrigin(id)
	}
	words := strings.SplitN(rest, " ", 5)
	web := s.state.Origins[id].Message.GetWeb()
	switch words[0] {
	case "down", "up":
		o.mu.Lock()
		o.down = words[0] == "down"
		o.mu.Unlock()
	case "forwards":
		s.setOrigin(
			id,
			&topologyv1.WebOrigin{
				BaseUrl: web.GetBaseUrl(), ForwardRequestHeaders: append(web.GetForwardRequestHeaders(), words[1:]...),
			},
		)
		s.apply()
	case "moves":
		s.setOrigin(id, &topologyv1.WebOrigin{BaseUrl: web.GetBaseUrl() + "/moved"})
		s.apply()
	case "bucket":
		stored := s.state.Origins[id]
		stored.Message = &topologyv1.Origin{Timeouts: patient(), Kind: &topologyv1.Origin_S3{
			S3: &topologyv1.S3Origin{Endpoint: o.url, Bucket: "b", ForcePathStyle: true},
		}}
		s.state.Origins[id] = stored
		s.apply()
	case "GET":
		status, err := strconv.Atoi(words[2])
		if err != nil {
			s.fatalf("%v", err)
		}
		reply := &originReply{status: status, header: http.Header{}}
		if len(words) > 3 {
			reply.body = []byte(words[3])
		}
		if len(words) > 4 {
			reply.header = s.fields(words[4])
		}
		o.reply(words[1], reply)
	default:
		s.fatalf("unknown origin line %q", rest)
	}
}

func (s *script) purgeLine(words []string) {
	var p purges.Purge
	if p.Hard = words[0] == "hard"; p.Hard {
		words = words[1:]
	}
	switch words[0] {
	case "url":
		p.URLs = []purges.URLScope{{Endpoint: s.account.Default().UID, Path: words[1], AnyQuery: true}}
	case "tag":
		p.Tag = words[1]
	case "everything":
		p.Everything = true
	default:
		s.fatalf("unknown purge %q", words)
	}
	s.purge(p)
}

func (s *script) check(line string) {
	negated := strings.HasPrefix(line, "no ")
	words := strings.Fields(strings.TrimPrefix(line, "no "))
	var got string
	var ok bool
	switch words[0] {
	case "code":
		got = itoa(s.last.Status)
	case "body":
		got = s.body
	case "outcome":
		got = s.last.Outcome.String()
	case "supplier":
		got = s.last.Supplier
	case "length":
		got = itoa(int(s.last.Length))
	case "header":
		got, ok = field.Get(s.last.Fields, words[1])
		words = words[1:]
	case "asked":
		got = itoa(s.origins[words[1]].requests())
		words = words[1:]
	case "saw":
		o := s.origins[words[1]]
		o.mu.Lock()
		got = strings.Join(o.last[http.CanonicalHeaderKey(words[2])], ", ")
		o.mu.Unlock()
		words = words[2:]
	default:
		s.fatalf("unknown line %q", line)
	}
	if negated {
		if ok {
			s.fatalf("there is %s: %q", words[0], got)
		}
		return
	}
	_, want, _ := strings.Cut(line+" ", " "+words[1]+" ")
	want = strings.TrimSpace(want)
	holds := false
	switch words[1] {
	case "==":
		holds = got == strings.ReplaceAll(want, `\n`, "\n")
	case "has":
		holds = strings.Contains(got, want)
	case ">":
		n, _ := strconv.Atoi(got)
		least, err := strconv.Atoi(want)
		holds = err == nil && n > least
	}
	if !holds {
		s.fatalf("%s is %q: %s", words[0], got, line)
	}
}
