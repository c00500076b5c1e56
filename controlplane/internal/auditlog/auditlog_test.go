package auditlog

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func open(t *testing.T) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

func lines(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

func TestEventsAreLines(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	for _, method := range []string{"SaveSnapshot", "a\nb"} {
		if err := l.Record(&adminv1.AuditEvent{Method: method, Who: "token:1"}, true); err != nil {
			t.Fatal(err)
		}
	}
	if got := lines(t, path); len(got) != 2 || !strings.Contains(got[0], `"SaveSnapshot"`) ||
		!strings.Contains(got[1], `a\nb`) {
		t.Errorf("lines %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFileIsMovedAway(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	for n := range 3 {
		if err := l.Record(&adminv1.AuditEvent{Method: fmt.Sprint("m", n)}, true); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path, fmt.Sprint(path, ".away", n)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		if got := lines(t, fmt.Sprint(path, ".away", n)); len(got) != 1 ||
			!strings.Contains(got[0], fmt.Sprint("m", n)) {
			t.Errorf("file %d: %q", n, got)
		}
	}
}

func TestFilesAreBound(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	l.max = 200
	for n := range 100 {
		if err := l.Record(&adminv1.AuditEvent{Method: fmt.Sprintf("method-%03d", n)}, true); err != nil {
			t.Fatal(err)
		}
	}
	names, err := filepath.Glob(path + "*")
	if err != nil || len(names) != 1+older {
		t.Errorf("files %q, %v", names, err)
	}
	if got := lines(t, path); !strings.Contains(got[len(got)-1], "method-099") {
		t.Errorf("the last line is %q", got[len(got)-1])
	}
}

// at is a log whose clock is *now.
func at(t *testing.T, now *time.Time) (*Log, string) {
	t.Helper()
	l, path := open(t)
	l.now = func() time.Time { return *now }
	return l, path
}

// events are the lines of a log.
func events(t *testing.T, path string) (all []*adminv1.AuditEvent) {
	t.Helper()
	for _, line := range lines(t, path) {
		event := new(adminv1.AuditEvent)
		if err := protojson.Unmarshal([]byte(line), event); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, event)
	}
	return all
}

// calls is how many calls events stand for.
func calls(all []*adminv1.AuditEvent) (n int64) {
	for _, event := range all {
		n += max(1, event.GetCalls())
	}
	return n
}

func TestDeniedCallsAreBoundPerPeer(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l, path := at(t, &now)
	deny := func(peer string) {
		t.Helper()
		event := &adminv1.AuditEvent{
			Method: "GetOrigin", Peer: peer, Code: "UNAUTHENTICATED", Time: timestamppb.New(now),
		}
		if err := l.Denied(event); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 1000 {
		deny(fmt.Sprintf("192.0.2.1:%d", 1000+n))
	}
	if n := len(lines(t, path)); n != deniedBurst {
		t.Errorf("%d lines of 1,000 denied calls, want %d", n, deniedBurst)
	}
	deny("192.0.2.2:1")
	if got := events(t, path); len(got) != deniedBurst+1 || got[deniedBurst].GetCalls() != 0 {
		t.Errorf("another peer has no line of its own: %v", got[len(got)-1])
	}
	first := now
	now = now.Add(linePer)
	deny("192.0.2.1:1")
	got := events(t, path)
	last := got[len(got)-1]
	if len(got) != deniedBurst+2 || calls(got) != 1002 || last.GetCalls() != 981 ||
		!last.GetFirstTime().AsTime().Equal(first) || !last.GetTime().AsTime().Equal(now) {
		t.Errorf("%d lines for %d calls, the last %v", len(got), calls(got), last)
	}
	for n := range 1000 { // an /56 of IPv6 is one client
		deny(fmt.Sprintf("[2001:db8::%x]:1", n))
	}
	if n := len(lines(t, path)); n != 2*deniedBurst+2 {
		t.Errorf("%d lines after 1,000 addresses of one client", n)
	}
}

// However many addresses are used, denied calls have a bounded number of lines, and all are
// counted.
func TestDeniedCallsAreBoundForAllPeers(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l, path := at(t, &now)
	const clients, each = 3 * maxSeries, 5
	for range each {
		for n := range clients {
			event := &adminv1.AuditEvent{Method: "GetOrigin", Peer: fmt.Sprintf("10.%d.%d.1:1", n>>8, n&255)}
			if err := l.Denied(event); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(lines(t, path)); n != allDeniedBurst {
		t.Errorf("%d lines, want %d", n, allDeniedBurst)
	}
	if len(l.denied) > maxSeries {
		t.Errorf("%d clients are counted apart", len(l.denied))
	}
	now = now.Add(linePer)
	flush(t, l)
	got := events(t, path)
	if most := allDeniedBurst + int(linePer/deniedPer) + 1; len(got) > most || calls(got) != clients*each {
		t.Errorf("%d lines, at most %d wanted, for %d calls of %d", len(got), most, calls(got), clients*each)
	}
	now = now.Add(deniedBurst*linePer + time.Second)
	flush(t, l)
	if len(l.denied) != 0 {
		t.Errorf("%d clients are remembered that have gone", len(l.denied))
	}
}

func flush(t *testing.T, l *Log) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.flush(false); err != nil {
		t.Fatal(err)
	}
}

// Who downloads in a loop does not roll the log away: the calls share lines, which say how many
// there were and of what. Others, and other methods, keep their own.
func TestCallsShareLines(t *testing.T) {
	t.Parallel()
	now := time.Now()
	l, path := at(t, &now)
	call := func(who, method, resource string) {
		t.Helper()
		event := &adminv1.AuditEvent{
			Who: who, Method: method, Resource: resource, Peer: "192.0.2.1:1", Code: "OK", Time: timestamppb.New(now),
		}
		if err := l.Record(event, true); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 10_000 {
		call("tokens/loop", "DownloadMediaFile", fmt.Sprint("accounts/acme/mediaFiles/", n%150))
	}
	call("tokens/loop", "ListTokens", "")
	call("tokens/other", "DownloadMediaFile", "accounts/acme/mediaFiles/x")
	if n := len(lines(t, path)); n != recordedBurst+2 {
		t.Errorf("%d lines, want %d", n, recordedBurst+2)
	}
	flush(t, l)
	if n := len(lines(t, path)); n != recordedBurst+2 {
		t.Errorf("%d lines before the next is due", n)
	}
	now = now.Add(linePer)
	flush(t, l)
	got := events(t, path)
	last := got[len(got)-1]
	if len(got) != recordedBurst+3 || calls(got) != 10_002 || last.GetCalls() != 9_900 ||
		last.GetWho() != "tokens/loop" || len(last.GetResources()) != 150 {
		t.Errorf("%d lines for %d calls; the last tells of %d, and names %d", len(got), calls(got),
			last.GetCalls(), len(last.GetResources()))
	}
	for n := range 10_000 {
		call("tokens/loop", "DownloadMediaFile", strings.Repeat("x", 100)+fmt.Sprint(n))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	text := lines(t, path)
	if n := len(text[len(text)-1]); n > 2*maxNames {
		t.Errorf("a line has %d bytes", n)
	}
	if n := calls(events(t, path)); n != 20_002 {
		t.Errorf("after the end lines tell of %d calls", n)
	}
}

func TestWhatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	if _, err := Open(filepath.Join(t.TempDir(), "missing", "audit.log")); err == nil {
		t.Error("opened in a folder that is not there")
	}
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("/dev/full is missing: it is a device of Linux")
	}
	full, err := Open("/dev/full")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = full.Close() }()
	if err := full.Ready(); err != nil {
		t.Error(err) // it cannot be known
	}
	if err := full.Record(&adminv1.AuditEvent{Method: "SaveSnapshot"}, true); err == nil {
		t.Error("wrote to a full disk")
	}
	if err := full.Ready(); err == nil {
		t.Error("a full disk is ready")
	}
}

// A syslog takes each event as a message, and while it is away an event is an error; when it is
// back, the next arrives.
func TestSyslog(t *testing.T) {
	t.Parallel()
	folder, err := os.MkdirTemp("", "edgewalk") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "log")
	listen := func() *net.UnixConn {
		t.Helper()
		conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	receive := func(conn *net.UnixConn) string {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8<<10)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if _, err := openSyslog("unixgram", path); err == nil || !strings.Contains(err.Error(), "open the audit log") {
		t.Errorf("opened without a syslog: %v", err)
	}
	daemon := listen()
	l, err := openSyslog("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Record(&adminv1.AuditEvent{Method: "SaveSnapshot", Who: "token:1"}, true); err != nil {
		t.Fatal(err)
	}
	// RFC 3164, section 4.1.1: facility 10 and severity 6 are priority 86.
	if got := receive(daemon); !strings.HasPrefix(got, "<86>") || !strings.Contains(got, "edgewalk[") ||
		!strings.Contains(got, `"SaveSnapshot"`) {
		t.Errorf("syslog was sent %q", got)
	}
	if err := errors.Join(daemon.Close(), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	if err := l.Record(&adminv1.AuditEvent{Method: "GetMediaFile"}, true); err == nil {
		t.Error("an event that no syslog took is no error")
	}
	daemon = listen()
	defer daemon.Close()
	if err := l.Ready(); err != nil {
		t.Fatal(err)
	}
	if got := receive(daemon); !strings.Contains(got, `"GetMediaFile"`) || !strings.Contains(got, `"UNAVAILABLE"`) {
		t.Errorf("of the call that was refused syslog was sent %q", got)
	}
	if err := l.Record(&adminv1.AuditEvent{Method: "CreateToken"}, true); err != nil {
		t.Fatal(err)
	}
	if got := receive(daemon); !strings.Contains(got, `"CreateToken"`) {
		t.Errorf("syslog was sent %q", got)
	}
}
