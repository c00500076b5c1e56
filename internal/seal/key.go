package seal

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
)

// Key wraps keysets. It lies in a file of one line, `edgewalk-key-1:` and 32 random bytes in base64
// (RFC 4648, section 5, without padding). Further lines are keys that unwrap what they have
// wrapped, so that one may take the place of another.
type Key struct {
	id     string
	aead   *subtle.AESGCM
	others []*Key
}

const (
	keyFormat = "edgewalk-key-1:"
	keyBytes  = 32
	// idBytes of a hash of the key stand before what it has wrapped, so that a wrong key does not
	// look like damage.
	idBytes = 8
)

// ID names the key without telling anything of it: 16 hex digits.
func (k *Key) ID() string { return hex.EncodeToString([]byte(k.id)) }

func newKey(raw []byte) (*Key, error) {
	cipher, err := subtle.NewAESGCM(raw)
	if err != nil {
		return nil, fmt.Errorf("use the key: %w", err)
	}
	sum := sha256.Sum256(append([]byte("edgewalk key id\x00"), raw...))
	return &Key{id: string(sum[:idBytes]), aead: cipher}, nil
}

// ReadKey reads a key from a file. It returns [fs.ErrNotExist] when there is none.
func ReadKey(path string) (*Key, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	var keys []*Key
	for line := range strings.FieldsSeq(string(content)) {
		text, ok := strings.CutPrefix(line, keyFormat)
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if !ok || err != nil || len(raw) != keyBytes {
			return nil, notKey(path)
		}
		key, err := newKey(raw)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, notKey(path)
	}
	keys[0].others = keys[1:]
	return keys[0], nil
}

func notKey(path string) error {
	return fmt.Errorf("read the key: %s holds none: each line is `%s` and 32 random bytes in base64url", path, keyFormat)
}

// CreateKey makes a new key in a file that only its owner may read. It returns [fs.ErrExist] when
// the file is there.
func CreateKey(path string) (*Key, error) {
	raw := make([]byte, keyBytes)
	rand.Read(raw)
	line := keyFormat + base64.RawURLEncoding.EncodeToString(raw) + "\n"
	err := writeNew(path, []byte(line))
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil, existsError(path)
	case err != nil:
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return newKey(raw)
}

// existsError says that a file is there. It is [fs.ErrExist].
type existsError string

func (e existsError) Error() string        { return "make a key: " + string(e) + " is there already" }
func (e existsError) Is(target error) bool { return target == fs.ErrExist }

// EnsureKey reads the key of a file, and makes it when there is no file.
func EnsureKey(path string) (key *Key, created bool, err error) {
	key, err = ReadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	key, err = CreateKey(path)
	if errors.Is(err, fs.ErrExist) { // another process was faster
		key, err = ReadKey(path)
		return key, false, err
	}
	return key, err == nil, err
}

// writeNew makes a file whole: it has all that it will have, on the disk, when it appears under its
// name.
func writeNew(path string, content []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Wrap encrypts something for a place.
func (k *Key) Wrap(plain []byte, at Place) ([]byte, error) {
	sealed, err := k.aead.Encrypt(plain, at.associated())
	if err != nil {
		return nil, fmt.Errorf("wrap %s: %w", at.Name, err)
	}
	return append([]byte(k.id), sealed...), nil
}

// Wraps reports whether the key has wrapped something, and not another one of its file.
func (k *Key) Wraps(wrapped []byte) bool { return strings.HasPrefix(string(wrapped), k.id) }

// Unwrap returns what [Key.Wrap], of this key or another one of its file, has encrypted for a
// place. It returns [ErrWrongKey] or [ErrForged] when that cannot be.
func (k *Key) Unwrap(wrapped []byte, at Place) ([]byte, error) {
	for _, key := range append([]*Key{k}, k.others...) {
		if !key.Wraps(wrapped) {
			continue
		}
		plain, err := key.aead.Decrypt(wrapped[idBytes:], at.associated())
		if err != nil {
			return nil, fmt.Errorf("unwrap %s: %w", at.Name, ErrForged)
		}
		return plain, nil
	}
	return nil, fmt.Errorf("unwrap %s: %w: %s, and this is %s", at.Name, ErrWrongKey, WrappedBy(wrapped), k.ID())
}

// WrappedBy is the [Key.ID] of the key that has wrapped something.
func WrappedBy(wrapped []byte) string {
	return hex.EncodeToString(wrapped[:min(idBytes, len(wrapped))])
}
