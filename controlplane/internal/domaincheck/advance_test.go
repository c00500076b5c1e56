package domaincheck

import (
	"testing"
	"time"
)

// What is set in DNS in the first hour counts within a minute, also where a look takes 3 s, and
// nobody is asked more than 70 times for that.
func TestLooksOfTheFirstHour(t *testing.T) {
	t.Parallel()
	const look = 3 * time.Second
	looks := 0
	for waited := time.Duration(0); waited < time.Hour; {
		looks++
		wait := pause(looks, waited)
		if wait+look > time.Minute {
			t.Errorf("after %s there is no look for %s", waited, wait)
		}
		waited += wait + look
	}
	if looks > 70 {
		t.Errorf("%d looks", looks)
	}
}
