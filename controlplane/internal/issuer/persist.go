package issuer

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// persistLabel stands before a name whose TXT records say which accounts may have certificates for
// it, for good (draft-ietf-acme-dns-persist-00 4.1).
const persistLabel = "_validation-persist."

// persists returns the issuers that a name's TXT records allow for good, wherever the name leads.
// If fact says that challenges cannot be answered, persists adds what is wrong with the records.
func (l *leader) persists(
	ctx context.Context, session *resolver.Session, sub *subject, all []*issuer, fact *topologyv1.DomainCertificate,
) (may []*issuer, err error) {
	base, wildcard := strings.CutPrefix(sub.name(), "*.")
	answer := session.Lookup(ctx, persistLabel+base, "TXT")
	for _, record := range answer.Records {
		p, ok := parsePersist(record.Value)
		if record.Type != "TXT" || !ok {
			continue
		}
		for _, iss := range all {
			names, _ := iss.identities(ctx)
			if !slices.Contains(names, p.issuer) || slices.Contains(may, iss) {
				continue
			}
			account, err := iss.register(ctx, l.fence)
			switch wrong := p.wrong(account.Location, wildcard, l.now()); {
			case isStore(err):
				return nil, err
			case err != nil: // the order will say why
				continue
			case len(answer.Lacking(record)) > 0:
				addPersistFault(fact, record, "", fmt.Sprintf("%s does not have it yet",
					strings.Join(answer.Lacking(record), ", ")))
			case wrong != "":
				want := acme.Challenge{}.DNSPersist01TXTRecordValue(account, p.issuer, wildcard)
				addPersistFault(fact, record, want, wrong)
			default:
				may = append(may, iss)
			}
		}
	}
	return may, nil
}

// addPersistFault adds to a fact why a record does not count.
func addPersistFault(fact *topologyv1.DomainCertificate, record resolver.Record, want, wrong string) {
	if fact == nil {
		return
	}
	fact.Message += fmt.Sprintf("; the TXT record at %s does not count: %s", record.Name, wrong)
	fact.Seen = append(fact.Seen, record.String())
	if want != "" {
		fact.Want = append(fact.Want, fmt.Sprintf("%s TXT %q", record.Name, want))
	}
}

// persist is a parsed TXT record at [persistLabel].
type persist struct {
	issuer, account string
	wildcard        bool
	until           time.Time // zero for no end
}

// parsePersist parses a record, which has the form of an issue value (RFC 8659 4.2). Authorities
// ignore one that is malformed too.
func parsePersist(text string) (p persist, ok bool) {
	name, rest, more := strings.Cut(text, ";")
	p.issuer = strings.ToLower(strings.Trim(name, " \t"))
	seen := map[string]bool{}
	for more {
		var parameter string
		parameter, rest, more = strings.Cut(rest, ";")
		tag, value, is := strings.Cut(parameter, "=")
		tag, value = strings.ToLower(strings.Trim(tag, " \t")), strings.Trim(value, " \t")
		if !is || tag == "" || seen[tag] {
			return p, false
		}
		seen[tag] = true
		switch tag {
		case "accounturi":
			p.account = value
		case "policy":
			p.wildcard = strings.EqualFold(value, "wildcard")
		case "persistuntil":
			seconds, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return p, false
			}
			p.until = time.Unix(seconds, 0)
		}
	}
	return p, p.issuer != "" && p.account != ""
}

// wrong says why a record does not allow the account. It is empty if the record does.
func (p persist) wrong(account string, wildcard bool, now time.Time) string {
	switch {
	case p.account != account:
		return "accounturi is another account"
	case wildcard && !p.wildcard:
		return "a wildcard needs policy=wildcard"
	case !p.until.IsZero() && now.After(p.until):
		return "persistUntil is over"
	}
	return ""
}
