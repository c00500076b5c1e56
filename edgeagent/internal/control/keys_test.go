package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// sealedSecret is a topology with a secret, "canary", the greeting of a control plane that sends
// the keys of it, and those.
func sealedSecret(t *testing.T) (h *history, welcome message, clear []byte) {
	t.Helper()
	keys, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	if clear, err = keys.Bytes(); err != nil {
		t.Fatal(err)
	}
	origin := &topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{Bucket: "b", AccessKeyId: "k"}}}
	ring := seal.NewRing("topology", map[string]*seal.Keyset{"default": keys})
	sealed, err := topology.SealSecrets(ring, "default", "acme", "o", origin,
		map[string]string{"s3.secret_access_key": "canary"})
	if err != nil {
		t.Fatal(err)
	}
	h = newHistory("e1")
	h.account("acme")
	h.put("origins/acme/o", origin)
	h.put("originSecrets/acme/o", sealed)
	welcome = h.welcome()
	welcome.GetWelcome().Keyring = &edgev1.Keyring{
		Epoch: "topology", Keysets: []*edgev1.Keyring_Keyset{{Name: "default", Keys: clear}},
	}
	return h, welcome, clear
}

// secretOf is the secret as requests see it, empty if they do not.
func secretOf(cfg Config) string {
	origin := cfg.Table.Root().Account("acme").Origin("o")
	if origin == nil {
		return ""
	}
	return origin.Secrets["s3.secret_access_key"]
}

// stateKey makes a file with a state key of its own.
func stateKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if _, err := seal.CreateKey(file); err != nil {
		t.Fatal(err)
	}
	return file
}

func keyedConfig(t *testing.T, dir string, p *peer, keyFile string) Config {
	t.Helper()
	cfg := testConfig(t, dir, p.address)
	cfg.StateKeyFile = keyFile
	return cfg
}

// The folder of an edge holds ciphertext, which the edge opens again without a control plane, with
// its own key alone.
func TestSecretsLieSealedInTheStateFolder(t *testing.T) {
	t.Parallel()
	h, welcome, clear := sealedSecret(t)
	dir, keyFile, p := t.TempDir(), stateKey(t), newPeer(t)
	cfg := keyedConfig(t, dir, p, keyFile)
	a := start(t, cfg)
	d := p.accept()
	if !d.hello.GetAcceptsSealed() {
		t.Error("the agent does not say that it can open secrets")
	}
	d.send(welcome).send(h.full()...).persisted(h.revision)
	if got := secretOf(cfg); got != "canary" {
		t.Errorf("the secret is %q", got)
	}
	a.stop()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), "canary") ||
			strings.Contains(string(content), string(clear[len(clear)-20:])) {
			t.Errorf("%s holds secrets in the clear", entry.Name())
		}
	}

	again := keyedConfig(t, dir, p, keyFile)
	if b := start(t, again); secretOf(again) != "canary" {
		t.Error("the secret cannot be opened after a restart")
	} else {
		b.stop()
	}

	other := keyedConfig(t, dir, p, stateKey(t))
	if _, err := New(other); !errors.Is(err, seal.ErrWrongKey) ||
		!strings.Contains(err.Error(), "--state-key-file "+other.StateKeyFile) {
		t.Errorf("with another key: %v", err)
	}
}

// Keys that the disk did not take when they came are on it once it does: the edge opens its secrets
// after a restart without a control plane.
func TestKeysAreKeptOnceTheDiskTakesThem(t *testing.T) {
	t.Parallel()
	for _, name := range []string{keyringFile + ".next", stateKeyFile} {
		t.Run("no room for "+name, func(t *testing.T) {
			t.Parallel()
			h, welcome, _ := sealedSecret(t)
			dir := t.TempDir()
			inTheWay := filepath.Join(dir, name)
			if err := os.Mkdir(inTheWay, 0o700); err != nil {
				t.Fatal(err)
			}
			p := newPeer(t)
			a := start(t, testConfig(t, dir, p.address))
			d := p.accept().send(welcome).send(h.full()...)
			d.persisted(h.revision)
			if err := os.Remove(inTheWay); err != nil {
				t.Fatal(err)
			}
			d.close(nil)
			p.accept().send(welcome, bookmark(h.revision, h.digest())).persisted(h.revision)
			a.stop()
			again := testConfig(t, dir, p.address)
			if start(t, again); secretOf(again) != "canary" {
				t.Errorf("after a restart the secret is %q", secretOf(again))
			}
		})
	}
}

// A disk that cannot be written keeps no edge from starting with a new state key, as long as the
// file has the one before too.
func TestStateKeyIsReplacedOnceTheDiskTakesIt(t *testing.T) {
	t.Parallel()
	h, welcome, _ := sealedSecret(t)
	dir, keyFile, p := t.TempDir(), stateKey(t), newPeer(t)
	cfg := keyedConfig(t, dir, p, keyFile)
	a := start(t, cfg)
	p.accept().send(welcome).send(h.full()...).persisted(h.revision)
	a.stop()

	newFile := stateKey(t)
	newKey, err := os.ReadFile(newFile)
	if err != nil {
		t.Fatal(err)
	}
	oldKey, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	both := filepath.Join(t.TempDir(), "both")
	if err := os.WriteFile(both, append(newKey, oldKey...), 0o600); err != nil {
		t.Fatal(err)
	}
	inTheWay := filepath.Join(dir, keyringFile+".next")
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	starts := func(what, keyFile string) {
		t.Helper()
		cfg := keyedConfig(t, dir, p, keyFile)
		a := start(t, cfg)
		if got := secretOf(cfg); got != "canary" {
			t.Errorf("%s: the secret is %q", what, got)
		}
		a.stop()
	}
	starts("while the disk takes nothing", both)
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	starts("with room", both)
	starts("with the new key alone", newFile)
}
