package origin

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// nginx as a web origin, as a listed host, and as the far end of a redirect.
func TestNginx(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	if os.Getenv("CI") != "" {
		t.Skip("CI has no nginx: run make test-long on a machine that has it")
	}
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	dir, address := t.TempDir(), listentest.Unused(t)
	for path, key := range exactFiles {
		file := filepath.Join(dir, "www", "files", filepath.FromSlash(key))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("body of "+path), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	config := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr crit;
events {}
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server {
		listen %[2]s; root %[1]s/www; merge_slashes off;
		location /moved/ { rewrite ^/moved/(.*)$ /files/$1 redirect; }
		location /login/ { return 302 /login/again; }
		location /private/ { deny all; }
		location /soft/ { types {} default_type text/html; return 200 "<html>not found</html>"; }
		location /broken/ { return 500; }
		location /busy/ { add_header Retry-After 3 always; return 503; }
	}
}
`, dir, address)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	startServer(t, exec.Command(nginx, "-p", dir, "-e", "stderr", "-c", file), address)
	c := serverClient(t)
	base := "http://" + address
	for path := range exactFiles {
		for name, a := range map[string]*Answer{
			"web":           c.Get(t.Context(), webOrigin(t, base+"/files"), get(path)),
			"redirected":    c.Get(t.Context(), webOrigin(t, base+"/moved/"), get("/plain.jpg")),
			"proxy":         c.Get(t.Context(), proxyOrigin(t, base), get("/"+base+"/files"+path)),
			"proxy encoded": c.Get(t.Context(), proxyOrigin(t, base), get("/"+url.PathEscape(base+"/files"+path))),
		} {
			if a.Outcome != Found {
				t.Errorf("%s %s: %s %q: %s", name, path, a.Outcome, a.Reason, a.Detail)
				continue
			}
			want := "body of " + path
			if name == "redirected" {
				want = "body of /plain.jpg"
			}
			if body, err := read(t, a); body != want || err != nil {
				t.Errorf("%s %s: read %q, %v", name, path, body, err)
			}
		}
	}
	for _, test := range []struct {
		path    string
		outcome Outcome
		reason  Reason
	}{
		{"/files/gone.jpg", NotHere, ""}, {"/soft/a.jpg", NotHere, SoftNotFound},
		{"/login/a.jpg", Inconclusive, Misconfigured}, {"/private/a.jpg", Inconclusive, Misconfigured},
		{"/broken/a.jpg", Inconclusive, Failed}, {"/busy/a.jpg", Inconclusive, Busy},
	} {
		for path, o := range map[string]*Answer{
			"web":   c.Get(t.Context(), webOrigin(t, base), get(test.path)),
			"proxy": c.Get(t.Context(), proxyOrigin(t, base), get("/"+base+test.path)),
		} {
			if discard(t, o); o.Outcome != test.outcome || o.Reason != test.reason {
				t.Errorf("%s %s: %s %q: %s", path, test.path, o.Outcome, o.Reason, o.Detail)
			}
		}
	}
	testConditions(t, c, webOrigin(t, base+"/files"), "/plain.jpg", "body of /plain.jpg",
		abilities{ifRange: true, tag: true, date: true})
}
