package buildinfo

import (
	"runtime/debug"
	"testing"
)

func TestInfo(t *testing.T) {
	t.Parallel()
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"},
			{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
			{Key: "vcs.modified", Value: modified},
		}
	}
	for _, c := range []struct {
		name   string
		linked string
		build  debug.BuildInfo
		want   string
	}{
		{
			"a release", "v1.4.0", debug.BuildInfo{Settings: vcs("false")},
			"v1.4.0 (commit 0123456789ab, 2026-01-02T03:04:05Z) go linux/amd64",
		},
		{
			"files that have changed", "v1.4.0", debug.BuildInfo{Settings: vcs("true")},
			"v1.4.0 (commit 0123456789ab, 2026-01-02T03:04:05Z) go linux/amd64",
		},
		{"go install", "", debug.BuildInfo{Main: debug.Module{Version: "v1.4.1"}}, "v1.4.1 go linux/amd64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			i := Info{Version: c.linked, Go: "go", Platform: "linux/amd64"}
			i.read(&c.build)
			if got := i.String(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	dirty := Info{}
	dirty.read(&debug.BuildInfo{Settings: vcs("true")})
	if want := "0123456789abcdef0123456789abcdef01234567-dirty"; dirty.Commit != want {
		t.Errorf("the commit is %q, want %q", dirty.Commit, want)
	}
}
