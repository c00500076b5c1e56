package origin

import (
	"hash/maphash"
	"slices"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// An identity is one origin as long as neither where it looks nor its credentials change.
type identity struct {
	uid                 string
	target, credentials uint64
}

// identityOf hashes the credentials with a seed that nobody knows, so that no admin can make theirs pass for another's.
func identityOf(seed maphash.Seed, o *topology.Origin) identity {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, field := range [...]string{
		o.Spec.GetS3().GetAccessKeyId(), o.Spec.GetGcs().GetClientEmail(), o.Spec.GetAkeneo().GetClientId(), o.Spec.GetAkeneo().GetUsername(),
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
	return identity{uid: o.UID, target: o.Target, credentials: h.Sum64()}
}
