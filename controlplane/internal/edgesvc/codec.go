package edgesvc

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that everything but frames goes through
	"google.golang.org/grpc/mem"
)

// frame is an encoded SyncResponse in parts that many streams share. Sending it neither encodes nor
// changes it.
type frame [][]byte

func (f frame) size() (n int) {
	for _, part := range f {
		n += len(part)
	}
	return n
}

// codec passes frames through and leaves all other messages to the standard codec.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Marshal implements [encoding.CodecV2]. gRPC frees the buffers that it returns; freeing a
// SliceBuffer does nothing.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, len(f))
	for i, part := range f {
		out[i] = mem.SliceBuffer(part)
	}
	return out, nil
}
