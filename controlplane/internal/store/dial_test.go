package store_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// However long etcd was away, its return is noticed within seconds: attempts do not grow rarer
// without end.
func TestLostEtcdIsTriedOftenEnough(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	attempts := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				close(attempts)
				return
			}
			if err == nil {
				conn.Close()
				attempts <- struct{}{}
			}
		}
	}()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{"http://" + l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		l.Close()
		for range attempts {
		}
	})
	go func() { _, _ = client.Get(client.Ctx(), "any") }()
	late := time.After(10 * time.Second) // by gRPC's defaults, the seventh attempt is in the 16th second
	for range 7 {
		select {
		case <-attempts:
		case <-late:
			t.Fatal("fewer than 7 attempts in 10 s")
		}
	}
}

// guarded is an etcd with TLS that asks for a user, root with the password secret.
func guarded(t *testing.T) (endpoint, ca string) {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	c.LogLevel = "panic"
	c.ListenPeerUrls = nil
	c.ListenClientUrls = []url.URL{{Scheme: "https", Host: "127.0.0.1:0"}}
	c.ClientAutoTLS = true
	c.UnsafeNoFsync = true
	c.TickMs, c.ElectionMs = 10, 100
	c.BcryptCost = 4
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	select {
	case <-server.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd is not ready")
	}
	endpoint, ca = "https://"+server.Clients[0].Addr().String(), filepath.Join(c.Dir, "fixtures", "client", "cert.pem")
	client, err := store.Dial(store.DialConfig{Endpoints: []string{endpoint}, CACert: ca})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(t.Context(), "root", "secret"); return err },
		func() error { _, err := client.RoleAdd(t.Context(), "root"); return err },
		func() error { _, err := client.UserGrantRole(t.Context(), "root", "root"); return err },
		func() error { _, err := client.AuthEnable(t.Context()); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return endpoint, ca
}

func TestTLSAndUsers(t *testing.T) {
	t.Parallel()
	endpoint, ca := guarded(t)
	password := func(text string) string {
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open := func(cfg store.DialConfig) error {
		cfg.Endpoints = []string{endpoint}
		client, err := store.Dial(cfg)
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s, err := store.Open(ctx, store.Config{Client: client, Key: storetest.Key(t)})
		if err != nil {
			return err
		}
		_, err = put(ctx, s, "acme", accountPut("acme", time.Now().String()))
		return err
	}
	if err := open(store.DialConfig{CACert: ca, User: "root", PasswordFile: password("secret\n")}); err != nil {
		t.Errorf("with all that it takes: %v", err)
	}
	for name, c := range map[string]struct {
		cfg  store.DialConfig
		want string
	}{
		"wrong password": {
			store.DialConfig{CACert: ca, User: "root", PasswordFile: password("guess")}, "authentication failed",
		},
		"empty password": {store.DialConfig{CACert: ca, User: "root", PasswordFile: password("")}, "is empty"},
		"no password":    {store.DialConfig{CACert: ca, User: "root"}, "go together"},
		"no user":        {store.DialConfig{CACert: ca}, "user name is empty"},
	} {
		if err := open(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %q", name, err, c.want)
		}
	}
}

func TestUnreachableSaysWhy(t *testing.T) {
	t.Parallel()
	endpoint, ca := guarded(t)
	dead := "http://" + listentest.Unused(t)
	for name, c := range map[string]struct {
		cfg  store.DialConfig
		want string
	}{
		"one that can be reached": {store.DialConfig{Endpoints: []string{dead, endpoint}, CACert: ca}, ""},
		"dead":                    {store.DialConfig{Endpoints: []string{dead}}, "refused"},
		"authority unknown":       {store.DialConfig{Endpoints: []string{endpoint}}, "unknown authority"},
	} {
		if err := c.cfg.Unreachable(t.Context()); (err == nil) != (c.want == "") ||
			err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// An etcd that is not there holds up a start no longer with a user than without.
func TestLoginIsBounded(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	type dialed struct {
		client *clientv3.Client
		err    error
	}
	done := make(chan dialed, 1)
	go func() {
		client, err := store.Dial(store.DialConfig{
			Endpoints: []string{"http://" + silent.Addr().String()}, User: "root", PasswordFile: path,
		})
		done <- dialed{client, err}
	}()
	select {
	case d := <-done:
		if d.err == nil {
			d.client.Close()
			t.Error("logged in to nothing")
		}
	case <-time.After(15 * time.Second):
		t.Error("still waiting after 15 s")
	}
}

// The password changes, and so does the role of the user: a running store goes on as soon as it
// may.
func TestUserIsChangedWhileRunning(t *testing.T) {
	t.Parallel()
	endpoint, ca := guarded(t)
	path := filepath.Join(t.TempDir(), "password")
	set := func(file, text string) string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	dial := func(user, file string) *clientv3.Client {
		client, err := store.Dial(store.DialConfig{
			Endpoints: []string{endpoint}, CACert: ca, User: user, PasswordFile: file,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return client
	}
	root := dial("root", set(filepath.Join(t.TempDir(), "root"), "secret"))
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	allow := func() {
		must(root.RoleGrantPermission(t.Context(), "edgewalk", "/edgewalk/", clientv3.GetPrefixRangeEnd("/edgewalk/"),
			clientv3.PermissionType(clientv3.PermReadWrite)))
	}
	must(root.RoleAdd(t.Context(), "edgewalk"))
	allow()
	must(root.UserAdd(t.Context(), "ew", "first"))
	must(root.UserGrantRole(t.Context(), "ew", "edgewalk"))
	s := storetest.Open(t, store.Config{Client: dial("ew", set(path, "first"))})
	mustPut(t, s, "acme", accountPut("acme", "1"))
	m := follow(t, s, nil)
	eventually(t, func() bool { return m.at() != 0 })

	must(root.UserChangePassword(t.Context(), "ew", "second"))
	if _, err := put(t.Context(), s, "acme", accountPut("acme", "2")); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("with the old password: %v", err)
	}
	set(path, "second")
	mustPut(t, s, "acme", accountPut("acme", "2"))

	must(root.UserRevokeRole(t.Context(), "ew", "edgewalk"))
	if _, err := put(t.Context(), s, "acme", accountPut("acme", "3")); !errors.Is(err, store.ErrForbidden) ||
		errors.Is(err, store.ErrUnavailable) {
		t.Errorf("without the role: %v", err)
	}
	if err := s.Health(t.Context()); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("health without the role: %v", err)
	}
	must(root.UserGrantRole(t.Context(), "ew", "edgewalk"))
	last := mustPut(t, s, "acme", accountPut("acme", "3"))
	eventually(t, func() bool { return m.at() == last })
	m.check(s)
}
