package control

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

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
