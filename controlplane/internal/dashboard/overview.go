package dashboard

import (
	"golang.org/x/sync/errgroup"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type overviewView struct {
	Account   *topologyv1.Account
	Endpoints []*topologyv1.UrlEndpoint
	Unwell    []originRow
	Origins   int
	More      bool                       // there are more origins than were looked at
	Domains   []*topologyv1.CustomDomain // that are not well
	Steps     []*adminv1.Step
	Write     bool
}

// overviewSize is how many resources of a kind the overview looks at.
const overviewSize = 200

// showOverview shows the state of the account and what needs an admin's attention.
func showOverview(p *page) error {
	v := overviewView{Write: p.may(adminv1.Rule_WRITE)}
	var all errgroup.Group
	all.Go(func() error {
		resp, err := adminv1.NewAccountServiceClient(p.d.cfg.Conn).GetAccount(p.ctx,
			&adminv1.GetAccountRequest{Name: p.parent()})
		v.Account = resp.GetAccount()
		return err
	})
	all.Go(func() error {
		resp, err := p.endpoints().ListUrlEndpoints(p.ctx,
			&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: 5})
		v.Endpoints = resp.GetUrlEndpoints()
		return err
	})
	all.Go(func() error {
		resp, err := p.origins().ListOrigins(p.ctx,
			&adminv1.ListOriginsRequest{Parent: p.parent(), PageSize: overviewSize})
		v.Origins, v.More = len(resp.GetOrigins()), resp.GetNextPageToken() != ""
		for _, o := range resp.GetOrigins() {
			if o.GetHealth().GetEdgesUnwell() > 0 {
				v.Unwell = append(v.Unwell, originRow{Origin: o})
			}
		}
		return err
	})
	all.Go(func() error {
		resp, err := p.domains().ListCustomDomains(p.ctx,
			&adminv1.ListCustomDomainsRequest{Parent: p.parent(), PageSize: overviewSize})
		for _, d := range resp.GetCustomDomains() {
			if unwell(d) {
				v.Domains = append(v.Domains, d)
			}
		}
		return err
	})
	all.Go(func() error {
		resp, err := p.history().ListSteps(p.ctx, &adminv1.ListStepsRequest{Parent: p.parent(), PageSize: 5})
		v.Steps = resp.GetSteps()
		return err
	})
	if err := all.Wait(); err != nil {
		return err
	}
	return p.show("overview.html", view{
		Title: "Overview", Nav: "overview",
		CLI: []string{"edgewalk describe account " + p.account, "edgewalk export " + p.account}, Data: v,
	})
}

// unwell reports whether a domain needs somebody.
func unwell(d *topologyv1.CustomDomain) bool {
	if d.GetState() != topologyv1.CustomDomain_ACTIVE {
		return true
	}
	for _, f := range facts(d) {
		if f.Class == "bad" {
			return true
		}
	}
	return false
}
