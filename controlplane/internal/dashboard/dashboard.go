// Package dashboard is the admins' pages in a browser: everything that they do with accounts, and
// what edges make of it.
//
// Pages are rendered here and work by forms alone. Scripts, small modules of static/, add to three
// places: the order of origins, uploads, and what is live. Pages call the admin API with the token
// of whoever is signed in, so what a page shows and does is what that token may; roles decide here
// only which links there are.
//
// What always holds: a page has no inline script or style and loads nothing from elsewhere, which
// its policy says to the browser too; whatever an admin named is text; no secret is ever in a page,
// but a new token's text once; a request from another site changes nothing.
//
// Which hosts it answers on is its caller's business.
package dashboard

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Path is where the dashboard is mounted.
const Path = "/ui/"

// Config is what a dashboard needs.
type Config struct {
	// Conn is the admin API.
	Conn grpc.ClientConnInterface
	// Store keeps sessions.
	Store *store.Store
	// Open says that the admin API asks nobody for a token. Signing in needs none then.
	Open bool
	// Secure says that browsers connect by TLS.
	Secure bool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger receives background work and faults of pages. Default: slog.Default().
	Logger *slog.Logger
}

// Dashboard is the pages. Its methods may be called at the same time.
type Dashboard struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	sessions *sessions
	logins   *logins
	handler  http.Handler
	stopped  chan struct{} // closed by Stop
	stop     sync.Once

	mu   sync.Mutex
	code string // of the one-time link, empty once it was used
}

// New returns a dashboard, whose sessions are known once it runs.
func New(cfg Config) *Dashboard {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Dashboard{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, logins: newLogins(cfg.Now),
		sessions: newSessions(cfg.Store, cfg.Logger, cfg.Now), stopped: make(chan struct{}),
	}
	d.handler = d.routes()
	return d
}

// Run keeps what is known of sessions true until ctx ends.
func (d *Dashboard) Run(ctx context.Context) error { return d.sessions.run(ctx) }

// Stop ends what would go on for as long as somebody looks.
func (d *Dashboard) Stop() { d.stop.Do(func() { close(d.stopped) }) }

// ServeHTTP answers for everything under [Path].
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// SignInPath returns the path of a link that signs one browser in, once, without a token. It is of
// use only where the admin API asks nobody for one.
func (d *Dashboard) SignInPath() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.code = rand.Text()
	return Path + "sign-in/" + d.code
}

// takeCode reports whether a code is that of the link, which is then used up.
func (d *Dashboard) takeCode(code string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if code == "" || code != d.code {
		return false
	}
	d.code = ""
	return true
}
