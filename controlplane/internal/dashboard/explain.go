package dashboard

import (
	"strings"
	"sync"

	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type explainView struct {
	URL, Edge, Other string
	Edges            []string // to choose from; none for who may not see them
	Answers          []explained
	Example          string // a URL to begin with
}

// explained is one edge's answer about a URL.
type explained struct {
	*topologyv1.Explanation
	Problem string
	Account string // of the page: links to resources lead there
	Fleet   bool
}

// Elsewhere reports whether the URL leads to another account than that of the page.
func (e explained) Elsewhere() bool { return e.GetAccount() != "" && e.GetAccount() != e.Account }

func showExplain(p *page) error {
	v := explainView{URL: strings.TrimSpace(p.value("url")), Edge: p.value("edge"), Other: p.value("other")}
	if p.may(adminv1.Rule_FLEET_READ) {
		edges, err := p.edges(p.ctx)
		if err != nil {
			return err
		}
		for _, e := range edges {
			if e.GetConnected() {
				v.Edges = append(v.Edges, e.GetId())
			}
		}
	}
	out := view{
		Title: "Explain", Nav: "explain", Lead: "What an edge does with a URL, and why. Each storage is asked live; nothing is stored.",
		CLI: []string{"edgewalk explain " + shell(v.URL, "URL") + flag("edge", v.Edge)},
	}
	if v.URL == "" {
		def, err := p.endpoints().ListUrlEndpoints(p.ctx,
			&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: 1})
		if err != nil {
			return err
		}
		if e := def.GetUrlEndpoints(); len(e) > 0 && len(e[0].GetUrls()) > 0 {
			v.Example = e[0].GetUrls()[0] + "picture.jpg"
		}
		out.Data = v
		return p.show("explain.html", out)
	}
	ask := []string{v.Edge}
	if v.Other != "" && v.Other != v.Edge {
		ask = append(ask, v.Other)
		out.CLI = append(out.CLI, "edgewalk explain "+shell(v.URL, "URL")+flag("edge", v.Other))
	}
	v.Answers = make([]explained, len(ask))
	var all sync.WaitGroup
	for i, edge := range ask {
		all.Go(func() {
			resp, err := adminv1.NewDiagnosticServiceClient(p.d.cfg.Conn).Explain(p.ctx,
				&adminv1.ExplainRequest{Url: v.URL, Edge: edge})
			v.Answers[i] = explained{
				Explanation: resp.GetExplanation(), Account: p.account, Fleet: p.may(adminv1.Rule_FLEET_READ),
			}
			if err != nil {
				v.Answers[i].Problem = status.Convert(err).Message()
			}
		})
	}
	all.Wait()
	out.Data = v
	return p.show("explain.html", out)
}

// flag is a flag of a command, if it has a value.
func flag(name, value string) string {
	if value == "" {
		return ""
	}
	return " --" + name + " " + shell(value, "")
}
