package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The commands of the recipes, typed as they stand with the addresses of servers that are there, do
// what the recipes say.
func TestRecipes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	f := startFleet(t)
	serve := func(files map[string]string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if body, ok := files[r.URL.Path]; ok {
				w.Write([]byte(body))
				return
			}
			http.NotFound(w, r)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	addresses := strings.NewReplacer(
		"http://127.0.0.1:9002", serve(map[string]string{"/a.txt": "moved"}),
		"http://127.0.0.1:9003", serve(map[string]string{"/b.txt": "to be seen by testers"}))
	f.apply(t, `{account: {id: acme}, origins: [{id: legacy, web: {baseUrl: "`+serve(map[string]string{"/a.txt": "old", "/b.txt": "only there"})+
		`"}}], urlEndpoints: [{id: default, origins: [legacy]}]}`, "--wait")
	dir := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(dir, "edgewalk")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "placeholder.png"), []byte("a picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{ // what the first edge shows after a command
		"origins=legacy,new":         "/acme/a.txt old",
		"origins=new,legacy":         "/acme/a.txt moved",
		"origins=new --wait":         "/acme/a.txt moved",
		"create custom-domain":       "/acme/staging/b.txt to be seen by testers",
		"get url-endpoint staging":   "/acme/staging/a.txt moved",
		"defaultImage.path=/placeho": "/acme/nobody.png a picture",
	}
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line = addresses.Replace(strings.TrimSpace(line))
			cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-c", line)
			cmd.Dir, cmd.SysProcAttr = dir, childAttributes()
			cmd.Env = append(cleanEnvironment(), "PATH="+dir+":"+os.Getenv("PATH"),
				"EDGEWALK_SERVER="+f.controlPlane.admin, "EDGEWALK_TOKEN="+theToken)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s\n%v\n%s", line, err, out)
			}
			ran++
			for part, see := range shown {
				if path, body, _ := strings.Cut(see, " "); strings.Contains(line, part) {
					f.edges[0].serves(t, path, body)
				}
			}
		}
	}
	if ran < 10 {
		t.Errorf("only %d commands were found", ran)
	}
}
