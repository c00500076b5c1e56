package domaincheck

import (
	"fmt"
	"strings"

	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

const (
	// maxLines are the lines that are kept of a list, of maxLine bytes each: a name with a proof is
	// no longer. maxText bounds a message, and maxSet the records to set.
	maxLines = 16
	maxLine  = 320
	maxText  = 1 << 10
	maxSet   = 2 * maxLines
)

// Bound cuts, in place, what is known of a domain to what somebody reads of it. Whoever has a name
// chooses how long the answers of its name servers are, and those for many names would fill etcd.
// What was cut already stays as it is.
func Bound(f *storev1.DomainFacts) {
	if o := f.GetOwnership(); o != nil {
		o.Message, o.Seen, o.Want = cut(o.Message, maxText), listed(o.Seen), listed(o.Want)
	}
	if r := f.GetRouting(); r != nil {
		r.Message, r.Seen, r.Want = cut(r.Message, maxText), listed(r.Seen), listed(r.Want)
		r.NameServers, r.Resolvers = listed(r.NameServers), listed(r.Resolvers)
	}
	if c := f.GetCertificate(); c != nil {
		c.Message, c.Seen, c.Want = cut(c.Message, maxText), listed(c.Seen), listed(c.Want)
	}
	f.Caa = listed(f.Caa)
	f.Records = f.Records[:min(len(f.Records), maxSet)]
	for _, r := range f.Records {
		r.Value, r.Note, r.Current = cut(r.Value, maxLine), cut(r.Note, maxLine), listed(r.Current)
	}
}

// listed cuts a list, and says in its last line how many there were more.
func listed(all []string) []string {
	if over := len(all) - maxLines; over > 0 {
		all = append(all[:maxLines-1:maxLines-1], fmt.Sprintf("and %d more", over+1))
	}
	for i, line := range all {
		all[i] = cut(line, maxLine)
	}
	return all
}

func cut(text string, most int) string {
	const more = " ..."
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len(more)], "") + more
}
