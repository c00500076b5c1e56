package auth

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Note writes when tokens were used.
func (a *Auth) Note(ctx context.Context) { a.note(ctx) }

// Entries are n tokens as they lie in etcd, in parts that one transaction takes.
func (w Wanted) Entries(n int) (parts [][]store.Entry) {
	var all []store.Entry
	for range n {
		_, id, r := w.make(time.Now())
		all = append(all, store.Entry{Key: folder + id, Value: r.value()})
	}
	return slices.Collect(slices.Chunk(all, 50))
}

// Count is how many tokens are known.
func (a *Auth) Count() int {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return len(a.tokens)
}

// Fill makes tokens in memory alone, and returns one whose calls are not counted.
func (a *Auth) Fill(n int) (text string) {
	for i := range n {
		w := Wanted{Role: adminv1.Token_EDITOR, Account: fmt.Sprint("account-", i), UID: fmt.Sprint("uid-", i)}
		one, id, r := w.make(a.now())
		a.take(store.Entry{Key: folder + id, Value: r.value(), Revision: int64(i + 1)})
		a.tokens[id].limiter.SetLimit(rate.Inf)
		text = one
	}
	return text
}
