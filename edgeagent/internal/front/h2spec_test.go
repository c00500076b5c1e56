package front

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"
)

// The server does what h2spec asks of one, also in what it calls strict.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("slow, because it waits for what must not happen: run make test-long")
	}
	t.Parallel()
	program := filepath.Join(t.TempDir(), "h2spec")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", program,
		"github.com/summerwind/h2spec/cmd/h2spec")
	build.Dir = "../../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build h2spec: %v\n%s", err, out)
	}
	r := newRig(t, echo, nil)
	host, port, err := net.SplitHostPort(r.secure)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(
		t.Context(), program, "--tls", "--insecure", "--strict", "--host", host, "--port", port,
	).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}
