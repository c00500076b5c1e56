package devca

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// account is who orders, known by the thumbprint of its key (RFC 7638).
type account struct {
	key        jwk
	thumbprint string
}

// order is an order of one name, with its one authorization and challenge (RFC 8555 7.1).
type order struct {
	id, account, name, token string

	// authority's mu guards what follows.
	status    string // pending, ready, valid or invalid
	challenge string // pending, valid or invalid
	problem   *problem
	chain     []byte
}

// problem is an error document (RFC 8555 6.7).
type problem struct {
	Type   string `json:"type"`
	Detail string `json:"detail"`
	Status int    `json:"status"`
}

func refuse(status int, kind, detail string) *problem {
	return &problem{"urn:ietf:params:acme:error:" + kind, detail, status}
}

// maxBody bounds a request.
const maxBody = 64 << 10

func (a *Authority) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /directory", func(w http.ResponseWriter, _ *http.Request) {
		send(w, http.StatusOK, map[string]any{
			"newNonce": a.base + "/nonce", "newAccount": a.base + "/account", "newOrder": a.base + "/order",
			"meta": map[string]any{"caaIdentities": []string{"localhost"}},
		})
	})
	mux.HandleFunc("/nonce", func(w http.ResponseWriter, r *http.Request) { // GET and HEAD (RFC 8555 7.2)
		w.Header().Set("Replay-Nonce", a.nonce())
		w.Header().Set("Cache-Control", "no-store")
		if r.Method == http.MethodGet {
			w.WriteHeader(http.StatusNoContent)
		}
	})
	for path, do := range map[string]func(*signed, http.ResponseWriter, *http.Request) *problem{
		"POST /account": a.newAccount, "POST /order": a.newOrder, "POST /order/{id}": a.getOrder,
		"POST /authz/{id}": a.getAuthorization, "POST /challenge/{id}": a.tryChallenge,
		"POST /finalize/{id}": a.finalize, "POST /certificate/{id}": a.certificate,
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			if err != nil {
				return // whoever asked is gone
			}
			w.Header().Set("Replay-Nonce", a.nonce())
			s, fault := a.open(body, a.base+r.URL.Path)
			if fault == nil {
				fault = do(s, w, r)
			}
			if fault != nil {
				w.Header().Set("Content-Type", "application/problem+json")
				send(w, fault.Status, fault)
			}
		})
	}
	return mux
}

func send(w http.ResponseWriter, status int, what any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(what) // whoever asked may be gone
}

// nonce makes one that may be used once (RFC 8555 6.5).
func (a *Authority) nonce() string {
	text := base64.RawURLEncoding.EncodeToString([]byte(rand.Text()))
	a.mu.Lock()
	defer a.mu.Unlock()
	trim(a.nonces)
	a.nonces[text] = true
	return text
}

// trim makes room in a map: in a demonstration nobody misses what goes.
func trim[K comparable, V any](m map[K]V) {
	for key := range m {
		if len(m) < maxKept {
			return
		}
		delete(m, key)
	}
}

func (a *Authority) newAccount(s *signed, w http.ResponseWriter, _ *http.Request) *problem {
	if s.jwk == nil {
		return refuse(http.StatusBadRequest, "malformed", "a new account is asked for with a key")
	}
	who := account{*s.jwk, s.jwk.thumbprint()}
	at := a.base + "/account/" + who.thumbprint
	a.mu.Lock()
	_, known := a.accounts[at]
	if !known {
		trim(a.accounts)
		a.accounts[at] = who
	}
	a.mu.Unlock()
	w.Header().Set("Location", at)
	status := http.StatusCreated
	if known {
		status = http.StatusOK
	}
	send(w, status, map[string]any{"status": "valid"})
	return nil
}

func (a *Authority) newOrder(s *signed, w http.ResponseWriter, _ *http.Request) *problem {
	var asked struct {
		Identifiers []struct{ Type, Value string }
	}
	if json.Unmarshal(s.payload, &asked) != nil || s.account == "" || len(asked.Identifiers) != 1 {
		return refuse(http.StatusBadRequest, "malformed", "an order is for one name")
	}
	name := asked.Identifiers[0].Value
	if asked.Identifiers[0].Type != "dns" || !strings.HasSuffix(name, ".localhost") || strings.Contains(name, "*") {
		return refuse(http.StatusForbidden, "rejectedIdentifier", "this authority is for names below .localhost alone")
	}
	o := &order{
		id: rand.Text(), account: s.account, name: name, token: rand.Text(), status: "pending", challenge: "pending",
	}
	a.mu.Lock()
	trim(a.orders)
	a.orders[o.id] = o
	a.mu.Unlock()
	w.Header().Set("Location", a.base+"/order/"+o.id)
	send(w, http.StatusCreated, a.orderJSON(o))
	return nil
}

// orderJSON is an order as clients see it (RFC 8555 7.1.3).
func (a *Authority) orderJSON(o *order) map[string]any {
	a.mu.Lock()
	defer a.mu.Unlock()
	object := map[string]any{
		"status": o.status, "identifiers": []map[string]string{{"type": "dns", "value": o.name}},
		"authorizations": []string{a.base + "/authz/" + o.id}, "finalize": a.base + "/finalize/" + o.id,
		"expires": time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	if o.status == "valid" {
		object["certificate"] = a.base + "/certificate/" + o.id
	}
	if o.problem != nil {
		object["error"] = o.problem
	}
	return object
}

// find returns the order that a request is about, if it is its account's.
func (a *Authority) find(s *signed, r *http.Request) (*order, *problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	o := a.orders[r.PathValue("id")]
	if o == nil || o.account != s.account {
		return nil, refuse(http.StatusNotFound, "malformed", "there is no such order")
	}
	return o, nil
}

func (a *Authority) getOrder(s *signed, w http.ResponseWriter, r *http.Request) *problem {
	o, fault := a.find(s, r)
	if fault == nil {
		send(w, http.StatusOK, a.orderJSON(o))
	}
	return fault
}

func (a *Authority) challengeJSON(o *order) map[string]any {
	object := map[string]any{
		"type": "http-01", "url": a.base + "/challenge/" + o.id, "token": o.token, "status": o.challenge,
	}
	if o.problem != nil {
		object["error"] = o.problem
	}
	return object
}

func (a *Authority) getAuthorization(s *signed, w http.ResponseWriter, r *http.Request) *problem {
	o, fault := a.find(s, r)
	if fault != nil {
		return fault
	}
	a.mu.Lock()
	object := map[string]any{
		"status": o.challenge, "identifier": map[string]string{"type": "dns", "value": o.name},
		"challenges": []any{a.challengeJSON(o)},
		"expires":    time.Now().Add(time.Hour).UTC().Format(time.RFC3339),
	}
	a.mu.Unlock()
	send(w, http.StatusOK, object)
	return nil
}

// tryChallenge asks the edge at once, which is on this machine.
func (a *Authority) tryChallenge(s *signed, w http.ResponseWriter, r *http.Request) *problem {
	o, fault := a.find(s, r)
	if fault != nil {
		return fault
	}
	a.mu.Lock()
	who, pending := a.accounts[o.account], o.challenge == "pending"
	a.mu.Unlock()
	if pending {
		failed := a.validate(r.Context(), o.name, o.token, who.thumbprint)
		a.mu.Lock()
		o.status, o.challenge, o.problem = "ready", "valid", failed
		if failed != nil {
			o.status, o.challenge = "invalid", "invalid"
		}
		a.mu.Unlock()
	}
	a.mu.Lock()
	object := a.challengeJSON(o)
	a.mu.Unlock()
	w.Header().Set("Link", "<"+a.base+"/authz/"+o.id+`>;rel="up"`)
	send(w, http.StatusOK, object)
	return nil
}

// validate asks for the answer to a challenge (RFC 8555 8.3).
func (a *Authority) validate(ctx context.Context, name, token, thumbprint string) *problem {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", a.edge)
		},
	}
	defer transport.CloseIdleConnections()
	url := "http://" + name + "/.well-known/acme-challenge/" + token
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed", err.Error())
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return refuse(http.StatusBadRequest, "connection", err.Error())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil || string(bytes.TrimSpace(body)) != token+"."+thumbprint {
		return refuse(http.StatusForbidden, "unauthorized", "the edge answered with something else: "+resp.Status)
	}
	return nil
}

func (a *Authority) finalize(s *signed, w http.ResponseWriter, r *http.Request) *problem {
	o, fault := a.find(s, r)
	if fault != nil {
		return fault
	}
	var asked struct{ CSR string }
	if json.Unmarshal(s.payload, &asked) != nil {
		return refuse(http.StatusBadRequest, "malformed", "there is no request for a certificate")
	}
	der, err := base64.RawURLEncoding.DecodeString(asked.CSR)
	if err != nil {
		return refuse(http.StatusBadRequest, "badCSR", err.Error())
	}
	request, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil || !slices.Equal(request.DNSNames, []string{o.name}) || len(request.IPAddresses) > 0 {
		return refuse(http.StatusBadRequest, "badCSR", "it has to be for the name of the order alone")
	}
	chain, err := a.issue(request, o.name)
	if err != nil {
		return refuse(http.StatusInternalServerError, "serverInternal", err.Error())
	}
	a.mu.Lock()
	ready := o.status == "ready"
	if ready {
		o.status, o.chain = "valid", chain
	}
	a.mu.Unlock()
	if !ready {
		return refuse(http.StatusForbidden, "orderNotReady", "the order is not ready")
	}
	w.Header().Set("Location", a.base+"/order/"+o.id)
	send(w, http.StatusOK, a.orderJSON(o))
	return nil
}

func (a *Authority) certificate(s *signed, w http.ResponseWriter, r *http.Request) *problem {
	o, fault := a.find(s, r)
	if fault != nil {
		return fault
	}
	a.mu.Lock()
	chain := o.chain
	a.mu.Unlock()
	if chain == nil {
		return refuse(http.StatusNotFound, "malformed", "there is no certificate")
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, _ = w.Write(chain) // whoever asked may be gone
	return nil
}
