package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var record = flag.Bool("record", false, "record testdata/upgrade with the program of the last release")

// lastRelease returns the program of the last release: of the latest tag, and while there is none
// of the commit that testdata/upgrade/commit names.
func lastRelease(t *testing.T) (program string) {
	t.Helper()
	commit, err := buildLastRelease()
	if err != nil {
		t.Fatalf("the last release %s: %v", commit, err)
	}
	t.Logf("the last release is %s", commit)
	return lastReleaseIn(scratch)
}

func lastReleaseIn(dir string) string { return filepath.Join(dir, "last-release", "edgewalk.last") }

var buildLastRelease = sync.OnceValues(func() (commit string, err error) {
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = ".."
		out, err := cmd.Output()
		return strings.TrimSpace(string(out)), err
	}
	if commit, err = git("describe", "--tags", "--abbrev=0", "HEAD^"); err != nil {
		text, err := os.ReadFile("testdata/upgrade/commit")
		if err != nil {
			return "", err
		}
		commit = strings.TrimSpace(string(text))
	}
	if _, err := git("cat-file", "-e", commit+"^{commit}"); err != nil {
		return commit, errors.New("it is not in this clone: git fetch --unshallow --tags")
	}
	program := lastReleaseIn(scratch)
	dir := filepath.Dir(program)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return commit, err
	}
	source := exec.Command("sh", "-c", `git -C .. archive "$0" | tar -x -C "$1"`, commit, dir)
	if out, err := source.CombinedOutput(); err != nil {
		return commit, fmt.Errorf("%w\n%s", err, out)
	}
	build := exec.Command("go", "build", "-o", program, "./cmd/edgewalk")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return commit, fmt.Errorf("%w\n%s", err, out)
	}
	return commit, nil
})

// upgraded is a fleet whose programs are exchanged one by one.
type upgraded struct {
	*admin
	dir   string
	ports []string
	cp    *controlPlane
	edges [2]*edge
	files *origin
	round int
}

func (u *upgraded) runControlPlane(t *testing.T, program string) {
	t.Helper()
	if u.cp != nil {
		u.cp.stop(t)
	}
	u.cp = startControlPlaneOf(t, program, filepath.Join(u.dir, "cp"), u.ports...)
}

func (u *upgraded) runEdge(t *testing.T, i int, program string) {
	t.Helper()
	if u.edges[i] != nil {
		u.edges[i].stop(t)
	}
	id := fmt.Sprint("edge-", i)
	u.edges[i] = startEdgeOf(t, program, filepath.Join(u.dir, id), id, u.cp.edges)
	u.edges[i].waitReady(t)
}

// works has both edges do all that depends on what the programs say to each other, and keep.
func (u *upgraded) works(t *testing.T, when string) {
	t.Helper()
	u.round++
	name := fmt.Sprintf("/%d.txt", u.round)
	eventually(t, startWithin, when+": both edges are connected", func() bool {
		list, _ := u.object(t, "edges")["edges"].([]any)
		return len(list) == 2 && strings.Count(u.do(t, "edges"), " yes ") == 2
	})
	if u.round > 1 {
		u.files.setDown(true)
		for _, e := range u.edges {
			e.serves(t, "/shop/kept.txt", "kept") // from its disk, whoever wrote that
		}
		u.files.setDown(false)
	}
	u.files.set(name, "first")
	out := u.apply(t, u.manifest())
	has(t, when+": apply", out, "applied by 2 of 2 edges")
	u.upload(t, "shop", "/m"+name, when)
	for _, e := range u.edges {
		e.serves(t, "/shop/kept.txt", "kept")
		e.serves(t, "/shop/files"+name, "first")
		e.serves(t, "/shop/m"+name, when)
		e.serves(t, fmt.Sprintf("/shop/r%d/kept.txt", u.round), "kept")
	}
	u.files.set(name, "second")
	u.do(t, "purge", "-A", "shop", "--url", "localhost/shop/files"+name, "--wait")
	for _, e := range u.edges {
		e.serves(t, "/shop/files"+name, "second")
	}
	if written := strings.Count(u.do(t, "history", "-A", "shop"), "\n"); written < u.round {
		t.Errorf("%s: the history has %d lines", when, written)
	}
}

// manifest has one more endpoint each time.
func (u *upgraded) manifest() string {
	text := fmt.Sprintf(`account: {id: shop}
origins:
  - {id: files, web: {baseUrl: "%s"}, requestHeaders: [{name: X-Key, secretValue: canary}]}
urlEndpoints:
  - {id: default, origins: [files]}
  - {id: files, origins: [files]}
`, u.files.url)
	for i := 1; i <= u.round; i++ {
		text += fmt.Sprintf("  - {id: r%d, origins: [files]}\n", i)
	}
	return text
}

// The programs of two releases work together in any mix, and go on with each other's folders, there
// and back.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the last release: make test-long runs it")
	}
	t.Parallel()
	last := lastRelease(t)
	u := &upgraded{
		dir: shortDir(t), ports: fixedPorts(t), files: newOrigin(t, map[string]string{"/kept.txt": "kept"}),
	}
	u.runControlPlane(t, last)
	u.admin = u.cp.administer(t)
	u.runEdge(t, 0, last)
	u.runEdge(t, 1, last)
	u.works(t, "the last release alone")
	for _, step := range []struct {
		name string
		run  func()
	}{
		{"a new edge", func() { u.runEdge(t, 0, binary) }},
		{"a new control plane", func() { u.runControlPlane(t, binary) }},
		{"all new", func() { u.runEdge(t, 1, binary) }},
		{"the control plane back", func() { u.runControlPlane(t, last) }},
		{"an edge back", func() { u.runEdge(t, 0, last) }},
		{"all back", func() { u.runEdge(t, 1, last) }},
		{"the control plane first", func() { u.runControlPlane(t, binary) }},
	} {
		step.run()
		u.works(t, step.name)
	}
}

// Control planes of two releases share an etcd: what is written at one reaches the edges of the
// other, whichever release those are.
func TestMixedControlPlanes(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the last release: make test-long runs it")
	}
	t.Parallel()
	last := lastRelease(t)
	dir := shortDir(t)
	members := startEtcd(t, filepath.Join(dir, "etcd"))
	files := newOrigin(t, map[string]string{"/a.txt": "a"})
	programs := [2]string{last, binary}
	var admins [2]*admin
	var edges [2]*edge
	for i, program := range programs {
		cp := startControlPlaneOf(t, program, filepath.Join(dir, fmt.Sprint("cp", i)),
			"--etcd-endpoints", endpointsOf(members), "--secret-key-file", dir+"/secret-key",
			"--media-url", "file://"+dir+"/bucket")
		admins[i] = cp.administer(t)
		id := fmt.Sprint("edge-", i)
		edges[i] = startEdgeOf(t, programs[1-i], filepath.Join(dir, id), id, cp.edges)
	}
	for i, a := range admins {
		edges[i].waitReady(t)
		eventually(t, soon, "each control plane knows both edges", func() bool {
			list, _ := a.object(t, "edges")["edges"].([]any)
			return len(list) == 2
		})
	}
	for i, a := range admins {
		account := fmt.Sprint("by-", i)
		out := a.apply(t, fmt.Sprintf(`account: {id: %s}
origins: [{id: o, web: {baseUrl: %q}}]
urlEndpoints: [{id: default, origins: [o]}]
`, account, files.url))
		has(t, "apply", out, "applied by 2 of 2 edges")
		a.upload(t, account, "/m.txt", "media")
		for _, e := range edges {
			e.serves(t, "/"+account+"/a.txt", "a")
			e.serves(t, "/"+account+"/m.txt", "media")
		}
	}
}

const recorded = "testdata/upgrade/folders.tar.gz"

// keptFor is how long the recorded reply may be served without its origin, which is gone: it is
// fresh for 365 days.
const keptFor = 364 * 24 * time.Hour

// What the last release left on disks is read: the snapshot of a control plane, and the folders of
// an edge, which serves from them without anybody's help.
func TestFoldersOfTheLastRelease(t *testing.T) {
	t.Parallel()
	if *record {
		recordFolders(t)
	}
	dir := shortDir(t)
	at := unpackFolders(t, dir)
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", "127.0.0.1:1")
	e.waitReady(t)
	read := e.logged(t, "msg", "dir") // its numbers are in the same line
	if read["msg"] != "cache folder read" || !strings.Contains(e.stderr.String(), `"objects":1,`) {
		t.Errorf("the edge says of its cache: %s", e.stderr)
	}
	if time.Since(at) < keptFor {
		e.serves(t, "/shop/files/a.txt", "of the last release")
	}
	e.stop(t)

	key := filepath.Join(dir, "secret-key")
	a := &admin{dir: dir}
	a.do(t, "snapshot", "restore", filepath.Join(dir, "snapshot"), "--data-dir", filepath.Join(dir, "cp"),
		"--secret-key-file", key)
	cp := startControlPlane(t, filepath.Join(dir, "cp"), "--secret-key-file", key)
	a = cp.administer(t)
	has(t, "what is restored", a.do(t, "export", "shop"), "id: files", "www.shop.example", "X-Key")
	has(t, "its tokens", a.do(t, "token", "ls", "-o", "wide"), "of-the-last-release")
	has(t, "its history", a.do(t, "history", "-A", "shop", "-o", "yaml"), "urlEndpoints/files")
	// The edge goes on with its folders, and with the secrets that are sealed in them.
	shown := newOrigin(t, map[string]string{"/b.txt": "b"})
	again := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	again.waitReady(t)
	a.apply(t, strings.ReplaceAll(foldersManifest, "http://127.0.0.1:9", shown.url))
	again.serves(t, "/shop/files/b.txt", "b")
}

const foldersManifest = `account: {id: shop}
origins:
  - {id: files, web: {baseUrl: "http://127.0.0.1:9"}, requestHeaders: [{name: X-Key, secretValue: canary}]}
urlEndpoints:
  - {id: files, origins: [files], cache: {mode: OVERRIDE, defaultTtl: 365d}}
customDomains:
  - {domain: www.shop.example, mode: ACCOUNT}
`

// recordFolders has the last release leave behind what is read later.
func recordFolders(t *testing.T) {
	program := lastRelease(t)
	dir := shortDir(t)
	cp := startControlPlaneOf(t, program, filepath.Join(dir, "cp"))
	e := startEdgeOf(t, program, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	a := cp.administer(t)
	a.apply(t, foldersManifest)
	a.do(t, "token", "create", "--role", "viewer", "--account", "shop", "--description", "of-the-last-release")
	a.upload(t, "shop", "/a.txt", "of the last release")
	e.serves(t, "/shop/files/a.txt", "of the last release")
	a.do(t, "snapshot", "save", "snapshot")
	e.stop(t)
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zipped)
	add := func(path, name string) {
		text, err := os.ReadFile(path)
		if err == nil {
			err = archive.WriteHeader(&tar.Header{
				Name: name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now(), Format: tar.FormatPAX,
			})
		}
		if err == nil {
			_, err = archive.Write(text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add(filepath.Join(a.dir, "snapshot"), "snapshot")
	add(filepath.Join(dir, "cp", "secret-key"), "secret-key")
	err := filepath.WalkDir(filepath.Join(dir, "edge"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			add(path, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err := errors.Join(err, archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recorded, packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("recorded %s: %d bytes", recorded, packed.Len())
}

// unpackFolders returns when they were recorded.
func unpackFolders(t *testing.T, dir string) (at time.Time) {
	t.Helper()
	f, err := os.Open(recorded)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return at
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(header.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		at = header.ModTime
	}
}
