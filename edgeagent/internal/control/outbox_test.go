package control

import (
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestHoweverMuchIsRefusedEachAckIsSmall(t *testing.T) {
	o := newOutbox(func() *edgev1.Ack { return &edgev1.Ack{Applied: 7} })
	var refused []*topologyv1.Rejected
	for range 2*maxNacks + 1 {
		refused = append(refused,
			&topologyv1.Rejected{Key: strings.Repeat("k", 340), Revision: 7, Reason: strings.Repeat("é\xff", 5000)})
	}
	o.acknowledge(refused)
	messages, _ := o.take()
	reported := 0
	for _, m := range messages {
		if size := proto.Size(m); size > 64<<10 || m.GetAck().GetApplied() != 7 {
			t.Errorf("an ack of %d bytes, of revision %d", size, m.GetAck().GetApplied())
		}
		reported += len(m.GetAck().GetNacks())
	}
	if reported != len(refused) {
		t.Errorf("%d of %d refusals were told", reported, len(refused))
	}
	if messages, _ := o.take(); len(messages) > 0 {
		t.Errorf("%d messages more", len(messages))
	}
}

// Whatever is refused, the ack of it keeps to the rules: a control plane ends the stream of an edge
// whose message does not, and the edge would say the same at each greeting.
func TestRefusalOfALongKeyBreaksNoRule(t *testing.T) {
	t.Parallel()
	o := newOutbox(func() *edgev1.Ack { return &edgev1.Ack{Applied: 7} })
	key := topology.Key{Kind: topology.KindMediaFiles, Account: "acme", ID: strings.Repeat("é", 512)}
	if err := key.Validate(); err != nil {
		t.Fatal(err)
	}
	var refused []*topologyv1.Rejected
	for range 2 * maxNacks {
		refused = append(refused,
			&topologyv1.Rejected{Key: key.String(), Revision: 7, Reason: strings.Repeat("x", 5000)})
	}
	o.acknowledge(refused)
	messages, _ := o.take()
	for _, m := range messages {
		if err := protovalidate.Validate(m); err != nil {
			t.Error(err)
		}
		if size := proto.Size(m); size > 64<<10 {
			t.Errorf("an ack of %d bytes", size)
		}
		for _, n := range m.GetAck().GetNacks() {
			if !strings.HasPrefix(n.GetKey(), "mediaFiles/acme/éé") {
				t.Fatalf("what is refused is said to be %q", n.GetKey())
			}
		}
	}
}
