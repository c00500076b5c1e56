package dashboard_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/controlplane/internal/dashboard"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// plane is a control plane in this process with the defaults: with tokens, on loopback.
type plane struct {
	url  string
	conn *grpc.ClientConn
	root string // the first token
	stop func()
}

func start(t testing.TB) *plane {
	t.Helper()
	return startWith(t, false)
}

// startWith starts one that asks nobody for a token if it is open.
func startWith(t testing.TB, open bool) *plane {
	t.Helper()
	dir := t.TempDir()
	cp, err := controlplane.New(t.Context(), controlplane.Config{
		DataDir: dir, AdminAddr: "127.0.0.1:0", EdgeAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0",
		MediaAddr: "127.0.0.1:0",
		Open:      open, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := cp.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	root, err := os.ReadFile(filepath.Join(dir, "root-token"))
	if err != nil && !open {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+cp.Addresses().Admin,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{url: "http://" + cp.Addresses().HTTP, conn: conn, root: strings.TrimSpace(string(root))}
	p.stop = sync.OnceFunc(func() {
		conn.Close()
		cancel()
		done.Wait()
	})
	t.Cleanup(p.stop)
	<-cp.Loaded()
	return p
}

// ctx is that of calls by root.
func (p *plane) ctx(t testing.TB) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+p.root)
}

// account makes an account.
func (p *plane) account(t testing.TB, id, name string) {
	t.Helper()
	_, err := adminv1.NewAccountServiceClient(p.conn).CreateAccount(p.ctx(t), &adminv1.CreateAccountRequest{
		AccountId: id, Account: &topologyv1.Account{DisplayName: name},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// token makes a token.
func (p *plane) token(t testing.TB, role adminv1.Token_Role, account string) (name, text string) {
	t.Helper()
	resp, err := adminv1.NewTokenServiceClient(p.conn).CreateToken(p.ctx(t), &adminv1.CreateTokenRequest{
		Token: &adminv1.Token{Role: role, Account: account, Description: "of a test"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetToken().GetName(), resp.GetText()
}

// browser is somebody with a browser, which follows nothing by itself.
type browser struct {
	*http.Client
	base string
}

func (p *plane) browser(t testing.TB) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &browser{base: p.url, Client: &http.Client{
		Jar: jar, Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// signedIn is a browser with a session.
func (p *plane) signedIn(t testing.TB, token string) *browser {
	t.Helper()
	b := p.browser(t)
	if a := b.post(t, "/ui/sign-in", url.Values{"token": {token}}); a.code != http.StatusSeeOther {
		t.Fatalf("signing in is answered with %d: %s", a.code, a.text)
	}
	return b
}

// answer is a whole one.
type answer struct {
	code   int
	header http.Header
	text   string
}

func (b *browser) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	resp, err := b.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text)}
}

func (b *browser) request(t testing.TB, method, path string, form url.Values) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, b.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r
}

func (b *browser) get(t testing.TB, path string) answer {
	t.Helper()
	return b.send(t, b.request(t, http.MethodGet, path, nil))
}

func (b *browser) post(t testing.TB, path string, form url.Values) answer {
	t.Helper()
	return b.send(t, b.request(t, http.MethodPost, path, form))
}

// paths are the methods and paths of every route, with things that are there or not.
func paths(t testing.TB) (all []dashboard.Route) {
	t.Helper()
	wild := regexp.MustCompile(`\{(\w+)\}`)
	for _, r := range dashboard.Routes() {
		path := strings.TrimSuffix(r.Pattern, "{$}")
		path = wild.ReplaceAllStringFunc(path, func(name string) string {
			return map[string]string{
				"{account}": "acme", "{id}": "default", "{revision}": "1", "{token}": "abcdefghij",
			}[name]
		})
		all = append(all, dashboard.Route{Pattern: path, Need: r.Need})
	}
	if len(all) < 40 {
		t.Fatalf("%d routes", len(all))
	}
	return all
}

// On every route: nobody who is not signed in, no page of another site, no name that somebody made
// lead here, and no token that was revoked gets anything.
func TestEveryRouteIsGuarded(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "Acme Shop")
	name, text := p.token(t, adminv1.Token_OPERATOR, "")
	stranger, known := p.browser(t), p.signedIn(t, p.root)
	ending := p.signedIn(t, text)
	if _, err := adminv1.NewTokenServiceClient(p.conn).RevokeToken(
		p.ctx(t), &adminv1.RevokeTokenRequest{Name: name},
	); err != nil {
		t.Fatal(err)
	}
	cookies := ending.Jar.Cookies(mustParse(t, p.url))
	past := p.browser(t)
	past.Jar = nil
	for _, route := range paths(t) {
		method, path, _ := strings.Cut(route.Pattern, " ")
		a := stranger.send(t, stranger.request(t, method, path, nil))
		if a.code != http.StatusSeeOther || !strings.HasPrefix(a.header.Get("Location"), "/ui/sign-in") {
			t.Errorf("%s without a session: %d to %q", route.Pattern, a.code, a.header.Get("Location"))
		}
		if got := a.header.Get("Content-Security-Policy"); got != dashboard.Policy {
			t.Errorf("%s has the policy %q", route.Pattern, got)
		}
		r := known.request(t, method, path, nil)
		r.Host = "attacker.example"
		if a := known.send(t, r); a.code != http.StatusMisdirectedRequest {
			t.Errorf("%s as attacker.example: %d", route.Pattern, a.code)
		}
		if method != http.MethodGet {
			for _, field := range [][2]string{
				{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
				{"Origin", "https://attacker.example"},
			} {
				r := known.request(t, method, path, url.Values{})
				r.Header.Set(field[0], field[1])
				if a := known.send(t, r); a.code != http.StatusForbidden {
					t.Errorf("%s from another site (%s: %s): %d", route.Pattern, field[0], field[1], a.code)
				}
			}
		}
		// The cookie is kept by hand, because each answer has the browser delete it.
		r = stranger.request(t, method, path, nil)
		for _, c := range cookies {
			r.AddCookie(c)
		}
		if a := past.send(t, r); a.code != http.StatusUnauthorized {
			t.Errorf("%s with a revoked token: %d", route.Pattern, a.code)
		}
	}
	for _, want := range []int{http.StatusUnauthorized, http.StatusSeeOther} { // by then the cookie is gone
		if a := ending.get(t, "/ui/accounts"); a.code != want {
			t.Errorf("a session that has ended: %d, want %d", a.code, want)
		}
	}
}

func mustParse(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// Revoking a token ends its sessions with the next request, and what is open within 2 s.
func TestRevocationEndsSessions(t *testing.T) {
	t.Parallel()
	p := start(t)
	name, text := p.token(t, adminv1.Token_OPERATOR, "")
	b := p.signedIn(t, text)
	stream, err := b.Do(b.request(t, http.MethodGet, "/ui/fleet/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if kind := stream.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("the stream is %q", kind)
	}
	if _, err := adminv1.NewTokenServiceClient(p.conn).RevokeToken(
		p.ctx(t), &adminv1.RevokeTokenRequest{Name: name},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stream.Body); err != nil { // until its end
		t.Errorf("the stream ends with %v", err)
	}
	if a := b.get(t, "/ui/fleet"); a.code != http.StatusUnauthorized || !strings.Contains(a.text, "revoked") {
		t.Errorf("the page after it: %d: %s", a.code, a.text)
	}
}

// Who is signed out, by a token that was revoked or because the session has ended, comes back to
// the page that he was on, also if it was a form of that page that he sent.
func TestSigningInLeadsBack(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "Acme Shop")
	const page = "/ui/a/acme/media/file?path=a.txt"
	for what, request := range map[string]func(*browser) *http.Request{
		"a page": func(b *browser) *http.Request { return b.request(t, http.MethodGet, page, nil) },
		"a form": func(b *browser) *http.Request {
			r := b.request(t, http.MethodPost, "/ui/a/acme/media/delete?path=a.txt", url.Values{})
			r.Header.Set("Referer", p.url+page)
			return r
		},
	} {
		name, text := p.token(t, adminv1.Token_EDITOR, "accounts/acme")
		b := p.signedIn(t, text)
		if _, err := adminv1.NewTokenServiceClient(p.conn).RevokeToken(
			p.ctx(t), &adminv1.RevokeTokenRequest{Name: name},
		); err != nil {
			t.Fatal(err)
		}
		a := b.send(t, request(b))
		if got := hidden(a).Get("next"); a.code != http.StatusUnauthorized || got != page {
			t.Errorf("%s, with a revoked token: %d, and back to %q", what, a.code, got)
		}
		a = b.send(t, request(b)) // without a session now
		want := "/ui/sign-in?" + url.Values{"next": {page}}.Encode()
		if got := a.header.Get("Location"); a.code != http.StatusSeeOther || got != want {
			t.Errorf("%s, without a session: %d to %q", what, a.code, got)
		}
	}
	r := p.browser(t).request(t, http.MethodPost, "/ui/a/acme/purges", url.Values{})
	r.Header.Set("Referer", "http://attacker.example/ui/a/acme")
	if a := p.browser(t).send(t, r); a.header.Get("Location") != "/ui/sign-in" {
		t.Errorf("from another site: to %q", a.header.Get("Location"))
	}
}

// Each viewer of the fleet takes one goroutine of the dashboard.
func TestOneGoroutineAViewer(t *testing.T) { // not parallel: goroutines of other tests would count
	p := start(t)
	b := p.signedIn(t, p.root)
	const viewers = 20
	for range viewers {
		stream, err := b.Do(b.request(t, http.MethodGet, "/ui/fleet/events", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Body.Close()
		if _, err := stream.Body.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
	}
	// What a page begins with may still be under way.
	count := 0
	for end := time.Now().Add(30 * time.Second); count != viewers; {
		if time.Now().After(end) {
			t.Fatalf("%d viewers have %d goroutines", viewers, count)
		}
		var stacks bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
			t.Fatal(err)
		}
		count = 0
		for one := range strings.SplitSeq(stacks.String(), "\n\n") {
			if strings.Contains(one, "internal/dashboard.streamFleet") ||
				strings.Contains(one, "created by github.com/edgewalk/edgewalk/controlplane/internal/dashboard.") {
				count++
			}
		}
	}
}

// A stream of the fleet ends when the viewer signs out, and with the control plane.
func TestStreamsEnd(t *testing.T) {
	t.Parallel()
	p := start(t)
	b := p.signedIn(t, p.root)
	open := func() *http.Response {
		stream, err := b.Do(b.request(t, http.MethodGet, "/ui/fleet/events", nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Body.Read(make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	one := open()
	defer one.Body.Close()
	other := p.signedIn(t, p.root)
	last, err := other.Do(other.request(t, http.MethodGet, "/ui/fleet/events", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer last.Body.Close()
	if a := b.post(t, "/ui/sign-out", nil); a.code != http.StatusSeeOther {
		t.Fatalf("signing out: %d", a.code)
	}
	if _, err := io.Copy(io.Discard, one.Body); err != nil {
		t.Errorf("after signing out: %v", err)
	}
	begun := time.Now()
	p.stop()
	_, _ = io.Copy(io.Discard, last.Body) // however it ends
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("the control plane took %s to stop, because somebody looked", took)
	}
}

// Each role sees what it may, and is shown no link to more.
func TestRolesSeeWhatTheyMay(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "Acme Shop")
	p.account(t, "globex", "Globex")
	look := map[string]string{
		"accounts": "/ui/accounts", "overview": "/ui/a/acme",
		"origins": "/ui/a/acme/origins", "new": "/ui/a/acme/origins/new",
		"purges": "/ui/a/acme/purges", "history": "/ui/a/acme/history", "access": "/ui/a/acme/access",
		"fleet": "/ui/fleet", "identities": "/ui/identities", "tokens": "/ui/access", "other": "/ui/a/globex/origins",
		"media": "/ui/a/acme/media",
	}
	for _, test := range []struct {
		role    adminv1.Token_Role
		account string
		sees    string
		adds    bool // is shown how to add
	}{
		{adminv1.Token_ROOT, "", "accounts overview origins new purges history access fleet identities tokens other media", true},
		{adminv1.Token_OPERATOR, "", "accounts overview origins purges history access fleet identities tokens other media", false},
		{adminv1.Token_ADMIN, "accounts/acme", "accounts overview origins new purges history access media", true},
		{adminv1.Token_EDITOR, "accounts/acme", "accounts overview origins new purges history media", true},
		{adminv1.Token_VIEWER, "accounts/acme", "accounts overview origins purges history media", false},
		{adminv1.Token_PURGER, "accounts/acme", "purges", false},
	} {
		t.Run(test.role.String(), func(t *testing.T) {
			_, text := p.token(t, test.role, test.account)
			b := p.signedIn(t, text)
			for name, path := range look {
				a := b.get(t, path)
				want := a.code == http.StatusForbidden || a.code == http.StatusNotFound
				if strings.Contains(" "+test.sees+" ", " "+name+" ") {
					want = a.code == http.StatusOK
				}
				if !want {
					t.Errorf("%s: %d", path, a.code)
				}
				for linked, to := range look {
					if shown := strings.Contains(a.text, `href="`+to+`"`); shown &&
						!strings.Contains(" "+test.sees+" ", " "+linked+" ") && a.code == http.StatusOK {
						t.Errorf("%s has a link to %s, which is not for this role", path, to)
					}
				}
			}
			if a := b.get(t, "/ui/"); a.code != http.StatusSeeOther {
				t.Errorf("the first page: %d", a.code)
			}
			if a := b.get(t, "/ui/a/acme/origins"); a.code == http.StatusOK &&
				strings.Contains(a.text, "/origins/new") != test.adds {
				t.Errorf("how to add an origin is shown: %t", !test.adds)
			}
		})
	}
	for _, role := range []adminv1.Token_Role{adminv1.Token_METRICS, adminv1.Token_EDGE} {
		_, text := p.token(t, role, "")
		if a := p.browser(t).post(t, "/ui/sign-in", url.Values{"token": {text}}); a.code == http.StatusSeeOther {
			t.Errorf("%s signs in", role)
		}
	}
}

// The cookie cannot be read by script, comes back to this site alone, and over TLS cannot be set by
// others.
func TestSignIn(t *testing.T) {
	t.Parallel()
	p := start(t)
	b := p.browser(t)
	a := b.post(t, "/ui/sign-in?next=/ui/accounts",
		url.Values{"token": {" " + p.root + "\n"}, "next": {"/ui/accounts"}})
	cookie := a.header.Get("Set-Cookie")
	if a.code != http.StatusSeeOther || a.header.Get("Location") != "/ui/accounts" {
		t.Fatalf("%d to %q", a.code, a.header.Get("Location"))
	}
	for _, part := range []string{"edgewalk=", "Path=/", "HttpOnly", "SameSite=Lax", "Expires="} {
		if !strings.Contains(cookie, part) {
			t.Errorf("the cookie %q has no %s", cookie, part)
		}
	}
	if strings.Contains(cookie, "Secure") || strings.Contains(cookie, p.root) {
		t.Errorf("the cookie is %q", cookie)
	}
	for _, next := range []string{
		"https://attacker.example/", "//attacker.example", "/ui/\\attacker.example", "/elsewhere",
		"/ui/x\r\nSet-Cookie: a=b",
	} {
		a := p.browser(t).post(t, "/ui/sign-in", url.Values{"token": {p.root}, "next": {next}})
		if a.code == http.StatusSeeOther && a.header.Get("Location") != "/ui/" {
			t.Errorf("next %q leads to %q", next, a.header.Get("Location"))
		}
	}
	for n := range 30 {
		a := p.browser(t).post(t, "/ui/sign-in", url.Values{"token": {"ew1_wrong"}})
		if a.code == http.StatusTooManyRequests {
			if n < 2 {
				t.Errorf("attempt %d is one too many", n)
			}
			return
		}
		if a.code != http.StatusUnauthorized {
			t.Fatalf("a wrong token: %d", a.code)
		}
	}
	t.Error("30 attempts to sign in were taken at once")
}

// Over TLS the cookie has the prefix that keeps others from setting it.
func TestSecureCookie(t *testing.T) {
	t.Parallel()
	d := dashboard.New(dashboard.Config{Secure: true, Logger: slog.New(slog.DiscardHandler)})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ui/sign-out", nil)
	r.TLS = &tls.ConnectionState{}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	cookie := w.Header().Get("Set-Cookie")
	if !strings.HasPrefix(cookie, "__Host-edgewalk=") || !strings.Contains(cookie, "Secure") ||
		!strings.Contains(cookie, "Path=/") {
		t.Errorf("the cookie is %q", cookie)
	}
}

const hostile = `<img src=x onerror=alert(1)>"'`

// What admins name is text on every page, and what is secret is on none: neither as it was typed
// nor in a form that comes back.
func TestNamesAreTextAndSecretsAreNowhere(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", hostile)
	b := p.signedIn(t, p.root)
	const secret = "hunter2-hunter2-hunter2"
	form := url.Values{
		"kind": {"s3"}, "id": {"shots"}, "displayName": {hostile}, "s3.bucket": {"shots"}, "s3.accessKeyId": {"AKIA"},
		"s3.secretAccessKey": {secret}, "header_name": {"X-Key"}, "header_value": {""}, "header_secret": {secret},
		"do": {"test"},
	}
	seen := map[string]string{}
	a := b.post(t, "/ui/a/acme/origins/new?kind=s3", form)
	seen["the form after a test"] = a.text
	sealed := regexp.MustCompile(`name="sealed" value="([^"]+)"`).FindStringSubmatch(a.text)
	if a.code != http.StatusOK || sealed == nil {
		t.Fatalf("the form after a test: %d, %s", a.code, a.text)
	}
	// What comes back from the browser are no secrets, and they are stored all the same.
	form.Set("s3.secretAccessKey", "")
	form.Set("header_secret", "")
	form.Set("sealed", sealed[1])
	form.Set("do", "save")
	if a := b.post(t, "/ui/a/acme/origins/new?kind=s3", form); a.code != http.StatusSeeOther {
		t.Fatalf("saving: %d: %s", a.code, a.text)
	}
	stored, err := adminv1.NewOriginServiceClient(p.conn).GetOrigin(p.ctx(t),
		&adminv1.GetOriginRequest{Name: "accounts/acme/origins/shots"})
	if got := fmt.Sprint(stored.GetOrigin().GetSecretsSet()); err != nil ||
		got != "[requestHeaders[x-key].secretValue s3.secretAccessKey]" {
		t.Errorf("stored are the secrets %s, %v", got, err)
	}
	// Another session cannot use what was sealed for this one.
	form.Set("id", "stolen")
	if a := p.signedIn(t, p.root).post(t, "/ui/a/acme/origins/new?kind=s3", form); a.code == http.StatusSeeOther {
		t.Error("sealed secrets are taken from another session")
	}
	if a := b.post(
		t, "/ui/a/acme/url-endpoints/new",
		url.Values{"id": {"e"}, "description": {hostile}, "origins": {"shots"}, "do": {"save"}},
	); a.code != http.StatusSeeOther {
		t.Fatalf("an endpoint: %d: %s", a.code, a.text)
	}
	if _, err := adminv1.NewTokenServiceClient(p.conn).CreateToken(p.ctx(t), &adminv1.CreateTokenRequest{
		Token: &adminv1.Token{Role: adminv1.Token_VIEWER, Account: "accounts/acme", Description: hostile},
	}); err != nil {
		t.Fatal(err)
	}
	upload := func(name, body string) {
		t.Helper()
		var content bytes.Buffer
		w := multipart.NewWriter(&content)
		part, err := w.CreateFormFile("files", name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(part, body)
		w.Close()
		r := b.request(t, http.MethodPost, "/ui/a/acme/media", nil)
		r.Body, r.ContentLength = io.NopCloser(&content), int64(content.Len())
		r.Header.Set("Content-Type", w.FormDataContentType())
		if a := b.send(t, r); a.code != http.StatusSeeOther {
			t.Fatalf("upload: %d: %s", a.code, a.text)
		}
	}
	upload("page.html", "<script>alert(1)</script>")
	for _, path := range []string{
		"/ui/accounts", "/ui/a/acme", "/ui/a/acme/url-endpoints", "/ui/a/acme/url-endpoints/e", "/ui/a/acme/origins",
		"/ui/a/acme/origins/shots", "/ui/a/acme/origins/shots/delete", "/ui/a/acme/media", "/ui/a/acme/history",
		"/ui/a/acme/access", "/ui/access", "/ui/a/acme/purges?scope=tag&text=" + url.QueryEscape(hostile),
		"/ui/a/acme/explain?url=" + url.QueryEscape(hostile), "/ui/a/" + url.PathEscape(hostile),
		"/ui/a/acme/media?folder=" + url.QueryEscape(hostile),
	} {
		seen[path] = b.get(t, path).text
	}
	named := 0
	for where, text := range seen {
		if strings.Contains(text, "<img src=x") || strings.Contains(text, `onerror=alert(1)>"`) {
			t.Errorf("%s: a name is markup", where)
		}
		if strings.Contains(text, "&lt;img src=x") {
			named++
		}
		if strings.Contains(text, secret) {
			t.Errorf("%s: has a secret", where)
		}
		if strings.Contains(text, " style=") || strings.Contains(text, "<style") ||
			regexp.MustCompile(`\son\w+="`).MatchString(text) ||
			regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(text) {
			t.Errorf("%s: has inline style or script", where)
		}
	}
	if named < 6 {
		t.Errorf("the name is on %d pages", named)
	}
	// A file that somebody uploaded is no page of ours.
	a = b.get(t, "/ui/a/acme/media/raw?path=page.html")
	if got := a.header.Get("Content-Security-Policy"); !strings.HasPrefix(got, "sandbox;") ||
		a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("an uploaded page comes with %q", a.header)
	}
}
