package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// file is one file of an archive.
type file struct {
	name   string // slash-separated
	source string // where it is read, unless it is text
	text   []byte
	mode   fs.FileMode
}

func (f *file) read() ([]byte, error) {
	if f.text != nil {
		return f.text, nil
	}
	return os.ReadFile(f.source)
}

// name is that of a file of the release.
func (r *release) name(p platform, ending string) string {
	return filepath.Join(r.out,
		fmt.Sprintf("edgewalk_%s_%s_%s%s", strings.TrimPrefix(r.version, "v"), p.os, p.arch, ending))
}

// archive writes the program with its manuals, units and examples.
func (r *release) archive(b build, manuals []string) error {
	step("archive %s", b.platform)
	top := fmt.Sprintf("edgewalk_%s_%s_%s/", strings.TrimPrefix(r.version, "v"), b.os, b.arch)
	content := []file{{name: "edgewalk", source: b.path, mode: 0o755}}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		content = append(content, file{name: name, source: filepath.Join(r.root, name), mode: 0o644})
	}
	for _, page := range manuals {
		content = append(content, file{name: "man/" + filepath.Base(page), source: page, mode: 0o644})
	}
	for _, folder := range []string{"docs", "deploy/systemd", "deploy/etc", "deploy/prometheus", "deploy/grafana"} {
		inside, err := filesOf(r.root, folder)
		if err != nil {
			return err
		}
		content = append(content, inside...)
	}
	for i := range content {
		content[i].name = top + content[i].name
	}
	return writeFile(r.name(b.platform, ".tar.gz"), func(w io.Writer) error {
		packed := gzip.NewWriter(w) // without a name and a time
		if err := writeTar(packed, content, r.date); err != nil {
			return err
		}
		return packed.Close()
	})
}

// filesOf lists the files below a folder of the repository, if there is one.
func filesOf(root, folder string) ([]file, error) {
	var found []file
	err := filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		found = append(found, file{name: filepath.ToSlash(name), source: path, mode: 0o644})
		return err
	})
	return found, err
}

// writeTar writes files in the order of their names, all of one time and owner.
func writeTar(w io.Writer, content []file, at time.Time) error {
	slices.SortFunc(content, func(a, b file) int { return strings.Compare(a.name, b.name) })
	archive := tar.NewWriter(w)
	for i := range content {
		f := &content[i]
		text, err := f.read()
		if err != nil {
			return err
		}
		header := &tar.Header{
			Name: f.name, Mode: int64(f.mode), Size: int64(len(text)), ModTime: at, Typeflag: tar.TypeReg,
			Format: tar.FormatPAX,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(text); err != nil {
			return err
		}
	}
	return archive.Close()
}

// writeFile makes a file with what write writes.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return f.Close()
}

// checksums writes SHA256SUMS, as `sha256sum -c` reads it.
func (r *release) checksums() error {
	step("checksums")
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, entry := range entries {
		if entry.IsDir() {
			continue
		}
		f, err := os.Open(filepath.Join(r.out, entry.Name()))
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, f)
		f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", hash.Sum(nil), entry.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), sums.Bytes(), 0o644)
}
