package dev

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// requests prints a line for each request, out of the lines of an access log.
type requests struct{ out io.Writer }

// Write implements [io.Writer]. The log writes whole lines.
func (r requests) Write(p []byte) (int, error) {
	var b strings.Builder
	for line := range strings.Lines(string(p)) {
		var e struct {
			Method, Host, Path, Outcome, Supplier, Account string
			Endpoint                                       string `json:"url_endpoint"`
			Status                                         int
			DurationMS                                     float64 `json:"duration_ms"`
			Steps                                          []struct{ Origin, Outcome string }
		}
		if json.Unmarshal([]byte(line), &e) != nil {
			continue
		}
		from := e.Outcome
		if e.Supplier != "" {
			from += " from " + e.Supplier
		}
		var walk []string
		for _, s := range e.Steps {
			walk = append(walk, s.Origin+" "+strings.ReplaceAll(s.Outcome, "_", " "))
		}
		if len(walk) > 0 {
			from += " (" + strings.Join(walk, ", ") + ")"
		}
		at := e.Host
		if e.Account != "" {
			at = e.Account + "/" + e.Endpoint + " at " + e.Host
		}
		fmt.Fprintf(&b, "%-4s %s  %d  %s  %s  %.1f ms\n", e.Method, e.Path, e.Status, at, from, e.DurationMS)
	}
	if _, err := io.WriteString(r.out, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
