package duration

import (
	"testing"
	"time"
)

func TestString(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"0s": 0, "250ms": 250 * time.Millisecond, "30s": 30 * time.Second, "1m30s": 90 * time.Second,
		"10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "2h": 2 * time.Hour,
		"1h0m5s": time.Hour + 5*time.Second, "1d": 24 * time.Hour, "36h": 36 * time.Hour, "-2d": -48 * time.Hour,
	} {
		if got := String(d); got != want {
			t.Errorf("%v is written as %q, want %q", d, got, want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0s": 0, "30s": 30 * time.Second, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "1d": day,
		"0.5d": 12 * time.Hour, "1d12h": 36 * time.Hour, "30d": 30 * day, "-1d": -day, "250ms": 250 * time.Millisecond,
		"86400s": day,
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if again, err := Parse(String(got)); err != nil || again != got {
			t.Errorf("%q is written as %q, which is %v, %v", text, String(got), again, err)
		}
		if again, err := time.ParseDuration(JSON(got)); err != nil || again != got {
			t.Errorf("%q is %q in JSON, which is %v, %v", text, JSON(got), again, err)
		}
	}
	for _, text := range []string{
		"", "soon", "10", "1w", "d", "1dd", "1d-1h", "1e3d", "NaNd", "99999d", "1d1", "-1d1h",
	} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}
