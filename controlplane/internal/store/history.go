package store

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// errHistoryLost says that etcd has lost writes that it had reported: it was restored from a
// snapshot, or is another cluster.
var errHistoryLost = errors.New("etcd has lost writes that it had reported")

// errUnproven says that it cannot be proved that what etcd holds follows from what it had reported
// before.
var errUnproven = errors.New("etcd no longer keeps what it had reported")

// epoch names one history.
type epoch struct {
	id    string
	ended chan struct{} // closed when another one has begun
}

func newEpoch(id string) *epoch { return &epoch{id, make(chan struct{})} }

// lineage is what `meta/lineage` keeps of the cluster, so that the next control plane notices a
// restore.
type lineage struct {
	// Length is the length of the cluster's log less the revision, or less; see [Store.length].
	Length int64 `json:"length"`
	// Cluster is the id of the cluster.
	Cluster uint64 `json:"cluster"`
}

// knowledge is how far a follower has received a history.
type knowledge struct {
	epoch    string
	revision int64 // up to which all is known
	tip      tip   // the last write up to there
}

// standing is what etcd holds at one moment, by a linearizable read.
type standing struct {
	knowledge
	id            string // random, of the epoch
	epochRevision int64  // of the record that holds it
	cluster       uint64
	lineage       lineage
	lineageAt     int64 // the revision of the lineage, 0 when there is none
}

// moved reports whether the data lies in another cluster than before, as when it was restored under
// another cluster token.
func (s standing) moved() bool { return s.lineageAt != 0 && s.lineage.Cluster != s.cluster }

// readStanding reads where etcd stands.
func (s *Store) readStanding(ctx context.Context) (standing, error) {
	resp, err := s.do(ctx, []clientv3.Op{
		clientv3.OpGet(s.keys.meta("epoch")), clientv3.OpGet(s.keys.tip()), clientv3.OpGet(s.keys.meta("lineage")),
	})
	if err != nil {
		return standing{}, fmt.Errorf("read where etcd stands: %w", err)
	}
	var found standing
	found.revision, found.cluster = resp.Header.Revision, resp.Header.ClusterId
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		found.id, found.epochRevision = string(kv.Value), kv.ModRevision
	}
	found.epoch = epochOf(found.id, found.cluster)
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		found.tip = tipOf(kv)
	}
	for _, kv := range resp.Responses[2].GetResponseRange().Kvs {
		if json.Unmarshal(kv.Value, &found.lineage) == nil { // else somebody makes it anew
			found.lineageAt = kv.ModRevision
		}
	}
	return found, nil
}

// epochOf names the epoch of an id in a cluster. The id of the first is a random text, that of each
// later one is `{first epoch}/{random text}`, and its name `{first epoch}.{hash}`: so the epochs of
// one topology are distinct from those of others, also those that a restore has made etcd forget.
// The cluster's id keeps apart what is restored under a new token.
func epochOf(id string, cluster uint64) string {
	hash := sha256.New()
	hash.Write([]byte(id))
	hash.Write(binary.LittleEndian.AppendUint64(nil, cluster))
	name := hex.EncodeToString(hash.Sum(nil)[:8])
	if first, _, later := strings.Cut(id, "/"); later {
		return first + "." + name
	}
	return name
}

// firstEpoch is the first epoch of the topology that an epoch is of.
func firstEpoch(epoch string) string {
	first, _, _ := strings.Cut(epoch, ".")
	return first
}

// continues returns nil if what etcd holds follows from what was known when the read began,
// [errHistoryLost] if it does not, and [errUnproven] if etcd no longer keeps what would prove it.
func (s *Store) continues(ctx context.Context, before knowledge, now standing) error {
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

// beginEpoch makes what etcd holds the beginning of an epoch, unless somebody has done so since it
// was looked at. It returns the epoch that it is in then.
func (s *Store) beginEpoch(ctx context.Context, seen standing) (standing, error) {
	key := s.keys.meta("epoch")
	first := firstEpoch(seen.epoch)
	if seen.moved() {
		first = firstEpoch(epochOf(seen.id, seen.lineage.Cluster))
	}
	next := lineage{Length: math.MinInt64, Cluster: seen.cluster} // which no length falls below
	if length, err := s.length(ctx, seen.revision, math.MinInt64); err == nil {
		next.Length = length
	}
	begin := []clientv3.Op{
		clientv3.OpPut(key, first+"/"+rand.Text()), clientv3.OpPut(s.keys.meta("lineage"), next.value()),
	}
	err := s.retry(ctx, func(ctx context.Context) error {
		_, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", seen.epochRevision)).Then(
			begin...,
		).Commit()
		return err
	})
	if err != nil {
		return standing{}, fmt.Errorf("begin an epoch: %w", err)
	}
	return s.readStanding(ctx)
}

func (l lineage) value() string {
	value, err := json.Marshal(l)
	if err != nil {
		panic(err) // numbers and strings
	}
	return string(value)
}

// length is the length of the cluster's log less the revision. Each revision is an entry of the log
// and not each entry a revision, so it never falls while the log goes on. A restore begins the log
// anew and keeps the revision.
//
// A member may report it too small, by what is written while it answers. So length asks up to looks
// times, until the number suffices. The member must have reached a revision.
func (s *Store) length(ctx context.Context, revision, enough int64) (length int64, err error) {
	const looks, between = 50, 2 * time.Millisecond
	err = fmt.Errorf("%w: no member has reached revision %d", ErrUnavailable, revision)
	for _, endpoint := range s.client.Endpoints() {
		for range looks {
			attempt, cancel := context.WithTimeout(ctx, statusTimeout)
			status, statusErr := s.client.Status(attempt, endpoint)
			cancel()
			if statusErr != nil {
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
	}
	return length, err
}

// checkLineage begins an epoch if the cluster was restored after the last check, and records its
// lineage for the next one. So it finds restores that happened while no control plane ran, whatever
// was written after them.
func (s *Store) checkLineage(ctx context.Context, seen standing) (standing, error) {
	restored := seen.moved()
	if !restored {
		enough := int64(math.MinInt64)
		if seen.lineageAt != 0 {
			enough = seen.lineage.Length
		}
		length, err := s.length(ctx, seen.revision, enough)
		switch {
		case err != nil:
			s.log.WarnContext(ctx, "store: cannot tell whether etcd was restored since the last start", "error", err)
			return seen, nil
		case seen.lineageAt == 0:
			err := s.retry(ctx, func(ctx context.Context) error {
				_, err := s.client.Put(ctx, s.keys.meta("lineage"),
					lineage{Length: length, Cluster: seen.cluster}.value())
				return err
			})
			if errors.Is(err, ErrResourceExhausted) {
				err = nil // the next start does it
			}
			return seen, err
		}
		restored = length < enough
	}
	if !restored {
		return seen, nil
	}
	s.metrics.historyLosses.Inc()
	s.log.WarnContext(ctx, "store: etcd was restored from a snapshot: an epoch begins", "revision", seen.revision)
	now, err := s.beginEpoch(ctx, seen)
	if errors.Is(err, ErrResourceExhausted) {
		s.log.ErrorContext(ctx, "store: etcd has no space for a new epoch: edges may keep what was lost until it has", "error", err)
		return seen, nil
	}
	return now, err
}

// Succeeds reports whether the store's epoch comes from another one by a restore. An edge that has
// the other one may take this one, even if it holds far less.
func (s *Store) Succeeds(epoch string) bool {
	now := s.Epoch()
	return epoch != now && firstEpoch(epoch) == firstEpoch(now)
}

// CheckHistory returns nil unless etcd is known to have lost changes that the follower of this
// store has received. Then it returns [ErrEpochChanged], and the follower is about to receive
// another epoch.
func (s *Store) CheckHistory(ctx context.Context) error {
	before := s.followed.Load()
	if before == nil {
		return nil
	}
	now, err := s.readStanding(ctx)
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
		case s.recheck <- struct{}{}:
		default:
		}
		return fmt.Errorf("%w: %w", ErrEpochChanged, err)
	}
	return err
}
