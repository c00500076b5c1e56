package e2e

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/acmetest"
	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/dnstest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// newcomer does what docs/domains.md says: starts a control plane with the flags that it names,
// types its commands with a token of the account, and sets its records in DNS.
type newcomer struct {
	dns     *dnstest.Network
	edge    *edge
	at      string // address of the edge
	secure  string // where it serves HTTPS
	ca      *acmetest.Authority
	env     []string
	dir     string
	token   string // of the account in DNS
	records []string
	typed   int
}

// What stands in the page for what differs.
const (
	pageToken   = "k7f3a2q2m4xw6c5dpb2e"
	pageAddress = "203.0.113.7"
)

// The page takes a newcomer from nothing to domains that are served over HTTPS: one with a CNAME,
// an apex, a wildcard, and one with an uploaded certificate.
func TestDomainsAsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/domains.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile(`(?m)(?:^    .*\n)+`).FindAllString(string(text), -1)
	n := startNewcomer(t, blocks, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	for _, block := range blocks {
		if !strings.Contains(block, "edgewalk controlplane") {
			n.follow(t, regexp.MustCompile(`(?m)^    `).ReplaceAllString(block, ""))
		}
	}
	if n.typed < 9 {
		t.Errorf("only %d commands were found", n.typed)
	}
	roots := x509.NewCertPool()
	roots.AddCert(n.ca.Intermediate())
	for _, host := range []string{"example.com", "any.example.com"} {
		if status, protocol, err := visitTLS(t.Context(), n.secure, roots, host, host, "/a.txt"); status != 200 {
			t.Errorf("%s: %d %s %v", host, status, protocol, err)
		}
	}
}

func startNewcomer(t *testing.T, blocks []string, origin string) *newcomer {
	t.Helper()
	plain, dir := listentest.Unused(t), shortDir(t)
	at, port := netip.MustParseAddrPort(plain).Addr().String(), netip.MustParseAddrPort(plain).Port()
	n := &newcomer{at: at, dns: dnstest.New(t, "ns1.example.org=127.0.0.11", "ns2.example.org=127.0.0.12")}
	n.dns.Zone("example.com", "ns1.example.org ns2.example.org", "")
	n.dns.Zone("edge.example.net", "ns1.example.org", "* A "+at)
	n.ca = acmetest.New(t, acmetest.Config{DNS: n.dns.Resolver, HTTPPort: int(port)})
	cp := startControlPlane(t, filepath.Join(dir, "cp"), n.flags(t, blocks)...)
	n.dns.Forward("acme.example.net", netip.MustParseAddrPort(cp.logged(t, "dns", "zone")["dns"]))
	n.edge = startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, "--http-addr", plain, "--https-addr",
		"127.0.0.1:0")
	n.secure = n.edge.logged(t, "https")["https"]
	n.edge.waitReady(t)
	operator := cp.administer(t)
	operator.apply(t, fmt.Sprintf("account: {id: acme}\norigins: [{id: o, web: {baseUrl: %q}}]\n"+
		"urlEndpoints: [{id: default, origins: [o]}]\n", origin), "--wait")
	token := strings.TrimSpace(operator.do(t, "token", "create", "--role", "admin", "-A", "acme"))
	n.dir = t.TempDir()
	if err := os.Symlink(binary, filepath.Join(n.dir, "edgewalk")); err != nil {
		t.Fatal(err)
	}
	own := certtest.New(t)
	pair := own.Issue([]string{"images.example.com"})
	for name, text := range map[string][]byte{
		"fullchain.pem": certtest.PEM(pair.Leaf, own.Cert), "privkey.pem": pair.KeyPEM(t),
	} {
		if err := os.WriteFile(filepath.Join(n.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.env = append(cleanEnvironment(), "PATH="+n.dir+":"+os.Getenv("PATH"), "EDGEWALK_SERVER="+cp.admin,
		"EDGEWALK_TOKEN="+token)
	return n
}

// flags are those with which the page starts control planes.
func (n *newcomer) flags(t *testing.T, blocks []string) (flags []string) {
	t.Helper()
	ours := strings.NewReplacer("https://acme-v02.api.letsencrypt.org/directory", n.ca.Directory,
		"203.0.113.53:53", "127.0.0.1:0", "\\\n", " ")
	for _, block := range blocks {
		_, typed, ok := strings.Cut(ours.Replace(block), "edgewalk controlplane ")
		if !ok {
			continue
		}
		words := strings.Fields(typed)
		for i, word := range words {
			if strings.HasPrefix(word, "--") && !slices.Contains(flags, word) {
				flags = append(flags, word)
				if i+1 < len(words) && !strings.HasPrefix(words[i+1], "--") && words[i+1] != "..." {
					flags = append(flags, words[i+1])
				}
			}
		}
	}
	if len(flags) < 8 {
		t.Fatalf("the page starts a control plane with %q alone", flags)
	}
	return append(flags, "--acme-ca-file", n.ca.CAFile, "--dns-resolvers", n.dns.Resolver.String())
}

// follow types the commands of a block, which show what the page shows, and sets its records.
func (n *newcomer) follow(t *testing.T, block string) {
	t.Helper()
	for part := range strings.SplitSeq("\n"+block, "\n$ ") {
		command, shows, _ := strings.Cut(part, "\n")
		if !strings.HasPrefix(command, "edgewalk ") {
			n.set(part)
			continue
		}
		if got := n.run(t, command); shows != "" && tameDomains(got) != tameDomains(shows) {
			t.Errorf("%s\nshows\n%s\nand the page has\n%s", command, tameDomains(got), tameDomains(shows))
		}
	}
}

// run types a command, and returns what it shows, as the page would.
func (n *newcomer) run(t *testing.T, command string) string {
	t.Helper()
	n.typed++
	command = strings.Replace(command, "privkey.pem", "privkey.pem --allow-untrusted", 1) // for the test's authority
	cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-c", command)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = n.dir, n.env, childAttributes()
	out, err := cmd.CombinedOutput()
	notYet := regexp.MustCompile(`edgewalk: \S+ is not ready yet\n`)
	if err != nil && !notYet.Match(out) {
		t.Errorf("%s: %v\n%s", command, err, out)
	}
	got := notYet.ReplaceAllString(string(out), "")
	if found := regexp.MustCompile(`([a-z2-7]{20})\.edge\.example\.net`).FindStringSubmatch(got); found != nil {
		n.token = found[1]
	}
	if n.token != "" {
		got = strings.ReplaceAll(got, n.token, pageToken)
	}
	return strings.ReplaceAll(got, n.at, pageAddress)
}

// set sets records, each a line with a name below example.com, a type and a value.
func (n *newcomer) set(text string) {
	record := regexp.MustCompile(`(?m)^(?:(\S+)\.)?example\.com +(CNAME|TXT|A) +(\S.*?)(?:   .*)?$`)
	for _, found := range record.FindAllStringSubmatch(text, -1) {
		value := strings.NewReplacer(pageToken, n.token, pageAddress, n.at).Replace(found[3])
		name := found[1]
		if name == "" {
			name = "@"
		}
		n.records = append(n.records, name+" "+found[2]+" "+value)
	}
	n.dns.Set("example.com", "", strings.Join(n.records, "\n"))
}

// tameDomains leaves out of what is shown what differs from run to run, and what a test that cannot
// answer at port 53 shows otherwise.
func tameDomains(text string) string {
	for _, one := range []struct{ pattern, with string }{
		{` \(says the resolver .*?\)`, ""}, {` \(ns1\.example\.org, ns2\.example\.org\)`, ""},
		{`Asked (both|the) name servers|No name server answered\. Asked \S+`, "Asked"}, {`\d+ (s|min)\b`, "N s"}, {`\d+ days left`, "N days left"},
		{`\d+ of \d+ edges`, "N of N edges"}, {`(\S) +`, "$1 "},
	} {
		text = regexp.MustCompile(one.pattern).ReplaceAllString(text, one.with)
	}
	return strings.TrimSpace(text)
}
