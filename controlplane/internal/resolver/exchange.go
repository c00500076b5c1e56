package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// udpSize is the most that an answer over UDP may take: more would be cut into pieces on its
	// way (RFC 9715).
	udpSize = 1232
	// maxRecords are the records of an answer that are read.
	maxRecords = 300
)

// message is an answer of a server, as far as it counts.
type message struct {
	rcode         dnsmessage.RCode
	authoritative bool
	truncated     bool
	answers       []Record
	authority     []Record
}

// exchange asks one server. recursion asks it to ask others, and unchecked to leave DNSSEC alone.
func (r *Resolver) exchange(
	ctx context.Context, to netip.AddrPort, q question, recursion, unchecked bool,
) (message, error) {
	m, err := r.converse(ctx, to, q, recursion, unchecked, true)
	if err == nil && m.rcode == dnsmessage.RCodeFormatError { // it does not know EDNS (RFC 6891 7)
		m, err = r.converse(ctx, to, q, recursion, unchecked, false)
	}
	if err != nil {
		return message{}, plain(err)
	}
	return m, nil
}

// converse asks one server, over TCP if an answer does not fit into UDP.
func (r *Resolver) converse(
	ctx context.Context, to netip.AddrPort, q question, recursion, unchecked, edns bool,
) (message, error) {
	id, packed, err := packQuestion(q, recursion, unchecked, edns)
	if err != nil {
		return message{}, err
	}
	// UDP loses messages: there are two attempts, and the second has more time.
	m, err := r.overUDP(ctx, to, id, packed, q, r.lost)
	if err != nil && ctx.Err() == nil {
		m, err = r.overUDP(ctx, to, id, packed, q, r.timeout-r.lost)
	}
	if err != nil || !m.truncated || ctx.Err() != nil {
		return m, errors.Join(err, ctx.Err())
	}
	return r.overTCP(ctx, to, id, packed, q)
}

var errSilent = errors.New("no answer in time")

// plain leaves out of an error what an address says already.
func plain(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return errSilent
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

func packQuestion(q question, recursion, unchecked, edns bool) (id uint16, packed []byte, err error) {
	var random [2]byte
	rand.Read(random[:])
	id = binary.BigEndian.Uint16(random[:])
	name, err := dnsmessage.NewName(q.name + ".")
	if err != nil {
		return 0, nil, fmt.Errorf("name %q: %w", q.name, err)
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: recursion, CheckingDisabled: unchecked})
	b.EnableCompression()
	err = errors.Join(
		b.StartQuestions(),
		b.Question(dnsmessage.Question{Name: name, Type: q.kind, Class: dnsmessage.ClassINET}),
		b.StartAdditionals(),
	)
	if edns {
		var opt dnsmessage.ResourceHeader
		err = errors.Join(err, opt.SetEDNS0(udpSize, dnsmessage.RCodeSuccess, false),
			b.OPTResource(opt, dnsmessage.OPTResource{}))
	}
	if err != nil {
		return 0, nil, fmt.Errorf("name %q: %w", q.name, err)
	}
	packed, err = b.Finish()
	return id, packed, err
}

func (r *Resolver) dial(
	ctx context.Context, network string, to netip.AddrPort, timeout time.Duration,
) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timeout)
	if until, ok := ctx.Deadline(); ok && until.Before(deadline) {
		deadline = until
	}
	return conn, conn.SetDeadline(deadline)
}

func (r *Resolver) overUDP(
	ctx context.Context, to netip.AddrPort, id uint16, packed []byte, q question, timeout time.Duration,
) (message, error) {
	conn, err := r.dial(ctx, "udp", to, timeout)
	if err != nil {
		return message{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(packed); err != nil {
		return message{}, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return message{}, err
		}
		m, err := parse(buf[:n], id, q)
		if !errors.Is(err, errForeign) { // else somebody guesses, or it answers an earlier question
			return m, err
		}
	}
}

func (r *Resolver) overTCP(
	ctx context.Context, to netip.AddrPort, id uint16, packed []byte, q question,
) (message, error) {
	conn, err := r.dial(ctx, "tcp", to, r.timeout)
	if err != nil {
		return message{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return message{}, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return message{}, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return message{}, err
	}
	return parse(buf, id, q)
}

// errForeign is about a message that does not answer the question.
var errForeign = errors.New("the answer is to another question")

// parse reads an answer. Records that it does not know are left out; what comes after a record that
// cannot be read is lost, and so is the answer.
func parse(packed []byte, id uint16, q question) (message, error) {
	var p dnsmessage.Parser
	head, err := p.Start(packed)
	if err != nil {
		return message{}, fmt.Errorf("read answer: %w", err)
	}
	if head.ID != id || !head.Response {
		return message{}, errForeign
	}
	asked, err := p.AllQuestions()
	if err != nil {
		return message{}, fmt.Errorf("read answer: %w", err)
	}
	if len(asked) == 0 && head.RCode == dnsmessage.RCodeFormatError { // it could not even read the question
		return message{rcode: head.RCode}, nil
	}
	if len(asked) != 1 || nameOf(asked[0].Name) != q.name || asked[0].Type != q.kind ||
		asked[0].Class != dnsmessage.ClassINET {
		return message{}, errForeign
	}
	m := message{rcode: head.RCode, authoritative: head.Authoritative, truncated: head.Truncated}
	if m.truncated {
		return m, nil
	}
	if m.answers, err = readRecords(&p, p.AnswerHeader, p.SkipAnswer); err != nil {
		return message{}, fmt.Errorf("read answer: %w", err)
	}
	if m.authority, err = readRecords(&p, p.AuthorityHeader, p.SkipAuthority); err != nil {
		return message{}, fmt.Errorf("read answer: %w", err)
	}
	return m, nil
}

func readRecords(
	p *dnsmessage.Parser,
	next func() (dnsmessage.ResourceHeader, error),
	skip func() error,
) (found []Record, err error) {
	for {
		head, err := next()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		record, known, err := readRecord(p, head)
		if err != nil {
			return nil, err
		}
		if !known {
			if err := skip(); err != nil {
				return nil, err
			}
			continue
		}
		if len(found) == maxRecords {
			return nil, fmt.Errorf("more than %d records", maxRecords)
		}
		found = append(found, record)
	}
}

func readRecord(p *dnsmessage.Parser, head dnsmessage.ResourceHeader) (r Record, known bool, err error) {
	if head.Class != dnsmessage.ClassINET {
		return r, false, nil
	}
	r = Record{Name: nameOf(head.Name), Type: kindName(head.Type)}
	switch head.Type {
	case dnsmessage.TypeA:
		a, err := p.AResource()
		r.Addr = netip.AddrFrom4(a.A)
		r.Value = r.Addr.String()
		return r, true, err
	case dnsmessage.TypeAAAA:
		a, err := p.AAAAResource()
		r.Addr = netip.AddrFrom16(a.AAAA)
		r.Value = r.Addr.String()
		return r, true, err
	case dnsmessage.TypeCNAME:
		c, err := p.CNAMEResource()
		r.Value = nameOf(c.CNAME)
		return r, true, err
	case dnsmessage.TypeNS:
		n, err := p.NSResource()
		r.Value = nameOf(n.NS)
		return r, true, err
	case dnsmessage.TypeSOA:
		// Only whose it is counts. The mailbox in it often has a dot within a label, as in
		// first\.last.example.com, which the library takes for no name.
		_, err := p.UnknownResource()
		return r, true, err
	case dnsmessage.TypeTXT:
		t, err := p.TXTResource()
		r.Value = printable(strings.Join(t.TXT, ""))
		return r, true, err
	case typeCAA:
		u, err := p.UnknownResource()
		if err != nil {
			return r, true, err
		}
		r.CAA, err = parseCAA(u.Data)
		r.Value = r.CAA.String()
		return r, true, err
	}
	return r, false, nil
}

// nameOf is a name in lower case, without the dot at its end.
func nameOf(n dnsmessage.Name) string {
	return printable(strings.ToLower(strings.TrimSuffix(n.String(), ".")))
}

// printable writes bytes that are no visible ASCII as zone files do (RFC 1035 5.1), so that what
// strangers put into DNS can be shown.
func printable(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			fmt.Fprintf(&b, `\%03d`, c)
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
