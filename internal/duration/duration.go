// Package duration reads durations as people write them, the same in flags, fields and files.
package duration

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parse reads a duration as [time.ParseDuration] does, with days besides: `30s`, `1h30m`, `1d`,
// `1d12h`. A day has 24 hours.
func Parse(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	var d time.Duration
	if found {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || n > 36500 || n < -36500 || strings.ContainsAny(days, "xXeEpPiInN_") {
			return 0, wrong(text)
		}
		d = time.Duration(n * float64(24*time.Hour))
		if rest == "" {
			return d, nil
		}
		if strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") || n < 0 {
			return 0, wrong(text)
		}
		text = rest
	}
	more, err := time.ParseDuration(text)
	if err != nil {
		return 0, wrong(text)
	}
	return d + more, nil
}

func wrong(text string) error {
	return fmt.Errorf("%q is no duration: write it like 30s, 10m, 12h or 1d", text)
}

// String writes a duration as [time.Duration.String] does, without parts that are zero, and whole
// days as such: `1d`, `90m0s` as `1h30m`.
func String(d time.Duration) string {
	const day = 24 * time.Hour
	if d != 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// JSON writes a duration as ProtoJSON does
// (https://protobuf.dev/programming-guides/json/): in seconds, `86400s`.
func JSON(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s" }

// Flag is the value of a flag that takes a duration.
type Flag time.Duration

// Set implements pflag.Value.
func (f *Flag) Set(text string) error {
	d, err := Parse(text)
	*f = Flag(d)
	return err
}

// String implements pflag.Value.
func (f *Flag) String() string { return String(time.Duration(*f)) }

// Type implements pflag.Value.
func (f *Flag) Type() string { return "duration" }
