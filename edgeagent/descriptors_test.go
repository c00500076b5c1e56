package edgeagent

import (
	"math"
	"syscall"
	"testing"

	"github.com/edgewalk/edgewalk/internal/listen"
)

func TestCapacityFitsTheLimitOnOpenFiles(t *testing.T) {
	t.Parallel()
	for limit, want := range map[uint64]capacity{
		1 << 20: {50_000, 20_000, 2_048},
		77_500:  {50_000, 20_000, 2_048},
		20_480:  {12_607, 5_043, 516},
		4_096:   {2_017, 806, 82},
		1_024:   {504, 201, 20},
		64:      {31, 12, 1},
	} {
		got := fit(limit)
		if got != want {
			t.Errorf("of %d files: %+v, want %+v", limit, got, want)
		}
		if n := got.files(); uint64(n) > limit {
			t.Errorf("of %d files, %d may be open", limit, n)
		}
	}
}

func TestLimitOnOpenFilesIsRaised(t *testing.T) {
	t.Parallel()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got, err := listen.OpenFiles(); got != limit.Max || err != nil {
		t.Errorf("%d files may be open, of %d: %v", got, limit.Max, err)
	}
}

func TestMemoryFitsTheLimitOnIt(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int64]int64{
		math.MaxInt64: 128 << 20, // none was set
		1 << 30:       128 << 20,
		200 << 20:     50 << 20,
		0:             1 << 20,
	} {
		if got := memoryShare(limit); got != want {
			t.Errorf("of %d bytes: %d, want %d", limit, got, want)
		}
	}
}
