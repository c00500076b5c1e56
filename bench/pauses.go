package main

import (
	"math/big"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// gap is a time in which a core ran nothing, because the machine had given it to another one, or in
// which a generator got no time of its core. It counts from when the generator began.
type gap struct{ From, To time.Duration }

const (
	// leastPause is how late a clock has to be looked at to be noted. A timer of a core that runs
	// is never as late.
	leastPause = time.Millisecond
	// witnessTime is how often a witness looks.
	witnessTime = 500 * time.Microsecond
)

// witness notes the pauses of a core that a server has: of the real-time threads of a core there is
// none but its own, so that nothing but the machine keeps it from looking at the clock. It takes
// about 1 % of the core.
type witness struct {
	pauses []gap
	stop   chan struct{}
	ended  sync.WaitGroup
}

// watchCore starts a witness. It returns nil without the right to make real-time threads.
func watchCore(core int, start time.Time) *witness {
	w := &witness{stop: make(chan struct{})}
	began := make(chan error)
	w.ended.Go(func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends with its rights
		var only unix.CPUSet
		only.Set(core)
		err := unix.SchedSetaffinity(0, &only)
		if err == nil {
			attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}
			err = unix.SchedSetAttr(0, attr, 0)
		}
		began <- err
		if err == nil {
			w.watch(start)
		}
	})
	if <-began != nil {
		return nil
	}
	return w
}

func (w *witness) watch(start time.Time) {
	period := unix.NsecToTimespec(int64(witnessTime))
	for last := time.Since(start); ; {
		select {
		case <-w.stop:
			return
		default:
		}
		unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &period, nil) // It is as good if it ends early.
		now := time.Since(start)
		if now-last > leastPause+witnessTime {
			w.pauses = append(w.pauses, gap{last, now})
		}
		last = now
	}
}

// end returns what was noted.
func (w *witness) end() []gap {
	close(w.stop)
	w.ended.Wait()
	return w.pauses
}

// undisturbed is how long those requests took that no pause can have delayed. A server that can do
// twice of what it is asked needs as long as a pause has lasted to be done with what came
// meanwhile. Which requests those are depends on when they were due alone, and not on how long they
// took, or slow ones would count less than others.
func undisturbed(all []asked, interval float64, pauses []gap) (took []time.Duration) {
	pauses = slices.SortedFunc(slices.Values(pauses), func(a, b gap) int { return int(a.From - b.From) })
	until := time.Duration(-1)
	for n, one := range all {
		due := dueAt(n, interval)
		for len(pauses) > 0 && pauses[0].From-leastPause <= due {
			until = max(until, pauses[0].To+(pauses[0].To-pauses[0].From))
			pauses = pauses[1:]
		}
		if due > until {
			took = append(took, one.Took)
		}
	}
	return took
}

// dueAt is when a request of a generator is due.
func dueAt(n int, interval float64) time.Duration { return time.Duration(float64(n) * interval) }

// medianWithin is the interval that holds the median of what values were drawn from with a
// probability of 95 % at least (the sign test's). If there are less than six, all lie in it.
func medianWithin(values []float64) (low, high float64) {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0, 0
	}
	// With k values left out at each end, the median is beyond one of them with 2 P(B <= k), where
	// B is how many of n coins show heads.
	k, below := -1, new(big.Int)
	for all := new(big.Int).Lsh(big.NewInt(1), uint(n)); ; k++ {
		below.Add(below, new(big.Int).Binomial(int64(n), int64(k+1)))
		if new(big.Int).Mul(below, big.NewInt(2*20)).Cmp(all) > 0 {
			break
		}
	}
	k = max(k, 0)
	return sorted[k], sorted[n-1-k]
}
