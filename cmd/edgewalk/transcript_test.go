package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/cmd/edgewalk/internal/dev"
	"github.com/edgewalk/edgewalk/internal/transcript"
)

// TestTranscripts shows what admins type and read, against everything that `edgewalk dev` runs. A
// line that begins with `$` is typed, those below it are what standard output and then standard
// error say; another exit code than 0 stands at the end. What differs from run to run, such as
// times and revisions, is tamed.
func TestTranscripts(t *testing.T) {
	demo := startDemo(t, false)
	t.Setenv("VISUAL", "sed -i s/:9/:10/")
	demo.transcripts(t, "testdata/*.txt")
	t.Run("watch", demo.watch)
	t.Run("interrupted wait", demo.interruptedWait)
	t.Run("output is lost", demo.outputIsLost)
}

// The same against `edgewalk dev --acme`, whose domains have certificates.
func TestTranscriptsOfCertificates(t *testing.T) {
	startDemo(t, true).transcripts(t, "testdata/acme/*.txt")
}

// transcripts types those of files.
func (d demonstration) transcripts(t *testing.T, pattern string) {
	t.Setenv("EDGEWALK_SERVER", d.admin)
	transcript.Each(t, pattern, func(t *testing.T, script string) string {
		t.Chdir(t.TempDir())
		return d.talk(t, script)
	})
}

// demonstration is a running `edgewalk dev`.
type demonstration struct{ admin, http string }

// startDemo runs a demonstration until the test ends, and waits until it has printed its tour.
func startDemo(t *testing.T, acme bool) demonstration {
	t.Helper()
	const any = "127.0.0.1:0"
	out := new(output)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- dev.Run(ctx, dev.Config{
			StateDir: filepath.Join(t.TempDir(), "dev"), HTTPAddr: any, MetricsAddr: any, AdminAddr: any, EdgeAddr: any,
			StatusAddr: any, MediaAddr: any, ACME: acme, HTTPSAddr: any, Version: "test", Out: out,
			Logger: newLogger(t.Output(), logOptions{}),
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the demonstration ended with %v", err)
		}
	})
	text := out.wait(t, "Ctrl-C stops everything")
	m := regexp.MustCompile(`served at http://localhost:(\d+)/demo/ ; the admin API is at (\S+)\.\n`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("the tour does not say where it is served: %s", text)
	}
	return demonstration{http: m[1], admin: m[2]}
}

// talk types the commands of a transcript.
func (d demonstration) talk(t *testing.T, script string) string {
	t.Helper()
	var out strings.Builder
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		command, typed := strings.CutPrefix(line, "$ ")
		if !typed {
			if line == "" || strings.HasPrefix(line, "#") {
				out.WriteString(line + "\n")
			}
			continue
		}
		out.WriteString(line + "\n")
		stdin := ""
		if before, ok := strings.CutSuffix(command, " <<END"); ok {
			command = before
			for i++; i < len(lines) && lines[i] != "END"; i++ {
				stdin += lines[i] + "\n"
			}
			out.WriteString(stdin + "END\n")
		}
		out.WriteString(d.do(t, command, stdin))
	}
	return out.String()
}

// do carries out one line: a command of edgewalk, whose output `> NAME` puts into a file, or `file
// NAME`, which writes a file.
func (d demonstration) do(t *testing.T, command, stdin string) string {
	t.Helper()
	words := words(strings.ReplaceAll(command, "{http}", d.http))
	switch words[0] {
	case "file":
		if err := os.MkdirAll(filepath.Dir(words[1]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(words[1], []byte(stdin), 0o644); err != nil {
			t.Fatal(err)
		}
		return ""
	case "edgewalk":
	default:
		t.Fatalf("%q is no command of a transcript", command)
	}
	var stdout, stderr bytes.Buffer
	target := ""
	if n := len(words); n > 2 && words[n-2] == ">" {
		words, target = words[:n-2], words[n-1]
	}
	code := run(t.Context(), words[1:], strings.NewReader(stdin), &stdout, &stderr)
	if target != "" {
		if err := os.WriteFile(target, stdout.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		stdout.Reset()
	}
	text := stdout.String() + stderr.String()
	if code != 0 {
		text += fmt.Sprintf("[exit %d]\n", code)
	}
	return tame(text)
}

// words splits a line at spaces outside quotes, like a shell.
func words(line string) []string {
	var all []string
	var word strings.Builder
	quote, begun := rune(0), false
	for _, r := range line + " " {
		switch {
		case r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, begun = r, true
		case quote == 0 && r == ' ':
			if begun {
				all = append(all, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	return all
}

// tamed are the parts of an output that differ from run to run.
var tamed = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z`), "TIME"},
	{regexp.MustCompile(`(?m)^\d+ +(TIME|\d+m?s\b)`), "REV  $1"},
	{regexp.MustCompile(`(to revision|current one is) \d+`), "$1 REV"},
	{regexp.MustCompile(`[0-9a-f]{16}-[0-9a-f]{8}`), "PURGE"},
	{regexp.MustCompile(`(127\.0\.0\.1|localhost):\d{4,5}\b`), "$1:PORT"},
	{regexp.MustCompile(`(?m)(stored at|at revision|: revision|frozen at|evision"?:|is at|offline) +"?\d+"?`), "$1 REV"},
	{regexp.MustCompile(`(uid"?: "?)\d+-`), "${1}REV-"},
	{regexp.MustCompile(`'"\d+"'|\\"\d+\\"|is "\d+"`), "ETAG"},
	{regexp.MustCompile(`(?m)(and not|etag:) "\d+"`), "$1 ETAG"},
	{regexp.MustCompile(`\((\S+) ago\)`), "(SPAN ago)"},
	{regexp.MustCompile(`(yes|no|frozen at REV)  +\d+  +`), "$1  REV  "},
	{regexp.MustCompile(`(  |in |since )[\d.]+(µs|ms|s|m)( ago)?\b`), "${1}SPAN"},
	{regexp.MustCompile(`(topology +revision )\d+(, in step with etcd )\S+`), "${1}REV${2}SPAN"},
	{regexp.MustCompile(`(control planes +)\S+`), "${1}HOST:PORT"},
	{regexp.MustCompile(`unix:\S+, version [\d.]+, [\d.]+ [KM]iB`), "ADDRESS, version VERSION, SIZE"},
	{regexp.MustCompile(`--request-id [0-9a-f-]{36}\n`), "--request-id UUID\n"},
	{regexp.MustCompile(`edgewalk-test-[a-z0-9]+`), "edgewalk-test-RANDOM"},
	{regexp.MustCompile(`\d+ of 240 in 3 h +\d+`), "N of 240 in 3 h  N"},
	{regexp.MustCompile(`(?m)^\S+ orders\.$`), "HOST:PORT orders."},
	{regexp.MustCompile(`(/account/)[\w-]{43}`), "${1}ID"},
	{regexp.MustCompile(`\S*…`), "CUT…"},
	{regexp.MustCompile(`(\S)   +`), "$1  "}, // Columns are as wide as what was tamed.
	{regexp.MustCompile(`(?m) +$`), ""},
	{regexp.MustCompile(`(?m)^\n`), ""},
	{regexp.MustCompile(`"sizeBytes": \d{5,}`), `"sizeBytes": SIZE`},
	{regexp.MustCompile(`snapshot \([\d.]+ KiB\)`), "snapshot (SIZE)"},
	{regexp.MustCompile(`(is whole: .*) \d+ keys`), "$1 N keys"},
	{regexp.MustCompile(`  health:\n(    .*\n)+`), ""}, // As of an edge's last report.
}

func tame(text string) string {
	for _, t := range tamed {
		text = t.pattern.ReplaceAllString(text, t.with)
	}
	return text
}

// watch shows a resource again when it has changed, until it is interrupted, which is no failure.
func (d demonstration) watch(t *testing.T) {
	if code, _, stderr := edgewalk(t, "create", "account", "watched"); code != 0 {
		t.Fatal(stderr)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	out, ended := new(output), make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"get", "account", "watched", "-w", "-o", "yaml"}, strings.NewReader(""), out, out)
	}()
	out.wait(t, "id: watched\n")
	if code, _, stderr := edgewalk(t, "update", "account", "watched", "--set", "displayName=Seen"); code != 0 {
		t.Error(stderr)
	}
	out.wait(t, "\n---\naccount:\n")
	interrupt()
	if code := <-ended; code != 0 || !strings.Contains(out.String(), "displayName: Seen") {
		t.Errorf("the watch ended with %d and showed\n%s", code, out)
	}
}

// interruptedWait ends a command while it waits for edges: it says what is stored, and how to go
// on.
func (d demonstration) interruptedWait(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out, ended := new(output), make(chan int, 1)
	args := []string{"create", "account", "interrupted", "--wait", "--min-edges", "2"}
	go func() { ended <- run(ctx, args, strings.NewReader(""), out, out) }()
	out.wait(t, "waiting for the edges\n")
	interrupt()
	code := <-ended
	want := regexp.MustCompile(`interrupted: revision (\d+) is stored, .*\n  edgewalk wait (\d+) goes on waiting\.\n$`)
	if m := want.FindStringSubmatch(out.String()); code != 1 || m == nil || m[1] != m[2] {
		t.Errorf("exit %d: %s", code, out)
	}
}

// outputIsLost has commands write to a disk that is full: what nobody can read is no success.
func (d demonstration) outputIsLost(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no disk that is always full here:", err)
	}
	defer full.Close()
	if code, _, stderr := edgewalk(t, "create", "account", "unread"); code != 0 {
		t.Fatal(stderr)
	}
	for _, command := range []string{
		"--help", "help apply", "--version", "completion bash", "get account unread", "edges", "status",
		"media upload -A unread main_test.go /a.go", "media rm -A unread /a.go",
		"media rm -A unread /a.go --ignore-missing",
	} {
		var stderr strings.Builder
		code := run(t.Context(), strings.Fields(command), strings.NewReader(""), full, &stderr)
		if silent := strings.HasSuffix(command, "--ignore-missing"); silent != (code == 0) ||
			silent != !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: exit %d: %s", command, code, stderr.String())
		}
	}
}

// output is what a command has written so far.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// String returns all of it.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// wait returns the output once it has text.
func (o *output) wait(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.Tick(10 * time.Millisecond); !strings.Contains(o.String(), text); {
		select {
		case <-tick:
		case <-deadline:
			t.Fatalf("%q has not been written within a minute; got %s", text, o)
		}
	}
	return o.String()
}
