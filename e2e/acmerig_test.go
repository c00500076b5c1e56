package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/acmetest"
	"github.com/edgewalk/edgewalk/internal/dnstest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// issuing is a deployment that gets certificates by itself: an etcd, two control planes, three
// edges, each at an address of its own, a certificate authority, and the DNS that all of them ask.
type issuing struct {
	*admin
	dir   string
	dns   *dnstest.Network
	ca    *acmetest.Authority
	etcd  *etcdMember
	key   string // names the key that secrets are sealed with
	flags []string
	cps   []*controlPlane
	// ports are the flags of the control planes that say where they listen, so that one that is
	// started again is found.
	ports [][]string
	edges []*issuingEdge
	// http and https are the ports of all edges. The test holds their sockets, so that an edge that
	// is started again has the same.
	http, https int
}

type issuingEdge struct {
	*edge
	at      string // address
	home    string // control planes
	sockets []*os.File
	in      *issuing
}

const issuingManifest = `account: {id: acme}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints: [{id: default, origins: [o]}]
`

// startIssuing starts all of them. Names below example.com lead to the edges; token.edge.example,
// for any token, does so too.
func startIssuing(t *testing.T, origin string, flags ...string) *issuing {
	t.Helper()
	s := &issuing{
		dir: shortDir(t), dns: dnstest.New(t, "ns1.example.net=127.0.0.11", "ns.edge.example=127.0.0.13"),
	}
	s.etcd = startOneEtcd(t, filepath.Join(s.dir, "etcd"))
	s.listen(t)
	var records strings.Builder
	for _, e := range s.edges {
		fmt.Fprintf(&records, "* A %s\n", e.at)
	}
	s.dns.Zone("example.com", "ns1.example.net", records.String())
	s.dns.Zone("edge.example", "ns.edge.example", records.String())
	s.ca = acmetest.New(t, acmetest.Config{DNS: s.dns.Resolver, HTTPPort: s.http})
	s.flags = append([]string{
		"--etcd-endpoints", s.etcd.client, "--secret-key-file", filepath.Join(s.dir, "secret-key"),
		"--media-url", "file://" + filepath.Join(s.dir, "bucket"), "--dns-resolvers", s.dns.Resolver.String(),
		"--domain-target", "edge.example", "--acme-agree-tos", "--acme-ca-file", s.ca.CAFile,
		"--acme-issuer", "name=le,directory=" + s.ca.Directory,
	}, flags...)
	s.cps = make([]*controlPlane, 2)
	for i := range s.cps {
		s.ports = append(s.ports, fixedPorts(t))
		s.startControlPlane(t, i)
	}
	s.admin, s.key = s.cps[0].administer(t), s.cps[0].logged(t, "key")["key"]
	for i, e := range s.edges {
		e.home = s.cps[i%2].edges + "," + s.cps[(i+1)%2].edges
		e.start(t)
	}
	for _, e := range s.edges {
		e.waitReady(t)
	}
	s.apply(t, fmt.Sprintf(issuingManifest, origin))
	return s
}

// startOneEtcd runs an etcd of one member.
func startOneEtcd(t *testing.T, dir string) *etcdMember {
	t.Helper()
	program := tool(t, "etcd", "etcd-server")
	client, peer := "http://"+listentest.Unused(t), "http://"+listentest.Unused(t)
	m := &etcdMember{client: client, args: []string{
		"--data-dir", dir, "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
	}}
	m.run(t, program)
	m.waitHealthy(t)
	return m
}

// listen opens the sockets of the edges, all for plain HTTP at one port, which is what a
// certificate authority expects, and all for HTTPS at another.
func (s *issuing) listen(t *testing.T) {
	t.Helper()
	hosts := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	plain, secure := listenAtOnePort(t, hosts), listenAtOnePort(t, hosts)
	s.http, s.https = portOf(plain[0]), portOf(secure[0])
	for i, host := range hosts {
		e := &issuingEdge{at: host, in: s}
		for _, l := range []net.Listener{plain[i], secure[i]} {
			file, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				file.Close()
				l.Close()
			})
			e.sockets = append(e.sockets, file)
		}
		s.edges = append(s.edges, e)
	}
}

func portOf(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// listenAtOnePort opens a socket at each host, all at one port that is free at all of them.
func listenAtOnePort(t *testing.T, hosts []string) (all []net.Listener) {
	t.Helper()
	for range 1000 {
		port := 0
		for _, host := range hosts {
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				break
			}
			all, port = append(all, l), portOf(l)
		}
		if len(all) == len(hosts) {
			return all
		}
		for _, l := range all {
			l.Close()
		}
		all = nil
	}
	t.Fatal("no port is free at all of the hosts")
	return nil
}

// startControlPlane starts one of the two control planes, or starts it again.
func (s *issuing) startControlPlane(t *testing.T, i int) {
	t.Helper()
	flags := append(slices.Clone(s.flags), s.ports[i]...)
	s.cps[i] = startControlPlane(t, filepath.Join(s.dir, fmt.Sprint("cp", i)), flags...)
}

// leader is the control plane that orders certificates, and the lease by which it does.
func (s *issuing) leader(t *testing.T) (i int, lease string) {
	t.Helper()
	eventually(t, startWithin, "a control plane leads", func() bool {
		var found struct {
			Kvs []struct {
				Key, Value []byte
				Lease      string
			}
		}
		// From a zero byte on, and to one, are all keys
		// (https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/).
		s.askEtcd(t, "/v3/kv/range", map[string]any{"key": []byte{0}, "range_end": []byte{0}}, &found)
		for _, kv := range found.Kvs {
			if strings.HasSuffix(string(kv.Key), "lead/issuer") {
				_, port, _ := strings.Cut(string(kv.Value), ":")
				leads := func(cp *controlPlane) bool { return strings.HasSuffix(cp.edges, ":"+port) }
				i, lease = slices.IndexFunc(s.cps, leads), kv.Lease
				return i >= 0
			}
		}
		return false
	})
	return i, lease
}

// expire ends the lease of a control plane that is dead, as time does.
func (s *issuing) expire(t *testing.T, lease string) {
	t.Helper()
	s.askEtcd(t, "/v3/lease/revoke", map[string]any{"ID": lease}, nil)
}

func (s *issuing) askEtcd(t *testing.T, path string, question, answer any) {
	t.Helper()
	text, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := browser.Post(s.etcd.client+path, "application/json", bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("etcd answers %s with %s", path, resp.Status)
	}
	if answer != nil {
		if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
			t.Fatal(err)
		}
	}
}

// start starts the edge, or starts it again, with the sockets that the test holds.
func (e *issuingEdge) start(t *testing.T) {
	t.Helper()
	id := "edge-" + strings.TrimPrefix(e.at, "127.0.0.")
	dir := filepath.Join(e.in.dir, id)
	args := []string{"edgeagent", "--id", id, "--control-plane", e.home, "--http-addr", "systemd:http",
		"--https-addr", "systemd:https", "--metrics-addr", "127.0.0.1:0", "--edge-token-file", tokenFile,
		"--state-dir", filepath.Join(dir, "state"), "--cache-dir", filepath.Join(dir, "cache"),
		"--allow-private-origins"}
	// The shell has the process id that LISTEN_PID must be, and keeps it by exec.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary}, args...)...)
	cmd.Env = append(cleanEnvironment(), "LISTEN_FDS=2", "LISTEN_FDNAMES=http:https")
	cmd.ExtraFiles = e.sockets
	e.edge = &edge{process: run(t, id, args, cmd), id: id, dir: dir}
	at := e.logged(t, "http", "https", "metrics")
	e.edge.http, e.edge.metrics = at["http"], at["metrics"]
}

// secure is where the edge serves HTTPS.
func (e *issuingEdge) secure() string { return net.JoinHostPort(e.at, strconv.Itoa(e.in.https)) }

// roots trust the certificate authority alone.
func (s *issuing) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.Root())
	return pool
}

// visits asks the edge for a file of a host over TLS.
func (e *issuingEdge) visits(ctx context.Context, host, path string) string {
	status, protocol, err := visitTLS(ctx, e.secure(), e.in.roots(), host, host, path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", status, protocol)
}

// leaf is the certificate that the edge shows for a host.
func (e *issuingEdge) leaf(host string) (*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", e.secure(), &tls.Config{ServerName: host, RootCAs: e.in.roots()})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

// certificateOf is what a field of a domain's certificate says.
func (s *issuing) certificateOf(t *testing.T, name, field string) string {
	t.Helper()
	return strings.TrimSpace(s.do(t, "get", "domain", name, "-A", "acme", "-o",
		"jsonpath={.customDomain.certificate."+field+"}"))
}

// served waits until all edges, or some, serve a domain over TLS, and fails the test unless they
// show the same certificate, which the authority has issued for it.
func (s *issuing) served(t *testing.T, name string, edges ...*issuingEdge) *x509.Certificate {
	t.Helper()
	if edges == nil {
		edges = s.edges
	}
	var shown *x509.Certificate
	for _, e := range edges {
		last := ""
		eventually(t, startWithin, e.id+" serves "+name, func() bool {
			last = e.visits(t.Context(), name, "/a.txt")
			return last == good
		})
		leaf, err := e.leaf(name)
		switch {
		case err != nil:
			t.Errorf("%s: %s: %v", e.id, name, err)
		case shown != nil && !shown.Equal(leaf):
			t.Errorf("%s shows certificate %s of %s, another one %s", e.id, leaf.SerialNumber, name, shown.SerialNumber)
		default:
			shown = leaf
		}
	}
	return shown
}

// tellsServing waits until so many of so many edges say that they have a domain's certificate.
func (s *issuing) tellsServing(t *testing.T, name string, serving, total int) {
	t.Helper()
	want, got := fmt.Sprintf(`{"serving":%d,"total":%d}`, serving, total), ""
	eventually(t, startWithin, want+" of "+name, func() bool {
		got = strings.ReplaceAll(s.certificateOf(t, name, "edges"), " ", "")
		return got == want
	})
}

// ordered fails the test unless names had so many orders, and no others any.
func (s *issuing) ordered(t *testing.T, want map[string]int) {
	t.Helper()
	got := s.ca.AllOrders()
	for name, n := range want {
		if got[name] != n {
			t.Errorf("%d orders for %s, want %d", got[name], name, n)
		}
		delete(got, name)
	}
	for name, n := range got {
		t.Errorf("%d orders for %s, which needed none", n, name)
	}
}
