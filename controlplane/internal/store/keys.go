package store

import (
	"strings"

	"github.com/cespare/xxhash/v2"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// claimShards is the number of counters that order claims of domains. Claims of names with one
// parent share a counter; a transaction compares each counter it needs, and etcd takes at most 128
// comparisons.
const claimShards = 64

// layout gives every key its place below one literal prefix. The tip comes right behind all keys
// below `cfg/`, so that one watch sees both.
type layout struct{ prefix string }

func (l layout) cfg() string                         { return l.prefix + "cfg/" }
func (l layout) tip() string                         { return clientv3.GetPrefixRangeEnd(l.cfg()) }
func (l layout) resource(k topology.Key) string      { return l.prefix + "cfg/" + k.String() }
func (l layout) kind(k topology.Kind) string         { return l.prefix + "cfg/" + string(k) + "/" }
func (l layout) of(k topology.Kind, a string) string { return l.kind(k) + a + "/" }
func (l layout) guard(account string) string         { return l.prefix + "guard/" + account }
func (l layout) deleting() string                    { return l.prefix + "deleting/" }
func (l layout) idem() string                        { return l.prefix + "idem/" }
func (l layout) request(account, id string) string   { return l.idem() + account + "/" + id }
func (l layout) meta(name string) string             { return l.prefix + "meta/" + name }
func (l layout) fleet(name string) string            { return l.prefix + "fleet/" + name }
func (l layout) auth(name string) string             { return l.prefix + "auth/" + name }
func (l layout) sealedCertificate(id topology.CertificateID) string {
	return l.prefix + "sec/certs/" + id.String()
}
func (l layout) unused() string                    { return l.prefix + "sec/unused/" }
func (l layout) claims(parent string) string       { return l.prefix + "own/" + parent + "/" }
func (l layout) claim(parent, label string) string { return l.claims(parent) + label }
func (l layout) domains(account string) string     { return l.prefix + "dom/" + account + "/" }
func (l layout) facts(k topology.Key) string       { return l.domains(k.Account) + k.ID }
func (l layout) parse(key []byte) (topology.Key, error) {
	return topology.ParseKey(strings.TrimPrefix(string(key), l.cfg()))
}

// shard is the counter that each claim of a name directly below parent raises.
func (l layout) shard(parent string) string {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	return l.prefix + "claims/" + digits[xxhash.Sum64String(parent)%claimShards:][:1]
}

// splitDomain splits the id of a custom domain into its first label, `*` for a wildcard, and the
// rest. Names that one wildcard covers share the rest.
func splitDomain(id string) (parent, label string) {
	if rest, ok := strings.CutPrefix(id, wildcardID("")); ok {
		return rest, "*"
	}
	label, parent, _ = strings.Cut(id, ".")
	return parent, label
}

// wildcardID is the id of the custom domain that is the wildcard below parent.
func wildcardID(parent string) string { return "_wildcard." + parent }
