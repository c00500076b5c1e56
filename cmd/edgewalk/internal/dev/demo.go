// Package dev runs everything in one process, with a demo account, for a first look and for work on
// edgewalk itself.
//
// It owns what is demonstrated: sample origins, the account, and what to type. All of it goes over
// the same sockets and APIs as in production.
package dev

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// account is the id of the demo account.
const account = "demo"

// manifest describes the demo account with the addresses that its sample origins have this time.
func manifest(origins []*runningOrigin) *adminv1.Manifest {
	m := &adminv1.Manifest{
		Account: &topologyv1.Account{Id: account, DisplayName: "Demo"},
		UrlEndpoints: []*topologyv1.UrlEndpoint{
			{Id: "default", Description: "studio first, then legacy",
				DefaultImage: &topologyv1.DefaultImage{Path: "placeholder.png"}},
			{Id: "archive", Description: "the old web server only", Origins: []string{"legacy"}},
		},
		CustomDomains: []*topologyv1.CustomDomain{
			{Domain: "images.localhost", Mode: topologyv1.CustomDomain_ACCOUNT},
			{Domain: "archive.localhost", Mode: topologyv1.CustomDomain_URL_ENDPOINT, UrlEndpoint: "archive"},
		},
	}
	for _, o := range origins {
		m.Origins = append(m.Origins,
			&topologyv1.Origin{Id: o.id, Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: o.url}}})
		m.UrlEndpoints[0].Origins = append(m.UrlEndpoints[0].Origins, o.id)
	}
	return m
}

// mediaFiles are the files of the demo's Media Library: one that shadows a picture of an origin,
// and the default image.
func mediaFiles() (map[string][]byte, error) {
	hat, err := picture(white, green, stripes)
	if err != nil {
		return nil, err
	}
	placeholder, err := picture(white, grey, frame)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"hat.png": hat, "placeholder.png": placeholder}, nil
}

// seed makes the demo account, or brings it up to date, and returns once the edge serves it.
func seed(ctx context.Context, conn *grpc.ClientConn, origins []*runningOrigin) error {
	// The authority asks the edge as soon as there are domains, and again only a minute later.
	if err := awaitEdge(ctx, conn); err != nil {
		return fmt.Errorf("wait for the edge: %w", err)
	}
	applied, err := adminv1.NewManifestServiceClient(conn).ApplyManifest(ctx, &adminv1.ApplyManifestRequest{
		Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: manifest(origins)},
	})
	if err != nil {
		return fmt.Errorf("apply the demo account: %w", err)
	}
	revision := applied.GetRevision()
	files, err := mediaFiles()
	if err != nil {
		return fmt.Errorf("draw the demo's pictures: %w", err)
	}
	for path, data := range files {
		uploaded, err := upload(ctx, conn, path, data)
		if err != nil {
			return fmt.Errorf("upload %s: %w", path, err)
		}
		revision = max(revision, uploaded)
	}
	_, err = adminv1.NewFleetServiceClient(conn).WaitApplied(ctx,
		&adminv1.WaitAppliedRequest{Revision: revision, Timeout: durationpb.New(30 * time.Second)})
	if err != nil {
		return fmt.Errorf("wait for the edge: %w", err)
	}
	return nil
}

// awaitEdge returns once the edge has what the control plane knows.
func awaitEdge(ctx context.Context, conn *grpc.ClientConn) error {
	fleet := adminv1.NewFleetServiceClient(conn)
	now, err := fleet.GetRevision(ctx, new(adminv1.GetRevisionRequest))
	if err != nil {
		return err
	}
	_, err = fleet.WaitApplied(ctx, &adminv1.WaitAppliedRequest{Revision: now.GetRevision()})
	return err
}

// awaitCertificates returns once the edge shows certificates for the demo's domains.
func awaitCertificates(ctx context.Context, conn *grpc.ClientConn) error {
	client := adminv1.NewCustomDomainServiceClient(conn)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		listed, err := client.ListCustomDomains(ctx, &adminv1.ListCustomDomainsRequest{Parent: "accounts/" + account})
		if err != nil {
			return fmt.Errorf("wait for certificates: %w", err)
		}
		missing := ""
		for _, d := range listed.GetCustomDomains() {
			if edges := d.GetCertificate().GetEdges(); edges.GetServing() == 0 {
				missing = fmt.Sprintf("%s has no certificate: %s %s", d.GetDomain(), d.GetCertificate().GetState(),
					d.GetCertificate().GetMessage())
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("--acme: %s", missing)
		case <-look.C:
		}
	}
}

func upload(ctx context.Context, conn *grpc.ClientConn, path string, data []byte) (int64, error) {
	stream, err := adminv1.NewMediaServiceClient(conn).UploadMediaFile(ctx)
	if err != nil {
		return 0, err
	}
	for _, part := range []*adminv1.UploadMediaFileRequest{
		{Part: &adminv1.UploadMediaFileRequest_Start_{Start: &adminv1.UploadMediaFileRequest_Start{
			Parent: "accounts/" + account, Path: path,
		}}},
		{Part: &adminv1.UploadMediaFileRequest_Data{Data: data}},
	} {
		if err := stream.Send(part); err != nil {
			break // CloseAndRecv returns the reason.
		}
	}
	response, err := stream.CloseAndRecv()
	return response.GetRevision(), err
}
