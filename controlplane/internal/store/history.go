package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// errHistoryLost says that etcd has lost writes that it had told of: it was restored from a snapshot, or is another one.
var errHistoryLost = errors.New("etcd has lost what it had told of before")

// errUnproven says that nobody can tell whether what etcd holds follows from what it had told of before.
var errUnproven = errors.New("etcd no longer keeps what it had told of before")

// epoch is one history.
type epoch struct {
	id    string
	ended chan struct{} // closed when another one has begun
}

func newEpoch(id string) *epoch { return &epoch{id, make(chan struct{})} }

// knowledge is how much of a history somebody has heard.
type knowledge struct {
	epoch    string
	revision int64 // up to which all is known
	tip      tip   // the last write up to there
}

// sighting is what etcd holds at one moment, by a linearizable read.
type sighting struct {
	knowledge
	epochRevision int64 // of the epoch's record
	lineage       *mvccpb.KeyValue
}

// sight reads where etcd stands.
func (s *Store) sight(ctx context.Context) (sighting, error) {
	resp, err := s.do(ctx, []clientv3.Op{
		clientv3.OpGet(s.keys.meta("epoch")), clientv3.OpGet(s.keys.tip()), clientv3.OpGet(s.keys.meta("lineage")),
	})
	if err != nil {
		return sighting{}, fmt.Errorf("read where etcd stands: %w", err)
	}
	var found sighting
	found.revision = resp.Header.Revision
	id := ""
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		id, found.epochRevision = string(kv.Value), kv.ModRevision
	}
	found.epoch = epochOf(id, resp.Header.ClusterId)
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		found.tip = tipOf(kv)
	}
	for _, kv := range resp.Responses[2].GetResponseRange().Kvs {
		found.lineage = kv
	}
	return found, nil
}

// epochOf hashes the random id of the topology with the cluster's id, so a snapshot restored under a new cluster token
// begins an epoch by itself.
func epochOf(id string, cluster uint64) string {
	hash := sha256.New()
	hash.Write([]byte(id))
	hash.Write(binary.LittleEndian.AppendUint64(nil, cluster))
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// continues returns nil if what etcd holds follows from what was known when the read began, [errHistoryLost] if it does not,
// and [errUnproven] if nobody can tell any more.
func (s *Store) continues(ctx context.Context, before knowledge, now sighting) error {
	switch {
	case now.revision < before.revision:
		return fmt.Errorf("%w: it stands at revision %d and stood at %d", errHistoryLost, now.revision, before.revision)
	case !before.tip.exists():
		return nil
	case !now.tip.exists():
		return errUnproven
	case now.tip == before.tip:
		return nil
	case now.tip.revision <= before.tip.revision:
		return fmt.Errorf("%w: its last write is that of revision %d, after one of revision %d", errHistoryLost, now.tip.revision, before.tip.revision)
	}
	resp, err := s.get(ctx, s.keys.tip(), clientv3.WithRev(before.tip.revision))
	switch {
	case errors.Is(err, ErrCompacted):
		return errUnproven
	case err != nil:
		return err
	case len(resp.Kvs) == 0 || tipOf(resp.Kvs[0]) != before.tip:
		return fmt.Errorf("%w: it knows another write of revision %d", errHistoryLost, before.tip.revision)
	}
	return nil
}

// beginEpoch makes what etcd holds the beginning of an epoch, unless somebody has done so since it was looked at. It returns
// the epoch that it is in then.
func (s *Store) beginEpoch(ctx context.Context, seen sighting) (string, error) {
	key := s.keys.meta("epoch")
	begin := []clientv3.Op{clientv3.OpPut(key, rand.Text())}
	// The lineage is about the cluster, which is another now.
	if length, err := s.lineage(ctx, seen.revision, math.MinInt64); err == nil {
		begin = append(begin, clientv3.OpPut(s.keys.meta("lineage"), strconv.FormatInt(length, 10)))
	} else {
		begin = append(begin, clientv3.OpDelete(s.keys.meta("lineage")))
	}
	err := s.retry(ctx, func(ctx context.Context) error {
		_, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", seen.epochRevision)).Then(begin...).Commit()
		return err
	})
	if err != nil {
		return "", fmt.Errorf("begin an epoch: %w", err)
	}
	now, err := s.sight(ctx)
	return now.epoch, err
}

// lineage is the length of the cluster's log less the revision. Each revision is an entry of the log and not each entry a
// revision, so it never falls while the log goes on. A restore begins the log anew and keeps the revision.
//
// It may be told too small, by what is written while a member answers. So it is asked for until it is enough, up to looks
// times. The member must have reached a revision.
func (s *Store) lineage(ctx context.Context, revision, enough int64) (length int64, err error) {
	const looks, between = 50, 2 * time.Millisecond
	err = fmt.Errorf("%w: no member has reached revision %d", ErrUnavailable, revision)
	for _, endpoint := range s.client.Endpoints() {
		for range looks {
			attempt, cancel := context.WithTimeout(ctx, statusTimeout)
			status, statusErr := s.client.Status(attempt, endpoint)
			cancel()
			if statusErr != nil {
				if err != nil {
					err = kind(statusErr)
				}
				break
			}
			if status.Header.Revision >= revision {
				found := int64(status.RaftAppliedIndex) - status.Header.Revision
				if err != nil || found > length {
					length, err = found, nil
				}
				if length >= enough {
					return length, nil
				}
			}
			time.Sleep(between)
		}
		if err == nil {
			return length, nil
		}
	}
	return 0, err
}

// checkLineage begins an epoch when the cluster was restored since somebody last looked, and makes a first record for later.
// It tells of restores while no control plane ran, whatever was written since.
func (s *Store) checkLineage(ctx context.Context, seen sighting) (epoch string, err error) {
	enough := int64(math.MinInt64)
	if seen.lineage != nil {
		if enough, err = strconv.ParseInt(string(seen.lineage.Value), 10, 64); err != nil {
			return "", fmt.Errorf("read %q: %w", seen.lineage.Key, err)
		}
	}
	length, err := s.lineage(ctx, seen.revision, enough)
	if err != nil {
		s.log.WarnContext(ctx, "store: cannot tell whether etcd was restored since the last start", "error", err)
		return seen.epoch, nil
	}
	if seen.lineage == nil {
		_, err := s.getOrCreate(ctx, s.keys.meta("lineage"), strconv.FormatInt(length, 10))
		if errors.Is(err, ErrResourceExhausted) {
			err = nil // the next start does it
		}
		return seen.epoch, err
	}
	if length >= enough {
		return seen.epoch, nil
	}
	s.metrics.historyLosses.Inc()
	s.log.WarnContext(ctx, "store: etcd was restored from a snapshot: begin an epoch", "revision", seen.revision)
	epoch, err = s.beginEpoch(ctx, seen)
	if errors.Is(err, ErrResourceExhausted) {
		s.log.ErrorContext(ctx, "store: etcd has no space for a new epoch: edges may keep what was lost until it has", "error", err)
		return seen.epoch, nil
	}
	return epoch, err
}

// CheckHistory returns nil if what the follower of this store was told is the beginning of what etcd holds, as far as anybody
// can tell, and [ErrEpochChanged] if it is not: the follower is then about to be told.
func (s *Store) CheckHistory(ctx context.Context) error {
	before := s.heard.Load()
	if before == nil {
		return nil
	}
	now, err := s.sight(ctx)
	if err != nil {
		return err
	}
	err = errHistoryLost
	if now.epoch == before.epoch {
		err = s.continues(ctx, *before, now)
	}
	switch {
	case errors.Is(err, errUnproven):
		return nil
	case errors.Is(err, errHistoryLost):
		select {
		case s.doubt <- struct{}{}:
		default:
		}
		return fmt.Errorf("%w: %w", ErrEpochChanged, err)
	}
	return err
}
