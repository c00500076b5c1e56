package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// eventStream is the media type of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
const eventStream = "text/event-stream"

// quietFor is how long a stream says nothing before it says that it is there, so that a client that
// is gone is found out, and nobody on the way takes it for dead.
const quietFor = 15 * time.Second

// watchEdges streams how the edges stand. It goes on in the goroutine of its request alone, and
// ends with the caller's token.
func (h *Handler) watchEdges(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		h.noRoute(w, r, http.StatusMethodNotAllowed)
		return
	}
	if err := (&params{query: r.URL.Query()}).err(); err != nil {
		writeError(w, r, err)
		return
	}
	if !accepts(r, eventStream) {
		Refuse(w, r, http.StatusNotAcceptable, codes.InvalidArgument, "NOT_ACCEPTABLE",
			"this is a stream of events: send Accept: "+eventStream)
		return
	}
	wait(w)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.ended, cancel)()
	s := &events{w: w, control: http.NewResponseController(w), revision: -1}
	err := h.admin.WatchEdges(adminconn.Direct(r.WithContext(ctx)), s.send)
	switch {
	case err == nil, s.failed:
	case !s.begun:
		writeError(w, r, err)
	default:
		s.last(typed(r, withReason(r.Context(), err)).Proto())
	}
}

// accepts reports whether a request takes a media type.
func accepts(r *http.Request, want string) bool {
	values := r.Header.Values("Accept")
	if len(values) == 0 {
		return true
	}
	kind, _, _ := strings.Cut(want, "/")
	for one := range strings.SplitSeq(strings.Join(values, ","), ",") {
		media, _, err := mime.ParseMediaType(one)
		if err == nil && (media == want || media == kind+"/*" || media == "*/*") {
			return true
		}
	}
	return false
}

// events is a stream of events on its way to a client.
type events struct {
	w             http.ResponseWriter
	control       *http.ResponseController
	begun, failed bool
	revision      int64
	said          time.Time
}

// send sends what has changed:
//
//	reset     discard what was sent before
//	edge      an edge that is new or has changed
//	left      an edge that is no longer remembered: its name
//	revision  that of the topology; all edges before it were as they stood then
func (e *events) send(change adminsvc.EdgesChange) error {
	if !e.begun {
		fields := e.w.Header()
		fields.Set("Content-Type", eventStream)
		fields.Set("X-Accel-Buffering", "no") // a proxy in between holds nothing back
		e.begun = true
	}
	var b bytes.Buffer
	if change.All {
		event(&b, "reset", nil)
	}
	for _, one := range change.Edges {
		event(&b, "edge", one)
	}
	for _, name := range change.Left {
		event(&b, "left", &topologyv1.Edge{Name: name})
	}
	if change.Revision != e.revision || change.All {
		e.revision = change.Revision
		event(&b, "revision", &adminv1.GetRevisionResponse{Revision: change.Revision})
	}
	now := time.Now()
	if b.Len() == 0 {
		if now.Sub(e.said) < quietFor {
			return nil
		}
		b.WriteString(":\n\n")
	}
	e.said = now
	return e.write(b.Bytes())
}

// last says why the stream ends.
func (e *events) last(status proto.Message) {
	var b bytes.Buffer
	event(&b, "end", status)
	_ = e.write(b.Bytes()) // nobody is left to tell
}

func (e *events) write(p []byte) error {
	_, err := e.w.Write(p)
	if err == nil {
		err = e.control.Flush()
	}
	e.failed = err != nil
	// Until the next event the stream may stand as long as it likes.
	_ = e.control.SetWriteDeadline(time.Time{})
	return err
}

func event(b *bytes.Buffer, name string, m proto.Message) {
	fmt.Fprintf(b, "event: %s\ndata: ", name)
	text := []byte("{}")
	if m != nil {
		if marshaled, err := protojson.Marshal(m); err == nil {
			text = marshaled
		}
	}
	if json.Compact(b, text) != nil {
		b.WriteString("{}")
	}
	b.WriteString("\n\n")
}
