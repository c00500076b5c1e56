package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/internal/certtest"
)

// An error names the flag or variable for what the control plane asks for.
func TestConnectionsThatAreRefusedSayWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	cert, key := certtest.SelfSigned(t).Files(t, dir)
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("of-the-admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := runControlPlane(t, controlplane.Config{
		DataDir: filepath.Join(dir, "data"), TLSCert: cert, TLSKey: key, ClientCA: cert, AdminTokenFile: tokens,
	})
	t.Setenv("EDGEWALK_SERVER", c.Addresses().Admin)
	known, shown := " --ca "+cert, " --cert "+cert+" --key "+key
	for _, test := range []struct {
		args, token string
		code        int
		says        string
	}{
		{"get accounts" + known + shown, "of-the-admin", 0, "ID"},
		{"get accounts" + known + shown, "", 1, "Put a token into EDGEWALK_TOKEN"},
		{"get accounts" + known + shown, "of-the-edges", 1, "Put a token into EDGEWALK_TOKEN"},
		{"get accounts" + known, "of-the-admin", 1, "use --cert and --key"},
		{"get accounts" + shown, "of-the-admin", 1, "Name the CA of its certificate with --ca"},
		{"get accounts", "", 1, "use --ca FILE or --server https://"},
		{"get accounts --server " + c.Addresses().HTTP + known, "", 1, "no admin API"},
		{"get accounts --server 192.0.2.1:7070", "of-the-admin", 2, "EDGEWALK_TOKEN would travel in the clear"},
	} {
		t.Setenv("EDGEWALK_TOKEN", test.token)
		code, stdout, stderr := edgewalk(t, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.says) {
			t.Errorf("edgewalk %s, token %q: exit %d, want %d with %q; got %s%s", test.args, test.token, code,
				test.code, test.says, stdout, stderr)
		}
		if test.token != "" && strings.Contains(stdout+stderr, test.token) {
			t.Errorf("edgewalk %s tells the token: %s%s", test.args, stdout, stderr)
		}
	}
}
