package front

import (
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// outBytes is how much is written at once: four full TLS records.
	outBytes = 4 * recordBytes
	// headRoom is for what is sent of a head beside its fields.
	headRoom = 128
	// leastPiece is the least part of a body that is put behind other frames, and not into the next
	// write.
	leastPiece = 1 << 10
)

// outBuffers are for output. A head may be longer than what is left of outBytes.
var outBuffers = sync.Pool{New: func() any { return new([outBytes + 4<<10]byte) }}

func takeOut() []byte { return outBuffers.Get().(*[outBytes + 4<<10]byte)[:0] }

func putOut(b []byte) {
	if cap(b) == outBytes+4<<10 {
		outBuffers.Put((*[outBytes + 4<<10]byte)(b[:cap(b)]))
	}
}

// reserve makes room in out for a frame of n bytes: it writes, or waits for the goroutine that
// does. So the server stops reading from a client that reads nothing. Callers hold mu, here and
// below. reserve may release it meanwhile.
func (h *h2conn) reserve(n int) {
	for !h.over && len(h.out) > 0 && len(h.out)+n > outBytes {
		if h.writing {
			h.room.Wait()
		} else {
			h.round()
		}
	}
	if h.out == nil {
		h.out = takeOut()
	}
}

// appendHead appends the frames of a head. Date is added to a final one if it is missing, for which
// now is given.
func (h *h2conn) appendHead(
	stream uint32, flags byte, status int, length int64, common *Block, fields []byte, now *time.Time,
) {
	at := len(h.out)
	b := appendFrameHead(h.out, 0, frameHeaders, flags|flagEndHeaders, stream)
	if h.sizeDown {
		h.sizeDown = false
		b = append(b, 0x20)
	}
	b = appendStatus(b, status)
	if length >= 0 {
		var digits [20]byte
		d := strconv.AppendInt(digits[:0], length, 10)
		b = append(append(appendInteger(b, 4, staticContentLength), byte(len(d))), d...)
	}
	b, dated := appendBlock(append(b, common.literals...), fields)
	if !dated && !common.dated && now != nil {
		b = append(appendInteger(b, 4, staticDate), 29)
		b = h.c.server.appendDate(b, *now)
	}
	n := len(b) - at - frameHead
	if n > frameBytes {
		b = splitHead(b, at, stream)
		n = frameBytes
	}
	b[at], b[at+1], b[at+2] = byte(n>>16), byte(n>>8), byte(n)
	h.out = b
}

// splitHead puts what one frame cannot hold into CONTINUATION frames.
func splitHead(b []byte, at int, stream uint32) []byte {
	rest := slices.Clone(b[at+frameHead+frameBytes:])
	b = b[:at+frameHead+frameBytes]
	b[at+4] &^= flagEndHeaders
	for len(rest) > 0 {
		piece := rest[:min(len(rest), frameBytes)]
		rest = rest[len(piece):]
		var flags byte
		if len(rest) == 0 {
			flags = flagEndHeaders
		}
		b = append(appendFrameHead(b, len(piece), frameContinuation, flags, stream), piece...)
	}
	return b
}

func (h *h2conn) appendReset(stream uint32, code h2code) {
	h.reserve(frameHead + 4)
	h.out = binary.BigEndian.AppendUint32(appendFrameHead(h.out, 4, frameReset, 0, stream), uint32(code))
	if past := h.pastOf(stream); past.id == stream {
		past.reset = true
	}
}

func (h *h2conn) appendGoAway(last uint32, code h2code) {
	h.reserve(frameHead + 8)
	h.out = binary.BigEndian.AppendUint32(appendFrameHead(h.out, 8, frameGoAway, 0, 0), last)
	h.out = binary.BigEndian.AppendUint32(h.out, uint32(code))
}

// reset ends a stream with an error.
func (h *h2conn) reset(st *h2stream, code h2code) {
	h.drop(st)
	h.appendReset(st.id, code)
}

// drop marks a stream as gone, and wakes its handler.
func (h *h2conn) drop(st *h2stream) {
	st.gone = true
	delete(h.open, st.id)
	if st.queued {
		st.queued = false
		h.ready = slices.DeleteFunc(h.ready, func(other *h2stream) bool { return other == st })
	}
	if st.cancel != nil {
		st.cancel()
	}
	st.notify()
}

// endStreams ends all streams.
func (h *h2conn) endStreams() {
	for _, st := range h.open {
		h.drop(st)
	}
}

// fail ends all streams, because nothing can be sent any more.
func (h *h2conn) fail() {
	h.over = true
	h.endStreams()
	putOut(h.out)
	h.out = nil
	h.room.Broadcast()
}

// sendable reports whether there is something to send that the client's windows allow.
func (h *h2conn) sendable() bool { return len(h.out) > 0 || len(h.ready) > 0 && h.window > 0 }

// widen opens the window of a stream by n, which may be negative. It reports false if the window is
// then too wide.
func (h *h2conn) widen(st *h2stream, n int64) bool {
	st.window += n
	h.enqueue(st)
	return st.window <= maxWindow
}

// enqueue adds a stream to those that take turns, if it has something to send.
func (h *h2conn) enqueue(st *h2stream) {
	if st.pending && !st.queued && !st.gone && st.window > 0 {
		st.queued = true
		h.ready = append(h.ready, st)
	}
}

// send sends the part of the body that is ready, and returns when the kernel has it. Without any it
// ends the body.
func (st *h2stream) send(last bool) error {
	h := st.h
	if st.left == 0 { // The end of a body needs no window (RFC 9113 6.9.1).
		if h.reserve(frameHead); st.gone || h.over {
			return h.giveUp()
		}
		h.out = appendFrameHead(h.out, 0, frameData, flagEndStream, st.id)
		h.flush()
		return nil
	}
	st.last, st.pending, st.broken = last, true, false
	h.enqueue(st)
	var stall stall
	for st.pending && !st.gone && !h.over && !st.broken {
		if !h.writing && h.sendable() {
			h.round()
		} else if st.wait(&stall) {
			h.reset(st, codeCancel)
		}
	}
	for st.reading { // The goroutine that writes still uses the file.
		st.wait(nil)
	}
	sent := !st.pending
	st.mem, st.file, st.pending = nil, nil, false
	h.passOn()
	switch {
	case sent:
		return nil
	case st.broken:
		return errFile
	}
	return errGone
}

// stall measures whether a client takes enough of one stream: a connection can be busy with other
// streams while its client gives this one no window.
type stall struct {
	began bool
	taken int64
}

// wait waits until something has changed. It reports whether the client took too little of the
// stream in the time it has.
func (st *h2stream) wait(s *stall) bool {
	h := st.h
	if s == nil {
		h.mu.Unlock()
		<-st.wake
		h.mu.Lock()
		return false
	}
	limit := h.c.server.cfg.WriteStall
	if !s.began {
		s.began, s.taken = true, st.taken
		if st.timer == nil {
			st.timer = time.NewTimer(limit)
		} else {
			st.timer.Reset(limit)
		}
	}
	h.mu.Unlock()
	late := false
	select {
	case <-st.wake:
	case <-st.timer.C:
		late = true
	}
	h.mu.Lock()
	if !late {
		return false
	}
	held := !st.queued || h.window <= 0 // by the client, and not by streams whose turn it is
	if held && st.pending && st.taken-s.taken < leastTaken {
		return true
	}
	s.taken = st.taken
	st.timer.Reset(limit)
	return false
}

// round writes what there is, and as much of the bodies of all streams as fits, a frame of each in
// turn.
func (h *h2conn) round() {
	h.writing = true
	b := h.out
	h.out = nil
	if b == nil {
		b = takeOut()
	}
	for len(h.ready) > 0 && h.window > 0 && !h.over {
		// Frames that were added while a file was read are sent before the bodies of streams that
		// became ready meanwhile, because the heads of those are among the frames.
		if len(b)+len(h.out) > outBytes {
			break
		}
		b = append(b, h.out...)
		h.out = h.out[:0]
		room := outBytes - len(b) - frameHead
		st := h.ready[0]
		n := min(st.left, frameBytes, st.window, h.window)
		if n > int64(room) {
			if room < leastPiece {
				break
			}
			n = int64(room)
		}
		copy(h.ready, h.ready[1:])
		h.ready = h.ready[:len(h.ready)-1]
		st.queued = false
		if st.gone || !st.pending || n <= 0 {
			continue
		}
		at := len(b)
		b = appendFrameHead(b, int(n), frameData, 0, st.id)
		if st.file == nil {
			b = append(b, st.mem[:n]...)
			st.mem = st.mem[n:]
		} else {
			b = b[:len(b)+int(n)]
			st.reading = true
			h.mu.Unlock()
			err := readFull(st.file, b[at+frameHead:], st.offset)
			h.mu.Lock()
			st.reading = false
			if err != nil || st.gone {
				b = b[:at]
				st.broken = err != nil
				st.notify()
				continue
			}
			st.offset += n
		}
		st.left -= n
		st.taken += n
		st.window -= n
		h.window -= n
		h.useful += int(n)
		if st.left > 0 {
			h.enqueue(st)
			continue
		}
		if st.last {
			b[at+4] = flagEndStream
		}
		h.sent = append(h.sent, st)
	}
	over := h.over
	h.mu.Unlock()
	var err error
	if !over && len(b) > 0 {
		_, err = h.c.Write(b)
	}
	putOut(b)
	h.mu.Lock()
	h.writing = false
	if err != nil && !h.over {
		h.fail()
		h.c.hangUp() // so that the goroutine that reads ends
	}
	for _, st := range h.sent {
		st.pending = h.over
		st.notify()
	}
	clear(h.sent)
	h.sent = h.sent[:0]
	h.room.Broadcast()
}

// flush writes what there is, unless another goroutine is writing.
func (h *h2conn) flush() {
	if !h.writing && !h.over && h.sendable() {
		h.round()
	}
	h.passOn()
}

// giveUp is for who has reserved room and has nothing to send any more: others may have queued
// meanwhile, and count on it.
func (h *h2conn) giveUp() error {
	h.passOn()
	return errGone
}

// passOn makes another goroutine write what is left, if anything is.
func (h *h2conn) passOn() {
	if h.writing || h.over || !h.sendable() {
		return
	}
	if len(h.ready) > 0 && h.window > 0 {
		h.ready[0].notify()
		return
	}
	h.goroutines++
	go func() {
		h.mu.Lock()
		for !h.writing && !h.over && h.sendable() {
			h.round()
		}
		h.mu.Unlock()
		h.leave()
	}()
}
