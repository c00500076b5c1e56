package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// noticeable is the share of its quota that etcd may use before a warning, tight the share
	// before as much history as possible is compacted.
	noticeable = 0.6
	tight      = 0.8

	// historyKept is for how long etcd keeps old revisions, from which a control plane that was cut
	// off receives each change. etcd's own default for a cluster is to keep all.
	historyKept = time.Hour
	// historyKeptTight is the same when there is little space.
	historyKeptTight = time.Minute
)

// Status is what the members of etcd say of themselves.
type Status struct {
	// Version is that of a member, such as `3.7.3`.
	Version string
	// SizeBytes is the size of the largest database on disk.
	SizeBytes int64
	// QuotaBytes is the size at which etcd takes no more writes, 0 when it does not say.
	QuotaBytes int64
	// Full says that it takes no writes because the quota is used up.
	Full bool
	// Corrupt says that etcd takes no writes because members hold different data.
	Corrupt bool
	// Members are the members that are asked, in the order of their addresses.
	Members []Member
}

// Member is a member of etcd.
type Member struct {
	// Endpoint is the address that it is asked at.
	Endpoint string
	// Version is empty when it does not answer.
	Version   string
	SizeBytes int64
	Leader    bool
}

// Used is the share of the quota that is used, 1 when etcd is full and 0 when nobody knows.
func (s Status) Used() float64 {
	switch {
	case s.Full:
		return 1
	case s.QuotaBytes == 0:
		return 0
	}
	return float64(s.SizeBytes) / float64(s.QuotaBytes)
}

// Trouble says what is wrong and what to do about it, and is empty when nothing is.
func (s Status) Trouble() string {
	switch {
	case s.Corrupt:
		return "etcd takes no writes since its members hold different data (alarm CORRUPT): see etcd's manual on data corruption"
	case s.Full:
		return fmt.Sprintf("etcd takes no writes since its quota is used up (alarm NOSPACE, %s): edges are served, deleting is possible; "+
			"run `etcdctl defrag --cluster` and `etcdctl alarm disarm`, or raise --quota-backend-bytes first", s.size())
	case s.Used() >= noticeable:
		return fmt.Sprintf("etcd uses %.0f %% of its quota (%s), beyond which it takes no writes: run `etcdctl defrag --cluster`, or raise --quota-backend-bytes",
			100*s.Used(), s.size())
	}
	return ""
}

func (s Status) size() string {
	const mib = 1 << 20
	if s.QuotaBytes == 0 {
		return fmt.Sprintf("%d MiB", s.SizeBytes/mib)
	}
	return fmt.Sprintf("%d of %d MiB", s.SizeBytes/mib, s.QuotaBytes/mib)
}

// Status asks the members of etcd. When none answers within 2 s it returns an error, and who they
// are.
func (s *Store) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	endpoints := slices.Sorted(slices.Values(s.client.Endpoints()))
	answers := make([]*clientv3.StatusResponse, len(endpoints))
	errs := make([]error, len(endpoints))
	var asked sync.WaitGroup
	for i, endpoint := range endpoints {
		asked.Go(func() { answers[i], errs[i] = s.client.Status(ctx, endpoint) })
	}
	asked.Wait()
	var all Status
	for i, answer := range answers {
		member := Member{Endpoint: endpoints[i]}
		if errs[i] == nil {
			member.Version, member.SizeBytes, member.Leader = answer.Version, answer.DbSize,
				answer.Leader == answer.Header.MemberId
		}
		all.Members = append(all.Members, member)
		if errs[i] != nil {
			continue
		}
		all.Version = answer.Version
		all.SizeBytes = max(all.SizeBytes, answer.DbSize)
		if quota := answer.DbSizeQuota; quota > 0 && (all.QuotaBytes == 0 || quota < all.QuotaBytes) {
			all.QuotaBytes = quota
		}
		alarms := strings.Join(answer.Errors, " ")
		all.Full = all.Full || strings.Contains(alarms, "NOSPACE")
		all.Corrupt = all.Corrupt || strings.Contains(alarms, "CORRUPT")
	}
	if all.Version == "" {
		return all, fmt.Errorf("read status of etcd: %w", kind(errors.Join(errs...)))
	}
	return all, nil
}

func (s *Store) measure(ctx context.Context) error {
	now, err := s.Status(ctx)
	if err != nil {
		return err
	}
	s.metrics.size.Set(float64(now.SizeBytes))
	s.metrics.quota.Set(float64(now.QuotaBytes))
	s.metrics.full.Set(0)
	if now.Full {
		s.metrics.full.Set(1)
	}
	before := s.status.Swap(&now)
	if level(now) > 0 && (before == nil || level(*before) != level(now)) {
		s.log.ErrorContext(ctx, "store: "+now.Trouble())
	}
	if now.Full && !now.Corrupt && s.alone {
		return s.freeSpace(ctx)
	}
	return nil
}

// level is what changes when a warning is worth repeating.
func level(s Status) int {
	switch used := s.Used(); {
	case s.Corrupt, s.Full:
		return 3
	case used >= tight:
		return 2
	case used >= noticeable:
		return 1
	}
	return 0
}

// freeSpace makes etcd take writes again if forgetting history frees enough of its database.
// Members stand still meanwhile.
func (s *Store) freeSpace(ctx context.Context) error {
	resp, err := s.get(ctx, s.keys.meta("schema"))
	if err != nil {
		return err
	}
	if err := s.compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	for _, endpoint := range s.client.Endpoints() {
		if _, err := s.client.Defragment(ctx, endpoint); err != nil {
			return fmt.Errorf("defragment: %w", kind(err))
		}
	}
	now, err := s.Status(ctx)
	if err != nil {
		return err
	}
	if now.QuotaBytes == 0 || float64(now.SizeBytes) > tight*float64(now.QuotaBytes) {
		return nil // it would soon be full again
	}
	if _, err := s.client.AlarmDisarm(ctx, new(clientv3.AlarmMember)); err != nil { // every one
		return fmt.Errorf("disarm: %w", kind(err))
	}
	s.log.InfoContext(ctx, "store: etcd takes writes again, after old revisions were forgotten", "size", now.size())
	return nil
}

// history is where etcd stood at some times, the oldest first.
type history []stand

type stand struct {
	at       time.Time
	revision int64
}

// forget returns a job that makes etcd forget the revisions that nobody needs any more. Any number
// of control planes may do so, and etcd itself: compacting again is no error. In a cluster that is
// shared, the keys of others stay; only their past revisions go.
func (h *history) forget(s *Store) func(context.Context) error {
	return func(ctx context.Context) error {
		resp, err := s.get(ctx, s.keys.meta("schema"))
		if err != nil {
			return err
		}
		*h = append(*h, stand{s.now(), resp.Header.Revision})
		kept := historyKept
		if status := s.status.Load(); status != nil && status.Used() >= tight {
			kept = historyKeptTight
		}
		old := 0
		for old < len(*h) && s.now().Sub((*h)[old].at) >= kept {
			old++
		}
		if old == 0 {
			return nil
		}
		revision := (*h)[old-1].revision
		*h = append(history{}, (*h)[old:]...)
		ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
		defer cancel()
		return s.compact(ctx, revision)
	}
}

func (s *Store) compact(ctx context.Context, revision int64, opts ...clientv3.CompactOption) error {
	_, err := s.client.Compact(ctx, revision, opts...)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		return nil // others have, or etcd was restored
	case err != nil:
		return fmt.Errorf("compact: %w", kind(err))
	}
	s.metrics.compactions.Inc()
	return nil
}
