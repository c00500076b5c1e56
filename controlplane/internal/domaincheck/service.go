package domaincheck

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Config is what the checks of domains need.
type Config struct {
	Store  *store.Store
	Looker *Looker
	// Pending returns the domains of a host, or of the wildcard above it, that are PENDING. Nil:
	// none are looked at because edges were asked for them.
	Pending func(host string) []topology.Key
	// Now is the clock, and At signals when it has come to a time. Defaults: time.Now, and timers
	// for what is left until the time by Now.
	Now func() time.Time
	At  func(time.Time) <-chan time.Time
	// Logger takes what becomes of domains. Default: slog.Default().
	Logger *slog.Logger
}

// Service checks domains: when somebody asks, at any control plane, and when it is due, at the one
// that leads. Its methods may be called at the same time.
type Service struct {
	store  *store.Store
	looker *Looker
	now    func() time.Time
	at     func(time.Time) <-chan time.Time
	log    *slog.Logger
	asked  chan []string // hosts that edges were asked for

	standings standings // for metrics

	pending func(host string) []topology.Key
}

// New returns a service; Run makes it check what is due.
func New(cfg Config) *Service {
	s := &Service{
		store: cfg.Store, looker: cfg.Looker, now: cfg.Now, at: cfg.At, log: cfg.Logger,
		asked: make(chan []string, 64), pending: cfg.Pending,
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.at == nil {
		s.at = func(t time.Time) <-chan time.Time { return time.After(t.Sub(s.now())) }
	}
	s.log = cmp.Or(s.log, slog.Default())
	return s
}

// domain is a domain as a check finds it.
type domain struct {
	topology.Stored[*topologyv1.CustomDomain]
	key     topology.Key
	uid     string
	subject Subject
	facts   store.DomainFacts
}

// read reads a domain and what is known of it. It returns [store.ErrNotFound] when there is none.
func (s *Service) read(ctx context.Context, key topology.Key) (*domain, error) {
	record, _, err := s.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	m, err := record.Decode()
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w", key, err)
	}
	account, _, err := s.store.Get(ctx, topology.Key{Kind: topology.KindAccounts, Account: key.Account})
	if err != nil {
		return nil, err
	}
	d := &domain{key: key, uid: topology.UID(key.ID, record.CreateRevision)}
	d.Message, d.CreateRevision, d.ModRevision = m.(*topologyv1.CustomDomain), record.CreateRevision, record.ModRevision
	if d.facts, err = s.store.Facts(ctx, key); err != nil {
		return nil, err
	}
	if d.facts.Facts.GetUid() != d.uid {
		d.facts.Facts = &storev1.DomainFacts{Uid: d.uid}
	}
	d.subject = Subject{
		Name: d.Message.GetDomain(), Token: s.store.DomainToken(topology.UID(key.Account, account.CreateRevision)),
		Believed: Believed(d.Message, d.facts.Facts),
	}
	if d.subject.Token == "" && !d.subject.Believed {
		return nil, fmt.Errorf("%w: there are no keys to make tokens with", store.ErrUnavailable)
	}
	return d, nil
}

// Believed reports whether a domain is served without proof, because of who made it.
func Believed(d *topologyv1.CustomDomain, facts *storev1.DomainFacts) bool {
	owned := facts.GetOwnership().GetState()
	return d.GetState() == topologyv1.CustomDomain_ACTIVE &&
		(owned == topologyv1.DomainOwnership_STATE_UNSPECIFIED || owned == topologyv1.DomainOwnership_TRUSTED)
}

// writeTries is how often a check begins anew because somebody else was quicker.
const writeTries = 5

// Check looks at a domain now, and writes what it finds: the state of the domain with it, if that
// changes. asked says that somebody asks, so that the next looks follow soon. It returns
// [store.ErrNotFound] when there is no such domain.
func (s *Service) Check(ctx context.Context, key topology.Key, asked bool) error {
	var err error
	for range writeTries {
		var d *domain
		if d, err = s.read(ctx, key); err != nil {
			return err
		}
		if err = s.check(ctx, d, asked); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return err
}

// writeProxied writes to the record of a domain's certificate whether requests for the domain come
// through another CDN, which edges go by.
func (s *Service) writeProxied(ctx context.Context, d *domain, now topologyv1.DomainRouting_State) error {
	if now != topologyv1.DomainRouting_HERE && now != topologyv1.DomainRouting_PROXIED {
		return nil
	}
	proxied := now == topologyv1.DomainRouting_PROXIED
	key := topology.Key{Kind: topology.KindCertificates, Account: d.key.Account, ID: d.key.ID}
	stored, _, err := s.store.Get(ctx, key)
	if err == nil {
		var differs bool
		if _, differs, err = withProxied(stored, proxied); !differs {
			return err
		}
		_, err = s.store.Write(ctx, d.key.Account, store.RequestID{}, func(at *store.State) (*store.Edit, error) {
			stored, err := at.Get(ctx, key)
			if err != nil {
				return nil, err
			}
			next, _, err := withProxied(stored, proxied)
			return &store.Edit{Puts: []store.Put{{Key: key, Message: next}}}, err
		})
	}
	if errors.Is(err, store.ErrNotFound) { // it has no certificate
		return nil
	}
	return err
}

func withProxied(record topology.Record, proxied bool) (next *topologyv1.Certificate, differs bool, err error) {
	m, err := record.Decode()
	if err != nil {
		return nil, false, fmt.Errorf("decode %s: %w", record.Key, err)
	}
	next = m.(*topologyv1.Certificate)
	differs = next.GetProxied() != proxied
	next.Proxied = proxied
	return next, differs, nil
}

func (s *Service) check(ctx context.Context, d *domain, asked bool) error {
	f := s.look(ctx, d.subject)
	if err := ctx.Err(); err != nil { // nothing that was not asked is to be taken for an answer
		return err
	}
	if asked {
		d.facts.Facts.Looks = 0
	}
	if f.Asked {
		if err := s.writeProxied(ctx, d, f.Routing.GetState()); err != nil {
			return err
		}
	}
	facts, state := Advance(d.facts.Facts, d.Message.GetState(), f, s.now())
	if d.Message.GetState() == topologyv1.CustomDomain_PENDING {
		free, err := s.free(ctx, d, f.Proven)
		if err != nil {
			return err
		}
		if !free {
			state = topologyv1.CustomDomain_PENDING
			taken(facts)
		}
	}
	next := proto.CloneOf(d.Message)
	next.State = state
	if f.Asked {
		switch f.Routing.GetState() {
		case topologyv1.DomainRouting_HERE:
			next.Routing = nil
		case topologyv1.DomainRouting_PROXIED:
			next.Routing = &topologyv1.DomainRouting{State: topologyv1.DomainRouting_PROXIED}
		}
	}
	if proto.Equal(next, d.Message) {
		_, err := s.store.PutFacts(
			ctx,
			store.DomainFacts{Key: d.key, Facts: facts, Revision: d.facts.Revision},
			d.CreateRevision,
			nil,
		)
		return err
	}
	err := s.put(ctx, d, next, facts)
	if errors.Is(err, store.ErrAlreadyExists) { // somebody has just proven it
		return fmt.Errorf("%w: %w", store.ErrConflict, err)
	}
	return err
}

func taken(facts *storev1.DomainFacts) {
	o := facts.GetOwnership()
	o.State, o.Reason = topologyv1.DomainOwnership_CONFLICT, topologyv1.DomainOwnership_TAKEN
	o.Message = "another account has the name, or a wildcard that goes with it"
}

func (s *Service) look(ctx context.Context, subject Subject) Finding {
	e := s.looker.Look(ctx, subject)
	return Judge(subject, e, s.looker.goal(subject.Token), s.looker.Target != "")
}

// Preview is what is known of a name that is no domain of an account yet, once it was looked at.
func (s *Service) Preview(
	ctx context.Context, account, accountUID, name string, believed bool,
) (*storev1.DomainFacts, error) {
	f := s.look(ctx, Subject{Name: name, Token: s.store.DomainToken(accountUID), Believed: believed})
	at := timestamppb.New(s.now())
	f.Ownership.LastCheck, f.Routing.LastCheck = at, at
	facts := &storev1.DomainFacts{Ownership: f.Ownership, Routing: f.Routing, Records: f.Records, Caa: f.CAA}
	key := topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: topology.DomainID(name)}
	lost, free, err := s.holders(ctx, key)
	if err == nil && (!free || len(lost) > 0 && (believed || !f.Proven)) {
		taken(facts)
	}
	Bound(facts)
	return facts, err
}

// put writes what edges go by of what was found of a domain: its state, and whether another CDN
// forwards requests for it. What is known of the domain by then is written with it.
func (s *Service) put(
	ctx context.Context, d *domain, next *topologyv1.CustomDomain, facts *storev1.DomainFacts,
) error {
	next.UpdateTime = timestamppb.New(s.now())
	_, err := s.store.Write(ctx, d.key.Account, store.RequestID{}, func(now *store.State) (*store.Edit, error) {
		record, err := now.Get(ctx, d.key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, err
		case err != nil:
			return nil, err
		case record.ModRevision != d.ModRevision:
			return nil, fmt.Errorf("write %s: %w", d.key, store.ErrConflict)
		}
		return &store.Edit{
			Puts: []store.Put{{Key: d.key, Message: next}}, Facts: []store.DomainFacts{{Key: d.key, Facts: facts}},
			OutputOnly: true,
		}, nil
	})
	if err != nil || next.GetState() == d.Message.GetState() {
		return err
	}
	s.log.InfoContext(
		ctx,
		"domaincheck: a domain has another state",
		"domain",
		d.key.Name(),
		"was",
		d.Message.GetState(),
		"state",
		next.GetState(),
		"ownership",
		facts.GetOwnership().GetMessage(),
	)
	return nil
}

// holders are the domains of others that have the name of a domain, or what goes with it, and have
// lost their proof. free is false if others have it for good.
func (s *Service) holders(ctx context.Context, key topology.Key) (lost []*domain, free bool, err error) {
	keys, err := s.store.Holders(ctx, key)
	if err != nil {
		return nil, false, err
	}
	for _, key := range keys {
		holder, err := s.read(ctx, key)
		if err != nil {
			return nil, false, err
		}
		if holder.facts.Facts.GetOwnership().GetState() != topologyv1.DomainOwnership_LOST {
			return nil, false, nil
		}
		lost = append(lost, holder)
	}
	return lost, true, nil
}

// free reports whether nobody else has the name of a domain, or what goes with it. Who has lost its
// proof gives way to who has one.
func (s *Service) free(ctx context.Context, d *domain, proven bool) (bool, error) {
	lost, free, err := s.holders(ctx, d.key)
	if err != nil || !free || len(lost) > 0 && !proven {
		return false, err
	}
	for _, holder := range lost {
		facts := proto.CloneOf(holder.facts.Facts)
		taken(facts)
		next := proto.CloneOf(holder.Message)
		next.State = topologyv1.CustomDomain_PENDING
		if err := s.put(ctx, holder, next, facts); err != nil {
			return false, err
		}
	}
	return true, nil
}
