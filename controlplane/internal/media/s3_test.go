package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// startS3 runs a real S3 server over a folder and returns the URL of a bucket in it.
func startS3(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "versitygw")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", binary,
		"github.com/versity/versitygw/cmd/versitygw")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build an S3 server: %v\n%s", err, out)
	}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(data, "media"), 0o755); err != nil {
		t.Fatal(err)
	}
	addr := listentest.Unused(t)
	ctx, cancel := context.WithCancel(context.Background())
	server := exec.CommandContext(ctx, binary, "--access", "key", "--secret", "secret", "--port", addr, "posix", data)
	server.Stdout, server.Stderr = t.Output(), t.Output()
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.Wait() })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	deadline, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	for ticker := time.NewTicker(20 * time.Millisecond); ; {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			break
		}
		select {
		case <-ticker.C:
		case <-deadline.Done():
			t.Fatal("the S3 server does not listen")
		}
	}
	return fmt.Sprintf("s3://media?region=us-east-1&endpoint=http://%s&use_path_style=true", addr)
}

func TestS3(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	url := startS3(t)
	at := &clock{t: time.Now()}
	spool := t.TempDir()
	l := open(t, Config{URL: url, SpoolDir: spool, Now: at.now})
	s := storetest.New(t)

	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := l.Identify(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()

	// More than one part of a multipart upload.
	content := strings.Repeat("0123456789abcdef", 1<<20)
	sha := put(t, l, content)
	if got, err := read(l, sha); got != content || err != nil {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if put(t, l, content) != sha {
		t.Error("the same bytes have another hash")
	}
	r, err := l.Read(t.Context(), sha, 16, 4)
	if err != nil {
		t.Fatal(err)
	}
	part, err := io.ReadAll(r)
	r.Close()
	if string(part) != "0123" || err != nil {
		t.Errorf("a part: %q, %v", part, err)
	}
	if _, err := l.Read(t.Context(), hashOf("nothing"), 0, -1); !errors.Is(err, ErrNoBytes) {
		t.Errorf("nothing: %v", err)
	}
	if left, _ := os.ReadDir(spool); len(left) > 0 {
		t.Errorf("the spool holds %v", left)
	}

	h := newReplica(t, l, "")
	revision := record(t, h.store, "acme", "a.txt", sha)
	resp, body := h.get(t, "GET", "/media/acme/"+sha[:16]+"/a.txt",
		map[string]string{"Range": "bytes=5-8", RevisionHeader: fmt.Sprint(revision)})
	if resp.StatusCode != 206 || body != "5678" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}

	orphan := put(t, l, "orphan")
	for range 2 {
		at.move(SweepGrace + time.Minute)
		if err := l.Sweep(t.Context(), h.store); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := read(l, orphan); !errors.Is(err, ErrNoBytes) {
		t.Errorf("an orphan: %v", err)
	}
	if _, err := l.Size(t.Context(), sha); err != nil {
		t.Errorf("a file in use: %v", err)
	}
}
