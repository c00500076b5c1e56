package dashboard

import (
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type accessView struct {
	Tokens      []*adminv1.Token
	Next        string
	First       bool
	Roles       []option
	Description string
	TTL         string
	Problem     string
	Made        *adminv1.CreateTokenResponse // shown once
	Self        string                       // the token of who looks
	Path        string
}

func (p *page) tokens() adminv1.TokenServiceClient {
	return adminv1.NewTokenServiceClient(p.d.cfg.Conn)
}

// accessPath is the page of the account's tokens, or of all.
func (p *page) accessPath() string {
	if p.account == "" {
		return Path + "access"
	}
	return p.at("access")
}

func showAccess(p *page) error { return (&accessView{TTL: "90d"}).render(p, http.StatusOK) }

// roles are those that the caller may give, for an account or for all.
func (p *page) roles(chosen string) (all []option) {
	of := []adminv1.Token_Role{adminv1.Token_VIEWER, adminv1.Token_PURGER, adminv1.Token_EDITOR, adminv1.Token_ADMIN}
	if p.account == "" {
		of = []adminv1.Token_Role{adminv1.Token_METRICS, adminv1.Token_OPERATOR, adminv1.Token_ROOT}
		if p.who.GetToken().GetRole() == adminv1.Token_OPERATOR {
			of = of[:1]
		}
	}
	about := map[adminv1.Token_Role]string{
		adminv1.Token_VIEWER: "reads the account", adminv1.Token_PURGER: "purges, and nothing else",
		adminv1.Token_EDITOR: "changes what belongs to the account",
		adminv1.Token_ADMIN:  "changes all, and makes tokens", adminv1.Token_METRICS: "reads /metrics",
		adminv1.Token_OPERATOR: "accounts, fleet, tokens of accounts", adminv1.Token_ROOT: "everything",
	}
	for _, r := range of {
		all = append(all, option{r.String(), strings.ToLower(r.String()) + ": " + about[r], r.String() == chosen})
	}
	return all
}

func (v *accessView) render(p *page, code int) error {
	token := p.r.URL.Query().Get("page")
	req := &adminv1.ListTokensRequest{PageSize: pageSize, PageToken: token}
	if p.account != "" {
		req.Account = p.parent()
	}
	resp, err := p.tokens().ListTokens(p.ctx, req)
	if err != nil {
		return err
	}
	v.Tokens, v.Next, v.First = resp.GetTokens(), resp.GetNextPageToken(), token == ""
	v.Roles, v.Self, v.Path = p.roles(p.value("role")), p.who.GetToken().GetName(), p.accessPath()
	out := view{Title: "Access", Nav: "access", Lead: "Tokens of people and programs. Each its own, with the least role that does.", Data: v}
	out.CLI = []string{
		"edgewalk token ls -A " + p.account,
		"edgewalk token create --role viewer -A " + p.account + " --description Grace",
	}
	if p.account == "" {
		out.Title, out.Nav = "All tokens", "tokens"
		out.CLI = []string{"edgewalk token ls", "edgewalk token create --role operator --description Ada"}
	}
	return p.showAs(code, "access.html", out)
}

// createToken makes a token, and shows its text, once.
func createToken(p *page) error {
	v := &accessView{Description: strings.TrimSpace(p.value("description")), TTL: strings.TrimSpace(p.value("ttl"))}
	ttl, err := duration.Parse(v.TTL)
	if err != nil {
		v.Problem = err.Error()
		return v.render(p, http.StatusUnprocessableEntity)
	}
	account := "*"
	if p.account != "" {
		account = p.parent()
	}
	resp, err := p.tokens().CreateToken(p.ctx, &adminv1.CreateTokenRequest{
		Token: &adminv1.Token{
			Role: adminv1.Token_Role(adminv1.Token_Role_value[p.value("role")]), Account: account,
			Description: v.Description,
		},
		Ttl: durationpb.New(ttl),
	})
	if err != nil {
		v.Problem = status.Convert(err).Message()
		return v.render(p, httpStatusOf(err))
	}
	return (&accessView{TTL: "90d", Made: resp}).render(p, http.StatusOK)
}

func revokeToken(p *page) error {
	name := "tokens/" + p.r.PathValue("token")
	if _, err := p.tokens().RevokeToken(p.ctx, &adminv1.RevokeTokenRequest{Name: name}); err != nil {
		return err
	}
	if name == p.who.GetToken().GetName() { // who has revoked the own token is signed out
		http.Redirect(p.w, p.r, Path+"sign-in", http.StatusSeeOther)
		return nil
	}
	http.Redirect(p.w, p.r, p.accessPath()+"?done=revoked", http.StatusSeeOther)
	return nil
}

func confirmRevoke(p *page) error {
	id := p.r.PathValue("token")
	c := confirmation{
		What: "token " + id, Action: p.accessPath() + "/" + id + "/revoke", Back: p.accessPath(), Verb: "Revoke",
		Final:       true,
		Consequence: "It ends at every control plane within 2 s, with calls, streams and sessions of this dashboard under way. Tokens that it made go on.",
	}
	return p.show("confirm.html", view{
		Title: "Revoke " + c.What + "?", Nav: "access", Up: c.Back, UpText: "Access",
		CLI: []string{"edgewalk token revoke " + id}, Data: c,
	})
}

type identitiesView struct {
	Identities []*adminv1.EdgeIdentity
	Next       string
	First      bool
	Control    bool
	Join       bool
	Edge       string
	Region     string
	Problem    string
	Made       *adminv1.CreateJoinTokenResponse // shown once
	Revoked    *adminv1.RevokeEdgeResponse
}

func (p *page) edgeAdmin() adminv1.EdgeAdminServiceClient {
	return adminv1.NewEdgeAdminServiceClient(p.d.cfg.Conn)
}

func showIdentities(p *page) error { return (&identitiesView{}).render(p, http.StatusOK) }

func (v *identitiesView) render(p *page, code int) error {
	token := p.r.URL.Query().Get("page")
	resp, err := p.edgeAdmin().ListIdentities(p.ctx,
		&adminv1.ListIdentitiesRequest{PageSize: pageSize, PageToken: token})
	if err != nil {
		return err
	}
	v.Identities, v.Next, v.First = resp.GetIdentities(), resp.GetNextPageToken(), token == ""
	v.Control, v.Join = p.may(adminv1.Rule_FLEET), p.may(adminv1.Rule_JOIN)
	return p.showAs(code, "identities.html", view{
		Title: "Certificates of edges", Nav: "edges", Lead: "The edges that have joined. Each has a key that never leaves its machine.",
		CLI: []string{"edgewalk edges join-token --edge fra-1 --region eu > edge.token"}, Data: v,
	})
}

// changeIdentity makes a join token, which is shown once, or takes an edge's certificate back.
func changeIdentity(p *page) error {
	v := &identitiesView{Edge: strings.TrimSpace(p.value("edge")), Region: strings.TrimSpace(p.value("region"))}
	var err error
	if p.value("do") == "revoke" {
		v.Revoked, err = p.edgeAdmin().RevokeEdge(p.ctx, &adminv1.RevokeEdgeRequest{Edge: v.Edge})
	} else {
		v.Made, err = p.edgeAdmin().CreateJoinToken(p.ctx,
			&adminv1.CreateJoinTokenRequest{Edge: v.Edge, Region: v.Region})
	}
	if err != nil {
		v.Problem = status.Convert(err).Message()
		return v.render(p, httpStatusOf(err))
	}
	return v.render(p, http.StatusOK)
}

// ended reports whether a certificate is no longer of use.
func ended(i *adminv1.EdgeIdentity) bool {
	return i.GetRevokeTime() != nil || time.Now().After(i.GetExpireTime().AsTime())
}
