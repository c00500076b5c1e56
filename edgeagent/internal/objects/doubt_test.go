package objects

import (
	"testing"
	"time"
)

func TestDoubtIsAboutWhatWasThereBefore(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	s := &Store{cfg: Config{Now: func() time.Time { return now }}}
	old, fresh := new(object), new(object)
	old.head.RequestTime, fresh.head.RequestTime = now.Add(-time.Minute), now.Add(time.Millisecond)
	check := func(when string, wantOld, wantFresh bool) {
		t.Helper()
		if a, b := s.doubts(old), s.doubts(fresh); a != wantOld || b != wantFresh {
			t.Errorf("%s: old doubted %v, fresh %v", when, a, b)
		}
	}
	check("at first", false, false)
	s.Doubt(2 * time.Second)
	check("in doubt", true, false)
	s.Trust()
	check("trusted", false, false)
	s.Doubt(2 * time.Second)
	now = now.Add(2 * time.Second)
	check("when nobody answers", false, false)
}
