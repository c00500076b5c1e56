package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
)

// dashboardPages are the pages that an admin of all accounts sees, by what their pictures are
// called.
var dashboardPages = []struct{ name, path string }{
	{"url-endpoints", "/ui/a/acme/url-endpoints"},
	{"url-endpoint", "/ui/a/acme/url-endpoints/default"},
	{"url-endpoint-new", "/ui/a/acme/url-endpoints/new"},
	{"origins", "/ui/a/acme/origins"},
	{"origin", "/ui/a/acme/origins/product-shots"},
	{"origin-kinds", "/ui/a/acme/origins/new"},
	{"origin-new", "/ui/a/acme/origins/new?kind=s3"},
	{"origin-delete", "/ui/a/acme/origins/legacy/delete"},
	{"domains", "/ui/a/acme/domains"},
	{"domain", "/ui/a/acme/domains/images.example.com"},
	{"domain-new", "/ui/a/acme/domains/new"},
	{"media", "/ui/a/acme/media"},
	{"media-folder", "/ui/a/acme/media?folder=products/"},
	{"media-file", "/ui/a/acme/media/file?path=products/teal.png"},
	{"explain", "/ui/a/acme/explain"},
	{"explained", "/ui/a/acme/explain?url=https%3A%2F%2Fimages.example.com%2Fbag.png&edge=fra-1"},
	{"compared", "/ui/a/acme/explain?url=https%3A%2F%2Fimages.example.com%2Fshoes.png&edge=fra-1&other=nyc-1"},
	{"purge", "/ui/a/acme/purges"},
	{"history", "/ui/a/acme/history"},
	{"access", "/ui/a/acme/access"},
	{"rest-api", "/ui/api"},
	{"accounts", "/ui/accounts"},
	{"fleet", "/ui/fleet"},
	{"identities", "/ui/identities"},
	{"tokens", "/ui/access"},
	{"overview", "/ui/a/acme"}, // the last, because edges report every 10 s
}

// emptyPages are those of an account that was just made.
var emptyPages = []string{
	"", "/url-endpoints", "/origins", "/domains", "/media", "/explain", "/purges", "/history", "/access",
}

// axeVersion is that of axe-core (https://github.com/dequelabs/axe-core), which CI has from npm.
const axeVersion = "4.14.1"

// axe is the text of axe-core; empty where npm is missing.
var axe = sync.OnceValues(func() (string, error) {
	if file := os.Getenv("EDGEWALK_AXE"); file != "" {
		text, err := os.ReadFile(file)
		return string(text), err
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(scratch, "axe")
	if err != nil {
		return "", err
	}
	pack := exec.Command(npm, "pack", "--silent", "axe-core@"+axeVersion)
	pack.Dir = dir
	if out, err := pack.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm pack: %w\n%s", err, out)
	}
	text, err := exec.Command(
		"tar", "-xzOf", filepath.Join(dir, "axe-core-"+axeVersion+".tgz"), "package/axe.min.js",
	).Output()
	return string(text), err
})

// What axe looks for: all of WCAG 2.2 AA, contrast alone, and all but contrast, which takes most of
// the time.
const (
	axeAll        = `runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]`
	axeContrast   = `runOnly: {type: "rule", values: ["color-contrast"]}`
	axeNoContrast = axeAll + `, rules: {"color-contrast": {enabled: false}}`
)

// bringAxe loads axe for the open page, in a JavaScript world of its own, because the page's policy
// allows no other scripts. It returns a function that runs axe to look for whatever keeps people
// from using the page.
func (w *tab) bringAxe(t *testing.T, script string) (judge func(rules, where string)) {
	t.Helper()
	if script == "" {
		return func(string, string) {}
	}
	tree := call(t, w, page.GetFrameTree, cdp.Empty{})
	world := call(t, w, page.CreateIsolatedWorld,
		page.CreateIsolatedWorldParams{FrameID: tree.FrameTree.Frame.ID, WorldName: "axe"})
	await, value := true, true
	run := func(expression string) (string, *runtime.ExceptionDetails) {
		r := call(t, w, runtime.Evaluate, runtime.EvaluateParams{
			Expression: expression, ContextID: world.ExecutionContextID, AwaitPromise: &await, ReturnByValue: &value,
		})
		return strings.Trim(string(r.Result.Value), `"`), r.ExceptionDetails
	}
	if _, wrong := run(script + "; true"); wrong != nil {
		t.Fatalf("axe: %s", wrong.Exception.Description)
	}
	return func(rules, where string) {
		t.Helper()
		found, wrong := run(`axe.run(document, {resultTypes: ["violations"], preload: false, selectors: false, ` + rules + `}).then(r =>
			r.violations.map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 160) + " (" + n.failureSummary.replace(/\n/g, " ") + ")").join(" | ")).join("\n"))`)
		if wrong != nil {
			t.Fatalf("%s: axe: %s", where, wrong.Exception.Description)
		}
		if found != "" {
			t.Errorf("%s: axe finds\n%s", where, strings.ReplaceAll(found, `\n`, "\n"))
		}
	}
}

// What somebody sees: each page in light and dark, wide and narrow, with nothing wider than the
// window, nothing in the console, nothing that axe finds, and nothing that moves while the page
// loads.
func lookAtPages(t *testing.T, s *shop) {
	script, err := axe()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Errorf("axe-core is missing: %v", err)
		}
		t.Logf("axe does not look, because it is missing: %v", err)
	}
	s.apply(t, "account: {id: fresh, displayName: Fresh Start}\n")
	pages := dashboardPages
	for _, path := range emptyPages {
		pages = append(pages,
			struct{ name, path string }{"empty-" + strings.TrimPrefix(path, "/"), "/ui/a/fresh" + path})
	}
	if !testing.Short() {
		s.fillLarge(t)
		for _, path := range []string{"", "/url-endpoints", "/origins", "/url-endpoints/new"} {
			name := "large-" + strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "-")
			pages = append(pages, struct{ name, path string }{name, "/ui/a/large" + path})
		}
	}
	w := newTab(t, s.url, theToken)
	call(t, w, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: `window.moved = 0;
		new PerformanceObserver(l => l.getEntries().forEach(e => { moved += e.value; })).observe({type: "layout-shift", buffered: true})`})
	for _, p := range pages {
		var judge func(rules, where string)
		for i, look := range []struct {
			width  int64
			scheme string
			rules  string // for axe: a scheme changes colours, and a width all else
		}{{1280, "light", axeAll}, {1280, "dark", axeContrast}, {390, "light", axeNoContrast}, {390, "dark", ""},
			{360, "light", ""}} {
			where := fmt.Sprintf("%s-%s-%d", p.name, look.scheme, look.width)
			w.look(t, look.width, look.scheme)
			if i%2 == 0 {
				w.open(t, p.path)
				judge = w.bringAxe(t, script)
			}
			eval[bool](t, w, loaded)
			if over := eval[int](t, w, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("%s: wider than the window by %d", where, over)
			}
			if moved := eval[float64](t, w, "moved"); i%2 == 0 && moved > 0.01 {
				t.Errorf("%s: the page moves by %.3f while it loads", where, moved)
			}
			if look.rules != "" {
				judge(look.rules, where)
			}
			w.clean(t, where)
			w.picture(t, where)
		}
	}
}

// The first page, with everything that it needs, is small.
func weighFirstPage(t *testing.T, s *shop) {
	c := signedIn(t, s.url, theToken)
	text := fetch(t, c, s.url+"/ui/a/acme/url-endpoints")
	weight := len(text)
	for part := range strings.SplitSeq(text, `"`) {
		if strings.HasPrefix(part, "/ui/static/") {
			weight += len(fetch(t, c, s.url+part))
		}
	}
	if weight > 50_000 {
		t.Errorf("the first page has %d bytes with everything, want at most 50,000", weight)
	}
	if !bytes.Contains([]byte(text), []byte("product-images")) {
		t.Error("the page does not show an endpoint")
	}
}
