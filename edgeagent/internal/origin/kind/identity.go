package kind

import (
	"hash/maphash"
	"slices"

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
