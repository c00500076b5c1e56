package dashboard

import (
	"strconv"
	"strings"

	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type historyView struct {
	Steps   []*adminv1.Step
	Next    string
	First   bool
	Write   bool
	Current int64 // the revision of the newest step of the account
}

func (p *page) history() adminv1.HistoryServiceClient {
	return adminv1.NewHistoryServiceClient(p.d.cfg.Conn)
}

func showHistory(p *page) error {
	token := p.value("page")
	resp, err := p.history().ListSteps(p.ctx,
		&adminv1.ListStepsRequest{Parent: p.parent(), PageSize: pageSize, PageToken: token})
	if err != nil {
		return err
	}
	v := historyView{
		Steps: resp.GetSteps(), Next: resp.GetNextPageToken(), First: token == "", Write: p.may(adminv1.Rule_WRITE),
	}
	if v.First && len(v.Steps) > 0 {
		v.Current = v.Steps[0].GetRevision()
	}
	return p.show("history.html", view{
		Title: "History", Nav: "history", Lead: "Who changed what, the newest first. Steps are kept for 90 days, and of an account the last 1,000.",
		CLI: []string{"edgewalk history -A " + p.account}, Data: v,
	})
}

// relative is a resource's name within its account.
func relative(name string) string {
	if _, rest, ok := strings.Cut(strings.TrimPrefix(name, "accounts/"), "/"); ok {
		return rest
	}
	return "the account"
}

type restoreView struct {
	Revision        int64
	Changes         []*adminv1.ResourceChange
	Etag, RequestID string
	Problem         string
}

func (p *page) revision() (int64, error) {
	revision, err := strconv.ParseInt(p.r.PathValue("revision"), 10, 64)
	if err != nil {
		return 0, errNoPage
	}
	return revision, nil
}

// confirmRestore shows what a restore would change.
func confirmRestore(p *page) error {
	revision, err := p.revision()
	if err != nil {
		return err
	}
	v := restoreView{Revision: revision, RequestID: newRequestID()}
	resp, err := p.history().Rollback(p.ctx,
		&adminv1.RollbackRequest{Parent: p.parent(), Revision: revision, ValidateOnly: true})
	if err != nil {
		v.Problem = status.Convert(err).Message()
	}
	v.Changes, v.Etag = resp.GetChanges(), resp.GetEtag()
	to := decimal(revision)
	return p.show("restore.html", view{
		Title: "Restore revision " + to + "?", Nav: "history", Up: p.at("history"), UpText: "History",
		Lead: "Origins with their secrets, URL-endpoints and domains become what they were then, in one step at every edge. Media files and purges stay.",
		CLI: []string{
			"edgewalk diff -A " + p.account + " " + to, "edgewalk rollback -A " + p.account + " --to " + to + " --wait",
		},
		Data: v,
	})
}

func restore(p *page) error {
	revision, err := p.revision()
	if err != nil {
		return err
	}
	resp, err := p.history().Rollback(p.ctx, &adminv1.RollbackRequest{
		Parent: p.parent(), Revision: revision, Etag: p.value("etag"), RequestId: p.value("request_id"),
	})
	if err != nil {
		return err
	}
	return p.goTo(p.at("history"), resp.GetRevision(), "restored", nil)
}
