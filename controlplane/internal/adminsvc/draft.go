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

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// draft is an account as a write found it and as it shall be. A write changes next freely; rules are checked, and the edit
// computed, at the end. It belongs to one call of a write's decide.
type draft struct {
	state  *store.State
	before *topology.AccountState
	next   *topology.AccountState
	now    time.Time
	// broken holds why records of the account cannot be read. They are neither in before nor in next: to what else the
	// account holds they do no harm. A write may put another in their place, or discard them.
	broken    map[topology.Key]error
	discarded []topology.Key
}

func newDraft(state *store.State, sharedHost string, now time.Time) *draft {
	before := topology.NewAccountState(state.Account, sharedHost)
	d := &draft{state: state, before: before, now: now, broken: make(map[topology.Key]error)}
	for _, record := range state.Records {
		if err := before.Apply(record); err != nil {
			d.broken[record.Key] = err
		}
	}
	d.next = before.Clone()
	return d
}

// brokenRecord says that what etcd holds for a resource is not what edgewalk writes there.
func brokenRecord(key topology.Key, cause error) *failure {
	f := fail(kindBrokenRecord, "what etcd holds as %s cannot be read, since it is damaged or was not written by edgewalk: delete it, or apply it whole", key.Name())
	f.resource = key.Name()
	f.cause = cause
	return f
}

// discard removes a record that cannot be read, and reports whether there is one.
func (d *draft) discard(key topology.Key) bool {
	if d.broken[key] == nil {
		return false
	}
	d.discarded = append(d.discarded, key)
	return true
}

// mustExist returns an error unless the account exists and takes writes.
func (d *draft) mustExist() error {
	switch a := d.before.Account.Message; {
	case a == nil && d.broken[accountKey(d.before.ID)] != nil:
		return brokenRecord(accountKey(d.before.ID), d.broken[accountKey(d.before.ID)])
	case a == nil:
		return notFound(topology.AccountName(d.before.ID))
	case a.GetState() == topologyv1.Account_DELETING:
		return deleting(d.before.ID)
	}
	return nil
}

func deleting(account string) *failure {
	f := fail(kindDeleting, "%s is being deleted and takes no writes", topology.AccountName(account))
	f.resource = topology.AccountName(account)
	return f
}

// keep makes next the successor of stored: what is never stored goes, and create_time stays. A message equal to the stored
// one leaves the stored one.
func keep[M proto.Message](stored topology.Stored[M], next M, now time.Time) topology.Stored[M] {
	topology.Strip(next)
	r := next.ProtoReflect()
	at := protoreflect.ValueOfMessage(timestamppb.New(now).ProtoReflect())
	created, updated := r.Descriptor().Fields().ByName("create_time"), r.Descriptor().Fields().ByName("update_time")
	exists := stored.Message.ProtoReflect().IsValid()
	r.Clear(created)
	r.Clear(updated)
	if exists {
		was := stored.Message.ProtoReflect()
		r.Set(created, was.Get(created))
		r.Set(updated, was.Get(updated))
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
	if a := &d.next.Account; a.Message != d.before.Account.Message {
		a.CreateRevision, a.ModRevision = cmp.Or(a.CreateRevision, revision), revision
	}
	stamp(d.before.Origins, d.next.Origins, revision)
	stamp(d.before.Secrets, d.next.Secrets, revision)
	stamp(d.before.Endpoints, d.next.Endpoints, revision)
	stamp(d.before.Domains, d.next.Domains, revision)
}

func stamp[M interface {
	proto.Message
	comparable
}](before, next map[string]topology.Stored[M], revision int64) {
	for id, stored := range next {
		if stored.Message != before[id].Message {
			stored.CreateRevision, stored.ModRevision = cmp.Or(stored.CreateRevision, revision), revision
			next[id] = stored
		}
	}
}

func (d *draft) putAccount(a *topologyv1.Account) {
	if was := d.before.Account.Message; was != nil {
		a.State = was.GetState()
	} else {
		a.State = topologyv1.Account_ACTIVE
	}
	d.next.Account = keep(d.before.Account, a, d.now)
}

// putOrigin stores an origin and its secrets. cleared tells which secrets the caller wants gone.
func (d *draft) putOrigin(id string, o *topologyv1.Origin, cleared func(path string) bool) error {
	name := topology.OriginName(d.before.ID, id)
	if found := topology.Normalize(d.before.ID, name, o); len(found) > 0 {
		return violationsError(d.next, found, "")
	}
	public, given := topology.SplitOrigin(o)
	stored := d.before.Origins[id]
	was := d.before.Secrets[id]
	secrets, required := topology.MergeSecrets(stored.Message, was.Message.GetValues(), public, given, cleared)
	if len(required) > 0 {
		return secretRequired(name, required)
	}
	d.next.Origins[id] = keep(stored, public, d.now)
	switch {
	case len(secrets) == 0:
		delete(d.next.Secrets, id)
	case !maps.Equal(secrets, was.Message.GetValues()):
		d.next.Secrets[id] = topology.Stored[*topologyv1.OriginSecrets]{
			Message: &topologyv1.OriginSecrets{Values: secrets}, CreateRevision: was.CreateRevision, ModRevision: was.ModRevision,
		}
		// The origin's etag and update_time speak for its secrets too.
		if d.next.Origins[id].Message == stored.Message {
			touched := proto.CloneOf(stored.Message)
			touched.UpdateTime = timestamppb.New(d.now)
			d.next.Origins[id] = topology.Stored[*topologyv1.Origin]{
				Message: touched, CreateRevision: stored.CreateRevision, ModRevision: stored.ModRevision,
			}
		}
	}
	return nil
}

func secretRequired(name string, paths []string) *failure {
	f := fail(kindSecretRequired, "%s: the target changed, so its secrets must be given again: %s", name, strings.Join(paths, ", "))
	f.resource = name
	for _, path := range paths {
		f.fields = append(f.fields, fieldFault{path, "must be given again, since the target changed"})
	}
	return f
}

func (d *draft) deleteOrigin(id string) {
	delete(d.next.Origins, id)
	delete(d.next.Secrets, id)
}

func (d *draft) putEndpoint(id string, e *topologyv1.UrlEndpoint) error {
	if found := topology.Normalize(d.before.ID, topology.EndpointName(d.before.ID, id), e); len(found) > 0 {
		return violationsError(d.next, found, "")
	}
	d.next.Endpoints[id] = keep(d.before.Endpoints[id], e, d.now)
	return nil
}

func (d *draft) putDomain(id string, c *topologyv1.CustomDomain) error {
	if found := topology.Normalize(d.before.ID, topology.DomainName(d.before.ID, id), c); len(found) > 0 {
		return violationsError(d.next, found, "")
	}
	stored := d.before.Domains[id]
	c.State = topologyv1.CustomDomain_ACTIVE
	if stored.Message != nil {
		c.State = stored.Message.GetState()
	}
	d.next.Domains[id] = keep(stored, c, d.now)
	return nil
}

// joinDefault appends the account's first origin to its default endpoint while that has none.
func (d *draft) joinDefault(origin string) {
	stored, ok := d.next.Endpoints[topology.DefaultEndpointID]
	if !ok || len(d.before.Origins) > 0 || len(stored.Message.GetOrigins()) > 0 {
		return
	}
	e := proto.CloneOf(stored.Message)
	e.Origins = []string{origin}
	d.next.Endpoints[topology.DefaultEndpointID] = keep(d.before.Endpoints[topology.DefaultEndpointID], e, d.now)
}

// edit is what leads from before to next. It checks the rules first; resource is the one that the caller wrote, whose faults
// are told by field, or empty when there are several.
func (d *draft) edit(resource string) (*store.Edit, error) {
	if err := d.quota(); err != nil {
		return nil, err
	}
	if found := d.faults(); len(found) > 0 {
		return nil, violationsError(d.next, found, resource)
	}
	return d.changes(), nil
}

// faults are the broken rules that the write answers for: not those that were broken before, in what it leaves alone.
func (d *draft) faults() []topology.Violation {
	found := topology.Check(d.next)
	if len(found) == 0 {
		return nil
	}
	old := make(map[topology.Violation]bool)
	for _, v := range topology.Check(d.before) {
		old[v] = true
	}
	for _, put := range d.changes().Puts {
		maps.DeleteFunc(old, func(v topology.Violation, _ bool) bool { return v.Resource == put.Key.Name() })
	}
	return slices.DeleteFunc(found, func(v topology.Violation) bool { return old[v] })
}

// changes is the edit as it stands.
func (d *draft) changes() *store.Edit {
	e := &store.Edit{Deletes: slices.Clone(d.discarded)}
	if d.next.Account.Message != d.before.Account.Message {
		e.Puts = append(e.Puts, store.Put{Key: topology.Key{Kind: topology.KindAccounts, Account: d.before.ID}, Message: d.next.Account.Message})
	}
	collect(e, d.before.ID, topology.KindOrigins, d.before.Origins, d.next.Origins)
	collect(e, d.before.ID, topology.KindOriginSecrets, d.before.Secrets, d.next.Secrets)
	collect(e, d.before.ID, topology.KindURLEndpoints, d.before.Endpoints, d.next.Endpoints)
	collect(e, d.before.ID, topology.KindCustomDomains, d.before.Domains, d.next.Domains)
	return e
}

func collect[M interface {
	proto.Message
	comparable
}](e *store.Edit, account string, kind topology.Kind, before, next map[string]topology.Stored[M]) {
	for _, id := range slices.Sorted(maps.Keys(next)) {
		if next[id].Message != before[id].Message {
			e.Puts = append(e.Puts, store.Put{Key: topology.Key{Kind: kind, Account: account, ID: id}, Message: next[id].Message})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if _, ok := next[id]; !ok {
			e.Deletes = append(e.Deletes, topology.Key{Kind: kind, Account: account, ID: id})
		}
	}
}

// maxBlockers is how many resources an error names.
const maxBlockers = 10

// violationsError turns broken rules into an error. Where all that is wrong is that siblings are missing, the account's
// state is at fault and not the request. Fields of resource are named as in the request that writes it, those of others
// with their resource's name; without a resource, all as they are.
func violationsError(s *topology.AccountState, found []topology.Violation, resource string) *failure {
	f := &failure{kind: kindInvalidField}
	if !slices.ContainsFunc(found, func(v topology.Violation) bool { return !missingReference(s, v) }) {
		f.kind = kindReferenceMissing
	}
	f.text = found[0].Error()
	if n := len(found) - 1; n > 0 {
		f.text += fmt.Sprintf(" (and %d more)", n)
	}
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
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	for i := range f.fields {
		f.fields[i].field = strings.TrimSuffix(field+"."+f.fields[i].field, ".")
	}
	return f
}

// maxFaults bounds the faults that one error lists. Details travel in a header, and proxies take few KiB of those.
const maxFaults = 20

// missingReference reports whether a violation only says that a sibling does not exist.
func missingReference(s *topology.AccountState, v topology.Violation) bool {
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

// inUse says which resources stand in the way of removing one.
func inUse(name string, users []string) *failure {
	f := &failure{kind: kindInUse, resource: name, text: fmt.Sprintf("%s is used by %s", name, strings.Join(users[:min(len(users), maxBlockers)], ", "))}
	if n := len(users) - maxBlockers; n > 0 {
		f.text += fmt.Sprintf(" and %d more", n)
	}
	for _, user := range users[:min(len(users), maxBlockers)] {
		f.blockers = append(f.blockers, blocker{user, "uses " + name})
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
