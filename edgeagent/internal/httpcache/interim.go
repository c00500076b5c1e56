package httpcache

import (
	"errors"
	"maps"
	"net/http"
	"sync"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
)

// interims passes the interim replies (RFC 9110 15.2) of a walk on to the client that it is made
// for. The walk does not wait for that client.
type interims struct {
	mu    sync.Mutex
	pass  func(status int, fields []byte) // nil if there is nobody, or nobody any more
	count int
	queue chan interim // nil before the first
	done  chan struct{}
}

type interim struct {
	status int
	fields []byte
}

const (
	// maxInterim is how many interim replies wait to be passed on; more at once are dropped,
	// because none has to be sent.
	maxInterim = 8
	// mostInterim is how many a walk may get before it fails, because more are of no help to any
	// client.
	mostInterim = 32
)

var errInterim = errors.New("the origin sends nothing but interim replies")

// add passes an interim reply of an origin on. Its error ends the walk.
func (s *interims) add(status int, header map[string][]string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count++; s.count > mostInterim {
		return errInterim
	}
	if s.pass == nil || status == http.StatusContinue { // which is about this edge's own request
		return nil
	}
	header = maps.Clone(header)
	rfc9111.Strip(header)
	var fields []byte
	for _, of := range field.Map(header).AppendSorted(nil) {
		for _, value := range of.Values {
			fields = field.Append(fields, of.Name, value)
		}
	}
	if s.queue == nil {
		s.queue, s.done = make(chan interim, maxInterim), make(chan struct{})
		go s.run(s.pass)
	}
	select {
	case s.queue <- interim{status, fields}:
	default:
	}
	return nil
}

func (s *interims) run(pass func(status int, fields []byte)) {
	defer close(s.done)
	for i := range s.queue {
		pass(i.status, i.fields)
	}
}

// end waits until those that have come were passed on. None is passed on after it.
func (s *interims) end() {
	s.mu.Lock()
	s.pass = nil
	if s.queue != nil {
		close(s.queue)
	}
	s.mu.Unlock()
	if s.done != nil {
		<-s.done
	}
}
