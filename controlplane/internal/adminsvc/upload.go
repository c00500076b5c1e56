package adminsvc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/certificate"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// UploadCertificate checks a certificate with its key and stores them for a domain.
func (s domains) UploadCertificate(
	ctx context.Context,
	req *adminv1.UploadCertificateRequest,
) (*adminv1.UploadCertificateResponse, error) {
	key, err := parseName(s.kind, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	name, err := topology.DomainFromID(key.ID)
	if err != nil {
		return nil, invalid("name", "%v", err)
	}
	uploaded, err := certificate.Parse(
		[]byte(req.GetCertificatePem()),
		[]byte(req.GetPrivateKeyPem()),
		certificate.Options{
			Domain: name, Now: s.now(), Left: certificate.MinLeft, AllowUntrusted: req.GetAllowUntrusted(),
			Roots: s.roots,
		},
	)
	if refused, ok := errors.AsType[*certificate.Error](err); ok {
		f := invalid(string(refused.Field), "%s", refused.Text)
		f.resource = key.Name()
		return nil, f
	}
	if err != nil {
		return nil, err
	}
	var warnings []string
	out, err := s.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		warnings = nil
		stored := d.domains.before(key.ID)
		if err := d.found(there(stored), key, "", stored.ModRevision); err != nil {
			return err
		}
		uid := topology.UID(key.ID, stored.CreateRevision)
		d.certificates = append(d.certificates, uploaded.Record(key.ID, uid, false))
		if mode := stored.Message.GetTls().GetMode(); mode != topologyv1.DomainTls_UPLOADED {
			next := proto.CloneOf(stored.Message)
			if next.Tls == nil {
				next.Tls = new(topologyv1.DomainTls)
			}
			next.Tls.Mode = topologyv1.DomainTls_UPLOADED
			warnings = append(
				warnings,
				"tls.mode is UPLOADED now: nobody but you renews the certificate, unless tls.fallbackManaged is set",
			)
			return d.putDomain(key.ID, next)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !uploaded.Trusted {
		warnings = append(
			warnings,
			fmt.Sprintf(
				"no browser trusts it by itself: this machine does not know its issuer %q",
				uploaded.Leaf.Issuer.String(),
			),
		)
	}
	c, err := s.result(ctx, key, out)
	if err != nil {
		return nil, err
	}
	if out.committed && out.draft != nil {
		if err := s.addFacts(ctx, key, c); err != nil { // the write is done
			s.log.WarnContext(ctx, "adminsvc: read what is known of a domain", "domain", key.Name(), "error", err)
		}
	}
	return &adminv1.UploadCertificateResponse{CustomDomain: c, Revision: out.revision, Warnings: warnings}, nil
}
