package edgesvc

import (
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/seal"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// errCannotOpen refuses an agent of a version that would take sealed secrets for none.
var errCannotOpen = status.Error(codes.FailedPrecondition,
	"this version of the edge agent cannot read sealed secrets, and the control plane has sealed those of origins: upgrade the agent; it serves what it has meanwhile")

// refusesClear reports whether an agent cannot read what it would be sent.
func (s *Service) refusesClear(hello *edgev1.Hello) bool {
	return s.cfg.Store.Seals() && !hello.GetAcceptsSealed()
}

// makePoolKeys makes the keys of the edge's pool. While etcd is not there, the edge gets on with
// what keys there are.
func (st *stream) makePoolKeys() error {
	if st.pool() == "" || st.svc.cutOff() {
		return nil
	}
	err := st.svc.cfg.Store.MakePoolKeys(st.ctx, st.pool())
	if err != nil && !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrResourceExhausted) {
		return status.Errorf(codes.Internal, "keys of pool %q: %v", st.pool(), err)
	}
	return nil
}

// sendKeys sends the keys of secrets when they are not those that the edge has.
func (st *stream) sendKeys() error {
	if st.svc.refusesClear(st.hello) {
		return errCannotOpen
	}
	ring := st.svc.cfg.Store.EdgeKeys(st.pool())
	if ring == st.keys {
		return nil
	}
	if ring.Equal(st.keys) { // others are for other pools
		st.keys = ring
		return nil
	}
	keyring, err := keyringOf(ring)
	if err != nil {
		return err
	}
	st.keys = ring
	return st.message("keyring", &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Keyring{Keyring: keyring}})
}

func keyringOf(ring *seal.Ring) (*edgev1.Keyring, error) {
	keyring := &edgev1.Keyring{Epoch: ring.Epoch()}
	for _, name := range ring.Names() {
		keys, err := ring.Keyset(name).Bytes()
		if err != nil {
			return nil, status.Errorf(codes.Internal, "keyset %q: %v", name, err)
		}
		keyring.Keysets = append(keyring.Keysets, &edgev1.Keyring_Keyset{Name: name, Keys: keys})
	}
	return keyring, nil
}
