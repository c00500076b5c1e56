package check

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
)

// flagsOf are the flags of the daemons, as their help lists them.
var flagsOf = sync.OnceValues(func() (map[string]string, error) {
	help := map[string]string{}
	for _, daemon := range []string{"controlplane", "edgeagent"} {
		cmd := exec.Command("go", "run", "./cmd/edgewalk", daemon, "--help")
		cmd.Dir = "../.."
		out, err := cmd.Output()
		if err != nil {
			return nil, err
		}
		help[daemon] = string(out)
	}
	return help, nil
})

// checkFlags checks that a daemon has the flags that it is started with.
func checkFlags(t *testing.T, args []string) {
	t.Helper()
	help, err := flagsOf()
	if err != nil {
		t.Fatal(err)
	}
	for _, arg := range args[1:] {
		flag, _, _ := strings.Cut(arg, "=")
		if !regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(flag) + `( |$)`).MatchString(help[args[0]]) {
			t.Errorf("edgewalk %s has no flag %s", args[0], flag)
		}
	}
}

// The compose file is one by the specification, starts daemons with flags that they have, and
// mounts files that are there.
func TestCompose(t *testing.T) {
	t.Parallel()
	options, err := cli.NewProjectOptions([]string{"../compose/compose.yaml"})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	names := project.ServiceNames()
	want := []string{
		"controlplane-1", "controlplane-2", "edge-1", "edge-2", "etcd-1", "etcd-2", "etcd-3", "grafana", "prometheus",
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("services %q, want %q", names, want)
	}
	for _, service := range project.Services {
		if service.Image == "edgewalk" {
			checkFlags(t, service.Command)
		}
		for _, volume := range service.Volumes {
			if volume.Type != "bind" {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil {
				t.Errorf("%s mounts %v", service.Name, err)
			}
		}
		for _, secret := range service.Secrets {
			if _, ok := project.Secrets[secret.Source]; !ok {
				t.Errorf("%s has no secret %s", service.Name, secret.Source)
			}
		}
	}
}

// The secrets that the script makes are those that a control plane takes, and it makes them once.
func TestComposeSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script, err := os.ReadFile("../compose/init.sh")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "init.sh")
	if err := os.WriteFile(path, script, 0o755); err != nil {
		t.Fatal(err)
	}
	made := map[string]string{}
	for range 2 {
		if out, err := exec.CommandContext(t.Context(), "sh", path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for name, form := range map[string]string{
			"admin-tokens": `^[0-9a-f]{64}$`, "edge-tokens": `^[0-9a-f]{64}$`,
			"secret-key": `^edgewalk-key-1:[\w-]{43}\n$`,
		} {
			text, err := os.ReadFile(filepath.Join(dir, "secrets", name))
			if err != nil {
				t.Fatal(err)
			}
			if !regexp.MustCompile(form).Match(text) {
				t.Errorf("%s holds %q", name, text)
			}
			if made[name] != "" && made[name] != string(text) {
				t.Errorf("%s was made anew", name)
			}
			made[name] = string(text)
		}
	}
}
