package rest

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/manifest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// applyPath returns the account of `accounts/{account}:apply`.
func applyPath(path string) (account string, ok bool) {
	rest, begins := strings.CutPrefix(path, "accounts/")
	account, ends := strings.CutSuffix(rest, ":apply")
	return account, begins && ends && account != "" && !strings.Contains(account, "/")
}

// exportPath returns the account of `accounts/{account}:export`.
func exportPath(path string) (account string, ok bool) {
	rest, begins := strings.CutPrefix(path, "accounts/")
	account, ends := strings.CutSuffix(rest, ":export")
	return account, begins && ends && account != "" && !strings.Contains(account, "/")
}

// export answers with an account's manifest alone, as apply takes it: in YAML, to who accepts that.
// An account that is too large for one answer is asked for in parts, in JSON.
func (h *Handler) export(w http.ResponseWriter, r *http.Request, account string) {
	p := params{query: r.URL.Query()}
	if err := p.err(); err != nil {
		writeError(w, r, err)
		return
	}
	wait(w)
	resp, err := h.manifests.ExportManifest(adminconn.Outgoing(r),
		&adminv1.ExportManifestRequest{Name: "accounts/" + account})
	if err != nil {
		writeError(w, r, err)
		return
	}
	text, err := manifest.YAML(resp.GetManifest())
	if err != nil {
		writeError(w, r, err)
		return
	}
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Content-Type", "application/yaml")
	// Its error is that nobody reads it.
	_, _ = w.Write(text)
}

// apply applies a manifest, which is the content as it is: errors tell line and column.
func (h *Handler) apply(w http.ResponseWriter, r *http.Request, account string) {
	req, err := h.readManifest(w, r, account)
	if err != nil {
		writeError(w, r, err)
		return
	}
	wait(w)
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, &asked{body: "manifest."}))
	resp, err := h.manifests.ApplyManifest(adminconn.Outgoing(r), req)
	if err != nil {
		writeError(w, r, err)
		return
	}
	w.Header().Set("ETag", resp.GetEtag())
	writeMessage(w, r, http.StatusOK, resp)
}

func (h *Handler) readManifest(
	w http.ResponseWriter, r *http.Request, account string,
) (*adminv1.ApplyManifestRequest, error) {
	req := &adminv1.ApplyManifestRequest{Name: "accounts/" + account}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid(reasonInvalid, fault{"", "the query cannot be read: " + err.Error()})
	}
	p := params{query: query, known: []string{"prune", "validateOnly", "requestId", "etag"}}
	req.Prune, req.ValidateOnly = p.flag("prune"), p.flag("validateOnly")
	req.RequestId, req.Etag = p.text("requestId"), p.text("etag")
	if err := p.err(); err != nil {
		return nil, err
	}
	etag, given, err := ifMatch(r, true)
	switch {
	case err != nil:
		return nil, err
	case given && req.GetEtag() != "" && req.GetEtag() != etag:
		return nil, invalid(reasonInvalid, fault{"etag", "If-Match has another one"})
	case given:
		req.Etag = etag
	}
	if err := mustBe(
		r, "application/yaml", "application/json", "text/yaml", "application/x-yaml", "text/plain",
	); err != nil {
		return nil, err
	}
	text, err := readAll(w, r, maxManifest)
	if err != nil {
		return nil, err
	}
	req.Source = &adminv1.ApplyManifestRequest_Text{Text: string(text)}
	return req, nil
}

// params are the parameters of a request that no proto describes.
type params struct {
	query  url.Values
	known  []string
	faults []fault
}

func (p *params) text(name string) string {
	if len(p.query[name]) > 1 {
		p.faults = append(p.faults, fault{name, "this stands once"})
	}
	return p.query.Get(name)
}

func (p *params) flag(name string) bool {
	text := p.text(name)
	if text == "" && !p.query.Has(name) {
		return false
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		p.faults = append(p.faults, fault{name, "want true or false"})
	}
	return value
}

// err is what is wrong with them, such as an unknown name.
func (p *params) err() error {
	if faults := unknownNames(p.query, p.known); len(faults) > 0 {
		return invalid(reasonUnknown, faults...)
	}
	if len(p.faults) > 0 {
		return invalid(reasonInvalid, p.faults...)
	}
	return nil
}

// unknownNames finds the parameters that are none of those that are known.
func unknownNames(query url.Values, known []string) (faults []fault) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if !slices.Contains(known, name) {
			faults = append(faults, fault{name, "there is no such parameter" + fieldpath.Hint(name, known...)})
		}
	}
	return faults
}
