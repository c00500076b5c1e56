package controlplane

import (
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// What one control plane puts into etcd for a challenge is what it answers over DNS.
func TestChallengesAreAnsweredOverDNS(t *testing.T) {
	t.Parallel()
	const token, value = "k7f3a2q2m4xw6c5dpb2e", "LPsIwTo7o8BoG0-vjCyGQGBWSVIPxI-i_X336eUOQZo"
	cfg := loopbackConfig(t.TempDir())
	cfg.ACMEDNSZone, cfg.ACMEDNSAddr = "acme.example.net", "127.0.0.1:0"
	cfg.DomainTarget = "edge.example.net"
	withIssuer(&cfg)
	c := start(t, cfg)
	if err := c.store.PutChallengeAnswer(t.Context(), nil, token, value); err != nil {
		t.Fatal(err)
	}
	question := dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(token + ".acme.example.net."), Type: dnsmessage.TypeTXT,
		Class: dnsmessage.ClassINET,
	}}}
	packed, err := question.Pack()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", c.Addresses().DNS)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write(packed); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buf[:n]); err != nil {
		t.Fatal(err)
	}
	if len(answer.Answers) != 1 {
		t.Fatalf("it answers %v", answer.GoString())
	}
	if txt, ok := answer.Answers[0].Body.(*dnsmessage.TXTResource); !ok || !slices.Equal(txt.TXT, []string{value}) {
		t.Errorf("it answers %v", answer.GoString())
	}
}
