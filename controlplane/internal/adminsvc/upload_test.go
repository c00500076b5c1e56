package adminsvc

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// uploadRig has a domain in account acme.
func uploadRig(t *testing.T) (*rig, *certtest.Authority, adminv1.CustomDomainServiceClient) {
	t.Helper()
	r := newRig(t, rigOptions{})
	root := certtest.New(t)
	r.service.roots = root.Pool()
	if _, err := adminv1.NewAccountServiceClient(r.conn).CreateAccount(
		t.Context(), &adminv1.CreateAccountRequest{AccountId: "acme"},
	); err != nil {
		t.Fatal(err)
	}
	client := adminv1.NewCustomDomainServiceClient(r.conn)
	_, err := client.CreateCustomDomain(t.Context(), &adminv1.CreateCustomDomainRequest{
		Parent: "accounts/acme", CustomDomain: &topologyv1.CustomDomain{Domain: "images.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, root, client
}

func uploadOf(t *testing.T, pair certtest.Pair) *adminv1.UploadCertificateRequest {
	return &adminv1.UploadCertificateRequest{
		Name: "accounts/acme/customDomains/images.example.com", CertificatePem: string(certtest.PEM(pair.Leaf)),
		PrivateKeyPem: string(pair.KeyPEM(t)),
	}
}

func TestUploadCertificate(t *testing.T) {
	t.Parallel()
	r, root, client := uploadRig(t)
	pair := root.Issue([]string{"images.example.com"})
	done, err := client.UploadCertificate(t.Context(), uploadOf(t, pair))
	if err != nil {
		t.Fatal(err)
	}
	if mode := done.GetCustomDomain().GetTls().GetMode(); mode != topologyv1.DomainTls_UPLOADED ||
		len(done.GetWarnings()) != 1 {
		t.Errorf("mode %s, warnings %q", mode, done.GetWarnings())
	}
	key := topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: "images.example.com"}
	first, _, err := r.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := topology.CompileCertificate(first)
	if err != nil || c.NotAfter != pair.Leaf.NotAfter.Unix() || done.GetRevision() != first.ModRevision {
		t.Errorf("stored %+v at %d, %v; told %d", c, first.ModRevision, err, done.GetRevision())
	}
	again, err := client.UploadCertificate(t.Context(), uploadOf(t, root.Issue([]string{"*.example.com"})))
	if err != nil || len(again.GetWarnings()) > 0 {
		t.Fatalf("a second one: %v, %v", again, err)
	}
	audit, err := adminv1.NewAuditServiceClient(r.conn).ListEvents(t.Context(),
		&adminv1.ListEventsRequest{Parent: "accounts/acme"})
	if err != nil {
		t.Fatal(err)
	}
	if e := audit.GetEvents()[0]; e.GetMethod() != "UploadCertificate" || len(e.GetChanges()) != 1 ||
		e.GetChanges()[0].GetName() != done.GetCustomDomain().GetName() {
		t.Errorf("the audit tells %v", e)
	}
	middle := strings.Split(string(pair.KeyPEM(t)), "\n")[1][:40]
	if strings.Contains(audit.String(), middle) || strings.Contains(r.log.String(), middle) {
		t.Error("the key is told")
	}
}

func TestUploadCertificateIsRefused(t *testing.T) {
	t.Parallel()
	r, root, client := uploadRig(t)
	good := root.Issue([]string{"images.example.com"})
	stranger := certtest.New(t).Issue([]string{"images.example.com"})
	for name, c := range map[string]struct {
		change func(*adminv1.UploadCertificateRequest)
		code   codes.Code
		says   string
	}{
		"another name": {func(u *adminv1.UploadCertificateRequest) {
			u.CertificatePem = string(certtest.PEM(root.Issue([]string{"b.example.com"}).Leaf))
		}, codes.InvalidArgument, "belongs to none"},
		"an unknown authority": {func(u *adminv1.UploadCertificateRequest) {
			u.CertificatePem, u.PrivateKeyPem = string(certtest.PEM(stranger.Leaf)), string(stranger.KeyPEM(t))
		}, codes.InvalidArgument, "certificatePem: browsers would not trust it"},
		"no such domain": {func(u *adminv1.UploadCertificateRequest) {
			u.Name = "accounts/acme/customDomains/nope.example.com"
			pair := root.Issue([]string{"nope.example.com"})
			u.CertificatePem, u.PrivateKeyPem = string(certtest.PEM(pair.Leaf)), string(pair.KeyPEM(t))
		}, codes.NotFound, "nope.example.com"},
		"only checked": {func(u *adminv1.UploadCertificateRequest) { u.ValidateOnly = true }, codes.OK, ""},
	} {
		req := uploadOf(t, good)
		c.change(req)
		_, err := client.UploadCertificate(t.Context(), req)
		if status.Code(err) != c.code || !strings.Contains(status.Convert(err).Message(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := r.store.Get(
		t.Context(), topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: "images.example.com"},
	); err == nil {
		t.Error("something is stored")
	}
}

// Rolled back, an account has the domains that it had, and a certificate only where the domain
// stayed: its bytes may be gone.
func TestRollbackKeepsCertificates(t *testing.T) {
	t.Parallel()
	r, root, client := uploadRig(t)
	done, err := client.UploadCertificate(t.Context(), uploadOf(t, root.Issue([]string{"images.example.com"})))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.UpdateCustomDomain(t.Context(),
		&adminv1.UpdateCustomDomainRequest{CustomDomain: &topologyv1.CustomDomain{
			Name: done.GetCustomDomain().GetName(), Hsts: &topologyv1.DomainHsts{},
		}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = adminv1.NewHistoryServiceClient(r.conn).Rollback(t.Context(),
		&adminv1.RollbackRequest{Parent: "accounts/acme", Revision: done.GetRevision()})
	if err != nil {
		t.Fatal(err)
	}
	record, _, err := r.store.Get(t.Context(),
		topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: "images.example.com"})
	if err != nil || record.ModRevision != done.GetRevision() {
		t.Errorf("the certificate is of %d, %v, want %d", record.ModRevision, err, done.GetRevision())
	}
}

// Which edges count as serving a certificate: those that are sent the account, are connected, and
// have acknowledged its record. One that is away is counted among all.
func TestEdgesThatServe(t *testing.T) {
	t.Parallel()
	edge := func(connected bool, pool string, applied int64) *topologyv1.Edge {
		return &topologyv1.Edge{Connected: connected, Pool: pool, AppliedRevision: applied}
	}
	edges := []*topologyv1.Edge{
		edge(true, "", 10), edge(true, "gold", 11), edge(true, "gold", 9), edge(true, "iron", 11), edge(false, "", 11),
	}
	domain := func(change func(*topologyv1.CustomDomain)) *topologyv1.CustomDomain {
		c := &topologyv1.CustomDomain{
			State: topologyv1.CustomDomain_ACTIVE, Certificate: &topologyv1.DomainCertificate{Certificate: "x"},
		}
		change(c)
		return c
	}
	for name, c := range map[string]struct {
		domain   *topologyv1.CustomDomain
		revision int64
		want     string
	}{
		"served": {domain(func(*topologyv1.CustomDomain) {}), 10, "2 of 4"},
		"newer":  {domain(func(*topologyv1.CustomDomain) {}), 12, "0 of 4"},
		"none":   {domain(func(c *topologyv1.CustomDomain) { c.Certificate.Certificate = "" }), 0, "untold"},
		"pending": {
			domain(func(c *topologyv1.CustomDomain) { c.State = topologyv1.CustomDomain_PENDING }), 10, "untold",
		},
		"off": {domain(func(c *topologyv1.CustomDomain) {
			c.Tls = &topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF}
		}), 10, "untold"},
	} {
		countServing(c.domain, edges, []string{"gold", "more"}, c.revision)
		got := "untold"
		if e := c.domain.GetCertificate().GetEdges(); e != nil {
			got = fmt.Sprintf("%d of %d", e.GetServing(), e.GetTotal())
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
