package guard

const (
	// MaxPending bounds the requests to one origin whose head has not come, MaxOpen those whose
	// body has not ended. At either bound the origin counts as busy, so that one that stalls takes
	// no more of the edge.
	MaxPending = 256
	MaxOpen    = 1024
)

// Cap is one of the bounds.
type Cap string

// The bounds on requests that wait for a head, and on all.
const (
	PendingCap Cap = "pending"
	OpenCap    Cap = "connections"
)

// Caps bounds the requests to one origin. One path gets at most half of the places.
type Caps struct {
	Pending, Open int
	shares        map[uint64]share // by path
}

// A share is how many places the requests for one path have.
type share struct{ pending, open int }

// Enter takes a place for a request of a path, or returns the bound that is reached. The place is
// pending until Answered and taken until Leave.
func (c *Caps) Enter(path uint64) (full Cap) {
	s := c.shares[path]
	switch {
	case c.Pending >= MaxPending, s.pending >= MaxPending/2:
		return PendingCap
	case c.Open >= MaxOpen, s.open >= MaxOpen/2:
		return OpenCap
	}
	if c.shares == nil {
		c.shares = make(map[uint64]share)
	}
	c.Pending++
	c.Open++
	c.shares[path] = share{s.pending + 1, s.open + 1}
	return ""
}

// Answered records that the head has come.
func (c *Caps) Answered(path uint64) {
	c.Pending--
	s := c.shares[path]
	s.pending--
	c.shares[path] = s
}

// Leave gives the place back.
func (c *Caps) Leave(path uint64) {
	c.Open--
	s := c.shares[path]
	if s.open--; s.open == 0 {
		delete(c.shares, path)
		return
	}
	c.shares[path] = s
}

// Paths is for how many paths there are requests.
func (c *Caps) Paths() int { return len(c.shares) }
