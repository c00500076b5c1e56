package walk

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A said is what a step may say, by the letter that stands for it in a path.
type said struct {
	outcome origin.Outcome
	reason  origin.Reason
	after   time.Duration
	answer  faultorigin.Answer
}

var sayings = map[byte]said{
	'f': {outcome: origin.Found, answer: faultorigin.Reply(200, "x")},
	'o': {outcome: origin.Found, answer: faultorigin.Chunked(203, []string{"x", "y"})},
	'n': {outcome: origin.NotHere, answer: faultorigin.Reply(404, "no")},
	'g': {outcome: origin.NotHere, answer: faultorigin.Reply(410, "")},
	'p': {
		outcome: origin.NotHere, reason: origin.SoftNotFound,
		answer: faultorigin.Reply(200, "<html>", "Content-Type: text/html"),
	},
	'c': {reason: origin.Misconfigured, answer: faultorigin.Reply(403, "")},
	'b': {reason: origin.Busy, after: 7 * time.Second, answer: faultorigin.Busy(429, "7")},
	'B': {reason: origin.Busy, after: 99 * time.Second, answer: faultorigin.Busy(503, "99")},
	'x': {reason: origin.Failed, answer: faultorigin.Reply(500, "oh")},
	'r': {reason: origin.Failed, answer: faultorigin.Reset()},
	'e': {reason: origin.Failed, answer: faultorigin.Cut("0123456789", 0)},
	'u': {reason: origin.Failed, answer: faultorigin.Part("0123456789", 0, 3)},
	't': {reason: origin.Timeout, answer: faultorigin.Stall(nil, nil)},
}

// originLetters are what an origin may say, libraryLetters what the Media Library may, "-" being a
// file that is not in it.
const originLetters, libraryLetters = "fonpgcbBxreut", "-fnbxc"

// meaning is what step i of a walk says: by "k", that its breaker is open. A file that is in the
// library's set cannot be missing there.
func meaning(letters string, i int) said {
	s := sayings[letters[i]]
	switch {
	case i == 0 && letters[i] == '-':
		s = said{outcome: origin.NotHere, reason: origin.Unasked}
	case i == 0 && letters[i] == 'n':
		s = said{reason: origin.Failed}
	case letters[i] == 'k':
		s = said{reason: origin.BreakerOpen}
	}
	return s
}

// An ending is what comes of a walk.
type ending struct {
	kind    Kind
	step    int
	earlier bool
	status  int
	after   time.Duration
	asked   int
}

// model is rule zero and the endings, as the specification has them.
func model(letters string, stop bool) ending {
	e, busy, late := ending{kind: NotFound}, false, false
	for i := range len(letters) {
		s := meaning(letters, i)
		e.asked++
		if s.outcome == origin.Found {
			return ending{kind: Found, step: i, earlier: e.kind == Failed, asked: e.asked}
		}
		if s.outcome == origin.Inconclusive {
			e.kind, e.after = Failed, max(e.after, s.after)
			busy, late = busy || s.reason == origin.Busy || s.reason == origin.BreakerOpen,
				late || s.reason == origin.Timeout
			if stop {
				break
			}
		}
	}
	switch {
	case busy:
		e.status, e.after = 503, min(e.after, 30*time.Second)
	case late:
		e.status = 504
	case e.kind == Failed:
		e.status = 502
	}
	return e
}

// A million takes minutes of both cores, so it is asked for: go test -run AsTheModel -walks
// 1000000.
var randomWalks = flag.Int("walks", 200_000, "random walks of a long test")

// Whatever the steps say, in whatever order, a walk ends as the model does; and NotFound only if
// each step said so.
func TestWalksEndAsTheModel(t *testing.T) {
	t.Parallel()
	r := newModelRig(t)
	cases := make(chan string)
	go func() {
		defer close(cases)
		for _, library := range libraryLetters {
			cases <- string(library)
			for _, a := range originLetters {
				cases <- string(library) + string(a)
				for _, b := range originLetters {
					cases <- string(library) + string(a) + string(b)
				}
			}
		}
		random, n := rand.New(rand.NewPCG(1, 2)), 1000
		if !testing.Short() {
			n = *randomWalks
		}
		for range n {
			letters := string(libraryLetters[random.IntN(len(libraryLetters))*random.IntN(2)])
			for range 1 + random.IntN(4) {
				letters += string(originLetters[random.IntN(len(originLetters))])
			}
			cases <- letters
		}
	}()
	workers := 32
	if !testing.Short() {
		workers = 256
	}
	var all sync.WaitGroup
	var n atomic.Int64
	for range workers {
		all.Go(func() {
			for letters := range cases {
				id := n.Add(1)
				r.check(t, fmt.Sprintf("%d/%s.jpg", id, letters), letters, id%3 == 0)
			}
		})
	}
	all.Wait()
	t.Logf("%d walks", n.Load())
}

// newModelRig has an endpoint for each way that up to 4 origins may stall or not, named by it:
// "--t" has three, of which the last does. Each origin reads what to say from the path. Those that
// stall have a timeout that a busy machine might reach otherwise.
func newModelRig(t *testing.T) *rig {
	r := newRig(t, 4, func(s *topology.AccountState) {
		ids := endpoint(s).Origins
		for i, id := range ids {
			o := proto.CloneOf(s.Origins[id].Message)
			o.Timeouts.FirstByte = durationpb.New(50 * time.Millisecond)
			s.Origins[id+"t"] = topology.Stored[*topologyv1.Origin]{Message: o, CreateRevision: int64(20 + i)}
		}
		for n := range 5 {
			for stalls := range 1 << n {
				name, e := "e", &topologyv1.UrlEndpoint{WalkDeadline: durationpb.New(time.Minute)}
				for i, id := range ids[:n] {
					if stalls>>i&1 == 1 {
						name, id = name+"t", id+"t"
					} else {
						name += "-"
					}
					e.Origins = append(e.Origins, id)
				}
				s.Endpoints[name] = topology.Stored[*topologyv1.UrlEndpoint]{CreateRevision: 1, Message: e}
			}
		}
	})
	saying := func(i int) faultorigin.Answer {
		return func(x *faultorigin.Exchange) {
			target := x.Request.Path()
			if name := target[strings.LastIndexByte(target, '/')+1:]; i < len(name) {
				sayings[name[i]].answer(x)
				return
			}
			faultorigin.Reply(404, "")(x) // the edge's own question
		}
	}
	for i, o := range r.origins {
		o.On(faultorigin.Any, saying(i+1))
	}
	r.library.On(faultorigin.Any, func(x *faultorigin.Exchange) {
		if target := x.Request.Path(); target[strings.LastIndexByte(target, '/')+1] == 'f' {
			faultorigin.Reply(200, "x", `ETag: "0000000000000000aa"`)(x)
			return
		}
		saying(0)(x)
	})
	return r
}

// endpointFor is the endpoint whose origins stall where the letters do.
func (r *rig) endpointFor(letters string) *topology.Endpoint {
	return r.account.Endpoint("e" + strings.Map(func(letter rune) rune {
		if letter == 't' {
			return letter
		}
		return '-'
	}, letters[1:]))
}

// apart is the endpoint with origins of its own for each key, so that no walk knows how those of
// another fared.
func apart(e *topology.Endpoint, key string) *topology.Endpoint {
	own := *e
	own.Steps = slices.Clone(e.Steps)
	for i, step := range own.Steps {
		if step.Origin != nil {
			o := *step.Origin
			o.UID += "/" + key
			own.Steps[i].Origin = &o
		}
	}
	return &own
}

// check makes a walk. The time to connect to the library is not the test's to choose, so that a
// busy machine may reach it: then the walk says nothing, and is made again.
func (r *rig) check(t *testing.T, key, letters string, stop bool) {
	began := time.Now()
	for again := 0; !r.checkOnce(t, fmt.Sprintf("%d/%s", again, key), letters, stop); again++ {
		if time.Since(began) > time.Minute {
			t.Errorf("%s: the library is not reached", letters)
			return
		}
	}
}

// checkOnce reports false for a walk that says nothing.
func (r *rig) checkOnce(t *testing.T, key, letters string, stop bool) bool {
	request := r.to("/" + key)
	if letters[0] != '-' {
		request.Account = r.account.WithMedia(r.account.Media.With(key, [8]byte{}))
	}
	request.Endpoint = apart(r.endpointFor(letters), key)
	res := r.Find(t.Context(), request, Stored{UseOnError: stop})
	defer discard(res)
	if first := res.Steps[0]; letters[0] != '-' && first.Status == 0 &&
		(first.Reason == origin.Timeout || first.Reason == origin.BreakerOpen) {
		return false
	}
	want := model(letters, stop)
	got := ending{res.Kind, res.Step, res.EarlierInconclusive, res.Status, res.RetryAfter, len(res.Steps)}
	if got != want {
		t.Errorf("%s, stop = %v: got %+v, want %+v; steps %+v", letters, stop, got, want, res.Steps)
	}
	for i, s := range res.Steps {
		if m := meaning(letters, i); s.Outcome != m.outcome || s.Reason != m.reason {
			t.Errorf("%s: step %d is %s %q: %s, want %s %q", letters, i, s.Outcome, s.Reason, s.Detail, m.outcome,
				m.reason)
		}
	}
	if res.Kind == Found &&
		(res.Version != request.Endpoint.Steps[res.Step].Version ||
			(res.Step == 0) != (res.Supplier.UID == LibraryUID)) {
		t.Errorf("%s: version %x, supplier %+v", letters, res.Version, res.Supplier)
	}
	if (res.ProxyError != "") != (res.Kind == Failed) || (res.Response != nil) != (res.Kind == Found) {
		t.Errorf("%s: proxy error %q with %s", letters, res.ProxyError, res.Kind)
	}
	return true
}
