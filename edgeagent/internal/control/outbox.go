package control

import (
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// reportInterval is how often an operator's view of an edge is renewed.
const reportInterval = 10 * time.Second

// reportSoon is the least time between two reports when one has to say what cannot wait.
const reportSoon = 2 * time.Second

// A control plane takes no message of more than 64 KiB. One Ack has at most maxNacks; texts are cut
// at maxReason bytes, and keys at maxKey, since a media file may have a longer one; an answer that
// takes more than maxAnswer is replaced by an error.
const (
	maxNacks  = 40
	maxReason = 1000
	maxKey    = 600
	maxAnswer = 60 << 10
)

// brief is a refusal with a key and a reason of bounded length.
func brief(r *topologyv1.Rejected) *topologyv1.Rejected {
	return &topologyv1.Rejected{
		Key: cutAt(r.GetKey(), maxKey), Revision: r.GetRevision(), Reason: cut(r.GetReason()),
	}
}

func cut(text string) string { return cutAt(text, maxReason) }

func cutAt(text string, most int) string {
	text = strings.ToValidUTF8(text, "\ufffd")
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "..."
}

// readable makes each text in a message UTF-8: else it could not be encoded, and the stream would
// end. Texts quote what origins send, which may be any bytes.
func readable(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		of := func(v protoreflect.Value) protoreflect.Value {
			switch {
			case f.Message() != nil:
				readable(v.Message())
			case f.Kind() == protoreflect.StringKind:
				return protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "\ufffd"))
			}
			return v
		}
		if !f.IsList() {
			m.Set(f, of(v))
			return true
		}
		for i := range v.List().Len() {
			v.List().Set(i, of(v.List().Get(i)))
		}
		return true
	})
}

// outbox is what the agent has yet to say. An ack counts for all before it, so it is made when it
// is sent, and receiving never waits for sending.
type outbox struct {
	makeAck func() *edgev1.Ack

	mu      sync.Mutex
	begun   bool // whether there is anything of this control plane's topology to acknowledge
	due     bool
	nacks   []*topologyv1.Rejected
	answers []*edgev1.Answer
	closed  bool
	wake    chan struct{}
}

func newOutbox(makeAck func() *edgev1.Ack) *outbox {
	return &outbox{makeAck: makeAck, wake: make(chan struct{}, 1)}
}

func (o *outbox) change(f func()) {
	o.mu.Lock()
	f()
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) acknowledge(nacks []*topologyv1.Rejected) {
	o.change(func() {
		o.begun, o.due = true, true
		for _, r := range nacks {
			o.nacks = append(o.nacks, brief(r))
		}
	})
}

// again makes another ack due, because more is on disk now.
func (o *outbox) again() { o.change(func() { o.due = o.begun }) }

func (o *outbox) answer(a *edgev1.Answer) { o.change(func() { o.answers = append(o.answers, a) }) }

// close makes the sender end once everything is sent.
func (o *outbox) close() { o.change(func() { o.closed = true }) }

func (o *outbox) take() (messages []*edgev1.SyncRequest, closed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.due {
		ack := o.makeAck()
		n := min(len(o.nacks), maxNacks)
		ack.Nacks, o.nacks = o.nacks[:n:n], o.nacks[n:]
		messages = append(messages, &edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: ack}})
		o.due = len(o.nacks) > 0
	}
	for _, a := range o.answers {
		messages = append(messages, &edgev1.SyncRequest{Message: &edgev1.SyncRequest_Answer{Answer: a}})
	}
	o.answers = nil
	return messages, o.closed
}

// send sends what the outbox holds; after the greeting nobody else sends. It ends when the outbox
// is closed or the stream has broken.
func (s *session) send() {
	reports := time.NewTicker(reportInterval)
	defer reports.Stop()
	soon := time.NewTimer(reportSoon)
	soon.Stop()
	defer soon.Stop()
	if s.report() != nil {
		return
	}
	last := time.Now()
	for {
		messages, closed := s.out.take()
		for _, m := range messages {
			if s.stream.Send(m) != nil {
				return // the goroutine that receives returns the reason
			}
		}
		if closed {
			s.stream.CloseSend()
			return
		}
		select {
		case <-s.out.wake:
		case <-s.control.cfg.ReportSoon:
			soon.Reset(max(0, reportSoon-time.Since(last)))
		case <-reports.C:
			if last = time.Now(); s.report() != nil {
				return
			}
		case <-soon.C:
			if last = time.Now(); s.report() != nil {
				return
			}
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *session) report() error {
	report := s.control.cfg.Report()
	readable(report.ProtoReflect())
	return s.stream.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Report{Report: report}})
}
