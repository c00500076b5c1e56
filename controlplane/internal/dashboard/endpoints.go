package dashboard

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/manifest"
	"github.com/edgewalk/edgewalk/internal/shellword"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// pageSize is how many rows a page of a list has.
const pageSize = 50

// endpointFields are the settings of an endpoint beside identifier, description and origins, in
// groups.
var endpointFields = []group{
	{
		"Fallback",
		[]string{
			"defaultImage.status", "defaultImage.for", "defaultImage.onFailure", "notFoundPage", "onInconclusive",
			"walkDeadline",
		},
	},
	{"Caching", []string{
		"cache.mode", "cache.defaultTtl", "cache.browserTtl", "cache.negativeTtl", "cache.staleWhileRevalidate",
		"cache.staleIfError", "cache.query.mode", "cache.query.names", "cache.honorClientNoCache",
	}},
	{"Replies", []string{
		"compress", "cors.allowOrigins", "responseHeaders.set", "responseHeaders.remove", "walkHeader",
	}},
}

// group is fields that belong together.
type group struct {
	Title string
	Names []string
}

func names(groups []group) (all []string) {
	for _, g := range groups {
		all = append(all, g.Names...)
	}
	return all
}

type endpointsView struct {
	Endpoints []*topologyv1.UrlEndpoint
	Next      string
	First     bool
	Write     bool
}

func (p *page) endpoints() adminv1.UrlEndpointServiceClient {
	return adminv1.NewUrlEndpointServiceClient(p.d.cfg.Conn)
}

func showEndpoints(p *page) error {
	token := p.value("page")
	resp, err := p.endpoints().ListUrlEndpoints(p.ctx,
		&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: pageSize, PageToken: token})
	if err != nil {
		return err
	}
	return p.show("endpoints.html", view{
		Title: "URL-endpoints", Nav: "url-endpoints",
		Lead: "Entrances to the account’s files. Each asks the Media Library first, then its origins in order.",
		CLI:  []string{"edgewalk get endpoints -A " + p.account},
		Data: endpointsView{resp.GetUrlEndpoints(), resp.GetNextPageToken(), token == "", p.may(adminv1.Rule_WRITE)},
	})
}

// endpointView is the form of an endpoint.
type endpointView struct {
	*form
	Endpoint  *topologyv1.UrlEndpoint
	Groups    []group
	Chosen    []*topologyv1.Origin // in order
	Others    []*topologyv1.Origin // that can be added
	More      bool                 // there are more origins than Others has
	Images    []string             // of the Media Library, to choose a default image from
	Base      string               // of the URL, before the identifier
	Advanced  bool                 // some of Groups is not as by default
	Write     bool
	Review    []*adminv1.FieldChange
	Warnings  []string
	Reviewing bool
}

// maxChoices is how many origins and pictures a form offers. Others can be typed.
const maxChoices = 500

func (p *page) endpointForm(e *topologyv1.UrlEndpoint) *endpointView {
	return &endpointView{form: newForm(p, e), Endpoint: e, Groups: endpointFields, Write: p.may(adminv1.Rule_WRITE)}
}

// complete finds out what the form shows besides the endpoint.
func (v *endpointView) complete() error {
	p := v.page
	origins, err := p.origins().ListOrigins(p.ctx,
		&adminv1.ListOriginsRequest{Parent: p.parent(), PageSize: maxChoices})
	if err != nil {
		return err
	}
	v.More = origins.GetNextPageToken() != ""
	byID := make(map[string]*topologyv1.Origin, len(origins.GetOrigins()))
	for _, o := range origins.GetOrigins() {
		byID[o.GetId()] = o
		if !slices.Contains(v.Endpoint.GetOrigins(), o.GetId()) {
			v.Others = append(v.Others, o)
		}
	}
	for _, id := range v.Endpoint.GetOrigins() {
		o := byID[id]
		if o == nil {
			o = &topologyv1.Origin{Id: id}
		}
		v.Chosen = append(v.Chosen, o)
	}
	media, err := adminv1.NewMediaServiceClient(p.d.cfg.Conn).ListMediaFiles(p.ctx,
		&adminv1.ListMediaFilesRequest{Parent: p.parent(), PageSize: maxChoices})
	if err != nil {
		return err
	}
	for _, f := range media.GetMediaFiles() {
		if strings.HasPrefix(f.GetContentType(), "image/") {
			v.Images = append(v.Images, f.GetId())
		}
	}
	def, err := p.endpoints().GetUrlEndpoint(p.ctx,
		&adminv1.GetUrlEndpointRequest{Name: topology.EndpointName(p.account, topology.DefaultEndpointID)})
	if err != nil {
		return err
	}
	if urls := def.GetUrlEndpoint().GetUrls(); len(urls) > 0 {
		v.Base = urls[0]
	}
	settings := proto.CloneOf(v.Endpoint)
	if settings.GetDefaultImage() != nil {
		settings.DefaultImage.Path = ""
	}
	prune(settings.ProtoReflect())
	for _, g := range v.Groups {
		for _, name := range g.Names {
			if owner, f := lookup(settings.ProtoReflect(), name); owner.Has(f) || v.errors[name] != "" {
				v.Advanced = true
			}
		}
	}
	return nil
}

func newEndpoint(p *page) error {
	return p.endpointForm(&topologyv1.UrlEndpoint{}).render(http.StatusOK)
}

func showEndpoint(p *page) error {
	resp, err := p.endpoints().GetUrlEndpoint(p.ctx,
		&adminv1.GetUrlEndpointRequest{Name: topology.EndpointName(p.account, p.r.PathValue("id"))})
	if err != nil {
		return err
	}
	v := p.endpointForm(resp.GetUrlEndpoint())
	v.New, v.stored = false, resp.GetUrlEndpoint().ProtoReflect()
	return v.render(http.StatusOK)
}

func (v *endpointView) render(code int) error {
	if err := v.complete(); err != nil {
		return err
	}
	p := v.page
	out := view{
		Title: "New URL-endpoint", Nav: "url-endpoints", Up: p.at("url-endpoints"), UpText: "URL-endpoints", Data: v,
	}
	id := p.r.PathValue("id")
	if v.New {
		id = v.Endpoint.GetId()
		out.CLI = []string{"edgewalk create endpoint " + shell(id, "ID") + " -A " + p.account + v.flags()}
	} else {
		out.Title = "URL-endpoint " + id
		out.CLI = []string{
			"edgewalk describe endpoint " + id + " -A " + p.account,
			"edgewalk edit endpoint " + id + " -A " + p.account,
		}
		if v.Reviewing {
			out.CLI = []string{"edgewalk update endpoint " + id + " -A " + p.account + v.flags()}
		}
	}
	if v.Reviewing {
		out.Title = "Review: " + map[bool]string{true: "new URL-endpoint ", false: "URL-endpoint "}[v.New] + id
		return p.showAs(code, "endpoint-review.html", out)
	}
	return p.showAs(code, "endpoint.html", out)
}

// flags are the --set of the command that does the same.
func (v *endpointView) flags() string {
	var b strings.Builder
	told := make(map[string]bool)
	for _, c := range v.Review {
		path, after := c.GetPath(), c.GetAfter()
		if name, _, of := strings.Cut(path, "["); of { // an entry of a map, which is given whole
			path, after = name, flagValue(v.message, name)
		}
		whole, _, _ := strings.Cut(path, ".")
		if _, f := lookup(v.message, whole); !v.message.Has(f) { // nothing is left of it
			path, after = whole, ""
		}
		if told[path] {
			continue
		}
		told[path] = true
		switch {
		case path == "id", path == "name":
		case after == "":
			b.WriteString(" --unset " + path)
		default:
			b.WriteString(" --set " + path + "=" + shellJSON(after))
		}
	}
	return b.String()
}

// readEndpoint is the endpoint as the form has it.
func (p *page) readEndpoint() (*endpointView, error) {
	id := p.r.PathValue("id")
	e := &topologyv1.UrlEndpoint{}
	var stored *topologyv1.UrlEndpoint
	if id != "" {
		resp, err := p.endpoints().GetUrlEndpoint(p.ctx,
			&adminv1.GetUrlEndpointRequest{Name: topology.EndpointName(p.account, id)})
		if err != nil {
			return nil, err
		}
		stored = resp.GetUrlEndpoint()
		e = proto.CloneOf(stored)
		e.Etag = p.value("etag")
	} else {
		e.Id = strings.TrimSpace(p.value("id"))
	}
	v := p.endpointForm(e)
	if stored != nil {
		v.New, v.stored = false, stored.ProtoReflect()
	}
	e.Description = strings.TrimSpace(p.value("description"))
	e.Origins = nil
	for _, o := range p.r.Form["origins"] {
		if o = strings.TrimSpace(o); o != "" && !slices.Contains(e.Origins, o) {
			e.Origins = append(e.Origins, o)
		}
	}
	v.read(names(endpointFields)...)
	if path := strings.TrimPrefix(strings.TrimSpace(p.value("defaultImage.path")), "/"); path != "" {
		if e.DefaultImage == nil {
			e.DefaultImage = &topologyv1.DefaultImage{}
		}
		e.DefaultImage.Path = path
	} else {
		e.DefaultImage = nil
	}
	prune(e.ProtoReflect())
	return v, nil
}

// rearrange does what a button of the order does: `up ID`, `down ID`, `remove ID`, or `add` with
// the origin to add. It reports whether one was pressed.
func rearrange(e *topologyv1.UrlEndpoint, action, added string) bool {
	verb, id, _ := strings.Cut(action, " ")
	at := slices.Index(e.Origins, id)
	switch {
	case verb == "add":
		if added = strings.TrimSpace(added); added != "" && !slices.Contains(e.Origins, added) {
			e.Origins = append(e.Origins, added)
		}
	case verb == "up" && at > 0:
		e.Origins[at-1], e.Origins[at] = e.Origins[at], e.Origins[at-1]
	case verb == "down" && at >= 0 && at+1 < len(e.Origins):
		e.Origins[at+1], e.Origins[at] = e.Origins[at], e.Origins[at+1]
	case verb == "remove" && at >= 0:
		e.Origins = slices.Delete(e.Origins, at, at+1)
	case verb == "up", verb == "down", verb == "remove":
	default:
		return false
	}
	return true
}

// changeEndpoint answers every button of the form: those of the order, review, back and save.
func changeEndpoint(p *page) error {
	v, err := p.readEndpoint()
	if err != nil {
		return err
	}
	action := p.value("do")
	if rearrange(v.Endpoint, action, p.value("add")) || action == "edit" {
		v.errors = map[string]string{}
		return v.render(http.StatusOK)
	}
	if v.invalid() {
		return v.render(http.StatusUnprocessableEntity)
	}
	save := action == "save"
	after, warnings, revision, err := v.write(!save)
	if err != nil {
		if v.take(err) {
			return v.render(httpStatusOf(err))
		}
		return err
	}
	if save {
		word := "saved"
		if v.New {
			word = "created"
		}
		return p.goTo(p.at("url-endpoints", after.GetId()), revision, word, warnings)
	}
	v.Reviewing, v.Warnings = true, warnings
	before := &topologyv1.UrlEndpoint{}
	if v.stored != nil {
		before = v.stored.Interface().(*topologyv1.UrlEndpoint)
	}
	v.Review = manifest.Diff(input(before), input(after))
	return v.render(http.StatusOK)
}

// input is a copy of a resource with what an admin sets alone.
func input[M proto.Message](m M) M {
	m = proto.CloneOf(m)
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); topology.OutputOnly(f.Name()) || f.Name() == "name" {
			r.Clear(f)
		}
	}
	return m
}

// write writes the endpoint, or only checks it.
func (v *endpointView) write(check bool) (after *topologyv1.UrlEndpoint, warnings []string, revision int64, err error) {
	p, id := v.page, v.RequestID()
	if check {
		id = ""
	}
	if v.New {
		e := proto.CloneOf(v.Endpoint)
		e.Id = ""
		resp, err := p.endpoints().CreateUrlEndpoint(p.ctx, &adminv1.CreateUrlEndpointRequest{
			Parent: p.parent(), UrlEndpointId: v.Endpoint.GetId(), UrlEndpoint: e, ValidateOnly: check, RequestId: id,
		})
		return resp.GetUrlEndpoint(), resp.GetWarnings(), resp.GetRevision(), err
	}
	mask := []string{"description", "origins"}
	for _, name := range names(endpointFields) {
		whole, _, _ := strings.Cut(protoPath(v.message, name), ".")
		if !slices.Contains(mask, whole) {
			mask = append(mask, whole)
		}
	}
	resp, err := p.endpoints().UpdateUrlEndpoint(p.ctx, &adminv1.UpdateUrlEndpointRequest{
		UrlEndpoint: v.Endpoint, UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}, ValidateOnly: check, RequestId: id,
	})
	return resp.GetUrlEndpoint(), resp.GetWarnings(), resp.GetRevision(), err
}

// confirmation is a page that asks before something goes.
type confirmation struct {
	What, Consequence string
	Blocked           string // why it cannot be done; empty if it can
	Users             []link
	Action, Back      string
	Etag, RequestID   string
	Final             bool   // history does not have it
	Verb              string // default: Delete
}

type link struct{ Text, Href string }

func confirmEndpoint(p *page) error {
	id := p.r.PathValue("id")
	name := topology.EndpointName(p.account, id)
	resp, err := p.endpoints().GetUrlEndpoint(p.ctx, &adminv1.GetUrlEndpointRequest{Name: name})
	if err != nil {
		return err
	}
	c := confirmation{
		What: "URL-endpoint " + id, Action: p.at("url-endpoints", id, "delete"), Back: p.at("url-endpoints", id),
		Etag:        resp.GetUrlEndpoint().GetEtag(),
		Consequence: "Its URLs answer 404 from then on, unless the default endpoint has a file there.",
		RequestID:   newRequestID(),
	}
	_, err = p.endpoints().DeleteUrlEndpoint(p.ctx, &adminv1.DeleteUrlEndpointRequest{Name: name, ValidateOnly: true})
	c.Blocked = refusal(err)
	return p.show("confirm.html", view{
		Title: "Delete " + c.What + "?", Nav: "url-endpoints", Up: c.Back, UpText: c.What,
		CLI: []string{"edgewalk delete endpoint " + id + " -A " + p.account}, Data: c,
	})
}

func deleteEndpoint(p *page) error {
	resp, err := p.endpoints().DeleteUrlEndpoint(p.ctx, &adminv1.DeleteUrlEndpointRequest{
		Name: topology.EndpointName(p.account, p.r.PathValue("id")), Etag: p.value("etag"),
		RequestId: p.value("request_id"),
	})
	if err != nil {
		return err
	}
	return p.goTo(p.at("url-endpoints"), resp.GetRevision(), "deleted", nil)
}

// usersOf are the endpoints that ask an origin.
func (p *page) usersOf(ctx context.Context, origin string) (users []string, err error) {
	for token := ""; ; {
		resp, err := p.endpoints().ListUrlEndpoints(ctx,
			&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, fmt.Errorf("list who uses an origin: %w", err)
		}
		for _, e := range resp.GetUrlEndpoints() {
			if slices.Contains(e.GetOrigins(), origin) {
				users = append(users, e.GetId())
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			return users, nil
		}
	}
}

// shellJSON is a JSON value as an argument of a command.
func shellJSON(text string) string {
	if plain, err := strconv.Unquote(text); err == nil {
		text = plain
	}
	return shell(text, "''")
}

// shell is a word of a command, or what stands for one that is not known yet.
func shell(word, empty string) string {
	if word == "" {
		return empty
	}
	return shellword.Quote(word)
}
