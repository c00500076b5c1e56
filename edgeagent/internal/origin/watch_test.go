package origin

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Each phase has its own limit, the deadline holds until it is lifted, and outside of phases nothing ends.
func TestWatch(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		script func(w *watch)
		after  time.Duration
		want   error
	}{
		{"phase in time", func(w *watch) { w.phase(time.Second, errConnectTimeout); w.stop() }, time.Hour, nil},
		{"phase too long", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, time.Second, errConnectTimeout},
		{"phase just not too long", func(w *watch) { w.phase(time.Second, errConnectTimeout) }, time.Second - 1, nil},
		{"next phase begins anew", func(w *watch) {
			w.phase(time.Second, errConnectTimeout)
			time.Sleep(999 * time.Millisecond)
			w.await(time.Second, errFirstByteTimeout)
		}, 999 * time.Millisecond, nil},
		{"next phase has its own cause", func(w *watch) {
			w.phase(time.Second, errConnectTimeout)
			w.await(time.Minute, errFirstByteTimeout)
		}, time.Minute, errFirstByteTimeout},
		{"deadline", func(w *watch) { w.phase(time.Hour, errConnectTimeout) }, 10 * time.Minute, errWalkDeadline},
		{"deadline lifted", func(w *watch) { w.lift(); w.phase(time.Hour, errConnectTimeout) }, time.Hour - 1, nil},
		{"deadline passed before", func(w *watch) {
			time.Sleep(11 * time.Minute)
			w.phase(time.Hour, errConnectTimeout)
		}, 1, errWalkDeadline},
		{"told late that the request was sent", func(w *watch) {
			w.await(time.Second, errFirstByteTimeout)
			w.arrived()
			w.await(time.Second, errFirstByteTimeout)
		}, time.Hour, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				w := newWatch(cancel, time.Now().Add(10*time.Minute))
				test.script(w)
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
