package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// The account of the measurements, its host name, and the shared host.
const (
	accountID  = "bench"
	benchHost  = "images.bench.test"
	sharedHost = "shared.bench.test"
)

// fleet is a control plane with its embedded etcd, and edges.
type fleet struct {
	b            *bench
	controlplane *process
	args         []string // of the control plane
	data         string   // its folder
	edgeAddr     string
	httpAddr     string
	certificate  string      // the file with the control plane's, empty for none
	trust        *tls.Config // nil without a certificate
	conn         *grpc.ClientConn
	edges        []*edge
}

// edge is an edge agent.
type edge struct {
	*process
	http, https, metrics string
	core                 int
	binary               string
	args                 []string
}

// startFleet starts a control plane and waits until it answers.
func (b *bench) startFleet(ctx context.Context) (*fleet, error) {
	return b.startControlPlane(ctx, "controlplane", false)
}

// startControlPlane starts one with a folder of its own, and waits until it answers. secure is for
// TLS at all its listeners.
func (b *bench) startControlPlane(ctx context.Context, name string, secure bool) (*fleet, error) {
	var at [4]string
	for i := range at {
		var err error
		if at[i], err = b.freeAddress(); err != nil {
			return nil, err
		}
	}
	data, err := b.folder(name)
	if err != nil {
		return nil, err
	}
	token, err := b.tokenFile()
	if err != nil {
		return nil, err
	}
	f := &fleet{b: b, data: data, edgeAddr: at[1], httpAddr: at[2]}
	f.args = []string{"controlplane", "--data-dir", data, "--admin-addr", at[0], "--edge-addr", at[1], "--http-addr",
		at[2], "--media-addr", at[3],
		"--shared-host", sharedHost, "--admin-token-file", token, "--edge-token-file", token}
	transport := insecure.NewCredentials()
	if secure {
		certificate, key, err := b.certificate()
		if err != nil {
			return nil, err
		}
		if f.trust, err = trusting(certificate); err != nil {
			return nil, err
		}
		f.certificate, transport = certificate, credentials.NewTLS(f.trust)
		f.args = append(f.args, "--tls-cert", certificate, "--tls-key", key)
	}
	if f.conn, err = grpc.NewClient(
		at[0], grpc.WithTransportCredentials(transport), grpc.WithPerRPCCredentials(theToken{}),
	); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, func() { f.conn.Close() })
	return f, f.runControlPlane(ctx, name)
}

// runControlPlane executes the control plane, for the first time or again, and waits until it has
// the topology.
func (f *fleet) runControlPlane(ctx context.Context, name string) (err error) {
	f.controlplane, err = f.b.start(name, noCore, f.b.binary, f.args...)
	if err != nil {
		return err
	}
	return f.controlplane.await(ctx, f.ready)
}

// startEdge starts an edge, without waiting for it. name is its id.
func (f *fleet) startEdge(name string, more ...string) (*edge, error) {
	return f.startOther(f.b.binary, name, noCore, more...)
}

// startOther starts an edge of another binary.
func (f *fleet) startOther(binary, name string, core int, more ...string) (*edge, error) {
	e := &edge{core: core, binary: binary}
	for _, at := range []*string{&e.http, &e.metrics} {
		var err error
		if *at, err = f.b.freeAddress(); err != nil {
			return nil, err
		}
	}
	state, err := f.b.folder(name)
	if err != nil {
		return nil, err
	}
	token, err := f.b.tokenFile()
	if err != nil {
		return nil, err
	}
	e.args = append([]string{"edgeagent", "--edge-token-file", token, "--control-plane", f.edgeAddr, "--http-addr",
		e.http, "--metrics-addr", e.metrics, "--state-dir", state,
		"--id", name, "--allow-private-origins"}, more...)
	if err := f.run(name, e); err != nil {
		return nil, err
	}
	f.edges = append(f.edges, e)
	return e, nil
}

// run executes the edge, for the first time or again.
func (f *fleet) run(name string, e *edge) (err error) {
	e.process, err = f.b.start(name, e.core, e.binary, e.args...)
	return err
}

// await waits until a server is up. Its error carries the last output of the server.
func (p *process) await(ctx context.Context, up func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	err := poll(ctx, 10*time.Millisecond, func() bool { return p.ended() || up() })
	if p.ended() {
		err = fmt.Errorf("ended by itself")
	}
	if err != nil {
		return fmt.Errorf("%s is not up: %w\n%s", p.name, err, p.tail())
	}
	return nil
}

// ready asks whether the control plane is.
func (f *fleet) ready() bool {
	if f.trust == nil {
		return readyAt(http.DefaultClient, "http://"+f.httpAddr)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: f.trust}}
	defer client.CloseIdleConnections()
	return readyAt(client, "https://"+f.httpAddr)
}

// ready asks the health listener of an edge.
func ready(address string) bool { return readyAt(http.DefaultClient, "http://"+address) }

func readyAt(client *http.Client, url string) bool {
	response, err := client.Get(url + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body) // Only the status counts.
	return response.StatusCode == http.StatusOK
}

// apply applies a manifest and returns its revision.
func (f *fleet) apply(ctx context.Context, m *adminv1.Manifest) (int64, error) {
	response, err := adminv1.NewManifestServiceClient(f.conn).ApplyManifest(ctx, &adminv1.ApplyManifestRequest{
		Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: m},
	})
	return response.GetRevision(), err
}

// wait waits until all edges have applied a revision.
func (f *fleet) wait(ctx context.Context, revision int64) error {
	edges := int32(len(f.edges))
	_, err := adminv1.NewFleetServiceClient(f.conn).WaitApplied(ctx, &adminv1.WaitAppliedRequest{
		Revision: revision, MinEdges: &edges, Timeout: durationpb.New(60 * time.Second),
	})
	if err != nil {
		for _, e := range f.edges {
			if e.process != nil && e.ended() {
				return fmt.Errorf("%w; %s ended:\n%s", err, e.name, e.tail())
			}
		}
	}
	return err
}

// applyAndWait applies a manifest and returns once all edges serve by it.
func (f *fleet) applyAndWait(ctx context.Context, m *adminv1.Manifest) error {
	revision, err := f.apply(ctx, m)
	if err != nil {
		return err
	}
	return f.wait(ctx, revision)
}

// webManifest is the account of the measurements: web origins, which its default endpoint walks in
// order.
func webManifest(origins ...*origin) *adminv1.Manifest {
	m := &adminv1.Manifest{
		Account:       &topologyv1.Account{Id: accountID},
		UrlEndpoints:  []*topologyv1.UrlEndpoint{{Id: "default"}},
		CustomDomains: []*topologyv1.CustomDomain{{Domain: benchHost, Mode: topologyv1.CustomDomain_ACCOUNT}},
	}
	for i, o := range origins {
		id := fmt.Sprintf("origin-%d", i)
		m.Origins = append(m.Origins,
			&topologyv1.Origin{Id: id, Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: o.url}}})
		m.UrlEndpoints[0].Origins = append(m.UrlEndpoints[0].Origins, id)
	}
	return m
}

// stop ends the control plane and its edges and removes what they have stored, so that the next
// fleet has the machine to itself.
func (f *fleet) stop() {
	for _, e := range f.edges {
		if e.process != nil {
			e.stop()
		}
	}
	f.controlplane.stop()
	os.RemoveAll(f.data)
}

// singleEdge starts a control plane and one edge in front of origins.
func (b *bench) singleEdge(ctx context.Context, core int, origins ...*origin) (*fleet, *edge, error) {
	f, err := b.startFleet(ctx)
	if err != nil {
		return nil, nil, err
	}
	e, err := f.secureEdge(b.binary, "edge", core)
	if err != nil {
		return nil, nil, err
	}
	return f, e, f.applyAndWait(ctx, webManifest(origins...))
}

// secureEdge starts an edge that serves HTTPS too.
func (f *fleet) secureEdge(binary, name string, core int) (*edge, error) {
	certificate, key, err := f.b.certificate()
	if err != nil {
		return nil, err
	}
	https, err := f.b.freeAddress()
	if err != nil {
		return nil, err
	}
	e, err := f.startOther(binary, name, core, "--https-addr", https, "--tls-cert", certificate, "--tls-key", key)
	if err != nil {
		return nil, err
	}
	e.https = https
	return e, nil
}
