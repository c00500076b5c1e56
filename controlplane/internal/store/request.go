package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// requestsKept is for how long a request id is remembered.
const requestsKept = 15 * time.Minute

// RequestID identifies a request, so that a repeated one is not done twice. The zero value is a
// request that is never repeated.
type RequestID struct {
	// ID is the caller's id of the request, unique in its account.
	ID string
	// Assigned says that the caller gave no id, so that it repeats the request only if the outcome
	// is unknown.
	Assigned bool
	// Method and Hash stand for what is asked; another method or hash under the same id is refused.
	Method, Hash string
	// Who asks, from where, and the name of what the request is about, for the audit.
	Who, Peer, Resource string
	// Role is that of the token of who asks.
	Role adminv1.Token_Role
}

// requestRecord is what `idem/{account}/{id}` holds. Every write leaves one, so that it can be
// found when its reply is lost, even after others have written.
type requestRecord struct {
	Write  string `json:"write"` // random, differs for each call of Write
	Method string `json:"method,omitempty"`
	Hash   string `json:"hash,omitempty"`
	// Revision is the result of a request that changed nothing. That of any other is the record's
	// own revision.
	Revision int64 `json:"revision,omitempty"`
	// Changed is what the account's State said that the request left, if it did not change that
	// itself.
	Changed int64 `json:"changed,omitempty"`
	// Time is when it was written, in seconds since 1970.
	Time int64 `json:"time"`
}

func (r *requestRecord) value() string {
	value, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return string(value)
}

// replay is the result of a request that the record is of.
func (r *requestRecord) replay(req RequestID, modRevision int64) (Result, error) {
	if r.Method != req.Method || r.Hash != req.Hash {
		return Result{}, fmt.Errorf("%w: %s", ErrRequestIDReused, req.ID)
	}
	result := Result{Revision: modRevision, Changed: cmp.Or(r.Changed, modRevision), Replayed: true}
	if r.Revision != 0 {
		result.Revision, result.Noop = r.Revision, true
	}
	return result, nil
}

// foundRequest is a record of a request and the revision that it was written at.
type foundRequest struct {
	requestRecord
	modRevision int64
}

// requestOf reads the answer behind the head of a read that asked for a request.
func requestOf(resp *clientv3.TxnResponse, asked bool) (*foundRequest, error) {
	if !asked {
		return nil, nil
	}
	kvs := resp.Responses[headOps].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return nil, nil
	}
	found := &foundRequest{modRevision: kvs[0].ModRevision}
	if err := json.Unmarshal(kvs[0].Value, &found.requestRecord); err != nil {
		return nil, fmt.Errorf("%w: %q: delete it, or use another request_id: %w", ErrBroken, kvs[0].Key, err)
	}
	return found, nil
}

// sweepRequests forgets requests whose time is over, a page at a time.
func (s *Store) sweepRequests(ctx context.Context) error {
	oldest := s.now().Add(-requestsKept).Unix()
	folder := s.keys.idem()
	from, end := folder, clientv3.GetPrefixRangeEnd(folder)
	for {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(1000))
		if err != nil {
			return fmt.Errorf("read requests: %w", err)
		}
		var old []clientv3.Op
		for _, kv := range resp.Kvs {
			var record requestRecord
			if err := json.Unmarshal(kv.Value, &record); err != nil || record.Time < oldest {
				old = append(old, clientv3.OpDelete(string(kv.Key)))
			}
			from = string(kv.Key) + "\x00"
		}
		if len(old) > 0 {
			if _, err := s.do(ctx, nest(old)); err != nil {
				return fmt.Errorf("forget requests: %w", err)
			}
		}
		if !resp.More {
			return nil
		}
	}
}
