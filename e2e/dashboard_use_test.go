package e2e

import (
	"errors"
	"html"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/edgewalk/edgewalk/internal/certtest"
)

// The dashboard, in a browser, before a fleet.
func TestDashboard(t *testing.T) {
	s := startShop(t, "eu", "us", "ap")
	s.fill(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *shop)
	}{
		{"pages", lookAtPages},
		{"the last hour", lastHour},
		{"the first page is small", weighFirstPage},
		{"an endpoint by keyboard", endpointByKeyboard},
		{"without script", withoutScript},
		{"files that are dropped", filesDropped},
		{"an origin is tested", originTested},
		{"an origin with an authority of its own", originWithAuthority},
		{"what is copied", copied},
		{"a fleet that is told live", fleetLive},
		{"who was signed out meanwhile", signedOutMeanwhile},
		{"what is asked before a deletion", askedOnce},
		{"long names", longNames},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, s) })
	}
}

func fetch(t *testing.T, c *http.Client, url string) string {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v\n%s", url, resp.Status, err, body)
	}
	return string(body)
}

// The overview and the command tell what clients asked of the edges, and which files nobody had.
func lastHour(t *testing.T, s *shop) {
	asked := rounds * len(s.edges) * 10 // by fill
	eventually(t, soon, "every edge has reported what it was asked for", func() bool {
		traffic := s.object(t, "traffic", "-A", "acme")["traffic"].(map[string]any)
		n := 0
		for _, minute := range traffic["minutes"].([]any) {
			counts, _ := minute.(map[string]any)["counts"].(map[string]any)
			if text, ok := counts["requests"].(string); ok {
				one, err := strconv.Atoi(text)
				if err != nil {
					t.Fatal(err)
				}
				n += one
			}
		}
		return n >= asked
	})
	out := s.do(t, "traffic", "-A", "acme")
	for _, want := range []string{"hit ratio", "/nobody.png", "product-images"} {
		if !strings.Contains(out, want) {
			t.Errorf("edgewalk traffic does not tell of %q:\n%s", want, out)
		}
	}
	text := fetch(t, signedIn(t, s.url, theToken), s.url+"/ui/a/acme")
	for _, want := range []string{"Hit ratio", "<polyline", "/nobody.png", "Files that nobody had"} {
		if !strings.Contains(text, want) {
			t.Errorf("the overview does not show %q", want)
		}
	}
}

// press sends keys to whatever has the focus.
func (w *tab) press(t *testing.T, keys string) {
	t.Helper()
	w.run(t, chromedp.KeyEvent(keys))
}

// focused is what the element with the focus is called.
const focused = `(e => e?.getAttribute("aria-label") || e?.labels?.[0]?.textContent || e?.textContent || "")(document.activeElement).trim().replace(/\s+/g, " ")`

// focuses waits until an element has the focus by itself.
func (w *tab) focuses(t *testing.T, label string) {
	t.Helper()
	eventually(t, soon, label+" has the focus", func() bool {
		at, err := chromedp.Run(w.ctx, chromedp.Evaluate[string](focused))
		return err == nil && strings.HasPrefix(at, label)
	})
}

// tabTo moves the focus, by Tab alone, to the element whose label or text is so.
func (w *tab) tabTo(t *testing.T, label string) {
	t.Helper()
	seen := []string{}
	for range 150 {
		w.press(t, kb.Tab)
		at := eval[string](t, w, focused)
		if strings.HasPrefix(at, label) {
			return
		}
		seen = append(seen, at)
	}
	t.Fatalf("Tab does not come to %q; it came to %q", label, seen)
}

// shows waits until the page has a text.
func (w *tab) shows(t *testing.T, text string) {
	t.Helper()
	eventually(t, soon, "the page shows "+text, func() bool {
		found, err := chromedp.Run(w.ctx, chromedp.Evaluate[bool]("document.readyState === 'complete' && document.body.innerText.includes("+quoted(text)+")"))
		return err == nil && found
	})
}

func quoted(text string) string { return `"` + strings.ReplaceAll(text, `"`, `\"`) + `"` }

// The steps of the feature as it was first described, by keyboard alone: Add new, identifier,
// description, the sequence of origins, a look at the fixed first one, Save. The endpoint then
// serves.
func endpointByKeyboard(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	w.look(t, 1280, "light")
	w.open(t, "/ui/a/acme/url-endpoints")
	w.tabTo(t, "Add new")
	w.press(t, kb.Enter)
	w.shows(t, "Becomes part of the URL")
	w.focuses(t, "Identifier")
	w.press(t, "shots")
	w.shows(t, "https://cdn.example.com/acme/shots/")
	w.tabTo(t, "Description")
	w.press(t, "Shots, then what the old shop has")
	for _, origin := range []string{"legacy", "product-shots"} {
		w.tabTo(t, "Origin to add")
		w.press(t, origin[:1])
		if origin == "product-shots" {
			w.press(t, "ro") // not pim
		}
		w.tabTo(t, "Add origin")
		w.press(t, kb.Enter)
		w.shows(t, origin)
		eventually(t, soon, "the origin is in the order", func() bool {
			return eval[bool](t, w, `!!document.querySelector('[data-id="`+origin+`"]')`)
		})
	}
	if first := eval[string](
		t, w, `document.querySelector(".order li").innerText`,
	); !strings.Contains(first, "Media Library") {
		t.Errorf("the first step is %q", first)
	}
	w.tabTo(t, "Move product-shots up")
	w.press(t, kb.Enter)
	w.tabTo(t, "Review")
	w.press(t, kb.Enter)
	w.shows(t, `["product-shots","legacy"]`)
	w.focuses(t, "Save")
	w.press(t, kb.Enter)
	w.shows(t, "served by 3 of 3 edges")
	w.clean(t, "adding an endpoint")
	for _, e := range s.edges {
		r := e.getFrom(t, "images.example.com", "/shots/shoes.png")
		if r.status != http.StatusOK {
			t.Errorf("%s: the endpoint answers %s", e.name, r)
		}
	}
}

// find waits for an element, without script.
func (w *tab) find(t *testing.T, selector string) (id cdp.NodeID) {
	t.Helper()
	defer func() {
		if id == 0 { // the test is over
			text, err := chromedp.Run(w.ctx, chromedp.Evaluate[string]("location + ' ' + document.body.innerText"))
			t.Logf("the page is %s %v", text, err)
		}
	}()
	eventually(t, soon, "the page has "+selector, func() bool {
		document, err := chromedp.Call(w.ctx, dom.GetDocument, dom.GetDocumentParams{})
		if err != nil {
			return false // the page is being exchanged
		}
		found, err := chromedp.Call(w.ctx, dom.QuerySelector,
			dom.QuerySelectorParams{NodeID: document.Root.NodeID, Selector: selector})
		id = found.NodeID
		return err == nil && id != 0
	})
	return id
}

// has waits until the page has a text, without script.
func (w *tab) has(t *testing.T, text string) {
	t.Helper()
	eventually(t, soon, "the page has "+text, func() bool {
		document, err := chromedp.Call(w.ctx, dom.GetDocument, dom.GetDocumentParams{})
		if err != nil {
			return false
		}
		source, err := chromedp.Call(w.ctx, dom.GetOuterHTML, dom.GetOuterHTMLParams{NodeID: document.Root.NodeID})
		return err == nil &&
			strings.Contains(html.UnescapeString(regexp.MustCompile("<[^>]*>").ReplaceAllString(source.OuterHTML, "")),
				text)
	})
}

// With script switched off, forms do everything: create, reorder, delete, purge, explain.
func withoutScript(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	call(t, w, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	// The page may be exchanged between a look and what follows from it.
	focus := func(selector string) {
		t.Helper()
		eventually(t, soon, selector+" takes the focus", func() bool {
			_, err := chromedp.Call(w.ctx, dom.Focus, dom.FocusParams{NodeID: w.find(t, selector)})
			return err == nil
		})
	}
	click := func(selector string) {
		t.Helper()
		focus(selector)
		w.press(t, kb.Enter)
	}
	fill := func(selector, text string) {
		t.Helper()
		focus(selector)
		call(t, w, input.InsertText, input.InsertTextParams{Text: text})
	}

	w.open(t, "/ui/a/acme/url-endpoints/new")
	fill("#id", "plain")
	for _, origin := range []string{"archive", "legacy"} {
		click(".adds")
		w.find(t, `[data-id="`+origin+`"]`)
	}
	click(`button[value="up legacy"]`)
	w.find(t, `button[value="up legacy"][disabled]`)
	click(`button[value="review"]`)
	w.has(t, `["legacy","archive"]`)
	click(`button[value="save"]`)
	w.has(t, "served by 3 of 3 edges")

	w.has(t, "Answers at")
	click(".danger-quiet")
	w.has(t, "Keep it")
	click("button.danger")
	w.has(t, "Deleted at revision")

	w.open(t, "/ui/a/acme/purges")
	fill("#text", "https://images.example.com/bag.png")
	click(`.buttons button[value="preview"]`)
	w.has(t, "with any query")
	click(`button[value="purge"]`)
	w.has(t, "Purged at revision")

	w.open(t, "/ui/a/acme/explain")
	fill("#url", "https://images.example.com/bag.png")
	click(".ask button")
	w.has(t, "found at legacy")
	w.clean(t, "without script")
}

// The page of the fleet shows a change when edges have it, without being loaded again.
func fleetLive(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	w.open(t, "/ui/fleet")
	w.shows(t, "in step")
	eval[bool](t, w, "window.same = true")
	s.apply(t, "account: {id: later}\n")
	revision := s.object(t, "get", "account", "later")["revision"].(string)
	eventually(t, soon, "the page shows the revision at each edge", func() bool {
		return eval[int](t, w, `[...document.querySelectorAll('td[data-label="Revision"]')].filter(e => +e.innerText >= `+revision+`).length`) == len(s.edges)
	})
	if !eval[bool](t, w, "window.same") {
		t.Error("the page was loaded again")
	}
	w.clean(t, "the fleet")
}

// A page that is not live any more says so, and nothing of what it shows is taken for what is now;
// it goes on once the control plane answers. A file that is dropped there is not stored, and the
// page says that too.
func signedOutMeanwhile(t *testing.T, s *shop) {
	token := strings.TrimSpace(s.do(t, "token", "create", "--role", "root"))
	fleet, media := newTab(t, s.url, token), newTab(t, s.url, token)
	fleet.open(t, "/ui/fleet")
	fleet.shows(t, "in step")
	media.look(t, 1280, "light")
	media.open(t, "/ui/a/acme/media?folder=season/")
	media.shows(t, "or drop files and folders here")
	s.do(t, "token", "revoke", token)
	fleet.shows(t, "Not live since")
	file := filepath.Join(t.TempDir(), "late.png")
	if err := os.WriteFile(file, product(200, 1), 0o644); err != nil {
		t.Fatal(err)
	}
	media.drop(t, file)
	media.shows(t, "Not stored: you are signed out.")
	if out := s.do(t, "media", "ls", "-A", "acme", "/season/", "-o", "name"); strings.Contains(out, "late.png") {
		t.Errorf("the file is stored:\n%s", out)
	}
	fleet.signIn(t, theToken)
	eventually(t, soon, "the page is live again", func() bool {
		return eval[bool](t, fleet, `document.querySelector("main [role=status]").hidden`)
	})
}

// Names as long as they may be break into lines: no text of a page ends beyond a narrow window.
func longNames(t *testing.T, s *shop) {
	o, e := strings.Repeat("o", 63), strings.Repeat("e", 63)
	host := strings.Repeat("h", 63) + "." + strings.Repeat("d", 63) + ".example.com"
	s.apply(t, `account: {id: long, displayName: "`+strings.Repeat("n", 100)+`"}
origins: [{id: `+o+`, displayName: "`+strings.Repeat("N", 100)+`", web: {baseUrl: "https://`+host+`/"}}]
urlEndpoints: [{id: `+e+`, description: "`+strings.Repeat("D", 100)+`", origins: [`+o+`]}]
customDomains: [{domain: `+host+`, mode: URL_ENDPOINT, urlEndpoint: `+e+`}]
`)
	const beyond = `[...document.querySelectorAll("main *")].filter((e) => !e.closest(".visually-hidden, thead") &&
		getComputedStyle(e).textOverflow !== "ellipsis" && [...e.childNodes].some((text) => {
			const range = document.createRange();
			range.selectNode(text);
			return text.nodeType === 3 && range.getBoundingClientRect().right > innerWidth;
		})).map((e) => e.tagName + " " + e.className + ": " + e.textContent.slice(0, 40)).join("\n")`
	w := newTab(t, s.url, theToken)
	w.look(t, 360, "light")
	at := "/ui/a/long"
	for _, path := range []string{
		"/ui/accounts", at, at + "/url-endpoints", at + "/url-endpoints/" + e, at + "/url-endpoints/" + e + "/delete",
		at + "/origins", at + "/origins/" + o, at + "/origins/" + o + "/delete", at + "/domains",
		at + "/domains/" + host, at + "/history", at + "/explain?url=http://" + host + "/" + e + ".png",
		at + "/media/file?path=" + o,
	} {
		w.open(t, path)
		eval[bool](t, w, loaded)
		if over := eval[string](t, w, beyond); over != "" {
			t.Errorf("%s: beyond the window is\n%s", path, over)
		}
		if over := eval[int](t, w, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			t.Errorf("%s: wider than the window by %d", path, over)
		}
	}
}

// What is to be deleted is asked for once, also where somebody clicks twice, and who is signed out
// by then is shown how to sign in.
func askedOnce(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	w.look(t, 1280, "light")
	w.open(t, "/ui/a/acme/url-endpoints/product-images")
	const twice = `for (const link of document.querySelectorAll("[data-dialog]")) { link.click(); link.click(); } true`
	eval[bool](t, w, twice)
	w.find(t, "dialog[open]")
	// By then the second reply would have come too.
	eval[int](t, w, `fetch(location.href).then((reply) => reply.status)`)
	if n := eval[int](t, w, `document.querySelectorAll("dialog").length`); n != 1 {
		t.Errorf("there are %d dialogs", n)
	}
	w.clean(t, "a dialog")
	w.open(t, "/ui/a/acme/url-endpoints/product-images")
	eval[int](t, w, `fetch("/ui/sign-out", {method: "POST"}).then((reply) => reply.status)`)
	eval[bool](t, w, twice)
	w.find(t, "form.sign-in")
	w.clean(t, "a dialog of nobody")
}

// Files and folders that are dropped on a folder's page are there, with their folders.
func filesDropped(t *testing.T, s *shop) {
	dir := t.TempDir()
	for name, shape := range map[string]int{"dropped.png": 1, "summer/red hat.png": 2, "summer/deep/hat.png": 3} {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(
			os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, product(200, shape), 0o644),
		); err != nil {
			t.Fatal(err)
		}
	}
	w := newTab(t, s.url, theToken)
	w.look(t, 1280, "light")
	w.open(t, "/ui/a/acme/media?folder=season/")
	w.shows(t, "or drop files and folders here")
	w.drop(t, filepath.Join(dir, "dropped.png"), filepath.Join(dir, "summer"))
	// The page is loaded again when all are there; until then it lists what is under way.
	for _, link := range []string{`.files a[href$="season%2Fdropped.png"]`, `.folders a[href$="season%2Fsummer%2F"]`} {
		w.find(t, link)
	}
	out := s.do(t, "media", "ls", "-A", "acme", "/season/", "-o", "name")
	for _, want := range []string{"season/dropped.png", "season/summer/red hat.png", "season/summer/deep/hat.png"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %s in\n%s", want, out)
		}
	}
	w.clean(t, "dropping files")
}

// drop drops files and folders on a folder's page.
func (w *tab) drop(t *testing.T, files ...string) {
	t.Helper()
	type point struct{ X, Y float64 }
	at := eval[point](t, w,
		`(r => ({X: r.x + r.width / 2, Y: r.y + r.height / 2}))(document.querySelector(".drop").getBoundingClientRect())`)
	const copies = 1
	for _, kind := range []input.DispatchDragEventType{
		input.DispatchDragEventTypeDragEnter, input.DispatchDragEventTypeDragOver, input.DispatchDragEventTypeDrop,
	} {
		call(t, w, input.DispatchDragEvent, input.DispatchDragEventParams{
			Type: kind, X: at.X, Y: at.Y,
			Data: &input.DragData{Items: []*input.DragDataItem{}, DragOperationsMask: copies, Files: files},
		})
	}
}

// An origin is tested as it stands in the form, before anything is saved.
func originTested(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	w.look(t, 1280, "light")
	w.open(t, "/ui/a/acme/origins/new?kind=web")
	w.focuses(t, "Id")
	w.press(t, "tested")
	w.tabTo(t, "Base URL")
	w.press(t, s.storage.URL)
	w.tabTo(t, "Path to test with")
	w.press(t, "/shoes.png")
	w.tabTo(t, "Test")
	w.press(t, kb.Enter)
	w.shows(t, "A walk can use this answer")
	w.shows(t, "GET "+s.storage.URL+"/shoes.png")
	w.tabTo(t, "Path to test with")
	w.press(t, "x") // in place of what was there
	w.tabTo(t, "Test")
	w.press(t, kb.Enter)
	w.shows(t, "Not here")
	if out := s.do(t, "get", "origins", "-A", "acme", "-o", "name"); strings.Contains(out, "tested") {
		t.Errorf("a test has saved the origin:\n%s", out)
	}
	w.clean(t, "testing an origin")
}

// The text of certificates has several lines, which a field of one line would lose.
func originWithAuthority(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	w.look(t, 1280, "light")
	w.open(t, "/ui/a/acme/origins/new?kind=web")
	w.focuses(t, "Id")
	w.press(t, "authority")
	w.tabTo(t, "Base URL")
	w.press(t, "https://storage.example")
	w.tabTo(t, "More of the storage")
	w.press(t, kb.Enter)
	w.tabTo(t, "CA certificates")
	text := string(certtest.PEM(certtest.New(t).Cert))
	w.press(t, text)
	w.tabTo(t, "Create origin")
	w.press(t, kb.Enter)
	w.shows(t, "authority")
	kept := func() string {
		return s.do(t, "get", "origin", "authority", "-A", "acme", "-o", "jsonpath={.web.caPem}")
	}
	eventually(t, soon, "the origin is there", func() bool {
		return strings.Contains(s.do(t, "get", "origins", "-A", "acme", "-o", "name"), "authority")
	})
	if got := kept(); strings.TrimSpace(got) != strings.TrimSpace(text) {
		t.Fatalf("the form has made %q of %q", got, text)
	}
	w.open(t, "/ui/a/acme/origins/authority")
	w.tabTo(t, "Save")
	w.press(t, kb.Enter)
	w.shows(t, "authority")
	if got := kept(); strings.TrimSpace(got) != strings.TrimSpace(text) {
		t.Errorf("saved again, the form has made %q", got)
	}
	w.clean(t, "an origin with an authority")
}

// The button beside a URL copies it.
func copied(t *testing.T, s *shop) {
	w := newTab(t, s.url, theToken)
	call(t, w, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	w.open(t, "/ui/a/acme/url-endpoints/product-images")
	w.shows(t, "Answers at")
	// What is copied is kept here: a browser of tests has no clipboard of a desktop.
	eval[bool](t, w, `!!(navigator.clipboard.writeText = async text => { window.kept = text; })`)
	const buttons = `[...document.querySelectorAll("main .urls [data-copy]")]`
	if eval[int](t, w, buttons+".length") < 2 {
		t.Fatal("the page has no URLs to copy")
	}
	w.tabTo(t, "Copy https://products.example.com/")
	w.press(t, kb.Enter)
	eventually(t, soon, "the button says that it is done", func() bool {
		return eval[bool](t, w, `!!document.activeElement?.classList.contains("done")`)
	})
	if got := eval[string](t, w, "window.kept"); got != "https://products.example.com/" {
		t.Errorf("copied is %q", got)
	}
	w.clean(t, "copying")

	// Over plain HTTP and from another machine a browser has none: then there is nothing to press.
	call(t, w, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `Object.defineProperty(Navigator.prototype, "clipboard", {value: undefined})`,
	})
	w.open(t, "/ui/a/acme/url-endpoints/product-images")
	w.shows(t, "https://products.example.com/")
	if n := eval[int](t, w, buttons+".length"); n > 0 {
		t.Errorf("%d buttons copy nothing", n)
	}
	w.clean(t, "no clipboard")
}
