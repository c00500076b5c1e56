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
		if err := l.Write(&adminv1.AuditEvent{Method: method, Who: "token:1"}); err != nil {
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
		if err := l.Write(&adminv1.AuditEvent{Method: fmt.Sprint("m", n)}); err != nil {
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
		if err := l.Write(&adminv1.AuditEvent{Method: fmt.Sprintf("method-%03d", n)}); err != nil {
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

func TestDeniedCallsAreBoundPerPeer(t *testing.T) {
	t.Parallel()
	l, path := open(t)
	now := time.Now()
	l.now = func() time.Time { return now }
	deny := func(peer string) {
		t.Helper()
		if err := l.Denied(&adminv1.AuditEvent{Method: "GetOrigin", Peer: peer, Code: "UNAUTHENTICATED"}); err != nil {
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
	got := lines(t, path)
	if last := got[len(got)-1]; len(got) != deniedBurst+1 || !strings.Contains(last, `980`) {
		t.Errorf("another peer's line is %q, want it to count those that were left out", last)
	}
	now = now.Add(2 * deniedPer)
	deny("192.0.2.1:1")
	if n := len(lines(t, path)); n != deniedBurst+2 {
		t.Errorf("%d lines after a pause, want one more", n)
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
	defer full.Close()
	if err := full.Write(&adminv1.AuditEvent{Method: "SaveSnapshot"}); err == nil {
		t.Error("wrote to a full disk")
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
	if err := l.Write(&adminv1.AuditEvent{Method: "SaveSnapshot", Who: "token:1"}); err != nil {
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
	if err := l.Write(&adminv1.AuditEvent{Method: "GetMediaFile"}); err == nil {
		t.Error("an event that no syslog took is no error")
	}
	daemon = listen()
	defer daemon.Close()
	if err := l.Write(&adminv1.AuditEvent{Method: "CreateToken"}); err != nil {
		t.Fatal(err)
	}
	if got := receive(daemon); !strings.Contains(got, `"CreateToken"`) {
		t.Errorf("syslog was sent %q", got)
	}
}
