package issuer

import (
	"context"
	"errors"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// choose returns the method to validate a name, or what is missing for it. It prefers DNS, because
// the name need not lead here for that. Otherwise it takes HTTP, which issuers do not accept for
// wildcards.
func (l *leader) choose(
	ctx context.Context, session *resolver.Session, sub *subject,
) (method, *topologyv1.DomainCertificate, error) {
	wildcard := strings.HasPrefix(sub.name(), "*.")
	if l.dns01 == nil && !wildcard {
		return method{kind: acme.ChallengeTypeHTTP01}, nil, nil
	}
	token, err := l.token(ctx, sub.key.Account)
	if err != nil {
		return method{}, nil, err
	}
	choice := l.dns01.Choose(ctx, session, token, sub.name())
	reason := topologyv1.DomainCertificate_NEEDS_DNS01
	switch {
	case choice.Way == dns01.Delegated, choice.Way == dns01.ByHook:
		return l.byDNS(dns01.Challenge{Way: choice.Way, Name: dns01.NameOf(sub.name()), Token: token}), nil, nil
	case choice.Way == dns01.Conflict:
		reason = topologyv1.DomainCertificate_DNS01_CONFLICT
	case !wildcard:
		return method{kind: acme.ChallengeTypeHTTP01}, nil, nil
	}
	fact := waiting(reason, choice.Message)
	fact.Seen, fact.Want = choice.Seen, choice.Want
	return method{}, fact, nil
}

// token returns the account's token in DNS.
func (l *leader) token(ctx context.Context, account string) (string, error) {
	record, _, err := l.store.Get(ctx, topology.Key{Kind: topology.KindAccounts, Account: account})
	if err != nil {
		return "", err
	}
	return l.store.DomainToken(topology.UID(account, record.CreateRevision)), nil
}

// byDNS is the method that answers challenges over DNS.
func (l *leader) byDNS(at dns01.Challenge) method {
	of := func(ch acme.Challenge) dns01.Challenge {
		one := at
		one.Value = ch.DNS01KeyAuthorization()
		return one
	}
	m := method{
		kind: acme.ChallengeTypeDNS01,
		publish: func(ctx context.Context, ch acme.Challenge) error {
			err := l.dns01.Present(ctx, l.fence, of(ch))
			if err == nil || isStore(err) || errors.Is(ctx.Err(), context.Canceled) {
				return err // an order that has used up its time has failed for this
			}
			return fault{reason: topologyv1.DomainCertificate_ISSUER_DNS, text: err.Error()}
		},
		takeBack: func(ctx context.Context, r *record, ch acme.Challenge) { l.takeBack(ctx, r, of(ch)) },
	}
	if at.Way == dns01.ByHook {
		m.hooked = of
	}
	return m
}

// takeBack removes an answer to a challenge of an order, and what a hook may have set for it.
func (l *leader) takeBack(ctx context.Context, r *record, ch dns01.Challenge) {
	all := []dns01.Challenge{ch}
	if r.Hooked != nil && *r.Hooked != ch { // the name was answered in another way before
		all = append(all, *r.Hooked)
	}
	for _, one := range all {
		if err := l.dns01.Cleanup(ctx, one); err != nil {
			l.log.WarnContext(ctx, "issuer: the answer to a challenge stays", "name", one.Name, "err", err)
		}
	}
	r.Hooked = nil
}
