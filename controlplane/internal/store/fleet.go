package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Presence keeps small keys below `fleet/` for as long as its process lives, and for ttl after.
// They are no part of the topology.
type Presence struct {
	store *Store
	ttl   time.Duration
	alive string
	dirty chan struct{}

	mu     sync.Mutex
	values map[string][]byte // what should be stored
	stored map[string]bool   // whether it is, under the current lease
}

// Presence returns an empty presence. Its keys vanish ttl, at least 2 s, after the process has died
// or Run has ended; but the key alive, which says that the process lives, vanishes as soon as Run
// ends.
func (s *Store) Presence(ttl time.Duration, alive string) *Presence {
	return &Presence{
		store:  s,
		ttl:    max(ttl, 2*time.Second),
		alive:  alive,
		dirty:  make(chan struct{}, 1),
		values: make(map[string][]byte),
		stored: make(map[string]bool),
	}
}

// Put makes Run store value at `fleet/{key}`, at once and again whenever the lease is lost. A nil
// value removes the key.
func (p *Presence) Put(key string, value []byte) {
	p.mu.Lock()
	p.values[key] = value
	delete(p.stored, key)
	p.mu.Unlock()
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// Run stores what is put until ctx ends, and then removes the key that says that the process lives.
func (p *Presence) Run(ctx context.Context) error {
	var pause backoff
	full := false // no lease can be had
	for {
		err := p.hold(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, ErrResourceExhausted) || !full {
			p.store.log.WarnContext(ctx, "store: keep presence", "error", err)
		}
		full = errors.Is(err, ErrResourceExhausted)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// spaceRetry is about the time between two attempts to write presence to an etcd that is full.
const spaceRetry = 5 * time.Second

// hold stores everything under one lease until that is lost.
func (p *Presence) hold(ctx context.Context) error {
	client := p.store.client
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	lease, err := client.Grant(attempt, int64((p.ttl+time.Second-1)/time.Second))
	cancel()
	if err != nil {
		return fmt.Errorf("grant lease: %w", kind(err))
	}
	defer func() {
		if ctx.Err() == nil {
			return // all goes on under the next lease
		}
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = client.Delete(last, p.store.keys.fleet(p.alive)) // else it goes with the lease
	}()
	alive, cancel := context.WithCancel(ctx)
	defer cancel()
	beats, err := client.KeepAlive(alive, lease.ID)
	if err != nil {
		return fmt.Errorf("keep lease: %w", kind(err))
	}
	epoch := p.store.epoch.Load()
	p.mu.Lock()
	clear(p.stored)
	p.mu.Unlock()
	retry := time.NewTimer(spaceRetry)
	defer retry.Stop()
	for {
		err := p.flush(ctx, lease.ID)
		switch {
		case errors.Is(err, ErrResourceExhausted):
			retry.Reset(spaceRetry) // what is stored stays as long as the lease is kept
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-retry.C:
		case <-p.dirty:
		case <-epoch.ended:
			return ErrEpochChanged
		case _, ok := <-beats:
			if !ok {
				return fmt.Errorf("%w: lease is lost", ErrUnavailable)
			}
		}
	}
}

func (p *Presence) flush(ctx context.Context, lease clientv3.LeaseID) error {
	for {
		key, value, ok := p.take()
		if !ok {
			return nil
		}
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
		var err error
		if value == nil {
			_, err = p.store.client.Delete(attempt, p.store.keys.fleet(key))
		} else {
			_, err = p.store.client.Put(attempt, p.store.keys.fleet(key), string(value), clientv3.WithLease(lease))
		}
		cancel()
		if err != nil {
			p.mu.Lock()
			delete(p.stored, key)
			if _, again := p.values[key]; value == nil && !again {
				p.values[key] = nil
			}
			p.mu.Unlock()
			return fmt.Errorf("write presence %q: %w", key, kind(err))
		}
	}
}

// take returns a key that is not stored, and counts it as stored: a later Put undoes that, as does
// a new lease.
func (p *Presence) take() (key string, value []byte, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, value := range p.values {
		if p.stored[key] {
			continue
		}
		if value == nil {
			delete(p.values, key)
		} else {
			p.stored[key] = true
		}
		return key, value, true
	}
	return "", nil, false
}

// Fleet reads the keys below `fleet/{prefix}`, whoever stored them. What follows `fleet/` is the
// key of an [Entry].
func (s *Store) Fleet(ctx context.Context, prefix string) ([]Entry, int64, error) {
	return s.entries(ctx, s.keys.fleet(""), prefix)
}

// PutFleet stores a key below `fleet/` that stays until it is deleted, unless it is there and
// create is set: then it returns [ErrAlreadyExists]. It returns the revision of the change.
func (s *Store) PutFleet(ctx context.Context, key string, value []byte, create bool) (int64, error) {
	full := s.keys.fleet(key)
	var conditions []clientv3.Cmp
	if create {
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(full), "=", 0))
	}
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := s.client.Txn(attempt).If(conditions...).Then(clientv3.OpPut(full, string(value))).Commit()
	switch {
	case err != nil:
		return 0, fmt.Errorf("write %q: %w", key, kind(err))
	case !resp.Succeeded:
		return 0, fmt.Errorf("write %q: %w", key, ErrAlreadyExists)
	}
	return resp.Header.Revision, nil
}

// DeleteFleet deletes a key below `fleet/`, and returns the revision of the change. It returns
// [ErrNotFound] when there is none.
func (s *Store) DeleteFleet(ctx context.Context, key string) (int64, error) {
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := s.client.Delete(attempt, s.keys.fleet(key))
	switch {
	case err != nil:
		return 0, fmt.Errorf("delete %q: %w", key, kind(err))
	case resp.Deleted == 0:
		return 0, fmt.Errorf("delete %q: %w", key, ErrNotFound)
	}
	return resp.Header.Revision, nil
}

// WatchFleet calls all with every key below `fleet/{prefix}` and the epoch and revision at which
// they were read, and change with each later change, until ctx ends. After a failure it begins
// again with all. Both are called by the goroutine that called WatchFleet.
func (s *Store) WatchFleet(
	ctx context.Context, prefix string, all func(entries []Entry, epoch string, revision int64), change func(Entry),
) error {
	return s.watchEntries(ctx, s.keys.fleet(""), prefix, all, change, func() {})
}
