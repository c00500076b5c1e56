package adminsvc

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// maxPartResources and maxPartBytes bound a part of an export so that a step takes it where
	// everything in it is new, with room for what the account itself takes and what comes with a
	// new one.
	maxPartResources = store.MaxResources - 100
	maxPartBytes     = 900 << 10
	// maxExportBytes bounds an export in one answer. gRPC clients take messages of 4 MiB by
	// default.
	maxExportBytes = 4<<20 - 4<<10
)

func (s manifests) ExportManifest(
	ctx context.Context, req *adminv1.ExportManifestRequest,
) (*adminv1.ExportManifestResponse, error) {
	key, err := parseName(topology.KindAccounts, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	after, err := parseExportToken(key.Account, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	state, err := s.store.AccountState(ctx, key.Account)
	if err != nil {
		return nil, err
	}
	if after.changed != 0 && after.changed != state.Changed {
		f := fail(kindExportOutdated, "%s changed while it was exported: begin again, without page_token", key.Name())
		f.resource = key.Name()
		return nil, f
	}
	resp := &adminv1.ExportManifestResponse{Revision: state.Revision}
	if req.GetPageSize() == 0 && req.GetPageToken() == "" {
		resp.Manifest, err = export(state)
		return resp, err
	}
	limit := maxPartResources
	if req.GetPageSize() > 0 {
		limit = min(limit, int(req.GetPageSize()))
	}
	m, last, err := exportPart(state, after.last, limit)
	if err != nil {
		return nil, err
	}
	resp.Manifest = m
	if last != (topology.Key{}) {
		resp.NextPageToken = exportToken{state.Changed, last}.String()
	}
	return resp, nil
}

// export is a whole account as a manifest. It returns an error if that is too large for one answer,
// or a record cannot be read.
func export(state *store.State) (*adminv1.Manifest, error) {
	m, err := exportAccount(state)
	if err != nil {
		return nil, err
	}
	bytes := proto.Size(m)
	for item := range exported(state.Records, topology.Key{}) {
		entry, err := addEntry(m, item)
		if err != nil {
			return nil, err
		}
		if bytes += proto.Size(entry) + 8; bytes > maxExportBytes {
			name := topology.AccountName(state.Account)
			f := fail(kindExportTooLarge, "%s is too large for one answer: ask for parts, with a page_size (`edgewalk export` of this version or newer does)", name)
			f.resource = name
			return nil, f
		}
	}
	return m, nil
}

// exportPart is the part of an account's manifest that begins after a record, the zero key for the
// first. It returns the key of its last record if there are more. What it costs depends on the part
// alone.
func exportPart(state *store.State, after topology.Key, limit int) (m *adminv1.Manifest, last topology.Key, err error) {
	if m, err = exportAccount(state); err != nil {
		return nil, last, err
	}
	if after != (topology.Key{}) {
		m.Account.Etag = "" // the parts before may have changed it
	}
	n, bytes := 0, writtenSize(state, accountKey(state.Account), m.GetAccount())
	for item := range exported(state.Records, after) {
		entry, err := addEntry(m, item)
		if err != nil {
			return nil, topology.Key{}, err
		}
		bytes += writtenSize(state, item.Key(), entry)
		if n > 0 && (n == limit || bytes > maxPartBytes) {
			dropEntry(m, item.Key().Kind)
			return m, last, nil
		}
		n++
		last = item.Key()
	}
	return m, topology.Key{}, nil
}

// exportAccount is the manifest of an account without anything that it holds.
func exportAccount(state *store.State) (*adminv1.Manifest, error) {
	record, ok := state.Records.Get(topology.KindAccounts, "")
	if !ok {
		return nil, notFound(topology.AccountName(state.Account))
	}
	account, err := decode[*topologyv1.Account](record.Record())
	if err != nil {
		return nil, err
	}
	m := &adminv1.Manifest{Account: asEntry(account.Message)}
	m.Account.Id, m.Account.Etag = state.Account, etagOf(state.Changed)
	return m, nil
}

// exported yields the records that a manifest lists and that come after one, or all. Those that
// others refer to come first; in each kind they are in the order of ids, but for what the account
// has by itself: the default endpoint comes before the others.
func exported(records *index.Account, after topology.Key) iter.Seq[index.Item] {
	return func(yield func(index.Item) bool) {
		kinds := []topology.Kind{topology.KindOrigins, topology.KindURLEndpoints, topology.KindCustomDomains}
		for i, kind := range kinds {
			if after.Kind == kind {
				kinds = kinds[i:]
				break
			}
		}
		for _, kind := range kinds {
			from, endpoints := after.ID, kind == topology.KindURLEndpoints
			if after.Kind != kind {
				from = ""
			}
			if endpoints && from == "" {
				if item, ok := records.Get(kind, topology.DefaultEndpointID); ok && !yield(item) {
					return
				}
			}
			if endpoints && from == topology.DefaultEndpointID {
				from = ""
			}
			for item := range records.All(kind, "", from) {
				if endpoints && item.Key().ID == topology.DefaultEndpointID {
					continue
				}
				if !yield(item) {
					return
				}
			}
		}
	}
}

// addEntry lists a record in a manifest, and returns its entry.
func addEntry(m *adminv1.Manifest, item index.Item) (proto.Message, error) {
	switch key := item.Key(); key.Kind {
	case topology.KindOrigins:
		stored, err := decode[*topologyv1.Origin](item.Record())
		if err != nil {
			return nil, err
		}
		o := asEntry(stored.Message)
		o.Id = key.ID
		m.Origins = append(m.Origins, o)
		return o, nil
	case topology.KindURLEndpoints:
		stored, err := decode[*topologyv1.UrlEndpoint](item.Record())
		if err != nil {
			return nil, err
		}
		e := asEntry(stored.Message)
		e.Id = key.ID
		m.UrlEndpoints = append(m.UrlEndpoints, e)
		return e, nil
	default:
		stored, err := decode[*topologyv1.CustomDomain](item.Record())
		if err != nil {
			return nil, err
		}
		d := asEntry(stored.Message)
		m.CustomDomains = append(m.CustomDomains, d)
		return d, nil
	}
}

// dropEntry takes the last entry of a kind out of a manifest.
func dropEntry(m *adminv1.Manifest, kind topology.Kind) {
	switch kind {
	case topology.KindOrigins:
		m.Origins = m.Origins[:len(m.Origins)-1]
	case topology.KindURLEndpoints:
		m.UrlEndpoints = m.UrlEndpoints[:len(m.UrlEndpoints)-1]
	default:
		m.CustomDomains = m.CustomDomains[:len(m.CustomDomains)-1]
	}
}

const (
	keyRoom   = 48 // for what stands before a key, and for the words in it
	timesRoom = 40 // for create_time and update_time
	claimRoom = 32 // for the id of a write
)

// writtenSize is at least what a step counts for an entry that is new, with the secrets that it may
// be given again, and at least a third of the entry in YAML.
func writtenSize(state *store.State, key topology.Key, entry proto.Message) int {
	text, err := protojson.Marshal(entry)
	if err != nil {
		return maxPartBytes // no part with others
	}
	n := len(text) + timesRoom + keyRoom + len(key.Account) + len(key.ID)
	switch key.Kind {
	case topology.KindOrigins:
		if secrets, ok := state.Records.Get(topology.KindOriginSecrets, key.ID); ok {
			n += len(secrets.Record().Value) + keyRoom + len(key.Account) + len(key.ID)
		}
	case topology.KindCustomDomains: // and the claim of its name, and the counter of names with its parent
		n += 2*(keyRoom+len(key.ID)) + len(key.Account) + claimRoom
	}
	return n
}

// exportToken says where the next part of an export begins, and as of when.
type exportToken struct {
	changed int64        // of the account's State
	last    topology.Key // of the part before
}

// String begins with a checksum: a token is good for its account, as it was given.
func (t exportToken) String() string {
	place := fmt.Sprintf("%d/%s/%s", t.changed, t.last.Kind, t.last.ID)
	return base64.RawURLEncoding.EncodeToString(append(t.sum(t.last.Account, place), place...))
}

func (exportToken) sum(account, place string) []byte {
	sum := sha256.Sum256([]byte("export\x00" + account + "\x00" + place))
	return sum[:8]
}

// parseExportToken reads a token of an export of an account. An empty one is that of the first
// part.
func parseExportToken(account, token string) (exportToken, error) {
	var t exportToken
	if token == "" {
		return t, nil
	}
	if raw, err := base64.RawURLEncoding.Strict().DecodeString(token); err == nil && len(raw) > 8 {
		place := string(raw[8:])
		changed, rest, _ := strings.Cut(place, "/")
		kind, id, found := strings.Cut(rest, "/")
		t.changed, err = strconv.ParseInt(changed, 10, 64)
		t.last = topology.Key{Kind: topology.Kind(kind), Account: account, ID: id}
		if err == nil && found && string(t.sum(account, place)) == string(raw[:8]) {
			return t, nil
		}
	}
	return exportToken{}, invalidPageToken()
}

// etagOf is the etag of an account in a manifest: of the last change of what a manifest may hold.
// An account that is not there has none.
func etagOf(changed int64) string {
	if changed == 0 {
		return ""
	}
	return topology.Etag(changed)
}

// changedSince is how to refuse a request with another etag of the account than the one that speaks
// for all that a manifest may hold; nil if it has that or none.
func (d *draft) changedSince(given string) *failure {
	now := etagOf(d.state.Changed)
	if given == "" || given == now {
		return nil
	}
	name := topology.AccountName(d.id)
	f := fail(kindEtagMismatch, "%s has changed, or what it holds: its etag is %s and not %s", name, now, given)
	f.resource = name
	f.facts = map[string]string{"etag": now}
	return f
}
