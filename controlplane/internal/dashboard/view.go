package dashboard

import (
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/duration"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// view is what a page shows. The layout around it is the same for all.
type view struct {
	Title, Lead string
	Bare        bool   // nobody is signed in
	Nav         string // which link of the navigation is the page's
	Up, UpText  string // the page above this one
	CLI         []string
	Notice      *notice
	Data        any

	page *page
}

// Flush sends what there is of the page. It stands where the head ends.
func (v view) Flush() string {
	if v.page != nil {
		_ = http.NewResponseController(v.page.w).Flush() // or the browser is gone
		go v.page.accounts()
	}
	return ""
}

// Accounts are those that the switch offers.
func (v view) Accounts() []*topologyv1.Account { return v.page.accounts() }

// Account is the id of the page's account, empty outside of accounts.
func (v view) Account() string {
	if v.page == nil {
		return ""
	}
	return v.page.account
}

// May reports whether the role has a permission, by its name.
func (v view) May(permission string) bool {
	return v.page != nil && v.page.may(adminv1.Rule_Permission(adminv1.Rule_Permission_value[permission]))
}

// Role is that of who is signed in.
func (v view) Role() string { return strings.ToLower(v.page.who.GetToken().GetRole().String()) }

// Who names who is signed in.
func (v view) Who() string {
	t := v.page.who.GetToken()
	switch {
	case t.GetDescription() != "":
		return t.GetDescription()
	case t.GetId() != "":
		return "token " + t.GetId()
	case v.page.who.GetCredential() == "none":
		return "open: no token needed"
	default:
		return v.page.who.GetCredential()
	}
}

// AccountName is what people call the account.
func (v view) AccountName() string {
	for _, a := range v.Accounts() {
		if a.GetId() == v.Account() && a.GetDisplayName() != "" {
			return a.GetDisplayName()
		}
	}
	return v.Account()
}

// Every reports whether the token is for all accounts.
func (v view) Every() bool { return v.page != nil && v.page.who.GetToken().GetAccount() == "*" }

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

func newRequestID() string { return uuid.NewString() }

func httpStatusOf(err error) int { return httpStatus(status.Code(err)) }

//go:embed templates
var templates embed.FS

// pages are the templates by their file. Each has the layout, and `live` where a part is sent
// again. They are parsed when the first page is shown, because an edge never shows one.
var pages = sync.OnceValue(func() map[string]*template.Template {
	shared := template.Must(template.New("").Funcs(funcs).ParseFS(templates, "templates/layout.html",
		"templates/parts.html"))
	out := make(map[string]*template.Template)
	files, err := fs.Glob(templates, "templates/*.html")
	if err != nil {
		panic(err)
	}
	for _, file := range files {
		name := path.Base(file)
		if name != "layout.html" && name != "parts.html" {
			out[name] = template.Must(template.Must(shared.Clone()).ParseFS(templates, file))
		}
	}
	return out
})

var funcs = template.FuncMap{
	"static": staticPath,
	"icon":   icon,
	"query":  query,
	"ago":    ago,
	"time":   func(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format("2006-01-02 15:04:05 UTC") },
	"clock":  func(t time.Time) string { return t.UTC().Format("15:04 UTC") },
	"stamp":  func(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format(time.RFC3339) },
	"span":   func(d *durationpb.Duration) string { return span(d.AsDuration()) },
	"ms":     func(d *durationpb.Duration) string { return milliseconds(d.AsDuration()) },
	"bytes":  byteSize,
	"number": number,
	"lower":  strings.ToLower,
	"word":   word,
	"dict":   dict,
	"first":  first[string],
	"sub":    func(a, b int) int { return a - b },
	"add":    func(a, b int) int { return a + b },
	"add32":  func(a, b int32) int32 { return a + b },
	"join":   strings.Join,
	"json":   plainJSON,
	"chips":  func(walk []string, account string) map[string]any { return dict("Walk", walk, "Account", account) },
	"purged": purged,
	"base":   path.Base,
	"thumbnail": func(f *topologyv1.MediaFile) bool {
		return strings.HasPrefix(f.GetContentType(), "image/") && f.GetSizeBytes() <= maxThumbnail
	},
	"help":     helpText,
	"class":    class,
	"facts":    facts,
	"relative": relative,
	"ended":    ended,
	"day":      func(t *timestamppb.Timestamp) string { return t.AsTime().UTC().Format("2006-01-02") },
	"old":      func(t *timestamppb.Timestamp) bool { return t != nil && time.Since(t.AsTime()) > time.Hour },
}

// dict is what a part of a page is given.
func dict(pairs ...any) map[string]any {
	m := make(map[string]any)
	for i := 0; i+1 < len(pairs); i += 2 {
		m[fmt.Sprint(pairs[i])] = pairs[i+1]
	}
	return m
}

// ago is how long something is over, for people.
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return "never"
	}
	d := time.Since(t.AsTime())
	if d < time.Second {
		return "just now"
	}
	return span(d) + " ago"
}

// span is a duration in its largest unit.
func span(d time.Duration) string {
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}} {
		if d >= unit.of || d <= -unit.of {
			return strconv.FormatInt(int64(d/unit.of), 10) + " " + unit.name
		}
	}
	if d == 0 {
		return "0 s"
	}
	return milliseconds(d)
}

func milliseconds(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
	case d < 10*time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	default:
		return duration.String(d.Round(time.Second))
	}
}

// helpText is the comment of a field, with what stands in backquotes as code.
func helpText(text string) template.HTML {
	var b strings.Builder
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			b.WriteString("<code>" + template.HTMLEscapeString(part) + "</code>")
			continue
		}
		b.WriteString(template.HTMLEscapeString(part))
	}
	return template.HTML(b.String()) //nolint:gosec // escaped
}

func byteSize(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for ; v >= 1024 && i+1 < len(units); i++ {
		v /= 1024
	}
	if i == 0 || v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64) + " " + units[i]
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + units[i]
}

// number writes a number with thin groups, `12 345`.
func number(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// plainJSON is a JSON value for people: strings without quotes.
func plainJSON(text string) string {
	if s, err := strconv.Unquote(text); err == nil {
		return s
	}
	return text
}

// purged says what a purge was about.
func purged(p *topologyv1.Purge) string {
	switch s := p.GetScope().(type) {
	case *topologyv1.Purge_Urls_:
		urls := s.Urls.GetUrls()
		if len(urls) > 1 {
			return fmt.Sprintf("%s and %d more", urls[0], len(urls)-1)
		}
		return strings.Join(urls, "")
	case *topologyv1.Purge_Prefix:
		return s.Prefix + " and below"
	case *topologyv1.Purge_Tag:
		return "tag " + s.Tag
	case *topologyv1.Purge_UrlEndpoint:
		return "URL-endpoint " + s.UrlEndpoint
	default:
		return "everything"
	}
}
