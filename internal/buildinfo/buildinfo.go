// Package buildinfo says which edgewalk this is: for people, for programs and for Prometheus.
package buildinfo

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// version is set by the linker (`-X`), in the Makefile and by releases.
var version string

// Info describes a build.
type Info struct {
	// Version is that of the release, such as `v1.4.0`, or what `git describe` says; `unknown`
	// without one.
	Version string `json:"version" yaml:"version"`
	// Commit is the commit that was built, in hex; with `-dirty` when files had changed since.
	// Empty when it was not built from a checkout.
	Commit string `json:"commit,omitempty" yaml:"commit,omitempty"`
	// Date is when the commit was made, in RFC 3339. Empty as Commit is.
	Date string `json:"date,omitempty" yaml:"date,omitempty"`
	// Go is the version of the compiler, such as `go1.26.8`.
	Go string `json:"go" yaml:"go"`
	// Platform is operating system and architecture, such as `linux/amd64`.
	Platform string `json:"platform" yaml:"platform"`
}

// Get returns what this program was built from.
func Get() Info {
	i := Info{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if build, ok := debug.ReadBuildInfo(); ok {
		i.read(build)
	}
	i.Version = cmp.Or(i.Version, "unknown")
	return i
}

func (i *Info) read(build *debug.BuildInfo) {
	i.Version = cmp.Or(i.Version, build.Main.Version)
	dirty := ""
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			i.Commit = s.Value
		case "vcs.time":
			i.Date = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		}
	}
	if i.Commit != "" {
		i.Commit += dirty
	}
}

// String is one line for people.
func (i Info) String() string {
	from := ""
	if i.Commit != "" {
		from = fmt.Sprintf(" (commit %.12s, %s)", i.Commit, i.Date)
	}
	return fmt.Sprintf("%s%s %s %s", i.Version, from, i.Go, i.Platform)
}

// Collector returns the metric `edgewalk_build_info`, which is 1 and has the build in its labels.
func Collector() prometheus.Collector {
	i := Get()
	g := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "edgewalk_build_info",
		Help:        "The build of edgewalk that runs, in labels. Always 1.",
		ConstLabels: prometheus.Labels{"version": i.Version, "revision": i.Commit, "goversion": i.Go},
	})
	g.Set(1)
	return g
}
