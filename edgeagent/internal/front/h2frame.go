package front

import "encoding/binary"

// appendFrameHead appends what a frame begins with (RFC 9113 4.1).
func appendFrameHead(b []byte, length int, kind, flags byte, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

// frame handles the next frame. It reports whether the whole frame had come.
func (h *h2conn) frame() (bool, error) {
	if h.skip > 0 {
		n := min(h.skip, h.to-h.from)
		h.skip -= n
		h.from += n
	}
	if !h.greeted {
		n := min(h.to-h.from, len(preface))
		if string(h.in[h.from:h.from+n]) != preface[:n] {
			return false, codeProtocol
		}
		if n < len(preface) {
			return false, nil
		}
		h.from += n
		h.greeted = true
	}
	b := h.in[h.from:h.to]
	if len(b) < frameHead {
		return false, nil
	}
	length, kind, flags := int(b[0])<<16|int(b[1])<<8|int(b[2]), b[3], b[4]
	stream := binary.BigEndian.Uint32(b[5:]) & maxWindow
	switch {
	case length > frameBytes:
		return false, codeFrameSize
	case !h.gotSettings && (kind != frameSettings || flags&flagAck != 0): // RFC 9113 3.4
		return false, codeProtocol
	// RFC 9113 6.10
	case (h.blockOf != 0) != (kind == frameContinuation) || kind == frameContinuation && stream != h.blockOf:
		return false, codeProtocol
	}
	whole := len(b) >= frameHead+length
	if kind == frameData && length > 0 { // its content is dropped, so it need not have come whole
		need := frameHead
		if flags&flagPadded != 0 {
			need++
		}
		if len(b) < need {
			return false, nil
		}
		padding := 0
		if flags&flagPadded != 0 {
			if padding = 1 + int(b[frameHead]); padding > length {
				return false, codeProtocol
			}
		}
		used := min(len(b), frameHead+length)
		h.from += used
		h.skip = frameHead + length - used
		return true, h.data(stream, length, length-padding, flags&flagEndStream != 0)
	}
	if !whole {
		return false, nil
	}
	payload := b[frameHead : frameHead+length]
	h.from += frameHead + length
	if kind != frameHeaders {
		if err := h.glitch(length); err != nil {
			return false, err
		}
	}
	switch kind {
	case frameData:
		if flags&flagPadded != 0 {
			return false, codeFrameSize // no room for the length of the padding
		}
		return true, h.data(stream, 0, 0, flags&flagEndStream != 0)
	case frameHeaders:
		return true, h.headers(stream, flags, payload)
	case frameContinuation:
		return true, h.continuation(flags, payload)
	case framePriority:
		return true, h.priority(stream, payload)
	case frameReset:
		return true, h.clientReset(stream, payload)
	case frameSettings:
		return true, h.settings(stream, flags, payload)
	case framePushPromise:
		return false, codeProtocol
	case framePing:
		return true, h.ping(stream, flags, payload)
	case frameGoAway:
		if stream != 0 {
			return false, codeProtocol
		}
		if length < 8 {
			return false, codeFrameSize
		}
		return true, nil // The client opens no more streams, or it does.
	case frameWindowUpdate:
		return true, h.windowUpdate(stream, payload)
	case framePriorityUpdate: // is ignored too
		switch {
		case length < 4:
			return false, codeFrameSize
		case stream != 0 || binary.BigEndian.Uint32(payload)&maxWindow == 0:
			return false, codeProtocol
		}
	}
	return true, nil // RFC 9113 5.5
}

// headers begins a request, or ends one with trailers.
func (h *h2conn) headers(stream uint32, flags byte, payload []byte) error {
	if stream%2 == 0 {
		return codeProtocol
	}
	padding := 0
	if flags&flagPadded != 0 {
		if len(payload) == 0 {
			return codeFrameSize
		}
		padding = int(payload[0])
		payload = payload[1:]
	}
	h.blockSelf = false
	if flags&flagPriority != 0 {
		if len(payload) < 5 {
			return codeFrameSize
		}
		h.blockSelf = binary.BigEndian.Uint32(payload)&maxWindow == stream
		payload = payload[5:]
	}
	if padding > len(payload) {
		return codeProtocol
	}
	payload = payload[:len(payload)-padding]
	h.blockEnds = flags&flagEndStream != 0
	if flags&flagEndHeaders != 0 {
		return h.headerBlock(stream, payload)
	}
	h.blockOf, h.pieces = stream, 0
	h.block = append(h.block[:0], payload...)
	return nil
}

func (h *h2conn) continuation(flags byte, payload []byte) error {
	h.pieces++
	if h.pieces > maxContinuations || len(h.block)+len(payload) > maxBlock {
		return codeCalm
	}
	h.block = append(h.block, payload...)
	if flags&flagEndHeaders == 0 {
		return nil
	}
	stream, block := h.blockOf, h.block
	h.blockOf, h.block = 0, nil // so that an idle connection holds none
	return h.headerBlock(stream, block)
}

// priority ignores a priority.
func (h *h2conn) priority(stream uint32, payload []byte) error {
	switch {
	case stream == 0:
		return codeProtocol
	case len(payload) != 5:
		h.resetAny(stream, codeFrameSize)
	case binary.BigEndian.Uint32(payload)&maxWindow == stream:
		h.resetAny(stream, codeProtocol)
	}
	return nil
}

// resetAny ends a stream in whatever state with an error.
func (h *h2conn) resetAny(stream uint32, code h2code) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if st := h.open[stream]; st != nil {
		h.drop(st)
	}
	h.appendReset(stream, code)
}

func (h *h2conn) clientReset(stream uint32, payload []byte) error {
	switch {
	case len(payload) != 4:
		return codeFrameSize
	case stream == 0 || stream > h.newest || stream%2 == 0:
		return codeProtocol
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if st := h.open[stream]; st != nil {
		h.drop(st)
	}
	if past := h.pastOf(stream); past.id == stream {
		past.reset = false // Nothing more may come from the client either.
	}
	return nil
}

func (h *h2conn) settings(stream uint32, flags byte, payload []byte) error {
	switch {
	case stream != 0:
		return codeProtocol
	case flags&flagAck != 0:
		if len(payload) != 0 {
			return codeFrameSize
		}
		return nil
	case len(payload)%6 != 0:
		return codeFrameSize
	}
	first, sizeDown := int64(-1), false
	for s := payload; len(s) > 0; s = s[6:] {
		value := binary.BigEndian.Uint32(s[2:])
		switch binary.BigEndian.Uint16(s) {
		case settingTableSize:
			// The encoder has no table. When the client makes the table smaller, the next header
			// block has to say which size it has (RFC 7541 4.2).
			sizeDown = sizeDown || value < tableBytes
		case settingEnablePush:
			if value > 1 {
				return codeProtocol
			}
		case settingInitialWindow:
			if value > maxWindow {
				return codeFlowControl
			}
			first = int64(value)
		case settingMaxFrame:
			if value < frameBytes || value > 1<<24-1 {
				return codeProtocol
			}
		}
	}
	h.gotSettings = true
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sizeDown = h.sizeDown || sizeDown
	if first >= 0 {
		// Values before the last one of a frame have no visible effect, and to apply each to so
		// many streams would cost much.
		change := first - h.first
		h.first = first
		for _, st := range h.open {
			if !h.widen(st, change) {
				return codeFlowControl
			}
		}
	}
	h.reserve(frameHead)
	h.out = appendFrameHead(h.out, 0, frameSettings, flagAck, 0)
	return nil
}

func (h *h2conn) ping(stream uint32, flags byte, payload []byte) error {
	switch {
	case stream != 0:
		return codeProtocol
	case len(payload) != 8:
		return codeFrameSize
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if flags&flagAck == 0 {
		h.reserve(frameHead + 8)
		h.out = append(appendFrameHead(h.out, 8, framePing, flagAck, 0), payload...)
	} else if h.draining && !h.knowsLast && string(payload) == drainPing {
		h.knowsLast, h.last = true, h.newest
		h.appendGoAway(h.newest, codeNone)
	}
	return nil
}

func (h *h2conn) windowUpdate(stream uint32, payload []byte) error {
	if len(payload) != 4 {
		return codeFrameSize
	}
	more := int64(binary.BigEndian.Uint32(payload) & maxWindow)
	if stream == 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.window += more
		switch {
		case more == 0:
			return codeProtocol
		case h.window > maxWindow:
			return codeFlowControl
		}
		return nil
	}
	if stream > h.newest || stream%2 == 0 {
		return codeProtocol
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.open[stream]
	switch {
	case st == nil: // The stream has ended while this was on its way.
	case more == 0:
		h.reset(st, codeProtocol)
	case !h.widen(st, more):
		h.reset(st, codeFlowControl)
	}
	return nil
}

// data drops the content of a request, which no handler reads. So the window of the stream is never
// opened again. Its length includes padding.
func (h *h2conn) data(stream uint32, length, content int, ends bool) error {
	if stream%2 == 0 || stream > h.newest {
		return codeProtocol
	}
	if h.received += length; h.received > firstWindow {
		return codeFlowControl
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.received > firstWindow/2 {
		h.reserve(frameHead + 4)
		h.out = binary.BigEndian.AppendUint32(appendFrameHead(h.out, 4, frameWindowUpdate, 0, 0), uint32(h.received))
		h.received = 0
	}
	st := h.open[stream]
	if st == nil {
		if past := h.pastOf(stream); past.id == stream && !past.reset {
			h.appendReset(stream, codeClosed)
		}
		return h.glitchLocked(0)
	}
	h.useful += content
	st.flow += length
	st.got += int64(content)
	switch {
	case st.ended:
		h.reset(st, codeClosed)
	case st.flow > firstWindow:
		h.reset(st, codeFlowControl)
	case st.length >= 0 && (st.got > st.length || ends && st.got < st.length): // RFC 9113 8.1.1
		h.reset(st, codeProtocol)
	case ends:
		st.ended = true
	}
	st.notify()
	if content == 0 && !ends {
		return h.glitchLocked(0)
	}
	return nil
}

// glitch counts a frame that a client may send once in a while, but not all the time.
func (h *h2conn) glitch(length int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.glitchLocked(length)
}

func (h *h2conn) glitchLocked(length int) error {
	if h.noise += frameHead + length + frameCost; h.noise > maxNoise+8*h.useful {
		return codeCalm
	}
	return nil
}
