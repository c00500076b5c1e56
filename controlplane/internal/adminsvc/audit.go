package adminsvc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

const (
	// maxAudited bounds the resources whose fields an event lists, and maxAuditedText the bytes of
	// a field's value.
	maxAudited     = 200
	maxAuditedText = 256
)

type auditService struct {
	*Service
	adminv1.UnimplementedAuditServiceServer
}

// audited returns the changes of a draft for the event of a write, and how many more there are.
func (s *Service) audited(d *draft) (changes []*adminv1.ResourceChange, more int) {
	list := &changeList{listed: make(map[topology.Key]bool), secret: func(value string) string {
		mac := s.store.MAC(d.id, value)
		if mac == nil {
			return secretChanged
		}
		return "hmac:" + hex.EncodeToString(mac[:8])
	}}
	more = list.differing(d, maxAudited)
	for _, change := range list.changes {
		for _, field := range change.GetFields() {
			field.Before, field.After = shortened(field.GetBefore()), shortened(field.GetAfter())
		}
	}
	return list.changes, more
}

func shortened(text string) string {
	if len(text) <= maxAuditedText {
		return text
	}
	// No part of a character may be left: a message takes UTF-8 alone.
	return strings.ToValidUTF8(text[:maxAuditedText], "") + "... (" + strconv.Itoa(len(text)) + " bytes)"
}

// whoOf names the caller: by its token, or the certificate that it has shown. It is empty where
// nobody is asked who they are.
func whoOf(ctx context.Context) string {
	caller := auth.From(ctx)
	switch {
	case caller == nil || caller.Credential == auth.CredentialNone:
		return ""
	case caller.Credential != auth.CredentialCertificate:
		return caller.String()
	}
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
			leaf := info.State.VerifiedChains[0][0]
			for _, uri := range leaf.URIs {
				return uri.String()
			}
			return leaf.Subject.String()
		}
	}
	return caller.String()
}

// presented names a caller who is not known by a hash of the token that was presented.
func presented(ctx context.Context) string {
	for _, value := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if _, token, ok := strings.Cut(value, " "); ok {
			sum := sha256.Sum256([]byte(strings.TrimSpace(token)))
			return "unknown token, sha256 " + hex.EncodeToString(sum[:4])
		}
	}
	return ""
}

// peerOf is the address that a call came from.
func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}

func (s auditService) ListEvents(
	ctx context.Context, req *adminv1.ListEventsRequest,
) (*adminv1.ListEventsResponse, error) {
	account, page, below, err := numberedPage(req, req.GetParent(), "events")
	if err != nil {
		return nil, err
	}
	resp := new(adminv1.ListEventsResponse)
	events, next, err := s.store.Events(ctx, account, below, page.limit)
	if err != nil {
		return nil, err
	}
	since, err := s.since(ctx, account)
	if err != nil {
		return nil, err
	}
	if n := slices.IndexFunc(events, func(e *adminv1.AuditEvent) bool { return e.GetRevision() < since }); n >= 0 {
		events, next = events[:n], 0
	}
	resp.Events = events
	if next != 0 {
		resp.NextPageToken = page.token(strconv.FormatInt(next, 10))
	}
	return resp, nil
}

// since is the first revision that the caller may see: a token for one account sees nothing of an
// earlier account of the same id.
func (s *Service) since(ctx context.Context, account string) (int64, error) {
	caller := auth.From(ctx)
	if caller == nil {
		return 0, nil
	}
	if id, _ := caller.Account(); id == "" {
		return 0, nil
	}
	record, _, err := s.store.Get(ctx, accountKey(account))
	if errors.Is(err, store.ErrNotFound) {
		return 0, notFound(topology.AccountName(account))
	}
	return record.CreateRevision, err
}

// numberedPage reads a request for a page of what an account's writes have left, which goes on
// below a number.
func numberedPage(req listRequest, parent, what string) (account string, p *page, below int64, err error) {
	if account, err = parseParent(parent); err != nil {
		return "", nil, 0, err
	}
	if p, err = newPage(req.GetPageSize(), req.GetPageToken(), what, account); err != nil {
		return "", nil, 0, err
	}
	if p.after != "" {
		if below, err = strconv.ParseInt(p.after, 10, 64); err != nil || below <= 0 {
			return "", nil, 0, invalidPageToken()
		}
	}
	return account, p, below, nil
}
