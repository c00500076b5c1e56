package dashboard

import (
	"net/http"
	"strings"

	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type purgesView struct {
	Scope, Text string // Scope: urls, prefix, tag, endpoint, everything
	Hard        bool
	// RequestID is another each time, so that a purge is made once for each page that was looked
	// at: who goes back to purge the same once more does.
	RequestID string
	Problem   string
	// Preview is what a purge would cover; nil before it was asked for.
	Preview   *preview
	Endpoints []string
	Purges    []*topologyv1.Purge
	Next      string
	First     bool
	Purge     bool // the caller may
	Read      bool
}

// preview says what a purge covers.
type preview struct {
	Lines []string
	Loads string // what it makes of the load on origins
}

// scopeOf reads what is to be purged.
func (v *purgesView) purge() *topologyv1.Purge {
	out := &topologyv1.Purge{Kind: topologyv1.Purge_SOFT}
	if v.Hard {
		out.Kind = topologyv1.Purge_HARD
	}
	switch v.Scope {
	case "urls":
		out.Scope = &topologyv1.Purge_Urls_{Urls: &topologyv1.Purge_Urls{Urls: strings.Fields(v.Text)}}
	case "prefix":
		out.Scope = &topologyv1.Purge_Prefix{Prefix: v.Text}
	case "tag":
		out.Scope = &topologyv1.Purge_Tag{Tag: v.Text}
	case "endpoint":
		out.Scope = &topologyv1.Purge_UrlEndpoint{UrlEndpoint: v.Text}
	case "everything":
		out.Scope = &topologyv1.Purge_Everything{Everything: true}
	}
	return out
}

// flags are those of the command for the same purge.
func (v *purgesView) flags() string {
	hard := ""
	if v.Hard {
		hard = " --hard"
	}
	switch v.Scope {
	case "urls":
		var b strings.Builder
		for u := range strings.FieldsSeq(v.Text) {
			b.WriteString(" --url " + shell(u, ""))
		}
		if b.Len() == 0 {
			b.WriteString(" --url URL")
		}
		return b.String() + hard
	case "everything":
		return " --all" + hard
	default:
		return " --" + v.Scope + " " + shell(v.Text, strings.ToUpper(v.Scope)) + hard
	}
}

func (p *page) readPurge() *purgesView {
	v := &purgesView{
		Scope: p.value("scope"), Text: strings.TrimSpace(p.value("text")), Hard: p.value("kind") == "hard",
		RequestID: newRequestID(), Purge: p.may(adminv1.Rule_PURGE), Read: p.may(adminv1.Rule_READ),
	}
	if v.Scope == "" {
		v.Scope = "urls"
	}
	return v
}

func showPurges(p *page) error { return p.readPurge().render(p, http.StatusOK) }

func (v *purgesView) render(p *page, code int) error {
	token := p.r.URL.Query().Get("page")
	resp, err := adminv1.NewPurgeServiceClient(p.d.cfg.Conn).ListPurges(p.ctx,
		&adminv1.ListPurgesRequest{Parent: p.parent(), PageSize: 20, PageToken: token})
	if err != nil {
		return err
	}
	v.Purges, v.Next, v.First = resp.GetPurges(), resp.GetNextPageToken(), token == ""
	if v.Read {
		endpoints, err := p.endpoints().ListUrlEndpoints(p.ctx,
			&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: 100})
		if err != nil {
			return err
		}
		for _, e := range endpoints.GetUrlEndpoints() {
			v.Endpoints = append(v.Endpoints, e.GetId())
		}
	}
	return p.showAs(code, "purges.html", view{
		Title: "Purge", Nav: "purges", Lead: "Make edges stop using what they stored before now.",
		CLI: []string{"edgewalk purge -A " + p.account + v.flags() + " --wait"}, Data: v,
	})
}

// createPurge previews a purge, or makes it.
func createPurge(p *page) error {
	v := p.readPurge()
	check := p.value("do") != "purge"
	req := &adminv1.CreatePurgeRequest{Parent: p.parent(), Purge: v.purge(), ValidateOnly: check}
	if !check {
		req.RequestId = p.value("request_id")
	}
	resp, err := adminv1.NewPurgeServiceClient(p.d.cfg.Conn).CreatePurge(p.ctx, req)
	if err != nil {
		if code := httpStatusOf(err); code == 422 || code == 409 || code == 429 {
			v.Problem = status.Convert(err).Message()
			if infoOf(status.Convert(err)).GetReason() == reused {
				v.Problem = sentBefore
			}
			return v.render(p, code)
		}
		return err
	}
	if !check {
		return p.goTo(p.at("purges"), resp.GetRevision(), "purged", nil)
	}
	v.Preview = v.previewOf(resp.GetPurge())
	return v.render(p, http.StatusOK)
}

func (v *purgesView) previewOf(purge *topologyv1.Purge) *preview {
	out := &preview{Loads: "Stored replies stay, and are revalidated with their origins before their next use. They may still stand in while origins fail."}
	if v.Hard {
		out.Loads = "Stored replies are never used again, not even while origins fail: origins are asked for each file anew."
	}
	switch s := purge.GetScope().(type) {
	case *topologyv1.Purge_Urls_:
		for _, u := range s.Urls.GetUrls() {
			line := u
			if !strings.Contains(u, "?") {
				line += " with any query"
			}
			out.Lines = append(out.Lines, line)
		}
	case *topologyv1.Purge_Prefix:
		out.Lines = []string{"Everything below " + s.Prefix + ", whole folders only" + inEvery(s.Prefix)}
	case *topologyv1.Purge_Tag:
		out.Lines = []string{"Every reply of the account with the tag " + s.Tag}
	case *topologyv1.Purge_UrlEndpoint:
		out.Lines = []string{"Everything under the URL-endpoint " + s.UrlEndpoint}
	case *topologyv1.Purge_Everything:
		out.Lines = []string{"Every stored reply of the account, in every URL-endpoint"}
	}
	return out
}

func inEvery(prefix string) string {
	if strings.HasPrefix(prefix, "/") {
		return ", in every URL-endpoint"
	}
	return ""
}
