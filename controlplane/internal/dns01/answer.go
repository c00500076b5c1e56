package dns01

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxUDP is the most that an answer over UDP takes where the question says that more fits
	// (RFC 9715), and plainUDP where it does not (RFC 1035 4.2.1).
	maxUDP, plainUDP = 1232, 512
	// amplification bounds an answer over UDP to so many times the length of the question, because
	// whose address a question names is not known; the bound is that of RFC 9000 8.1. Longer ones
	// are asked for again over TCP.
	amplification = 3
	// apexTTL is how long others may keep what does not change, and answerTTL how long they may
	// keep answers, and that there is none: not at all, because both change with each order
	// (RFC 1035 3.2.1, RFC 2308 5).
	apexTTL, answerTTL = 300, 0

	typeAny    = dnsmessage.TypeALL
	typeAXFR   = dnsmessage.TypeAXFR
	typeIXFR   = dnsmessage.Type(251)
	badVersion = dnsmessage.RCode(16) // RFC 6891 6.1.3
)

// zone is what is answered for. It does not change.
type zone struct {
	name string // canonical
	// servers are the names of its name servers, and addrs the addresses of the first if that is
	// `ns.` and the zone.
	servers []string
	addrs   []netip.Addr
	// answers returns the answers of a label.
	answers func(ctx context.Context, label string) ([]string, error)
	now     func() time.Time
}

// ownServer is the name of the zone's name server where the operator names none.
func ownServer(zone string) string { return "ns." + zone }

// query is a question as far as it counts.
type query struct {
	head     dnsmessage.Header
	question dnsmessage.Question
	edns     bool
	dnssec   bool // the DO bit, which is copied (RFC 3225 3)
	version  byte
	size     int // what fits over UDP, by the question
	length   int // of the message
}

// errNoQuestion says that a message gets no answer: it is one itself, or no message at all.
var errNoQuestion = errors.New("no question")

// readQuery reads a message. With an error other than errNoQuestion, the head is that of the
// message, and nothing else.
func readQuery(packed []byte) (q query, err error) {
	var p dnsmessage.Parser
	if q.head, err = p.Start(packed); err != nil || q.head.Response {
		return q, errNoQuestion
	}
	q.size, q.length = plainUDP, len(packed)
	if q.head.OpCode != 0 {
		return q, nil // whatever it holds has another form
	}
	all, err := p.AllQuestions()
	if err != nil {
		return q, err
	}
	if len(all) != 1 { // RFC 9619
		return q, errors.New("not one question")
	}
	q.question = all[0]
	if err := errors.Join(p.SkipAllAnswers(), p.SkipAllAuthorities()); err != nil {
		return q, err
	}
	for {
		head, err := p.AdditionalHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return q, nil
		}
		if err != nil {
			return q, err
		}
		if head.Type == dnsmessage.TypeOPT {
			if q.edns || head.Name.String() != "." { // RFC 6891 6.1.1
				return q, errors.New("more than one OPT, or not at the root")
			}
			q.edns, q.dnssec, q.version = true, head.DNSSECAllowed(), byte(head.TTL>>16)
			q.size = min(max(int(head.Class), plainUDP), maxUDP)
		}
		if err := p.SkipAdditional(); err != nil {
			return q, err
		}
	}
}

// answer returns what a message is answered with, nil for nothing. udp says that it came over UDP.
func (z *zone) answer(ctx context.Context, packed []byte, udp bool) []byte {
	q, err := readQuery(packed)
	switch {
	case errors.Is(err, errNoQuestion):
		return nil
	case err != nil:
		return reply{query: query{head: q.head}, code: dnsmessage.RCodeFormatError}.pack()
	}
	r := z.reply(ctx, q)
	out := r.pack()
	if most := min(q.size, amplification*q.length); udp && len(out) > most {
		return r.truncated()
	}
	return out
}

// refusal answers a message that comes too often: over TCP it would be answered.
func refusal(packed []byte) []byte {
	q, err := readQuery(packed)
	if err != nil || q.head.OpCode != 0 {
		return nil
	}
	return reply{query: q}.truncated()
}

// reply is an answer that is being made.
type reply struct {
	query
	code          dnsmessage.RCode
	authoritative bool
	bodies        []dnsmessage.ResourceBody // for the name that is asked for
	soa           *soa                      // says that there are none
}

type soa struct {
	zone   dnsmessage.Name
	record dnsmessage.SOAResource
}

func (z *zone) reply(ctx context.Context, q query) reply {
	r := reply{query: q}
	switch name := strings.ToLower(strings.TrimSuffix(q.question.Name.String(), ".")); {
	case q.head.OpCode != 0:
		r.code = dnsmessage.RCodeNotImplemented
	case q.version != 0:
		r.code = badVersion
	case q.question.Class != dnsmessage.ClassINET, q.question.Type == typeAXFR, q.question.Type == typeIXFR,
		name != z.name && !strings.HasSuffix(name, "."+z.name):
		r.code = dnsmessage.RCodeRefused
	default:
		r.authoritative = true
		bodies, exists, err := z.records(ctx, name)
		if err != nil {
			return reply{query: q, code: dnsmessage.RCodeServerFailure}
		}
		for _, body := range bodies {
			// Whoever asks for everything is content with something (RFC 8482 4.1).
			if of := typeOf(body); of == q.question.Type || q.question.Type == typeAny && of == typeOf(bodies[0]) {
				r.bodies = append(r.bodies, body)
			}
		}
		if !exists {
			r.code = dnsmessage.RCodeNameError
		}
		if len(r.bodies) == 0 {
			r.soa = &soa{mustName(z.name), z.soa()}
		}
	}
	return r
}

// records are those of a name in the zone, and whether the name exists.
func (z *zone) records(ctx context.Context, name string) (all []dnsmessage.ResourceBody, exists bool, err error) {
	if name == z.name {
		start := z.soa()
		all = append(all, &start)
		for _, server := range z.servers {
			all = append(all, &dnsmessage.NSResource{NS: mustName(server)})
		}
		return all, true, nil
	}
	if name == ownServer(z.name) && z.servers[0] == name {
		for _, addr := range z.addrs {
			if addr.Is4() {
				all = append(all, &dnsmessage.AResource{A: addr.As4()})
			} else {
				all = append(all, &dnsmessage.AAAAResource{AAAA: addr.As16()})
			}
		}
		return all, true, nil
	}
	label := strings.TrimSuffix(name, "."+z.name)
	if !isToken(label) {
		return nil, false, nil
	}
	answers, err := z.answers(ctx, label)
	for _, answer := range answers {
		all = append(all, &dnsmessage.TXTResource{TXT: []string{answer}})
	}
	return all, len(all) > 0, err
}

// isToken recognises the labels that accounts have; see [store.Store.DomainToken]. Others are not
// looked for.
func isToken(label string) bool {
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return len(label) == 20
}

func (z *zone) soa() dnsmessage.SOAResource {
	return dnsmessage.SOAResource{
		NS: mustName(z.servers[0]), MBox: mustName("hostmaster." + z.name), Serial: uint32(z.now().Unix()),
		Refresh: 3600, Retry: 600, Expire: 86400, MinTTL: answerTTL,
	}
}

// mustName takes names that were checked when the zone was made.
func mustName(name string) dnsmessage.Name { return dnsmessage.MustNewName(name + ".") }

func typeOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch body.(type) {
	case *dnsmessage.SOAResource:
		return dnsmessage.TypeSOA
	case *dnsmessage.NSResource:
		return dnsmessage.TypeNS
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	}
	return dnsmessage.TypeTXT
}

func ttlOf(body dnsmessage.ResourceBody) uint32 {
	if typeOf(body) == dnsmessage.TypeTXT {
		return answerTTL
	}
	return apexTTL
}

// truncated is the answer without records, which says to ask again over TCP (RFC 2181 9).
func (r reply) truncated() []byte {
	r.bodies, r.soa, r.code = nil, nil, dnsmessage.RCodeSuccess
	return r.packAs(true)
}

func (r reply) pack() []byte { return r.packAs(false) }

func (r reply) packAs(truncated bool) []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: r.head.ID, Response: true, OpCode: r.head.OpCode, Authoritative: r.authoritative, Truncated: truncated,
		RecursionDesired: r.head.RecursionDesired, CheckingDisabled: r.head.CheckingDisabled, RCode: r.code & 0xf,
	})
	b.EnableCompression()
	err := b.StartQuestions()
	if r.question.Name.Length > 0 {
		err = errors.Join(err, b.Question(r.question))
	}
	err = errors.Join(err, b.StartAnswers())
	for _, body := range r.bodies {
		head := dnsmessage.ResourceHeader{
			Name: r.question.Name, Class: dnsmessage.ClassINET, TTL: ttlOf(body),
		}
		err = errors.Join(err, add(&b, head, body))
	}
	err = errors.Join(err, b.StartAuthorities())
	if r.soa != nil {
		head := dnsmessage.ResourceHeader{Name: r.soa.zone, Class: dnsmessage.ClassINET, TTL: answerTTL}
		err = errors.Join(err, b.SOAResource(head, r.soa.record))
	}
	err = errors.Join(err, b.StartAdditionals())
	if r.edns {
		var opt dnsmessage.ResourceHeader
		err = errors.Join(err, opt.SetEDNS0(maxUDP, r.code, r.dnssec), b.OPTResource(opt, dnsmessage.OPTResource{}))
	}
	out, last := b.Finish()
	if errors.Join(err, last) != nil {
		return nil
	}
	return out
}

func add(b *dnsmessage.Builder, head dnsmessage.ResourceHeader, body dnsmessage.ResourceBody) error {
	switch body := body.(type) {
	case *dnsmessage.SOAResource:
		return b.SOAResource(head, *body)
	case *dnsmessage.NSResource:
		return b.NSResource(head, *body)
	case *dnsmessage.AResource:
		return b.AResource(head, *body)
	case *dnsmessage.AAAAResource:
		return b.AAAAResource(head, *body)
	case *dnsmessage.TXTResource:
		return b.TXTResource(head, *body)
	}
	return errors.New("unknown type")
}
