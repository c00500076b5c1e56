package dashboard

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

const (
	// loginEvery and loginBurst bound the attempts to sign in from one address (an IPv6 /64 is
	// one), and 20 times as many all in all. A token has 160 random bits, so this is about load and
	// noise.
	loginEvery = 6 * time.Second
	loginBurst = 10
	// maxAddresses bounds how many addresses are counted one by one.
	maxAddresses = 10_000
)

// logins bounds attempts to sign in.
type logins struct {
	now func() time.Time
	all *rate.Limiter

	mu   sync.Mutex
	from map[netip.Prefix]*rate.Limiter
}

func newLogins(now func() time.Time) *logins {
	return &logins{
		now: now, all: rate.NewLimiter(20*rate.Every(loginEvery), 20*loginBurst),
		from: make(map[netip.Prefix]*rate.Limiter),
	}
}

// allow counts an attempt.
func (l *logins) allow(remote string) bool {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	key := client(remote)
	one := l.from[key]
	if one == nil {
		if len(l.from) >= maxAddresses {
			for key, old := range l.from { // those that could begin anew anyway
				if old.TokensAt(now) >= loginBurst {
					delete(l.from, key)
				}
			}
		}
		one = rate.NewLimiter(rate.Every(loginEvery), loginBurst)
		if len(l.from) < maxAddresses {
			l.from[key] = one
		}
	}
	return one.AllowN(now, 1) && l.all.AllowN(now, 1)
}

// client is the network that counts as one client.
func client(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, _ := ip.Prefix(bits) // The bits fit.
	return prefix
}

// cookieName is that of the session. The prefix __Host- has browsers keep others from setting it
// (https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis#name-the-__host-prefix);
// they take it over TLS alone.
func (d *Dashboard) cookieName() string {
	if d.cfg.Secure {
		return "__Host-edgewalk"
	}
	return "edgewalk"
}

func (d *Dashboard) setCookie(w http.ResponseWriter, value string, expires time.Time) {
	c := &http.Cookie{
		Name: d.cookieName(), Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: d.cfg.Secure, Expires: expires,
	}
	if value == "" {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// current is the session of a request.
func (d *Dashboard) current(r *http.Request) (session, error) {
	cookie, err := r.Cookie(d.cookieName())
	if err != nil {
		return session{}, errNoSession
	}
	return d.sessions.find(r.Context(), cookie.Value)
}

// signInView is what the page for signing in shows.
type signInView struct {
	Open  bool
	Next  string
	Error string
}

// pageOf is the page that somebody is on who makes a request: its own address, or that of the page
// whose form it sends. It is empty where the browser does not tell.
func pageOf(r *http.Request) string {
	if r.Method == http.MethodGet {
		return r.URL.RequestURI()
	}
	if from, err := url.Parse(r.Referer()); err == nil && from.Host == r.Host {
		return from.RequestURI()
	}
	return ""
}

// next is where somebody goes who has signed in.
func next(r *http.Request) string { return within(r.FormValue("next")) }

// within is an address if it is that of a page of ours, else that of the first page.
func within(to string) string {
	if !strings.HasPrefix(to, Path) || strings.ContainsAny(to, "\\\r\n") {
		return Path
	}
	return to
}

func (d *Dashboard) showSignIn(w http.ResponseWriter, r *http.Request) {
	if _, err := d.current(r); err == nil {
		http.Redirect(w, r, next(r), http.StatusSeeOther)
		return
	}
	d.renderSignIn(w, r, http.StatusOK, "")
}

func (d *Dashboard) renderSignIn(w http.ResponseWriter, r *http.Request, code int, problem string) {
	d.renderSignInTo(w, r, code, next(r), problem)
}

// renderSignInTo is renderSignIn that leads to a page.
func (d *Dashboard) renderSignInTo(w http.ResponseWriter, r *http.Request, code int, to, problem string) {
	d.render(w, r, code, "sign-in.html",
		view{Title: "Sign in", Bare: true, Data: signInView{Open: d.cfg.Open, Next: to, Error: problem}})
}

// signIn takes a token by a form.
func (d *Dashboard) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	token := strings.TrimSpace(r.PostFormValue("token"))
	if !d.logins.allow(r.RemoteAddr) {
		w.Header().Set("Retry-After", "60")
		d.renderSignIn(w, r, http.StatusTooManyRequests, "Too many attempts from your network: try again in a minute.")
		return
	}
	if d.cfg.Open {
		token = ""
	} else if token == "" {
		d.renderSignIn(w, r, http.StatusUnprocessableEntity, "Paste a token: it begins with ew1_.")
		return
	}
	who, err := adminv1.NewTokenServiceClient(d.cfg.Conn).WhoAmI(outgoing(r, token), &adminv1.WhoAmIRequest{})
	switch code := status.Code(err); {
	case code == codes.Unauthenticated:
		d.renderSignIn(w, r, http.StatusUnauthorized, "This token is not valid, has expired or was revoked.")
		return
	case err != nil:
		d.renderSignIn(w, r, http.StatusServiceUnavailable, status.Convert(err).Message())
		return
	case !slices.Contains(who.GetPermissions(), adminv1.Rule_FOLLOW):
		d.renderSignIn(w, r, http.StatusForbidden, "A token of this role is for programs: the dashboard has nothing for it.")
		return
	}
	d.enter(w, r, token, who.GetToken().GetAccount())
}

// signInOnce takes the code of a link.
func (d *Dashboard) signInOnce(w http.ResponseWriter, r *http.Request) {
	if !d.logins.allow(r.RemoteAddr) || !d.cfg.Open || !d.takeCode(r.PathValue("code")) {
		d.renderSignIn(w, r, http.StatusUnauthorized, "This link was used, or is of an earlier start.")
		return
	}
	d.enter(w, r, "", "")
}

// enter begins a session.
func (d *Dashboard) enter(w http.ResponseWriter, r *http.Request, token, account string) {
	one, err := d.sessions.begin(r.Context(), token, account)
	if err != nil {
		d.log.ErrorContext(r.Context(), "dashboard: a session cannot be kept", "error", err)
		d.renderSignIn(w, r, http.StatusServiceUnavailable, "The session cannot be kept, because etcd does not answer: try again.")
		return
	}
	d.setCookie(w, one.id, one.expires)
	http.Redirect(w, r, next(r), http.StatusSeeOther)
}

func (d *Dashboard) signOut(w http.ResponseWriter, r *http.Request) {
	one, err := d.current(r)
	if err == nil {
		err = d.sessions.end(r.Context(), one)
	}
	if err != nil && !errors.Is(err, errNoSession) {
		http.Error(w, "The session cannot be ended, because etcd does not answer: try again.", http.StatusServiceUnavailable)
		return
	}
	d.setCookie(w, "", time.Time{})
	http.Redirect(w, r, Path+"sign-in", http.StatusSeeOther)
}
