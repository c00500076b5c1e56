package etcdnode

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// holdDir makes this test binary the other process: it runs a server over the folder, stores a key,
// and waits for its end.
const holdDir = "ETCDNODE_TEST_HOLD"

func hold(dir string) error {
	node, err := Start(context.Background(), Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{node.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	if _, err := client.Put(context.Background(), "/k", "v"); err != nil {
		return err
	}
	fmt.Println("stored")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// Another process has the folder, says so, and is killed: what it stored is there, and its lock is
// not.
func TestFolderOfAKilledProcess(t *testing.T) {
	dir := t.TempDir()
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), holdDir+"="+dir)
	stdin, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stdout, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "stored\n" {
		t.Errorf("the other process says %q, %v", line, err)
	}
	if _, err := start(t, dir); !errors.Is(err, ErrInUse) ||
		!strings.Contains(err.Error(), fmt.Sprint("process ", other.Process.Pid)) {
		t.Errorf("second start: %v, want an error that names process %d", err, other.Process.Pid)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait()
	lock, err := os.ReadFile(filepath.Join(dir, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	sockets := strings.Split(string(lock), "\n")[1]
	if _, err := os.Stat(filepath.Join(sockets, clientSocket)); err != nil {
		t.Errorf("the killed process left no socket: %v", err)
	}

	node := mustStart(t, dir)
	defer stop(t, node)
	got, err := dial(t, node).Get(t.Context(), "/k")
	if err != nil || len(got.Kvs) != 1 {
		t.Errorf("after a kill: %v, %v; want what the other process had stored", got, err)
	}
	if _, err := os.Stat(sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("sockets of the killed process are still there: %v", err)
	}
}
