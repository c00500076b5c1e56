package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/cryptofmt"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

var (
	// ErrUnknownKey says that something was sealed with a key that the keyset does not have,
	// perhaps a newer one.
	ErrUnknownKey = errors.New("it is sealed with a key that is not known here")
	// ErrForged says that something is damaged, or was sealed for another place.
	ErrForged = errors.New("it is damaged, or was sealed for another place")
	// ErrWrongKey says that a keyset was wrapped by another key.
	ErrWrongKey = errors.New("it is wrapped by another key")
)

// Place is what something sealed belongs to. It opens only there.
type Place struct {
	// Name is where it lies, such as a key of etcd.
	Name string
	// UID differs between what it belongs to and a later one of the same name. It may be empty.
	UID string
	// Epoch names the store or the folder that it lies in, so that nothing is taken over from
	// another.
	Epoch string
}

// associated is the associated data, no two places' are alike.
func (p Place) associated() []byte {
	var b []byte
	for _, part := range []string{p.Name, p.UID, p.Epoch} {
		b = binary.AppendUvarint(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

// Keyset seals with its primary key and opens with any of its keys. It is immutable, and may be
// used by any number of goroutines.
type Keyset struct {
	handle  *keyset.Handle
	aead    tink.AEAD
	primary []byte // the prefix of what the primary key has sealed
	known   map[string]bool
}

// NewKeyset makes a keyset of one new key.
func NewKeyset() (*Keyset, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a keyset: %w", err)
	}
	return newKeyset(handle)
}

func newKeyset(handle *keyset.Handle) (*Keyset, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use a keyset: %w", err)
	}
	k := &Keyset{handle: handle, aead: primitive, known: make(map[string]bool)}
	info := handle.KeysetInfo()
	for _, key := range info.GetKeyInfo() {
		prefix := binary.BigEndian.AppendUint32([]byte{cryptofmt.TinkStartByte}, key.GetKeyId())
		k.known[string(prefix)] = true
		if key.GetKeyId() == info.GetPrimaryKeyId() {
			k.primary = prefix
		}
	}
	return k, nil
}

// Rotate returns the keyset with a new primary key. What the older keys have sealed, it still
// opens.
func (k *Keyset) Rotate() (*Keyset, error) {
	manager := keyset.NewManagerFromHandle(k.handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err == nil {
		err = manager.SetPrimary(id)
	}
	if err != nil {
		return nil, fmt.Errorf("add a key: %w", err)
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, fmt.Errorf("add a key: %w", err)
	}
	return newKeyset(handle)
}

// Keys is the number of keys.
func (k *Keyset) Keys() int { return len(k.known) }

// Seal encrypts plain for a place. The same plain text gives other bytes each time.
func (k *Keyset) Seal(plain []byte, at Place) ([]byte, error) {
	sealed, err := k.aead.Encrypt(plain, at.associated())
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", at.Name, err)
	}
	return sealed, nil
}

// Open returns what was sealed for a place. It returns [ErrUnknownKey] or [ErrForged] when that
// cannot be.
func (k *Keyset) Open(sealed []byte, at Place) ([]byte, error) {
	plain, err := k.aead.Decrypt(sealed, at.associated())
	switch {
	case err == nil:
		return plain, nil
	case !k.Knows(sealed):
		return nil, fmt.Errorf("open %s: %w", at.Name, ErrUnknownKey)
	}
	return nil, fmt.Errorf("open %s: %w", at.Name, ErrForged)
}

// Knows reports whether the keyset has the key that something was sealed with.
func (k *Keyset) Knows(sealed []byte) bool {
	return len(sealed) >= cryptofmt.TinkPrefixSize && k.known[string(sealed[:cryptofmt.TinkPrefixSize])]
}

// Primary reports whether something was sealed with the primary key.
func (k *Keyset) Primary(sealed []byte) bool { return bytes.HasPrefix(sealed, k.primary) }

// Bytes is the keyset in the clear, for those who may have it. [Parse] reads it.
func (k *Keyset) Bytes() ([]byte, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(k.handle, keyset.NewBinaryWriter(&b)); err != nil {
		return nil, fmt.Errorf("encode a keyset: %w", err)
	}
	return b.Bytes(), nil
}

// Parse reads what [Keyset.Bytes] has written.
func Parse(b []byte) (*Keyset, error) {
	handle, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(b)))
	if err != nil {
		return nil, errors.New("decode a keyset: it is damaged") // what Tink says might quote it
	}
	return newKeyset(handle)
}

// Wrap encrypts the keyset itself, for a place.
func (k *Keyset) Wrap(by *Key, at Place) ([]byte, error) {
	b, err := k.Bytes()
	if err != nil {
		return nil, err
	}
	return by.Wrap(b, at)
}

// Unwrap reads what [Keyset.Wrap] has written. It returns [ErrWrongKey] when another key has
// wrapped it.
func Unwrap(wrapped []byte, by *Key, at Place) (*Keyset, error) {
	b, err := by.Unwrap(wrapped, at)
	if err != nil {
		return nil, err
	}
	return Parse(b)
}
