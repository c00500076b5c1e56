package seal

import (
	"fmt"
	"maps"
	"slices"
)

// Ring is keysets by their names, of one epoch. It is immutable. A nil Ring has none.
type Ring struct {
	epoch   string
	keysets map[string]*Keyset
}

// NewRing makes a ring.
func NewRing(epoch string, keysets map[string]*Keyset) *Ring {
	return &Ring{epoch: epoch, keysets: maps.Clone(keysets)}
}

// Epoch is the epoch of what the ring's keysets seal.
func (r *Ring) Epoch() string {
	if r == nil {
		return ""
	}
	return r.epoch
}

// Names are the names of the keysets, sorted.
func (r *Ring) Names() []string {
	if r == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.keysets))
}

// Equal reports whether two rings have the same keysets, each the very same.
func (r *Ring) Equal(other *Ring) bool {
	return r.Epoch() == other.Epoch() && slices.Equal(r.Names(), other.Names()) &&
		!slices.ContainsFunc(r.Names(), func(name string) bool { return r.keysets[name] != other.keysets[name] })
}

// Keyset returns the keyset of a name, nil when there is none.
func (r *Ring) Keyset(name string) *Keyset {
	if r == nil {
		return nil
	}
	return r.keysets[name]
}

// Only returns the ring with the named keysets alone.
func (r *Ring) Only(has func(name string) bool) *Ring {
	next := NewRing(r.Epoch(), nil)
	next.keysets = make(map[string]*Keyset)
	for _, name := range r.Names() {
		if has(name) {
			next.keysets[name] = r.keysets[name]
		}
	}
	return next
}

// Seal seals with a named keyset for a place in the ring's epoch.
func (r *Ring) Seal(name string, plain []byte, at Place) ([]byte, error) {
	keys := r.Keyset(name)
	if keys == nil {
		return nil, fmt.Errorf("seal %s: there is no keyset %q", at.Name, name)
	}
	at.Epoch = r.epoch
	return keys.Seal(plain, at)
}

// Open opens what [Ring.Seal] has sealed.
func (r *Ring) Open(name string, sealed []byte, at Place) ([]byte, error) {
	keys := r.Keyset(name)
	if keys == nil {
		return nil, fmt.Errorf("open %s: %w: keyset %q", at.Name, ErrUnknownKey, name)
	}
	at.Epoch = r.epoch
	return keys.Open(sealed, at)
}
