package issuer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// validationTimeout bounds the wait for a validation.
	validationTimeout = 5 * time.Minute
	// orderTimeout bounds one try of an order.
	orderTimeout = 10 * time.Minute
	// pollEvery is the least time between two requests for the state of an order. It is short,
	// because the name could be served meanwhile.
	pollEvery = 250 * time.Millisecond
)

// record is the order under way as `acme/orders/{account}/{domain}` holds it, so that another
// control plane can continue it.
type record struct {
	// UID is the uid of the domain.
	UID string `json:"uid"`
	// Issuer is the name of the issuer. Directory is the URL that its directory had when the order
	// was begun.
	Issuer    string `json:"issuer"`
	Directory string `json:"directory"`
	// Key is the certificate's key, PKCS #8.
	Key []byte `json:"key"`
	// URL is the order's URL (RFC 8555 7.4). Empty: not known, and perhaps not made.
	URL string `json:"url,omitempty"`
	// Thumbprint is the thumbprint of the account's key when the order was made. Empty: the
	// deployment's first key.
	Thumbprint string `json:"thumbprint,omitempty"`
	// Hooked is the answer that a hook may have set for it, which nothing else removes.
	Hooked *dns01.Challenge `json:"hooked,omitempty"`
}

func orderName(key topology.Key) string { return "orders/" + key.Account + "/" + key.ID }

func (l *leader) readOrder(ctx context.Context, key topology.Key) (*record, error) {
	b, err := l.store.ACME(ctx, orderName(key))
	if err != nil || b == nil {
		return nil, err
	}
	r := new(record)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, errors.New("read " + orderName(key) + ": it is damaged") // what err says might quote the key
	}
	return r, nil
}

func (l *leader) writeOrder(ctx context.Context, key topology.Key, r *record) error {
	value, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := l.store.PutACME(ctx, l.fence, orderName(key), value); err != nil {
		return err
	}
	l.setOrder(key, true)
	return nil
}

// dropOrder deletes the record of an order with which nobody goes on. r is nil if it is not known
// what it holds.
func (l *leader) dropOrder(ctx context.Context, key topology.Key, r *record) error {
	if r != nil && r.Hooked != nil { // by an earlier leader
		l.takeBack(ctx, r, *r.Hooked)
	}
	if err := l.store.PutACME(ctx, l.fence, orderName(key), nil); err != nil {
		return err
	}
	l.setOrder(key, false)
	return nil
}

// newKey makes a key for a certificate.
func newKey(kind topologyv1.DomainTls_KeyType) (der []byte, err error) {
	var key crypto.Signer
	if kind == topologyv1.DomainTls_RSA2048 {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

func (r *record) signer() (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(r.Key)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("the key of an order cannot be read")
	}
	return signer, nil
}

// obtained is a certificate as an issuer sends it.
type obtained struct {
	key   crypto.Signer
	certs []*x509.Certificate
}

// perform begins or continues an order and returns its certificate. Its errors are a fault, or
// those of the ACME library.
func (l *leader) perform(
	ctx context.Context, sub *subject, iss *issuer, r *record, m method, replaces string,
) (*obtained, error) {
	account, err := iss.register(ctx, l.fence)
	if err != nil {
		return nil, registrationFault(err)
	}
	o, err := l.open(ctx, sub, iss, account, r, replaces)
	if err != nil {
		return nil, err
	}
	if o.Status == acme.StatusPending {
		if o, err = l.authorize(ctx, sub, iss, account, o, r, m); err != nil {
			return nil, err
		}
	} else if m.takeBack != nil { // an earlier leader may have answered
		for _, at := range o.Authorizations {
			if authz, err := iss.library().GetAuthorization(ctx, account, at); err == nil {
				m.clean(ctx, r, authz)
			}
		}
	}
	key, err := r.signer()
	if err != nil {
		return nil, fault{reason: topologyv1.DomainCertificate_ISSUER_DOWN, text: err.Error(), gone: true}
	}
	if o.Status == acme.StatusReady {
		want := &x509.CertificateRequest{DNSNames: []string{sub.name()}}
		csr, err := x509.CreateCertificateRequest(rand.Reader, want, key)
		if err != nil {
			return nil, err
		}
		if o, err = iss.library().FinalizeOrder(ctx, account, o, csr); err != nil {
			return nil, err
		}
	}
	if o, err = l.awaitIssue(ctx, iss, account, o); err != nil {
		return nil, err
	}
	chains, err := iss.library().GetCertificateChain(ctx, account, o.Certificate)
	if err != nil {
		return nil, err
	}
	certs, err := parseChain(chains[0].ChainPEM)
	if err != nil {
		return nil, err
	}
	return &obtained{key, certs}, nil
}

// open makes the order at the issuer, or reads the one that was made. Its record is in etcd before
// it is made, and its URL right after: a leader that dies in between wastes one order, and no name
// gets two certificates.
func (l *leader) open(
	ctx context.Context, sub *subject, iss *issuer, account acme.Account, r *record, replaces string,
) (acme.Order, error) {
	if r.URL != "" {
		o, err := iss.library().GetOrder(ctx, account, acme.Order{Location: r.URL})
		o.Location = r.URL
		if err == nil {
			err = l.outlives(ctx, iss, account, r, o)
		}
		return o, err
	}
	ask := acme.Order{
		Identifiers: []acme.Identifier{{Type: "dns", Value: sub.name()}}, Profile: iss.Profile, Replaces: replaces,
	}
	o, err := iss.library().NewOrder(ctx, account, ask)
	if problem, _ := problemOf(err); problem != nil && replaces != "" && refusesReplaces(problem) {
		ask.Replaces = "" // the name needs a certificate all the same
		o, err = iss.library().NewOrder(ctx, account, ask)
	}
	if err != nil {
		return o, err
	}
	r.URL, r.Thumbprint = o.Location, iss.thumbprint()
	return o, l.writeOrder(ctx, sub.key, r)
}

// authorize has all authorizations of an order validated.
func (l *leader) authorize(
	ctx context.Context, sub *subject, iss *issuer, account acme.Account, o acme.Order, r *record, m method,
) (acme.Order, error) {
	for _, at := range o.Authorizations {
		authz, err := iss.library().GetAuthorization(ctx, account, at)
		if err != nil {
			return o, err
		}
		if authz.Status == acme.StatusPending {
			if err := l.answer(ctx, sub, iss, account, authz, r, m); err != nil {
				return o, err
			}
			continue
		}
		m.clean(ctx, r, authz)
		if _, err := iss.library().PollAuthorization(ctx, account, authz); err != nil {
			return o, err
		}
	}
	location := o.Location
	o, err := iss.library().GetOrder(ctx, account, o)
	o.Location = location
	return o, err
}

func (l *leader) answer(
	ctx context.Context, sub *subject, iss *issuer, account acme.Account, authz acme.Authorization, r *record, m method,
) error {
	ch, err := m.find(authz)
	if err != nil {
		return err
	}
	if m.hooked != nil { // what it sets stays until it is told to remove it
		hooked := m.hooked(ch)
		r.Hooked = &hooked
		if err := l.writeOrder(ctx, sub.key, r); err != nil {
			return err
		}
	}
	if m.publish != nil {
		if err := m.publish(ctx, ch); err != nil {
			// Otherwise this leader goes on with it later, or another one has by now.
			if _, failed := errors.AsType[fault](err); failed {
				m.takeBack(context.WithoutCancel(ctx), r, ch) // what it has set all the same
			}
			return err
		}
		defer func() {
			// The issuer may be about to look for the answer of an order with which another leader
			// goes on, and takes it back.
			if !errors.Is(ctx.Err(), context.Canceled) {
				m.takeBack(context.WithoutCancel(ctx), r, ch)
			}
		}()
	}
	if ch.Status == acme.StatusPending {
		if _, err := iss.library().InitiateChallenge(ctx, account, ch); err != nil {
			return err
		}
	}
	_, err = iss.library().PollAuthorization(ctx, account, authz)
	return err
}

// awaitIssue waits until an order is valid. It returns an error if it cannot become so.
func (l *leader) awaitIssue(ctx context.Context, iss *issuer, account acme.Account, o acme.Order) (acme.Order, error) {
	for {
		switch o.Status {
		case acme.StatusValid:
			return o, nil
		case acme.StatusInvalid:
			if o.Error != nil {
				return o, fmt.Errorf("the order is invalid: %w", o.Error)
			}
			return o, fault{
				reason: topologyv1.DomainCertificate_ISSUER_REJECTED,
				text:   "the order is invalid, and the issuer does not say why", gone: true,
			}
		case acme.StatusProcessing:
		default:
			return o, fault{
				reason: topologyv1.DomainCertificate_ISSUER_DOWN, issuers: true, gone: true,
				text: fmt.Sprintf("the order is %q after all that it asked for was done", clean(o.Status)),
			}
		}
		select {
		case <-ctx.Done():
			return o, ctx.Err()
		case <-time.After(nextPoll(ctx)):
		}
		location := o.Location
		var err error
		if o, err = iss.library().GetOrder(ctx, account, o); err != nil {
			return o, err
		}
		o.Location = location
	}
}

func parseChain(text []byte) (certs []*x509.Certificate, err error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the issuer sent a certificate that cannot be read: %w", err)
		}
		certs = append(certs, cert)
	}
	switch {
	case len(certs) == 0:
		return nil, errors.New("the issuer sent no certificate")
	case bytes.Contains(text, []byte("-----BEGIN")):
		return nil, errors.New("the issuer sent a chain that is cut off")
	}
	return certs, nil
}
