package main

import (
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	const report = `Running 1s test @ http://127.0.0.1:8080/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.10ms    1.20ms  30.11ms   80.00%
  Latency Distribution
     50%    1.90ms
     99%    5.25ms
  30500 requests in 1.00s, 36.00MB read
Requests/sec:  30500.25
Transfer/sec:     36.00MB
`
	got, err := parseWrk(report)
	if want := (throughput{requests: 30500.25, bytes: 36 << 20, p99: 5250 * time.Microsecond}); err != nil ||
		got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for name, bad := range map[string]string{
		"replies that are errors":  report + "  Non-2xx or 3xx responses: 3\n",
		"connections that broke":   "  Socket errors: connect 0, read 1, write 0, timeout 0\n" + report,
		"another program's report": "finished",
	} {
		if got, err := parseWrk(bad); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestParseH2load(t *testing.T) {
	const (
		rate  = "finished in 5.00s, 12000.40 req/s, 13.50MB/s\n"
		whole = "requests: 60002 total, 60002 started, 60002 done, 60002 succeeded, 0 failed, 0 errored, 0 timeout\n"
		codes = "status codes: 60002 2xx, 0 3xx, 0 4xx, 0 5xx\n"
	)
	got, err := parseH2load(rate + whole + codes)
	if want := (throughput{requests: 12000.40, bytes: 13.5 * (1 << 20)}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for name, bad := range map[string]string{
		"replies that are errors":  rate + whole + "status codes: 60000 2xx, 0 3xx, 2 4xx, 0 5xx\n",
		"no replies":               rate + whole + "status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx\n",
		"requests that failed":     rate + "requests: 1 total, 1 started, 1 done, 0 succeeded, 1 failed, 0 errored, 0 timeout\n" + codes,
		"another program's report": "Requests/sec: 1",
	} {
		if got, err := parseH2load(bad); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestQuantile(t *testing.T) {
	values := []int{5, 1, 4, 2, 3}
	for _, c := range []struct {
		q    float64
		want int
	}{{0, 1}, {0.2, 1}, {0.5, 3}, {0.99, 5}, {1, 5}} {
		if got := quantile(values, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %d, want %d", values, c.q, got, c.want)
		}
	}
	if got := quantile([]int(nil), 0.5); got != 0 {
		t.Errorf("quantile of nothing = %d", got)
	}
}
