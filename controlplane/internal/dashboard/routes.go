package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"slices"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// policy is what a browser may load and send for a page (https://www.w3.org/TR/CSP3/).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'"

// route is a page, or what a form of one sends.
type route struct {
	pattern string
	need    adminv1.Rule_Permission // Rule_ANY: whoever is signed in
	handle  handler
	files   bool // what is sent is files, which the handler reads
	bare    bool // what is answered is no page
}

// table is every route for who is signed in. Its permissions are those that the admin API asks for,
// so that nobody is shown a form that cannot work.
func (d *Dashboard) table() []route {
	const account = Path + "a/{account}"
	return []route{
		{pattern: "GET " + Path + "{$}", need: adminv1.Rule_ANY, handle: home},
		{pattern: "GET " + Path + "api", need: adminv1.Rule_ANY, handle: showReference},
		{pattern: "GET " + Path + "accounts", need: adminv1.Rule_READ, handle: showAccounts},
		{pattern: "POST " + Path + "accounts", need: adminv1.Rule_ACCOUNTS, handle: createAccount},
		{pattern: "GET " + account, need: adminv1.Rule_READ, handle: showOverview},

		{pattern: "GET " + account + "/url-endpoints", need: adminv1.Rule_READ, handle: showEndpoints},
		{pattern: "GET " + account + "/url-endpoints/new", need: adminv1.Rule_WRITE, handle: newEndpoint},
		{pattern: "POST " + account + "/url-endpoints/new", need: adminv1.Rule_WRITE, handle: changeEndpoint},
		{pattern: "GET " + account + "/url-endpoints/{id}", need: adminv1.Rule_READ, handle: showEndpoint},
		{pattern: "POST " + account + "/url-endpoints/{id}", need: adminv1.Rule_WRITE, handle: changeEndpoint},
		{pattern: "GET " + account + "/url-endpoints/{id}/delete", need: adminv1.Rule_WRITE, handle: confirmEndpoint},
		{pattern: "POST " + account + "/url-endpoints/{id}/delete", need: adminv1.Rule_WRITE, handle: deleteEndpoint},

		{pattern: "GET " + account + "/origins", need: adminv1.Rule_READ, handle: showOrigins},
		{pattern: "GET " + account + "/origins/new", need: adminv1.Rule_WRITE, handle: newOrigin},
		{pattern: "POST " + account + "/origins/new", need: adminv1.Rule_WRITE, handle: changeOrigin},
		{pattern: "GET " + account + "/origins/{id}", need: adminv1.Rule_READ, handle: showOrigin},
		{pattern: "POST " + account + "/origins/{id}", need: adminv1.Rule_WRITE, handle: changeOrigin},
		{pattern: "GET " + account + "/origins/{id}/delete", need: adminv1.Rule_WRITE, handle: confirmOrigin},
		{pattern: "POST " + account + "/origins/{id}/delete", need: adminv1.Rule_WRITE, handle: deleteOrigin},

		{pattern: "GET " + account + "/explain", need: adminv1.Rule_READ, handle: showExplain},

		{pattern: "GET " + account + "/media", need: adminv1.Rule_READ, handle: showMedia},
		{pattern: "POST " + account + "/media", need: adminv1.Rule_WRITE, handle: uploadFiles, files: true},
		{
			pattern: "PUT " + account + "/media/upload", need: adminv1.Rule_WRITE, handle: uploadFiles,
			files: true, bare: true,
		},
		{pattern: "GET " + account + "/media/file", need: adminv1.Rule_READ, handle: showFile},
		{pattern: "POST " + account + "/media/file", need: adminv1.Rule_WRITE, handle: changeFile},
		{pattern: "GET " + account + "/media/raw", need: adminv1.Rule_READ, handle: serveFile, bare: true},
		{pattern: "GET " + account + "/media/delete", need: adminv1.Rule_WRITE, handle: confirmFile},
		{pattern: "POST " + account + "/media/delete", need: adminv1.Rule_WRITE, handle: deleteFile},

		{pattern: "GET " + account + "/domains", need: adminv1.Rule_READ, handle: showDomains},
		{pattern: "GET " + account + "/domains/new", need: adminv1.Rule_WRITE, handle: newDomain},
		{pattern: "POST " + account + "/domains/new", need: adminv1.Rule_WRITE, handle: changeDomain},
		{pattern: "GET " + account + "/domains/{id}", need: adminv1.Rule_READ, handle: showDomain},
		{pattern: "POST " + account + "/domains/{id}", need: adminv1.Rule_WRITE, handle: changeDomain},
		{pattern: "POST " + account + "/domains/{id}/check", need: adminv1.Rule_READ, handle: checkDomain},
		{pattern: "POST " + account + "/domains/{id}/renew", need: adminv1.Rule_WRITE, handle: renewCertificate},
		{pattern: "POST " + account + "/domains/{id}/certificate", need: adminv1.Rule_WRITE, handle: uploadCertificate},
		{pattern: "GET " + account + "/domains/{id}/delete", need: adminv1.Rule_WRITE, handle: confirmDomain},
		{pattern: "POST " + account + "/domains/{id}/delete", need: adminv1.Rule_WRITE, handle: deleteDomain},

		{pattern: "GET " + account + "/history", need: adminv1.Rule_READ, handle: showHistory},
		{pattern: "GET " + account + "/history/{revision}/restore", need: adminv1.Rule_WRITE, handle: confirmRestore},
		{pattern: "POST " + account + "/history/{revision}/restore", need: adminv1.Rule_WRITE, handle: restore},

		{pattern: "GET " + account + "/access", need: adminv1.Rule_GRANT, handle: showAccess},
		{pattern: "POST " + account + "/access", need: adminv1.Rule_GRANT, handle: createToken},
		{pattern: "GET " + account + "/access/{token}/revoke", need: adminv1.Rule_GRANT, handle: confirmRevoke},
		{pattern: "POST " + account + "/access/{token}/revoke", need: adminv1.Rule_GRANT, handle: revokeToken},
		{pattern: "GET " + Path + "access", need: adminv1.Rule_ACCOUNTS, handle: showAccess},
		{pattern: "POST " + Path + "access", need: adminv1.Rule_ACCOUNTS, handle: createToken},
		{pattern: "GET " + Path + "access/{token}/revoke", need: adminv1.Rule_ACCOUNTS, handle: confirmRevoke},
		{pattern: "POST " + Path + "access/{token}/revoke", need: adminv1.Rule_ACCOUNTS, handle: revokeToken},

		{pattern: "GET " + account + "/purges", need: adminv1.Rule_FOLLOW, handle: showPurges},
		{pattern: "POST " + account + "/purges", need: adminv1.Rule_PURGE, handle: createPurge},

		{pattern: "GET " + Path + "fleet", need: adminv1.Rule_FLEET_READ, handle: showFleet},
		{pattern: "GET " + Path + "fleet/events", need: adminv1.Rule_FLEET_READ, handle: streamFleet, bare: true},
		{pattern: "GET " + Path + "identities", need: adminv1.Rule_FLEET_READ, handle: showIdentities},
		{pattern: "POST " + Path + "identities", need: adminv1.Rule_FLEET, handle: changeIdentity},
		{pattern: "POST " + Path + "fleet/freezes", need: adminv1.Rule_FLEET, handle: changeFreeze},
	}
}

func (d *Dashboard) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path+"sign-in", d.showSignIn)
	mux.HandleFunc("POST "+Path+"sign-in", d.signIn)
	mux.HandleFunc("GET "+Path+"sign-in/{code}", d.signInOnce)
	mux.HandleFunc("POST "+Path+"sign-out", d.signOut)
	mux.HandleFunc("GET "+Path+"static/{version}/{file}", serveStatic)
	for _, r := range d.table() {
		mux.HandleFunc(r.pattern, d.signedIn(r))
	}
	mux.HandleFunc(Path, d.signedIn(route{need: adminv1.Rule_ANY, handle: func(*page) error { return errNoPage }}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		mux.ServeHTTP(w, r)
	})
}

//go:embed static
var static embed.FS

// version is part of the addresses of static files, which never change under one.
var version = func() string {
	sum := sha256.New()
	files, _ := fs.Glob(static, "static/*") // The pattern is well-formed.
	slices.Sort(files)
	for _, name := range files {
		text, _ := static.ReadFile(name) // It is there.
		sum.Write(text)
	}
	return hex.EncodeToString(sum.Sum(nil)[:6])
}()

func staticPath(file string) string { return Path + "static/" + version + "/" + file }

// serveStatic serves a stylesheet, a module or a picture of the dashboard's own.
func serveStatic(w http.ResponseWriter, r *http.Request) {
	file := r.PathValue("file")
	text, err := static.ReadFile("static/" + path.Clean(file))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	types := map[string]string{
		".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	}
	w.Header().Set("Content-Type", types[path.Ext(file)])
	if r.PathValue("version") == version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(text) // or the browser is gone
}
