package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// No secret lies in the clear where somebody may find it: in etcd's files and its log, on edges'
// disks, in snapshots, logs, metrics, answers, the audit and the history. Keys and tokens lie in
// their own files alone.
func TestSecretsLieNowhereInTheClear(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	a := cp.administer(t)
	joins := a.joinToken(t, "edge-1")
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, "--join-token-file", joins)
	e.waitReady(t)
	canaries := map[string]string{}
	canary := func(kind string) string {
		canaries[kind] = "canary-of-" + kind
		return canaries[kind]
	}
	manifest := func(round int) string {
		return fmt.Sprintf(`account: {id: shop}
origins:
  - {id: s3, s3: {bucket: b%d, endpoint: "http://127.0.0.1:9", accessKeyId: k, secretAccessKey: %q}}
  - {id: gcs, gcs: {bucket: b%d, clientEmail: e@x.example, privateKey: %q}}
  - {id: sas, azureBlob: {accountName: a, container: c%d, sasToken: %q}}
  - {id: key, azureBlob: {accountName: a, container: c%d, accountKey: %q}}
  - {id: pim, akeneo: {baseUrl: "http://pim%d.example", clientId: i, clientSecret: %q, username: u, password: %q}}
  - {id: web, web: {baseUrl: "http://127.0.0.1:9"}, requestHeaders: [{name: x-key, secretValue: %q}]}
`, round, canary("s3"), round, canary("gcs"), round, canary("sas-token"), round, canary("account-key"), round, canary("client-secret"), canary("password"), canary("header"))
	}
	a.apply(t, manifest(1))
	a.apply(t, manifest(2))
	said := a.do(t, "secrets", "rotate") + a.do(t, "export", "shop") + a.do(t, "audit", "-A", "shop", "-o", "yaml") +
		a.do(t, "history", "-A", "shop", "-o", "yaml") + a.do(t, "get", "origins", "-A", "shop", "-o", "yaml")
	refused := a.try(t, strings.ReplaceAll(manifest(3), "container", "containr"), "apply", "-f", "-")
	said += refused.stdout + refused.stderr
	canaries["token"] = strings.TrimSpace(a.do(t, "token", "create", "--role", "viewer", "--account", "shop"))
	canaries["join token"] = strings.TrimSpace(
		a.try(t, "", "edges", "join-token", "--edge", "other", "--region", "eu").stdout,
	)
	metrics := metricsOf(t, cp.http) + metricsOf(t, e.metrics)
	a.do(t, "snapshot", "save", "saved.snapshot")
	last := a.apply(t, manifest(4))
	has(t, "the last change", last, "applied by 1 of 1 edges")
	e.stop(t)
	cp.stop(t)

	own := map[string]bool{}
	for kind, path := range map[string]string{
		"secret key": filepath.Join(dir, "cp/secret-key"), "state key": filepath.Join(dir, "edge/state/state-key"),
		"token of a file": tokenFile, "used join token": joins,
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		canaries[kind], own[path] = lines[len(lines)-1], true
	}
	identity := filepath.Join(dir, "edge/state/identity/identity.pem")
	text, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(text), "PRIVATE KEY-----\n")
	canaries["key of the edge"], _, _ = strings.Cut(key, "\n")
	own[identity] = true
	look := func(where string, content []byte) {
		for kind, canary := range canaries {
			if i := bytes.Index(content, []byte(canary)); i >= 0 {
				t.Errorf("%s holds the %s in the clear at %d", where, kind, i)
			}
		}
	}
	look("an answer", []byte(said))
	look("a metric", []byte(metrics))
	look("the control plane's log", []byte(cp.stderr.String()))
	look("the edge's log", []byte(e.stderr.String()))
	files := 0
	for _, root := range []string{dir, a.dir} {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() || own[path] {
				return err
			}
			content, err := os.ReadFile(path)
			files++
			look(path, content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(canaries) != 14 || len(canaries["key of the edge"]) < 20 ||
		canaries["token"] == "" || canaries["join token"] == "" || files < 5 {
		t.Errorf("looked for %d secrets in %d files", len(canaries), files)
	}
}
