package frequent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestTop(t *testing.T) {
	c := New(3)
	for _, item := range []string{"b", "a", "c", "a", "b", "a"} {
		c.Add(item, 1)
	}
	want := []Item{{"a", 3}, {"b", 2}, {"c", 1}}
	if got := c.Top(10); !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	if got := c.Top(2); !slices.Equal(got, want[:2]) {
		t.Errorf("two: %v, want %v", got, want[:2])
	}
	c.Add("d", 5) // takes one off of each
	if got, want := c.Top(10), []Item{{"d", 4}, {"a", 2}, {"b", 1}}; !slices.Equal(got, want) {
		t.Errorf("after another: %v, want %v", got, want)
	}
	c.Add("e", 1) // takes the last of b, and has none left itself
	if got, want := c.Top(10), []Item{{"d", 3}, {"a", 1}}; !slices.Equal(got, want) {
		t.Errorf("after one that comes once: %v, want %v", got, want)
	}
}

// Whatever comes in which order, what is said of an item is its true count or less, by no more than
// the bound, and memory stays bounded.
func TestBounds(t *testing.T) {
	const size = 20
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		c, truth, all := New(size), make(map[string]int64), int64(0)
		for range 5000 {
			item := fmt.Sprint(random.IntN(1 + random.IntN(500)))
			n := 1 + random.Int64N(4)
			c.Add(item, n)
			truth[item] += n
			all += n
		}
		said := make(map[string]int64)
		for _, item := range c.Top(1000) {
			said[item.Item] = item.Count
		}
		if len(said) > size {
			t.Fatalf("seed %d: %d items are kept, more than %d", seed, len(said), size)
		}
		for item, count := range truth {
			if n := said[item]; n > count || n < count-all/(size+1) {
				t.Fatalf("seed %d: %q was counted %d times of %d, and is said to be %d", seed, item, count, all, n)
			}
		}
	}
}
