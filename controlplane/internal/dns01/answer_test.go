package dns01

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	here   = "k7f3a2q2m4xw6c5dpb2e"
	busy   = "aaaaaaaaaaaaaaaaaaaa"
	broken = "brokenbrokenbrokenbr"
	nobody = "zzzzzzzzzzzzzzzzzzzz"
	// value is as long as those of issuers are.
	value = "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo"
)

func testZone() *zone {
	return &zone{
		name: "acme.example.net", servers: []string{"ns.acme.example.net"},
		addrs: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")},
		now:   func() time.Time { return time.Unix(1_800_000_000, 0) },
		answers: func(_ context.Context, label string) ([]string, error) {
			switch label {
			case here:
				return []string{value, "second"}, nil
			case busy:
				var all []string
				for i := range 40 {
					all = append(all, fmt.Sprintf("%s%d", value, i))
				}
				return all, nil
			case broken:
				return nil, errors.New("etcd does not answer")
			}
			return nil, nil
		},
	}
}

// ask is a question: a name, a type, and flags such as `edns=1232`.
func ask(tb testing.TB, text string) []byte {
	tb.Helper()
	words := strings.Fields(text)
	types := map[string]dnsmessage.Type{
		"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "TXT": dnsmessage.TypeTXT, "NS": dnsmessage.TypeNS,
		"SOA": dnsmessage.TypeSOA, "ANY": dnsmessage.TypeALL, "AXFR": dnsmessage.TypeAXFR, "IXFR": typeIXFR,
		"CAA": 257, "DS": 43,
	}
	q := dnsmessage.Question{Name: dnsmessage.MustNewName(words[0] + "."), Type: types[words[1]],
		Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}}
	for _, flag := range words[2:] {
		opt := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT}
		name, number, _ := strings.Cut(flag, "=")
		switch name {
		case "edns":
			size := 0
			fmt.Sscan(number, &size)
			opt.Class = dnsmessage.Class(size)
			m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: opt, Body: &dnsmessage.OPTResource{}})
		case "version":
			m.Additionals[0].Header.TTL |= 1 << 16
		case "do":
			m.Additionals[0].Header.TTL |= 1 << 15
		case "chaos":
			q.Class = dnsmessage.ClassCHAOS
		case "notify":
			m.OpCode = 4
		case "response":
			m.Response = true
		case "twice":
			m.Questions = append(m.Questions, q)
		}
	}
	m.Questions = append(m.Questions, q)
	packed, err := m.Pack()
	if err != nil {
		tb.Fatal(err)
	}
	return packed
}

// rendered is an answer in words.
func rendered(tb testing.TB, packed []byte) string {
	tb.Helper()
	if packed == nil {
		return "nothing"
	}
	var m dnsmessage.Message
	if err := m.Unpack(packed); err != nil {
		tb.Fatal(err)
	}
	code := m.RCode
	var edns []string
	for _, r := range m.Additionals {
		code = r.Header.ExtendedRCode(code)
		edns = append(edns, fmt.Sprintf("edns=%d", r.Header.Class))
		if r.Header.DNSSECAllowed() {
			edns = append(edns, "do")
		}
	}
	words := []string{map[dnsmessage.RCode]string{
		0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS",
	}[code]}
	for flag, set := range map[string]bool{"ra": m.RecursionAvailable, "ad": m.AuthenticData} {
		if set {
			words = append(words, flag)
		}
	}
	if m.Authoritative {
		words = append(words, "aa")
	}
	if m.Truncated {
		words = append(words, "tc")
	}
	for _, r := range m.Answers {
		words = append(words, "|", fmt.Sprint(r.Header.TTL), bodyText(r.Body))
	}
	for _, r := range m.Authorities {
		words = append(words, "/", r.Header.Name.String(), fmt.Sprint(r.Header.TTL), bodyText(r.Body))
	}
	return strings.Join(append(words, edns...), " ")
}

func bodyText(body dnsmessage.ResourceBody) string {
	switch body := body.(type) {
	case *dnsmessage.TXTResource:
		return "TXT " + strings.Join(body.TXT, " ")
	case *dnsmessage.SOAResource:
		return fmt.Sprintf("SOA %s %s %d min=%d", body.NS, body.MBox, body.Serial, body.MinTTL)
	case *dnsmessage.NSResource:
		return "NS " + body.NS.String()
	case *dnsmessage.AResource:
		return "A " + netip.AddrFrom4(body.A).String()
	case *dnsmessage.AAAAResource:
		return "AAAA " + netip.AddrFrom16(body.AAAA).String()
	}
	return fmt.Sprintf("%T", body)
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	const soa = "SOA ns.acme.example.net. hostmaster.acme.example.net. 1800000000 min=0"
	none := " / acme.example.net. 0 " + soa
	for _, test := range []struct{ ask, want string }{
		{here + ".acme.example.net TXT", "NOERROR aa | 0 TXT " + value + " | 0 TXT second"},
		{strings.ToUpper(here) + ".Acme.example.NET TXT", "NOERROR aa | 0 TXT " + value + " | 0 TXT second"},
		// RFC 2308: a name without such records, and no such name.
		{here + ".acme.example.net A", "NOERROR aa" + none},
		{here + ".acme.example.net CAA", "NOERROR aa" + none},
		{nobody + ".acme.example.net TXT", "NXDOMAIN aa" + none},
		{"x.acme.example.net TXT", "NXDOMAIN aa" + none},
		{"a." + here + ".acme.example.net TXT", "NXDOMAIN aa" + none},
		{here + ".acme.example.net ANY", "NOERROR aa | 0 TXT " + value + " | 0 TXT second"},
		{"acme.example.net SOA", "NOERROR aa | 300 " + soa},
		{"acme.example.net NS", "NOERROR aa | 300 NS ns.acme.example.net."},
		{"acme.example.net ANY", "NOERROR aa | 300 " + soa},
		{"acme.example.net TXT", "NOERROR aa" + none},
		{"acme.example.net DS", "NOERROR aa" + none},
		{"ns.acme.example.net A", "NOERROR aa | 300 A 192.0.2.53"},
		{"ns.acme.example.net AAAA", "NOERROR aa | 300 AAAA 2001:db8::53"},
		{"ns.acme.example.net TXT", "NOERROR aa" + none},
		// Nobody is asked for what is elsewhere.
		{"example.net SOA", "REFUSED"},
		{"notacme.example.net TXT", "REFUSED"},
		{here + ".example.com TXT", "REFUSED"},
		{here + ".acme.example.net TXT chaos", "REFUSED"},
		{"acme.example.net AXFR", "REFUSED"},
		{"acme.example.net IXFR", "REFUSED"},
		{broken + ".acme.example.net TXT", "SERVFAIL"},
		{"acme.example.net SOA notify", "NOTIMP"},
		{"acme.example.net SOA twice", "FORMERR"},
		{"acme.example.net SOA response", "nothing"},
		// RFC 6891.
		{"acme.example.net NS edns=4096", "NOERROR aa | 300 NS ns.acme.example.net. edns=1232"},
		{"acme.example.net NS edns=512 do", "NOERROR aa | 300 NS ns.acme.example.net. edns=1232 do"},
		{"acme.example.net NS edns=0", "NOERROR aa | 300 NS ns.acme.example.net. edns=1232"},
		{"acme.example.net NS edns=1232 version", "BADVERS edns=1232"},
		{"acme.example.net NS edns=1232 edns=1232", "FORMERR"},
		{broken + ".acme.example.net TXT edns=1232", "SERVFAIL edns=1232"},
	} {
		packed := ask(t, test.ask)
		if got := rendered(t, testZone().answer(t.Context(), packed, false)); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.ask, got, test.want)
		}
	}
}

// Over UDP, whose senders nobody knows, an answer is at most thrice the question. What does not fit
// is said to be cut off, without a part of it, and comes over TCP.
func TestAnswersOverUDP(t *testing.T) {
	t.Parallel()
	z := testZone()
	for _, test := range []struct{ ask, want string }{
		{here + ".acme.example.net TXT", "NOERROR aa | 0 TXT " + value + " | 0 TXT second"},
		{nobody + ".acme.example.net TXT", "NXDOMAIN aa / acme.example.net. 0 " +
			"SOA ns.acme.example.net. hostmaster.acme.example.net. 1800000000 min=0"},
		{busy + ".acme.example.net TXT", "NOERROR aa tc"},
		{busy + ".acme.example.net TXT edns=4096", "NOERROR aa tc edns=1232"},
	} {
		packed := ask(t, test.ask)
		out := z.answer(t.Context(), packed, true)
		if got := rendered(t, out); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.ask, got, test.want)
		}
		if len(out) > amplification*len(packed) {
			t.Errorf("%s: %d bytes for %d", test.ask, len(out), len(packed))
		}
	}
	all := rendered(t, z.answer(t.Context(), ask(t, busy+".acme.example.net TXT"), false))
	if strings.Count(all, "TXT") != 40 {
		t.Errorf("over TCP: %s", all)
	}
}

// What is no question, or is cut off anywhere, is answered with an error or not at all.
func TestBrokenQuestions(t *testing.T) {
	t.Parallel()
	whole := ask(t, here+".acme.example.net TXT edns=1232")
	for n := range whole {
		got := rendered(t, testZone().answer(t.Context(), whole[:n], true))
		if want := "FORMERR"; n < 12 && got != "nothing" || n >= 12 && got != want {
			t.Errorf("%d of %d bytes: %s", n, len(whole), got)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, text := range []string{
		here + ".acme.example.net TXT", busy + ".acme.example.net TXT edns=4096", "acme.example.net ANY edns=1 do",
		"acme.example.net SOA twice", "a.example AXFR chaos", "acme.example.net NS edns=1 version", ". NS",
	} {
		if text != ". NS" {
			f.Add(ask(f, text))
		}
	}
	z := testZone()
	f.Fuzz(func(t *testing.T, packed []byte) {
		for _, udp := range []bool{true, false} {
			out := z.answer(t.Context(), packed, udp)
			if out == nil {
				continue
			}
			var m dnsmessage.Message
			if err := m.Unpack(out); err != nil {
				t.Fatalf("%x is answered with what cannot be read: %v", packed, err)
			}
			var asked dnsmessage.Parser
			head, _ := asked.Start(packed)
			if !m.Response || m.ID != head.ID || m.RecursionAvailable || len(m.Questions) > 1 {
				t.Errorf("%x is answered by %+v", packed, m.Header)
			}
			if udp && len(out) > max(maxUDP, plainUDP) {
				t.Errorf("%d bytes over UDP", len(out))
			}
			if udp && len(out) > amplification*len(packed) && len(out) > len(packed)+11 {
				t.Errorf("%d bytes for %d", len(out), len(packed))
			}
			for _, r := range m.Answers {
				name := strings.ToLower(r.Header.Name.String())
				if !strings.HasSuffix("."+name, ".acme.example.net.") {
					t.Errorf("%s is none of the zone", name)
				}
			}
		}
	})
}
