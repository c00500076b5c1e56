package front

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

const (
	// maxStreams are the requests of a connection that are being answered. One whose stream was
	// reset counts until its handler has returned (CVE-2023-44487).
	maxStreams = 128
	// maxHeaderList is SETTINGS_MAX_HEADER_LIST_SIZE: names, values and 32 bytes for each field.
	maxHeaderList = 32 << 10
	// maxBlock bounds a header block as it comes, before it is decoded.
	maxBlock = 2 * maxHeaderList
	// maxContinuations is how many CONTINUATION frames a block may have (CVE-2023-45288). It is
	// what nghttp2 takes.
	maxContinuations = 8
	// frameBytes is the SETTINGS_MAX_FRAME_SIZE of both sides. Larger frames would let others wait
	// longer.
	frameBytes = 16 << 10
	// firstWindow is the initial window of a stream and that of a connection (RFC 9113 6.9.2).
	firstWindow = 1<<16 - 1
	maxWindow   = 1<<31 - 1
	// maxNoise bounds the bytes of frames that neither ask for something nor take something, beyond
	// eight times those that do. Nginx ends connections by such a rule. Each frame counts for
	// frameCost bytes more.
	maxNoise  = 1 << 20
	frameCost = 32
	// maxRefused is how many streams of a connection may be refused beyond those that were
	// answered.
	maxRefused = maxStreams
	// smallInput is the size of the first read: most of what clients send is shorter. An idle
	// connection has no buffer.
	smallInput = 1 << 10
)

// types of frames (RFC 9113 6)
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation

	framePriorityUpdate = 0x10 // RFC 9218 7.1
)

// flags of frames
const (
	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// frameHead is the length of what a frame begins with.
const frameHead = 9

// settings (RFC 9113 6.5.2, RFC 9218 2.1)
const (
	settingTableSize       = 1
	settingEnablePush      = 2
	settingMaxStreams      = 3
	settingInitialWindow   = 4
	settingMaxFrame        = 5
	settingMaxHeaderList   = 6
	settingNoOldPriorities = 9
)

// h2code is an error code (RFC 9113 7). As an error it ends the connection.
type h2code uint32

const (
	codeNone        h2code = 0
	codeProtocol    h2code = 1
	codeInternal    h2code = 2
	codeFlowControl h2code = 3
	codeClosed      h2code = 5
	codeFrameSize   h2code = 6
	codeRefused     h2code = 7
	codeCancel      h2code = 8
	codeCompression h2code = 9
	codeCalm        h2code = 11
	codeInadequate  h2code = 12
)

// Error implements error.
func (c h2code) Error() string { return "the client breaks the rules of HTTP/2" }

// errElsewhere says that another goroutine reads the connection now.
var errElsewhere = errors.New("another goroutine reads on")

// errGone says that a stream, or its connection, is over.
var errGone = errors.New("the client is gone")

// preface is what a client begins with (RFC 9113 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// hello is what the server sends first (RFC 9113 3.4). Priorities are ignored, those of RFC 7540
// and those of RFC 9218: streams take turns.
var hello = func() []byte {
	settings := [...][2]uint32{
		{settingMaxStreams, maxStreams}, {settingMaxHeaderList, maxHeaderList}, {settingNoOldPriorities, 1},
	}
	b := appendFrameHead(nil, 6*len(settings), frameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s[0]))
		b = binary.BigEndian.AppendUint32(b, s[1])
	}
	return b
}()

// prohibited reports whether a cipher suite is one that HTTP/2 may not be spoken with (RFC 9113
// 9.2.2): those of TLS 1.2 without an ephemeral key exchange, or without an AEAD.
func prohibited(state *tls.ConnectionState) bool {
	if state.Version >= tls.VersionTLS13 {
		return false
	}
	switch state.CipherSuite {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return false
	}
	return true
}

// inadequate is all that the server sends to a client that chose a prohibited suite.
var inadequate = func() []byte {
	b := appendFrameHead(slices.Clone(hello), 8, frameGoAway, 0, 0)
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(codeInadequate))
}()

// h2conn is a connection of HTTP/2.
//
// One goroutine reads it, and calls the handler for each request as it comes. A handler that has
// its reply puts it into out and returns. When nothing more can be read, all replies are sent
// together. A handler that has to wait keeps the goroutine, and another one reads on, see
// [h2stream.slow]. A goroutine that has output, and finds that no other one writes, writes for all,
// see [h2conn.round].
type h2conn struct {
	c *conn

	// Used by the goroutine that reads.
	in          []byte // of smallBuffers or frameBuffers, nil if nothing has come
	from, to    int    // the unread part of in
	tryRead     func(fd uintptr) bool
	readErr     error // of tryRead
	skip        int   // bytes of a frame that are left to skip
	greeted     bool  // the preface was read
	gotSettings bool  // and the first settings
	decoder     decoder
	block       []byte // of the fields of stream blockOf, as far as they have come
	blockOf     uint32
	blockEnds   bool // The request has no content.
	blockSelf   bool // Its stream depends on itself.
	pieces      int
	newest      uint32 // of the streams
	received    int    // bytes of content for which the connection's window was not opened again
	noise       int
	refused     int
	answered    int
	now         time.Time

	mu         sync.Mutex
	open       map[uint32]*h2stream // the streams whose handler may wait
	past       []pastStream         // by id, a power of two long, see pastOf
	running    int                  // handlers
	goroutines int                  // of the connection, see leave
	armed      armed
	served     bool   // a request came since the connection was armed
	out        []byte // frames to be sent, of outBuffers
	writing    bool
	room       sync.Cond // out became shorter, or the last handler has returned
	ready      []*h2stream
	sent       []*h2stream
	window     int64 // of the connection
	first      int64 // of streams
	sizeDown   bool  // The next header block says that its encoder has no table.
	useful     int   // see maxNoise
	over       bool  // Nothing can be sent any more.
	draining   bool
	knowsLast  bool   // The client knows which stream is the last.
	last       uint32 // that one
}

// armed says what the connection has a time limit for.
type armed uint8

const (
	armedNot armed = iota
	armedHead
	armedIdle
	armedEnd
)

// pastStream is a stream that has ended, or is about to.
type pastStream struct {
	id    uint32
	reset bool // by the server, so that the client may still be sending
}

// How many ended streams a connection remembers: more if it has had more.
const (
	leastPast = 8
	mostPast  = 256
)

// pastOf returns the place of a stream. The place of one that ended long ago may be another's.
func (h *h2conn) pastOf(id uint32) *pastStream { return &h.past[id>>1%uint32(len(h.past))] }

// addPast makes a place for a new stream.
func (h *h2conn) addPast(id uint32) {
	n, was := len(h.past), h.past
	for n < mostPast && int(id>>1) >= n {
		n *= 2
	}
	if n > len(was) {
		h.past = make([]pastStream, n)
		for _, past := range was {
			if past.id > 0 {
				*h.pastOf(past.id) = past
			}
		}
	}
	*h.pastOf(id) = pastStream{id: id}
}

// Buffers for input. One of frameBuffers holds the largest frame.
var (
	smallBuffers = sync.Pool{New: func() any { return new([smallInput]byte) }}
	frameBuffers = sync.Pool{New: func() any { return new([frameHead + frameBytes]byte) }}
)

// serveH2 serves HTTP/2 (RFC 9113) until the connection ends. It may return before that.
func (c *conn) serveH2() {
	h := &h2conn{
		c: c, goroutines: 1, window: firstWindow, first: firstWindow, past: make([]pastStream, leastPast),
	}
	h.decoder.table.max = tableBytes
	h.tryRead = h.tryMore
	h.room.L = &h.mu
	h.out = append(takeOut(), hello...)
	c.onDrain(h.drain)
	h.run()
}

// run reads until the connection ends, or another goroutine reads on.
func (h *h2conn) run() {
	defer h.leave()
	defer func() {
		if fault := recover(); fault != nil {
			h.c.server.cfg.Panicked(fault, debug.Stack())
			h.c.hangUp()
		}
	}()
	err := h.read()
	if err == errElsewhere {
		return
	}
	h.putInput()
	switch code := h2code(0); {
	case errors.Is(err, errCompression):
		h.goAway(codeCompression)
	case errors.As(err, &code):
		h.goAway(code)
	case errors.Is(err, os.ErrDeadlineExceeded):
		h.goAway(codeNone)
	}
	h.mu.Lock()
	h.fail()
	h.mu.Unlock()
	h.c.hangUp()
}

// leave is called by each goroutine of the connection at its end. The last one ends the connection.
func (h *h2conn) leave() {
	h.mu.Lock()
	h.goroutines--
	last := h.goroutines == 0
	h.mu.Unlock()
	if last {
		h.c.end()
	}
}

// read reads frames and does what they ask for.
func (h *h2conn) read() error {
	for {
		for {
			whole, err := h.frame()
			if err != nil {
				return err
			}
			if !whole {
				break
			}
		}
		if err := h.pause(); err != nil {
			return err
		}
		if err := h.more(); err != nil {
			return err
		}
	}
}

// pause sends what is ready and sets the time limit before the server waits for the client.
func (h *h2conn) pause() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.writing && h.sendable() {
		h.round()
		h.passOn()
	}
	if h.over {
		return errGone
	}
	want := armedHead
	if h.blockOf == 0 && h.gotSettings {
		want = h.rest()
	}
	if !h.arm(want) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// rest returns which time limit the connection has while nothing comes. Callers hold mu, because
// the fields behind mu in [h2conn] need it.
func (h *h2conn) rest() armed {
	switch {
	case h.running > 0:
		return armedNot
	case h.draining:
		return armedEnd
	}
	return armedIdle
}

// arm sets the time limit. That of a head and that of the end begin once, that of an idle
// connection anew with each request. It reports whether the time is not over.
func (h *h2conn) arm(want armed) bool {
	if want == h.armed && !(want == armedIdle && h.served) {
		return true
	}
	h.armed, h.served = want, false
	switch want {
	case armedHead:
		h.c.arm(headTime)
	case armedIdle:
		h.c.arm(idleTime)
	case armedEnd:
		h.c.arm(lingerTime)
	case armedNot:
		return h.c.disarm()
	}
	return true
}

// more reads more of what the client sends.
func (h *h2conn) more() error {
	if h.from == h.to {
		h.from, h.to = 0, 0
		h.putInput()
	} else if h.from > 0 {
		h.to = copy(h.in, h.in[h.from:h.to])
		h.from = 0
	}
	if h.in != nil && h.to == len(h.in) { // a frame that is longer
		large := frameBuffers.Get().(*[frameHead + frameBytes]byte)
		copy(large[:], h.in)
		h.putInput()
		h.in = large[:]
	}
	before := h.to
	var err error
	if raw := h.c.wire.raw; raw != nil {
		if err = raw.Read(h.tryRead); err == nil {
			err = h.readErr
		}
	} else {
		var n int
		n, err = h.c.Read(h.input())
		h.to += n
	}
	h.now = time.Now()
	if h.to > before {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// tryMore is called by [syscall.RawConn] until something has come.
func (h *h2conn) tryMore(fd uintptr) bool {
	n, err := h.c.readNow(int(fd), h.input())
	if err == errAgain {
		if h.to == 0 {
			h.putInput()
		}
		return false
	}
	h.to += n
	h.readErr = err
	return true
}

// input returns the buffer to read into.
func (h *h2conn) input() []byte {
	if h.in == nil {
		h.in = smallBuffers.Get().(*[smallInput]byte)[:]
	}
	return h.in[h.to:]
}

// putInput returns the input buffer to its pool.
func (h *h2conn) putInput() {
	switch len(h.in) {
	case smallInput:
		smallBuffers.Put((*[smallInput]byte)(h.in))
	case frameHead + frameBytes:
		frameBuffers.Put((*[frameHead + frameBytes]byte)(h.in))
	}
	h.in = nil
}

// goAway sends GOAWAY and ends the connection. With codeNone it answers the running requests first.
func (h *h2conn) goAway(code h2code) {
	h.mu.Lock()
	if code != codeNone {
		h.endStreams()
	}
	h.appendGoAway(h.newest, code)
	for !h.over && (h.writing || len(h.out) > 0 || code == codeNone && h.running > 0) {
		if !h.writing && h.sendable() {
			h.round()
		} else {
			h.room.Wait()
		}
	}
	over := h.over
	h.over = true
	h.mu.Unlock()
	if !over {
		h.c.finish(true)
	}
}

// drain sends GOAWAY. Requests that the client sends before it has seen that are still answered
// (RFC 9113 6.8).
func (h *h2conn) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.draining {
		return
	}
	h.draining = true
	h.goroutines++
	go func() {
		defer h.leave()
		h.mu.Lock()
		defer h.mu.Unlock()
		h.appendGoAway(maxWindow, codeNone)
		h.reserve(frameHead + len(drainPing))
		h.out = append(appendFrameHead(h.out, len(drainPing), framePing, 0, 0), drainPing...)
		if h.running == 0 {
			h.arm(armedEnd)
		}
		h.flush()
	}()
}

// drainPing is the content of a PING. Its acknowledgment shows that the client has seen the GOAWAY
// before it.
const drainPing = "draining"
