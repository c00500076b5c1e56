package main

import (
	"bytes"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"
)

// A request is left out if it was due from a moment before a pause until as long behind it as it
// has lasted, however long it took itself.
func TestUndisturbed(t *testing.T) {
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		pauses []gap
		want   []int // numbers of the requests that count
	}{
		"no pauses":          {nil, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"one":                {[]gap{{40 * ms, 55 * ms}}, []int{0, 1, 2, 3, 8, 9}},
		"just behind one":    {[]gap{{41 * ms, 45 * ms}}, []int{0, 1, 2, 3, 5, 6, 7, 8, 9}},
		"two, in no order":   {[]gap{{80 * ms, 82 * ms}, {10 * ms, 12 * ms}}, []int{0, 2, 3, 4, 5, 6, 7, 9}},
		"one within another": {[]gap{{10 * ms, 40 * ms}, {20 * ms, 22 * ms}}, []int{0, 8, 9}},
		"before the first":   {[]gap{{-20 * ms, -5 * ms}}, []int{2, 3, 4, 5, 6, 7, 8, 9}},
		"behind the last":    {[]gap{{200 * ms, 300 * ms}}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"all the time":       {[]gap{{0, 100 * ms}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var all []asked // one each 10 ms, that takes as many seconds as its number is
			for n := range 10 {
				all = append(all, asked{Took: time.Duration(n) * time.Second})
			}
			var want []time.Duration
			for _, n := range test.want {
				want = append(want, all[n].Took)
			}
			if got := undisturbed(all, float64(10*ms), test.pauses); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// The ranks are those of tables of the sign test at 5 %, both sides.
func TestMedianWithin(t *testing.T) {
	for n, left := range map[int]int{1: 0, 5: 0, 6: 0, 8: 0, 9: 1, 12: 2, 15: 3, 25: 7, 100: 39} {
		var values []float64
		for i := range n {
			values = append(values, float64((i*7+3)%n))
		}
		if n%7 == 0 {
			t.Fatal("the values are not all different")
		}
		if low, high := medianWithin(values); low != float64(left) || high != float64(n-1-left) {
			t.Errorf("of %d, from %v to %v, want %d left out at each end", n, low, high, left)
		}
	}
	if low, high := medianWithin(nil); low != 0 || high != 0 {
		t.Errorf("of none, %v and %v", low, high)
	}
}

func TestCompared(t *testing.T) {
	times := func(all ...int) (d []time.Duration) {
		for _, n := range all {
			d = append(d, time.Duration(n))
		}
		return d
	}
	for _, test := range []struct {
		ours, theirs []time.Duration
		want         string
	}{
		{times(2, 4, 9), times(4, 4, 6), "1.00 (0.50 to 1.50)"},
		{times(2, 0, 9), times(4, 4, 6), "0.50 (0.50 to 1.50)"}, // nothing is known of the second round
		{times(0), times(1), "-"},
		{nil, nil, "-"},
	} {
		if got := compared(test.ours, test.theirs); got != test.want {
			t.Errorf("%v to %v: %s, want %s", test.ours, test.theirs, got, test.want)
		}
	}
}

// What a generator writes, the process that started it reads.
func TestLoopReport(t *testing.T) {
	for _, want := range []*loopReport{
		{[]asked{{1, 2}, {3, 4}}, []gap{{5, 6}}, true},
		{[]asked{{1, 2}}, []gap{}, false},
	} {
		var b bytes.Buffer
		if err := want.write(&b); err != nil {
			t.Fatal(err)
		}
		cut := b.Bytes()[:b.Len()-1]
		got, err := readReport(&b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if _, err := readReport(bytes.NewReader(cut)); err == nil {
			t.Error("a report that was cut is read")
		}
	}
}

// A witness ends when it is told to, and its pauses follow each other.
func TestWitness(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("it would be on the core of everything else")
	}
	w := watchCore(serverCore, time.Now())
	if w == nil {
		t.Skip("no right to make real-time threads")
	}
	last := time.Duration(0)
	for _, p := range w.end() {
		if p.From < last || p.To-p.From < leastPause {
			t.Errorf("a pause from %s to %s", p.From, p.To)
		}
		last = p.To
	}
}
