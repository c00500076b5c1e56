package resolver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// typeCAA is the type of CAA records (RFC 8659 4.1).
const typeCAA dnsmessage.Type = 257

// CAA is what a CAA record says.
type CAA struct {
	Critical   bool
	Tag, Value string
}

// String is as zone files have it, with the quotes that a value takes there.
func (c CAA) String() string {
	flags := 0
	if c.Critical {
		flags = 128
	}
	return fmt.Sprintf("%d %s %q", flags, c.Tag, c.Value)
}

func parseCAA(data []byte) (CAA, error) {
	if len(data) < 2 || data[1] == 0 || len(data) < 2+int(data[1]) {
		return CAA{}, errors.New("a CAA record is cut off")
	}
	end := 2 + int(data[1])
	tag, value := strings.ToLower(string(data[2:end])), string(data[end:])
	return CAA{Critical: data[0]&128 != 0, Tag: printable(tag), Value: printable(value)}, nil
}

// CAA finds the CAA records that count for a name, or `*.` and a name: those of the name itself,
// else of the first name above that has any (RFC 8659 3). CNAME records are followed at each of
// them. An answer without records allows everybody, if it is NoData.
func (s *Session) CAA(ctx context.Context, name string) *Answer {
	at := strings.TrimPrefix(name, "*.")
	for {
		a := s.Lookup(ctx, at, "CAA")
		_, parent, above := strings.Cut(at, ".")
		switch {
		case a.Outcome == Found, a.Outcome == Broken, a.Outcome == Unasked:
			return a
		case !above:
			return &Answer{Name: at, Last: at, Outcome: NoData}
		}
		at = parent
	}
}

// CAALines are CAA records as zone files have them, without their TTL and class.
func CAALines(records []Record) (lines []string) {
	for _, r := range records {
		lines = append(lines, r.Name+" CAA "+r.CAA.String())
	}
	return lines
}

// Allows reports whether CAA records let an issuer that is known by some of its names issue a
// certificate, by a method of validation, to an account with a URI (RFC 8659 4.2 and 4.3, RFC 8657
// 3 and 4). wildcard says that it is for a wildcard.
func Allows(records []Record, wildcard bool, issuers []string, method, account string) bool {
	var issue, issueWild []string
	for _, r := range records {
		switch {
		case r.CAA.Tag == "issue":
			issue = append(issue, r.CAA.Value)
		case r.CAA.Tag == "issuewild":
			issueWild = append(issueWild, r.CAA.Value)
		case r.CAA.Critical && !slices.Contains(otherTags, r.CAA.Tag):
			return false
		}
	}
	counts := issue
	if wildcard && len(issueWild) > 0 {
		counts = issueWild
	}
	if len(counts) == 0 {
		return true
	}
	return slices.ContainsFunc(counts, func(value string) bool { return allows(value, issuers, method, account) })
}

// CriticalCAA finds a record that forbids all issuers to issue, because none knows what it says
// (RFC 8659 4.1).
func CriticalCAA(records []Record) (found Record, ok bool) {
	for _, r := range records {
		issues := r.CAA.Tag == "issue" || r.CAA.Tag == "issuewild"
		if r.CAA.Critical && !issues && !slices.Contains(otherTags, r.CAA.Tag) {
			return r, true
		}
	}
	return found, false
}

// CAANamesAccount reports whether a CAA record lets some accounts alone have certificates
// (RFC 8657 3).
func CAANamesAccount(records []Record) bool {
	return slices.ContainsFunc(records, func(r Record) bool {
		return strings.Contains(strings.ToLower(r.CAA.Value), "accounturi")
	})
}

// AllowingCAA is the record that, beside others, lets an issuer that is known by some names issue a
// certificate. It is as narrow as the records that the issuer has already.
func AllowingCAA(records []Record, tag string, issuers []string, method, account string) CAA {
	c := CAA{Tag: tag, Value: issuers[0]}
	for _, r := range records {
		name, parameters, _ := strings.Cut(r.CAA.Value, ";")
		if r.CAA.Tag != tag || !slices.Contains(issuers, strings.ToLower(strings.TrimSpace(name))) {
			continue
		}
		parameters = strings.ToLower(parameters)
		if strings.Contains(parameters, "accounturi") && account != "" {
			c.Value += "; accounturi=" + account
		}
		if strings.Contains(parameters, "validationmethods") {
			c.Value += "; validationmethods=" + method
		}
		break
	}
	return c
}

// otherTags are those that issuers know and that say nothing of who may issue certificates for
// hosts: RFC 8659 4.4, RFC 9495 3.
var otherTags = []string{"iodef", "issuemail"}

func allows(value string, issuers []string, method, account string) bool {
	name, parameters, _ := strings.Cut(value, ";")
	if !slices.Contains(issuers, strings.ToLower(strings.TrimSpace(name))) {
		return false
	}
	for parameter := range strings.SplitSeq(parameters, ";") {
		tag, is, ok := strings.Cut(strings.TrimSpace(parameter), "=")
		switch tag, is = strings.ToLower(strings.TrimSpace(tag)), strings.TrimSpace(is); {
		case !ok && tag != "":
			return false // what is not well formed forbids
		case tag == "accounturi" && is != account:
			return false
		case tag == "validationmethods" &&
			!slices.Contains(strings.Split(strings.ReplaceAll(is, " ", ""), ","), method):
			return false
		}
	}
	return true
}
