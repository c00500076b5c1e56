package feed

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// pools are what edges of each pool are sent: a log for each pool that an account names, with the
// records of those accounts and what belongs to no account. A pool that nobody names has the latter
// alone, as the pool without a name here.
type pools struct {
	logs    map[string]*topologyLog
	members map[string][]string // the pools that an account names
}

// accountPools is the field pools of an account.
const accountPools protowire.Number = 20

// poolsOf reads the pools from an encoded account, which is not worth decoding for that.
func poolsOf(account []byte) (names []string) {
	for len(account) > 0 {
		number, kind, n := protowire.ConsumeTag(account)
		if n < 0 {
			return nil
		}
		account = account[n:]
		if number == accountPools && kind == protowire.BytesType {
			name, n := protowire.ConsumeString(account)
			if n < 0 {
				return nil
			}
			names = append(names, name)
		}
		if n = protowire.ConsumeFieldValue(number, kind, account); n < 0 {
			return nil
		}
		account = account[n:]
	}
	return names
}

// split returns what a step means for each pool. The whole log has taken the step in already,
// except that a load comes before it, because it takes the records out of the step.
func (p *pools) split(all *topologyLog, step store.Step) map[string][]topology.Record {
	moved := make(map[string][]string) // what accounts named before
	for _, r := range step.Records {
		if r.Key.Kind != topology.KindAccounts {
			continue
		}
		was, is := p.members[r.Key.Account], poolsOf(r.Value)
		if slices.Equal(was, is) {
			continue
		}
		moved[r.Key.Account] = was
		delete(p.members, r.Key.Account)
		if len(is) > 0 {
			p.members[r.Key.Account] = is
		}
	}
	parts := map[string][]topology.Record{"": nil}
	for name := range p.logs {
		parts[name] = nil
	}
	for _, names := range p.members {
		for _, name := range names {
			parts[name] = nil
		}
	}
	for _, r := range step.Records {
		if r.Key.Account == "" {
			for name := range parts {
				parts[name] = append(parts[name], r)
			}
			continue
		}
		for _, name := range p.members[r.Key.Account] {
			if was, ok := moved[r.Key.Account]; ok && all != nil && !slices.Contains(was, name) {
				continue // everything of the account comes
			}
			parts[name] = append(parts[name], r)
		}
	}
	for account, was := range moved {
		for _, name := range p.members[account] {
			if !slices.Contains(was, name) && all != nil {
				parts[name] = append(parts[name], all.records(account)...)
			}
		}
		for _, name := range was {
			if log := p.logs[name]; log != nil && !slices.Contains(p.members[account], name) {
				for _, r := range log.records(account) {
					parts[name] = append(parts[name], topology.Record{Key: r.Key, ModRevision: step.Revision})
				}
			}
		}
	}
	return parts
}

// records are the current ones of an account.
func (l *topologyLog) records(account string) (all []topology.Record) {
	for _, kind := range topology.Kinds() {
		for item := range l.view.index.Account(account).All(kind, "", "") {
			all = append(all, item.Record())
		}
	}
	return all
}

// load begins with the records of a step that the whole log has not taken in yet.
func (p *pools) load(step store.Step, now time.Time) {
	p.logs, p.members = make(map[string]*topologyLog), make(map[string][]string)
	for name, records := range p.split(nil, step) {
		records = slices.DeleteFunc(records, func(r topology.Record) bool { return r.Value == nil })
		p.logs[name] = newLog()
		// What was deleted before, or left the pool, is not known.
		p.logs[name].load(
			store.Step{Epoch: step.Epoch, Revision: step.Revision, Since: step.Revision, Records: records}, now,
		)
	}
}

// take passes a step to each pool's log, by one of its methods.
func (p *pools) take(
	all *topologyLog, step store.Step, before int64, now time.Time, in func(*topologyLog, store.Step),
) {
	for name, records := range p.split(all, step) {
		log := p.logs[name]
		if log == nil {
			// So far the pool had what belongs to no account.
			log = newLog()
			log.load(store.Step{Epoch: step.Epoch, Revision: before, Since: before, Records: p.logs[""].records("")},
				now)
			p.logs[name] = log
		}
		in(log, store.Step{Epoch: step.Epoch, Revision: step.Revision, Records: records})
	}
}

// views are the pools beside a view of everything.
func (p *pools) views(all *View) map[string]*View {
	views := make(map[string]*View, len(p.logs))
	for name, log := range p.logs {
		v := log.view
		v.History, v.Revision, v.AsOf, v.loaded = all.History, all.Revision, all.AsOf, all.loaded
		v.changed, v.advanced = all.changed, all.advanced
		v.merges = &merges{encoded: all.merges.encoded, steps: make(map[span]*Step)}
		v.pool = name
		views[name] = &v
	}
	return views
}

// In is the view of what edges of a pool are sent: of the accounts that name it. Without a pool it
// is everything.
func (v *View) In(pool string) *View {
	if v == nil || pool == "" {
		return v
	}
	if in, ok := v.pools[pool]; ok {
		return in
	}
	return v.pools[""]
}

// Has reports whether the view has an account.
func (v *View) Has(account string) bool {
	_, ok := v.index.Get(topology.Key{Kind: topology.KindAccounts, Account: account})
	return ok
}

// poolsAt are the pools of a view as they were at a revision. It is false when one is no longer all
// known.
func (v *View) poolsAt(revision int64) (map[string]*View, bool) {
	old := maps.Clone(v.pools)
	for name, in := range old {
		at, ok := in.At(revision)
		if !ok {
			return nil, false
		}
		old[name] = at
	}
	return old, true
}
