package origin

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// Each script is a row of events and, after a colon, the state they lead to: f is a failure, b a busy answer, s a success, p a
// probe that is admitted, P one that is not, F, B and S what a probe finds, H a good head, R nothing, and a number so many
// seconds.
func TestBreakerScripts(t *testing.T) {
	t.Parallel()
	for _, script := range []string{
		"f f f f : closed",
		"f f f f f : open",
		"f f f f s f f f f : closed",
		"b b b b b b b b b : closed",
		"b b b b b b b b b b : open",
		"f b f b f b f : open",
		"f f f f f P 29 P : open",
		"f f f f f 36 : half_open",
		"f f f f f 36 p P P : half_open",
		"f f f f f 36 p S : closed",
		"f f f f f 36 p S f f f f : closed",
		"f f f f f 36 p R p S : closed",
		// A good head closes it, and the end of the body decides.
		"f f f f f 36 p H : closed",
		"f f f f f 36 p H f P : open",
		"f f f f f 36 p H s f f f f : closed",
		"f f f f f 36 p F P : open",
		"f f f f f 36 p B P : open",
		// What was asked before it opened says nothing new.
		"f f f f f s : open",
		"f f f f f f f f f f f 36 : half_open",
		"f f f f f 36 p s f P S : closed",
		// Each time in a row it opens for longer, up to a bound.
		"f f f f f 36 p F 59 P : open",
		"f f f f f 36 p F 72 : half_open",
		"f f f f f 36 p F 72 p F 89 P : open",
		"f f f f f 36 p F 72 p F 108 : half_open",
		"f f f f f 36 p F 72 p F 108 p F 144 p F 180 p F 216 p F 252 p F 288 p F 324 p F 360 p F 360 : half_open",
		// Soon after it closed it opens for longer again, and for as long as the first time once it has held.
		"f f f f f 36 p S f f f f f 59 : open",
		"f f f f f 36 p S 36 f f f f f 36 : half_open",
	} {
		events, want, _ := strings.Cut(script, " : ")
		var b breaker
		now := time.Unix(1e9, 0)
		for i, event := range strings.Fields(events) {
			switch event {
			case "f", "F":
				b.fail(now, event == "F", failureWeight)
			case "b", "B":
				b.fail(now, event == "B", busyWeight)
			case "s", "S":
				b.succeed(now, event == "S")
			case "H":
				b.trust(now)
			case "p", "P":
				if ok, probe := b.admit(now); ok != (event == "p") || probe != ok {
					t.Errorf("%s: event %d is admitted: %v, as a probe: %v", script, i, ok, probe)
				}
			case "R":
				b.release()
			default:
				seconds, err := strconv.Atoi(event)
				if err != nil {
					t.Fatal(err)
				}
				now = now.Add(time.Duration(seconds) * time.Second)
			}
		}
		if got := b.state(now); string(got) != want {
			t.Errorf("%s: it is %s", script, got)
		}
	}
}

// No two edges open for the same time.
func TestBreakerJitter(t *testing.T) {
	t.Parallel()
	now, seen := time.Unix(1e9, 0), map[time.Duration]bool{}
	for range 20 {
		var b breaker
		b.fail(now, false, breakAt)
		if b.open < openFor || b.open > openFor*6/5 {
			t.Errorf("opens for %s", b.open)
		}
		seen[b.open] = true
	}
	if len(seen) < 10 {
		t.Errorf("20 breakers share %d times", len(seen))
	}
}

func TestBudgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	spend := func(b *budget) (n int) {
		for b.spend(now) {
			n++
		}
		return n
	}
	retries := retryBudget(now)
	if n := spend(&retries); n != 10 {
		t.Errorf("%d retries at the start", n)
	}
	for range 6 {
		retries.earn()
	}
	if n := spend(&retries); n != 1 {
		t.Errorf("%d retries for 6 requests", n)
	}
	now = now.Add(time.Second)
	if n := spend(&retries); n != 3 {
		t.Errorf("%d retries in a second", n)
	}
	now = now.Add(time.Hour)
	if n := spend(&retries); n != 10 {
		t.Errorf("%d retries saved in an hour", n)
	}
	now = now.Add(-time.Hour)
	if n := spend(&retries); n != 0 {
		t.Errorf("%d retries for a clock that went back", n)
	}
	hedges, made := hedgeBudget(now), 0
	for range 10_000 {
		if hedges.earn(); hedges.spend(now) {
			made++
		}
	}
	if made < 195 || made > 200 {
		t.Errorf("%d hedges for 10,000 requests", made)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	var l latency
	for i := range minSamples - 1 {
		l.add(time.Duration(i))
	}
	if l.p95 != 0 {
		t.Errorf("%s after too few", l.p95)
	}
	for i := range 1000 {
		l.add(time.Duration(i%100) * time.Millisecond)
	}
	if l.p95 < 85*time.Millisecond || len(l.ring) != samples {
		t.Errorf("%s of %d", l.p95, len(l.ring))
	}
	for range 2 * samples {
		l.add(time.Second)
	}
	if l.p95 != time.Second {
		t.Errorf("%s, which is long ago", l.p95)
	}
}
