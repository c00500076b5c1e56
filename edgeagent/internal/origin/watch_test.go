package origin

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Each phase has its own limit, the deadline holds until it is lifted, and outside of phases
// nothing ends.
func TestWatch(t *testing.T) {
	t.Parallel()
	nothing := func(*watch) {}
	for _, test := range []struct {
		name  string
		first func(w *watch)
		pause time.Duration
		then  func(w *watch)
		after time.Duration
		want  error
	}{
		{"phase in time", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, 0, (*watch).stop, time.Hour, nil},
		{"phase too long", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, 0, nothing, time.Second,
			errConnectTimeout},
		{"phase just not too long", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, 0, nothing,
			time.Second - 1, nil},
		{"next phase begins anew", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, 999 * time.Millisecond,
			func(w *watch) { w.phase(time.Second, errFirstByteTimeout) }, 999 * time.Millisecond, nil},
		{"next phase has its own cause", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, 0,
			func(w *watch) { w.phase(time.Minute, errFirstByteTimeout) }, time.Minute, errFirstByteTimeout},
		{"next phase is shorter", func(w *watch) { w.phase(time.Minute, errFirstByteTimeout) }, time.Second,
			func(w *watch) { w.phase(time.Second, errIdleTimeout) }, time.Second, errIdleTimeout},
		{"next phase is longer, and too long", func(w *watch) { w.phase(time.Second, errConnectTimeout) },
			999 * time.Millisecond, func(w *watch) { w.phase(time.Minute, errFirstByteTimeout) }, time.Minute,
			errFirstByteTimeout},
		{"next phase is longer, and in time", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, 0,
			func(w *watch) { w.phase(time.Minute, errFirstByteTimeout) }, time.Minute - 1, nil},
		{"a phase after the last has ended",
			func(w *watch) { w.phase(time.Minute, errConnectTimeout); w.stop() }, time.Second,
			func(w *watch) { w.phase(time.Minute, errFirstByteTimeout) }, time.Minute, errFirstByteTimeout},
		{"deadline", func(w *watch) { w.phase(time.Hour, errConnectTimeout) }, 0, nothing, 10 * time.Minute,
			errWalkDeadline},
		{"deadline lifted", (*watch).lift, 0, func(w *watch) { w.phase(time.Hour, errConnectTimeout) }, time.Hour - 1,
			nil},
		{"deadline passed before", nothing, 11 * time.Minute, func(w *watch) { w.phase(time.Hour, errConnectTimeout) },
			1, errWalkDeadline},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				w := &watch{cancel: cancel, alarms: new(sync.Pool), deadline: time.Now().Add(10 * time.Minute)}
				test.first(w)
				time.Sleep(test.pause)
				test.then(w)
				time.Sleep(test.after)
				synctest.Wait()
				if got := context.Cause(ctx); got != test.want {
					t.Errorf("ended with %v, want %v", got, test.want)
				}
				w.stop()
			})
		})
	}
}

// An alarm that one watch leaves set serves the next: its phases end neither late nor early, and
// the watch before is not ended.
func TestAlarmServesOneWatchAfterTheOther(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		first, second time.Duration // limits of a phase of each watch
	}{
		{"shorter", time.Minute, time.Second},
		{"longer", time.Second, time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left, endLeft := context.WithCancelCause(t.Context())
				defer endLeft(nil)
				used, endUsed := context.WithCancelCause(t.Context())
				defer endUsed(nil)
				before := &watch{cancel: endLeft, alarms: new(sync.Pool)}
				before.phase(test.first, errConnectTimeout)
				alarm := before.alarm
				before.end()
				w := &watch{cancel: endUsed, alarm: alarm, alarms: before.alarms}
				alarm.watch = w
				w.phase(test.second, errIdleTimeout)
				before.phase(0, errConnectTimeout) // It has ended, so this is none.
				time.Sleep(test.second - time.Nanosecond)
				synctest.Wait()
				if err := context.Cause(used); err != nil {
					t.Errorf("ended too early, with %v", err)
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if err := context.Cause(used); err != errIdleTimeout {
					t.Errorf("after its limit it is %v, want %v", err, errIdleTimeout)
				}
				if err := context.Cause(left); err != nil {
					t.Errorf("the watch before was ended, with %v", err)
				}
			})
		})
	}
}
