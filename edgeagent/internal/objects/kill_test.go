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
	"sync/atomic"
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
		killAChild(t, dir, "OBJECTS_TEST_FILL_DIR")
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

// storeForever stores one object after the other in dir until it is killed, and prints the number of each that is stored.
func storeForever(dir string) {
	s, err := Open(Config{Dir: dir, MaxBytes: 1 << 30, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(3)
	}
	go s.Run(context.Background())
	var n atomic.Int64
	for range 4 {
		go func() {
			for {
				n := int(n.Add(1))
				length := killLength(n % killKeys)
				f := s.Begin(testKey(n), 10)
				if f.Head(testHead(n, length)) != nil {
					os.Exit(4)
				}
				if _, err := f.Write(testBody(n, length)); err != nil {
					os.Exit(5)
				}
				if _, err := f.Commit(); err == nil {
					os.Stdout.WriteString(strconv.Itoa(n) + "\n")
				}
			}
		}()
	}
	select {}
}

// What was stored when the process is killed is stored afterwards, each object of it.
func TestKillLosesNothingThatWasStored(t *testing.T) {
	t.Parallel()
	rounds := 40
	if testing.Short() {
		rounds = 4
	}
	stored := 0
	for range rounds {
		dir := t.TempDir()
		said := killAChild(t, dir, "OBJECTS_TEST_STORE_DIR")
		s := openStore(t, dir)
		lines := strings.SplitAfter(said, "\n")
		for _, line := range lines[:len(lines)-1] {
			n, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			wantStored(t, s, n, killLength(n%killKeys))
			stored++
		}
		if st := s.Stats(); st.Objects > int64(len(lines)-1)+4 { // and what was stored but not said yet
			t.Errorf("%d objects of %d", st.Objects, len(lines)-1)
		}
		s.Close()
	}
	t.Logf("%d objects were there after %d kills", stored, rounds)
}

// killAChild lets a process fill the cache, as the variable asks for, and kills it at a random moment after a random commit.
// It returns what the process said of its commits.
func killAChild(t *testing.T, dir, variable string) (said string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), variable+"="+dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 1+rand.IntN(100))
	if _, err := io.ReadFull(out, first); err != nil {
		t.Errorf("child: %v: %s", err, stderr.String())
	}
	timer := time.AfterFunc(time.Duration(rand.Int64N(int64(5*time.Millisecond))), func() { cmd.Process.Kill() })
	defer timer.Stop()
	rest, _ := io.ReadAll(out) // until it is dead
	cmd.Wait()
	return string(first) + string(rest)
}
