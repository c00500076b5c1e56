package kind

import (
	"hash/maphash"
	"maps"
	"slices"
	"strconv"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Identity identifies an origin for as long as neither its target nor its credentials change.
type Identity struct {
	uid                 string
	target, credentials uint64
}

// IdentityOf hashes the credentials with a random seed, so that no admin can find credentials with
// the hash of another's.
func IdentityOf(seed maphash.Seed, o *topology.Origin) Identity {
	var b []byte
	for _, field := range [...]string{
		o.Spec.GetS3().GetAccessKeyId(), o.Spec.GetGcs().GetClientEmail(), o.Spec.GetAkeneo().GetClientId(),
		o.Spec.GetAkeneo().GetUsername(),
	} {
		b = appendField(b, field)
	}
	b = strconv.AppendBool(b, o.Spec.GetS3().GetUseAmbientCredentials())
	for _, key := range slices.Sorted(maps.Keys(o.Secrets)) {
		b = appendField(b, key)
		b = appendField(b, o.Secrets[key])
	}
	return Identity{uid: o.UID, target: o.Target, credentials: maphash.Bytes(seed, b)}
}
