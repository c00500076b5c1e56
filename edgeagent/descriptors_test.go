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
		1 << 20: {50_000, 20_000, 2_048, 1_024},
		78_500:  {50_000, 20_000, 2_048, 1_024},
		20_480:  {12_440, 4_976, 509, 254},
		4_096:   {1_990, 796, 81, 40},
		1_024:   {497, 199, 20, 10},
		64:      {31, 12, 1, 1},
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
