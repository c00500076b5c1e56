package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// throughput is what a load generator reports.
type throughput struct {
	requests float64 // a second
	bytes    float64 // a second, of whole replies
	p99      time.Duration
}

// connections that a load keeps open.
const connections = 64

// wrk loads a URL over HTTP/1.1 with kept connections.
func wrk(ctx context.Context, address, path string, d time.Duration) (throughput, error) {
	return runWrk(ctx, "http://"+address+path, d)
}

// wrkWith is wrk with a field in its requests.
func wrkWith(line string) func(ctx context.Context, address, path string, d time.Duration) (throughput, error) {
	return func(ctx context.Context, address, path string, d time.Duration) (throughput, error) {
		return runWrk(ctx, "http://"+address+path, d, "-H", line)
	}
}

func runWrk(ctx context.Context, url string, d time.Duration, more ...string) (throughput, error) {
	all := append(
		[]string{"-t1", "-c" + strconv.Itoa(connections), "-d" + d.String(), "--latency", "-H", "Host: " + benchHost},
		more...,
	)
	command, args := pinned(generatorCore, "wrk", append(all, url)...)
	out, err := exec.CommandContext(ctx, command, args...).CombinedOutput()
	if err != nil {
		return throughput{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseWrk(string(out))
}

var (
	wrkRequests = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkBytes    = regexp.MustCompile(`Transfer/sec:\s+([\d.]+)([KMG]?)B`)
	wrkP99      = regexp.MustCompile(`99%\s+([\d.]+)(us|ms|s)`)
)

// parseWrk reads wrk's report. Replies other than 2xx and broken connections are errors: they would
// be counted as fast.
func parseWrk(out string) (t throughput, err error) {
	if strings.Contains(out, "Non-2xx") || strings.Contains(out, "Socket errors") {
		return t, fmt.Errorf("wrk saw errors:\n%s", out)
	}
	requests, bytes, p99 := wrkRequests.FindStringSubmatch(out), wrkBytes.FindStringSubmatch(out),
		wrkP99.FindStringSubmatch(out)
	if requests == nil || bytes == nil || p99 == nil {
		return t, fmt.Errorf("wrk says:\n%s", out)
	}
	t.requests, _ = strconv.ParseFloat(requests[1], 64)
	t.bytes, _ = strconv.ParseFloat(bytes[1], 64)
	t.bytes *= map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[bytes[2]]
	t.p99, err = time.ParseDuration(p99[1] + p99[2])
	return t, err
}

// h2load loads a URL over TLS and HTTP/2: 16 connections with 8 streams each.
func h2load(ctx context.Context, address, path string, d time.Duration) (throughput, error) {
	return runH2load(ctx, address, path, d, "-c16", "-m8")
}

// h1load loads a URL over TLS and HTTP/1.1 with kept connections.
func h1load(ctx context.Context, address, path string, d time.Duration) (throughput, error) {
	return runH2load(ctx, address, path, d, "--h1", "-m1", "-c"+strconv.Itoa(connections))
}

func runH2load(ctx context.Context, address, path string, d time.Duration, how ...string) (throughput, error) {
	all := append(
		[]string{"-t1", "-D", strconv.Itoa(max(1, int(d.Seconds()))), "--warm-up-time=1", "--connect-to=" + address},
		how...,
	)
	command, args := pinned(generatorCore, "h2load", append(all, "https://"+benchHost+path)...)
	out, err := exec.CommandContext(ctx, command, args...).CombinedOutput()
	if err != nil {
		return throughput{}, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	return parseH2load(string(out))
}

var (
	h2Rate   = regexp.MustCompile(`finished in [\d.]+m?s, ([\d.]+) req/s, ([\d.]+)([KMG]?)B/s`)
	h2Errors = regexp.MustCompile(`(\d+) failed, (\d+) errored, (\d+) timeout`)
	h2Codes  = regexp.MustCompile(`status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx`)
)

// parseH2load reads h2load's report, as strictly as parseWrk.
func parseH2load(out string) (t throughput, err error) {
	rate, failed, codes := h2Rate.FindStringSubmatch(out), h2Errors.FindStringSubmatch(out),
		h2Codes.FindStringSubmatch(out)
	if rate == nil || failed == nil || codes == nil {
		return t, fmt.Errorf("h2load says:\n%s", out)
	}
	if strings.Join(failed[1:], "") != "000" || strings.Join(codes[2:], "") != "000" || codes[1] == "0" {
		return t, fmt.Errorf("h2load saw errors:\n%s", out)
	}
	t.requests, _ = strconv.ParseFloat(rate[1], 64)
	t.bytes, _ = strconv.ParseFloat(rate[2], 64)
	t.bytes *= map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[rate[3]]
	return t, nil
}

// handshakes opens connections over TLS without resumption, and asks for a path on each over
// HTTP/2.
func handshakes(ctx context.Context, address, path string, d time.Duration) (throughput, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var done, size atomic.Int64
	start := time.Now()
	workers, ctx := errgroup.WithContext(ctx)
	for range handshakesAtOnce {
		workers.Go(func() error {
			for ctx.Err() == nil {
				n, err := handshake(ctx, address, path)
				switch {
				case ctx.Err() != nil:
					return nil
				case err != nil:
					return err
				}
				done.Add(1)
				size.Add(n)
			}
			return nil
		})
	}
	err := workers.Wait()
	took := time.Since(start).Seconds()
	return throughput{requests: float64(done.Load()) / took, bytes: float64(size.Load()) / took}, err
}

const handshakesAtOnce = 8

// handshake makes one request on a connection of its own, and returns how long its body was.
func handshake(ctx context.Context, address, path string) (int64, error) {
	transport := &http.Transport{
		ForceAttemptHTTP2: true, DisableKeepAlives: true,
		// The key exchange that all of the measured have.
		TLSClientConfig: &tls.Config{
			ServerName: benchHost, InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
		},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+benchHost+path, nil)
	if err != nil {
		return 0, err
	}
	reply, err := transport.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("GET %s: status %d", path, reply.StatusCode)
	}
	return io.Copy(io.Discard, reply.Body)
}
