package control

import (
	"bytes"
	"errors"
	"fmt"
	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// written is a state folder that holds a full state and some steps, and what it was after each.
func written(t testing.TB, steps int) (dir string, past []*history) {
	t.Helper()
	p := newPeer(t)
	dir = t.TempDir()
	h := newHistory("e1")
	h.account("acme")
	h.domain("acme", "a.test.example")
	a := start(t, testConfig(t, dir, p.address))
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	past = append(past, h.clone())
	for i := range steps {
		at := h.revision
		name := fmt.Sprintf("h%d.test.example", i%3)
		if i%4 == 3 {
			d.send(live(at, at+1, h.drop("customDomains/acme/"+name)))
		} else {
			d.send(live(at, at+1, h.domain("acme", name)))
		}
		past = append(past, h.clone())
	}
	d.persisted(h.revision)
	a.stop()
	return dir, past
}

func only(t testing.TB, dir, kind string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, kind+"-*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s files: %v, %v", kind, names, err)
	}
	return names[0]
}

// copyState makes a folder that holds the files of another, one of them changed.
func copyState(t testing.TB, dir, changed string, content []byte) string {
	t.Helper()
	other := t.TempDir()
	for _, kind := range []string{"snapshot", "journal"} {
		name := only(t, dir, kind)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name == changed {
			b = content
		}
		if err := os.WriteFile(filepath.Join(other, filepath.Base(name)), b, state.FileMode); err != nil {
			t.Fatal(err)
		}
	}
	return other
}

func TestJournalTornAnywhereIsAWholeNumberOfSteps(t *testing.T) {
	t.Parallel()
	dir, past := written(t, 6)
	name := only(t, dir, "journal")
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	last := 0
	for n := range len(whole) + 1 {
		torn := copyState(t, dir, name, whole[:n])
		a := load(t, torn)
		i := int(a.state.At().Revision - past[0].revision)
		if i < last || i >= len(past) {
			t.Fatalf("cut at %d of %d: at revision %d, %d steps", n, len(whole), a.state.At().Revision, i)
		}
		last = i
		a.sees(t, past[i])
		// The agent goes on from there, and what it then writes is found again.
		revision := a.state.At().Revision + 1
		if err := a.write(revision, nil, nil); err != nil {
			t.Fatal(err)
		}
		a.stop()
		again := load(t, torn)
		if again.state.At().Revision != revision || again.table.Root().Revision() != revision {
			t.Fatalf("cut at %d: a step written behind the cut is lost: at %d, want %d", n, again.state.At().Revision, revision)
		}
		again.stop()
	}
	if last != len(past)-1 {
		t.Errorf("the whole journal has %d steps, want %d", last, len(past)-1)
	}
}

func TestDamageIsNeverTakenForATopology(t *testing.T) {
	t.Parallel()
	dir, past := written(t, 3)
	for _, kind := range []string{"snapshot", "journal"} {
		name := only(t, dir, kind)
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 1 << (i % 8)
			a := load(t, copyState(t, dir, name, damaged))
			switch steps := a.state.At().Revision - past[0].revision; {
			case a.state.At().Epoch == "":
				if kind == "journal" || a.table.Root().Revision() != 0 {
					t.Fatalf("%s, byte %d: at %+v, the table at %d", kind, i, a.state.At(), a.table.Root().Revision())
				}
			case kind == "snapshot" || steps < 0 || int(steps) >= len(past):
				t.Fatalf("%s, byte %d: at %+v", kind, i, a.state.At())
			default:
				a.sees(t, past[steps])
			}
			a.stop()
		}
	}
}

func TestNewerFormatIsReplacedByAFullState(t *testing.T) {
	t.Parallel()
	dir, _ := written(t, 1)
	name := only(t, dir, "snapshot")
	content := "EWSTATE2" + "whatever the next version writes"
	p := newPeer(t)
	h := newHistory("e1")
	h.account("acme")
	a := start(t, testConfig(t, copyState(t, dir, name, []byte(content)), p.address))
	d := p.accept()
	if d.hello.GetHave() != nil {
		t.Errorf("resumes from %v", d.hello.GetHave())
	}
	d.send(h.welcome()).send(h.full()...)
	d.persisted(h.revision)
	a.sees(t, h)
	a.stop()
	load(t, a.cfg.StateDir).sees(t, h)
}

// A journal is merged into a snapshot again and again while steps go on; what is on disk stays the
// topology, and its size stays in proportion.
func TestJournalBecomesASnapshot(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	dir := t.TempDir()
	h := newHistory("e1")
	h.account("acme")
	a := start(t, testConfig(t, dir, p.address))
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	rng := rand.New(rand.NewPCG(3, 4))
	total := 0
	for i := range 600 {
		at := h.revision
		var ch *edgev1.Change
		switch key := fmt.Sprintf("later/%d", rng.IntN(40)); {
		case i%5 == 0:
			ch = h.drop(key)
		default:
			ch = h.putBytes(key, bytes.Repeat([]byte{byte(i)}, 30_000))
			total += 30_000
		}
		d.send(live(at, h.revision, ch))
		if i%100 == 99 {
			d.persisted(h.revision)
			eventually(t, "one snapshot and one journal are left", func() bool {
				snapshots, _ := filepath.Glob(filepath.Join(dir, "snapshot-*"))
				journals, _ := filepath.Glob(filepath.Join(dir, "journal-*"))
				return len(snapshots) == 1 && len(journals) == 1 &&
					strings.TrimPrefix(
						snapshots[0], dir+"/snapshot-",
					) == strings.TrimPrefix(journals[0], dir+"/journal-")
			})
		}
	}
	if number, err := strconv.ParseUint(
		strings.TrimPrefix(only(t, dir, "journal"), dir+"/journal-"), 16, 64,
	); err != nil || number < 5 {
		t.Errorf("%d bytes made %d journals, %v", total, number, err)
	}
	a.stop()
	again := load(t, dir)
	again.sees(t, h)
	if again.digestText() != string(h.digest()) {
		t.Errorf("digest %x, want %x", again.state.At().Digest, h.digest())
	}
}

func TestOneAgentAFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := load(t, dir)
	cfg := testConfig(t, dir, "127.0.0.1:1")
	if _, err := New(cfg); !errors.Is(err, state.ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second agent: %v", err)
	}
	a.stop()
	load(t, dir)
}

func TestFolderIsClosedToOthers(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := newPeer(t)
	h := newHistory("e1")
	h.account("acme")
	start(t, testConfig(t, dir, p.address))
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	d.persisted(h.revision)
	if _, err := ID(dir, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"", filepath.Base(only(t, dir, "snapshot")), filepath.Base(only(t, dir, "journal")), "lock", "id",
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(state.FileMode)
		if name == "" {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %o, want %o", name, info.Mode().Perm(), want)
		}
	}
}

// Deleting the folder under a running agent is always safe: it says so, and writes everything anew.
func TestFolderDeletedWhileRunning(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	dir := filepath.Join(t.TempDir(), "state")
	h := newHistory("e1")
	h.account("acme")
	a := start(t, testConfig(t, dir, p.address))
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	d.persisted(h.revision)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	at := h.revision
	d.send(live(at, at+1, h.account("new")))
	ack := d.ack("that is not durable", func(a *edgev1.Ack) bool { return !a.Durable })
	if ack.Applied != h.revision || ack.Persisted != 0 {
		t.Errorf("ack = %v", ack)
	}
	a.sees(t, h)
	d.over()
	again := p.accept()
	again.send(h.welcome()).send(h.full()...)
	again.ack("that is persisted", func(a *edgev1.Ack) bool { return a.Durable && a.Persisted == h.revision })
	a.stop()
	load(t, dir).sees(t, h)
}

// A folder that can be read and not written serves all the same.
func TestFolderThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir, past := written(t, 5)
	name := filepath.Join(t.TempDir(), "not-a-folder")
	if err := os.WriteFile(name, nil, state.FileMode); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, dir string
		want      *history
	}{
		{"no folder can be made", filepath.Join(name, "state"), newHistory("")},
		{"a journal that cannot be opened for writing", dir, past[5]},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.dir == dir {
				// Root may write any file that is not immutable.
				makeUnwritable(t, only(t, dir, "journal"))
			}
			p := newPeer(t)
			a := start(t, testConfig(t, tt.dir, p.address))
			a.sees(t, tt.want)
			if s := a.Status(); s.Durable {
				t.Errorf("status = %+v", s)
			}
			d := p.accept()
			h := tt.want.clone()
			h.epoch = "e1"
			h.account("more")
			d.send(h.welcome()).send(h.full()...)
			d.applied(h.revision)
			a.sees(t, h)
		})
	}
}

// makeUnwritable keeps a file from being opened for writing, for root too.
func makeUnwritable(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		if err := os.Chmod(path, 0o400); err != nil {
			t.Fatal(err)
		}
		return
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	const immutable = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
	set := func(flags int) error { return unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags) }
	if err := set(immutable); err != nil {
		f.Close()
		t.Skipf("this file system has no immutable files: %v", err)
	}
	t.Cleanup(func() { set(0); f.Close() })
}

func TestID(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	first, err := ID(dir, "")
	if err != nil || !idPattern.MatchString(first) {
		t.Fatalf("ID = %q, %v", first, err)
	}
	if again, err := ID(dir, ""); again != first || err != nil {
		t.Errorf("ID = %q, %v; want %q again", again, err, first)
	}
	if given, err := ID(dir, "edge.7"); given != "edge.7" || err != nil {
		t.Errorf("ID = %q, %v", given, err)
	}
	if _, err := ID(dir, "Not An Id"); err == nil {
		t.Error("a malformed id is taken")
	}
	if other, _ := ID(t.TempDir(), ""); other == first {
		t.Error("two agents have one id")
	}
	if id, err := ID("/dev/null/state", ""); !errors.Is(err, syscall.ENOTDIR) || id != "" {
		t.Errorf("where nothing can be kept: %q, %v", id, err)
	}
}

// A sector that cannot be read does not keep an edge from starting: it has a new id then, which it
// keeps, or one for this time where the disk takes nothing.
func TestIDOnABadSector(t *testing.T) {
	t.Parallel()
	for _, readOnly := range []bool{false, true} {
		disk := disktest.NewImage(t, 16<<20, "^has_journal")
		lost, err := ID(disk.Dir, "")
		if err != nil {
			t.Fatal(err)
		}
		block := disk.FirstBlock(filepath.Join(disk.Dir, "id"))
		disk.Unmount()
		disk.Mount()
		disk.Cut(block)
		if readOnly {
			if err := syscall.Mount("none", disk.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}
		id, err := ID(disk.Dir, "")
		if !idPattern.MatchString(id) || id == lost || errors.Is(err, syscall.EIO) != readOnly {
			t.Errorf("read-only %v: %q, %v", readOnly, id, err)
		}
		if again, _ := ID(disk.Dir, ""); (again == id) == readOnly {
			t.Errorf("read-only %v: %q, and then %q", readOnly, id, again)
		}
	}
}
