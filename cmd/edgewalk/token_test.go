package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane"
)

// On the machine of a control plane its first token is found; others are made, kept, used and
// revoked, and none is shown again.
func TestTokensOfPeople(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	t.Setenv("HOME", dir)
	c := runControlPlane(t, controlplane.Config{DataDir: filepath.Join(dir, "data")})
	<-c.Loaded()
	server := " --server " + c.Addresses().Admin
	var all strings.Builder
	do := func(command string, code int, says ...string) string {
		t.Helper()
		got, stdout, stderr := edgewalk(t, strings.Fields(command)...)
		all.WriteString(stdout + stderr)
		for _, text := range append(says, "") {
			if got != code || !strings.Contains(stdout+stderr, text) {
				t.Errorf("edgewalk %s: exit %d, want %d with %q; got %s%s", command, got, code, text, stdout, stderr)
			}
		}
		return strings.TrimSpace(stdout)
	}
	do("token whoami"+server, 0, "root", "never")
	do("create account acme"+server, 0, "created")
	do("token create --role editor"+server, 2, "say which account")
	do("token create --role king"+server, 2, `--role "king"`)
	do("token create --role operator -A acme"+server, 2, "leave --account out")
	do("token create --role editor -A acme --expires soon"+server, 2, `--expires "soon"`)
	do("token create --role editor -A acme --expires 9999d"+server, 1)
	shown := all.Len()
	token := do("token create --role viewer -A acme --expires 7d --description shop"+server, 0, "ew1_")
	if strings.Contains(token, "\n") || len(token) != 55+1 {
		t.Errorf("what is printed is no token alone: %q", token)
	}
	rest := all.String()[:shown]
	all.Reset()
	all.WriteString(rest)
	id := strings.Split(token, "_")[1]
	do("token ls"+server, 0, id, "viewer", "acme", "shop", "root")

	t.Setenv("EDGEWALK_TOKEN", token)
	do("login", 2, "say where to log in")
	do("login --name here"+server, 0, "logged in to "+c.Addresses().Admin+" as viewer of acme; context here is in use")
	t.Setenv("EDGEWALK_TOKEN", "")
	kept := filepath.Join(dir, "config", "edgewalk", "contexts.yaml")
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("what login keeps: %v, %v", info, err)
	}
	do("context ls", 0, "here", "yes")
	do("context ls -o json", 0, `"name": "here"`, `"inUse": true`)
	do("context ls -o none", 2, "--output is")
	do("token whoami", 0, id, "viewer")
	do("get origins -A acme", 0)
	do("create account globex", 1, "PERMISSION_DENIED", "edgewalk token whoami")
	do("token whoami --context nobody", 2, `no context "nobody"`)
	do("token whoami --context here"+server, 2, "--context and --server")
	do("token whoami"+server, 0, "root") // a server that is named is not sent the token of a context
	do("token revoke "+token+server+" -o json", 0, `"revoked": [`, `"tokens/`+id+`"`)
	do("token whoami", 1, "the token is not valid, or was revoked\n  Put a token", "edgewalk login")
	do("context rm here", 0, "forgotten")
	do("context ls", 0, "NAME")
	if err := os.WriteFile(kept, []byte("current: cut\ncontexts:\n    cut:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	do("token whoami", 1, "context cut names no server: correct "+kept)
	if strings.Contains(all.String(), token) {
		t.Error("a token is shown again")
	}
}
