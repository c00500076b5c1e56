package certs

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func numberedID(i int) (id topology.CertificateID) {
	binary.LittleEndian.PutUint64(id[:], uint64(i)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(id[8:], uint64(i))
	return id
}

// fill writes a folder as it is after n certificates were fetched, and tells the edge of them.
func (w *world) fill(dir string, n int) { w.fillWith(dir, n, n, w.apply) }

// fillWith does so for the first of n domains, with what tells the edge.
func (w *world) fillWith(dir string, n, certified int, tell func(route.Step)) {
	w.tb.Helper()
	pair := w.authority.Issue([]string{"images.some-customer.example.com"})
	plain := &topologyv1.KeyPair{Leaf: pair.Leaf.Raw, Key: pair.PKCS8(w.tb)}
	chain := &topologyv1.Chain{Certificates: [][]byte{w.authority.Cert.Raw}}
	chainID := topology.ChainOf(chain)
	f, err := os.Create(filepath.Join(dir, fileName))
	if err != nil {
		w.tb.Fatal(err)
	}
	out := bufio.NewWriterSize(f, 1<<20)
	head := make([]byte, align)
	copy(head, fileMagic)
	_, _ = out.Write(head)
	for i := range certified {
		id := numberedID(i)
		sealed, err := topology.SealKeyPair(w.ring, "default", "", id, plain)
		if err != nil {
			w.tb.Fatal(err)
		}
		sealed.Id = id[:]
		body, err := proto.Marshal(sealed)
		if err != nil {
			w.tb.Fatal(err)
		}
		_, _ = out.Write(appendRecord(nil, id, body))
	}
	if err := out.Flush(); err != nil {
		w.tb.Fatal(err)
	}
	if err := f.Close(); err != nil {
		w.tb.Fatal(err)
	}
	end := pair.Leaf.NotAfter.Unix()
	tell(route.Step{Full: true, Epoch: "e", SharedHost: "shared.test",
		Records: func(yield func(topology.Record, error) bool) {
			if !yield(w.record(topology.Key{Kind: topology.KindChains, ID: chainID.String()}, chain), nil) {
				return
			}
			for i := range n {
				id, name := numberedID(i), fmt.Sprintf("n%d.example.com", i)
				records := []topology.Record{
					w.record(topology.Key{Kind: topology.KindCustomDomains, Account: "acme", ID: name},
						&topologyv1.CustomDomain{
							Domain: name, State: topologyv1.CustomDomain_ACTIVE,
						}),
					w.record(topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: name},
						&topologyv1.Certificate{
							Id: id[:], Chain: chainID[:], NotAfter: end,
						}),
				}
				if i >= certified {
					records = records[:1]
				}
				for _, r := range records {
					if !yield(r, nil) {
						return
					}
				}
			}
		}})
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkStart measures a cold start: how long until the first handshake, whatever has been read
// by then, and until all certificates are known, and what they take of memory then: the file's
// index, and as many ready certificates as are kept.
func BenchmarkStart(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			if n > 100_000 && testing.Short() {
				b.Skip("a million certificates take 1.3 GB of disk")
			}
			w, dir := newWorld(b), b.TempDir()
			w.fill(dir, n)
			w.setAway(true)
			before := heapInUse()
			for b.Loop() {
				began := time.Now()
				e := w.start(dir, nil)
				w.of(fmt.Sprintf("n%d.example.com", n-1))
				if _, err := e.Get(w.of(fmt.Sprintf("n%d.example.com", n-1))); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-last")
				<-e.loaded
				b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms-to-all")
				b.StopTimer()
				for i := range min(n, DefaultReady+1000) {
					if _, err := e.Get(w.of(fmt.Sprintf("n%d.example.com", i))); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(int64(heapInUse())-int64(before))/(1<<20), "MiB")
				runtime.KeepAlive(e)
				e.stop()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkGet measures a handshake's look for its certificate.
func BenchmarkGet(b *testing.B) {
	const n = 10_000
	w, dir := newWorld(b), b.TempDir()
	w.fill(dir, n)
	root := w.table.Root()
	look := func(i int) *topology.Certificate {
		return root.Certificate(root.DomainOf(fmt.Sprintf("n%d.example.com", i%n)), time.Now())
	}
	run := func(name string, ready int, fetch bool) {
		b.Run(name, func(b *testing.B) {
			folder := dir
			if fetch {
				folder = b.TempDir()
			}
			one := w.numbered(b)
			c, err := New(Config{
				Dir: folder, Ready: ready, Root: w.table.Root, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
				Registerer: prometheus.NewRegistry(),
				Fetch: func(_ context.Context, ids []topology.CertificateID) ([]*topologyv1.SealedCertificate, error) {
					return []*topologyv1.SealedCertificate{one(ids[0])}, nil
				},
			})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := c.file.load(); err != nil {
				b.Fatal(err)
			}
			close(c.loaded)
			defer c.file.close()
			wants := make([]*topology.Certificate, n)
			for i := range wants {
				wants[i] = look(i)
			}
			if ready > n {
				for _, want := range wants {
					if _, err := c.Get(want); err != nil {
						b.Fatal(err)
					}
				}
			}
			i := 0
			for b.Loop() {
				if _, err := c.Get(wants[i%n]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
	run("ready", 2*n, false)
	run("disk", 1, false)
	run("fetched", 1, true)
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			if root.Certificate(root.DomainOf("n77.example.com"), time.Now()) == nil {
				b.Fatal("none")
			}
		}
	})
}

// numbered returns what seals a certificate for an id.
func (w *world) numbered(b *testing.B) func(topology.CertificateID) *topologyv1.SealedCertificate {
	pair := w.authority.Issue([]string{"images.some-customer.example.com"})
	plain := &topologyv1.KeyPair{Leaf: pair.Leaf.Raw, Key: pair.PKCS8(b)}
	return func(id topology.CertificateID) *topologyv1.SealedCertificate {
		sealed, err := topology.SealKeyPair(w.ring, "default", "", id, plain)
		if err != nil {
			b.Fatal(err)
		}
		sealed.Id = id[:]
		return sealed
	}
}
