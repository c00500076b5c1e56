package house

import (
	"strings"
	"testing"
)

// Each rule is shown source that breaks it and source that looks alike and does not.
func TestRulesFind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		path string
		src  string
		want string // names of the rules broken, comma-separated
	}{
		{"sleep in a test", "edgeagent/a_test.go", `import "time"; func f() { time.Sleep(1) }`,
			"no real sleep in tests"},
		{"sleep by another name", "edgeagent/a_test.go", `import clock "time"; func f() { clock.Sleep(1) }`,
			"no real sleep in tests"},
		{"sleep in a bubble", "edgeagent/a_test.go", `import ("time"; "testing/synctest"); func f() { synctest.Test(nil, func() { time.Sleep(1) }) }`, ""},
		{"sleep beside a bubble", "edgeagent/a_test.go", `import ("time"; "testing/synctest"); func f() { synctest.Test(nil, nil); time.Sleep(1) }`, "no real sleep in tests"},
		{"sleep in a program", "edgeagent/a.go", `import "time"; func f() { time.Sleep(1) }`, ""},

		{"time in topology", "internal/topology/a.go", `import "time"; var now = time.Now`,
			"pure packages never ask the time"},
		{"time below topology", "internal/topology/host/a.go", `import "time"; var x = time.Since(t)`,
			"pure packages never ask the time"},
		{"duration in topology", "internal/topology/a.go", `import "time"; var x = time.Second`, ""},
		{"time elsewhere", "internal/topologyproto/a.go", `import "time"; var now = time.Now`, ""},

		{"edge imports control plane", "edgeagent/internal/walk/a.go",
			`import _ "github.com/edgewalk/edgewalk/controlplane"`, "imports follow the layout"},
		{"edge's test starts a control plane", "edgeagent/internal/walk/a_test.go",
			`import _ "github.com/edgewalk/edgewalk/controlplane"`, ""},
		{"control plane imports edge", "controlplane/a.go", `import _ "github.com/edgewalk/edgewalk/edgeagent"`,
			"imports follow the layout"},
		{"shared imports edge", "internal/topology/a.go", `import _ "github.com/edgewalk/edgewalk/edgeagent"`,
			"imports follow the layout"},
		{"program imports both", "cmd/edgewalk/a.go", `import (_ "github.com/edgewalk/edgewalk/edgeagent"; _ "github.com/edgewalk/edgewalk/controlplane")`, ""},
		{"etcd in the store", "controlplane/internal/store/a.go", `import _ "go.etcd.io/etcd/client/v3"`, ""},
		{"etcd in the feed's test", "controlplane/internal/feed/a_test.go", `import _ "go.etcd.io/etcd/client/v3"`,
			"imports follow the layout"},
		{"file in the caching rules", "edgeagent/internal/rfc9111/a.go", `import _ "os"`, "imports follow the layout"},
		{"HTTP in topology", "internal/topology/a.go", `import _ "net/http"`, "imports follow the layout"},
		{"header in the caching rules", "edgeagent/internal/rfc9111/a.go", `import "net/http"; var h http.Header`,
			"a hit needs no net/http"},
		{"status in the cache", "edgeagent/internal/httpcache/a.go", `import "net/http"; var s, m = http.StatusText(http.StatusOK), http.MethodGet`, ""},
		{"request in the routing table", "edgeagent/internal/route/a.go", `import "net/http"; var r *http.Request`,
			"a hit needs no net/http"},
		{"server in the front", "edgeagent/internal/front/a.go", `import "net/http"; var s http.Server`,
			"a hit needs no net/http"},
		{"trace in the cache", "edgeagent/internal/httpcache/a.go", `import _ "net/http/httptrace"`,
			"imports follow the layout"},
		{"header in a test of the cache", "edgeagent/internal/httpcache/a_test.go",
			`import "net/http"; var h http.Header`, ""},
		{"request in an origin", "edgeagent/internal/origin/a.go", `import "net/http"; var r *http.Request`, ""},

		{"700 lines", "edgeagent/a.go", strings.Repeat("\n", 698), ""},
		{"701 lines", "edgeagent/a.go", strings.Repeat("\n", 700), "small files"},
		{"120 columns", "edgeagent/a.go", "var x = 1111" + strings.Repeat(" + 1", 27), ""},
		{"121 columns", "edgeagent/a.go", "var x = 11111" + strings.Repeat(" + 1", 27), "lines fit"},
		{"long literal", "edgeagent/a.go", `var x = "` + strings.Repeat("x", 120) + `"`, ""},
		{"long literal in a long line", "edgeagent/a.go",
			`var x = "` + strings.Repeat("x", 120) + `"` + strings.Repeat(" + x", 30), "lines fit"},
		{"lines of a literal", "edgeagent/a.go", "var x = `\n" + strings.Repeat("x ", 80) + "\n`", ""},
		{"comment of 100 columns", "edgeagent/a.go", "\t// " + strings.Repeat("ab ", 31), ""},
		{"comment of 101 columns", "edgeagent/a.go", "\t// " + strings.Repeat("ab ", 31) + "a", "lines fit"},
		{"long word", "edgeagent/a.go", "// https://" + strings.Repeat("x", 100), ""},
		{"left for later", "edgeagent/a.go", "// TO" + "DO: finish\n", "nothing left for later"},
		{"wordy error", "edgeagent/a.go", `import "fmt"; var err = fmt.Errorf("failed to read: %w", nil)`, "errors say what was done"},
		{"terse error", "edgeagent/a.go", `import "fmt"; var err = fmt.Errorf("read: %w", nil)`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f, err := parse(tt.path, []byte("package p\n"+tt.src))
			if err != nil {
				t.Fatal(err)
			}
			var broken []string
			for _, r := range rules {
				if len(r.check(f)) > 0 {
					broken = append(broken, r.name)
				}
			}
			if got := strings.Join(broken, ","); got != tt.want {
				t.Errorf("rules broken: %q, want %q", got, tt.want)
			}
		})
	}
}
