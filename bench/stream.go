package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// stream is the least edge that a control plane takes for one: a connection with one Sync call,
// which acknowledges steps and keeps nothing. It costs one goroutine and a few kilobytes, so that
// thousands of them hardly show beside the control plane that they measure.
type stream struct {
	in       *bufio.Reader
	out      *bufio.Writer
	framer   *http2.Framer
	unread   uint32 // bytes taken since the last window update
	partial  []byte // the beginning of a message whose rest has not come
	revision int64  // where it stands
	due      bool   // whether that is to be acknowledged
}

const (
	// syncCall is the number of a connection's only call: clients count in odd numbers (RFC 9113,
	// section 5.1.1).
	syncCall = 1
	// streamWindow is what a control plane may send before it is given leave for more.
	streamWindow = 1 << 30
	// messageHead is the length of what gRPC puts before a message: whether it is compressed, and
	// its size.
	messageHead = 5
	// chunkField is the number of SyncResponse.chunk.
	chunkField = 3
)

// openStream connects and says hello. secure is nil for a connection in the clear.
func openStream(ctx context.Context, address, id string, secure *tls.Config) (*stream, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		secure = secure.Clone()
		secure.NextProtos = []string{http2.NextProtoTLS}
		conn = tls.Client(conn, secure)
	}
	s := &stream{in: bufio.NewReaderSize(conn, 1<<10), out: bufio.NewWriterSize(conn, 1<<10)}
	s.framer = http2.NewFramer(s.out, s.in)
	s.framer.SetReuseFrames()
	s.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := s.greet(address, id, secure != nil); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// greet opens the connection and the call.
func (s *stream) greet(address, id string, secure bool) error {
	scheme := "http"
	if secure {
		scheme = "https"
	}
	var fields bytes.Buffer
	encoder := hpack.NewEncoder(&fields)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", scheme}, {":path", edgev1.EdgeService_Sync_FullMethodName},
		{":authority", address}, {"authorization", "Bearer " + tokenText}, {"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return err
		}
	}
	hello := &edgev1.Hello{
		Id: id, Region: "bench", Version: "bench", ProtocolVersion: 1, AcceptsSealed: true, HttpAddress: "127.0.0.1:80",
		BootId: id,
	}
	_, err := s.out.WriteString(http2.ClientPreface)
	return errors.Join(err,
		s.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow}),
		s.framer.WriteWindowUpdate(0, streamWindow),
		s.framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: syncCall, BlockFragment: fields.Bytes(), EndHeaders: true,
		}),
		s.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello}}),
		s.out.Flush())
}

// send puts a message into the buffer.
func (s *stream) send(m *edgev1.SyncRequest) error {
	data, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, messageHead, 64), m)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint32(data[1:], uint32(len(data)-messageHead))
	return s.framer.WriteData(syncCall, false, data)
}

// follow applies what it is sent until the connection ends, and calls moved for each revision that
// it has reached.
func (s *stream) follow(moved func(from, to int64)) error {
	for {
		frame, err := s.framer.ReadFrame()
		if err != nil {
			return err
		}
		from := s.revision
		if err := s.handle(frame); err != nil {
			return err
		}
		if s.revision != from {
			moved(from, s.revision)
		}
		if s.in.Buffered() > 0 {
			continue // what has come together is acknowledged together
		}
		if err := s.acknowledge(); err != nil {
			return err
		}
	}
}

// acknowledge says how far it is if that is due, and sends what is in the buffer.
func (s *stream) acknowledge() error {
	if s.due {
		s.due = false
		ack := &edgev1.Ack{Applied: s.revision, Persisted: s.revision, Durable: true}
		if err := s.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: ack}}); err != nil {
			return err
		}
	}
	return s.out.Flush()
}

func (s *stream) handle(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return s.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return s.framer.WritePing(true, frame.Data)
		}
	case *http2.MetaHeadersFrame:
		if frame.StreamEnded() {
			return fmt.Errorf("the control plane ended the stream: %v", frame.Fields)
		}
	case *http2.GoAwayFrame:
		return fmt.Errorf("the control plane ended the connection: %v %q", frame.ErrCode, frame.DebugData())
	case *http2.RSTStreamFrame:
		return fmt.Errorf("the control plane reset the stream: %v", frame.ErrCode)
	case *http2.DataFrame:
		if s.unread += frame.Length; s.unread > streamWindow/2 {
			if err := errors.Join(
				s.framer.WriteWindowUpdate(0, s.unread), s.framer.WriteWindowUpdate(syncCall, s.unread),
			); err != nil {
				return err
			}
			s.unread = 0
		}
		return s.take(frame.Data())
	}
	return nil
}

// take reads the messages in what a frame holds.
func (s *stream) take(data []byte) error {
	if len(s.partial) > 0 {
		s.partial = append(s.partial, data...)
		data = s.partial
	}
	for len(data) >= messageHead {
		size := int(binary.BigEndian.Uint32(data[1:messageHead]))
		if data[0] != 0 {
			return errors.New("the control plane sends compressed messages that were not asked for")
		}
		if len(data)-messageHead < size {
			break
		}
		if err := s.message(data[messageHead : messageHead+size]); err != nil {
			return err
		}
		data = data[messageHead+size:]
	}
	if len(data) == 0 {
		s.partial = nil
		return nil
	}
	s.partial = append(s.partial[:0], data...)
	return nil
}

func (s *stream) message(data []byte) error {
	if number, _, n := protowire.ConsumeTag(data); n > 0 && number == chunkField {
		return nil // a part of a state, which counts at its end
	}
	var m edgev1.SyncResponse
	if err := proto.Unmarshal(data, &m); err != nil {
		return err
	}
	switch m := m.GetMessage().(type) {
	case *edgev1.SyncResponse_End:
		s.revision, s.due = m.End.GetTarget(), true
	case *edgev1.SyncResponse_Live:
		if m.Live.GetPrev() != s.revision {
			return fmt.Errorf("a step after revision %d was sent to an edge at %d", m.Live.GetPrev(), s.revision)
		}
		s.revision, s.due = m.Live.GetRevision(), true
	case *edgev1.SyncResponse_Bookmark:
		s.revision = max(s.revision, m.Bookmark.GetRevision())
	case *edgev1.SyncResponse_Resync:
		return fmt.Errorf("the control plane sends everything anew: %s", m.Resync.GetReason())
	case *edgev1.SyncResponse_Drain:
		return fmt.Errorf("the control plane sends edges away: %s", m.Drain.GetReason())
	}
	return nil
}
