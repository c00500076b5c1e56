package adminsvc

import (
	"context"
	"fmt"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/internal/shellword"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type diagnostics struct {
	*Service
	adminv1.UnimplementedDiagnosticServiceServer
}

// Explain answers a token for one account about that account's URLs only: the edge looks where a
// URL leads before it asks anything of origins. An edge that does not know that yet may ask, but
// what it says of others is not passed on.
func (s diagnostics) Explain(ctx context.Context, req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	account, _ := auth.From(ctx).Account()
	answer, err := s.ask(ctx, req.GetEdge(), req.GetRegion(), &edgev1.Ask{
		Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: req.GetUrl(), Account: account}},
	})
	if err != nil {
		return nil, err
	}
	e := answer.GetExplain()
	unserved := ""
	if e.GetAccount() == "" && e.GetHost() != "" {
		unserved = s.unserved(e.GetHost(), account)
	}
	switch {
	case account != "" && e.GetAccount() != account && unserved != "":
		return nil, fail(kindNotFound, "no URL of %s leads there: %s", topology.AccountName(account), unserved)
	case account != "" && e.GetAccount() != account:
		return nil, fail(kindNotFound, "no URL of %s leads there", topology.AccountName(account))
	case unserved != "":
		e.Ending += ": " + unserved
	}
	return &adminv1.ExplainResponse{Explanation: e}, nil
}

// unserved says of a host why no edge serves it although it is a custom domain, of an account or,
// with none, of any; empty if it is no such domain. Edges know only those that they serve.
func (s diagnostics) unserved(host, account string) string {
	ids := []string{topology.DomainID(host)}
	if wildcard, ok := topology.WildcardOf(host); ok {
		ids = append(ids, topology.DomainID(wildcard))
	}
	var found []topology.Record
	if account != "" {
		for _, id := range ids {
			if record, ok := s.feed.Get(domainKey(account, id)); ok {
				found = append(found, record)
			}
		}
	} else {
		for _, id := range ids {
			found = append(found, s.feed.Named(topology.KindCustomDomains, id)...)
		}
	}
	var says []string
	for _, record := range found {
		stored, err := decode[*topologyv1.CustomDomain](record)
		if err != nil || stored.Message.GetState() == topologyv1.CustomDomain_ACTIVE {
			continue
		}
		domain := stored.Message.GetDomain()
		says = append(says, fmt.Sprintf("%s is a custom domain of account %s, and %s: see `edgewalk domains check %s -A %s`",
			domain, record.Key.Account, stored.Message.GetState(), shellword.Quote(domain), record.Key.Account))
		if len(says) == maxUnserved {
			break
		}
	}
	return strings.Join(says, "; ")
}

// maxUnserved is how many custom domains of one host are told of: each account may wait for the
// proof that the name is its own.
const maxUnserved = 3
