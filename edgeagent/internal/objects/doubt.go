package objects

import "time"

// doubt is a time in which purges may have been missed.
type doubt struct{ since, until time.Time }

// Doubt has what is stored by now revalidated before its next use, for at most so long, until Trust says that no purge was
// missed.
func (s *Store) Doubt(patience time.Duration) {
	now := s.cfg.Now()
	s.doubt.Store(&doubt{since: now, until: now.Add(patience)})
}

// Trust ends a doubt.
func (s *Store) Trust() { s.doubt.Store(nil) }

// doubts reports whether a stored reply may have been purged without the store's knowing. One that was asked for since the doubt
// began was not.
func (s *Store) doubts(o *object) bool {
	d := s.doubt.Load()
	return d != nil && o.head.RequestTime.Before(d.since) && s.cfg.Now().Before(d.until)
}
