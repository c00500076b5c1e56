package dashboard

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// originKind is a kind of storage as people choose it.
type originKind struct {
	Name, Title, About string
	Main               []string // fields that are always shown; the others of the kind fold away
}

var originKinds = []originKind{
	{"web", "Web server", "Any HTTP or HTTPS server, such as your shop’s.", []string{"web.baseUrl"}},
	{"s3", "Amazon S3 or compatible", "S3, MinIO, R2, Spaces, Wasabi, Ceph, backups of Cloudinary.", []string{
		"s3.bucket", "s3.region", "s3.endpoint", "s3.prefix", "s3.forcePathStyle", "s3.accessKeyId",
		"s3.secretAccessKey",
	}},
	{"gcs", "Google Cloud Storage", "A bucket, read with a service account’s key.",
		[]string{"gcs.bucket", "gcs.prefix", "gcs.clientEmail", "gcs.privateKey"}},
	{"azureBlob", "Azure Blob Storage", "A container, read with a SAS token or the account’s key.", []string{
		"azureBlob.accountName", "azureBlob.container", "azureBlob.prefix", "azureBlob.sasToken",
		"azureBlob.accountKey",
	}},
	{"webProxy", "Web proxy", "Pictures of listed hosts, by their whole URL.", []string{"webProxy.allowedHosts"}},
	{"akeneo", "Akeneo PIM", "Media files and assets of your product catalogue.", []string{
		"akeneo.baseUrl", "akeneo.clientId", "akeneo.clientSecret", "akeneo.username", "akeneo.password",
	}},
}

// commonFields are those of every kind, in groups.
var commonFields = []group{
	{"Requests", []string{"probeKey", "timeouts.connect", "timeouts.firstByte", "timeouts.idle"}},
	{"Breaker", []string{"breaker.failures", "breaker.maxOpen", "breaker.disabled"}},
	{"Replies", []string{"includeCanonicalHeader", "baseUrlForCanonicalHeader"}},
}

// kindNamed is the kind of a name, nil if there is none.
func kindNamed(name string) *originKind {
	for i := range originKinds {
		if originKinds[i].Name == name {
			return &originKinds[i]
		}
	}
	return nil
}

// kindField is the field of Origin that is set for a kind.
func kindField(m protoreflect.Message) protoreflect.FieldDescriptor {
	return m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
}

// rest are the fields of a kind that are not its main ones.
func (k *originKind) rest() (names []string) {
	fields := (&topologyv1.Origin{}).ProtoReflect().Descriptor().Fields().ByJSONName(k.Name).Message().Fields()
	for i := range fields.Len() {
		if name := k.Name + "." + fields.Get(i).JSONName(); !slices.Contains(k.Main, name) {
			names = append(names, name)
		}
	}
	return names
}

// groups are the fields that fold away.
func (k *originKind) groups() []group {
	if more := k.rest(); len(more) > 0 {
		return append([]group{{"More of the storage", more}}, commonFields...)
	}
	return commonFields
}

func (k *originKind) all() []string {
	return slices.Concat([]string{"displayName"}, k.Main, names(k.groups()))
}

type originsView struct {
	Next  string
	First bool
	Write bool

	origins   []*topologyv1.Origin
	endpoints func() *adminv1.ListUrlEndpointsResponse
}

// maxUsersAsked is how many endpoints are looked at for who uses an origin.
const maxUsersAsked = 100

// Origins are the rows.
func (v *originsView) Origins() (rows []originRow) {
	by := make(map[string][]string)
	for _, e := range v.endpoints().GetUrlEndpoints() {
		for _, o := range e.GetOrigins() {
			by[o] = append(by[o], e.GetId())
		}
	}
	for _, o := range v.origins {
		rows = append(rows, originRow{o, by[o.GetId()]})
	}
	return rows
}

// Partial reports whether some endpoint was not looked at for who uses an origin.
func (v *originsView) Partial() bool {
	resp := v.endpoints()
	return resp == nil || resp.GetNextPageToken() != ""
}

type originRow struct {
	*topologyv1.Origin
	Users []string
}

// KindTitle is what people call the kind.
func (r originRow) KindTitle() string { return kindTitle(r.Origin) }

// Where is where the files lie, for people.
func (r originRow) Where() string { return topology.Location(r.Origin) }

func kindTitle(o *topologyv1.Origin) string {
	if f := kindField(o.ProtoReflect()); f != nil {
		if k := kindNamed(f.JSONName()); k != nil {
			return k.Title
		}
	}
	return ""
}

func (p *page) origins() adminv1.OriginServiceClient {
	return adminv1.NewOriginServiceClient(p.d.cfg.Conn)
}

func showOrigins(p *page) error {
	token := p.value("page")
	v := &originsView{
		First: token == "", Write: p.may(adminv1.Rule_WRITE),
		endpoints: sync.OnceValue(func() *adminv1.ListUrlEndpointsResponse {
			resp, _ := p.endpoints().ListUrlEndpoints(p.ctx,
				&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: maxUsersAsked})
			return resp // nil where it failed
		}),
	}
	resp, err := p.origins().ListOrigins(p.ctx,
		&adminv1.ListOriginsRequest{Parent: p.parent(), PageSize: pageSize, PageToken: token})
	if err != nil {
		return err
	}
	v.Next, v.origins = resp.GetNextPageToken(), resp.GetOrigins()
	return p.show("origins.html", view{
		Title: "Origins", Nav: "origins", Lead: "External storage: the places where the account’s files lie.",
		CLI: []string{"edgewalk get origins -A " + p.account}, Data: v,
	})
}

// originView is the form of an origin.
type originView struct {
	*form
	Origin      *topologyv1.Origin
	Kind        *originKind
	Kinds       []originKind // to choose from, where none is chosen
	Groups      []group
	Headers     []header
	Advanced    bool
	Write       bool
	Test        *topologyv1.OriginTest
	TestPath    string
	TestProblem string
	Regions     []regionHealth
	Users       []string
}

// header is a row of the request headers.
type header struct {
	Name, Value string
	Set         bool // it has a secret value
}

// regionHealth is how an origin fares at the edges of a region.
type regionHealth struct {
	Region        string
	Edges, Unwell int
	Open          int
	LastError     string
	Unknown       bool
}

func newOrigin(p *page) error {
	k := kindNamed(p.value("kind"))
	v := &originView{Kind: k, Kinds: originKinds, Write: true, form: newForm(p, &topologyv1.Origin{})}
	v.Origin = v.message.Interface().(*topologyv1.Origin)
	if k != nil {
		setKind(v.message, k)
	}
	return v.render(http.StatusOK)
}

// setKind makes an origin one of a kind, with what it has if it is one.
func setKind(m protoreflect.Message, k *originKind) {
	f := m.Descriptor().Fields().ByJSONName(k.Name)
	if !m.Has(f) {
		m.Set(f, m.NewField(f))
	}
}

func showOrigin(p *page) error {
	v, err := p.storedOrigin()
	if err != nil {
		return err
	}
	return v.render(http.StatusOK)
}

func (p *page) storedOrigin() (*originView, error) {
	resp, err := p.origins().GetOrigin(p.ctx,
		&adminv1.GetOriginRequest{Name: topology.OriginName(p.account, p.r.PathValue("id"))})
	if err != nil {
		return nil, err
	}
	o := proto.CloneOf(resp.GetOrigin())
	v := &originView{form: newForm(p, o), Origin: o, Write: p.may(adminv1.Rule_WRITE)}
	v.New, v.stored = false, resp.GetOrigin().ProtoReflect()
	if f := kindField(v.stored); f != nil {
		v.Kind = kindNamed(f.JSONName())
	}
	return v, nil
}

// headerRows are the request headers as the form shows them, with a row to add one.
func (v *originView) headerRows() (rows []header) {
	for _, h := range v.Origin.GetRequestHeaders() {
		name := strings.ToLower(h.GetName())
		secret := v.hasSecret("requestHeaders["+name+"].secretValue") || h.GetSecretValue() != ""
		rows = append(rows, header{h.GetName(), h.GetValue(), secret})
	}
	return append(rows, header{})
}

func (v *originView) render(code int) error {
	p := v.page
	out := view{Nav: "origins", Up: p.at("origins"), UpText: "Origins", Data: v}
	if v.Kind != nil {
		v.Groups = v.Kind.groups()
		v.Headers = v.headerRows()
		settings := proto.CloneOf(v.Origin).ProtoReflect()
		prune(settings)
		for _, name := range names(v.Groups) {
			if owner, f := lookup(settings, name); owner.Has(f) || v.errors[name] != "" {
				v.Advanced = true
			}
		}
		v.Advanced = v.Advanced || len(v.Origin.GetRequestHeaders()) > 0
	}
	switch {
	case v.New && v.Kind == nil:
		out.Title, out.Lead = "New origin", "What kind of storage is it?"
		out.CLI = []string{"edgewalk explain-field origin"}
	case v.New:
		out.Title = "New origin: " + v.Kind.Title
		out.CLI = []string{
			"edgewalk create origin " + shell(v.Origin.GetId(), "ID") + " -A " + p.account + originFlags(v.message,
				v.Kind),
		}
	default:
		id := p.r.PathValue("id")
		out.Title, out.Lead = "Origin "+id, kindTitle(v.Origin)+" · "+topology.Location(v.Origin)
		out.CLI = []string{
			"edgewalk describe origin " + id + " -A " + p.account, "edgewalk test-origin " + id + " -A " + p.account,
		}
		var err error
		if v.Users, err = p.usersOf(p.ctx, id); err != nil {
			return err
		}
		v.Regions = p.regions(v.stored.Interface().(*topologyv1.Origin))
	}
	return p.showAs(code, "origin.html", out)
}

// originFlags are the --set of the command that makes the same origin. Secrets are named, without
// their values.
func originFlags(m protoreflect.Message, k *originKind) string {
	var b strings.Builder
	for _, name := range k.all() {
		if _, f := lookup(m, name); isSecret(f) {
			if slices.Contains(k.Main, name) {
				b.WriteString(" --set " + name + "=…")
			}
		} else if value := flagValue(m, name); value != "" {
			b.WriteString(" --set " + name + "=" + shell(value, ""))
		}
	}
	return b.String()
}

// regions returns the origin's health in each region. A caller who may see edges gets what each
// edge reports, others the sum. An edge that never asked the origin reports nothing, so the origin
// counts as well only where an edge did ask it.
func (p *page) regions(o *topologyv1.Origin) []regionHealth {
	h := o.GetHealth()
	all := regionHealth{
		Region: "all regions", Edges: int(h.GetEdgesWell() + h.GetEdgesUnwell()), Unwell: int(h.GetEdgesUnwell()),
		Open: int(h.GetEdgesBreakerOpen()), LastError: h.GetLastError(), Unknown: h.GetEdgesUnwell() == 0,
	}
	if !p.may(adminv1.Rule_FLEET_READ) {
		return []regionHealth{all}
	}
	edges, err := p.edges(p.ctx)
	if err != nil {
		return []regionHealth{all}
	}
	by := make(map[string]*regionHealth)
	var order []string
	for _, e := range edges {
		if !e.GetConnected() {
			continue
		}
		r := by[e.GetRegion()]
		if r == nil {
			r = &regionHealth{Region: e.GetRegion(), Unknown: true}
			by[e.GetRegion()] = r
			order = append(order, e.GetRegion())
		}
		r.Edges++
		for _, s := range e.GetOrigins() {
			if s.GetAccount() != p.account || s.GetOrigin() != o.GetId() {
				continue
			}
			r.Unknown = false
			r.Unwell++
			r.LastError = s.GetLastError()
			if s.GetBreakerOpen() {
				r.Open++
			}
		}
	}
	slices.Sort(order)
	var out []regionHealth
	for _, name := range order {
		out = append(out, *by[name])
	}
	if out == nil {
		out = []regionHealth{all}
	}
	return out
}

// edges are all of the fleet, up to some thousands.
func (p *page) edges(ctx context.Context) (all []*topologyv1.Edge, err error) {
	for token := ""; ; {
		resp, err := adminv1.NewFleetServiceClient(p.d.cfg.Conn).ListEdges(ctx,
			&adminv1.ListEdgesRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		all = append(all, resp.GetEdges()...)
		if token = resp.GetNextPageToken(); token == "" || len(all) >= 5000 {
			return all, nil
		}
	}
}

// readOrigin is the origin as the form has it.
func (p *page) readOrigin() (v *originView, err error) {
	if p.r.PathValue("id") != "" {
		if v, err = p.storedOrigin(); err != nil {
			return nil, err
		}
		v.Origin.Etag = p.value("etag")
	} else {
		o := &topologyv1.Origin{Id: strings.TrimSpace(p.value("id"))}
		v = &originView{
			form: newForm(p, o), Origin: o, Write: true, Kind: kindNamed(p.value("kind")), Kinds: originKinds,
		}
	}
	if v.Kind == nil {
		return v, nil
	}
	setKind(v.message, v.Kind)
	v.unseal()
	v.read(v.Kind.all()...)
	v.readHeaders()
	prune(v.message)
	setKind(v.message, v.Kind)
	v.TestPath = strings.TrimSpace(p.value("test_path"))
	return v, nil
}

// readHeaders takes the rows of the request headers. Each has a name, and a value or a secret one.
func (v *originView) readHeaders() {
	f := v.page.r.Form
	v.Origin.RequestHeaders = nil
	for i, name := range f["header_name"] {
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		h := &topologyv1.RequestHeader{Name: name}
		if i < len(f["header_value"]) {
			h.Value = strings.TrimSpace(f["header_value"][i])
		}
		key := "requestHeaders[" + strings.ToLower(name) + "].secretValue"
		if i < len(f["header_secret"]) && f["header_secret"][i] != "" {
			v.secret[key] = f["header_secret"][i]
		}
		h.SecretValue = v.secret[key]
		v.Origin.RequestHeaders = append(v.Origin.RequestHeaders, h)
	}
}

// changeOrigin answers every button of the form: test and save.
func changeOrigin(p *page) error {
	v, err := p.readOrigin()
	if err != nil {
		return err
	}
	if v.Kind == nil || v.invalid() {
		return v.render(http.StatusUnprocessableEntity)
	}
	if p.value("do") == "test" {
		return v.test()
	}
	revision, warnings, err := v.write()
	if err != nil {
		if v.take(err) {
			return v.render(httpStatusOf(err))
		}
		return err
	}
	word := "saved"
	if v.New {
		word = "created"
	}
	return p.goTo(p.at("origins", v.Origin.GetId()), revision, word, warnings)
}

// test has an edge ask the origin as the form has it.
func (v *originView) test() error {
	p := v.page
	for name, gone := range v.remove {
		if gone && v.stored != nil { // the admin API tests with what is stored wherever a secret is empty
			v.TestProblem = "A test would still use the stored " + labelOf(name) +
				". Save that it is removed, then test."
			return v.render(http.StatusOK)
		}
	}
	o := proto.CloneOf(v.Origin)
	name := topology.OriginName(p.account, cmp.Or(v.Origin.GetId(), p.r.PathValue("id"), "test"))
	o.Etag = ""
	resp, err := p.origins().TestOrigin(p.ctx, &adminv1.TestOriginRequest{Name: name, Origin: o, Path: v.TestPath})
	if err != nil {
		if v.form.take(err) {
			v.TestProblem = v.Problem
			v.Problem = ""
			return v.render(http.StatusOK)
		}
		return err
	}
	v.Test = resp.GetTest()
	return v.render(http.StatusOK)
}

func (v *originView) write() (revision int64, warnings []string, err error) {
	p := v.page
	if v.New {
		o := proto.CloneOf(v.Origin)
		o.Id = ""
		resp, err := p.origins().CreateOrigin(p.ctx, &adminv1.CreateOriginRequest{
			Parent: p.parent(), OriginId: v.Origin.GetId(), Origin: o, RequestId: v.RequestID(),
		})
		return resp.GetRevision(), resp.GetWarnings(), err
	}
	mask := append(v.mask(v.Kind.all()...), "request_headers")
	resp, err := p.origins().UpdateOrigin(p.ctx, &adminv1.UpdateOriginRequest{
		Origin: v.Origin, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, RequestId: v.RequestID(),
	})
	return resp.GetRevision(), resp.GetWarnings(), err
}

func confirmOrigin(p *page) error {
	id := p.r.PathValue("id")
	name := topology.OriginName(p.account, id)
	resp, err := p.origins().GetOrigin(p.ctx, &adminv1.GetOriginRequest{Name: name})
	if err != nil {
		return err
	}
	users, err := p.usersOf(p.ctx, id)
	if err != nil {
		return err
	}
	c := confirmation{
		What: "origin " + id, Action: p.at("origins", id, "delete"), Back: p.at("origins", id),
		Etag:        resp.GetOrigin().GetEtag(),
		Consequence: "Its secrets go with it. Files that edges stored from it are not served any more.",
		RequestID:   newRequestID(),
	}
	for _, user := range users {
		c.Users = append(c.Users, link{user, p.at("url-endpoints", user)})
	}
	_, err = p.origins().DeleteOrigin(p.ctx, &adminv1.DeleteOriginRequest{Name: name, ValidateOnly: true})
	c.Blocked = refusal(err)
	return p.show("confirm.html", view{
		Title: "Delete " + c.What + "?", Nav: "origins", Up: c.Back, UpText: "Origin " + id,
		CLI: []string{"edgewalk delete origin " + id + " -A " + p.account}, Data: c,
	})
}

func deleteOrigin(p *page) error {
	resp, err := p.origins().DeleteOrigin(p.ctx, &adminv1.DeleteOriginRequest{
		Name: topology.OriginName(p.account, p.r.PathValue("id")), Etag: p.value("etag"),
		RequestId: p.value("request_id"),
	})
	if err != nil {
		return err
	}
	return p.goTo(p.at("origins"), resp.GetRevision(), "deleted", nil)
}

// refusal is why something cannot be done; empty if it can.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	return status.Convert(err).Message()
}
