package edgesvc

import "testing"

func TestHerdIsOverOnce(t *testing.T) {
	t.Parallel()
	var h herd
	for i, look := range []struct {
		begun uint64
		over  bool
	}{
		{10, false}, {10, false}, {10, false}, {10, false}, {10, false}, {10, false}, // too few to matter
		{400, false}, {600, false}, {600, false}, {600, false}, {600, false}, {600, false}, {600, true}, {600, false},
		{601, false}, {601, false}, {601, false}, {601, false}, {601, false}, {601, false},
	} {
		if got := h.over(look.begun); got != look.over {
			t.Errorf("look %d, of %d streams: %t", i, look.begun, got)
		}
	}
}
