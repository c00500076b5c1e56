package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// cluster is three etcd processes of the machine's own etcd, 3.4 or newer.
type cluster struct {
	t       *testing.T
	dir     string
	members [3]*exec.Cmd
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	binary, err := exec.LookPath("etcd")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no etcd in PATH: install Debian's etcd-server")
		}
		t.Skip("no etcd in PATH: install Debian's etcd-server")
	}
	c := &cluster{t: t}
	if c.dir, err = os.MkdirTemp("", "ewc"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.kill(i)
		}
		_ = os.RemoveAll(c.dir)
	})
	for i := range c.members {
		c.start(binary, i)
	}
	return c
}

// start runs a member in the cluster's folder, where the members' sockets lie.
func (c *cluster) start(binary string, i int) {
	c.t.Helper()
	cmd := exec.Command(binary,
		"--name", fmt.Sprintf("m%d", i), "--data-dir", fmt.Sprintf("d%d", i),
		"--listen-peer-urls", fmt.Sprintf("unix://p%d:0", i), "--initial-advertise-peer-urls",
		fmt.Sprintf("unix://p%d:0", i),
		"--listen-client-urls", fmt.Sprintf("unix://c%d:0", i), "--advertise-client-urls",
		fmt.Sprintf("unix://c%d:0", i),
		"--initial-cluster", "m0=unix://p0:0,m1=unix://p1:0,m2=unix://p2:0",
		"--heartbeat-interval", "50", "--election-timeout", "500")
	cmd.Dir = c.dir
	_ = os.Remove(strings.TrimPrefix(c.endpoint(i), "unix://")) // 3.4 does not bind over what a killed member left
	log, err := os.Create(filepath.Join(c.dir, fmt.Sprintf("log%d", i)))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.members[i] = cmd
}

func (c *cluster) kill(i int) {
	if cmd := c.members[i]; cmd != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		c.members[i] = nil
	}
}

func (c *cluster) endpoint(i int) string { return fmt.Sprintf("unix://%s/c%d:0", c.dir, i) }

func (c *cluster) open(endpoints ...int) *store.Store {
	c.t.Helper()
	var urls []string
	for _, i := range endpoints {
		urls = append(urls, c.endpoint(i))
	}
	client, err := store.Dial(store.DialConfig{Endpoints: urls})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = client.Close() })
	return storetest.Open(c.t, store.Config{Client: client})
}

func TestExternalCluster(t *testing.T) {
	c := startCluster(t)
	s := c.open(0, 1, 2)
	m := follow(t, s, nil)
	mustPut(t, s, "acme", accountPut("acme", "0"), domainPut("acme", "img.example.com"))
	var puts []store.Put
	for i := range store.MaxResources {
		puts = append(puts, originPut("acme", fmt.Sprintf("o%d", i), "http://a"))
	}
	big := mustPut(t, s, "acme", puts...)
	eventually(t, func() bool { return m.at() == big })
	if n := len(m.last().Records); n != store.MaxResources {
		t.Errorf("%d resources came as %d", store.MaxResources, n)
	}
	m.check(s)
	if status, err := s.Status(t.Context()); err != nil || status.SizeBytes == 0 {
		t.Errorf("status %+v, %v", status, err)
	}

	// One member after the other is killed and comes back, while writers go on.
	binary := c.members[0].Path
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var done, unknown atomic.Int64
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				switch err := increment(t.Context(), s); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, store.ErrUnknownOutcome):
					unknown.Add(1)
				case !errors.Is(err, store.ErrUnavailable):
					t.Error(err)
				}
			}
		})
	}
	for i := range c.members {
		before := done.Load()
		eventually(t, func() bool { return done.Load() > before+50 })
		c.kill(i)
		before = done.Load()
		eventually(t, func() bool { return done.Load() > before+50 })
		c.start(binary, i)
	}
	cancel()
	wg.Wait()
	if n := int64(number(t, s)); n < done.Load() || n > done.Load()+unknown.Load() {
		t.Errorf("%d writes and %d of unknown outcome led to %d", done.Load(), unknown.Load(), n)
	}
	t.Logf("%d writes, %d of unknown outcome", done.Load(), unknown.Load())

	// Without a quorum a write ends in bounded time and says that it may have happened or that it
	// did not.
	c.kill(0)
	c.kill(1)
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	took := busyclock.Start(t)
	_, err := put(short, s, "acme", accountPut("acme", "-1"))
	if !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("write without a quorum: %v", err)
	}
	if took := took(); took > 6*time.Second {
		t.Errorf("write without a quorum took %s", took)
	}
	if err := s.Health(t.Context()); !errors.Is(err, store.ErrUnavailable) ||
		!strings.Contains(err.Error(), "etcd unavailable") {
		t.Errorf("health without a quorum: %v", err)
	}
	c.start(binary, 0)
	c.start(binary, 1)
	last := mustPut(t, s, "acme", accountPut("acme", "end"))
	eventually(t, func() bool { return m.at() >= last })
	m.check(s)
	if _, _, err := s.Get(t.Context(), key(topology.KindCustomDomains, "acme", "img.example.com")); err != nil {
		t.Error(err)
	}
}

// leader waits until there is one and returns which member it is.
func (c *cluster) leader(s *store.Store) (found int) {
	c.t.Helper()
	eventually(c.t, func() bool {
		for i := range c.members {
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			member, leader, err := s.Leader(ctx, c.endpoint(i))
			cancel()
			if err == nil && member == leader {
				found = i
				return true
			}
		}
		return false
	})
	return found
}
