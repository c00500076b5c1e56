// Package index holds the current records of every account, in order, and which of them refer to
// which.
//
// An [Index] is a value that readers keep for as long as they like while one [Writer] goes on: a
// change copies the way to it in the trees of its account and shares the rest. What a change costs,
// and what a reader pays to find the users of a resource, does so not depend on how large the
// account is.
package index

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/tidwall/btree"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/persistent"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Item is a record that is held, perhaps with more around it. It never changes.
type Item interface {
	Key() topology.Key
	Record() topology.Record
}

// Index is the records of all accounts at one moment. The zero Index is empty.
type Index struct {
	accounts persistent.Map[*Account]
	counts   map[topology.Kind]int
}

// Account is the records of one account at one moment. It must not be changed. A nil Account is
// empty.
type Account struct {
	id      string
	write   string
	records *btree.BTreeG[Item]
	used    persistent.Map[*used]
	counts  map[topology.Kind]int
	media   int64             // bytes of its media files
	batch   *persistent.Batch // may change it, and its tree, in place
}

// used is a resource that others of its account refer to.
type used struct {
	reference reference
	users     *btree.BTreeG[string] // their ids; of which kind they are follows from the resource's
	batch     *persistent.Batch     // as an account's
}

// reference is what a record refers to: kind and id, as in a key without its account.
type reference string

func referenceTo(kind topology.Kind, id string) reference { return reference(string(kind) + "/" + id) }

// Account returns the records of an account, nil if there are none.
func (x *Index) Account(id string) *Account {
	account, _ := x.accounts.Get(id)
	return account
}

// Accounts yields the records of every account, in no order.
func (x *Index) Accounts() iter.Seq[*Account] { return x.accounts.All() }

// Get returns the record of a key.
func (x *Index) Get(key topology.Key) (Item, bool) {
	return x.Account(key.Account).Get(key.Kind, key.ID)
}

// Count is how many records of a kind there are.
func (x *Index) Count(kind topology.Kind) int { return x.counts[kind] }

// All yields every record, in no order.
func (x *Index) All() iter.Seq[Item] {
	return func(yield func(Item) bool) {
		for account := range x.accounts.All() {
			for item := range account.records.Scan {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// Write is the random id of the write that left the account as it is, empty if that is not known.
func (a *Account) Write() string {
	if a == nil {
		return ""
	}
	return a.write
}

// Get returns the record of a kind and id.
func (a *Account) Get(kind topology.Kind, id string) (Item, bool) {
	if a == nil {
		return nil, false
	}
	return a.records.Get(soughtKey{Kind: kind, ID: id})
}

// Count is how many records of a kind there are.
func (a *Account) Count(kind topology.Kind) int {
	if a == nil {
		return 0
	}
	return a.counts[kind]
}

// MediaBytes is the sum of the sizes of the account's media files.
func (a *Account) MediaBytes() int64 {
	if a == nil {
		return 0
	}
	return a.media
}

// All yields, in the order of ids, the records of a kind whose ids begin with prefix and come after
// one.
func (a *Account) All(kind topology.Kind, prefix, after string) iter.Seq[Item] {
	return func(yield func(Item) bool) {
		if a == nil {
			return
		}
		a.records.Ascend(soughtKey{Kind: kind, ID: max(prefix, after)}, func(item Item) bool {
			key := item.Key()
			if key.Kind != kind || !strings.HasPrefix(key.ID, prefix) {
				return false
			}
			return key.ID == after && after != "" || yield(item)
		})
	}
}

// Users yields, in order, the ids of what refers to a resource: endpoints to the origins that they
// list, custom domains of mode URL_ENDPOINT to their endpoint, and those of mode ACCOUNT to the
// account, whose kind is KindAccounts and id empty. A record that cannot be read refers to nothing.
func (a *Account) Users(kind topology.Kind, id string) iter.Seq[string] {
	return func(yield func(string) bool) {
		if a == nil {
			return
		}
		if u, ok := a.used.Get(string(referenceTo(kind, id))); ok {
			u.users.Scan(yield)
		}
	}
}

// UserCount is how many Users there are.
func (a *Account) UserCount(kind topology.Kind, id string) int {
	if a == nil {
		return 0
	}
	u, ok := a.used.Get(string(referenceTo(kind, id)))
	if !ok {
		return 0
	}
	return u.users.Len()
}

// soughtKey is an item to look for: a key without its record.
type soughtKey topology.Key

func (p soughtKey) Key() topology.Key       { return topology.Key(p) }
func (p soughtKey) Record() topology.Record { return topology.Record{Key: topology.Key(p)} }

func before(a, b Item) bool {
	x, y := a.Key(), b.Key()
	return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.ID, y.ID)) < 0
}

// references are what a record refers to, each once.
func references(r topology.Record) []reference {
	switch r.Key.Kind {
	case topology.KindURLEndpoints:
		var e topologyv1.UrlEndpoint
		if proto.Unmarshal(r.Value, &e) != nil {
			return nil
		}
		var to []reference
		for _, origin := range e.GetOrigins() {
			to = append(to, referenceTo(topology.KindOrigins, origin))
		}
		slices.Sort(to)
		return slices.Compact(to)
	case topology.KindCustomDomains:
		var d topologyv1.CustomDomain
		switch {
		case proto.Unmarshal(r.Value, &d) != nil:
			return nil
		case d.GetMode() == topologyv1.CustomDomain_ACCOUNT:
			return []reference{referenceTo(topology.KindAccounts, "")}
		}
		return []reference{referenceTo(topology.KindURLEndpoints, d.GetUrlEndpoint())}
	}
	return nil
}

// sizeField is MediaFile.size_bytes.
const sizeField protowire.Number = 4

// MediaSize is the size of the file that a record is of, 0 for other kinds and for what cannot be
// read. It reads just the one field, because a library may have millions of files.
func MediaSize(r topology.Record) (size int64) {
	if r.Key.Kind != topology.KindMediaFiles {
		return 0
	}
	for value := r.Value; len(value) > 0; {
		number, wire, n := protowire.ConsumeTag(value)
		if n < 0 {
			return 0
		}
		if number == sizeField && wire == protowire.VarintType {
			v, m := protowire.ConsumeVarint(value[n:])
			if m < 0 {
				return 0
			}
			size = int64(v)
		}
		m := protowire.ConsumeFieldValue(number, wire, value[n:])
		if m < 0 {
			return 0
		}
		value = value[n+m:]
	}
	return size
}

// Writer changes an index. It belongs to one goroutine; what Index returns is everybody's.
type Writer struct {
	index Index
	batch *persistent.Batch
}

// NewWriter returns the writer of an empty index.
func NewWriter() *Writer {
	return &Writer{
		index: Index{
			accounts: persistent.New(func(a *Account) string { return a.id }), counts: make(map[topology.Kind]int),
		},
		batch: new(persistent.Batch),
	}
}

// Index returns the index as it stands. Later changes leave it as it is.
func (w *Writer) Index() Index {
	w.batch = new(persistent.Batch)
	index := w.index
	w.index.counts = maps.Clone(w.index.counts)
	return index
}

// Get returns the record of a key, as of the last change.
func (w *Writer) Get(key topology.Key) (Item, bool) { return w.index.Get(key) }

// Put adds a record, or replaces the one of the same key.
func (w *Writer) Put(item Item) {
	account := w.own(item.Key().Account)
	old, had := account.records.Set(item)
	w.note(account, item, old, had)
}

// Load does what Put does. It costs less when records come in the order of keys.
func (w *Writer) Load(item Item) {
	account := w.own(item.Key().Account)
	old, had := account.records.Load(item)
	w.note(account, item, old, had)
}

func (w *Writer) note(account *Account, item, old Item, had bool) {
	account.media += MediaSize(item.Record())
	if had {
		account.media -= MediaSize(old.Record())
	}
	now := references(item.Record())
	if had {
		was := references(old.Record())
		if slices.Equal(was, now) {
			return
		}
		w.forget(account, was, item.Key().ID)
	} else {
		w.count(account, item.Key().Kind, 1)
	}
	for _, to := range now {
		w.ownUsed(account, to).users.Set(item.Key().ID)
	}
}

// forget takes back what a record refers to.
func (w *Writer) forget(account *Account, references []reference, user string) {
	for _, to := range references {
		u := w.ownUsed(account, to)
		u.users.Delete(user)
		if u.users.Len() == 0 {
			account.used.Drop(w.batch, string(to))
		}
	}
}

// Drop removes the record of a key, if there is one.
func (w *Writer) Drop(key topology.Key) {
	if _, held := w.index.Get(key); !held {
		return
	}
	account := w.own(key.Account)
	old, _ := account.records.Delete(soughtKey(key))
	w.forget(account, references(old.Record()), key.ID)
	account.media -= MediaSize(old.Record())
	w.count(account, key.Kind, -1)
	if account.records.Len() == 0 {
		w.index.accounts.Drop(w.batch, key.Account)
	}
}

func (w *Writer) count(account *Account, kind topology.Kind, n int) {
	account.counts[kind] += n
	w.index.counts[kind] += n
}

// Written records which write left an account as it is. An account without records has none.
func (w *Writer) Written(account, write string) {
	if held := w.index.Account(account); held != nil && held.write != write {
		w.own(account).write = write
	}
}

// own returns an account that this batch of changes may change in place.
func (w *Writer) own(id string) *Account {
	held := w.index.Account(id)
	var next *Account
	switch {
	case held == nil:
		next = &Account{
			id: id, records: btree.NewBTreeGOptions(before, btree.Options{NoLocks: true}),
			used:   persistent.New(func(u *used) string { return string(u.reference) }),
			counts: make(map[topology.Kind]int),
		}
	case held.batch == w.batch:
		return held
	default:
		copied := *held
		next = &copied
		next.records, next.counts = held.records.Copy(), maps.Clone(held.counts)
	}
	next.batch = w.batch
	w.index.accounts.Put(w.batch, next)
	return next
}

// ownUsed does the same for a resource that is used.
func (w *Writer) ownUsed(account *Account, to reference) *used {
	held, ok := account.used.Get(string(to))
	next := &used{reference: to, batch: w.batch}
	switch {
	case !ok:
		next.users = btree.NewBTreeGOptions(cmp.Less[string], btree.Options{NoLocks: true})
	case held.batch == w.batch:
		return held
	default:
		next.users = held.users.Copy()
	}
	account.used.Put(w.batch, next)
	return next
}
