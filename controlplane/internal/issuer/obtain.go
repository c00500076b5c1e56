package issuer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/certificate"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// freshFor is how old a check of a name may be when an order begins.
const freshFor = 30 * time.Second

// obtain gets a certificate for a domain if it still needs one. It returns when to look at the
// domain again.
func (l *leader) obtain(ctx context.Context, key topology.Key) time.Time {
	ctx, cancel := context.WithTimeout(ctx, orderTimeout)
	defer cancel()
	next, err := l.tryObtain(ctx, key)
	if err != nil {
		l.failing(ctx, key, err)
		return l.now().Add(retryLook)
	}
	return next
}

func (l *leader) tryObtain(ctx context.Context, key topology.Key) (time.Time, error) {
	sub, err := l.readFresh(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return l.now(), nil // the next look drops its order
	}
	if err != nil {
		return time.Time{}, err
	}
	if v := decide(l.now(), sub); v.step != order {
		return l.now(), nil // the next look writes why
	}
	r, err := l.readOrder(ctx, key)
	if err != nil && isStore(err) { // it goes on once etcd answers
		return time.Time{}, err
	}
	if err != nil {
		return time.Time{}, errors.Join(err, l.dropOrder(ctx, key, nil))
	}
	if r != nil {
		if iss := l.issuer(r.Issuer); iss == nil || r.UID != sub.uid || r.Directory != iss.Directory {
			if err := l.dropOrder(ctx, key, r); err != nil {
				return time.Time{}, err
			}
			r = nil
		}
	}
	m, iss, fact, err := l.prepare(ctx, sub, r)
	l.counted(key)
	if err != nil {
		return time.Time{}, err
	}
	if fact != nil {
		return l.put(ctx, sub, fact)
	}
	if r == nil {
		if r, err = newRecord(sub, iss); err != nil {
			return time.Time{}, err
		}
	}
	return l.attempt(ctx, sub, iss, r, m)
}

// readFresh reads a domain. It checks the domain first if the last check is too old.
func (l *leader) readFresh(ctx context.Context, key topology.Key) (*subject, error) {
	sub, err := l.read(ctx, key)
	if err != nil {
		return nil, err
	}
	if l.now().Sub(sub.facts.Facts.GetRouting().GetLastCheck().AsTime()).Abs() < freshFor ||
		sub.domain.GetState() != topologyv1.CustomDomain_ACTIVE {
		return sub, nil
	}
	if err := l.domains.Check(ctx, key, false); err != nil {
		return nil, err
	}
	return l.read(ctx, key)
}

func (l *leader) issuer(name string) *issuer {
	for _, iss := range l.issuers {
		if iss.Name == name {
			return iss
		}
	}
	return nil
}

// newRecord returns the record of an order that is about to be made.
func newRecord(sub *subject, iss *issuer) (*record, error) {
	key, err := newKey(sub.domain.GetTls().GetKeyType())
	if err != nil {
		return nil, err
	}
	return &record{UID: sub.uid, Issuer: iss.Name, Directory: iss.Directory, Key: key}, nil
}

// put writes the state of the certificate. It returns when to look at the domain next.
func (l *leader) put(ctx context.Context, sub *subject, fact *topologyv1.DomainCertificate) (time.Time, error) {
	err := l.change(ctx, sub, l.fence, func(f *storev1.DomainFacts) {
		f.Issuance.Asked, f.Issuance.Renew = nil, false
		f.Certificate = fact
	})
	return dueBy(sub.facts.Facts, l.now()), err
}

// attempt tries an order, and stores its certificate or its failure.
func (l *leader) attempt(ctx context.Context, sub *subject, iss *issuer, r *record, m method) (time.Time, error) {
	replaces := ""
	// A renewal that has failed close to the end is tried as a new order: "replaces" may be why.
	last := sub.issuance().GetRetry() != nil && classOf(l.now(), sub) == expiring
	if got := sub.got(); got.GetIssuer() == iss.Name && !last {
		replaces = got.GetAri()
	}
	state := topologyv1.DomainCertificate_ORDERING
	if sub.held != nil && !sub.held.Expired(l.now()) {
		state = topologyv1.DomainCertificate_RENEWING
	}
	err := l.change(ctx, sub, l.fence, func(f *storev1.DomainFacts) {
		f.Certificate = &topologyv1.DomainCertificate{State: state, Issuer: iss.Name}
		if !routed(f) && m.kind == acme.ChallengeTypeHTTP01 {
			f.Issuance.Guessed = timestamppb.New(l.now())
		}
	})
	if err != nil {
		return time.Time{}, err
	}
	if r.URL == "" {
		if err := l.writeOrder(ctx, sub.key, r); err != nil {
			return time.Time{}, err
		}
	}
	iss.begin()
	asking, after := withRetryAfter(ctx)
	got, err := l.perform(asking, sub, iss, r, m, replaces)
	if err != nil && faultOf(err, 0).lost {
		if err = l.beginAnew(ctx, sub, iss, r); err == nil {
			got, err = l.perform(asking, sub, iss, r, m, replaces)
		}
	}
	iss.end()
	if errors.Is(err, errAnew) {
		return l.now(), l.dropOrder(ctx, sub.key, r)
	}
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) || isStore(err) {
			return time.Time{}, err
		}
		f, ok := errors.AsType[fault](err)
		if !ok {
			f = faultOf(err, after.get())
		}
		return l.failed(context.WithoutCancel(ctx), sub, iss, r, f)
	}
	iss.succeeded()
	return l.keep(ctx, sub, iss, got)
}

// beginAnew drops an order and its account, because the issuer has lost both. The next try makes
// both again.
func (l *leader) beginAnew(ctx context.Context, sub *subject, iss *issuer, r *record) error {
	l.log.WarnContext(ctx, "issuer: the issuer does not know the account any more: it is made anew",
		"issuer", iss.Name, "domain", sub.key.Name())
	if err := iss.forget(ctx, l.fence); err != nil {
		return err
	}
	r.URL = ""
	return l.writeOrder(ctx, sub.key, r)
}

// isStore reports whether an error comes from etcd and not from an issuer.
func isStore(err error) bool {
	for _, one := range []error{
		store.ErrFenced, store.ErrUnavailable, store.ErrResourceExhausted, store.ErrConflict, store.ErrUnknownOutcome,
	} {
		if errors.Is(err, one) {
			return true
		}
	}
	return false
}

// keep stores the certificate, so that edges get it, and returns when to look at the domain next.
func (l *leader) keep(ctx context.Context, sub *subject, iss *issuer, o *obtained) (time.Time, error) {
	now := l.now()
	cert, err := certificate.New(o.certs, o.key, certificate.Options{
		Domain: sub.name(), Now: iss.later(now), AllowUntrusted: true,
	})
	if err != nil {
		return l.failed(ctx, sub, iss, nil, fault{
			reason: topologyv1.DomainCertificate_ISSUER_REJECTED, gone: true,
			text: "the issuer sent a certificate that edges cannot show: " + clean(err.Error()),
		})
	}
	got := &storev1.IssuedCertificate{Issuer: iss.Name, NotBefore: timestamppb.New(cert.Leaf.NotBefore)}
	if got.Ari, err = acme.ARIUniqueIdentifier(cert.Leaf); err != nil {
		got.Ari = ""
	}
	iss.schedule(ctx, got, cert.Leaf.NotAfter, now)
	soonest := soonestRenewal(cert.Leaf.NotBefore, cert.Leaf.NotAfter, now)
	if got.GetRenew().AsTime().Before(soonest) {
		got.Renew = timestamppb.New(soonest)
	}
	stored := cert.Record(sub.key.ID, sub.uid, true)
	rand.Read(stored.ID[:])
	got.Id = stored.ID[:]
	stored.Proxied = sub.facts.Facts.GetRouting().GetState() == topologyv1.DomainRouting_PROXIED
	stored.Order = orderName(sub.key)
	// Facts that a check has written meanwhile must stay.
	if err := l.readFacts(ctx, sub); err != nil {
		return time.Time{}, err
	}
	next := got.GetRenew()
	if got.GetAsk() != nil && got.GetAsk().AsTime().Before(next.AsTime()) {
		next = got.GetAsk()
	}
	stored.Facts = sub.facts.Facts
	was := stored.Facts.GetCertificate()
	stored.Facts.Issuance = &storev1.Issuance{Got: got}
	stored.Facts.Certificate = issued(got, next.AsTime())
	l.date(stored.Facts.Certificate, was)
	if _, err := l.store.PutCertificate(ctx, sub.key.Account, store.RequestID{}, stored, l.fence); err != nil {
		return time.Time{}, err
	}
	l.setOrder(sub.key, false)
	l.log.InfoContext(ctx, "issuer: a domain has a certificate", "domain", sub.key.Name(), "issuer", iss.Name,
		"not_after", cert.Leaf.NotAfter, "renew", got.GetRenew().AsTime())
	return next.AsTime(), nil
}

// failed stores that an order failed, and returns when to try again. r is nil if there is no order
// any more.
func (l *leader) failed(ctx context.Context, sub *subject, iss *issuer, r *record, f fault) (time.Time, error) {
	now := l.now()
	if f.answered && sub.issuance().GetRetry() != nil {
		// The order before has failed too: one name is believed once that all would fail.
		f.everywhere = false
	}
	down := false
	switch {
	case f.everywhere, f.lost:
		down = iss.failed(f, now)
	case f.validation:
		iss.succeeded() // it works: the name is at fault
	}
	if f.lost {
		if err := iss.forget(ctx, l.fence); err != nil {
			return time.Time{}, err
		}
	}
	// An order is kept for when its issuer is back, unless another issuer can be asked.
	if r == nil || r.URL == "" || f.gone || !f.everywhere || down && l.other(sub, iss, now) {
		if err := l.dropOrder(ctx, sub.key, r); err != nil {
			return time.Time{}, err
		}
	}
	var retry time.Time
	err := l.change(ctx, sub, l.fence, func(facts *storev1.DomainFacts) {
		i := facts.Issuance
		fact := &topologyv1.DomainCertificate{
			State: topologyv1.DomainCertificate_FAILED, Reason: f.reason, Issuer: iss.Name,
			Message: iss.Name + ": " + f.text,
		}
		i.Asked, i.Renew = nil, false
		if f.validation {
			i.Failed = append(recentFailures(i, now), timestamppb.New(now))
		}
		switch {
		case f.everywhere, f.lost:
			retry = now.Add(l.pause(sub, iss, now))
		default:
			i.Failures++
			wait := backoff(int(i.Failures))
			if i.RefusedBy = ""; f.issuers {
				i.RefusedBy = iss.Name
			}
			if !f.issuers || !l.other(sub, iss, now) {
				wait = max(wait, f.after)
			}
			retry = now.Add(wait)
		}
		i.Retry, i.Tried = timestamppb.New(retry), timestamppb.New(now)
		fact.NextCheck = i.Retry
		facts.Certificate = fact
	})
	l.log.WarnContext(ctx, "issuer: an order failed", "domain", sub.key.Name(), "issuer", iss.Name,
		"reason", f.reason, "error", f.text, "retry", retry)
	return retry, err
}

// soon is the time until the next try after a failure that the domain did not cause.
const soon = 5 * time.Second

// pause returns how long to wait after a fault of an issuer that is none of the name's.
func (l *leader) pause(sub *subject, iss *issuer, now time.Time) time.Duration {
	wait, _ := iss.wait(now)
	if wait > 0 && l.other(sub, iss, now) {
		return 0
	}
	return max(wait, soon)
}

// other reports whether another issuer may be asked now.
func (l *leader) other(sub *subject, than *issuer, now time.Time) bool {
	for _, iss := range l.candidates(sub) {
		if wait, _ := iss.wait(now); iss != than && wait == 0 {
			return true
		}
	}
	return false
}

// writeQueued writes that a domain waits behind others, if its turn is not at once.
func (l *leader) writeQueued(ctx context.Context, key topology.Key, ahead int) {
	now := l.now()
	wait, limited := l.wait(now)
	if wait <= 0 && ahead < ordersAtOnce {
		return
	}
	fact := waiting(topologyv1.DomainCertificate_QUEUED, fmt.Sprintf("%d others come first", ahead))
	if ahead == 0 {
		fact.Message = "it comes next"
	}
	switch {
	case wait > 0 && limited:
		fact.Reason = topologyv1.DomainCertificate_QUOTA
	case wait > 0:
		fact.Reason = topologyv1.DomainCertificate_ISSUER_DOWN
	}
	fact.NextCheck = timestamppb.New(now.Add(l.eta(wait, ahead)))
	sub, err := l.read(ctx, key)
	if err == nil {
		err = l.change(ctx, sub, l.fence, func(f *storev1.DomainFacts) {
			switch f.GetCertificate().GetState() {
			case topologyv1.DomainCertificate_ORDERING, topologyv1.DomainCertificate_RENEWING,
				topologyv1.DomainCertificate_ISSUED:
				return // its turn has come by now, or its certificate is served meanwhile
			}
			f.Certificate = fact
		})
	}
	l.failing(ctx, key, err)
}

// orderTakes is about how long an order takes.
const orderTakes = 10 * time.Second

// eta returns how long a domain behind some others waits, by the rate limits.
func (l *leader) eta(wait time.Duration, ahead int) time.Duration {
	return wait + etaOf(l.clients, ahead)
}

// etaOf returns how long a number of orders takes at issuers: the time in which their rate limits
// allow them, or in which they are done, whichever is longer.
func etaOf(clients []*client, orders int) time.Duration {
	perHour, burst := 0.0, 0
	for _, c := range clients {
		limit := c.orders()
		perHour += float64(limit.count) / limit.span.Hours()
		burst += limit.count
	}
	working := time.Duration(orders/ordersAtOnce) * orderTakes
	if perHour == 0 || orders <= burst {
		return working
	}
	return max(working, time.Duration(float64(orders-burst)/perHour*float64(time.Hour)))
}

// askRenewal asks the issuer of a domain's certificate when to renew it.
func (l *leader) askRenewal(ctx context.Context, sub *subject) error {
	got := sub.got()
	iss := l.issuer(got.GetIssuer())
	next := &storev1.IssuedCertificate{
		Id: got.GetId(), Issuer: got.GetIssuer(), NotBefore: got.GetNotBefore(), Ari: got.GetAri(),
		Renew: got.GetRenew(), Ask: got.GetAsk(),
	}
	if iss != nil {
		iss.schedule(ctx, next, unix(sub.held.NotAfter), l.now())
	}
	return l.change(ctx, sub, l.fence, func(f *storev1.DomainFacts) {
		if string(f.GetIssuance().GetGot().GetId()) == string(next.GetId()) {
			f.Issuance.Got = next
		}
	})
}

// candidates returns the issuers that the domain's settings allow, in order of preference. One that
// has refused the last order for what it has against the name comes last.
func (l *leader) candidates(sub *subject) (all []*issuer) {
	only := sub.domain.GetTls().GetIssuer()
	local := topology.IsLocal(sub.name())
	for _, iss := range l.issuers {
		if (only == "" || iss.Name == only) && (!local || iss.local()) {
			all = append(all, iss)
		}
	}
	refused := func(iss *issuer) bool { return iss.Name == sub.issuance().GetRefusedBy() }
	if i := slices.IndexFunc(all, refused); i >= 0 {
		all = append(slices.Delete(slices.Clone(all), i, i+1), all[i])
	}
	return all
}

func noIssuer(sub *subject) *topologyv1.DomainCertificate {
	fact := &topologyv1.DomainCertificate{
		State: topologyv1.DomainCertificate_NONE, Reason: topologyv1.DomainCertificate_NO_ISSUER,
	}
	if name := sub.domain.GetTls().GetIssuer(); name != "" {
		fact.Message = fmt.Sprintf("the control plane has no issuer %q", name)
	}
	return fact
}
