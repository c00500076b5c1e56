package series

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
)

func family(b *Bound, exists func(account, id string) bool) *Family {
	f, first := NewFamily(b, "url_endpoint", exists,
		Metric{Name: "requests_total", Help: "Requests.", Label: "outcome", Values: []string{"hit", "miss"}},
		Metric{Name: "seconds_total", Help: "Time.", Unit: 0.5},
	)
	if fmt.Sprint(first) != "[0 2]" {
		panic(first)
	}
	return f
}

func always(string, string) bool { return true }

// check compares what is scraped, without comments.
func check(t *testing.T, f *Family, want ...string) {
	t.Helper()
	var got []string
	text, err := testutil.CollectAndFormat(f, expfmt.TypeTextPlain, "requests_total", "seconds_total")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("scraped\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSeriesAreBoundedTogether(t *testing.T) {
	t.Parallel()
	b := NewBound(3)
	f := family(b, always)
	first := f.Of("acme", "default")
	first.Add(0, 1)
	first.Add(2, 3)
	second := f.Of("globex", "default")
	second.Add(1, 1)
	second.Add(0, 1) // there is no room for it
	first.Add(0, 1)
	for i := range 10 {
		f.Of(fmt.Sprint("account-", i), "default").Add(0, 1)
	}
	first.Add(1, 5)
	check(t, f,
		`requests_total{account="acme",outcome="hit",url_endpoint="default"} 2`,
		`requests_total{account="globex",outcome="miss",url_endpoint="default"} 1`,
		`requests_total{account="other",outcome="hit",url_endpoint="other"} 11`,
		`requests_total{account="other",outcome="miss",url_endpoint="other"} 5`,
		`seconds_total{account="acme",url_endpoint="default"} 1.5`,
	)
	if len(f.each) != 3 {
		t.Errorf("%d things are held beyond the bound", len(f.each))
	}
}

// What is deleted makes room. An account of the name of what is beyond the bound breaks nothing.
func TestWhatIsGoneMakesRoom(t *testing.T) {
	t.Parallel()
	gone := map[string]bool{}
	f := family(NewBound(1), func(account, _ string) bool { return !gone[account] })
	kept := f.Of("acme", "default")
	kept.Add(0, 1)
	gone["acme"] = true
	check(t, f)
	kept.Add(0, 1) // by a request that was under way
	f.Of("globex", "default").Add(0, 1)
	f.Of(Other, Other).Add(1, 1)
	check(t, f,
		`requests_total{account="globex",outcome="hit",url_endpoint="default"} 1`,
		`requests_total{account="other",outcome="hit",url_endpoint="other"} 2`,
		`requests_total{account="other",outcome="miss",url_endpoint="other"} 1`,
	)
}

// However many count at once, nothing is lost.
func TestCountsAddUp(t *testing.T) {
	t.Parallel()
	f := family(NewBound(20), always)
	var counting sync.WaitGroup
	for range 8 {
		counting.Go(func() {
			for n := range 4000 {
				f.Of(fmt.Sprint("account-", n%40), "default").Add(n%2, 1)
			}
		})
	}
	counting.Wait()
	sum := uint64(0)
	for _, c := range f.each {
		for i := range c.counts {
			sum += c.counts[i].n.Load()
		}
	}
	if sum != 8*4000 {
		t.Errorf("%d of %d are counted", sum, 8*4000)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	f := family(NewBound(20), always)
	c := f.Of("account-1", "default")
	if n := testing.AllocsPerRun(100, func() { c.Add(0, 1); f.Of("account-1", "default").Add(1, 1) }); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func TestWithoutABound(t *testing.T) {
	t.Parallel()
	f := family(nil, always)
	f.Of("acme", "default").Add(0, 1)
	check(t, f, `requests_total{account="other",outcome="hit",url_endpoint="other"} 1`)
}
