package kind

import (
	"hash/maphash"
	"slices"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Identity is one origin as long as neither where it looks nor its credentials change.
type Identity struct {
	uid                 string
	target, credentials uint64
}

// IdentityOf hashes the credentials with a seed that nobody knows, so that no admin can make theirs
// pass for another's.
func IdentityOf(seed maphash.Seed, o *topology.Origin) Identity {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, field := range [...]string{
		o.Spec.GetS3().GetAccessKeyId(), o.Spec.GetGcs().GetClientEmail(), o.Spec.GetAkeneo().GetClientId(),
		o.Spec.GetAkeneo().GetUsername(),
	} {
		writeField(&h, field)
	}
	maphash.WriteComparable(&h, o.Spec.GetS3().GetUseAmbientCredentials())
	keys := make([]string, 0, 4)
	for key := range o.Secrets {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		writeField(&h, key)
		writeField(&h, o.Secrets[key])
	}
	return Identity{uid: o.UID, target: o.Target, credentials: h.Sum64()}
}
