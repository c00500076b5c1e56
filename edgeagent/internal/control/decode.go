package control

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// maxChunk bounds a chunk after decompression: it may take what a message may.
const maxChunk = 4 << 20

var errTooLarge = fmt.Errorf("it takes more than %d MiB decompressed", maxChunk>>20)

// decoder decompresses the chunks of a state, each by itself. The zero value is ready for use.
type decoder struct {
	zstd  *zstd.Decoder
	plain []byte // the last chunk
}

// decode returns the changes in a compressed chunk. They share nothing with it.
func (d *decoder) decode(compressed []byte) ([]*edgev1.Change, error) {
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxChunk), zstd.WithDecoderMaxWindow(maxChunk))
		if err != nil {
			return nil, err
		}
	}
	var err error
	d.plain, err = d.zstd.DecodeAll(compressed, d.plain[:0])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	changes := new(edgev1.Changes)
	if err := proto.Unmarshal(d.plain, changes); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return changes.GetChanges(), nil
}
