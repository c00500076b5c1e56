// Package store keeps the topology in etcd: the layout of keys, guarded transactions, and one
// ordered view of all changes.
//
// What edges see lies under `cfg/`, as the bytes that edges receive. Each write of an account
// compares and raises one key, `guard/{account}`, so rules inside an account are checked against
// the state that the write replaces. Across accounts only domain names meet: exactly the names of
// domains that are not PENDING are claimed, by their account, and a wildcard shares its owner with
// every such name that it covers.
//
// Which resources are valid, and which rules hold between them, is the business of those who call
// [Store.Write]. Only this package and etcdnode know etcd.
package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/seal"
)

const (
	// MaxResources and MaxBytes bound one step. etcd takes requests of 1.5 MiB, and each key costs
	// some bytes more than it holds.
	MaxResources = 2000
	MaxBytes     = 1 << 20

	// maxTxnOps is etcd's default bound of operations, and of comparisons, in one (nested)
	// transaction.
	maxTxnOps = 128
	// nestWidth is how many operations an inner transaction holds.
	nestWidth = 30

	// Schema is the version of the layout and of the meaning of stored records. Since 2, secrets of
	// origins may be sealed; since 3, domains may have certificates.
	Schema = 3
	// sealingSchema and certificateSchema are the versions since which there is that.
	sealingSchema, certificateSchema = 2, 3

	// attemptTimeout bounds one request to etcd, so that a dead connection does not use up a
	// caller's whole deadline.
	attemptTimeout = 5 * time.Second
	// patience bounds the attempts of one request, whatever the caller's deadline. An election
	// takes a second or two.
	patience = 8 * time.Second
	// defaultTimeout bounds a write whose caller brings no deadline.
	defaultTimeout = 30 * time.Second
	// outcomeGrace is how long past its caller's deadline a write goes on to find out what became
	// of it.
	outcomeGrace = 3 * time.Second
)

// Config is what a Store needs.
type Config struct {
	// Client is connected to etcd; see [Dial]. The store does not close it.
	Client *clientv3.Client
	// Prefix stands in front of every key and ends with `/`. Default: `/edgewalk/`.
	Prefix string
	// Key returns the key that wraps the keys of sealed secrets; wrappedBy is the id of one that
	// has wrapped keys which etcd holds, empty if it holds none.
	Key func(wrappedBy string) (*seal.Key, error)
	// Alone says that only edgewalk uses the etcd, so that the store may defragment it without
	// asking.
	Alone bool
	// Logger is where background work reports. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Now is the clock of everything that is kept for a time. Default: time.Now.
	Now func() time.Time
}

// Store is the topology in etcd. Its methods may be called at the same time.
type Store struct {
	client   *clientv3.Client
	keys     layout
	epoch    atomic.Pointer[epoch] // only the follower replaces it
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	ring     keyring
	schema   atomic.Int64 // that of etcd
	alone    bool
	follower atomic.Pointer[Follower] // while Follow runs
	kick     chan struct{}            // wakes Run to delete an account
	recheck  chan struct{}            // makes the follower look whether the history goes on

	status     atomic.Pointer[Status]    // what measure has last found, nil before
	followed   atomic.Pointer[knowledge] // what the follower knows of etcd, nil before it knows anything
	misorders  bool                      // a member may say too early how far a watch is
	queueBytes int64                     // bounds what waits for a slow follower
}

// Open connects to the topology under a prefix, and founds it when there is none. It returns
// [ErrSchemaTooNew] when a newer version has written it, an error of Key, [seal.ErrWrongKey] when
// another has wrapped the keys in it, and [ErrUnavailable] when etcd does not answer before ctx
// ends.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, seen, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if seen, err = s.checkLineage(ctx, seen); err != nil {
		return nil, err
	}
	s.epoch.Store(newEpoch(seen.epoch))
	if err := s.openKeys(ctx, cfg.Key); err != nil {
		return nil, err
	}
	if err := s.adoptSchema(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// open does what Open does, but for looking whether etcd was restored.
func open(ctx context.Context, cfg Config) (*Store, standing, error) {
	if cfg.Prefix == "" {
		cfg.Prefix = "/edgewalk/"
	}
	if !strings.HasSuffix(cfg.Prefix, "/") {
		return nil, standing{}, fmt.Errorf("etcd prefix %q does not end with /", cfg.Prefix)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Store{
		client:  cfg.Client,
		keys:    layout{cfg.Prefix},
		log:     cfg.Logger,
		now:     cfg.Now,
		metrics: newMetrics(cfg.Registerer),
		alone:   cfg.Alone,
		kick:    make(chan struct{}, 1),
		recheck: make(chan struct{}, 1),

		queueBytes: maxQueueBytes,
	}
	err := s.checkSchema(ctx)
	for errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
		err = s.checkSchema(ctx)
	}
	if err != nil {
		return nil, standing{}, err
	}
	if err := s.checkVersions(ctx); err != nil {
		return nil, standing{}, err
	}
	if _, err := s.getOrCreate(ctx, s.keys.meta("epoch"), rand.Text()); err != nil {
		return nil, standing{}, fmt.Errorf("read epoch: %w", err)
	}
	seen, err := s.readStanding(ctx)
	if err != nil {
		return nil, standing{}, err
	}
	s.epoch.Store(newEpoch(seen.epoch))
	return s, seen, nil
}

// Epoch names the history that revisions belong to: revisions of two epochs must not be compared.
// It changes when etcd has lost writes, as after a restore from a snapshot.
func (s *Store) Epoch() string { return s.epoch.Load().id }

func (s *Store) checkSchema(ctx context.Context) error {
	stored, err := s.getOrCreate(ctx, s.keys.meta("schema"), strconv.Itoa(Schema))
	if err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	version, err := strconv.Atoi(stored)
	if err != nil {
		return fmt.Errorf("read schema %q: %w", stored, err)
	}
	if version > Schema {
		return fmt.Errorf("%w: schema %d, this version knows up to %d", ErrSchemaTooNew, version, Schema)
	}
	s.schema.Store(int64(version))
	return nil
}

// MediaIdentity returns the identity of the bucket that holds the Media Library, and records
// proposed when there is none.
func (s *Store) MediaIdentity(ctx context.Context, proposed string) (string, error) {
	id, err := s.getOrCreate(ctx, s.keys.meta("media"), proposed)
	if err != nil {
		return "", fmt.Errorf("read identity of the media bucket: %w", err)
	}
	return id, nil
}

// KeptMediaIdentity returns the identity that [Store.MediaIdentity] has recorded, empty when there
// is none.
func (s *Store) KeptMediaIdentity(ctx context.Context) (string, error) {
	resp, err := s.get(ctx, s.keys.meta("media"))
	if err != nil {
		return "", fmt.Errorf("read identity of the media bucket: %w", err)
	}
	for _, kv := range resp.Kvs {
		return string(kv.Value), nil
	}
	return "", nil
}

// getOrCreate is repeated after any lost reply: whoever creates the key, all see one value. It
// reads first, because etcd refuses what might write when it has no space.
func (s *Store) getOrCreate(ctx context.Context, key, value string, more ...clientv3.Op) (string, error) {
	resp, err := s.get(ctx, key)
	if err != nil {
		return "", err
	}
	for _, kv := range resp.Kvs {
		return string(kv.Value), nil
	}
	var stored string
	err = s.retry(ctx, func(ctx context.Context) error {
		resp, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(append(more, clientv3.OpPut(key, value))...).
			Else(clientv3.OpGet(key)).
			Commit()
		switch {
		case err != nil:
			return err
		case resp.Succeeded:
			stored = value
		default:
			stored = string(resp.Responses[0].GetResponseRange().Kvs[0].Value)
		}
		return nil
	})
	return stored, err
}

// retry repeats what may be repeated until etcd answers, patience is at an end, or ctx ends.
func (s *Store) retry(ctx context.Context, request func(context.Context) error) error {
	caller := ctx
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var pause backoff
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		err := request(attempt)
		cancel()
		if err == nil || isRefusal(err) || errors.Is(err, rpctypes.ErrNoSpace) {
			return kind(err)
		}
		if pause.wait(ctx) == nil {
			continue
		}
		if caller.Err() == nil {
			return s.explain(caller, kind(err))
		}
		return kind(err)
	}
}

// get reads keys, linearizably unless opts say otherwise.
func (s *Store) get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var resp *clientv3.GetResponse
	err := s.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Get(ctx, key, opts...)
		return err
	})
	return resp, err
}

// Revision returns the revision that etcd stands at, linearizably.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	resp, err := s.get(ctx, s.keys.prefix, clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("read the revision: %w", err)
	}
	return resp.Header.Revision, nil
}

// Written returns the revision of the last change to the topology in etcd, linearizably.
func (s *Store) Written(ctx context.Context) (int64, error) {
	resp, err := s.get(ctx, s.keys.tip())
	switch {
	case err != nil:
		return 0, fmt.Errorf("read the revision of the topology: %w", err)
	case len(resp.Kvs) == 0: // The last write had no space for a tip.
		return resp.Header.Revision, nil
	}
	return resp.Kvs[0].ModRevision, nil
}

// Health returns nil when etcd answers a read that needs its quorum, and otherwise says what is
// wrong. It waits at most 2 s.
func (s *Store) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_, err := s.client.Get(ctx, s.keys.meta("schema"))
	return s.explain(ctx, kind(err))
}
