package objectstest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// These say in which folder a process that is to be killed works, and what it does there.
const (
	fillVariable  = "OBJECTSTEST_FILL_DIR"
	storeVariable = "OBJECTSTEST_STORE_DIR"
	readVariable  = "OBJECTSTEST_READ_DIR"
)

// Main is the TestMain of a test binary that calls [Run]. The binary is started again by its tests,
// to be killed.
func Main(m *testing.M, open Open) {
	if dir := os.Getenv(fillVariable); dir != "" {
		fillForever(open, dir)
	}
	if dir := os.Getenv(storeVariable); dir != "" {
		storeForever(open, dir)
	}
	if dir := os.Getenv(readVariable); dir != "" {
		readForever(open, dir)
	}
	goleak.VerifyTestMain(m)
}

const killKeys = 60

// killLength is the only right length of key n.
func killLength(n int) int { return n % killKeys * (n % killKeys) * 97 }

// child opens the store of a process that will be killed.
func child(open Open, dir string, most int64) Store {
	s, err := open(objects.Config{Dir: dir, MaxBytes: most, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(3)
	}
	go s.Run(context.Background()) // It reads what Open had no time for; nothing is stored before.
	return s
}

// fillForever fills, freshens and drops until it is killed. It prints a dot after each commit.
func fillForever(open Open, dir string) {
	s := child(open, dir, 4<<20)
	for range 4 {
		go func() {
			for {
				n := rand.IntN(killKeys)
				h := head(n, killLength(n))
				if n%2 == 0 {
					h.Length = -1
				}
				e, err := commit(s, key(n), h, content(n, killLength(n)))
				if err != nil {
					continue
				}
				os.Stdout.WriteString(".")
				switch rand.IntN(4) {
				case 0:
					s.Freshen(e, h)
				case 1:
					s.Drop(e)
				}
			}
		}()
	}
	select {}
}

// storeForever stores one object after the other until it is killed, and prints the number of each
// that is stored.
func storeForever(open Open, dir string) {
	s := child(open, dir, 1<<30)
	var last atomic.Int64
	for range 4 {
		go func() {
			for {
				n := int(last.Add(1))
				if _, err := commit(s, key(n), head(n, killLength(n)), content(n, killLength(n))); err == nil {
					os.Stdout.WriteString(strconv.Itoa(n) + "\n")
				}
			}
		}()
	}
	select {}
}

// startKeys is how many objects a store starts with that is killed soon after.
const startKeys = 2000

// readForever reads objects at random until it is killed. It prints a dot for each that is whole.
func readForever(open Open, dir string) {
	s := child(open, dir, 1<<30)
	for {
		n := rand.IntN(startKeys)
		for _, e := range s.Lookup(key(n)) {
			if got, err := read(e); err == nil && bytes.Equal(got, content(n, 100)) {
				os.Stdout.WriteString(".")
			}
		}
	}
}

// killStarts: objects are served while the store finds out what there is, and a kill at any moment
// of that loses none.
func killStarts(t *testing.T, open Open) {
	dir := t.TempDir()
	s, stop := start(t, open, dir, limit(1<<30))
	for n := range startKeys {
		put(t, s, n, 100)
	}
	before := s.Stats()
	stop()
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	for range rounds {
		killAChild(t, dir, readVariable)
	}
	s, stop = start(t, open, dir, limit(1<<30))
	defer stop()
	if after := s.Stats(); after.Objects != before.Objects || after.Bytes != before.Bytes || len(after.Errors) != 0 {
		t.Errorf("after the kills: %+v, before: %+v", after, before)
	}
	for n := range startKeys {
		wantStored(t, s, n, 100)
	}
}

// killFills: after a kill at any moment every object is whole, and the account is that of the disk.
func killFills(t *testing.T, open Open) {
	rounds := 60
	if testing.Short() {
		rounds = 4
	}
	dir := t.TempDir()
	seen := 0
	for range rounds {
		killAChild(t, dir, fillVariable)
		s, stop := start(t, open, dir, limit(4<<20))
		for n := range killKeys {
			for _, e := range s.Lookup(key(n)) {
				seen++
				got, err := read(e)
				if err != nil || string(e.Head().Meta) != "meta-"+strconv.Itoa(n) ||
					!bytes.Equal(got, content(n, killLength(n))) {
					t.Fatalf("key %d: wrong head or body, %v", n, err)
				}
			}
		}
		st := s.Stats()
		stop()
		// and what is no object
		if on := onDisk(t, dir); st.Bytes > st.Limit || on > st.Bytes+16<<10 || len(st.Errors) != 0 {
			t.Fatalf("%d bytes on disk, %+v", on, st)
		}
	}
	if seen == 0 {
		t.Fatal("no object survived any kill")
	}
	t.Logf("%d objects checked after %d kills", seen, rounds)
}

// onDisk is what the files under dir take, by the disk's own account of blocks of 4 KiB.
func onDisk(t *testing.T, dir string) (sum int64) {
	for _, file := range files(dir) {
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		sum += (st.Size() + 4095) / 4096 * 4096
	}
	return sum
}

// killLosesNothing: what was stored when the process is killed is stored afterwards, each object of
// it.
func killLosesNothing(t *testing.T, open Open) {
	rounds := 40
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		dir := t.TempDir()
		said := killAChild(t, dir, storeVariable)
		s, stop := start(t, open, dir, limit(1<<30))
		lines := strings.SplitAfter(said, "\n")
		for _, line := range lines[:len(lines)-1] {
			n, err := strconv.Atoi(strings.TrimSuffix(line, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			wantStored(t, s, n, killLength(n))
		}
		if st := s.Stats(); st.Objects > int64(len(lines)-1)+4 { // and what was stored but not said yet
			t.Errorf("%d objects of %d", st.Objects, len(lines)-1)
		}
		stop()
	}
}

// killAChild has a process work in dir, and kills it at a random moment after a random commit. It
// returns what the process said of its commits.
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
