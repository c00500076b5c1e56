package control

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/seal"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// The files of keys in a state folder. The keyring's keys seal the secrets in its other files, and
// the state key wraps the keyring.
const (
	keyringFile  = "keyring"
	stateKeyFile = "state-key"
)

var keyringPlace = seal.Place{Name: keyringFile}

// keys holds what opens sealed secrets, in memory and in the state folder. It is used by the
// goroutine that applies steps alone.
type keys struct {
	path   string
	by     *seal.Key // the state key; nil while the folder does not keep one
	beside string    // where the folder keeps the state key; empty if that is elsewhere

	ring  *seal.Ring
	held  []byte // the encoded keyring
	saved bool   // the folder has held

	// clear holds the topology keys of secrets that came in the clear, from a control plane that
	// did not seal them yet. sealed says that the last of them has been sealed since.
	clear  map[string]struct{}
	sealed bool
}

// openKeys reads the keyring of a state folder. Without one, or when it cannot be read with the
// folder's own key, there are no keys until a control plane sends them. It is an error if a key
// file that was asked for is not the folder's.
func openKeys(dir, keyFile string, log *slog.Logger) (*keys, error) {
	k := &keys{path: filepath.Join(dir, keyringFile), clear: make(map[string]struct{})}
	var err error
	if keyFile != "" {
		if k.by, err = seal.ReadKey(keyFile); err != nil {
			return nil, fmt.Errorf("--state-key-file: %w", err)
		}
	} else {
		k.beside = filepath.Join(dir, stateKeyFile)
		if k.by, _, err = seal.EnsureKey(k.beside); err != nil {
			log.Error("the state folder keeps no keys: secrets of origins are not there after a restart until a control plane is reached", "err", err)
			return k, nil
		}
		log.Info("the key of sealed secrets lies beside them: who can copy the whole state folder can read them; --state-key-file keeps it elsewhere", "file", k.beside)
	}
	wrapped, err := os.ReadFile(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err == nil {
		var encoded []byte
		if encoded, err = k.by.Unwrap(wrapped, keyringPlace); err == nil {
			err = k.take(encoded)
		}
		k.saved = err == nil && k.by.Wraps(wrapped)
	}
	switch {
	case err == nil:
		if err := k.save(); err != nil { // the edge has them all the same
			log.Error("the keys of sealed secrets stay wrapped with an older state key, which the next start needs too", "file", k.path, "err", err)
		}
		return k, nil
	case keyFile != "":
		return nil, fmt.Errorf("--state-key-file %s does not open %s: %w: give the key that the folder was used with, or remove that file: "+
			"a control plane sends the keys again", keyFile, k.path, err)
	}
	log.Error("the keys of sealed secrets cannot be read: a control plane has to send them again", "file", k.path, "err", err)
	return k, nil
}

// take makes an encoded keyring the current one.
func (k *keys) take(encoded []byte) error {
	m := new(edgev1.Keyring)
	if err := proto.Unmarshal(encoded, m); err != nil {
		return errors.New("the keyring is damaged")
	}
	keysets := make(map[string]*seal.Keyset, len(m.GetKeysets()))
	for _, sent := range m.GetKeysets() {
		keyset, err := seal.Parse(sent.GetKeys())
		if err != nil {
			return err
		}
		keysets[sent.GetName()] = keyset
	}
	k.ring, k.held, k.saved = seal.NewRing(m.GetEpoch(), keysets), encoded, false
	return nil
}

// save writes the keyring, unless the folder has it, so that what is sealed with it can be read
// after a restart.
func (k *keys) save() (err error) {
	if k.saved {
		return nil
	}
	if k.by == nil { // the disk did not take it at the start
		if k.by, _, err = seal.EnsureKey(k.beside); err != nil {
			k.by = nil
			return err
		}
	}
	wrapped, err := k.by.Wrap(k.held, keyringPlace)
	if err != nil {
		return err
	}
	next := k.path + ".next"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, state.FileMode)
	if err != nil {
		return err
	}
	_, err = f.Write(wrapped)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, k.path); err != nil {
		return err
	}
	err = state.SyncDir(filepath.Dir(k.path))
	k.saved = err == nil
	return err
}

// note records whether the secrets of an origin came sealed.
func (k *keys) note(key string, value []byte) {
	const sealedTag = 2<<3 | 2 // OriginSecrets.sealed is the first field where no values are set
	if len(value) > 0 && value[0] != sealedTag {
		k.clear[key] = struct{}{}
		return
	}
	if _, was := k.clear[key]; was {
		delete(k.clear, key)
		k.sealed = len(k.clear) == 0
	}
}

// sealedAll reports, once, that no secrets are held in the clear any more.
func (k *keys) sealedAll() bool {
	sealed := k.sealed
	k.sealed = false
	return sealed
}

// takeKeys makes the control plane's keyring the current one, before anything comes that is sealed
// with its keys. An older control plane sends no keyring.
func (c *Control) takeKeys(sent *edgev1.Keyring) error {
	if sent == nil {
		return nil
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(sent)
	if err != nil {
		return fmt.Errorf("encode the keyring: %w", err)
	}
	same := string(encoded) == string(c.keys.held)
	if !same {
		if err := c.keys.take(encoded); err != nil {
			return fmt.Errorf("the control plane sent keys that cannot be used: %w", err)
		}
	}
	// Also those that are held already: the disk may not have taken them.
	if err := c.keys.save(); err != nil {
		c.cfg.Logger.Error("the keys of sealed secrets cannot be kept: after a restart a control plane has to send them again", "err", err)
	}
	if same {
		return nil
	}
	at := c.state.At()
	if at.Epoch == "" {
		return nil
	}
	if _, err := c.apply(state.Step{At: at, Settings: c.Settings(), Changes: state.Changes(nil)}); err != nil {
		return fmt.Errorf("use the keys: %w", err)
	}
	return nil
}
