package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"maps"
	"math"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// picturesTo is where TestDashboardPages keeps what it sees.
var (
	picturesTo   = flag.String("pictures", "", "folder for pictures of the dashboard's pages")
	docsPictures = flag.String("pictures.docs", "", "folder for those of them that docs shows")
)

// chromium is the one browser of all tests; stopChromium ends it.
var (
	chromium     = sync.OnceValues(startChromium)
	stopChromium = func() {}
)

func startChromium() (context.Context, error) {
	program, err := findChromium()
	if err != nil {
		return nil, err
	}
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(),
		append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(program), chromedp.NoSandbox, chromedp.WSURLReadTimeout(startWithin))...)
	ctx, stop := chromedp.NewContext(allocator)
	stopChromium = func() { stop(); stopAllocator() }
	return ctx, chromedp.Do(ctx)
}

func findChromium() (program string, err error) {
	if program, err = exec.LookPath("chromium-headless-shell"); err != nil {
		program, err = exec.LookPath("chromium")
	}
	return program, err
}

// needChromium skips a test where there is no browser, but on CI.
func needChromium(t *testing.T, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("CI") != "" || *picturesTo != "":
		t.Fatalf("no browser starts: %v: install Debian's chromium-headless-shell", err)
	default:
		t.Skipf("no browser starts: %v: install Debian's chromium-headless-shell to run this", err)
	}
}

// tab is a window of a browser that shares nothing with others.
type tab struct {
	ctx    context.Context
	server string // http://host:port

	mu     sync.Mutex
	faults []string // errors in the console, and what the page's policy refused
}

// newTab opens a window at a control plane, signed in with a token unless that is empty.
func newTab(t *testing.T, server, token string) *tab {
	t.Helper()
	parent, err := chromium()
	needChromium(t, err)
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	w := &tab{ctx: ctx, server: server}
	err = chromedp.Listen(ctx, func(event any) {
		var fault string
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			fault = e.ExceptionDetails.Text
			if e.ExceptionDetails.Exception != nil {
				fault += " " + e.ExceptionDetails.Exception.Description
			}
		case *cdplog.EventEntryAdded:
			if e.Entry.Level == cdplog.EntryLevelError {
				fault = e.Entry.Text + " " + e.Entry.URL
			}
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.ConsoleAPICalledTypeError {
				fault = fmt.Sprint(e.Args)
			}
		}
		if fault != "" {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.faults = append(w.faults, fault)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	call(t, w, cdplog.Enable, cdp.Empty{})
	if token != "" {
		w.signIn(t, token)
	}
	return w
}

// signIn signs in without the page for it.
func (w *tab) signIn(t *testing.T, token string) {
	t.Helper()
	c := signedIn(t, w.server, token)
	u, _ := url.Parse(w.server)
	for _, cookie := range c.Jar.Cookies(u) {
		call(t, w, network.SetCookie, network.SetCookieParams{Name: cookie.Name, Value: cookie.Value, URL: w.server})
	}
}

// signedIn is a client with a session, which follows nothing.
func signedIn(t *testing.T, server, token string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{
		Jar: jar, Timeout: soon,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var resp *http.Response
	eventually(t, soon, "somebody may sign in again", func() bool { // only so many times a minute
		if resp, err = c.PostForm(server+"/ui/sign-in", url.Values{"token": {token}}); err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusTooManyRequests {
			return true
		}
		resp.Body.Close()
		return false
	})
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("signing in is answered with %s: %s", resp.Status, body)
	}
	return c
}

// call sends a command to the browser.
func call[P, R any](t *testing.T, w *tab, command cdp.Command[P, R], params P) R {
	t.Helper()
	ctx, stop := context.WithTimeout(w.ctx, startWithin)
	defer stop()
	r, err := chromedp.Call(ctx, command, params)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// run does what somebody does at a window.
func (w *tab) run(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, stop := context.WithTimeout(w.ctx, startWithin)
	defer stop()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// open shows a page.
func (w *tab) open(t *testing.T, path string) {
	t.Helper()
	w.run(t, chromedp.Navigate(w.server+path))
}

// eval returns what an expression is in the page.
func eval[T any](t *testing.T, w *tab, expression string) T {
	t.Helper()
	ctx, stop := context.WithTimeout(w.ctx, startWithin)
	defer stop()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return value
}

// clean fails the test if the console has an error, or the policy refused anything, after it was
// asked last.
func (w *tab) clean(t *testing.T, where string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, fault := range w.faults {
		t.Errorf("%s: the console says: %s", where, fault)
	}
	w.faults = nil
}

// look sets the size of the window and the scheme of colours.
func (w *tab) look(t *testing.T, width int64, scheme string) {
	t.Helper()
	call(t, w, emulation.SetDeviceMetricsOverride,
		emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 900, DeviceScaleFactor: 1, Mobile: width < 600})
	call(t, w, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// picture keeps what the window shows, if pictures are asked for.
func (w *tab) picture(t *testing.T, name string) {
	t.Helper()
	if *picturesTo == "" {
		return
	}
	size := call(t, w, page.GetLayoutMetrics, cdp.Empty{}).CSSContentSize
	// A window as high as the page has what sticks to its edges there alone.
	call(t, w, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: int64(size.Width), Height: int64(max(900, size.Height)), DeviceScaleFactor: 1, Mobile: size.Width < 600,
	})
	eval[bool](t, w, loaded)
	beyond := true
	clip := &page.Viewport{Width: size.Width, Height: min(size.Height, 2400), Scale: 1}
	shot := call(
		t, w, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &beyond, Clip: clip},
	).Data
	folders := []string{*picturesTo}
	if *docsPictures != "" && !strings.HasPrefix(name, "empty") && !strings.HasPrefix(name, "large") &&
		strings.HasSuffix(name, "-light-1280") {
		folders = append(folders, *docsPictures)
	}
	for _, folder := range folders {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name+".png"), small(t, shot), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// small is a picture with 256 colours at most, which takes a third of the bytes.
func small(t *testing.T, shot []byte) []byte {
	t.Helper()
	full, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	// The colours that occur most, of those that look the same one: text has few, so that pictures
	// get theirs.
	type look struct{ n, r, g, b int }
	looks := make(map[int]*look)
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			r, g, b, _ := full.At(x, y).RGBA()
			key := int(r>>11)<<10 | int(g>>11)<<5 | int(b>>11)
			if looks[key] == nil {
				looks[key] = new(look)
			}
			l := looks[key]
			l.n, l.r, l.g, l.b = l.n+1, l.r+int(r>>8), l.g+int(g>>8), l.b+int(b>>8)
		}
	}
	most := slices.SortedFunc(maps.Values(looks), func(a, b *look) int { return b.n - a.n })
	var palette color.Palette
	for _, l := range most[:min(256, len(most))] {
		palette = append(palette, color.RGBA{uint8(l.r / l.n), uint8(l.g / l.n), uint8(l.b / l.n), 255})
	}
	out := image.NewPaletted(full.Bounds(), palette)
	near := make(map[color.RGBA]uint8)
	for y := range full.Bounds().Dy() {
		for x := range full.Bounds().Dx() {
			r, g, b, _ := full.At(x, y).RGBA()
			c := color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}
			i, ok := near[c]
			if !ok {
				i = uint8(palette.Index(c))
				near[c] = i
			}
			out.SetColorIndex(x, y, i)
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shop is a control plane with edges and accounts as admins have them.
type shop struct {
	*admin
	plane   *controlPlane
	edges   []*edge
	url     string
	storage *httptest.Server // a web server, and a bucket at /bucket/
}

// product is a picture of something to sell.
func product(hue float64, shape int) []byte {
	const width, height = 320, 240
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	at := func(h, s, v float64) color.RGBA {
		f := func(n float64) uint8 {
			k := math.Mod(n+h/60, 6)
			return uint8(255 * (v - v*s*max(0, min(k, 4-k, 1))))
		}
		return color.RGBA{f(5), f(3), f(1), 255}
	}
	for y := range height {
		for x := range width {
			dx, dy := float64(x-width/2)/90, float64(y-height/2)/90
			var d float64
			switch shape % 4 {
			case 0:
				d = math.Hypot(dx, dy)
			case 1:
				d = max(math.Abs(dx)*.8, math.Abs(dy)*1.1)
			case 2:
				d = math.Abs(dx)*.8 + math.Abs(dy)*.8
			default:
				d = max(math.Hypot(dx*.7, dy-.35), math.Abs(dx)*.9-.2*dy)
			}
			c := at(hue, .10+.08*float64(y)/height, .97)
			if d < 1 {
				c = at(hue, .55+.25*float64(y)/height, .92-.35*float64(x+y)/(width+height))
			}
			img.SetRGBA(x, y, c)
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		panic(err) // into memory
	}
	return out.Bytes()
}

// startShop starts one with a few edges.
func startShop(t *testing.T, regions ...string) *shop {
	t.Helper()
	dir := shortDir(t)
	s := &shop{plane: startControlPlane(t, filepath.Join(dir, "cp"), "--shared-host", "cdn.example.com")}
	for i, region := range regions {
		name := []string{"fra-1", "nyc-1", "sgp-1"}[i]
		s.edges = append(s.edges,
			startEdge(t, filepath.Join(dir, name), name, s.plane.edges, "--region", region, "--cache-size", "2GiB",
				"--https-addr", "127.0.0.1:0"))
	}
	for _, e := range s.edges {
		e.waitReady(t)
	}
	s.admin = s.plane.administer(t)
	s.url = "http://" + s.plane.http
	s.storage = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/bucket/")
		if !strings.Contains(name, "shoe") && !strings.Contains(name, "bag") ||
			strings.HasPrefix(r.URL.Path, "/bucket/") && strings.Contains(name, "bag") {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
			return
		}
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = w.Write(product(float64(len(name)*37%360), len(name)))
	}))
	t.Cleanup(s.storage.Close)
	return s
}

// rounds is how often fill asks each edge for 10 URLs.
const rounds = 4

// fill gives the shop what an account has after some months.
func (s *shop) fill(t *testing.T) {
	t.Helper()
	s.apply(t, `account: {id: acme, displayName: Acme Shop}
origins:
  - {id: legacy, displayName: The old shop, web: {baseUrl: "`+s.storage.URL+`"}}
  - {id: product-shots, displayName: Product photos, s3: {bucket: bucket, endpoint: "`+s.storage.URL+`", forcePathStyle: true, region: eu-central-1, accessKeyId: AKIAEXAMPLE, secretAccessKey: not-shown}}
  - {id: archive, gcs: {bucket: acme-archive, prefix: 2019, clientEmail: reader@acme.iam.gserviceaccount.com}}
  - {id: pim, displayName: Catalogue, web: {baseUrl: "http://127.0.0.1:1"}}
urlEndpoints:
  - {id: default, origins: [product-shots, legacy], defaultImage: {path: fallback.png}}
  - {id: product-images, description: Product shots only, origins: [product-shots], defaultImage: {path: products/teal.png}, cache: {defaultTtl: 1d}}
  - {id: team, description: Portraits for the about page, origins: []}
  - {id: old, description: "Links of 2019, kept alive", origins: [archive, legacy]}
customDomains:
  - {domain: images.example.com, mode: ACCOUNT}
  - {domain: products.example.com, mode: URL_ENDPOINT, urlEndpoint: product-images}
`)
	s.apply(t, "account: {id: globex, displayName: Globex}\n")
	s.apply(t, "account: {id: initech}\n")
	for i, name := range []string{
		"fallback.png", "hero.png", "products/teal.png", "products/coral.png", "products/violet.png",
		"products/moss.png", "products/sand.png", "team/ada.png", "team/grace.png",
	} {
		file := s.file(t, "p.png", string(product(float64(i*41%360), i)))
		s.do(t, "media", "upload", "-A", "acme", file, "/"+name)
	}
	s.do(t, "media", "upload", "-A", "acme", s.file(t, "r.txt", "User-agent: *\n"), "/robots.txt", "--wait")
	s.do(t, "purge", "-A", "acme", "--prefix", "/products", "--wait")
	s.do(t, "purge", "-A", "acme", "--url", "https://images.example.com/shoes.png", "--hard", "--wait")
	s.do(t, "update", "endpoint", "product-images", "-A", "acme", "--set", "cache.defaultTtl=12h", "--wait")
	for range rounds {
		for _, e := range s.edges {
			for _, path := range []string{"/shoes.png", "/shoe-red.png", "/bag.png", "/hero.png", "/nobody.png"} {
				e.getFrom(t, "images.example.com", path)
				e.getFrom(t, "products.example.com", path)
			}
		}
	}
}

// loaded waits until a page has loaded, its pictures too.
const loaded = `new Promise(done => { const pictures = [...document.images].filter(i => i.loading !== "lazy" || i.getBoundingClientRect().top < innerHeight);
	const wait = () => document.readyState === "complete" && pictures.every(i => i.complete) ? requestAnimationFrame(() => done(true)) : setTimeout(wait, 5); wait(); })`

// fillLarge makes an account with 10,000 origins and 1,000 endpoints.
func (s *shop) fillLarge(t *testing.T) {
	t.Helper()
	for part := range 10 {
		var b strings.Builder
		b.WriteString("account: {id: large, displayName: Large Store}\norigins:\n")
		for i := part * 1000; i < (part+1)*1000; i++ {
			fmt.Fprintf(&b, "  - {id: store-%05d, web: {baseUrl: \"https://store-%05d.example.com/pictures\"}}\n", i, i)
		}
		b.WriteString("urlEndpoints:\n")
		for i := part * 100; i < (part+1)*100; i++ {
			fmt.Fprintf(&b, "  - {id: shop-%04d, description: \"Shop %d\", origins: [store-%05d, store-%05d]}\n", i, i, part*1000+i%100+1, part*1000)
		}
		s.feed(t, b.String(), "apply", "-f", "-")
	}
}
