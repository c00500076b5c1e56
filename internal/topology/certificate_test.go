package topology

import (
	"math"
	"testing"
	"time"
)

// The share of its life that a certificate has left counts from when it began, if that is known.
func TestCertificateLeft(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_000_000_000, 0)
	at := func(days int64) int64 { return now.Unix() + days*24*3600 }
	for _, test := range []struct {
		begin, end int64
		want       float64
	}{
		{at(-5), at(5), 0.5}, {at(-90), at(10), 0.1}, {at(-100), at(-10), -1.0 / 9}, {0, at(45), 0.5},
		{at(1), at(0), 0},
	} {
		c := Certificate{NotBefore: test.begin, NotAfter: test.end}
		if got := c.Left(now); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%+v: %v, want %v", test, got, test.want)
		}
	}
}
