package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// A release is made of a clean clone; the same commit twice is the same bytes, and every part of it
// holds what it should.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program four times: make test-long runs it")
	}
	clone := filepath.Join(t.TempDir(), "clone")
	if out, err := exec.CommandContext(t.Context(), "git", "clone", "-q", "..", clone).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	dist := [2]string{filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")}
	for _, to := range dist {
		if err := run(t.Context(), []string{"-root", clone, "-out", to, "-version", "v1.2.3-rc.1"}); err != nil {
			t.Fatal(err)
		}
	}
	first, second := digests(t, dist[0]), digests(t, dist[1])
	for _, name := range slices.Sorted(maps.Keys(first)) {
		if first[name] != second[name] {
			t.Errorf("%s is not the same twice", name)
		}
	}
	if len(first) != len(second) || len(first) < 15 {
		t.Errorf("%d files, then %d", len(first), len(second))
	}
	t.Run("archive", func(t *testing.T) { archiveRuns(t, dist[0]) })
	t.Run("sbom", func(t *testing.T) { sbomNamesModules(t, dist[0]) })
	t.Run("image", func(t *testing.T) { imageIsValid(t, dist[0]) })
	t.Run("deb", func(t *testing.T) { debInstalls(t, dist[0]) })
	t.Run("checksums", func(t *testing.T) {
		check := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "SHA256SUMS")
		check.Dir = dist[0]
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("not twice into one folder", func(t *testing.T) {
		if err := run(t.Context(), []string{"-root", clone, "-out", dist[0]}); err == nil ||
			!strings.Contains(err.Error(), "not empty") {
			t.Errorf("the error is %v", err)
		}
	})
	t.Run("not of changed files", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(clone, "README.md"), []byte("changed"), 0o644); err != nil {
			t.Fatal(err)
		}
		err := run(t.Context(), []string{"-root", clone, "-out", filepath.Join(t.TempDir(), "c")})
		if err == nil || !strings.Contains(err.Error(), "have changed") {
			t.Errorf("the error is %v", err)
		}
	})
}

func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		sum := sha256.Sum256(text)
		sums[strings.TrimPrefix(path, dir)] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// unpack writes the archive for this machine to a folder, and returns the one inside.
func unpack(t *testing.T, dist string) string {
	t.Helper()
	f, err := os.Open(filepath.Join(dist, fmt.Sprintf("edgewalk_1.2.3-rc.1_linux_%s.tar.gz", runtime.GOARCH)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	packed, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	top := ""
	for archive := tar.NewReader(packed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(to, top)
		}
		if err != nil {
			t.Fatal(err)
		}
		top, _, _ = strings.Cut(header.Name, "/")
		path := filepath.Join(to, filepath.FromSlash(header.Name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, fs.FileMode(header.Mode)); err != nil {
			t.Fatal(err)
		}
	}
}

func archiveRuns(t *testing.T, dist string) {
	dir := unpack(t, dist)
	out, err := exec.CommandContext(t.Context(), filepath.Join(dir, "edgewalk"), "version", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var says struct{ Version, Commit, Date string }
	if err := json.Unmarshal(out, &says); err != nil {
		t.Fatal(err)
	}
	if says.Version != "v1.2.3-rc.1" || len(says.Commit) != 40 || says.Date == "" {
		t.Errorf("the program says %s", out)
	}
	for _, name := range []string{
		"LICENSE", "README.md", "man/edgewalk-edgeagent.1", "deploy/systemd/edgewalk-edgeagent.service",
		"docs/limits.md",
	} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func sbomNamesModules(t *testing.T, dist string) {
	text, err := os.ReadFile(filepath.Join(dist, "edgewalk_1.2.3-rc.1_linux_arm64.cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	var bom struct {
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, c := range bom.Components {
		versions[c.Name] = c.Version
	}
	for _, name := range []string{"std", "google.golang.org/grpc", "go.etcd.io/etcd/client/v3"} {
		if versions[name] == "" {
			t.Errorf("%s is not listed", name)
		}
	}
}

func imageIsValid(t *testing.T, dist string) {
	path, err := layout.FromPath(filepath.Join(dist, "image"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	inner, err := index.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	platforms, err := inner.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range platforms.Manifests {
		names = append(names, m.Platform.String())
		image, err := inner.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Config.User != user || config.Config.Entrypoint[0] != "/usr/bin/edgewalk" {
			t.Errorf("%s: user %q, entrypoint %q", m.Platform, config.Config.User, config.Config.Entrypoint)
		}
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(names, want) {
		t.Errorf("platforms %q, want %q", names, want)
	}
	roots := x509.NewCertPool()
	if text := publicRoots(); !roots.AppendCertsFromPEM(text) || bytes.Count(text, []byte("BEGIN CERTIFICATE")) < 100 {
		t.Error("the certificates of public CAs are not there")
	}
}

// debInstalls unpacks the package where dpkg is, and runs what it holds.
func debInstalls(t *testing.T, dist string) {
	if runtime.GOARCH != "amd64" {
		t.Skip("runs the package for amd64: needs a machine of that architecture")
	}
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("dpkg-deb is missing: the package is looked into on Debian")
	}
	found, err := filepath.Glob(filepath.Join(dist, "edgewalk_*_amd64.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages %q, %v", found, err)
	}
	root := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), dpkg, "--extract", found[0], root).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.CommandContext(
		t.Context(), filepath.Join(root, "usr/bin/edgewalk"), "--version",
	).Output(); err != nil || !bytes.HasPrefix(
		out, []byte("edgewalk v1.2.3-rc.1 "),
	) {
		t.Errorf("%q, %v", out, err)
	}
	fields, err := exec.CommandContext(t.Context(), dpkg, "--field", found[0], "Version", "Conffiles").Output()
	if err != nil || !strings.Contains(string(fields), "1.2.3~rc.1") {
		t.Errorf("fields %q, %v", fields, err)
	}
	for _, name := range []string{
		"etc/edgewalk/edgeagent.env", "usr/lib/systemd/system/edgewalk-edgeagent.socket",
		"usr/share/man/man1/edgewalk.1",
	} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
}
