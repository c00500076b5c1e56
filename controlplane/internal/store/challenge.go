package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Answers to dns-01 challenges (RFC 8555 8.4) lie at `acme/dns/{label}/{answer}`, in the clear,
// because whoever asks DNS is told them.

// challengeTTL is how long an answer stays if nobody takes it back. Authorizations that issuers
// leave open end sooner or are begun anew.
const challengeTTL = 24 * time.Hour

// maxAnswers bounds the answers of a label that are read. Each is of an order that is under way.
const maxAnswers = 200

func (l layout) challenges(label string) string { return l.prefix + "acme/dns/" + label + "/" }

// PutChallengeAnswer makes an answer one of those of a label. It returns [ErrFenced] if the fence
// has fallen; fence may be nil.
func (s *Store) PutChallengeAnswer(ctx context.Context, fence *Fence, label, answer string) error {
	if strings.Contains(label, "/") || answer == "" || strings.Contains(answer, "/") {
		return fmt.Errorf("answer %q of %q is none", answer, label)
	}
	var conditions []clientv3.Cmp
	if fence != nil {
		conditions = append(conditions, fence.compare())
	}
	var resp *clientv3.TxnResponse
	err := s.retry(ctx, func(ctx context.Context) error {
		lease, err := s.client.Grant(ctx, int64(challengeTTL/time.Second))
		if err != nil {
			return err
		}
		put := clientv3.OpPut(s.keys.challenges(label)+answer, "", clientv3.WithLease(lease.ID))
		resp, err = s.client.Txn(ctx).If(conditions...).Then(put).Commit()
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("write an answer for %s: %w", label, err)
	case !resp.Succeeded:
		return fmt.Errorf("write an answer for %s: %w", label, ErrFenced)
	}
	return nil
}

// DropChallengeAnswer takes an answer back, if it is there.
func (s *Store) DropChallengeAnswer(ctx context.Context, label, answer string) error {
	_, err := s.do(ctx, []clientv3.Op{clientv3.OpDelete(s.keys.challenges(label) + answer)})
	if err != nil {
		return fmt.Errorf("remove an answer of %s: %w", label, err)
	}
	return nil
}

// ChallengeAnswers returns the answers of a label, sorted. Whatever any control plane has put
// before is among them.
func (s *Store) ChallengeAnswers(ctx context.Context, label string) ([]string, error) {
	folder := s.keys.challenges(label)
	resp, err := s.get(ctx, folder, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(maxAnswers))
	if err != nil {
		return nil, fmt.Errorf("read answers of %s: %w", label, err)
	}
	var answers []string
	for _, kv := range resp.Kvs {
		answers = append(answers, string(kv.Key[len(folder):]))
	}
	return answers, nil
}
