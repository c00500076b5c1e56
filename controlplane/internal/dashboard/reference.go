package dashboard

import "github.com/edgewalk/edgewalk/api"

// showReference is the description of the REST API for people.
func showReference(p *page) error {
	return p.show("api.html", view{
		Title: "REST API", Nav: "api", Lead: "Whatever the command line does, over HTTP and JSON, below /v1 of this address.",
		CLI:  []string{"curl -H \"Authorization: Bearer $EDGEWALK_TOKEN\" " + p.base() + "/v1/accounts"},
		Data: api.Reference,
	})
}

// base is the address of the control plane that the browser uses.
func (p *page) base() string {
	if p.d.cfg.Secure {
		return "https://" + p.r.Host
	}
	return "http://" + p.r.Host
}
