package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the edgewalk that tests run; plainBinary is one without the race detector, for tests
// that measure. Both are set by TestMain before any test, like scratch, where processes keep
// temporary files: those that are killed leave theirs.
var binary, plainBinary, scratch string

// theToken is root's and the edges' at control planes that are started with tokenFile, as all are
// for which a test does not say otherwise: several of one etcd then take the same.
const theToken = "of-the-tests"

var tokenFile string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ewe")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	scratch = dir // Its name is short: unix sockets lie below it.
	tokenFile = filepath.Join(dir, "token")
	if err := os.WriteFile(tokenFile, []byte(theToken+"\n"), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binary, plainBinary = filepath.Join(dir, "edgewalk"), filepath.Join(dir, "edgewalk")
	if err := build(binary, raceBuilt); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if raceBuilt {
		plainBinary = filepath.Join(dir, "edgewalk-plain")
	}
	defer func() { stopChromium() }()
	return m.Run()
}

// build compiles the binary with what the go command has in its cache.
func build(to string, race bool) error {
	args := []string{"build", "-o", to}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/edgewalk")...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build edgewalk: %w\n%s", err, out)
	}
	return nil
}
