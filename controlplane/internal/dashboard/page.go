package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	"github.com/edgewalk/edgewalk/internal/shellword"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// maxForm bounds a form without files.
const maxForm = 1 << 20

// page is one request of somebody who is signed in.
type page struct {
	d       *Dashboard
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context // of calls of the admin API
	session session
	who     *adminv1.WhoAmIResponse
	account string // the id in the path, empty outside of accounts

	accounts func() []*topologyv1.Account // for the switch
}

// outgoing is the context of calls for a request that present a token; none where nobody is asked
// for one.
func outgoing(r *http.Request, token string) context.Context {
	if token == "" {
		r = r.Clone(r.Context())
		r.Header.Del("Authorization")
		return adminconn.Outgoing(r)
	}
	return adminconn.Outgoing(r.WithContext(adminconn.WithToken(r.Context(), token)))
}

// may reports whether the caller's role has a permission. The admin API decides for itself.
func (p *page) may(permission adminv1.Rule_Permission) bool {
	return slices.Contains(p.who.GetPermissions(), permission)
}

// parent is the name of the account.
func (p *page) parent() string { return "accounts/" + p.account }

// at is the path of a page of the account.
func (p *page) at(parts ...string) string {
	to := Path + "a/" + p.account
	for _, part := range parts {
		to += "/" + url.PathEscape(part)
	}
	return to
}

func (p *page) value(name string) string { return p.r.FormValue(name) }

// maxWarnings is how many warnings of a change are shown.
const maxWarnings = 5

// goTo ends a request that has changed something; the next page says so, and what the control plane
// warns of.
func (p *page) goTo(to string, revision int64, done string, warnings []string) error {
	if revision > 0 {
		values := url.Values{"revision": {decimal(revision)}, "done": {done}}
		if len(warnings) > 0 {
			sealed, err := p.session.sealText("warnings", first(min(maxWarnings, len(warnings)), warnings))
			if err != nil {
				return err
			}
			values.Set("warned", sealed)
		}
		begin := "?"
		if strings.Contains(to, "?") {
			begin = "&"
		}
		to += begin + values.Encode()
	}
	http.Redirect(p.w, p.r, to, http.StatusSeeOther)
	return nil
}

// switchSize is how many accounts the switch offers.
const switchSize = 8

// begin prepares what the layout shows besides the page. It is asked for once the head of the page
// is sent.
func (p *page) begin(one route) {
	p.accounts = func() []*topologyv1.Account { return nil }
	if p.may(adminv1.Rule_READ) && !one.bare {
		p.accounts = sync.OnceValue(func() []*topologyv1.Account {
			resp, _ := adminv1.NewAccountServiceClient(p.d.cfg.Conn).ListAccounts(p.ctx,
				&adminv1.ListAccountsRequest{PageSize: switchSize})
			return resp.GetAccounts() // none where it failed: the page itself shows the error
		})
	}
}

// notice stands above a page.
type notice struct {
	Kind string // good, warn, bad or info
	Text string
	// Applied says where a change is served.
	Applied *applied
	Details []string
}

// applied says how many edges have applied a revision.
type applied struct {
	Revision       int64
	Applied, Total int32
	Pending        []string
	Rejected       []*adminv1.RejectedEdge
	Problem        string
}

// appliedWithin is how long a page waits for edges. Those that are well take milliseconds.
const appliedWithin = 1500 * time.Millisecond

func (p *page) applied(revision int64) *applied {
	a := &applied{Revision: revision}
	zero := int32(0)
	resp, err := adminv1.NewFleetServiceClient(p.d.cfg.Conn).WaitApplied(p.ctx, &adminv1.WaitAppliedRequest{
		Revision: revision, MinEdges: &zero, Timeout: durationpb.New(appliedWithin),
	})
	if err == nil {
		a.Applied, a.Total, a.Pending, a.Rejected = resp.GetApplied(), resp.GetTotal(), resp.GetPending(),
			resp.GetRejected()
		return a
	}
	st := status.Convert(err)
	info := infoOf(st)
	if info.GetReason() != "EDGES_PENDING" {
		a.Problem = st.Message()
		return a
	}
	_, _ = fmt.Sscan(info.GetMetadata()["applied"], &a.Applied) // the control plane's own numbers
	_, _ = fmt.Sscan(info.GetMetadata()["total"], &a.Total)
	a.Pending = strings.FieldsFunc(info.GetMetadata()["pending"], func(r rune) bool { return r == ',' })
	return a
}

// infoOf is what programs read of an error.
func infoOf(st *status.Status) *errdetails.ErrorInfo {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	return nil
}

// done are the notices of changes, by the word for each in an address.
var done = map[string]string{
	"created": "Created", "saved": "Saved", "deleted": "Deleted", "purged": "Purged", "restored": "Restored",
	"uploaded": "Uploaded", "moved": "Moved", "revoked": "Revoked",
}

// notice is what a page says of the change before it.
func (p *page) notice() *notice {
	query := p.r.URL.Query()
	text, ok := done[query.Get("done")]
	if !ok || p.r.Method != http.MethodGet {
		return nil
	}
	n := &notice{Kind: "good", Text: text}
	if p.session.openText("warnings", query.Get("warned"), &n.Details) { // nobody else can word one
		n.Kind = "warn"
	}
	if revision, err := strconv.ParseInt(query.Get("revision"), 10, 64); err == nil && revision > 0 &&
		p.may(adminv1.Rule_FOLLOW) {
		n.Applied = p.applied(revision)
	}
	return n
}

// show renders a page of somebody who is signed in.
func (p *page) show(name string, v view) error { return p.showAs(http.StatusOK, name, v) }

func (p *page) showAs(code int, name string, v view) error {
	v.page = p
	if v.Notice == nil {
		v.Notice = p.notice()
	}
	p.d.render(p.w, p.r, code, name, v)
	return nil
}

// handler answers a request of somebody who is signed in. An error becomes a page.
type handler func(*page) error

// signedIn has a handler answer for who is signed in and may see its page; everybody else is shown
// the way in.
func (d *Dashboard) signedIn(one route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		session, err := d.current(r)
		switch {
		case errors.Is(err, errNoSession):
			to := Path + "sign-in"
			if back := within(pageOf(r)); back != Path {
				to += "?" + url.Values{"next": {back}}.Encode()
			}
			http.Redirect(w, r, to, http.StatusSeeOther)
			return
		case err != nil:
			d.log.WarnContext(r.Context(), "dashboard: a session cannot be looked up", "error", err)
			http.Error(w, "etcd does not answer, so nobody knows whether you are signed in: try again.", http.StatusServiceUnavailable)
			return
		}
		p := &page{d: d, w: w, r: r, session: session, ctx: outgoing(r, session.token), account: r.PathValue("account")}
		if !one.files {
			if err := p.takeForm(); err != nil {
				http.Error(w, "The form cannot be read: "+err.Error(), http.StatusBadRequest)
				return
			}
		}
		p.who, err = adminv1.NewTokenServiceClient(d.cfg.Conn).WhoAmI(p.ctx, &adminv1.WhoAmIRequest{})
		if err == nil {
			p.begin(one)
			switch {
			case !p.plain():
				err = errNoPage
			case !p.may(one.need):
				err = errForbidden
			default:
				err = one.handle(p)
			}
		}
		if err != nil {
			p.fail(err)
		}
	}
}

// plain reports whether the ids of the address are words that a shell takes as they are, as all
// that there are do: pages show them in commands to copy, also before the admin API has seen them.
func (p *page) plain() bool {
	for _, name := range []string{"account", "id", "token"} {
		if id := p.r.PathValue(name); id != "" && shellword.Quote(id) != id {
			return false
		}
	}
	return true
}

// pageTime bounds a page. The longest ones wait for a walk at an edge.
const pageTime = 160 * time.Second

// takeForm reads a form, and gives the page the time that it may take.
func (p *page) takeForm() error {
	p.r.Body = http.MaxBytesReader(p.w, p.r.Body, maxForm)
	if err := p.r.ParseForm(); err != nil {
		return err
	}
	control := http.NewResponseController(p.w)
	_ = control.SetWriteDeadline(p.d.now().Add(pageTime)) // or there is none
	_ = control.SetReadDeadline(time.Time{})
	return nil
}

// errForbidden says that a page is not for the caller's role.
var errForbidden = status.Error(codes.PermissionDenied, "your role may not see this page")

// httpStatus is the status for a gRPC code.
func httpStatus(code codes.Code) int {
	switch code {
	case codes.InvalidArgument, codes.OutOfRange:
		return http.StatusUnprocessableEntity
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted, codes.FailedPrecondition:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// fail shows an error as a page.
func (p *page) fail(err error) {
	if p.r.Context().Err() != nil {
		return // nobody reads it
	}
	st := status.Convert(err)
	if st.Code() == codes.Unauthenticated {
		p.d.setCookie(p.w, "", time.Time{})
		p.d.renderSignInTo(p.w, p.r, http.StatusUnauthorized, within(pageOf(p.r)), "You were signed out, because your token has expired or was revoked.")
		return
	}
	if p.who == nil { // the layout needs it
		http.Error(p.w, st.Message(), httpStatus(st.Code()))
		return
	}
	if st.Code() == codes.Unknown || st.Code() == codes.Internal {
		p.d.log.ErrorContext(p.r.Context(), "dashboard: a page failed", "path", p.r.URL.Path, "error", err)
	}
	title := map[codes.Code]string{
		codes.NotFound: "Not here", codes.PermissionDenied: "Not allowed", codes.Aborted: "Changed meanwhile",
		codes.Unavailable: "Not available",
	}[st.Code()]
	if title == "" {
		title = "That did not work"
	}
	_ = p.showAs(httpStatus(st.Code()), "error.html", view{Title: title, Data: st.Message()})
}

// render writes a page as it comes: a browser has its head, and asks for what that names, before
// the first row is made. A page that breaks off breaks its connection, so that nobody takes a part
// for the whole.
func (d *Dashboard) render(w http.ResponseWriter, r *http.Request, code int, name string, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if err := pages()[name].ExecuteTemplate(w, "layout", v); err != nil && r.Context().Err() == nil {
		d.log.ErrorContext(r.Context(), "dashboard: a page cannot be rendered", "page", name, "error", err)
		panic(http.ErrAbortHandler)
	}
}
