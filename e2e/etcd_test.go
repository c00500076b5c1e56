package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// tool finds a program that some tests need, and skips them without it; a CI that lacks it is
// broken.
func tool(t *testing.T, name, debian string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not in PATH: install Debian's %s", name, debian)
	}
	t.Skipf("%s is not in PATH: install Debian's %s to run this", name, debian)
	return ""
}

// etcdMember is one server of an etcd cluster.
type etcdMember struct {
	*process
	args   []string
	client string // URL
}

// startEtcd runs a cluster of three members.
func startEtcd(t *testing.T, dir string) []*etcdMember {
	t.Helper()
	program := tool(t, "etcd", "etcd-server")
	var members []*etcdMember
	var cluster []string
	for i := range 3 {
		name, client, peer := fmt.Sprintf("m%d", i), "http://"+listentest.Unused(t), "http://"+listentest.Unused(t)
		cluster = append(cluster, name+"="+peer)
		members = append(members,
			&etcdMember{client: client, args: []string{"--name", name, "--data-dir", filepath.Join(dir, name),
				"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
				"--initial-advertise-peer-urls", peer, "--initial-cluster-token", filepath.Base(dir),
				"--heartbeat-interval", "100", "--election-timeout", "1000"}})
	}
	for _, m := range members {
		m.args = append(m.args, "--initial-cluster", strings.Join(cluster, ","))
		m.run(t, program)
	}
	for _, m := range members {
		m.waitHealthy(t)
	}
	return members
}

func (m *etcdMember) run(t *testing.T, program string) {
	t.Helper()
	m.process = start(t, "etcd", program, m.args...)
	m.foreign = true
}

func (m *etcdMember) waitHealthy(t *testing.T) {
	t.Helper()
	eventually(t, startWithin, "etcd at "+m.client+" is healthy", func() bool {
		r, err := visit(t.Context(), strings.TrimPrefix(m.client, "http://"), "localhost", "/health")
		return err == nil && r.status == http.StatusOK
	})
}

func endpointsOf(members []*etcdMember) string {
	var urls []string
	for _, m := range members {
		urls = append(urls, m.client)
	}
	return strings.Join(urls, ",")
}

// replicas are two control planes on one etcd cluster and one media bucket; each edge is connected
// to one of them only.
type replicas struct {
	etcd   []*etcdMember
	admins []*admin
	edges  []*edge
}

func startReplicas(t *testing.T) *replicas {
	t.Helper()
	dir := shortDir(t)
	r := &replicas{etcd: startEtcd(t, filepath.Join(dir, "etcd"))}
	for i := range 2 {
		name := fmt.Sprint(i)
		cp := startControlPlane(t, filepath.Join(dir, "cp"+name), "--etcd-endpoints", endpointsOf(r.etcd),
			"--secret-key-file", dir+"/secret-key", "--media-url", "file://"+dir+"/bucket")
		r.admins = append(r.admins, cp.administer(t))
		r.edges = append(r.edges,
			startEdge(t, filepath.Join(dir, "edge"+name), "edge-"+name, cp.edges, "--region", "region-"+name))
	}
	for _, e := range r.edges {
		e.waitReady(t)
	}
	for _, a := range r.admins {
		eventually(t, soon, "each control plane knows both edges", func() bool {
			list, _ := a.object(t, "edges")["edges"].([]any)
			return len(list) == 2
		})
	}
	return r
}

func TestControlPlanesShareAnEtcdCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	r := startReplicas(t)
	t.Run("tour", func(t *testing.T) {
		f := &fleet{admin: r.admins[0], edges: r.edges}
		for _, part := range []struct {
			name string
			run  func(t *testing.T, f *fleet)
		}{
			{"walk and cache", walkAndCache}, {"default image", defaultImage},
			{"identifiers and domains", identifiersAndDomains}, {"media library", mediaLibrary}, {"purges", purges},
			{"order of origins", orderOfOrigins}, {"successor", successor},
		} {
			t.Run(part.name, func(t *testing.T) { part.run(t, f) })
		}
	})
	t.Run("written through one, served by the other's edge", func(t *testing.T) { r.crossed(t) })
	t.Run("raced domain", func(t *testing.T) { r.racedDomain(t) })
	t.Run("etcd dies and comes back", func(t *testing.T) { r.losesEtcd(t) })
}

func (r *replicas) crossed(t *testing.T) {
	first := newOrigin(t, map[string]string{"/a.txt": "first"})
	second := newOrigin(t, map[string]string{"/a.txt": "second"})
	manifest := "account: {id: crossed}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n"
	for round := range 5 {
		for i, a := range r.admins {
			other := r.edges[1-i]
			o, body := first, "first"
			if (round+i)%2 == 1 {
				o, body = second, "second"
			}
			has(t, "apply", a.apply(t, fmt.Sprintf(manifest, o.url)), "applied by 2 of 2 edges")
			other.serves(t, "/crossed/a.txt", body)
			text := fmt.Sprintf("file of round %d at control plane %d", round, i)
			a.upload(t, "crossed", "/m.txt", text)
			other.serves(t, "/crossed/m.txt", text)
			a.do(t, "purge", "-A", "crossed", "--all", "--wait")
			if got := other.serves(t, "/crossed/a.txt", body); got.hit() {
				t.Errorf("after a purge through the other control plane: %s, want no hit", got)
			}
		}
	}
	for _, a := range r.admins {
		has(t, "edges", a.do(t, "edges"), "edge-0", "edge-1")
	}
}

// Two accounts claim one domain at the same time, through different control planes: one gets it,
// and the other's apply changes nothing at all.
func (r *replicas) racedDomain(t *testing.T) {
	for round := range 10 {
		var wg sync.WaitGroup
		results := make([]result, 2)
		domain := fmt.Sprintf("raced-%d.example", round)
		for i, a := range r.admins {
			wg.Go(func() {
				manifest := fmt.Sprintf("account: {id: racer-%d-%d}\norigins: [{id: o, web: {baseUrl: \"http://127.0.0.1:9\"}}]\ncustomDomains: [{domain: %s, mode: ACCOUNT}]\n", round, i, domain)
				results[i] = a.try(t, manifest, "apply", "-f", "-")
			})
		}
		wg.Wait()
		winner := 0
		if results[0].code != 0 {
			winner = 1
		}
		if won, lost := results[winner], results[1-winner]; won.code != 0 || lost.code != 1 ||
			!strings.Contains(lost.stderr, domain) {
			t.Fatalf("round %d: exit codes %d and %d: %s%s", round, results[0].code, results[1].code, results[0].stderr,
				results[1].stderr)
		}
		a := r.admins[winner]
		if loser := fmt.Sprintf("racer-%d-%d", round, 1-winner); a.try(t, "", "get", "account", loser).code != 1 {
			t.Errorf("round %d: a part of the refused apply of %s was kept", round, loser)
		}
		has(t, "domains of the winner", a.do(t, "get", "domains", "-A", fmt.Sprintf("racer-%d-%d", round, winner)),
			domain)
	}
}

// A token that one control plane makes and revokes is known, and refused within 2 s, at the other.
func (r *replicas) revokesAToken(t *testing.T) {
	token := strings.TrimSpace(r.admins[0].do(t, "token", "create", "--role", "viewer", "-A", "outage"))
	viewer := &admin{server: r.admins[1].server, dir: t.TempDir(), env: []string{"EDGEWALK_TOKEN=" + token}}
	reads := func() result { return viewer.try(t, "", "get", "account", "outage") }
	eventually(t, soon, "the other control plane knows the token", func() bool { return reads().code == 0 })
	id := strings.Split(token, "_")[1]
	r.admins[0].do(t, "token", "revoke", id)
	took := busyclock.Start(t)
	eventually(t, soon, "the other control plane refuses the token", func() bool {
		got := reads()
		return got.code != 0 && strings.Contains(got.stderr, "token")
	})
	if took := took(); took > 2*time.Second {
		t.Errorf("a revoked token was refused after %v", took)
	}
}

func (r *replicas) losesEtcd(t *testing.T) {
	o := newOrigin(t, map[string]string{"/cached.txt": "cached", "/uncached.txt": "uncached"})
	manifest := "account: {id: outage, displayName: %s}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n"
	r.admins[0].apply(t, fmt.Sprintf(manifest, "before", o.url))
	for _, e := range r.edges {
		e.serves(t, "/outage/cached.txt", "cached")
	}
	// One of three may die at any time.
	r.etcd[0].kill9(t)
	for i, a := range r.admins {
		a.apply(t, fmt.Sprintf(manifest, fmt.Sprintf("minority-%d", i), o.url))
	}
	r.revokesAToken(t)
	// Without a quorum nothing can be written, and a write soon fails with that.
	r.etcd[1].kill9(t)
	for _, a := range r.admins {
		got := a.try(t, fmt.Sprintf(manifest, "outage", o.url), "apply", "-f", "-")
		if got.code != 1 || got.took > 45*time.Second {
			t.Errorf("apply without etcd: exit code %d after %s", got.code, got.took)
		}
		has(t, "apply without etcd", got.stderr, "etcd")
		t.Logf("apply without a quorum: after %s: %s", got.took.Round(time.Millisecond), strings.TrimSpace(got.stderr))
	}
	for _, e := range r.edges {
		if got := e.serves(t, "/outage/cached.txt", "cached"); !got.hit() {
			t.Errorf("without etcd: %s, want a hit", got)
		}
		e.serves(t, "/outage/uncached.txt", "uncached")
	}
	for _, m := range r.etcd[:2] {
		m.run(t, m.cmd.Path)
	}
	for _, m := range r.etcd {
		m.waitHealthy(t)
	}
	for i, a := range r.admins {
		eventually(t, soon, "the control plane writes again", func() bool {
			return a.try(
				t, fmt.Sprintf(manifest, fmt.Sprintf("after-%d", i), o.url), "apply", "-f", "-", "--wait",
			).code == 0
		})
		has(t, "account", a.do(t, "get", "account", "outage"), fmt.Sprintf("after-%d", i))
	}
}
