package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const goodManifest = `
account: {id: good}
origins: [{id: o, web: {baseUrl: "http://127.0.0.1:9"}}]
urlEndpoints: [{id: default, origins: [o]}]
customDomains: [{domain: good.example, mode: ACCOUNT}, {domain: "*.wild.example", mode: ACCOUNT}]
`

// Wrong input is refused with words that say what, where and what to do, and changes nothing.
func TestWrongInputIsRefused(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	a := startControlPlane(t, filepath.Join(dir, "cp"), "--shared-host", "cdn.example:8080").administer(t)
	a.feed(t, goodManifest, "apply", "-f", "-")
	a.do(t, "create", "account", "other")
	before := a.state(t)

	eleven := "account: {id: other}\norigins:\n"
	var ids []string
	for i := range 11 {
		eleven += fmt.Sprintf("  - {id: o%d, web: {baseUrl: \"http://127.0.0.1:9\"}}\n", i)
		ids = append(ids, fmt.Sprintf("o%d", i))
	}
	eleven += "urlEndpoints: [{id: default, origins: [" + strings.Join(ids, ", ") + "]}]\n"

	for _, test := range []struct {
		name, stdin, args string
		code              int
		says              []string
	}{
		{"unknown field", "account: {id: other}\norigins:\n  - {id: o, web: {baseUri: \"http://127.0.0.1:9\"}}\n", "apply -f -", 1, []string{"line 3, column ", "baseUri"}},
		{"duplicate id", "account: {id: other}\norigins:\n  - {id: o, web: {baseUrl: \"http://127.0.0.1:9\"}}\n  - {id: o, web: {baseUrl: \"http://127.0.0.1:9\"}}\n", "apply -f -", 1, []string{"line 4, column ", "o"}},
		{"duplicate key", "account: {id: other}\naccount: {id: good}\n", "apply -f -", 1,
			[]string{"line 2, column ", "account"}},
		{"second document", "account: {id: other}\n---\naccount: {id: other\n", "apply -f -", 1,
			[]string{"document 2 of 2"}},
		{"alias", "account: &a {id: other}\norigins: [*a]\n", "apply -f -", 1, []string{"alias"}},
		{"null section", "account: {id: other}\norigins:\n", "apply -f -", 1, []string{"line 2, column ", "origins"}},
		{"no account", "origins: [{id: o, web: {baseUrl: \"http://127.0.0.1:9\"}}]\n", "apply -f -", 1, []string{"account"}},
		{"nothing at all", "", "apply -f -", 1, []string{"empty"}},
		{"not YAML", "account: {id: other\n", "apply -f -", 1, []string{"line 1"}},
		{"slash in an identifier", "account: {id: other}\nurlEndpoints:\n  - {id: a/b}\n", "apply -f -", 1,
			[]string{"line 3, column 10", "urlEndpoints[0].id"}},
		{"domain of another account", "account: {id: other}\norigins: [{id: new, web: {baseUrl: \"http://127.0.0.1:9\"}}]\ncustomDomains: [{domain: GOOD.example., mode: ACCOUNT}]\n", "apply -f -", 1, []string{"good.example"}},
		{"below another's wildcard", "account: {id: other}\ncustomDomains: [{domain: x.wild.example, mode: ACCOUNT}]\n", "apply -f -", 1, []string{"x.wild.example"}},
		{"a single label", "account: {id: other}\ncustomDomains: [{domain: intranet, mode: ACCOUNT}]\n", "apply -f -", 1, []string{"customDomains[0].domain", "single label"}},
		{"the shared host", "account: {id: other}\ncustomDomains: [{domain: cdn.example, mode: ACCOUNT}]\n", "apply -f -", 1, []string{"shared host"}},
		{"an address", "account: {id: other}\ncustomDomains: [{domain: 10.0.0.1, mode: ACCOUNT}]\n", "apply -f -", 1, []string{"customDomains[0].domain", "IP address"}},
		{"missing origin", "account: {id: other}\nurlEndpoints:\n  - {id: shots, origins: [nowhere]}\n", "apply -f -", 1, []string{"line 3, column ", "nowhere"}},
		{"11 origins", eleven, "apply -f -", 1, []string{"10"}},
		{"the same origin twice", "account: {id: good}\nurlEndpoints:\n  - {id: default, origins: [o, o]}\n", "apply -f -", 1, []string{"line 3, column ", "origins"}},
		{"the library as an origin", "account: {id: good}\nurlEndpoints:\n  - {id: default, origins: [media, o]}\n", "apply -f -", 1, []string{"media"}},
		{"origin without kind", "account: {id: other}\norigins:\n  - {id: o}\n", "apply -f -", 1,
			[]string{"line 3, column ", "o"}},
		{"domain of no endpoint", "account: {id: other}\ncustomDomains:\n  - {domain: x.example, mode: URL_ENDPOINT, urlEndpoint: nowhere}\n", "apply -f -", 1, []string{"line 3, column ", "nowhere"}},

		{"create what exists", "", "create account good", 1, []string{"good"}},
		{"create with a bad id", "", "create endpoint a/b -A good", 1, []string{"a/b"}},
		{"create in no account", "", "create origin o -A nobody --set web.baseUrl=http://127.0.0.1:9", 1, []string{"nobody"}},
		{"update what is not there", "", "update origin nowhere -A good --set web.baseUrl=http://127.0.0.1:9", 1, []string{"nowhere"}},
		{"update with an old etag", "", `update origin o -A good --set displayName=x --etag "1"`, 1, []string{"etag"}},
		{"delete an origin in use", "", "delete origin o -A good", 1, []string{"default"}},
		{"delete the default endpoint", "", "delete endpoint default -A good", 1, []string{"default"}},
		{"get what is not there", "", "get origin nowhere -A good", 1, []string{"nowhere"}},
		{"purge another's host", "", "purge -A other --url http://good.example/a.txt", 1, []string{"good.example"}},
		{"upload to a climbing path", "", "media upload -A good input.txt /a/../b.txt", 1, []string{".."}},
		{"upload what is not there", "", "media upload -A good nowhere.txt /b.txt", 1, []string{"nowhere.txt"}},

		{"wrong flag", "", "apply --frobnicate", 2, []string{"unknown flag: --frobnicate", "--help"}},
		{"wrong command", "", "frobnicate", 2, []string{"unknown command"}},
		{"wrong kind", "", "get bucket", 2, []string{"bucket", "origin"}},
		{"wrong field", "", "update endpoint default -A good --set origin=o", 2, []string{"origin", "origins"}},
		{"control plane not running", "", "get accounts --server 127.0.0.1:1", 1,
			[]string{"no control plane answers at 127.0.0.1:1", "--server"}},
	} {
		a.file(t, "input.txt", "input")
		r := a.try(t, test.stdin, strings.Fields(test.args)...)
		if r.code != test.code {
			t.Errorf("%s: exit code %d, want %d; %s%s", test.name, r.code, test.code, r.stdout, r.stderr)
		}
		has(t, test.name, strings.ToLower(r.stderr), lower(test.says)...)
		if r.took > 20*time.Second {
			t.Errorf("%s: took %s", test.name, r.took)
		}
		if strings.Contains(r.stderr, "rpc error") {
			t.Errorf("%s: the error is for programmers: %s", test.name, r.stderr)
		}
	}
	if after := a.state(t); after != before {
		t.Errorf("refused commands changed something; before:\n%s\nafter:\n%s", before, after)
	}
	// Names of others are taken, but whose they are is nobody else's business.
	if r := a.try(t, "account: {id: other}\ncustomDomains: [{domain: good.example, mode: ACCOUNT}]\n", "apply", "-f", "-"); strings.Contains(r.stderr, "accounts/good") {
		t.Errorf("the error tells whose the domain is: %s", r.stderr)
	}
}

func lower(texts []string) []string {
	var all []string
	for _, text := range texts {
		all = append(all, strings.ToLower(text))
	}
	return all
}

// state is all that the accounts of a control plane hold.
func (a *admin) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	accounts, _ := a.object(t, "get", "accounts")["accounts"].([]any)
	for _, one := range accounts {
		id := one.(map[string]any)["id"].(string)
		b.WriteString(a.do(t, "export", id))
		fmt.Fprintln(&b, a.object(t, "media", "ls", "-A", id)["mediaFiles"],
			a.object(t, "get", "purges", "-A", id)["purges"])
	}
	return b.String()
}

// A daemon that cannot work says which flag to change, and ends at once.
func TestDaemonsThatCannotStartSayWhy(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := &admin{dir: dir}
	controlplane := "controlplane --data-dir " + dir + "/cp --admin-addr 127.0.0.1:0 --edge-addr 127.0.0.1:0 --http-addr 127.0.0.1:0 --media-addr 127.0.0.1:0 "
	edgeagent := "edgeagent --http-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0 --state-dir " + dir + "/edge "
	for _, test := range []struct {
		name, args string
		code       int
		says       []string
	}{
		{"port in use by the edge", edgeagent + "--http-addr " + taken.Addr().String(), 1,
			[]string{"--http-addr", taken.Addr().String(), "in use"}},
		{"port in use by the metrics", edgeagent + "--metrics-addr " + taken.Addr().String(), 1,
			[]string{"--metrics-addr", "in use"}},
		{"port in use by the control plane", controlplane + "--admin-addr " + taken.Addr().String(), 1,
			[]string{"--admin-addr", taken.Addr().String(), "in use"}},
		{"cache folder that cannot be", edgeagent + "--cache-dir " + file + "/cache", 1, []string{"--cache-dir", file}},
		{"state folder that cannot be", edgeagent + "--state-dir " + file + "/state", 1, []string{"--state-dir", file}},
		{"data folder that cannot be", controlplane + "--data-dir " + file + "/data", 1, []string{file}},
		{"open admin address", controlplane + "--admin-addr 0.0.0.0:0", 1, []string{"--admin-addr", "loopback"}},
		{"open metrics address", edgeagent + "--metrics-addr 0.0.0.0:0", 1, []string{"--metrics-addr", "loopback"}},
		{
			"no such certificate",
			edgeagent + "--https-addr 127.0.0.1:0 --tls-cert " + file + "-cert --tls-key " + file + "-key", 1,
			[]string{file + "-cert"},
		},
		{"wrong flag", "edgeagent --frobnicate", 2, []string{"unknown flag: --frobnicate"}},
		{"wrong size", "edgeagent --cache-size much", 2, []string{"much"}},
		{"words too many", "controlplane extra", 2, []string{"extra"}},
	} {
		r := a.try(t, "", strings.Fields(test.args)...)
		if r.code != test.code {
			t.Errorf("%s: exit code %d, want %d; %s", test.name, r.code, test.code, r.stderr)
		}
		has(t, test.name, r.stderr, test.says...)
	}
	// Nothing stays behind that keeps the next start from working.
	startControlPlane(t, filepath.Join(dir, "cp"))
}
