package dashboard

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// domainFields are the settings of a domain beside its name and what it leads to.
var domainFields = []group{
	{"TLS", []string{"tls.mode", "tls.minVersion", "tls.issuer", "tls.keyType", "tls.fallbackManaged"}},
	{"Plain HTTP", []string{"https", "hsts.maxAge", "hsts.includeSubdomains", "hsts.preload"}},
}

type domainsView struct {
	Domains []*topologyv1.CustomDomain
	Next    string
	First   bool
	Write   bool
}

func (p *page) domains() adminv1.CustomDomainServiceClient {
	return adminv1.NewCustomDomainServiceClient(p.d.cfg.Conn)
}

func showDomains(p *page) error {
	token := p.value("page")
	resp, err := p.domains().ListCustomDomains(p.ctx,
		&adminv1.ListCustomDomainsRequest{Parent: p.parent(), PageSize: pageSize, PageToken: token})
	if err != nil {
		return err
	}
	return p.show("domains.html", view{
		Title: "Domains", Nav: "domains", Lead: "Host names of your own, in place of the shared host.",
		CLI:  []string{"edgewalk get domains -A " + p.account},
		Data: domainsView{resp.GetCustomDomains(), resp.GetNextPageToken(), token == "", p.may(adminv1.Rule_WRITE)},
	})
}

// domainView is the form of a domain, and what is known of it.
type domainView struct {
	*form
	Domain    *topologyv1.CustomDomain
	Groups    []group
	Advanced  bool
	Endpoints []string
	Write     bool
	Facts     []fact
	Options   []recordOption
	Checked   bool
}

// fact is one of a domain's three facts: ownership, routing and certificate.
type fact struct {
	Name, State, Class, Message string
	Seen                        []string
	Last, Next                  *timestamppb.Timestamp
	More                        string
}

// recordOption is records of DNS that belong together.
type recordOption struct {
	Option  int32
	Records []*topologyv1.DomainRecord
}

// class is the colour of a state.
func class(state string) string {
	switch state {
	case "TRUSTED", "VERIFIED", "HERE", "PROXIED", "ISSUED", "RENEWING", "ACTIVE":
		return "good"
	case "LOST", "CONFLICT", "ELSEWHERE", "NXDOMAIN", "DNS_BROKEN", "FAILED", "EXPIRED", "SUSPENDED":
		return "bad"
	case "PENDING", "MIXED", "WAITING", "ORDERING":
		return "warn"
	default:
		return "dim"
	}
}

func newFact(name, state, message string, seen []string, last, next *timestamppb.Timestamp) fact {
	if state == "STATE_UNSPECIFIED" {
		state = "UNKNOWN"
	}
	said := word(state)
	if state == "NXDOMAIN" {
		said = "No such name"
	}
	return fact{name, said, class(state), message, seen, last, next, ""}
}

// facts are what is known of a domain.
func facts(d *topologyv1.CustomDomain) []fact {
	o, r, c := d.GetOwnership(), d.GetRouting(), d.GetCertificate()
	all := []fact{
		newFact("Ownership", o.GetState().String(), o.GetMessage(), o.GetSeen(), o.GetLastCheck(), o.GetNextCheck()),
		newFact("Routing", r.GetState().String(), r.GetMessage(), r.GetSeen(), r.GetLastCheck(), r.GetNextCheck()),
		newFact("Certificate", c.GetState().String(), c.GetMessage(), c.GetSeen(), c.GetLastCheck(), c.GetNextCheck()),
	}
	if c.GetNotAfter() != nil {
		left := time.Until(c.GetNotAfter().AsTime())
		all[2].More = span(left) + " left"
		if c.GetIssuer() != "" {
			all[2].More += ", from " + c.GetIssuer()
		}
	}
	return all
}

// options puts records together that belong together.
func options(records []*topologyv1.DomainRecord) (all []recordOption) {
	for _, r := range records {
		i := slices.IndexFunc(all, func(o recordOption) bool { return o.Option == r.GetOption() })
		if i < 0 {
			all = append(all, recordOption{Option: r.GetOption()})
			i = len(all) - 1
		}
		all[i].Records = append(all[i].Records, r)
	}
	return all
}

func newDomain(p *page) error {
	d := &topologyv1.CustomDomain{Mode: topologyv1.CustomDomain_ACCOUNT}
	return (&domainView{form: newForm(p, d), Domain: d}).render(http.StatusOK)
}

func (p *page) storedDomain() (*domainView, error) {
	resp, err := p.domains().GetCustomDomain(p.ctx,
		&adminv1.GetCustomDomainRequest{Name: topology.DomainName(p.account, p.r.PathValue("id"))})
	if err != nil {
		return nil, err
	}
	d := proto.CloneOf(resp.GetCustomDomain())
	v := &domainView{form: newForm(p, d), Domain: d, Facts: facts(d), Options: options(d.GetRecords())}
	v.New, v.stored = false, resp.GetCustomDomain().ProtoReflect()
	return v, nil
}

func showDomain(p *page) error {
	v, err := p.storedDomain()
	if err != nil {
		return err
	}
	return v.render(http.StatusOK)
}

// checkDomain looks at DNS now.
func checkDomain(p *page) error {
	resp, err := p.domains().CheckCustomDomain(p.ctx,
		&adminv1.CheckCustomDomainRequest{Name: topology.DomainName(p.account, p.r.PathValue("id"))})
	if err != nil {
		v, getErr := p.storedDomain()
		if getErr != nil || !v.take(err) {
			return err
		}
		return v.render(httpStatusOf(err))
	}
	v, err := p.storedDomain()
	if err != nil {
		return err
	}
	if d := resp.GetCustomDomain(); d != nil {
		v.Facts, v.Options = facts(d), options(d.GetRecords())
	}
	v.Checked = true
	return v.render(http.StatusOK)
}

func (v *domainView) render(code int) error {
	p := v.page
	v.Write, v.Groups = p.may(adminv1.Rule_WRITE), domainFields
	endpoints, err := p.endpoints().ListUrlEndpoints(p.ctx,
		&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: maxChoices})
	if err != nil {
		return err
	}
	for _, e := range endpoints.GetUrlEndpoints() {
		v.Endpoints = append(v.Endpoints, e.GetId())
	}
	for _, name := range names(domainFields) {
		if owner, f := lookup(v.message, name); owner.Has(f) || v.errors[name] != "" {
			v.Advanced = true
		}
	}
	out := view{Title: "New domain", Nav: "domains", Up: p.at("domains"), UpText: "Domains", Data: v}
	if v.New {
		out.CLI = []string{
			"edgewalk create domain " + shell(v.Domain.GetDomain(), "images.example.com") + " -A " + p.account,
		}
	} else {
		name := v.Domain.GetDomain()
		out.Title = name
		out.CLI = []string{"edgewalk domains check " + shell(name, "") + " -A " + p.account}
	}
	return p.showAs(code, "domain.html", out)
}

// changeDomain claims a name, or changes what it leads to.
func changeDomain(p *page) error {
	d := &topologyv1.CustomDomain{Domain: strings.TrimSpace(p.value("domain"))}
	v := &domainView{form: newForm(p, d), Domain: d}
	if p.r.PathValue("id") != "" {
		var err error
		if v, err = p.storedDomain(); err != nil {
			return err
		}
		v.Domain.Etag = p.value("etag")
	}
	v.read(names(domainFields)...)
	v.Domain.Mode, v.Domain.UrlEndpoint = topologyv1.CustomDomain_ACCOUNT, ""
	if e := p.value("urlEndpoint"); e != "" {
		v.Domain.Mode, v.Domain.UrlEndpoint = topologyv1.CustomDomain_URL_ENDPOINT, e
	}
	prune(v.message)
	if v.invalid() {
		return v.render(http.StatusUnprocessableEntity)
	}
	var err error
	id, revision, word := p.r.PathValue("id"), int64(0), "saved"
	var warnings []string
	if v.New {
		var resp *adminv1.CreateCustomDomainResponse
		resp, err = p.domains().CreateCustomDomain(p.ctx,
			&adminv1.CreateCustomDomainRequest{Parent: p.parent(), CustomDomain: v.Domain, RequestId: v.RequestID()})
		id, revision, word = resp.GetCustomDomain().GetId(), resp.GetRevision(), "created"
		warnings = resp.GetWarnings()
	} else {
		var resp *adminv1.UpdateCustomDomainResponse
		resp, err = p.domains().UpdateCustomDomain(p.ctx, &adminv1.UpdateCustomDomainRequest{
			CustomDomain: updateInput(v.Domain),
			UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"mode", "url_endpoint", "tls", "https", "hsts"}},
			RequestId:    v.RequestID(),
		})
		revision, warnings = resp.GetRevision(), resp.GetWarnings()
	}
	if err != nil {
		if v.take(err) {
			return v.render(httpStatusOf(err))
		}
		return err
	}
	return p.goTo(p.at("domains", id), revision, word, warnings)
}

// updateInput is input with the name and etag, which an update needs.
func updateInput(d *topologyv1.CustomDomain) *topologyv1.CustomDomain {
	out := input(d)
	out.Name, out.Etag = d.GetName(), d.GetEtag()
	return out
}

// renewCertificate asks for another certificate now.
func renewCertificate(p *page) error {
	id := p.r.PathValue("id")
	_, err := p.domains().RenewCertificate(p.ctx,
		&adminv1.RenewCertificateRequest{Name: topology.DomainName(p.account, id)})
	if err != nil {
		v, getErr := p.storedDomain()
		if getErr != nil || !v.take(err) {
			return err
		}
		return v.render(httpStatusOf(err))
	}
	return p.goTo(p.at("domains", id), 0, "", nil)
}

// uploadCertificate takes a certificate with its key as text. The key is stored sealed, and nobody
// can read it back.
func uploadCertificate(p *page) error {
	id := p.r.PathValue("id")
	resp, err := p.domains().UploadCertificate(p.ctx, &adminv1.UploadCertificateRequest{
		Name: topology.DomainName(p.account, id), CertificatePem: p.value("certificate"), PrivateKeyPem: p.value("key"),
	})
	if err != nil {
		v, getErr := p.storedDomain()
		if getErr != nil || !v.take(err) {
			return err
		}
		v.Problem = status.Convert(err).Message()
		return v.render(httpStatusOf(err))
	}
	return p.goTo(p.at("domains", id), resp.GetRevision(), "saved", resp.GetWarnings())
}

func confirmDomain(p *page) error {
	id := p.r.PathValue("id")
	name := topology.DomainName(p.account, id)
	resp, err := p.domains().GetCustomDomain(p.ctx, &adminv1.GetCustomDomainRequest{Name: name})
	if err != nil {
		return err
	}
	d := resp.GetCustomDomain()
	c := confirmation{
		What: "domain " + d.GetDomain(), Action: p.at("domains", id, "delete"), Back: p.at("domains", id),
		Etag: d.GetEtag(), RequestID: newRequestID(),
		Consequence: "Edges answer 404 on the name from then on, and its certificate goes. Others may claim the name.",
	}
	_, err = p.domains().DeleteCustomDomain(p.ctx, &adminv1.DeleteCustomDomainRequest{Name: name, ValidateOnly: true})
	c.Blocked = refusal(err)
	return p.show("confirm.html", view{
		Title: "Delete " + c.What + "?", Nav: "domains", Up: c.Back, UpText: d.GetDomain(),
		CLI: []string{"edgewalk delete domain " + shell(d.GetDomain(), "") + " -A " + p.account}, Data: c,
	})
}

func deleteDomain(p *page) error {
	resp, err := p.domains().DeleteCustomDomain(p.ctx, &adminv1.DeleteCustomDomainRequest{
		Name: topology.DomainName(p.account, p.r.PathValue("id")), Etag: p.value("etag"),
		RequestId: p.value("request_id"),
	})
	if err != nil {
		return err
	}
	return p.goTo(p.at("domains"), resp.GetRevision(), "deleted", nil)
}
