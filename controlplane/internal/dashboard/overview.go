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
	Traffic   trafficView
	Write     bool
}

// overviewSize is how many resources of a kind the overview looks at.
const overviewSize = 200

// showOverview shows the state of the account and what needs an admin's attention.
func showOverview(p *page) error {
	v := overviewView{Write: p.may(adminv1.Rule_WRITE)}
	var all errgroup.Group
	var (
		traffic   *topologyv1.Traffic
		endpoints []*topologyv1.UrlEndpoint
	)
	all.Go(func() error {
		resp, err := adminv1.NewAccountServiceClient(p.d.cfg.Conn).GetAccount(p.ctx,
			&adminv1.GetAccountRequest{Name: p.parent()})
		v.Account = resp.GetAccount()
		return err
	})
	all.Go(func() error {
		resp, err := p.endpoints().ListUrlEndpoints(p.ctx,
			&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: overviewSize})
		endpoints = resp.GetUrlEndpoints()
		v.Endpoints = first(5, endpoints)
		return err
	})
	all.Go(func() error {
		resp, err := adminv1.NewAccountServiceClient(p.d.cfg.Conn).GetTraffic(p.ctx,
			&adminv1.GetTrafficRequest{Name: p.parent() + "/traffic"})
		traffic = resp.GetTraffic()
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
	v.Traffic = trafficOf(traffic, endpoints)
	return p.show("overview.html", view{
		Title: "Overview", Nav: "overview",
		CLI: []string{"edgewalk traffic -A " + p.account, "edgewalk describe account " + p.account}, Data: v,
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
