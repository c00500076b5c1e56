package control

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const domainsPerAccount = 100

func manyDomains(n int) iter.Seq[state.Change] {
	return func(yield func(state.Change) bool) {
		h := newHistory("e1")
		for i := range n {
			account := fmt.Sprint("account-", i/domainsPerAccount)
			var some []*edgev1.Change
			if i%domainsPerAccount == 0 {
				some = append(some, h.account(account))
			}
			some = append(some, h.domain(account, fmt.Sprintf("host-%d.customer-%d.example.com", i, i%977)))
			for _, c := range received(some) {
				if !yield(c) {
					return
				}
			}
			clear(h.live)
		}
	}
}

func benchConfig(dir string) Config {
	cfg := testConfig(nil, dir, "127.0.0.1:1")
	cfg.Logger = slog.New(slog.DiscardHandler)
	return cfg
}

// fill writes a state of n domains into a folder.
func fill(b testing.TB, dir string, n int) {
	b.Helper()
	c, err := New(benchConfig(dir))
	if err != nil {
		b.Fatal(err)
	}
	defer c.state.Close()
	s := c.state.Spool(state.Position{Epoch: "e1", Revision: int64(2 * n)},
		&edgev1.Welcome_Settings{SharedHost: "files.example"})
	var some []state.Change
	for ch := range manyDomains(n) {
		if some = append(some, ch); len(some) == 1000 {
			s.Add(some)
			some = some[:0]
		}
	}
	s.Add(some)
	c.state.Install(s, int64(2*n), time.Time{})
	if _, durable := c.state.Durable(); !durable {
		b.Fatal("the state cannot be written")
	}
}

// BenchmarkBoot is the time from the start to serving, from disk.
func BenchmarkBoot(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			fill(b, dir, n)
			for b.Loop() {
				before := heap()
				cfg := benchConfig(dir)
				c, err := New(cfg)
				if err != nil || cfg.Table.Root().Domains() != n {
					b.Fatal(cfg.Table.Root().Domains(), err)
				}
				b.StopTimer()
				b.ReportMetric(float64(heap()-before)/float64(n), "B/domain")
				c.state.Close()
				runtime.KeepAlive(c)
				b.StartTimer()
			}
		})
	}
}

// BenchmarkFullState is the time that an agent takes for a compressed full state, from the first
// message to the ack.
func BenchmarkFullState(b *testing.B) {
	for _, n := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			welcome := &edgev1.Welcome{Epoch: "e1", Settings: &edgev1.Welcome_Settings{SharedHost: "files.example"}}
			target := int64(2 * n)
			messages := [][]byte{encoded(b, begin(&edgev1.Begin{Full: true, Target: target}))}
			var digest topology.Digest
			var some []*edgev1.Change
			size, sent := 0, 0
			send := func() {
				m := encoded(b, zstdChunk(int64(len(messages)-1), compress(b, encodedChanges(b, some...))))
				messages = append(messages, m)
				sent += len(m)
				some, size = nil, 0
			}
			for c := range manyDomains(n) {
				key, err := topology.ParseKey(c.Key)
				if err != nil {
					b.Fatal(err)
				}
				digest.Add(topology.Record{Key: key, ModRevision: c.Mod, Value: c.Value})
				some = append(some,
					&edgev1.Change{Key: c.Key, ModRevision: c.Mod, CreateRevision: c.Create, Value: c.Value})
				if size += len(c.Key) + len(c.Value) + 12; size > 256<<10 {
					send()
				}
			}
			send()
			messages = append(messages, encoded(b, end(target, digest[:])))
			for b.Loop() {
				cfg := benchConfig(b.TempDir())
				c, err := New(cfg)
				if err != nil {
					b.Fatal(err)
				}
				s := &session{
					control: c, welcome: welcome, everything: true,
					out: newOutbox(func() *edgev1.Ack { return c.ack("e1") }),
				}
				for _, raw := range messages {
					m := new(edgev1.SyncResponse)
					if err := errors.Join(proto.Unmarshal(raw, m), s.handle(m)); err != nil {
						b.Fatal(err)
					}
				}
				if got := cfg.Table.Root().Domains(); got != n {
					b.Fatal(got)
				}
				c.state.Close()
			}
			b.ReportMetric(float64(sent)/float64(n), "wire-B/domain")
		})
	}
}

func encoded(tb testing.TB, m message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLiveStep is a step of one domain from the message to the ack: digest, table, journal.
func BenchmarkLiveStep(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			fill(b, dir, n)
			cfg := benchConfig(dir)
			cfg.Registerer = prometheus.NewRegistry()
			cfg.Table = route.New(route.Hooks{})
			c, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer c.state.Close()
			s := &session{control: c, out: newOutbox(func() *edgev1.Ack { return c.ack("e1") })}
			h := newHistory("e1")
			var steps []*edgev1.Change
			for i := range 1000 {
				k := i * (n / 1000)
				steps = append(
					steps,
					h.domain(fmt.Sprint("account-", k/domainsPerAccount),
						fmt.Sprintf("host-%d.customer-%d.example.com", k, k%977)),
				)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				at := c.state.At().Revision
				if err := s.live(&edgev1.Live{
					Prev: at, Revision: at + 1, Changes: steps[i%1000 : i%1000+1],
				}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFullStateOfOrigins is what sealing adds to a full state: of 100,000 origins with secrets
// in the clear and sealed, in turns. It fails where sealing takes more than a tenth on top.
func BenchmarkFullStateOfOrigins(b *testing.B) {
	const n = 100_000
	keys, err := seal.NewKeyset()
	if err != nil {
		b.Fatal(err)
	}
	keyset, err := keys.Bytes()
	if err != nil {
		b.Fatal(err)
	}
	ring := seal.NewRing("topology", map[string]*seal.Keyset{"default": keys})
	welcome := &edgev1.Welcome{
		Epoch: "e1", Settings: &edgev1.Welcome_Settings{SharedHost: "files.example"},
		Keyring: &edgev1.Keyring{Epoch: "topology", Keysets: []*edgev1.Keyring_Keyset{{Name: "default", Keys: keyset}}},
	}
	states := map[bool][][]byte{false: originsState(b, n, nil), true: originsState(b, n, ring)}
	took := map[bool]time.Duration{}
	for b.Loop() {
		for _, sealed := range []bool{false, true} {
			cfg := benchConfig(b.TempDir())
			c, err := New(cfg)
			if err != nil {
				b.Fatal(err)
			}
			runtime.GC()
			before := cpuTime(b)
			s := &session{
				control: c, welcome: welcome, everything: true,
				out: newOutbox(func() *edgev1.Ack { return c.ack("e1") }),
			}
			if err := c.takeKeys(welcome.GetKeyring()); err != nil {
				b.Fatal(err)
			}
			for _, raw := range states[sealed] {
				m := new(edgev1.SyncResponse)
				if err := errors.Join(proto.Unmarshal(raw, m), s.handle(m)); err != nil {
					b.Fatal(err)
				}
			}
			took[sealed] += cpuTime(b) - before
			secrets := cfg.Table.Root().Account("account-7").Origin("o7").Secrets
			if secrets["s3.secret_access_key"] != "secret of 707" {
				b.Fatalf("the secrets are %q", secrets)
			}
			c.state.Close()
		}
	}
	adds := float64(took[true])/float64(took[false]) - 1
	b.ReportMetric(100*adds, "%-added")
	if adds > 0.1 {
		b.Errorf("sealing adds %.0f %% to a full state: %s instead of %s", 100*adds, took[true], took[false])
	}
}

// originsState is a compressed full state of n origins with secrets, sealed unless ring is nil.
func originsState(b *testing.B, n int, ring *seal.Ring) (messages [][]byte) {
	b.Helper()
	h := newHistory("e1")
	target := int64(4 * n)
	messages = append(messages, encoded(b, begin(&edgev1.Begin{Full: true, Target: target})))
	var digest topology.Digest
	var some []*edgev1.Change
	size := 0
	send := func() {
		chunk := compress(b, encodedChanges(b, some...))
		messages = append(messages, encoded(b, zstdChunk(int64(len(messages)-1), chunk)))
		some, size = nil, 0
	}
	for i := range n {
		account, id := fmt.Sprint("account-", i/100), fmt.Sprint("o", i%100)
		origin := &topologyv1.Origin{
			CreateTime: timestamppb.New(time.Unix(int64(i), 0)),
			Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{
				Bucket: fmt.Sprint("bucket-", i), Region: "eu-central-1", AccessKeyId: fmt.Sprint("AKIA", i),
			}},
		}
		values := map[string]string{"s3.secret_access_key": fmt.Sprint("secret of ", i)}
		secrets := &topologyv1.OriginSecrets{Values: values}
		if ring != nil {
			var err error
			if secrets, err = topology.SealSecrets(ring, "default", account, id, origin, values); err != nil {
				b.Fatal(err)
			}
		}
		var changes []*edgev1.Change
		if i%100 == 0 {
			changes = append(changes, h.account(account))
		}
		changes = append(changes, h.put("origins/"+account+"/"+id, origin))
		changes = append(changes, h.put("originSecrets/"+account+"/"+id, secrets))
		for _, c := range received(changes) {
			key, err := topology.ParseKey(c.Key)
			if err != nil {
				b.Fatal(err)
			}
			digest.Add(topology.Record{Key: key, ModRevision: c.Mod, Value: c.Value})
			some = append(some, &edgev1.Change{
				Key: c.Key, ModRevision: c.Mod, CreateRevision: c.Create, Value: c.Value,
			})
			if size += len(c.Key) + len(c.Value) + 12; size > 256<<10 {
				send()
			}
		}
		clear(h.live)
	}
	send()
	return append(messages, encoded(b, end(target, digest[:])))
}

// cpuTime is what the process has used so far.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
