package route

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/persistent"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// holding is what the table keeps of an account besides the view, so that a change of one resource
// needs no other bytes than its own. Domains are in the view only: there may be a million.
type holding struct {
	id    string
	state *topology.AccountState
	media *topology.MediaSet
	// uid is that of the view, empty while the account does not exist.
	uid string
	// undecodable holds, by key, what was received and could not be read; refused, what could be
	// read and makes no sense.
	undecodable map[topology.Key]*topologyv1.Rejected
	refused     []*topologyv1.Rejected

	// edit and changed, which says what the step has changed of the account, belong to the step
	// that is being built.
	edit    *topology.MediaEdit
	changed map[topology.Key]struct{}
}

func (h *holding) empty() bool {
	s := h.state
	return s.Account.Message == nil && len(s.Origins)+len(s.Secrets)+len(s.Endpoints)+len(h.undecodable) == 0 &&
		h.media.Len() == 0
}

// purging is a purge, or a floor, of an account.
type purging struct {
	account  string
	revision int64
	purge    *topologyv1.Purge
	floor    *topologyv1.PurgeFloor
}

// builder makes the next root.
type builder struct {
	batch    *persistent.Batch
	full     bool
	domains  persistent.Map[*topology.Domain]
	accounts persistent.Map[*topology.Account]

	pending      persistent.Map[*waiting]
	certificates persistent.Map[*topology.Certificate]
	chains       persistent.Map[*chain]
	certified    []*topology.Certificate // brought by a step that is not full

	// before is what the table holds. For a full state, holdings are new ones.
	holdings, before map[string]*holding
	unusable         map[string][]*topologyv1.Rejected
	old              *Root
	shared, given    string
	sharedBefore     string
	rejected         []*topologyv1.Rejected
	ring             *seal.Ring

	changed map[string]*holding
	purges  []purging
	gone    []string
	domain  topologyv1.CustomDomain // the last that was read

	// filling says that the domains of a full state are collected, to be put into the map at once;
	// fillingCertificates says the same of certificates.
	filling             bool
	fill                []*topology.Domain
	inactive            []inactive
	fillingCertificates bool
	fillCertificate     []*topology.Certificate
}

// takeAll applies the records. It collects those of a change first, because an error may come after
// any of them, and they change what the table holds.
func (b *builder) takeAll(records iter.Seq2[topology.Record, error], full bool) error {
	var collected []topology.Record
	for r, err := range records {
		if err != nil {
			return err
		}
		if full {
			b.take(r)
		} else {
			collected = append(collected, r)
		}
	}
	for _, r := range collected {
		b.take(r)
	}
	b.fillDomains()
	b.fillCertificates()
	return nil
}

func (b *builder) take(r topology.Record) {
	switch r.Key.Kind {
	case topology.KindSettings:
		b.takeSettings(r)
	case topology.KindCustomDomains:
		b.noteReadable(r, b.takeDomain(r))
	case topology.KindCertificates:
		b.noteReadable(r, b.takeCertificate(r))
	case topology.KindChains:
		if err := b.takeChain(r); err != nil {
			b.reject(r, err)
		}
	case topology.KindMediaFiles:
		b.noteReadable(r, b.takeMedia(r))
	case topology.KindPurges, topology.KindPurgeFloors:
		b.noteReadable(r, b.takePurge(r))
	case topology.KindAccounts, topology.KindOrigins, topology.KindOriginSecrets, topology.KindURLEndpoints:
		h := b.change(r.Key.Account)
		if h.changed == nil {
			h.changed = make(map[topology.Key]struct{})
		}
		h.changed[r.Key] = struct{}{}
		err := h.state.Apply(r)
		if err != nil {
			b.keepBefore(h, r)
		}
		b.noteReadable(r, err)
	}
}

// holding returns what is held of an account, a new one for an account that had none.
func (b *builder) holding(account string) *holding {
	h := b.holdings[account]
	if h == nil {
		id := intern(account)
		h = &holding{id: id, state: topology.NewAccountState(id, "")}
		b.holdings[id] = h
	}
	return h
}

// change marks an account as changed by the step.
func (b *builder) change(account string) *holding {
	h := b.holding(account)
	b.changed[h.id] = h
	return h
}

// noteReadable records whether a received resource could be read.
func (b *builder) noteReadable(r topology.Record, err error) {
	if err == nil {
		if h := b.holdings[r.Key.Account]; h != nil && h.undecodable[r.Key] != nil {
			delete(h.undecodable, r.Key)
			b.change(h.id)
		}
		return
	}
	h := b.change(r.Key.Account)
	if h.undecodable == nil {
		h.undecodable = make(map[topology.Key]*topologyv1.Rejected)
	}
	h.undecodable[r.Key] = b.reject(r, err)
}

func (b *builder) reject(r topology.Record, err error) *topologyv1.Rejected {
	rejected := &topologyv1.Rejected{Key: r.Key.String(), Revision: r.ModRevision, Reason: err.Error()}
	b.rejected = append(b.rejected, rejected)
	return rejected
}

// openAgain marks the accounts with resources that could not be compiled as changed, because those
// may be sealed with a key that has only come now.
func (b *builder) openAgain() {
	for id, h := range b.holdings {
		if len(h.refused) == 0 {
			continue
		}
		b.change(id)
		if h.changed == nil {
			h.changed = make(map[topology.Key]struct{})
		}
		h.changed[topology.Key{Kind: topology.KindAccounts, Account: id}] = struct{}{}
	}
}

// finish compiles what has changed and returns the root to publish.
func (b *builder) finish(s Step) (*Root, Result) {
	result := Result{Touched: make([]string, 0, len(b.changed))}
	for id, h := range b.changed {
		if b.show(h) {
			result.Touched = append(result.Touched, id)
		}
		b.note(h)
		if h.empty() {
			delete(b.holdings, id)
		}
	}
	if s.Full {
		result.Touched = append(result.Touched, b.missing()...)
	}
	slices.Sort(result.Touched)
	slices.SortFunc(b.rejected, byKey)
	result.Rejected = b.rejected
	return &Root{
		epoch:    cmp.Or(s.Epoch, b.old.epoch),
		revision: s.Revision,
		shared:   cmp.Or(b.shared, b.given),
		domains:  b.domains,
		accounts: b.accounts,
		ring:     b.ring, pending: b.pending, certificates: b.certificates, chains: b.chains,
	}, result
}

// show puts a changed account into the root, and reports whether requests may see a difference.
func (b *builder) show(h *holding) bool {
	edited := h.edit != nil
	if edited {
		h.media, h.edit = h.edit.Done(), nil
	}
	was := b.old.Account(h.id)
	switch {
	case h.changed != nil:
		b.compile(h, was)
		h.changed = nil
		return true
	case edited && h.uid != "":
		b.accounts.Put(b.batch, was.WithMedia(h.media))
		return true
	}
	return false
}

func (b *builder) compile(h *holding, was *topology.Account) {
	var a *topology.Account
	var refused []*topologyv1.Rejected
	h.state.Ring = b.ring
	if b.full {
		a, refused = topology.Compile(h.state, was)
	} else {
		a, refused = topology.Recompile(h.state, was, h.changed, h.refused)
	}
	for _, r := range refused {
		if !slices.ContainsFunc(h.refused, func(x *topologyv1.Rejected) bool { return proto.Equal(x, r) }) {
			b.rejected = append(b.rejected, r)
		}
	}
	h.refused = refused
	uid := ""
	if a == nil {
		b.accounts.Drop(b.batch, h.id)
	} else {
		uid = a.UID
		a.Media = h.media
		a = h.refuseUndecodable(a)
		b.accounts.Put(b.batch, a)
	}
	if h.uid != "" && h.uid != uid {
		b.gone = append(b.gone, h.uid)
	}
	h.uid = uid
}

// refuseUndecodable makes requests for an endpoint that could never be read fail, because they
// would otherwise reach the default endpoint.
func (h *holding) refuseUndecodable(a *topology.Account) *topology.Account {
	for key := range h.undecodable {
		if key.Kind == topology.KindURLEndpoints {
			a = a.Refuse(key.ID)
		}
	}
	return a
}

// note records which of the account's resources are not in effect as received.
func (b *builder) note(h *holding) {
	if len(h.undecodable)+len(h.refused) == 0 {
		delete(b.unusable, h.id)
		return
	}
	b.unusable[h.id] = slices.AppendSeq(slices.Clone(h.refused), maps.Values(h.undecodable))
}

// missing returns the ids of the accounts that a full state no longer has.
func (b *builder) missing() (ids []string) {
	for id, was := range b.before {
		now := b.holdings[id]
		if was.uid == "" || now != nil && now.uid == was.uid {
			continue
		}
		b.gone = append(b.gone, was.uid)
		if now == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func byKey(a, b *topologyv1.Rejected) int { return strings.Compare(a.GetKey(), b.GetKey()) }
