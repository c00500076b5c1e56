package feed

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Fields of the messages in edgewalk/edge/v1/edge.proto that are encoded here, so that a resource's
// bytes are encoded once, whatever the number of edges and of frames they travel in. The tests
// decode every frame with the generated code.
const (
	changeKey    protowire.Number = 1
	changeMod    protowire.Number = 2
	changeCreate protowire.Number = 3
	changeValue  protowire.Number = 4

	livePrev     protowire.Number = 1
	liveRevision protowire.Number = 2
	liveChanges  protowire.Number = 3
	liveSeen     protowire.Number = 4

	chunkSequence protowire.Number = 1
	chunkChanges  protowire.Number = 2
	chunkZstd     protowire.Number = 3

	changesChanges protowire.Number = 1

	responseChunk protowire.Number = 3
	responseLive  protowire.Number = 5
)

// frameRoom is more than the fields around the changes of a frame take.
const frameRoom = 64

// encodeChange encodes a record as a Change message with the value last. The offset of the value is
// -1 for a deleted one.
func encodeChange(r topology.Record) (change []byte, value int) {
	key := r.Key.String()
	change = make([]byte, 0, len(key)+len(r.Value)+32)
	change = protowire.AppendTag(change, changeKey, protowire.BytesType)
	change = protowire.AppendString(change, key)
	change = appendInt(change, changeMod, r.ModRevision)
	change = appendInt(change, changeCreate, r.CreateRevision)
	if r.Value == nil {
		return change, -1
	}
	change = protowire.AppendTag(change, changeValue, protowire.BytesType)
	change = protowire.AppendVarint(change, uint64(len(r.Value)))
	value = len(change)
	return append(change, r.Value...), value
}

// encodeLive encodes a SyncResponse with a Live. What does not depend on prev begins at the
// returned offset.
func encodeLive(prev, revision int64, changes [][]byte, seen time.Time) (frame []byte, shared int) {
	size := 0
	for _, change := range changes {
		size += fieldSize(len(change))
	}
	body := make([]byte, 0, size+frameRoom)
	for _, change := range changes {
		body = protowire.AppendTag(body, liveChanges, protowire.BytesType)
		body = protowire.AppendBytes(body, change)
	}
	body = protowire.AppendTag(body, liveSeen, protowire.BytesType)
	body = protowire.AppendBytes(body, encodeTimestamp(seen))
	head := liveHead(prev, revision, len(body))
	return append(head, body...), len(head)
}

// liveHead encodes what stands before the changes of a Live.
func liveHead(prev, revision int64, body int) []byte {
	var fields []byte
	fields = appendInt(fields, livePrev, prev)
	fields = appendInt(fields, liveRevision, revision)
	head := make([]byte, 0, frameRoom+body)
	head = protowire.AppendTag(head, responseLive, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(len(fields)+body))
	return append(head, fields...)
}

// encodeChunk encodes a SyncResponse with a Chunk.
func encodeChunk(sequence int64, changes [][]byte, size int) []byte {
	var head []byte
	head = appendInt(head, chunkSequence, sequence)
	frame := make([]byte, 0, size+len(head)+frameRoom)
	frame = protowire.AppendTag(frame, responseChunk, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(size+len(head)))
	frame = append(frame, head...)
	for _, change := range changes {
		frame = protowire.AppendTag(frame, chunkChanges, protowire.BytesType)
		frame = protowire.AppendBytes(frame, change)
	}
	return frame
}

// appendChanges adds the encoding of a Changes message to b.
func appendChanges(b []byte, changes [][]byte) []byte {
	for _, change := range changes {
		b = protowire.AppendTag(b, changesChanges, protowire.BytesType)
		b = protowire.AppendBytes(b, change)
	}
	return b
}

// encodeZstdChunk encodes a SyncResponse with a Chunk that holds compressed changes.
func encodeZstdChunk(sequence int64, compressed []byte) []byte {
	head := appendInt(nil, chunkSequence, sequence)
	frame := make([]byte, 0, len(compressed)+len(head)+frameRoom)
	frame = protowire.AppendTag(frame, responseChunk, protowire.BytesType)
	frame = protowire.AppendVarint(frame, uint64(len(head)+fieldSize(len(compressed))))
	frame = append(frame, head...)
	frame = protowire.AppendTag(frame, chunkZstd, protowire.BytesType)
	return protowire.AppendBytes(frame, compressed)
}

// fieldSize is what a field of n bytes with a number below 16 takes.
func fieldSize(n int) int { return 1 + protowire.SizeBytes(n) }

func encodeTimestamp(t time.Time) []byte {
	b := appendInt(nil, 1, t.Unix())
	return appendInt(b, 2, int64(t.Nanosecond()))
}

// appendInt leaves a zero out, as proto3 does.
func appendInt(b []byte, field protowire.Number, v int64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}
