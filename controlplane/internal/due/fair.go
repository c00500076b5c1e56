package due

// FairQueue is domains that are due and wait until somebody may be at them: those of a lower class
// first, and within a class the accounts take turns, so that none waits for the many of another. So
// many may be under way in all, and so many of one account. It is used by one goroutine at a time.
type FairQueue struct {
	classes []class
	running map[string]int // by account
	size    int            // of those that wait
	total   int            // of those that are under way
	most    int
	each    int // the most of one account
}

// class is the domains of one class that wait.
type class struct {
	accounts map[string]*backlog
	turns    []string // accounts, the next one first; see backlog.listed
}

// backlog is what waits of one account.
type backlog struct {
	entries []*Entry
	// listed says that the account is in turns. It always is while it waits and may have another
	// one under way.
	listed bool
}

// NewFairQueue returns an empty queue of so many classes. At most so many entries are under way at
// once, and at most each of one account.
func NewFairQueue(classes, most, each int) *FairQueue {
	return &FairQueue{classes: make([]class, classes), running: make(map[string]int), most: most, each: each}
}

// Len is how many entries wait, and Running how many are under way.
func (q *FairQueue) Len() int     { return q.size }
func (q *FairQueue) Running() int { return q.total }

// Add has an entry wait, behind those of its class and account.
func (q *FairQueue) Add(e *Entry, of int) {
	c := &q.classes[of]
	if c.accounts == nil {
		c.accounts = make(map[string]*backlog)
	}
	b := c.accounts[e.Key.Account]
	if b == nil {
		b = new(backlog)
		c.accounts[e.Key.Account] = b
	}
	b.entries = append(b.entries, e)
	q.size++
	c.list(e.Key.Account, b)
}

// list gives an account a turn, unless it has one.
func (c *class) list(account string, b *backlog) {
	if !b.listed {
		b.listed = true
		c.turns = append(c.turns, account)
	}
}

// Next returns the entry whose turn it is, which is under way until [FairQueue.Done]. It returns
// nil if none may be.
func (q *FairQueue) Next() *Entry {
	if q.total >= q.most {
		return nil
	}
	for i := range q.classes {
		if e := q.nextOf(&q.classes[i]); e != nil {
			return e
		}
	}
	return nil
}

func (q *FairQueue) nextOf(c *class) *Entry {
	for len(c.turns) > 0 {
		account := c.turns[0]
		c.turns = c.turns[1:]
		b := c.accounts[account]
		b.listed = false
		if q.running[account] >= q.each {
			continue // Done lists it again
		}
		e := b.entries[0]
		b.entries[0] = nil
		if b.entries = b.entries[1:]; len(b.entries) > 0 {
			c.list(account, b)
		} else {
			delete(c.accounts, account)
		}
		q.size--
		q.running[account]++
		q.total++
		return e
	}
	return nil
}

// Done says that an entry of an account is not under way any more.
func (q *FairQueue) Done(account string) {
	q.total--
	if q.running[account]--; q.running[account] == 0 {
		delete(q.running, account)
	}
	for i := range q.classes {
		if b := q.classes[i].accounts[account]; b != nil {
			q.classes[i].list(account, b)
		}
	}
}

// Clear forgets those that wait. What is under way goes on.
func (q *FairQueue) Clear() {
	clear(q.classes)
	q.size = 0
}

// Ahead is how many entries come before one of a class and an account that would be added now.
func (q *FairQueue) Ahead(account string, of int) (n int) {
	for _, better := range q.classes[:of] {
		for _, b := range better.accounts {
			n += len(b.entries)
		}
	}
	own := 0
	if b := q.classes[of].accounts[account]; b != nil {
		own = len(b.entries)
	}
	for _, b := range q.classes[of].accounts {
		n += min(len(b.entries), own+1)
	}
	return n
}
