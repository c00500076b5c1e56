package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A disk is a folder behind FUSE that can be slow, or not answer at all.
type disk struct {
	fuse.RawFileSystem

	mu     sync.Mutex
	rate   int64 // bytes per second; 0 is as fast as the folder
	answer chan struct{}
}

// mountDisk mounts a disk at dir until the test ends.
func mountDisk(t *testing.T, dir string) *disk {
	t.Helper()
	under := filepath.Join(t.TempDir(), "under")
	for _, folder := range []string{under, dir} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := fs.NewLoopbackRoot(under)
	if err != nil {
		t.Fatal(err)
	}
	none := time.Duration(0)
	d := &disk{RawFileSystem: fs.NewNodeFS(root, &fs.Options{EntryTimeout: &none, AttrTimeout: &none})}
	server, err := fuse.NewServer(d, dir, &fuse.MountOptions{DirectMount: true, ExplicitDataCacheControl: true})
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("needs /dev/fuse and the right to mount: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	t.Cleanup(func() {
		d.release()
		if err := server.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	return d
}

// hang keeps every operation from now on until release, or until its caller is killed.
func (d *disk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answer = make(chan struct{})
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answer != nil {
		close(d.answer)
		d.answer = nil
	}
}

func (d *disk) slow(rate int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rate = rate
}

// wait takes as long as n bytes do, one operation after the other.
func (d *disk) wait(cancel <-chan struct{}, n int) fuse.Status {
	d.mu.Lock()
	answer := d.answer
	if d.rate > 0 {
		defer d.mu.Unlock()
		select {
		case <-time.After(time.Duration(int64(n) * int64(time.Second) / d.rate)):
			return fuse.OK
		case <-cancel:
			return fuse.EINTR
		}
	}
	d.mu.Unlock()
	if answer == nil {
		return fuse.OK
	}
	select {
	case <-answer:
		return fuse.OK
	case <-cancel:
		return fuse.EINTR
	}
}

func (d *disk) Lookup(cancel <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if s := d.wait(cancel, 0); s != fuse.OK {
		return s
	}
	return d.RawFileSystem.Lookup(cancel, header, name, out)
}

// throughHere has the kernel keep what it has read or written, as of a disk, and not go to the
// folder's file by itself.
func throughHere(out *fuse.OpenOut) {
	out.OpenFlags, out.BackingID = out.OpenFlags&^fuse.FOPEN_PASSTHROUGH|fuse.FOPEN_KEEP_CACHE, 0
}

func (d *disk) Open(cancel <-chan struct{}, input *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if s := d.wait(cancel, 0); s != fuse.OK {
		return s
	}
	defer throughHere(out)
	return d.RawFileSystem.Open(cancel, input, out)
}

func (d *disk) Create(cancel <-chan struct{}, input *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if s := d.wait(cancel, 0); s != fuse.OK {
		return s
	}
	defer throughHere(&out.OpenOut)
	return d.RawFileSystem.Create(cancel, input, name, out)
}

func (d *disk) Read(cancel <-chan struct{}, input *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if s := d.wait(cancel, len(buf)); s != fuse.OK {
		return nil, s
	}
	return d.RawFileSystem.Read(cancel, input, buf)
}

func (d *disk) Writev(cancel <-chan struct{}, input *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if s := d.wait(cancel, int(input.Size)); s != fuse.OK {
		return 0, s
	}
	return d.RawFileSystem.Writev(cancel, input, data)
}

func (d *disk) Fsync(cancel <-chan struct{}, input *fuse.FsyncIn) fuse.Status {
	if s := d.wait(cancel, 0); s != fuse.OK {
		return s
	}
	return d.RawFileSystem.Fsync(cancel, input)
}

func (d *disk) Rename(cancel <-chan struct{}, input *fuse.RenameIn, from, to string) fuse.Status {
	if s := d.wait(cancel, 0); s != fuse.OK {
		return s
	}
	return d.RawFileSystem.Rename(cancel, input, from, to)
}

func (d *disk) Unlink(cancel <-chan struct{}, header *fuse.InHeader, name string) fuse.Status {
	if s := d.wait(cancel, 0); s != fuse.OK {
		return s
	}
	return d.RawFileSystem.Unlink(cancel, header, name)
}

// edgeOnDisk is an edge whose cache is on a disk of its own, and the address of an origin of
// generated files below /disk.
func edgeOnDisk(t *testing.T) (*edge, *disk) {
	t.Helper()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	server := generated(t, func(*http.Request) {})
	cp.administer(t).feed(t, fmt.Sprintf("account: {id: disk}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\n"+
		"urlEndpoints: [{id: default, origins: [o]}]\n", server.URL), "apply", "-f", "-")
	d := mountDisk(t, filepath.Join(dir, "edge", "cache"))
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	return e, d
}

// A disk that does not answer keeps neither a client nor the end of the process.
func TestStopWhileTheDiskHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	e, d := edgeOnDisk(t)
	const path = "/a-300000"
	eventually(t, soon, "a file is a hit", func() bool {
		hit, err := checkBody(t.Context(), e.http, "/disk", path)
		return hit && err == nil
	})
	d.hang()
	// Requests that meet the disk as it begins to hang are kept; those after it was found to hang
	// are not.
	n := 0
	eventually(t, soon, "the disk is found to hang", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		n++
		checkBody(ctx, e.http, "/disk", fmt.Sprintf("/caught%d-300000", n))
		return strings.Contains(e.stderr.String(), "cache disk does not answer")
	})
	for _, path := range []string{path, "/b-300000"} {
		if _, err := checkBody(t.Context(), e.http, "/disk", path); err != nil {
			t.Error(err)
		}
	}
	e.stop(t)
}

// A disk that is slower than the origin is left out: clients get their files as fast as the origin
// gives them.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	e, d := edgeOnDisk(t)
	d.slow(1 << 20)
	began := time.Now()
	if _, err := checkBody(t.Context(), e.http, "/disk", "/a-33554432"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 15*time.Second { // the disk alone would take 32 s
		t.Errorf("32 MiB took %s", took)
	}
	d.slow(0)
	eventually(t, soon, "a file is stored again", func() bool {
		hit, err := checkBody(t.Context(), e.http, "/disk", "/b-300000")
		return hit && err == nil
	})
}
