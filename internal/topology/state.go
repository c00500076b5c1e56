package topology

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/seal"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Stored is a decoded resource and where in history it stands. Both revisions are 0 while it has
// yet to be written.
type Stored[M proto.Message] struct {
	Message                     M
	CreateRevision, ModRevision int64
}

// AccountState is one account as stored, without media files and purges. It belongs to one
// goroutine.
type AccountState struct {
	ID string
	// SharedHost is `host[:port]` of the settings.
	SharedHost string
	// Ring opens Secrets that are sealed. Those in the clear need none.
	Ring *seal.Ring
	// Account has a nil Message while the account does not exist.
	Account   Stored[*topologyv1.Account]
	Origins   map[string]Stored[*topologyv1.Origin]
	Secrets   map[string]Stored[*topologyv1.OriginSecrets] // by the origin's id
	Endpoints map[string]Stored[*topologyv1.UrlEndpoint]
	Domains   map[string]Stored[*topologyv1.CustomDomain] // by id
}

// NewAccountState is the state of an account that does not exist.
func NewAccountState(id, sharedHost string) *AccountState {
	return &AccountState{
		ID:         id,
		SharedHost: sharedHost,
		Origins:    make(map[string]Stored[*topologyv1.Origin]),
		Secrets:    make(map[string]Stored[*topologyv1.OriginSecrets]),
		Endpoints:  make(map[string]Stored[*topologyv1.UrlEndpoint]),
		Domains:    make(map[string]Stored[*topologyv1.CustomDomain]),
	}
}

// NewMessage is an empty message of a kind's type, nil for an unknown kind.
func NewMessage(kind Kind) proto.Message {
	switch kind {
	case KindAccounts:
		return new(topologyv1.Account)
	case KindOrigins:
		return new(topologyv1.Origin)
	case KindOriginSecrets:
		return new(topologyv1.OriginSecrets)
	case KindURLEndpoints:
		return new(topologyv1.UrlEndpoint)
	case KindCustomDomains:
		return new(topologyv1.CustomDomain)
	case KindCertificates:
		return new(topologyv1.Certificate)
	case KindChains:
		return new(topologyv1.Chain)
	case KindMediaFiles:
		return new(topologyv1.MediaFile)
	case KindPurges:
		return new(topologyv1.Purge)
	case KindPurgeFloors:
		return new(topologyv1.PurgeFloor)
	case KindSettings:
		return new(topologyv1.Settings)
	}
	return nil
}

// Decode reads the value of a record that is not deleted.
func (r Record) Decode() (proto.Message, error) {
	m := NewMessage(r.Key.Kind)
	if m == nil {
		return nil, fmt.Errorf("decode %s: unknown kind", r.Key)
	}
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, fmt.Errorf("decode %s: %w", r.Key, err)
	}
	return m, nil
}

// Encode is the value that is stored for a message: the same bytes whenever it is the same message.
func Encode(m proto.Message) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if b == nil && err == nil {
		b = []byte{} // nil is how a record says deleted
	}
	return b, err
}

// Apply puts a record of the account into the state, or takes it out when it is deleted. Media
// files, purges, floors and settings are no part of the state and are ignored. On an error the
// state is unchanged.
func (s *AccountState) Apply(r Record) error {
	if r.Key.Account != s.ID {
		return fmt.Errorf("apply %s to account %q: another account's", r.Key, s.ID)
	}
	var m proto.Message
	if r.Value != nil {
		var err error
		if m, err = r.Decode(); err != nil {
			return err
		}
	}
	switch r.Key.Kind {
	case KindAccounts:
		if m == nil {
			s.Account = Stored[*topologyv1.Account]{}
			return nil
		}
		s.Account = Stored[*topologyv1.Account]{m.(*topologyv1.Account), r.CreateRevision, r.ModRevision}
	case KindOrigins:
		apply(s.Origins, r, m)
	case KindOriginSecrets:
		apply(s.Secrets, r, m)
	case KindURLEndpoints:
		apply(s.Endpoints, r, m)
	case KindCustomDomains:
		apply(s.Domains, r, m)
	}
	return nil
}

func apply[M proto.Message](to map[string]Stored[M], r Record, m proto.Message) {
	if m == nil {
		delete(to, r.Key.ID)
		return
	}
	to[r.Key.ID] = Stored[M]{m.(M), r.CreateRevision, r.ModRevision}
}
