package origin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// clearAmbient takes away every credential that the machine of the test may have.
func clearAmbient(t *testing.T) {
	t.Helper()
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, "AWS_") {
			t.Setenv(name, "")
		}
	}
	empty := filepath.Join(t.TempDir(), "none")
	t.Setenv("AWS_CONFIG_FILE", empty)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", empty)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

func ambientOrigin(t *testing.T, endpoint string) *topology.Origin {
	o := s3Origin(t, endpoint,
		func(o *topologyv1.Origin) { o.GetS3().AccessKeyId, o.GetS3().UseAmbientCredentials = "", true })
	o.Secrets = nil
	return o
}

// The machine's credentials are the operator's: no admin of an account gets at them unless the
// operator says so.
func TestAmbientIsRefusedByDefault(t *testing.T) {
	clearAmbient(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKID")
	t.Setenv("AWS_SECRET_ACCESS_KEY", theSecret)
	store, endpoint := newS3Store(t)
	store.objects["a.jpg"] = "x"
	a := localClient(t).Get(t.Context(), ambientOrigin(t, endpoint), get("/a.jpg"))
	discard(t, a)
	if a.Outcome != Inconclusive || a.Reason != Misconfigured ||
		!strings.Contains(a.Advice, "--allow-ambient-credentials") || store.fields != nil {
		t.Errorf("got %s %q: %s; %s", a.Outcome, a.Reason, a.Detail, a.Advice)
	}
}

func TestAmbientFromSharedFile(t *testing.T) {
	clearAmbient(t)
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = AKID\naws_secret_access_key = "+theSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	store, endpoint := newS3Store(t)
	store.objects["a.jpg"] = "x"
	a := newTestClient(t, Config{AllowCIDRs: loopback, AllowAmbientCredentials: true}).Get(t.Context(),
		ambientOrigin(t, endpoint), get("/a.jpg"))
	if discard(t, a); a.Outcome != Found {
		t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
	}
}

// A role of a container or an instance is asked for once for all requests.
func TestAmbientFromRole(t *testing.T) {
	clearAmbient(t)
	var asked atomic.Int32
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		io.WriteString(w, `{"AccessKeyId":"AKID","SecretAccessKey":"`+theSecret+`","Token":"session","Expiration":"`+
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"}`)
	}))
	defer role.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.URL)
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	c := newTestClient(t, Config{AllowCIDRs: loopback, AllowAmbientCredentials: true})
	o := ambientOrigin(t, fault.URL())
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			a := c.Get(t.Context(), o, get("/a.jpg"))
			if discard(t, a); a.Outcome != Found {
				t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked for the role %d times", n)
	}
	for _, r := range saw(t, fault, 20) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKID/") ||
			r.Header.Get("X-Amz-Security-Token") != "session" {
			t.Errorf("sent %v", r.Header)
		}
	}
}

// That there is nothing to find is found out once in a while, not for each request.
func TestAmbientAbsenceIsRemembered(t *testing.T) {
	clearAmbient(t)
	var asked atomic.Int32
	role := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		http.Error(w, theSecret, http.StatusForbidden)
	}))
	defer role.Close()
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", role.URL)
	_, endpoint := newS3Store(t)
	c := newTestClient(t, Config{AllowCIDRs: loopback, AllowAmbientCredentials: true})
	o := ambientOrigin(t, endpoint)
	for range 5 {
		a := c.Get(t.Context(), o, get("/a.jpg"))
		if discard(t, a); a.Outcome != Inconclusive || a.Reason != Misconfigured || a.Advice == "" {
			t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked for the role %d times", n)
	}
}
