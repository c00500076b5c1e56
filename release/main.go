// Command release makes what is published of one commit: static binaries for each platform in
// archives, packages for Debian and RPM systems, an image for container engines, a list of what is
// in them (SBOM), and the checksums of all.
//
// Everything is a function of the commit, the version and the Go toolchain: made twice, it is the
// same byte for byte. Times are the commit's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// platforms are those that are released.
var platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}}

type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "/" + p.arch }

// release is one to make.
type release struct {
	root    string // of the repository
	out     string // folder of what is made
	version string // such as v1.4.0
	commit  string
	date    time.Time // of the commit
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	root := flags.String("root", ".", "the `folder` of the repository")
	out := flags.String("out", "dist", "the `folder` to write to; it must not exist, or be empty")
	version := flags.String("version", "", "the version, such as v1.4.0 (default what git describe says)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	r := release{version: *version}
	var err error
	if r.root, err = filepath.Abs(*root); err != nil {
		return err
	}
	if r.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if err := r.describe(ctx); err != nil {
		return err
	}
	if entries, err := os.ReadDir(r.out); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty: remove it first", r.out)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	return r.make(ctx)
}

// describe asks git what is released. A checkout with changes has no commit that says what is in
// it.
func (r *release) describe(ctx context.Context) error {
	changed, err := r.git(ctx, "status", "--porcelain")
	if err != nil {
		return err
	}
	if changed != "" {
		return errors.New("files have changed since the last commit: commit them first, or release from a clean clone")
	}
	if r.commit, err = r.git(ctx, "rev-parse", "HEAD"); err != nil {
		return err
	}
	seconds, err := r.git(ctx, "show", "-s", "--format=%ct", "HEAD")
	if err != nil {
		return err
	}
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("date of %s: %w", r.commit, err)
	}
	r.date = time.Unix(at, 0).UTC()
	if r.version == "" {
		if r.version, err = r.git(ctx, "describe", "--tags", "--always"); err != nil {
			return err
		}
	}
	return nil
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stderr = r.root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

func (r *release) make(ctx context.Context) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var builds []build
	for _, p := range platforms {
		b, err := r.build(ctx, work, p)
		if err != nil {
			return err
		}
		builds = append(builds, b)
	}
	manuals, err := r.manuals(ctx, work, builds)
	if err != nil {
		return err
	}
	for _, b := range builds {
		for _, step := range []func(build, []string) error{r.archive, r.packages, r.sbom} {
			if err := step(b, manuals); err != nil {
				return err
			}
		}
	}
	if err := r.image(builds); err != nil {
		return err
	}
	// Whoever worked in the checkout meanwhile has had files of two states released.
	was := r.commit
	if err := r.describe(ctx); err != nil {
		return err
	}
	if r.commit != was {
		return fmt.Errorf("%s was checked out while %s was released", r.commit, was)
	}
	return r.checksums()
}

// build is the program for one platform.
type build struct {
	platform
	path string
}

func (r *release) build(ctx context.Context, work string, p platform) (build, error) {
	step("build %s", p)
	b := build{p, filepath.Join(work, p.os+"_"+p.arch, "edgewalk")}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags",
		"-s -w -buildid= -X github.com/edgewalk/edgewalk/internal/buildinfo.version="+r.version, "-o", b.path, "./cmd/edgewalk")
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.root, os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.os, "GOARCH="+p.arch)
	if err := cmd.Run(); err != nil {
		return build{}, fmt.Errorf("go build for %s: %w", p, err)
	}
	return b, nil
}

// manuals has the program write its manual pages, as it was built for this machine.
func (r *release) manuals(ctx context.Context, work string, builds []build) ([]string, error) {
	step("write the manual pages")
	dir := filepath.Join(work, "man")
	cmd := exec.CommandContext(ctx, "go", "run", "./cmd/edgewalk", "man", dir)
	for _, b := range builds {
		if b.os == runtime.GOOS && b.arch == runtime.GOARCH {
			cmd = exec.CommandContext(ctx, b.path, "man", dir)
		}
	}
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.root, os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "SOURCE_DATE_EPOCH="+strconv.FormatInt(r.date.Unix(), 10))
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("manual pages: %w", err)
	}
	return filepath.Glob(filepath.Join(dir, "*.1"))
}

// step says what goes on.
func step(format string, args ...any) { fmt.Fprintf(os.Stderr, "== "+format+"\n", args...) }
