package objects

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const killKeys = 60

// killLength is the only right length of key n.
func killLength(n int) int { return n * n * 97 }

// fillForever fills, freshens and drops in dir until it is killed. It prints a dot after each commit.
func fillForever(dir string) {
	s, err := Open(Config{Dir: dir, MaxBytes: 4 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(3)
	}
	go s.Run(context.Background()) // It reads what Open had no time for; nothing is stored before.
	for range 4 {
		go func() {
			for {
				n := rand.IntN(killKeys)
				body := testBody(n, killLength(n))
				h := testHead(n, len(body))
				if n%2 == 0 {
					h.Length = -1
				}
				f := s.Begin(testKey(n), 10)
				if f.Head(h) != nil {
					os.Exit(4)
				}
				for len(body) > 0 {
					m := min(len(body), 20_000)
					if _, err := f.Write(body[:m]); err != nil {
						break
					}
					body = body[m:]
				}
				if e, err := f.Commit(); err == nil {
					os.Stdout.WriteString(".")
					switch rand.IntN(4) {
					case 0:
						s.Freshen(e, h)
					case 1:
						s.Drop(e)
					}
				}
			}
		}()
	}
	select {}
}

func TestKilledInTheMiddleOfFills(t *testing.T) {
	t.Parallel()
	rounds := 60
	if testing.Short() {
		rounds = 6
	}
	dir := t.TempDir()
	seen, tmp := 0, 0
	for range rounds {
		killAChild(t, dir)
		tmp += len(filesIn(t, filepath.Join(dir, tmpFolder)))
		s := openStore(t, dir)
		if left := filesIn(t, filepath.Join(dir, tmpFolder)); len(left) != 0 {
			t.Fatalf("temporary files after reopening: %v", left)
		}
		for n := range killKeys {
			for _, e := range s.Lookup(testKey(n)) {
				seen++
				if string(e.Head().Meta) != "meta-"+strconv.Itoa(n) || !bytes.Equal(get(t, e), testBody(n, killLength(n))) {
					t.Fatalf("key %d: wrong head or body", n)
				}
			}
		}
		st := s.Stats()
		if on := diskBytes(t, filepath.Join(dir, objFolder)); st.Bytes != on || on > st.Limit || len(st.Errors) != 0 {
			t.Fatalf("%d bytes on disk, %+v", on, st)
		}
		s.Close()
	}
	if seen == 0 {
		t.Fatal("no object survived any kill")
	}
	t.Logf("%d objects checked after %d kills, %d temporary files reclaimed", seen, rounds, tmp)
}

// killAChild lets a process fill the cache and kills it at a random moment after a random commit.
func killAChild(t *testing.T, dir string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "OBJECTS_TEST_FILL_DIR="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 1+rand.IntN(100))); err != nil {
		t.Errorf("child: %v: %s", err, stderr.String())
	}
	timer := time.AfterFunc(time.Duration(rand.Int64N(int64(5*time.Millisecond))), func() { cmd.Process.Kill() })
	defer timer.Stop()
	io.Copy(io.Discard, out) // until it is dead
	cmd.Wait()
}
