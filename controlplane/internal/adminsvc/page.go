package adminsvc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	defaultPageSize = 100
	maxPageSize     = 1000
	// maxPageBytes ends a page early. gRPC clients take messages of 4 MiB by default.
	maxPageBytes = 2 << 20
)

// page is one page of a list: where it begins and how much it may hold.
type page struct {
	after string
	limit int
	bound []byte
	bytes int
}

// newPage reads a request for a page. what is everything that must be the same from page to page.
func newPage(size int32, token string, what ...string) (*page, error) {
	sum := sha256.Sum256([]byte(strings.Join(what, "\x00")))
	p := &page{limit: int(size), bound: sum[:8]}
	if p.limit == 0 {
		p.limit = defaultPageSize
	}
	p.limit = min(p.limit, maxPageSize)
	if token == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) <= len(p.bound) || !bytes.HasPrefix(raw, p.bound) {
		return nil, invalidPageToken()
	}
	p.after = string(raw[len(p.bound):])
	return p, nil
}

func invalidPageToken() error {
	f := fail(kindInvalidPageToken, "pageToken: not a token of this request: take nextPageToken of the page before, and change nothing but pageSize")
	f.fields = []fieldFault{{"page_token", "not a token of this request"}}
	return f
}

// token is the token of the page after the one that ends with last.
func (p *page) token(last string) string {
	return base64.RawURLEncoding.EncodeToString(append(bytes.Clone(p.bound), last...))
}

// full counts a resource of the page and reports whether it was the last that fits.
func (p *page) full(m proto.Message) bool {
	p.bytes += proto.Size(m)
	return p.bytes >= maxPageBytes
}

// listRequest is what requests for a page have in common.
type listRequest interface {
	GetPageSize() int32
	GetPageToken() string
}

// listing is a page of resources.
type listing[M proto.Message] struct {
	items    []M
	next     string
	revision int64
	page     *page
}

// fit ends the page early where what was added to its resources has made it too long.
func (l *listing[M]) fit(id func(M) string) {
	l.page.bytes = 0
	for i, m := range l.items {
		if l.page.full(m) && i+1 < len(l.items) {
			l.items, l.next = l.items[:i+1], l.page.token(id(m))
			return
		}
	}
}

// list reads the page of a kind that req asks for; ids begin with prefix. show makes what admins
// see. same is what else of req must be the same from page to page.
func list[M proto.Message](
	ctx context.Context, s *Service, req listRequest, kind topology.Kind, account, prefix string,
	show func(topology.Key, topology.Stored[M]) M, same ...string,
) (listing[M], error) {
	var out listing[M]
	what := append([]string{string(kind), account, prefix}, same...)
	p, err := newPage(req.GetPageSize(), req.GetPageToken(), what...)
	if err != nil {
		return out, err
	}
	records, more, revision, err := s.store.List(ctx, kind, account, prefix, p.after, p.limit)
	if err != nil {
		return out, err
	}
	out.page, out.revision = p, revision
	if len(records) == 0 && account != "" {
		_, out.revision, err = readAt[*topologyv1.Account](ctx, s, accountKey(account), 0)
		return out, err
	}
	for i, record := range records {
		stored, err := decode[M](record)
		var m M
		if err == nil {
			m = show(record.Key, stored)
		} else { // just its name, for who wants to get or delete it
			stored.Message = m.ProtoReflect().New().Interface().(M)
			stored.CreateRevision, stored.ModRevision = record.CreateRevision, record.ModRevision
			m = present(record.Key, stored)
			s.log.ErrorContext(ctx, "adminsvc: a record cannot be read", "key", record.Key.String(), "error", err)
		}
		out.items = append(out.items, m)
		if last := i+1 == len(records); p.full(m) && !last || last && more {
			out.next = p.token(lastID(record.Key))
			break
		}
	}
	return out, nil
}

func lastID(k topology.Key) string {
	if k.Kind == topology.KindAccounts {
		return k.Account
	}
	return k.ID
}
