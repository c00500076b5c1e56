package adminsvc

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// draft is an account as a write found it and as it shall be. A write changes its tables freely;
// rules are checked, and the edit computed, at the end. Nothing but what the write is about is
// read, so it costs the same in accounts of every size. It belongs to one call of a write's decide.
type draft struct {
	state      *store.State
	id         string // the account's
	sharedHost string
	now        time.Time

	account   table[*topologyv1.Account] // with one entry, of id ""
	origins   table[*topologyv1.Origin]
	secrets   table[*topologyv1.OriginSecrets] // by the origin's id
	endpoints table[*topologyv1.UrlEndpoint]
	domains   table[*topologyv1.CustomDomain]

	// certificates are those that domains are given.
	certificates []store.Certificate
	// newDomain is the state of a domain that the write makes.
	newDomain topologyv1.CustomDomain_State
	// reserved are hosts below which the caller makes no domains.
	reserved []string

	// discarded are records to delete that cannot be read. No table has those, and they do no harm
	// to what else the account holds. A write may put another in the place of one.
	discarded []topology.Key
	// fail turns broken rules into an error; state has what they are about. Nil: violationsError.
	fail func(state *topology.AccountState, found []rules.Violation) error
}

func newDraft(state *store.State, now time.Time) (*draft, error) {
	shared, err := sharedHostOf(state.Settings)
	if err != nil {
		return nil, err
	}
	d := &draft{
		state: state, id: state.Account, sharedHost: shared, now: now, newDomain: topologyv1.CustomDomain_PENDING,
		account:   newTable[*topologyv1.Account](state, topology.KindAccounts),
		origins:   newTable[*topologyv1.Origin](state, topology.KindOrigins),
		secrets:   newTable[*topologyv1.OriginSecrets](state, topology.KindOriginSecrets),
		endpoints: newTable[*topologyv1.UrlEndpoint](state, topology.KindURLEndpoints),
		domains:   newTable[*topologyv1.CustomDomain](state, topology.KindCustomDomains),
	}
	d.secrets.open = openSecrets
	return d, nil
}

// openSecrets makes secrets, as stored, readable for the rules.
func openSecrets(
	state *store.State,
	id string,
	stored topology.Stored[*topologyv1.OriginSecrets],
) topology.Stored[*topologyv1.OriginSecrets] {
	var origin *topologyv1.Origin
	if item, ok := state.Records.Get(topology.KindOrigins, id); ok {
		if of, err := decode[*topologyv1.Origin](item.Record()); err == nil {
			origin = of.Message
		}
	}
	values, err := state.OpenSecrets(id, origin, stored.Message)
	if err != nil {
		return topology.Stored[*topologyv1.OriginSecrets]{}
	}
	stored.Message = &topologyv1.OriginSecrets{Values: values}
	return stored
}

// message is a resource's message.
type message interface {
	proto.Message
	comparable
}

// table is the resources of one kind in a draft. A message that is nil stands for a resource that
// is not there.
type table[M message] struct {
	state *store.State
	kind  topology.Kind
	read  map[string]topology.Stored[M] // as stored; what was asked for
	next  map[string]topology.Stored[M] // what the write changes
	// open makes a message of what a state has stored for it. Nil: it is what is stored.
	open func(state *store.State, id string, stored topology.Stored[M]) topology.Stored[M]
}

func newTable[M message](state *store.State, kind topology.Kind) table[M] {
	return table[M]{
		state: state,
		kind:  kind,
		read:  make(map[string]topology.Stored[M]),
		next:  make(map[string]topology.Stored[M]),
	}
}

// of is a resource of a state. One that cannot be read is not there.
func (t *table[M]) of(state *store.State, id string) (stored topology.Stored[M]) {
	item, ok := state.Records.Get(t.kind, id)
	if !ok {
		return stored
	}
	stored, err := decode[M](item.Record())
	if err == nil && t.open != nil {
		stored = t.open(state, id, stored)
	}
	return stored
}

// before is a resource as the write found it. One that cannot be read is not there.
func (t *table[M]) before(id string) topology.Stored[M] {
	if stored, ok := t.read[id]; ok {
		return stored
	}
	stored := t.of(t.state, id)
	t.read[id] = stored
	return stored
}

// after is a resource as it shall be.
func (t *table[M]) after(id string) topology.Stored[M] {
	if stored, ok := t.next[id]; ok {
		return stored
	}
	return t.before(id)
}

func (t *table[M]) at(id string, after bool) topology.Stored[M] {
	if after {
		return t.after(id)
	}
	return t.before(id)
}

// fill adds those of some resources that are there.
func (t *table[M]) fill(to map[string]topology.Stored[M], ids map[string]bool, after bool) {
	for id := range ids {
		if stored := t.at(id, after); there(stored) {
			to[id] = stored
		}
	}
}

func (t *table[M]) existed(id string) bool { return there(t.before(id)) }

func (t *table[M]) put(id string, stored topology.Stored[M]) { t.next[id] = stored }

func (t *table[M]) remove(id string) { t.next[id] = topology.Stored[M]{} }

// there reports whether a resource is there.
func there[M message](stored topology.Stored[M]) bool {
	var none M
	return stored.Message != none
}

// removed are the ids of what was there and shall not be, sorted.
func (t *table[M]) removed() []string {
	var ids []string
	for id, stored := range t.next {
		if !there(stored) && t.existed(id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// all yields every id that the write found, in order, also of what cannot be read.
func (t *table[M]) all(yield func(string) bool) {
	for item := range t.state.Records.All(t.kind, "", "") {
		if !yield(item.Key().ID) {
			return
		}
	}
}

// counts are how many resources there were and will be. What cannot be read counts.
func (t *table[M]) counts() (before, after int) {
	before = t.state.Records.Count(t.kind)
	after = before
	for id, stored := range t.next {
		_, had := t.state.Records.Get(t.kind, id)
		switch {
		case there(stored) && !had:
			after++
		case !there(stored) && had:
			after--
		}
	}
	return before, after
}

// written makes the table what is stored once the draft's edit was written at a revision.
func (t *table[M]) written(revision int64) {
	for id, stored := range t.next {
		if there(stored) && stored.Message != t.before(id).Message {
			stored.CreateRevision, stored.ModRevision = cmp.Or(stored.CreateRevision, revision), revision
			t.next[id] = stored
		}
	}
}

func (t *table[M]) changeTo(next *store.State) {
	for id := range t.all {
		t.remove(id)
	}
	for item := range next.Records.All(t.kind, "", "") {
		if stored := t.of(next, item.Key().ID); there(stored) {
			t.put(item.Key().ID, stored)
		}
	}
}

// collect adds to an edit what changes, in the order of ids.
func (t *table[M]) collect(e *store.Edit) {
	for _, id := range slices.Sorted(maps.Keys(t.next)) {
		stored, was := t.next[id], t.before(id)
		key := topology.Key{Kind: t.kind, Account: t.state.Account, ID: id}
		switch {
		case !there(stored) && there(was):
			e.Deletes = append(e.Deletes, key)
		case there(stored) && stored.Message != was.Message:
			e.Puts = append(e.Puts, store.Put{Key: key, Message: stored.Message})
		}
	}
}

// brokenRecord says that what etcd holds for a resource is not what edgewalk writes there.
func brokenRecord(key topology.Key, cause error) *failure {
	f := fail(
		kindBrokenRecord,
		"what etcd holds as %s cannot be read, since it is damaged or was not written by edgewalk: delete it, or apply it whole",
		key.Name(),
	)
	f.resource = key.Name()
	f.cause = cause
	return f
}

// broken returns an error if there is a record that cannot be read.
func (d *draft) broken(key topology.Key) error {
	item, ok := d.state.Records.Get(key.Kind, key.ID)
	if !ok {
		return nil
	}
	if _, err := item.Record().Decode(); err != nil {
		return brokenRecord(key, err)
	}
	if key.Kind == topology.KindOriginSecrets && !d.secrets.existed(key.ID) {
		return brokenRecord(key, seal.ErrForged)
	}
	return nil
}

// discard removes a record that cannot be read, and reports whether there is one.
func (d *draft) discard(key topology.Key) bool {
	if d.broken(key) == nil {
		return false
	}
	d.discarded = append(d.discarded, key)
	return true
}

// mustExist returns an error unless the account exists and takes writes.
func (d *draft) mustExist() error {
	switch a := d.account.before("").Message; {
	case a == nil:
		if err := d.broken(accountKey(d.id)); err != nil {
			return err
		}
		return notFound(topology.AccountName(d.id))
	case a.GetState() == topologyv1.Account_DELETING:
		return deleting(d.id)
	}
	return nil
}

func deleting(account string) *failure {
	f := fail(kindDeleting, "%s is being deleted and takes no writes", topology.AccountName(account))
	f.resource = topology.AccountName(account)
	return f
}

// keep makes next the successor of stored: what is never stored goes, and create_time stays. A
// message equal to the stored one leaves the stored one.
func keep[M proto.Message](stored topology.Stored[M], next M, now time.Time) topology.Stored[M] {
	rules.Strip(next)
	r := next.ProtoReflect()
	at := protoreflect.ValueOfMessage(timestamppb.New(now).ProtoReflect())
	created, updated := r.Descriptor().Fields().ByName("create_time"), r.Descriptor().Fields().ByName("update_time")
	exists := stored.Message.ProtoReflect().IsValid()
	r.Clear(created)
	r.Clear(updated)
	if exists {
		was := stored.Message.ProtoReflect()
		for _, field := range []protoreflect.FieldDescriptor{created, updated} {
			if was.Has(field) { // a record that others wrote may lack it
				r.Set(field, was.Get(field))
			}
		}
		if proto.Equal(stored.Message, next) {
			return stored
		}
		r.Set(updated, at)
	} else {
		r.Set(created, at)
		r.Set(updated, at)
	}
	return topology.Stored[M]{Message: next, CreateRevision: stored.CreateRevision, ModRevision: stored.ModRevision}
}

// written makes the draft what is stored once its edit was written at a revision.
func (d *draft) written(revision int64) {
	d.account.written(revision)
	d.origins.written(revision)
	d.secrets.written(revision)
	d.endpoints.written(revision)
	d.domains.written(revision)
}

// changeTo makes the draft lead to another state of the account.
func (d *draft) changeTo(next *store.State) {
	d.account.changeTo(next)
	d.origins.changeTo(next)
	d.secrets.changeTo(next)
	d.endpoints.changeTo(next)
	d.domains.changeTo(next)
}

func (d *draft) putAccount(a *topologyv1.Account) {
	stored := d.account.before("")
	a.State = topologyv1.Account_ACTIVE
	if stored.Message != nil {
		a.State = stored.Message.GetState()
	}
	d.account.put("", keep(stored, a, d.now))
}

// putOrigin stores an origin and its secrets. cleared reports which secrets the caller wants
// removed.
func (d *draft) putOrigin(id string, o *topologyv1.Origin, cleared func(path string) bool) error {
	name := topology.OriginName(d.id, id)
	if found := rules.Normalize(d.id, name, o); len(found) > 0 {
		return malformed(d.id, found, "")
	}
	public, given := rules.SplitOrigin(o)
	stored := d.origins.before(id)
	was := d.secrets.before(id)
	if err := d.lostSecrets(id, public, given); err != nil {
		return err
	}
	secrets, required := rules.MergeSecrets(stored.Message, was.Message.GetValues(), public, given, cleared)
	if len(required) > 0 {
		return secretRequired(name, required)
	}
	next := keep(stored, public, d.now)
	switch {
	case len(secrets) == 0:
		d.secrets.remove(id)
	case !maps.Equal(secrets, was.Message.GetValues()):
		d.secrets.put(id, topology.Stored[*topologyv1.OriginSecrets]{
			Message: &topologyv1.OriginSecrets{
				Values: secrets,
			}, CreateRevision: was.CreateRevision, ModRevision: was.ModRevision,
		})
		// The origin's etag and update_time speak for its secrets too.
		if next.Message == stored.Message {
			next.Message = proto.CloneOf(stored.Message)
			next.Message.UpdateTime = timestamppb.New(d.now)
		}
	}
	d.origins.put(id, next)
	return nil
}

// lostSecrets discards secrets of an origin that cannot be read, and returns an error unless they
// are given again.
func (d *draft) lostSecrets(id string, public *topologyv1.Origin, given map[string]string) error {
	if !d.discard(secretsKey(originKey(d.id, id))) {
		return nil
	}
	paths := rules.SecretPaths(public)
	if public.GetAzureBlob() != nil { // one of the two will do
		paths = slices.DeleteFunc(paths, func(string) bool { return len(given) > 0 })
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return given[path] != "" })
	if len(paths) == 0 {
		return nil
	}
	return mustGive(topology.OriginName(d.id, id), "what is stored of them cannot be read", paths)
}

func secretRequired(name string, paths []string) *failure {
	return mustGive(name, "the target changed", paths)
}

func mustGive(name, because string, paths []string) *failure {
	f := &failure{kind: kindSecretRequired, resource: name}
	var typed []string
	for _, path := range paths {
		typed = append(typed, fieldpath.JSON(path))
		f.fields = append(f.fields, fieldFault{path, "must be given again, because " + because})
	}
	f.text = fmt.Sprintf("%s: %s, so its secrets must be given again: %s", name, because, strings.Join(typed, ", "))
	return f
}

func (d *draft) deleteOrigin(id string) {
	d.origins.remove(id)
	d.secrets.remove(id)
}

func (d *draft) putEndpoint(id string, e *topologyv1.UrlEndpoint) error {
	if found := rules.Normalize(d.id, topology.EndpointName(d.id, id), e); len(found) > 0 {
		return malformed(d.id, found, "")
	}
	d.endpoints.put(id, keep(d.endpoints.before(id), e, d.now))
	return nil
}

func (d *draft) putDomain(id string, c *topologyv1.CustomDomain) error {
	if found := rules.Normalize(d.id, topology.DomainName(d.id, id), c); len(found) > 0 {
		return malformed(d.id, found, "")
	}
	stored := d.domains.before(id)
	c.State, c.Routing = d.newDomain, stored.Message.GetRouting() // as the checks of domains wrote it
	if stored.Message != nil {
		c.State = stored.Message.GetState()
	}
	d.domains.put(id, keep(stored, c, d.now))
	return nil
}

// joinDefault appends the account's first origin to its default endpoint while that has none.
func (d *draft) joinDefault(origin string) {
	stored := d.endpoints.after(topology.DefaultEndpointID)
	if before, _ := d.origins.counts(); !there(stored) || before > 0 || len(stored.Message.GetOrigins()) > 0 {
		return
	}
	e := proto.CloneOf(stored.Message)
	e.Origins = []string{origin}
	d.endpoints.put(topology.DefaultEndpointID, keep(d.endpoints.before(topology.DefaultEndpointID), e, d.now))
}

// edit is what leads from what the write found to what shall be. It checks the rules first;
// resource is the one that the caller wrote, whose faults are named by field, or empty when there
// are several.
func (d *draft) edit(resource string) (*store.Edit, error) {
	if err := d.quota(); err != nil {
		return nil, err
	}
	found, next := d.faults()
	switch {
	case len(found) == 0:
		return d.changes(), nil
	case d.fail != nil:
		return nil, d.fail(next, found)
	}
	return nil, violationsError(next, found, resource)
}

// faults are the broken rules that the write answers for, and the account as it shall be as far as
// they are about it. What was broken before, in what the write leaves alone, is no fault of it.
func (d *draft) faults() ([]rules.Violation, *topology.AccountState) {
	p := d.concerned()
	next := d.part(p, true)
	found := append(rules.Check(next), d.reservedFaults()...)
	if len(found) == 0 {
		return nil, next
	}
	old := make(map[rules.Violation]bool)
	for _, v := range rules.Check(d.part(p, false)) {
		old[v] = true
	}
	for _, put := range d.changes().Puts {
		maps.DeleteFunc(old, func(v rules.Violation, _ bool) bool { return v.Resource == put.Key.Name() })
	}
	return slices.DeleteFunc(found, func(v rules.Violation) bool { return old[v] }), next
}

// part is some of an account's resources, by their ids.
type part struct{ origins, endpoints, domains map[string]bool }

// concerned is what the rules have to look at: what the write changes, what that refers to, and
// what refers to what it removes.
func (d *draft) concerned() part {
	p := part{keysOf(d.origins.next), keysOf(d.endpoints.next), keysOf(d.domains.next)}
	for id := range d.secrets.next {
		p.origins[id] = true
	}
	for _, id := range d.origins.removed() {
		for user := range d.state.Records.Users(topology.KindOrigins, id) {
			p.endpoints[user] = true
		}
	}
	for _, id := range d.endpoints.removed() {
		for user := range d.state.Records.Users(topology.KindURLEndpoints, id) {
			p.domains[user] = true
		}
	}
	return d.withReferences(p)
}

// withReferences adds the endpoints that domains of a part lead to, the default endpoint, and the
// origins that endpoints list.
func (d *draft) withReferences(p part) part {
	p.endpoints[topology.DefaultEndpointID] = true
	for id := range p.domains {
		p.endpoints[d.domains.before(id).Message.GetUrlEndpoint()] = true
		p.endpoints[d.domains.after(id).Message.GetUrlEndpoint()] = true
	}
	for id := range p.endpoints {
		for _, e := range []*topologyv1.UrlEndpoint{d.endpoints.before(id).Message, d.endpoints.after(id).Message} {
			for _, origin := range e.GetOrigins() {
				p.origins[origin] = true
			}
		}
	}
	return p
}

func keysOf[V any](m map[string]V) map[string]bool {
	keys := make(map[string]bool, len(m))
	for key := range m {
		keys[key] = true
	}
	return keys
}

// part is the account with a part of its resources, after or before the write.
func (d *draft) part(p part, after bool) *topology.AccountState {
	s := topology.NewAccountState(d.id, d.sharedHost)
	s.Account = d.account.at("", after)
	d.origins.fill(s.Origins, p.origins, after)
	d.secrets.fill(s.Secrets, p.origins, after)
	d.endpoints.fill(s.Endpoints, p.endpoints, after)
	d.domains.fill(s.Domains, p.domains, after)
	return s
}

// changes is the edit as it stands.
func (d *draft) changes() *store.Edit {
	e := &store.Edit{Deletes: slices.Clone(d.discarded), Certificates: d.certificates}
	d.account.collect(e)
	d.origins.collect(e)
	d.secrets.collect(e)
	d.endpoints.collect(e)
	d.domains.collect(e)
	return e
}

// maxBlockers is how many resources an error names.
const maxBlockers = 10

// violationsError turns broken rules into an error. Where all that is wrong is that siblings are
// missing, the account's state is at fault and not the request. Fields of resource are named as in
// the request that writes it, those of others with their resource's name; without a resource, all
// as they are.
func violationsError(s *topology.AccountState, found []rules.Violation, resource string) *failure {
	f := &failure{kind: kindInvalidField}
	if !slices.ContainsFunc(found, func(v rules.Violation) bool { return !missingReference(s, v) }) {
		f.kind = kindReferenceMissing
	}
	f.text = found[0].Error() + more(len(found)-1)
	for _, v := range found[:min(len(found), maxFaults)] {
		field := v.Field
		switch {
		case resource == "":
		case v.Resource == resource:
			field = strings.TrimSuffix(requestField(resource)+"."+v.Field, ".")
		default:
			field = strings.TrimSuffix(v.Resource+"."+v.Field, ".")
		}
		f.fields = append(f.fields, fieldFault{field, v.Description})
		if len(f.blockers) < maxBlockers {
			f.blockers = append(f.blockers, blocker{v.Resource, v.Description})
		}
	}
	f.resource = found[0].Resource
	return f
}

// malformed is violationsError for what is wrong with a resource whatever else the account holds.
func malformed(account string, found []rules.Violation, resource string) *failure {
	return violationsError(topology.NewAccountState(account, ""), found, resource)
}

// requestField is the field of a request that carries a resource, by the resource's name.
func requestField(name string) string {
	switch typeOf(name) {
	case errorDomain + "/Account":
		return "account"
	case errorDomain + "/Origin":
		return "origin"
	case errorDomain + "/UrlEndpoint":
		return "url_endpoint"
	}
	return "custom_domain"
}

// under names the faults of an error below a field.
func under(field string, err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return err
	}
	for i := range f.fields {
		f.fields[i].field = strings.TrimSuffix(field+"."+f.fields[i].field, ".")
	}
	return f
}

// maxFaults bounds the faults that one error lists. Details travel in a header, and proxies take
// few KiB of those.
const maxFaults = 20

// missingReference reports whether a violation only says that a sibling does not exist.
func missingReference(s *topology.AccountState, v rules.Violation) bool {
	if key, err := topology.ParseName(topology.KindURLEndpoints, v.Resource); err == nil {
		rest, ok := strings.CutPrefix(v.Field, "origins[")
		i, err := strconv.Atoi(strings.TrimSuffix(rest, "]"))
		origins := s.Endpoints[key.ID].Message.GetOrigins()
		if !ok || err != nil || i >= len(origins) || topology.ValidateOriginID(origins[i]) != nil {
			return false
		}
		_, known := s.Origins[origins[i]]
		return !known
	}
	if key, err := topology.ParseName(topology.KindCustomDomains, v.Resource); err == nil && v.Field == "url_endpoint" {
		endpoint := s.Domains[key.ID].Message.GetUrlEndpoint()
		_, known := s.Endpoints[endpoint]
		return endpoint != "" && !known
	}
	return false
}

// inUse returns an error that says which resources stand in the way of removing one, if any do.
func (d *draft) inUse(key topology.Key, userKind topology.Kind) error {
	var users []string
	for id := range d.state.Records.Users(key.Kind, key.ID) {
		if users = append(users, topology.Key{Kind: userKind, Account: d.id, ID: id}.Name()); len(
			users,
		) == maxBlockers {
			break
		}
	}
	if len(users) == 0 {
		return nil
	}
	f := &failure{
		kind:     kindInUse,
		resource: key.Name(),
		text:     fmt.Sprintf("%s is used by %s", key.Name(), strings.Join(users, ", ")),
	}
	if n := d.state.Records.UserCount(key.Kind, key.ID) - len(users); n > 0 {
		f.text += fmt.Sprintf(" and %d more", n)
	}
	for _, user := range users {
		f.blockers = append(f.blockers, blocker{user, "uses " + key.Name()})
	}
	return f
}

func checkEtag(given string, name string, modRevision int64) error {
	if given == "" || given == topology.Etag(modRevision) {
		return nil
	}
	f := fail(kindEtagMismatch, "%s has changed: its etag is %s and not %s", name, topology.Etag(modRevision), given)
	f.resource = name
	f.facts = map[string]string{"etag": topology.Etag(modRevision)}
	return f
}
