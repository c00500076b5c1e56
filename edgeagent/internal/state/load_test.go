package state

import (
	"errors"
	"fmt"
	"testing"
)

// What is read ahead comes in order, up to the error or as far as it is wanted.
func TestReadingAheadChangesNothing(t *testing.T) {
	t.Parallel()
	failed := errors.New("torn")
	for _, n := range []int{0, 1, 255, 256, 257, 5000} {
		for _, wanted := range []int{0, 1, 300, 10_000} {
			got := 0
			var err error
			for c, e := range ahead(func(yield func(Change, error) bool) {
				for i := range n {
					if !yield(Change{Key: fmt.Sprint(i)}, nil) {
						return
					}
				}
				yield(Change{}, failed)
			}) {
				if err = e; err != nil || got == wanted {
					break
				}
				if c.Key != fmt.Sprint(got) {
					t.Fatalf("of %d, change %d is %q", n, got, c.Key)
				}
				got++
			}
			if want := min(n, wanted); got != want {
				t.Errorf("of %d, %d came, want %d", n, got, want)
			}
			if (err == failed) != (wanted >= n) {
				t.Errorf("of %d, after %d: %v", n, got, err)
			}
		}
	}
}
