package origin

import (
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/azureblob"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// azuritePackage is the version that the test was written for.
const azuritePackage = "azurite@3.37.0"

// Microsoft's own emulator of Blob Storage.
func TestAzurite(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	if os.Getenv("CI") != "" {
		t.Skip("CI fetches nothing from npm: run make test-long on a machine that has it")
	}
	npx, err := exec.LookPath("npx")
	if err != nil {
		t.Skip("npm is not installed, which brings Azurite")
	}
	if out, err := exec.CommandContext(
		t.Context(), npx, "--yes", "-p", azuritePackage, "azurite-blob", "--version",
	).CombinedOutput(); err != nil {
		t.Skipf("npm cannot get Azurite: %v\n%s", err, out)
	}
	t.Parallel()
	address := listentest.Unused(t)
	host, port, _ := net.SplitHostPort(address)
	dir := t.TempDir()
	run := exec.Command(npx, "--yes", "-p", azuritePackage, "azurite-blob", "--blobHost", host, "--blobPort", port,
		"--location", dir, "--silent")
	run.Dir = dir
	run.Env = append(os.Environ(), "AZURITE_ACCOUNTS=account:"+base64.StdEncoding.EncodeToString([]byte(theSecret)))
	startServer(t, run, address)
	endpoint := "http://" + address + "/account"
	o := azureOrigin(t, endpoint)
	putAzure(t, o, endpoint+"/container?restype=container", nil, "")
	for _, key := range exactFiles {
		putAzure(t, o, endpoint+"/container/"+kind.Escape(key, kind.UnreservedOrSlash),
			header("X-Ms-Blob-Type", "BlockBlob"), "body of "+key)
	}
	c := serverClient(t)
	for path, key := range exactFiles {
		a := c.Get(t.Context(), o, get(path))
		if a.Outcome != Found {
			t.Errorf("%s: %s %q: %s", path, a.Outcome, a.Reason, a.Detail)
			continue
		}
		if body, err := read(t, a); body != "body of "+key || err != nil {
			t.Errorf("%s: read %q, %v", path, body, err)
		}
	}
	for _, test := range []struct {
		name, path string
		change     func(*topologyv1.AzureBlobOrigin)
		secrets    map[string]string
		outcome    Outcome
		reason     Reason
	}{
		{"missing blob", "/gone.jpg", nil, o.Secrets, NotHere, ""},
		{"missing folder", "/no/such/folder.jpg", nil, o.Secrets, NotHere, ""},
		{"prefix", "/a%20b.jpg", func(a *topologyv1.AzureBlobOrigin) { a.Prefix = "folder" }, o.Secrets, Found, ""},
		{"missing container", "/plain.jpg", func(a *topologyv1.AzureBlobOrigin) { a.Container = "nobody" }, o.Secrets,
			Inconclusive, Misconfigured},
		{"wrong key", "/plain.jpg", nil, map[string]string{"azure_blob.account_key": "b3RoZXI="}, Inconclusive,
			Misconfigured},
		{"no key", "/plain.jpg", nil, nil, Inconclusive, Misconfigured},
		{"signature", "/plain.jpg", nil,
			map[string]string{"azure_blob.sas_token": accountSAS("r", time.Now().Add(time.Hour))}, Found, ""},
		{
			"signature to write", "/plain.jpg", nil,
			map[string]string{"azure_blob.sas_token": accountSAS("w", time.Now().Add(time.Hour))}, Inconclusive,
			Misconfigured,
		},
		{
			"expired signature", "/plain.jpg", nil,
			map[string]string{"azure_blob.sas_token": accountSAS("r", time.Now().Add(-time.Hour))}, Inconclusive,
			Misconfigured,
		},
	} {
		o := azureOrigin(t, endpoint, func(o *topologyv1.Origin) {
			if test.change != nil {
				test.change(o.GetAzureBlob())
			}
		})
		o.Secrets = test.secrets
		a := c.Get(t.Context(), o, get(test.path))
		if discard(t, a); a.Outcome != test.outcome || a.Reason != test.reason {
			t.Errorf("%s: %s %q: %s", test.name, a.Outcome, a.Reason, a.Detail)
		}
	}
	testConditions(t, c, o, "/plain.jpg", "body of plain.jpg", abilities{tag: true, date: true})
}

// putAzure makes a container or a blob.
func putAzure(t *testing.T, o *topology.Origin, to string, fields http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name := range fields {
		req.Header.Set(name, fields.Get(name))
	}
	req.Header.Set("X-Ms-Version", azureblob.Version)
	if body != "" {
		req.Header.Set("Content-Length", strconv.Itoa(len(body)))
	}
	plain := *req.URL
	if req.URL.RawQuery != "" { // of the resource that is signed, "\nname:value" for each parameter
		plain.Opaque = req.URL.EscapedPath() + "\nrestype:container"
	}
	signed := &http.Request{Method: req.Method, URL: &plain, Header: req.Header}
	if err := azureblob.Kind.Sign(t.Context(), &kind.Hop{Origin: o, Ask: newAsk(), Req: signed}); err != nil {
		t.Fatal(err)
	}
	req.Header.Del("Content-Length")
	send(t, req)
}

// accountSAS is a shared access signature for the blobs of the account, by "Create an account SAS".
func accountSAS(rights string, until time.Time) string {
	expiry := until.UTC().Format(time.RFC3339)
	text := strings.Join([]string{"account", rights, "b", "o", "", expiry, "", "http,https", azureblob.Version, "", ""},
		"\n")
	return url.Values{
		"sv": {azureblob.Version}, "ss": {"b"}, "srt": {"o"}, "sp": {rights}, "se": {expiry}, "spr": {"http,https"},
		"sig": {hmacBase64(theSecret, text)},
	}.Encode()
}
