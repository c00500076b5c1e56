package edgehttp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
)

// accessLine is a line of the access log as its readers see it.
type accessLine struct {
	Time        time.Time    `json:"time"`
	RequestID   string       `json:"request_id"`
	Client      string       `json:"client"`
	Protocol    string       `json:"protocol"`
	TLS         string       `json:"tls,omitempty"`
	Method      string       `json:"method"`
	Host        string       `json:"host"`
	Account     string       `json:"account,omitempty"`
	Endpoint    string       `json:"url_endpoint,omitempty"`
	Path        string       `json:"path"`
	QueryHash   string       `json:"query_hash,omitempty"`
	Status      int          `json:"status"`
	Bytes       int64        `json:"bytes"`
	Outcome     string       `json:"outcome"`
	Supplier    string       `json:"supplier,omitempty"`
	Revision    int64        `json:"revision,omitempty"`
	WalkDepth   int          `json:"walk_depth,omitempty"`
	Steps       []accessStep `json:"steps,omitempty"`
	Aborted     bool         `json:"aborted,omitempty"`
	UserAgent   string       `json:"user_agent,omitempty"`
	Referer     string       `json:"referer,omitempty"`
	FirstByteMS float64      `json:"first_byte_ms"`
	DurationMS  float64      `json:"duration_ms"`
}

type accessStep struct {
	Origin  string  `json:"origin"`
	Outcome string  `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
	Status  int     `json:"status,omitempty"`
	MS      float64 `json:"ms"`
}

// linesOf reads an access log strictly: it holds what is documented, and nothing else.
func linesOf(t testing.TB, log string) (all []accessLine) {
	t.Helper()
	for line := range strings.Lines(log) {
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		var l accessLine
		if err := decoder.Decode(&l); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		all = append(all, l)
	}
	return all
}

// A line reads as the one that encoding/json would write, whatever clients and origins send.
func FuzzAccessLine(f *testing.F) {
	for _, text := range []string{
		"", "/a.txt", `"quoted" \ and / <b>&amp;</b>`, "\x00\b\t\n\f\r\x1b[31m\x7f", "\u0080\u009b\u00a0\u2028\u2029",
		"ä 漢 😀 \ufffd", "\xff\xfe", "a\xc3", "\xc3(", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x80", "{}[],:",
	} {
		f.Add(text, text, "GET", int64(1764165600), int64(12345678), int64(7), 200, uint16(tls.VersionTLS13), byte(3))
		f.Add("x"+text, "", text, int64(0), int64(0), int64(-1), 0, uint16(0), byte(0))
	}
	f.Fuzz(func(t *testing.T, a, b, c string, at, took, n int64, status int, version uint16, bits byte) {
		took &= 1<<50 - 1 // some 13 days
		at &= 1<<36 - 1   // years that RFC 3339 has
		e := accessEntry{
			Time: time.Unix(at, took), Client: netip.AddrFrom16([16]byte{0x20, 0x01, 15: bits}),
			Version: front.Version(bits % 3), TLS: version, Method: c, Host: a, Account: b, Endpoint: c, Path: b,
			Query: a, Status: status, Bytes: n, Outcome: outcome(bits % byte(outcomes)).String(), Supplier: a,
			Revision: n, Aborted: bits&4 != 0, UserAgent: c, Referer: b, FirstByte: time.Duration(took / 2),
			Took: time.Duration(took),
		}
		if bits&8 != 0 {
			e.Client = netip.AddrFrom4([4]byte{192, 0, 2, bits})
		}
		hex.Encode(e.RequestID[:], bytes.Repeat([]byte{bits}, 16))
		for i := range int(bits>>4) % 3 {
			e.Steps = append(e.Steps, walk.StepReport{
				Origin: a, Outcome: origin.Outcome(i), Reason: origin.Reason(b), Status: status,
				Duration: time.Duration(took),
			})
		}
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		want := accessLine{
			Time: e.Time.UTC(), RequestID: string(e.RequestID[:]), Client: e.Client.String(),
			Protocol: e.Version.String(), Method: c, Host: a, Account: b, Endpoint: c, Path: b, Status: status,
			Bytes: n, Outcome: e.Outcome, Supplier: a, Revision: n, WalkDepth: len(e.Steps), Aborted: e.Aborted,
			UserAgent: c, Referer: b, FirstByteMS: ms(e.FirstByte), DurationMS: ms(e.Took),
		}
		if version != 0 {
			want.TLS = tls.VersionName(version)
		}
		if a != "" {
			sum := sha256.Sum256([]byte(a))
			want.QueryHash = hex.EncodeToString(sum[:6])
		}
		for _, s := range e.Steps {
			step := accessStep{s.Origin, s.Outcome.String(), string(s.Reason), s.Status, ms(s.Duration)}
			want.Steps = append(want.Steps, step)
		}
		theirs, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		ours := string(e.append([]byte("before\n")))[len("before\n"):]
		if got := linesOf(t, ours); len(got) != 1 || !reflect.DeepEqual(got, linesOf(t, string(theirs))) {
			t.Errorf("%s reads as %+v, want that of %s", ours, got, theirs)
		}
		// A terminal obeys none of it.
		text := strings.TrimSuffix(ours, "\n")
		if at := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }); at >= 0 {
			t.Errorf("%q holds a control character", text[at:])
		}
	})
}

func TestAccessLog(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	browser := []string{"User-Agent: browser/1", "Referer: https://shop.test/a?token=hunter2"}
	response, _ := e.get("shared.test", "/acme/a.txt?token=hunter2", browser...)
	e.awaitStored(1)
	e.get("shared.test", "/acme/a.txt?token=hunter2", browser...)
	e.get("nobody.test", "/x")
	e.stop() // Writes what is left.
	if strings.Contains(e.log.String(), "hunter2") {
		t.Error("the log holds a query")
	}
	lines := linesOf(t, e.log.String())
	if len(lines) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(lines), e.log)
	}
	// Lines are written as requests end, which their clients may see before.
	slices.SortFunc(lines, func(a, b accessLine) int { return a.Time.Compare(b.Time) })
	first, second, third := lines[0], lines[1], lines[2]
	if first.RequestID != response.Header.Get("X-Request-Id") || first.Outcome != "miss" || first.Status != 200 ||
		first.Bytes != 8 || first.Account != "acme" ||
		first.Endpoint != "default" || first.Path != "/a.txt" || first.Supplier != "legacy" ||
		first.Client != "127.0.0.1" || first.QueryHash == "" || first.FirstByteMS > first.DurationMS {
		t.Errorf("first line %+v", first)
	}
	for _, line := range lines[:2] {
		if line.WalkDepth != len(line.Steps) || line.UserAgent != "browser/1" ||
			line.Referer != "https://shop.test/a" ||
			line.TLS != "" {
			t.Errorf("of the client a line says %+v", line)
		}
	}
	if n := len(first.Steps); n == 0 || first.Steps[n-1].Origin != "legacy" ||
		first.Steps[n-1].Outcome != "FOUND" && first.Steps[n-1].Outcome != "found" {
		t.Errorf("first line's steps %+v", first.Steps)
	}
	if second.Outcome != "hit" || len(second.Steps) != 0 || second.QueryHash != first.QueryHash ||
		second.FirstByteMS != second.DurationMS {
		t.Errorf("second line %+v", second)
	}
	if third.Outcome != "refused" || third.Status != 404 || third.Host != "nobody.test" {
		t.Errorf("third line %+v", third)
	}
}

// A line has what the client says of itself, without what may be secret in a Referer.
func TestAccessLogTellsOfClients(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ agent, referer, wantAgent, wantReferer string }{
		{"curl/8.0", "https://shop.example/a?token=hunter2#x", "curl/8.0", "https://shop.example/a"},
		{"", "https://user:hunter2@shop.example/", "", "https://shop.example/"},
		{strings.Repeat("a", 2000), strings.Repeat("b", 2000), strings.Repeat("a", 512), strings.Repeat("b", 512)},
	} {
		var fields field.Lines
		fields.Append("user-agent", test.agent)
		fields.Append("Referer", test.referer)
		if agent, referer := fromBrowser(&fields); agent != test.wantAgent || referer != test.wantReferer {
			t.Errorf("%q and %q give %q and %q", test.agent, test.referer, agent, referer)
		}
	}
}

// Of a sample, errors are all there.
func TestAccessLogSample(t *testing.T) {
	t.Parallel()
	l := newAccessLog(io.Discard, 0.25, func(int) {}, slog.New(slog.DiscardHandler))
	lines := 0
	for range 10_000 {
		if !l.wants(503) {
			t.Fatal("an error has no line")
		}
		if l.wants(200) {
			lines++
		}
	}
	if lines < 2000 || lines > 3000 { // 11 standard deviations away
		t.Errorf("%d of 10,000 requests have a line, want a quarter", lines)
	}
}

// failingDisk takes so many bytes and then none, unless takes is negative.
type failingDisk struct {
	bytes.Buffer
	takes  int
	writes int
}

func (d *failingDisk) Write(p []byte) (int, error) {
	d.writes++
	if d.takes < 0 || len(p) <= d.takes {
		d.takes -= min(max(d.takes, 0), len(p))
		return d.Buffer.Write(p)
	}
	n, _ := d.Buffer.Write(p[:d.takes])
	d.takes = 0
	return n, errors.New("no space left")
}

// Every line that is not in the log is counted, one that was cut too, and the next one is whole.
func TestAccessLogCountsLostLines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		disk, lost := &failingDisk{takes: 25}, 0
		l := newAccessLog(disk, 0, func(n int) { lost += n }, slog.New(slog.NewTextHandler(&said, nil)))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			l.run(ctx)
			close(done)
		}()
		add := func(lines ...string) {
			for _, line := range lines {
				l.add([]byte(line + "\n"))
			}
			time.Sleep(2 * accessPause)
			synctest.Wait()
		}
		add("1 written", "2 written", "3 cut", "4 lost") // 20 bytes are the first two
		add("5 lost")
		disk.takes = -1
		writes := disk.writes
		add("6 written", "7 written", "8 written")
		stop()
		<-done
		if want := "1 written\n2 written\n3 cut\n6 written\n7 written\n8 written\n"; disk.String() != want {
			t.Errorf("the log has %q, want %q", disk.String(), want)
		}
		if lost != 3 {
			t.Errorf("%d lines are lost, want 3", lost)
		}
		if disk.writes-writes > 3 {
			t.Errorf("3 lines are written with %d calls", disk.writes-writes)
		}
		if n := strings.Count(said.String(), "access log cannot be written"); n != 1 {
			t.Errorf("it is said %d times, want once:\n%s", n, &said)
		}
	})
}

// stuckDisk takes nothing until it is released.
type stuckDisk struct{ release chan struct{} }

func (d stuckDisk) Write(p []byte) (int, error) {
	<-d.release
	return len(p), nil
}

// A disk that hangs costs lines and no more memory than the bound.
func TestAccessLogIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk, lost := stuckDisk{make(chan struct{})}, 0
		l := newAccessLog(disk, 0, func(n int) { lost += n }, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			l.run(ctx)
			close(done)
		}()
		line := append(bytes.Repeat([]byte("x"), 1<<10-1), '\n')
		l.add(line)
		synctest.Wait() // It is being written.
		for range accessBacklog/len(line) + 100 {
			l.add(line)
		}
		if lost != 100 || len(l.lines) != accessBacklog {
			t.Errorf("%d lines are lost, %d bytes wait", lost, len(l.lines))
		}
		close(disk.release)
		stop()
		<-done
		if len(l.lines) != 0 {
			t.Errorf("%d bytes are left", len(l.lines))
		}
	})
}
