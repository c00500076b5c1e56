package dashboard

import (
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// errNoPage says that an address is none of ours.
var errNoPage = status.Error(codes.NotFound, "There is no such page.")

func badInput(text string) error { return status.Error(codes.InvalidArgument, text) }

// home leads to the account of the token, or to the one there is, or to all.
func home(p *page) error {
	to := Path + "accounts"
	if id := strings.TrimPrefix(p.who.GetToken().GetAccount(), "accounts/"); id != "" && id != "*" {
		to = Path + "a/" + id
		if !p.may(adminv1.Rule_READ) {
			to += "/purges"
		}
	} else if all := p.accounts(); len(all) == 1 {
		to = Path + "a/" + all[0].GetId()
	}
	http.Redirect(p.w, p.r, to, http.StatusSeeOther)
	return nil
}

type accountsView struct {
	*form
	Accounts []*topologyv1.Account
	Next     string
	First    bool
	Create   bool
	ID, Name string
}

func showAccounts(p *page) error {
	return (&accountsView{form: newForm(p, &topologyv1.Account{})}).render(http.StatusOK)
}

func (v *accountsView) render(code int) error {
	p := v.page
	token := p.r.URL.Query().Get("page")
	resp, err := adminv1.NewAccountServiceClient(p.d.cfg.Conn).ListAccounts(p.ctx,
		&adminv1.ListAccountsRequest{PageSize: pageSize, PageToken: token})
	if err != nil {
		return err
	}
	v.Accounts, v.Next, v.First, v.Create = resp.GetAccounts(), resp.GetNextPageToken(), token == "",
		p.may(adminv1.Rule_ACCOUNTS)
	return p.showAs(code, "accounts.html", view{
		Title: "Accounts", Nav: "accounts", Lead: "Each has its own origins, URL-endpoints, domains and Media Library.",
		CLI: []string{"edgewalk get accounts", "edgewalk create account " + shell(v.ID, "ID")}, Data: v,
	})
}

func createAccount(p *page) error {
	v := &accountsView{
		form: newForm(p, &topologyv1.Account{}), ID: strings.TrimSpace(p.value("id")),
		Name: strings.TrimSpace(p.value("displayName")),
	}
	resp, err := adminv1.NewAccountServiceClient(p.d.cfg.Conn).CreateAccount(p.ctx, &adminv1.CreateAccountRequest{
		AccountId: v.ID, Account: &topologyv1.Account{DisplayName: v.Name}, RequestId: v.RequestID(),
	})
	if err != nil {
		if v.take(err) {
			return v.render(httpStatusOf(err))
		}
		return err
	}
	return p.goTo(Path+"a/"+v.ID, resp.GetRevision(), "created", nil)
}
