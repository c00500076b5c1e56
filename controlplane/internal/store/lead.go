package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// leadTTL is how long a control plane that has died still counts as the one that leads.
const leadTTL = 10 * time.Second

// Lead calls lead whenever this control plane comes to lead in a matter, until ctx ends. One
// control plane at a time does. The context of lead ends when another one may lead; the fence keeps
// out what lead writes after that. who is what [Store.LeaderOf] returns meanwhile.
func (s *Store) Lead(ctx context.Context, matter, who string, lead func(context.Context, *Fence) error) error {
	key := s.keys.prefix + "lead/" + matter
	var pause backoff
	for {
		began := s.now()
		err := s.leadOnce(ctx, key, who, lead)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.log.WarnContext(ctx, "store: lead in "+matter, "error", err)
		}
		if s.now().Sub(began) > leadTTL {
			pause = backoff{}
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// LeaderOf is who leads in a matter, empty if nobody does.
func (s *Store) LeaderOf(ctx context.Context, matter string) (string, error) {
	resp, err := s.get(ctx, s.keys.prefix+"lead/"+matter)
	if err != nil {
		return "", fmt.Errorf("read who leads: %w", err)
	}
	for _, kv := range resp.Kvs {
		return string(kv.Value), nil
	}
	return "", nil
}

func (s *Store) leadOnce(ctx context.Context, key, who string, lead func(context.Context, *Fence) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	attempt, stop := context.WithTimeout(ctx, attemptTimeout)
	lease, err := s.client.Grant(attempt, int64(leadTTL/time.Second))
	stop()
	if err != nil {
		return fmt.Errorf("grant lease: %w", kind(err))
	}
	defer func() { // the next one need not wait for its end
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = s.client.Revoke(last, lease.ID)
	}()
	beats, err := s.client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return fmt.Errorf("keep lease: %w", kind(err))
	}
	epoch := s.epoch.Load()
	go func() {
		defer cancel()
		for {
			select {
			case <-epoch.ended:
				return
			case _, ok := <-beats:
				if !ok {
					return
				}
			}
		}
	}()
	fence, err := s.take(ctx, key, who, lease.ID)
	if err != nil {
		return err
	}
	err = lead(ctx, fence)
	if ctx.Err() != nil {
		return errors.New("the lease has ended: another control plane may lead by now")
	}
	return err
}

// take waits until a key is free, and takes it.
func (s *Store) take(ctx context.Context, key, who string, lease clientv3.LeaseID) (*Fence, error) {
	for {
		resp, err := s.client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, who, clientv3.WithLease(lease))).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return nil, fmt.Errorf("take the lead: %w", kind(err))
		}
		if resp.Succeeded {
			return &Fence{Key: key, Revision: resp.Header.Revision}, nil
		}
		for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
			if kv.Lease == int64(lease) { // a transaction whose reply was lost
				return &Fence{Key: key, Revision: kv.CreateRevision}, nil
			}
		}
		if err := s.awaitDeletion(ctx, key, resp.Header.Revision+1); err != nil {
			return nil, err
		}
	}
}

func (s *Store) awaitDeletion(ctx context.Context, key string, from int64) error {
	watcher := clientv3.NewWatcher(s.client)
	defer func() { _ = watcher.Close() }()
	for resp := range watcher.Watch(
		clientv3.WithRequireLeader(ctx), key, clientv3.WithRev(from), clientv3.WithFilterPut(),
	) {
		if err := resp.Err(); err != nil {
			return kind(err)
		}
		if len(resp.Events) > 0 {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: the watch was closed", ErrUnavailable)
}

// DomainWatch receives all custom domains and the facts about them, in one goroutine.
type DomainWatch struct {
	// Begin is called before all domains and facts are delivered, at first and again after a
	// break: what was delivered before no longer counts.
	Begin func()
	// Domain delivers a domain and the revision at which it was made, 0 if it is gone.
	Domain func(key topology.Key, created int64)
	// Facts delivers the facts about a domain. They are nil when they were deleted.
	Facts func(DomainFacts)
	// Ready is called once all domains and facts are delivered; changes follow.
	Ready func()
}

// WatchDomains delivers all domains and each change to w until ctx ends.
func (s *Store) WatchDomains(ctx context.Context, w DomainWatch) error {
	var pause backoff
	for {
		err := s.watchDomainsOnce(ctx, w)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.WarnContext(ctx, "store: watch domains", "error", err)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

func (s *Store) watchDomainsOnce(ctx context.Context, w DomainWatch) error {
	epoch := s.epoch.Load()
	revision, err := s.Revision(ctx)
	if err != nil {
		return err
	}
	w.Begin()
	records, facts := s.keys.kind(topology.KindCustomDomains), s.keys.prefix+"dom/"
	tell := func(kv *mvccpb.KeyValue, gone bool) { s.notifyDomain(w, records, kv, gone) }
	for _, folder := range []string{records, facts} {
		if err := s.eachAt(ctx, folder, revision, tell); err != nil {
			return err
		}
	}
	w.Ready()
	watcher := clientv3.NewWatcher(s.client)
	defer func() { _ = watcher.Close() }()
	from := clientv3.WithRev(revision + 1)
	onRecords := watcher.Watch(
		clientv3.WithRequireLeader(ctx),
		records,
		clientv3.WithPrefix(),
		from,
		clientv3.WithFragment(),
	)
	onFacts := watcher.Watch(
		clientv3.WithRequireLeader(ctx),
		facts,
		clientv3.WithPrefix(),
		from,
		clientv3.WithFragment(),
	)
	for {
		var resp clientv3.WatchResponse
		ok := true
		select {
		case <-epoch.ended:
			return ErrEpochChanged
		case resp, ok = <-onRecords:
		case resp, ok = <-onFacts:
		}
		if !ok {
			return errors.Join(ctx.Err(), fmt.Errorf("%w: the watch was closed", ErrUnavailable))
		}
		if err := resp.Err(); err != nil {
			return kind(err)
		}
		for _, event := range resp.Events {
			tell(event.Kv, event.Type == mvccpb.Event_DELETE)
		}
	}
}

func (s *Store) notifyDomain(w DomainWatch, records string, kv *mvccpb.KeyValue, gone bool) {
	if len(kv.Key) > len(records) && string(kv.Key[:len(records)]) == records {
		key, err := s.keys.parse(kv.Key)
		if err != nil {
			return // not ours
		}
		created := kv.CreateRevision
		if gone {
			created = 0
		}
		w.Domain(key, created)
		return
	}
	key, err := topology.ParseKey(string(topology.KindCustomDomains) + "/" + string(kv.Key[len(s.keys.prefix+"dom/"):]))
	if err != nil {
		return // not ours
	}
	if gone {
		w.Facts(DomainFacts{Key: key})
		return
	}
	w.Facts(factsOf(key, kv))
}

// eachAt calls each with every key of a folder, as of a revision.
func (s *Store) eachAt(
	ctx context.Context,
	folder string,
	revision int64,
	each func(kv *mvccpb.KeyValue, gone bool),
) error {
	from, end := folder, clientv3.GetPrefixRangeEnd(folder)
	for {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			each(kv, false)
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return nil
		}
	}
}
