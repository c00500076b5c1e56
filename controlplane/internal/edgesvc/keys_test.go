package edgesvc

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestAgentThatCannotOpenSecretsIsToldSo(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	old := hello("old")
	old.AcceptsSealed = false
	err := connect(t, p, old).ends()
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "upgrade the agent") {
		t.Errorf("an agent of an older version: %v", err)
	}
}

// While keys are rotated, an edge is sent each key before anything that is sealed with it.
func TestKeysComeBeforeWhatTheySeal(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlane(t, prefix, nil)
	other := storetest.Open(t, store.Config{Prefix: prefix}) // another control plane rotates
	write := func(s *store.Store, n int) int64 {
		t.Helper()
		origin := topology.Key{Kind: topology.KindOrigins, Account: "acme", ID: "o"}
		secrets := topology.Key{Kind: topology.KindOriginSecrets, Account: "acme", ID: "o"}
		result, err := s.Write(t.Context(), "acme", store.RequestID{}, func(*store.State) (*store.Edit, error) {
			return &store.Edit{Puts: []store.Put{
				{Key: topology.Key{Kind: topology.KindAccounts, Account: "acme"},
					Message: &topologyv1.Account{DisplayName: "Acme"}},
				{Key: origin,
					Message: &topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{Bucket: "b"}}}},
				{
					Key: secrets,
					Message: &topologyv1.OriginSecrets{Values: map[string]string{"s3.secret_access_key": fmt.Sprint(
						"canary-", n,
					)}},
				},
			}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return result.Revision
	}
	p.reach(t, write(p.store, 0))

	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	rpc, err := edgev1.NewEdgeServiceClient(conn).Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello("e1")}}); err != nil {
		t.Fatal(err)
	}
	var keys *seal.Keyset
	take := func(keyring *edgev1.Keyring) {
		t.Helper()
		if len(keyring.GetKeysets()) != 1 {
			t.Fatalf("keyring %v", keyring.GetKeysets())
		}
		if keys, err = seal.Parse(keyring.GetKeysets()[0].GetKeys()); err != nil {
			t.Fatal(err)
		}
	}
	sealed := 0
	see := func(changes []*edgev1.Change) {
		t.Helper()
		for _, change := range changes {
			if change.GetKey() != "originSecrets/acme/o" {
				continue
			}
			stored := new(topologyv1.OriginSecrets)
			if err := proto.Unmarshal(change.GetValue(), stored); err != nil {
				t.Fatal(err)
			}
			if sealed++; keys == nil || !keys.Knows(stored.GetSealed()) {
				t.Errorf("revision %d is sealed with a key that was not sent", change.GetModRevision())
			}
		}
	}
	last := int64(-1)
	for n := 1; ; {
		m, err := rpc.Recv()
		if err != nil {
			t.Fatal(err)
		}
		reached := int64(0)
		switch m := m.GetMessage().(type) {
		case *edgev1.SyncResponse_Welcome:
			take(m.Welcome.GetKeyring())
		case *edgev1.SyncResponse_Keyring:
			take(m.Keyring)
		case *edgev1.SyncResponse_Chunk:
			see(m.Chunk.GetChanges())
		case *edgev1.SyncResponse_End:
			reached = m.End.GetTarget()
		case *edgev1.SyncResponse_Live:
			see(m.Live.GetChanges())
			reached = m.Live.GetRevision()
		}
		if reached == 0 || reached < last {
			continue
		}
		if ack := (&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: &edgev1.Ack{Applied: reached}}}); rpc.Send(
			ack,
		) != nil {
			t.Fatal("the stream has ended")
		}
		if n > 5 {
			break
		}
		if err := other.RotateSecrets(t.Context(), func(int) {}); err != nil {
			t.Fatal(err)
		}
		last = write(other, n)
		n++
	}
	if sealed < 6 || keys.Keys() != 6 {
		t.Errorf("%d times secrets, %d keys; want 6 of each at least", sealed, keys.Keys())
	}
}
