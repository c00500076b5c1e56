package issuer

import (
	"github.com/edgewalk/edgewalk/controlplane/internal/due"
)

const (
	// ordersAtOnce are the orders that are under way, and accountOrders those of one account.
	ordersAtOnce  = 64
	accountOrders = 20
)

// ready are the domains that wait for an order: by class, and within a class from account to
// account. It is used by one goroutine at a time.
type ready struct {
	lanes   [classes]lane
	running map[string]int // by account
	total   int            // of running
	size    int
}

// lane is the domains of a class.
type lane struct {
	accounts map[string][]*due.Entry
	turn     []string // accounts that have some, the next one first
}

func newReady() *ready { return &ready{running: make(map[string]int)} }

func (r *ready) add(e *due.Entry, c class) {
	l := &r.lanes[c]
	if l.accounts == nil {
		l.accounts = make(map[string][]*due.Entry)
	}
	account := e.Key.Account
	if len(l.accounts[account]) == 0 {
		l.turn = append(l.turn, account)
	}
	l.accounts[account] = append(l.accounts[account], e)
	r.size++
}

// next returns the domain that comes next, nil if none may. It counts as running until [ready.end].
func (r *ready) next() *due.Entry {
	if r.total >= ordersAtOnce {
		return nil
	}
	for c := range r.lanes {
		l := &r.lanes[c]
		for i, account := range l.turn {
			if r.running[account] >= accountOrders {
				continue
			}
			e := l.accounts[account][0]
			l.accounts[account] = l.accounts[account][1:]
			l.turn = append(l.turn[:i:i], l.turn[i+1:]...)
			if len(l.accounts[account]) > 0 {
				l.turn = append(l.turn, account)
			} else {
				delete(l.accounts, account)
			}
			r.size--
			r.running[account]++
			r.total++
			return e
		}
	}
	return nil
}

func (r *ready) end(account string) {
	r.total--
	if r.running[account]--; r.running[account] == 0 {
		delete(r.running, account)
	}
}

// ahead is how many domains come before one of a class and an account that is added now, if each
// account of the class has its turn.
func (r *ready) ahead(account string, c class) (n int) {
	for better := range c {
		for _, all := range r.lanes[better].accounts {
			n += len(all)
		}
	}
	own := len(r.lanes[c].accounts[account])
	for _, all := range r.lanes[c].accounts {
		n += min(len(all), own+1)
	}
	return n
}
