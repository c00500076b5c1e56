package control

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// compress returns bytes as one zstd frame.
func compress(t testing.TB, plain []byte, options ...zstd.EOption) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil, append(options, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(plain, nil)
}

// streamed returns a frame that does not say how much it holds.
func streamed(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	for some := range slices.Chunk(plain, 64<<10) {
		if _, err := w.Write(some); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encodedChanges(t testing.TB, changes ...*edgev1.Change) []byte {
	t.Helper()
	b, err := proto.Marshal(&edgev1.Changes{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zstdChunk(sequence int64, compressed []byte) message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Chunk{Chunk: &edgev1.Chunk{
		Sequence: sequence, Zstd: compressed,
	}}}
}

// compressed is messages with the changes of every chunk but the first compressed.
func compressed(t testing.TB, messages []message) []message {
	t.Helper()
	out := slices.Clone(messages)
	for i, m := range messages {
		if c := m.GetChunk(); c.GetSequence() > 0 {
			out[i] = zstdChunk(c.GetSequence(), compress(t, encodedChanges(t, c.GetChanges()...)))
		}
	}
	return out
}

func TestCompressedChunksAreTaken(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p := newPeer(t)
	a := start(t, testConfig(t, t.TempDir(), p.address))
	d := p.accept()
	if !d.hello.GetAcceptsZstd() {
		t.Error("the agent does not say that it takes compressed chunks")
	}
	d.send(h.welcome()).send(compressed(t, h.full())...)
	d.applied(h.revision)
	a.sees(t, h)

	from := h.revision
	changes := []*edgev1.Change{
		h.drop("accounts/account-3"), h.domain("account-2", "d.test.example"), h.account("account-9"),
	}
	d.send(begin(&edgev1.Begin{From: from, Target: h.revision}),
		zstdChunk(0, streamed(t, encodedChanges(t, changes...))), end(h.revision, h.digest()))
	d.applied(h.revision)
	a.sees(t, h)
	a.stop()
	load(t, a.cfg.StateDir).sees(t, h)
}

// A chunk that cannot be read, or takes too much, ends the stream, and the agent stays as it was.
func TestDamagedChunksAreRefused(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	was := h.clone()
	p, a, d := synced(t, h)
	d.close(nil)
	for i := range 20 {
		h.account(fmt.Sprint("more-", i))
	}
	plain := encodedChanges(t, h.all()...)
	whole := compress(t, plain)
	flipped := slices.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for _, tt := range []struct {
		what string
		zstd []byte
	}{
		{"torn", whole[:len(whole)/2]},
		{"damaged", flipped},
		{"with something after it", append(slices.Clone(whole), "x"...)},
		{"not compressed", plain},
		{"not changes", compress(t, []byte("\xff\xff\xff"))},
		{"8 MiB of zeros", compress(t, make([]byte, 8<<20))},
		{"8 MiB of zeros of no known size", streamed(t, make([]byte, 8<<20))},
		{"many small frames", bytes.Repeat(compress(t, make([]byte, 64<<10)), 100)},
	} {
		d := p.accept()
		if have := d.hello.GetHave(); have.GetRevision() != was.revision {
			t.Errorf("before a chunk that is %s the agent is at %d, want %d", tt.what, have.GetRevision(), was.revision)
		}
		d.send(h.welcome(), begin(&edgev1.Begin{Full: true, Target: h.revision}), zstdChunk(0, tt.zstd))
		d.over()
		a.sees(t, was)
	}
	d = p.accept()
	d.send(h.welcome(), begin(&edgev1.Begin{Full: true, Target: h.revision}),
		&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Chunk{
			Chunk: &edgev1.Chunk{Changes: h.all(), Zstd: whole},
		}})
	d.over()
	a.sees(t, was)
	p.accept().send(
		h.welcome(), begin(&edgev1.Begin{Full: true, Target: h.revision}), zstdChunk(0, whole),
		end(h.revision, h.digest()),
	).applied(
		h.revision,
	)
	a.sees(t, h)
}

func TestDecoderIsBounded(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		what       string
		compressed []byte
		want       string
	}{
		{"too large, and says so", compress(t, make([]byte, maxChunk+1)), "it takes more than 4 MiB decompressed"},
		{"too large without a word", streamed(t, make([]byte, maxChunk+1)), "it takes more than 4 MiB decompressed"},
		{"torn", compress(t, make([]byte, 1000))[:8], "decompress: "},
		{"nothing known", []byte("plain"), "decompress: "},
	} {
		var d decoder
		if _, err := d.decode(tt.compressed); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.want)
		}
		if cap(d.plain) > 2*maxChunk {
			t.Errorf("%s: a buffer of %d bytes", tt.what, cap(d.plain))
		}
	}
	largest := &edgev1.Change{Key: "k", Value: make([]byte, maxChunk-100)}
	var d decoder
	if changes, err := d.decode(compress(t, encodedChanges(t, largest), zstd.WithWindowSize(maxChunk))); err != nil ||
		len(changes) != 1 {
		t.Errorf("a chunk of just under %d bytes: %v", maxChunk, err)
	}
}

func FuzzCompressedChunk(f *testing.F) {
	h := smallHistory()
	plain := encodedChanges(f, h.all()...)
	f.Add(compress(f, plain))
	f.Add(streamed(f, plain))
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		var d decoder
		changes, err := d.decode(b)
		if len(d.plain) > maxChunk {
			t.Errorf("%d bytes", len(d.plain))
		}
		if err != nil && changes != nil {
			t.Error("changes beside an error")
		}
	})
}
