package rfc9111

import (
	"strconv"
	"time"
)

// Forward says why a request went to an origin (RFC 9211 2.2); the zero Forward is that it did not.
type Forward uint8

const (
	NotForwarded Forward = iota
	ForwardURIMiss
	ForwardVaryMiss
	ForwardMiss
	ForwardStale
	ForwardRequest
	ForwardPartial
	ForwardBypass
)

var forwards = [...]string{"", "uri-miss", "vary-miss", "miss", "stale", "request", "partial", "bypass"}

func (f Forward) String() string { return forwards[f] }

// CacheStatus is how one request was handled, for its Cache-Status field (RFC 9211).
type CacheStatus struct {
	// Forward is why an origin was asked; NotForwarded means a hit.
	Forward Forward
	// ForwardStatus is the status the origin answered, if the client was given another one; 0 is
	// none.
	ForwardStatus int
	// TTL is what remains of the lifetime, negative once stale. It is written only if HasTTL.
	TTL    time.Duration
	HasTTL bool
	// Stored: the origin's answer was stored. Collapsed: the request joined another's.
	Stored, Collapsed bool
	// Hit: answered from a stored reply. It excludes Forward.
	Hit bool
	// Detail is a token for humans ("default-image"); "" is none.
	Detail string
}

// Append appends the field's value.
func (c CacheStatus) Append(dst []byte) []byte {
	dst = append(dst, "edgewalk"...)
	if c.Hit {
		dst = append(dst, "; hit"...)
	} else if c.Forward != NotForwarded {
		dst = append(dst, "; fwd="...)
		dst = append(dst, c.Forward.String()...)
		if c.ForwardStatus != 0 {
			dst = append(dst, "; fwd-status="...)
			dst = strconv.AppendInt(dst, int64(c.ForwardStatus), 10)
		}
		if c.Stored {
			dst = append(dst, "; stored"...)
		}
		if c.Collapsed {
			dst = append(dst, "; collapsed"...)
		}
	}
	if c.HasTTL {
		dst = append(dst, "; ttl="...)
		dst = strconv.AppendInt(dst, CeilSeconds(c.TTL), 10)
	}
	if c.Detail != "" {
		dst = append(dst, "; detail="...)
		dst = append(dst, c.Detail...)
	}
	return dst
}

// CeilSeconds rounds up, because an age is rounded down and both together are the lifetime.
func CeilSeconds(d time.Duration) int64 {
	s := d / time.Second
	if d > s*time.Second {
		s++
	}
	return int64(s)
}
