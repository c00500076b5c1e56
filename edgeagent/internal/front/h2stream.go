package front

import (
	"context"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// h2stream is one request of a connection of HTTP/2.
type h2stream struct {
	h       *h2conn
	x       Exchange
	id      uint32
	length  int64  // of the request's content as announced, -1 if it is not
	content bool   // The request did not end with its head.
	slowed  bool   // see slow
	text    []byte // memory of the strings of x, when slowed

	// What follows is guarded by the connection's mu when slowed.
	ended   bool // The client has sent all.
	got     int64
	flow    int  // used bytes of the window that the stream gives the client
	gone    bool // The stream was reset, or the connection is over.
	began   bool // It is being answered.
	replied bool // All of the reply was sent, or is in out.
	wake    chan struct{}
	timer   *time.Timer
	ctx     context.Context
	cancel  context.CancelFunc

	// The part of the body that is ready.
	window  int64
	mem     []byte
	file    *os.File
	offset  int64
	left    int64
	last    bool  // Nothing follows it.
	pending bool  // Not all of it was sent.
	queued  bool  // in ready
	reading bool  // a goroutine that writes reads the file
	broken  bool  // The file could not be read.
	taken   int64 // bytes sent
}

// newStream returns a stream for the next request.
func (h *h2conn) newStream(id uint32) *h2stream {
	st := streams.Get().(*h2stream)
	st.h, st.id, st.length = h, id, -1
	h.decoder.text.b = st.text
	st.text = nil
	st.x.Version, st.x.Conn, st.x.Now, st.x.stream = HTTP2, &h.c.facts, h.now, st
	return st
}

// streams are for requests that are answered at once, with memory for their strings in text.
var streams = sync.Pool{New: func() any { return new(h2stream) }}

// keep makes the memory of a stream, and that of the strings of its request, available to another
// stream.
func (h *h2conn) keep(st *h2stream) {
	fields, kept := st.x.Fields, st.x.Kept
	fields.Reset()
	*st = h2stream{}
	st.x.Fields, st.x.Kept, st.text = fields, kept, h.takeText()
	streams.Put(st)
}

// takeText takes the memory of the strings of a request, which are not used any more.
func (h *h2conn) takeText() []byte {
	text := h.decoder.text.b
	h.decoder.text.b = nil
	poisonText(text)
	if cap(text) > maxText {
		return nil
	}
	return text[:0]
}

// maxText is how much memory is kept for the strings of a request.
const maxText = 4 << 10

// poisonText overwrites strings that no code may have kept.
func poisonText(text []byte) {
	if poison {
		for i := range text {
			text[i] = '\xff'
		}
	}
}

// handle calls the handler.
func (st *h2stream) handle() {
	defer func() {
		if fault := recover(); fault != nil {
			st.h.c.server.cfg.Panicked(fault, debug.Stack())
		}
	}()
	st.h.c.server.cfg.Handler(&st.x)
}

// slow starts another goroutine that reads the connection, because the handler may wait from here
// on.
func (st *h2stream) slow() {
	if st.slowed {
		return
	}
	h := st.h
	st.slowed = true
	st.wake = make(chan struct{}, 1)
	st.text, h.decoder.text.b = h.decoder.text.b, nil
	h.mu.Lock()
	if h.open == nil {
		h.open = map[uint32]*h2stream{}
	}
	h.open[st.id] = st
	h.goroutines++
	if h.over {
		h.drop(st)
	}
	h.mu.Unlock()
	go h.run()
}

// finish ends a stream whose handler has returned.
func (st *h2stream) finish() {
	h := st.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running--
	if st.cancel != nil {
		st.cancel()
	}
	if st.timer != nil {
		st.timer.Stop()
	}
	if !st.gone {
		switch {
		case !st.replied:
			h.reset(st, codeInternal)
		case !st.ended: // The client need not send the rest (RFC 9113 8.1).
			h.reset(st, codeNone)
		default:
			delete(h.open, st.id)
		}
	}
	if !st.slowed {
		return
	}
	poisonText(st.text)
	h.flush()
	if h.running == 0 {
		h.room.Broadcast()
		if h.armed == armedNot { // The goroutine that reads is waiting, or will arm it.
			h.arm(h.rest())
		}
	}
}

// notify wakes the handler that waits.
func (st *h2stream) notify() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

func (st *h2stream) onLeave(f func()) (stop func() bool) { return context.AfterFunc(st.context(), f) }

func (st *h2stream) context() context.Context {
	st.slow()
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	if st.ctx == nil {
		st.ctx, st.cancel = context.WithCancel(context.Background())
		if st.gone {
			st.cancel()
		}
	}
	return st.ctx
}

func (st *h2stream) hasContent() bool {
	if st.length > 0 {
		return true
	}
	if !st.content {
		return false
	}
	st.awaitContent(headTime, 0)
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	return !st.ended || st.got > 0
}

// awaitContent waits until more than so many bytes of the request's content have come, or its end,
// for at most a time.
func (st *h2stream) awaitContent(limit time.Duration, most int) {
	st.slow()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	for late := false; !late && !st.ended && st.flow <= most && !st.gone; {
		st.h.mu.Unlock()
		select {
		case <-st.wake:
		case <-timer.C:
			late = true
		}
		st.h.mu.Lock()
	}
}

func (st *h2stream) interim(status int, fields []byte) error {
	st.slow()
	h := st.h
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reserve(len(fields) + headRoom)
	if st.gone || h.over {
		return h.giveUp()
	}
	h.appendHead(st.id, 0, status, -1, noBlock, fields, nil)
	h.flush()
	return nil
}

// refuse answers a request that does not reach the handler.
func (st *h2stream) refuse(r *refusal) {
	body := r.text()
	fields := field.Append(nil, "Content-Type", "text/plain; charset=utf-8")
	fields = field.Append(fields, "Cache-Control", "no-store")
	st.reply(&Reply{Status: r.status, Fields: fields, Length: int64(len(body)), Mem: []byte(body)})
}

// maxInline is up to which length a body is sent by the goroutine that reads, if the windows take
// all of it.
const maxInline = 32 << 10

func (st *h2stream) reply(r *Reply) (sent int64, err error) {
	if st.began {
		return 0, errReplied
	}
	st.began = true
	h, length := st.h, r.Length
	if r.Mem != nil {
		length = int64(len(r.Mem))
	}
	if st.content && !st.x.Fields.Has(field.Expect) {
		// Some clients read the reply only after they have sent the content, and an error in the
		// rest of it is an error of the request (RFC 9113 8.1.1). No client has to send more than
		// the first window.
		st.awaitContent(lingerTime, firstWindow/2)
	}
	none := r.Mem == nil && r.File == nil && r.Stream == nil
	if st.x.Method == "HEAD" || r.Status == 204 || r.Status == 304 || none || length == 0 && r.Stream == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if err := st.head(r, length, true, 0); err != nil {
			return 0, err
		}
		st.replied = true
		return 0, nil
	}
	if r.Stream == nil && length <= maxInline && !st.slowed {
		if sent, err := st.inline(r, length); sent {
			return length, err
		}
	}
	st.slow()
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := st.head(r, length, false, 0); err != nil {
		return 0, err
	}
	switch {
	case r.File != nil:
		st.file, st.offset, st.left = r.File, r.Offset, length
		if err = st.send(true); err == errFile && r.Unsent != nil {
			if rest := r.Unsent(st.taken); rest != nil {
				err = st.copy(rest, length)
			}
		}
	case r.Stream != nil:
		err = st.copy(r.Stream, length)
	default:
		st.mem, st.left = r.Mem, int64(len(r.Mem))
		err = st.send(true)
	}
	st.replied = err == nil
	return st.taken, err
}

// head sends the head of a reply, with room for what follows. mu is held.
func (st *h2stream) head(r *Reply, length int64, ends bool, room int) error {
	h := st.h
	common := r.common()
	h.reserve(len(common.literals) + len(r.Fields) + headRoom + room)
	if st.gone || h.over {
		return h.giveUp()
	}
	if r.Status == 204 || r.Status == 304 {
		length = -1
	}
	var flags byte
	if ends {
		flags = flagEndStream
	}
	h.appendHead(st.id, flags, r.Status, length, common, r.Fields, &st.x.Now)
	return nil
}

// inline puts a whole reply into out, where that can be: sent is false if the windows have no room
// for it, or its file cannot be read.
func (st *h2stream) inline(r *Reply, length int64) (sent bool, err error) {
	h, body := st.h, r.Mem
	if body == nil {
		buffer := copyBuffers.Get().(*[copyBytes]byte)
		defer copyBuffers.Put(buffer)
		body = buffer[:length]
		if readFull(r.File, body, r.Offset) != nil {
			return false, nil
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if length > min(st.window, h.window) {
		return false, nil
	}
	if err := st.head(r, length, false, len(body)+2*frameHead); err != nil {
		return true, err
	}
	h.window -= length
	h.useful += len(body)
	for len(body) > 0 {
		piece := body[:min(len(body), frameBytes)]
		body = body[len(piece):]
		var flags byte
		if len(body) == 0 {
			flags = flagEndStream
		}
		h.out = append(appendFrameHead(h.out, len(piece), frameData, flags, st.id), piece...)
	}
	st.taken, st.replied = length, true
	return true, nil
}

// copy sends what it reads, from st.taken on. It sends what has come at once, but keeps the last of
// it until the reader has ended: it may end with an error, which the client has to see. mu is held,
// but not during a read.
func (st *h2stream) copy(from io.Reader, length int64) error {
	h := st.h
	h.mu.Unlock()
	buffer := copyBuffers.Get().(*[copyBytes]byte)
	defer func() {
		copyBuffers.Put(buffer)
		h.mu.Lock()
	}()
	for n := 0; ; {
		at := st.taken + int64(n)
		room := len(buffer) - 1
		if at == length {
			room++ // for a byte too many
		}
		more, err := from.Read(buffer[n:room])
		n += more
		switch at += int64(more); {
		case length >= 0 && at > length:
			return errTooLong
		case err == io.EOF && length >= 0 && at < length:
			return io.ErrUnexpectedEOF
		case err != nil && err != io.EOF:
			return err
		case err == nil && (at == length || n == 0):
			continue
		}
		h.mu.Lock()
		st.mem, st.left = buffer[:n], int64(n)
		failed := st.send(err == io.EOF)
		h.mu.Unlock()
		if failed != nil || err == io.EOF {
			return failed
		}
		n = 0
	}
}
