package topology

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/seal"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// secretsPlace is what the secrets of an origin are bound to: their key, and which origin of that
// id it is.
func secretsPlace(account string, id string, o *topologyv1.Origin) seal.Place {
	created := o.GetCreateTime()
	return seal.Place{
		Name: Key{KindOriginSecrets, account, id}.String(),
		UID:  strconv.FormatInt(created.GetSeconds()*1e9+int64(created.GetNanos()), 10),
	}
}

// SealSecrets is what is stored for the secret values of an origin, sealed with a keyset of the
// ring. The origin's create_time counts.
func SealSecrets(
	ring *seal.Ring, keyset, account, id string, o *topologyv1.Origin, values map[string]string,
) (*topologyv1.OriginSecrets, error) {
	plain, err := Encode(&topologyv1.SealedSecrets{Values: values})
	if err != nil {
		return nil, fmt.Errorf("encode the secrets of %s: %w", OriginName(account, id), err)
	}
	sealed, err := ring.Seal(keyset, plain, secretsPlace(account, id, o))
	if err != nil {
		return nil, err
	}
	return &topologyv1.OriginSecrets{Sealed: sealed, Keyset: keyset}, nil
}

// OpenSecrets returns the secret values of an origin, by path. Those that were stored by a version
// that did not seal are in the clear.
func OpenSecrets(
	ring *seal.Ring, account, id string, o *topologyv1.Origin, stored *topologyv1.OriginSecrets,
) (map[string]string, error) {
	if len(stored.GetSealed()) == 0 {
		return stored.GetValues(), nil
	}
	plain, err := ring.Open(stored.GetKeyset(), stored.GetSealed(), secretsPlace(account, id, o))
	if err != nil {
		return nil, err
	}
	opened := new(topologyv1.SealedSecrets)
	if err := proto.Unmarshal(plain, opened); err != nil {
		return nil, fmt.Errorf("decode the secrets of %s: they are damaged", OriginName(account, id))
	}
	return opened.GetValues(), nil
}
