// Package dns01 answers the dns-01 challenges of certificate authorities (RFC 8555 8.4), which are
// asked for as TXT records at `_acme-challenge.` and the name.
//
// Whoever owns a name leads `_acme-challenge` by CNAME into a zone that control planes answer for,
// to a name that only the account has: this package's [Server] answers there. Else a program of the
// operator's, the hook, sets records wherever the name's DNS is.
//
// What always holds: any control plane answers for any order, whichever leads, because answers lie
// in etcd; an answer is seen by everybody who asks once [Solver.Present] has returned; what nobody
// takes back ends by itself, but for what a hook has set.
package dns01

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Way is how dns-01 challenges of a name are answered.
type Way int

const (
	// None is not at all.
	None Way = iota
	// Delegated is by the zone that the name's `_acme-challenge` leads into.
	Delegated
	// ByHook is by the operator's program.
	ByHook
	// Conflict is not before a record is removed that stands beside the one that leads into the
	// zone.
	Conflict
)

// Choice says how challenges of a name are answered, and what is in the way.
type Choice struct {
	Way Way
	// Message says what is wrong with None and Conflict, for people.
	Message string
	// Seen are records that were found, and Want those that would help, each as `name TYPE value`.
	Seen, Want []string
}

// NameOf is where challenges of a name, or of `*.` and a name, are asked for.
func NameOf(name string) string { return "_acme-challenge." + strings.TrimPrefix(name, "*.") }

// Delegation is what DNS says at the name of challenges.
type Delegation struct {
	// CNAME is the answer for the CNAME records, and TXT the TXT records that stand beside one.
	CNAME *resolver.Answer
	TXT   []resolver.Record
}

// Look asks where challenges of a name lead.
func Look(ctx context.Context, session *resolver.Session, name string) *Delegation {
	d := &Delegation{CNAME: withoutWildcards(ctx, session, session.Lookup(ctx, NameOf(name), "CNAME"))}
	if d.CNAME.Outcome != resolver.Found {
		return d
	}
	beside := session.Lookup(ctx, NameOf(name), "TXT")
	records := beside.Records // of a server that has no CNAME
	if len(beside.Chain) > 0 {
		records = beside.Beside
	}
	for _, r := range records {
		if r.Type == "TXT" && r.Name == NameOf(name) {
			d.TXT = append(d.TXT, r)
		}
	}
	return d
}

// withoutWildcards leaves out of an answer what the name only has because of a wildcard record
// above it, such as the one that leads all names to the edges: a record of its own takes the place
// of that (RFC 4592 2.2.1).
func withoutWildcards(ctx context.Context, session *resolver.Session, a *resolver.Answer) *resolver.Answer {
	if a.Outcome != resolver.Found {
		return a
	}
	var values []string
	_, base, _ := strings.Cut(a.Name, ".")
	_, parent, _ := strings.Cut(base, ".")
	for _, above := range []string{base, parent} {
		for _, r := range session.Lookup(ctx, "*."+above, "CNAME").Records {
			values = append(values, r.Value)
		}
	}
	own := *a
	own.Views = slices.Clone(a.Views)
	keep := func(records []resolver.Record) []resolver.Record {
		return slices.DeleteFunc(slices.Clone(records),
			func(r resolver.Record) bool { return slices.Contains(values, r.Value) })
	}
	for i := range own.Views {
		own.Views[i].Records = keep(own.Views[i].Records)
	}
	if own.Records = keep(a.Records); len(own.Records) == 0 {
		own.Outcome = resolver.NoData
	}
	return &own
}

// Empty reports whether there is nothing at the name of challenges, as far as could be asked.
func (d *Delegation) Empty() bool {
	return d.CNAME.Outcome == resolver.NoData || d.CNAME.Outcome == resolver.NXDomain
}

// Current are the CNAME records that are there, each as `CNAME value`. d may be nil.
func (d *Delegation) Current() (current []string) {
	if d != nil {
		for _, r := range d.CNAME.Records {
			current = append(current, r.Type+" "+r.Value)
		}
	}
	return current
}

// Judge says how challenges of a name are answered. goal is the name that its CNAME is to have,
// empty without a zone; hook says that there is a program that sets records.
func (d *Delegation) Judge(name, goal string, hook bool) Choice {
	at := NameOf(name)
	c := Choice{Way: None}
	if goal != "" {
		c.Want = []string{at + " CNAME " + goal}
	}
	switch d.CNAME.Outcome {
	case resolver.Unasked, resolver.Broken:
		c.Message = fmt.Sprintf("DNS could not be asked for %s: %v", at, d.CNAME.Err)
		return c
	case resolver.Found:
		return d.judgeFound(c, at, goal)
	}
	switch {
	case hook:
		return Choice{Way: ByHook}
	case goal == "":
		c.Message = "this control plane answers no dns-01 challenges: start it with --acme-dns-zone or --acme-dns-hook"
	default:
		c.Message = fmt.Sprintf("there is no CNAME at %s", at)
	}
	return c
}

func (d *Delegation) judgeFound(c Choice, at, goal string) Choice {
	for _, r := range d.CNAME.Records {
		c.Seen = append(c.Seen, r.String())
	}
	i := slices.IndexFunc(d.CNAME.Records, func(r resolver.Record) bool { return r.Value == goal })
	switch {
	case i < 0 || goal == "":
		c.Message = fmt.Sprintf("the CNAME at %s leads to %s", at, d.CNAME.Records[0].Value)
	case len(d.CNAME.Records) > 1: // and so name servers differ
		c.Message = fmt.Sprintf("there are %d CNAME records at %s, and only one may be", len(d.CNAME.Records), at)
	case len(d.CNAME.Lacking(d.CNAME.Records[i])) > 0:
		c.Message = fmt.Sprintf("%s does not have the CNAME at %s yet",
			strings.Join(d.CNAME.Lacking(d.CNAME.Records[i]), ", "), at)
	case len(d.TXT) > 0:
		c.Way, c.Want = Conflict, nil
		c.Seen = append(c.Seen, d.TXT[0].String())
		c.Message = fmt.Sprintf(
			"TXT %q stands beside the CNAME at %s, and no other record may (RFC 1034 3.6.2): delete it",
			d.TXT[0].Value, at)
	default:
		return Choice{Way: Delegated, Seen: c.Seen}
	}
	return c
}

// Challenge is a challenge that is to be answered.
type Challenge struct {
	// Way is Delegated or ByHook.
	Way Way
	// Name is where it is asked for; see [NameOf].
	Name string
	// Token is the account's; see [store.Store.DomainToken].
	Token string
	// Value is what the TXT record has to say: the SHA-256 of the key authorization in base64url
	// (RFC 8555 8.4).
	Value string
}

// Config is what a Solver needs.
type Config struct {
	Store *store.Store
	// Zone is what `_acme-challenge` records lead into. Empty: there is none.
	Zone string
	// Hook is the program that sets records, empty for none.
	Hook string
	// Resolver finds out whether what the hook sets is there.
	Resolver *resolver.Resolver
	// Logger takes what hooks say. Default: slog.Default().
	Logger *slog.Logger
}

// Solver answers challenges. Its methods may be called at the same time, and on nil, which answers
// none.
type Solver struct {
	store *store.Store
	zone  string
	hook  *hook
}

// NewSolver returns a solver, or nil if it could answer none.
func NewSolver(cfg Config) *Solver {
	if cfg.Zone == "" && cfg.Hook == "" {
		return nil
	}
	s := &Solver{store: cfg.Store, zone: cfg.Zone}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Hook != "" {
		s.hook = newHook(cfg.Hook, cfg.Resolver, cfg.Logger)
	}
	return s
}

// Goal is the name that CNAME records of an account are to have, empty without a zone.
func Goal(token, zone string) string {
	if zone == "" {
		return ""
	}
	return token + "." + zone
}

// Choose says how challenges of a name of the account with a token are answered.
func (s *Solver) Choose(ctx context.Context, session *resolver.Session, token, name string) Choice {
	if s == nil {
		return (&Delegation{CNAME: &resolver.Answer{Outcome: resolver.NoData}}).Judge(name, "", false)
	}
	return Look(ctx, session, name).Judge(name, Goal(token, s.zone), s.hook != nil && strings.HasPrefix(name, "*."))
}

// Present answers a challenge from now on, until Cleanup. It may be called again for the same
// challenge. It returns [store.ErrFenced] if the fence has fallen.
func (s *Solver) Present(ctx context.Context, fence *store.Fence, ch Challenge) error {
	switch {
	case s != nil && ch.Way == Delegated:
		return s.store.PutChallengeAnswer(ctx, fence, ch.Token, ch.Value)
	case s != nil && ch.Way == ByHook && s.hook != nil:
		return s.hook.present(ctx, ch)
	}
	return fmt.Errorf("nobody answers dns-01 challenges at %s", ch.Name)
}

// Cleanup ends what Present has begun. It does nothing where that is so already.
func (s *Solver) Cleanup(ctx context.Context, ch Challenge) error {
	switch {
	case s != nil && ch.Way == Delegated:
		return s.store.DropChallengeAnswer(ctx, ch.Token, ch.Value)
	case s != nil && ch.Way == ByHook && s.hook != nil:
		return s.hook.cleanup(ctx, ch)
	}
	return nil
}
