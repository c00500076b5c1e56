package rfc9111

import (
	"time"

	"github.com/edgewalk/edgewalk/internal/cachepolicy"
)

// Refusal says why a reply may not be stored; the zero Refusal is none. Its text is the detail of a
// Cache-Status.
type Refusal uint8

const (
	Storable Refusal = iota
	RefusedStatus
	RefusedNoStore
	RefusedPrivate
	RefusedSetCookie
	RefusedVary
	RefusedAuthorization
	RefusedNoLifetime
)

var refusals = [...]string{
	Storable: "", RefusedStatus: "status", RefusedNoStore: "no-store", RefusedPrivate: "private",
	RefusedSetCookie: "set-cookie", RefusedVary: "vary-star", RefusedAuthorization: "authorization",
	RefusedNoLifetime: "no-lifetime",
}

func (r Refusal) String() string { return refusals[r] }

// Freshness is the verdict on one reply, made when its head arrived and kept with it.
type Freshness struct {
	Refusal Refusal
	// SetByUs: the lifetime is edgewalk's, so clients get edgewalk's Cache-Control and no Age.
	SetByUs bool
	// Targeted: beside a targeted field for caches, the origin says to clients what they may do
	// (RFC 9213 2.1), and that is passed on whoever set the lifetime here.
	Targeted bool
	// NoCache: never used without asking the origin, however young.
	NoCache bool
	// NoStale: must-revalidate, proxy-revalidate, no-cache or s-maxage forbid any use past the
	// lifetime.
	NoStale bool
	// Immutable: a client's reload is not worth a question to the origin while fresh (RFC 8246).
	Immutable bool
	// Capped: the lifetime was cut short by [Freshness.Cap], and so is what clients are sent.
	Capped bool
	// Lifetime counts from age 0; InitialAge is the age the reply had when it arrived (RFC 9111
	// 4.2.3).
	Lifetime   time.Duration
	InitialAge time.Duration
	// StaleWhileRevalidate and StaleIfError are the windows that follow Lifetime.
	StaleWhileRevalidate time.Duration
	StaleIfError         time.Duration
}

// Response is what [Evaluate] judges. RequestTime and ResponseTime are when it was asked for and
// when its head arrived.
type Response struct {
	Status int
	Header Fields
	// CacheControl is what [ParseCacheControl] returns of Header; nil if it was not called before.
	CacheControl *Directives
	RequestTime  time.Time
	ResponseTime time.Time
	// Authorized: the request that an origin was sent had an Authorization field.
	Authorized bool
	// Library: it came from the Media Library, whose files are fresh until they change there.
	Library bool
}

// RewritesCacheControl reports whether clients are sent edgewalk's lifetime instead of what the
// origin says.
func (f Freshness) RewritesCacheControl() bool { return f.SetByUs && !f.Targeted }

// Storable reports whether the reply may be kept at all.
func (f Freshness) Storable() bool { return f.Refusal == Storable }

// Evaluate judges whether a reply may be stored, and for how long it is fresh, under an endpoint's
// policy.
func Evaluate(r Response, p cachepolicy.Policy) Freshness {
	d, targeted := directivesOf(r.Header, r.CacheControl)
	f := Freshness{
		InitialAge:           initialAge(r),
		NoCache:              d.NoCache,
		NoStale:              d.MustRevalidate || d.ProxyRevalidate || d.NoCache || d.SMaxAge.Set,
		Immutable:            d.Immutable,
		Targeted:             targeted && (len(r.Header("Cache-Control")) > 0 || len(r.Header("Expires")) > 0),
		StaleWhileRevalidate: p.StaleWhileRevalidate,
		StaleIfError:         p.StaleIfError,
	}
	if r.Library {
		f.Lifetime, f.SetByUs, f.Targeted, f.NoCache, f.NoStale, f.InitialAge = MaxDelta, true, false, false, false, 0
		f.Refusal = refuseAlways(r)
		return f
	}
	if p.Mode != cachepolicy.Override {
		if d.StaleWhileRevalidate.Set {
			f.StaleWhileRevalidate = d.StaleWhileRevalidate.Duration
		}
		if d.StaleIfError.Set {
			f.StaleIfError = d.StaleIfError.Duration
		}
	}
	explicit := explicitLifetime(r, d, targeted)
	f.setLifetime(r, p, explicit)
	f.Refusal = refuse(r, p, d, explicit, f)
	return f
}

// directivesOf are those that a shared cache follows: of the targeted field if there is one, else
// of Cache-Control, which may have been read before.
func directivesOf(header Fields, read *Directives) (d Directives, targeted bool) {
	switch d, targeted = ParseTargeted(header("Cdn-Cache-Control")); {
	case targeted:
		return d, true
	case read != nil:
		return *read, false
	}
	return ParseCacheControl(header("Cache-Control")), false
}

// SharedByAll reports whether a reply to a request with Authorization may be given to others (RFC
// 9111 3.5).
func SharedByAll(header Fields) bool {
	d, _ := directivesOf(header, nil)
	return d.sharedByAll()
}

func (d Directives) sharedByAll() bool { return d.Public || d.SMaxAge.Set || d.MustRevalidate }

func (f *Freshness) setLifetime(r Response, p cachepolicy.Policy, explicit Delta) {
	ours := func() {
		// edgewalk's lifetime starts when it fetched: what caches in between did before is the
		// origin's affair.
		f.Lifetime, f.SetByUs, f.NoCache, f.InitialAge = p.DefaultTTL, true, false, 0
	}
	switch {
	case p.Mode == cachepolicy.Override:
		ours()
	case p.Mode == cachepolicy.Minimum && (f.NoCache || explicit.Duration-f.InitialAge < p.DefaultTTL) &&
		p.DefaultTTL > 0:
		ours()
	case explicit.Set:
		f.Lifetime = explicit.Duration
	case !f.NoCache && heuristic(r.Status) && p.DefaultTTL > 0 && len(r.Header("Set-Cookie")) == 0:
		ours()
	}
}

// heuristic reports whether edgewalk may give a lifetime to a reply whose origin gave none.
func heuristic(status int) bool { return status == 200 || status == 203 }

// explicitLifetime is the origin's own word: s-maxage over max-age over Expires, of the targeted
// field if there is one.
func explicitLifetime(r Response, d Directives, targeted bool) Delta {
	switch {
	case d.SMaxAge.Set:
		return d.SMaxAge
	case d.MaxAge.Set:
		return d.MaxAge
	case targeted:
		return Delta{}
	}
	lines := r.Header("Expires")
	if len(lines) == 0 {
		return Delta{}
	}
	expires, ok := ParseDate(lines[0], r.ResponseTime)
	if !ok || len(lines) > 1 {
		return Delta{Set: true} // "Expires: 0" and its like mean already expired (RFC 9111 5.3)
	}
	return Delta{Duration: clampDelta(expires.Sub(dateOf(r))), Set: true}
}

// dateOf is the reply's Date, or when it arrived if it has none that can be read.
func dateOf(r Response) time.Time {
	if lines := r.Header("Date"); len(lines) > 0 {
		if t, ok := ParseDate(lines[0], r.ResponseTime); ok {
			return t
		}
	}
	return r.ResponseTime
}

func clampDelta(d time.Duration) time.Duration { return min(max(d, 0), MaxDelta) }

// refuseAlways is what no policy overrides: a part is not the whole, and Vary: * matches no
// request.
func refuseAlways(r Response) Refusal {
	if r.Status < 200 || r.Status == 206 || r.Status == 304 || r.Status == 416 {
		return RefusedStatus
	}
	if _, star := ParseVary(r.Header("Vary")); star {
		return RefusedVary
	}
	return Storable
}

func refuse(r Response, p cachepolicy.Policy, d Directives, explicit Delta, f Freshness) Refusal {
	if always := refuseAlways(r); always != Storable {
		return always
	}
	if r.Authorized && !d.sharedByAll() {
		return RefusedAuthorization // RFC 9111 3.5; no policy may give one person's reply to others
	}
	if p.Mode == cachepolicy.Override {
		if p.DefaultTTL == 0 {
			return RefusedNoLifetime
		}
		return Storable
	}
	understood := understands(r.Status)
	switch {
	case d.MustUnderstand && !understood:
		return RefusedStatus
	case d.NoStore && !d.MustUnderstand: // RFC 9111 5.2.2.3: no-store beside it is for caches that do not know it
		return RefusedNoStore
	case d.Private:
		return RefusedPrivate
	case f.SetByUs || explicit.Set || d.NoCache:
		return Storable
	case len(r.Header("Set-Cookie")) > 0:
		return RefusedSetCookie
	case !understood && !d.Public:
		return RefusedStatus
	}
	return RefusedNoLifetime
}

// understands reports whether the status is final and defined as heuristically cacheable (RFC 9110
// 15.1).
func understands(status int) bool {
	switch status {
	case 200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501:
		return true
	}
	return false
}

// Cap cuts what is left of the lifetime to d, and what clients are sent with it.
func (f Freshness) Cap(d time.Duration) Freshness {
	f.Capped = true
	if f.Lifetime-f.InitialAge > d {
		f.Lifetime, f.SetByUs, f.InitialAge = d, true, 0
	}
	return f
}
