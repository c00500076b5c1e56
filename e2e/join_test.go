package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/jointoken"
)

// joinToken has an admin make a token, and writes it as the operator of an edge would.
func (a *admin) joinToken(t *testing.T, edge string, flags ...string) (file string) {
	t.Helper()
	return filepath.Join(a.dir,
		a.file(t, edge+".token", a.do(t, append([]string{"edges", "join-token", "--edge", edge}, flags...)...)))
}

// An edge joins with a token alone, is sent everything, media too, renews what it has after a
// restart, and nobody else is that edge: not who has the shared token of edges, nor who has the
// join token afterwards.
func TestEdgeJoins(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	shared := filepath.Join(dir, "edges.token")
	if err := os.WriteFile(shared, []byte("of-all-edges\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cp := startControlPlane(t, filepath.Join(dir, "cp"), "--edge-token-file", shared)
	a := cp.administer(t)

	r := a.try(t, "", "edges", "join-token", "--edge", "fra-1", "--region", "fra")
	token := filepath.Join(a.dir, a.file(t, "fra-1.token", r.stdout))
	if strings.Count(r.stdout, "\n") != 1 || !strings.HasPrefix(r.stdout, "ewj1_") {
		t.Errorf("the token is printed as %q", r.stdout)
	}
	has(t, "the two lines for the machine of the edge", r.stderr, "cat > edge.token",
		"edgewalk edgeagent --control-plane "+cp.edges+" --join-token-file edge.token")

	edgeDir := filepath.Join(dir, "fra-1")
	e := startEdge(t, edgeDir, "whatever", cp.edges, "--join-token-file", token)
	e.waitReady(t)
	o := newOrigin(t, map[string]string{"/a.txt": "one"})
	out := a.apply(t, fmt.Sprintf(`account: {id: acme}
origins: [{id: o, web: {baseUrl: "%s"}, requestHeaders: [{name: X-Key, secretValue: canary-of-the-origin}]}]
urlEndpoints: [{id: default, origins: [o]}]
`, o.url))
	has(t, "apply", out, "applied by 1 of 1 edges")
	a.upload(t, "acme", "/m.txt", "by certificate")
	e.serves(t, "/acme/m.txt", "by certificate")
	if answer, err := http.Get("http://" + cp.media + "/media/acme/0123456789abcdef/m.txt"); err != nil ||
		answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("media for who has neither certificate nor token: %v %v", answer, err)
	} else {
		answer.Body.Close()
	}

	// The thief has the token of all edges and says that it is this one.
	thief := startEdge(t, filepath.Join(dir, "thief"), "fra-1", cp.edges, "--edge-token-file", shared)
	eventually(t, startWithin, "the thief is refused", func() bool {
		return strings.Contains(thief.stderr.String(), "belongs to an edge that has joined")
	})
	// Another one has the join token, which is used up.
	late := startEdge(t, filepath.Join(dir, "late"), "late", cp.edges, "--join-token-file", token)
	eventually(t, startWithin, "the second use of the token is refused", func() bool {
		return strings.Contains(late.stderr.String(), "has been used, by another key")
	})
	e.serves(t, "/acme/a.txt", "one")
	o.set("/a.txt", "two")
	has(t, "purge", a.do(t, "purge", "-A", "acme", "--url", "localhost/acme/a.txt", "--wait"),
		"applied by 1 of 1 edges")
	e.serves(t, "/acme/a.txt", "two")
	for _, p := range []*edge{thief, late} {
		if got := p.get(t, "/acme/a.txt"); got.status != http.StatusServiceUnavailable {
			t.Errorf("%s serves: %s", p.name, got)
		}
	}

	// Neither the token nor a flag is needed afterwards.
	e.stop(t)
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	e = startEdge(t, edgeDir, "whatever", cp.edges, "--edge-token-file", "off")
	e.waitReady(t)
	a.do(t, "create", "account", "globex", "--wait")
	if edges := a.do(t, "edges"); !strings.Contains(edges, "fra-1") || strings.Contains(edges, "whatever") ||
		strings.Contains(edges, "late") {
		t.Errorf("the edges are\n%s", edges)
	}
	for _, p := range []*process{cp.process, e.process, thief.process, late.process} {
		for _, secret := range []string{"of-all-edges", strings.TrimSpace(r.stdout), "canary-of-the-origin"} {
			if strings.Contains(p.stderr.String(), secret) {
				t.Errorf("%s logs a secret", p.name)
			}
		}
	}
}

// A stolen edge has what it was sent. Revoking it ends its streams, lists what it knew, and leaves
// its id to the next edge; it goes on serving what it has.
func TestStolenEdgeIsRevoked(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	a := cp.administer(t)
	e := startEdge(t, filepath.Join(dir, "stolen"), "fra-1", cp.edges, "--join-token-file", a.joinToken(t, "fra-1"))
	e.waitReady(t)
	o := newOrigin(t, map[string]string{"/a.txt": "one"})
	has(t, "apply", a.apply(t, fmt.Sprintf(`account: {id: acme}
origins: [{id: secretive, web: {baseUrl: "%s"}, requestHeaders: [{name: X-Key, secretValue: canary}]}, {id: plain, web: {baseUrl: "%s"}}]
urlEndpoints: [{id: default, origins: [plain]}]
`, o.url, o.url)), "applied by 1 of 1 edges")
	e.serves(t, "/acme/a.txt", "one")

	if r := a.try(t, "", "edges", "join-token", "--edge", "fra-1"); r.code != 1 ||
		!strings.Contains(r.stderr, "edgewalk edges revoke fra-1") {
		t.Errorf("a token for an id that is taken: %d %s", r.code, r.stderr)
	}
	r := a.try(t, "", "edges", "revoke", "fra-1")
	if r.stdout != "accounts/acme/origins/secretive\n" || !strings.Contains(r.stderr, "the secrets of 1 origin\n") {
		t.Errorf("revoke prints %q and %q", r.stdout, r.stderr)
	}
	eventually(t, startWithin, "the stream has ended",
		func() bool { return strings.Contains(e.stderr.String(), "was revoked") })
	a.do(t, "create", "account", "later")
	if got := e.get(t, "/later/a.txt"); got.status != http.StatusNotFound {
		t.Errorf("the stolen edge knows what was made since: %s", got)
	}
	e.serves(t, "/acme/a.txt", "one")
	has(t, "identities", a.do(t, "edges", "identities"), "revoked")

	next := startEdge(t, filepath.Join(dir, "next"), "fra-1", cp.edges, "--join-token-file", a.joinToken(t, "fra-1"))
	next.waitReady(t)
	has(t, "wait", a.do(t, "create", "account", "latest", "--wait"), "applied by 1 of 1 edges")
	if log := cp.stderr.String(); strings.Contains(log, "canary") {
		t.Error("the control plane logs a secret")
	}
}

// A control plane whose listeners are open to the network needs no certificate of its own for edges
// that join, and has nothing for others.
func TestOpenListenersForEdgesThatJoin(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"), "--require-join", "--edge-addr", "0.0.0.0:0", "--media-addr",
		"0.0.0.0:0", "--media-advertise-url", "https://127.0.0.1:0")
	a := cp.administer(t)
	at := "127.0.0.1" + cp.edges[strings.LastIndexByte(cp.edges, ':'):]
	startEdge(t, filepath.Join(dir, "joined"), "fra-1", at, "--join-token-file", a.joinToken(t, "fra-1")).waitReady(t)
	stranger := startEdge(t, filepath.Join(dir, "stranger"), "fra-2", at)
	eventually(t, startWithin, "the stranger is refused",
		func() bool { return strings.Contains(stranger.stderr.String(), "stream to the control plane ended") })
	if isReady(stranger.metrics) {
		t.Error("the stranger was sent the topology")
	}
}

// An edge of a pool knows the accounts that name it: their files, its library, nothing of others;
// revoking it lists the secrets of those alone.
func TestPools(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	a := cp.administer(t)
	o := newOrigin(t, map[string]string{"/a.txt": "a"})
	for id, pools := range map[string]string{"acme": "[gold]", "globex": "[]"} {
		a.feed(t, fmt.Sprintf(`account: {id: %s, pools: %s}
origins: [{id: o, web: {baseUrl: "%s"}, requestHeaders: [{name: X-Key, secretValue: canary-of-%s}]}]
urlEndpoints: [{id: default, origins: [o]}]
`, id, pools, o.url, id), "apply", "-f", "-")
	}
	gold := startEdge(t, filepath.Join(dir, "gold"), "gold", cp.edges, "--join-token-file",
		a.joinToken(t, "gold-1", "--pool", "gold"))
	all := startEdge(t, filepath.Join(dir, "all"), "all", cp.edges, "--join-token-file", a.joinToken(t, "all-1"))
	gold.waitReady(t)
	all.waitReady(t)
	a.upload(t, "acme", "/m.txt", "media of acme")
	a.upload(t, "globex", "/m.txt", "media of globex")
	for _, e := range []*edge{gold, all} {
		e.serves(t, "/acme/a.txt", "a")
		e.serves(t, "/acme/m.txt", "media of acme")
	}
	all.serves(t, "/globex/a.txt", "a")
	all.serves(t, "/globex/m.txt", "media of globex")
	gold.refuses(t, "/globex/a.txt", http.StatusNotFound)
	for _, c := range []struct{ path, edge, want string }{
		{"/acme/a.txt", "gold-1", "200: found at o"}, {"/globex/a.txt", "gold-1", "404: no such account"},
		{"/acme/a.txt", "all-1", "200: found at o"}, {"/globex/a.txt", "all-1", "200: found at o"},
	} {
		explained := a.try(t, "", "explain", "http://localhost"+c.path, "--edge", c.edge)
		has(t, "explain at "+c.edge, explained.stdout, c.want)
	}
	// Nor does the media listener give it what it asks for by itself.
	content, err := os.ReadFile(filepath.Join(gold.dir, "state", "identity", "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(content, content)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(pair.Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, ServerName: jointoken.ServerName(sha256.Sum256(ca.Raw)), Certificates: []tls.Certificate{pair},
	}}
	defer transport.CloseIdleConnections()
	for account, want := range map[string]int{"acme": http.StatusOK, "globex": http.StatusNotFound} {
		hash := sha256.Sum256([]byte("media of " + account))
		answer, err := (&http.Client{Transport: transport}).Get(fmt.Sprintf("https://%s/media/%s/%x/m.txt", cp.media,
			account, hash[:8]))
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != want {
			t.Errorf("media of %s by the edge's certificate: %s, want %d", account, answer.Status, want)
		}
	}
	gold.stop(t)
	if found := grep(t, filepath.Join(gold.dir, "state"), "globex"); found != "" {
		t.Errorf("%s of an edge that is not sent the account knows it", found)
	}
	if r := a.try(t, "", "edges", "revoke", "gold-1"); r.stdout != "accounts/acme/origins/o\n" {
		t.Errorf("revoke prints %q", r.stdout)
	}
	a.do(t, "update", "account", "acme", "--set", "pools=gold", "--set", "displayName=Acme")
	if r := a.try(t, "", "update", "account", "acme", "--set", "pools=Gold"); r.code != 1 ||
		!strings.Contains(r.stderr, "use 1 to 63 of a-z, 0-9 and -") {
		t.Errorf("a pool that is none: %d %s", r.code, r.stderr)
	}
}

// grep returns the first file below a folder that has a text, empty for none.
func grep(t *testing.T, folder, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || found != "" {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), text) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
