package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag's number of bytes, such as 10GiB, 500MB or 1048576.
type byteSize int64

var byteUnits = []struct {
	suffix string
	factor float64
}{
	// Longer suffixes first, because each ends with B.
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// String implements [pflag.Value].
func (b *byteSize) String() string {
	for i := 3; i >= 0; i-- {
		if factor := int64(byteUnits[i].factor); int64(*b) >= factor && int64(*b)%factor == 0 {
			return strconv.FormatInt(int64(*b)/factor, 10) + byteUnits[i].suffix
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Set implements [pflag.Value].
func (b *byteSize) Set(text string) error {
	for _, unit := range byteUnits {
		number, ok := cutSuffixFold(strings.TrimSpace(text), unit.suffix)
		if !ok {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(value*unit.factor >= 1 && value*unit.factor <= math.MaxInt64/2) {
			break
		}
		*b = byteSize(value * unit.factor)
		return nil
	}
	return fmt.Errorf("%q is no size such as 10GiB or 500MB", text)
}

// Type implements [pflag.Value].
func (b *byteSize) Type() string { return "size" }

func cutSuffixFold(s, suffix string) (string, bool) {
	at := len(s) - len(suffix)
	if at < 0 || !strings.EqualFold(s[at:], suffix) {
		return s, false
	}
	return s[:at], true
}
