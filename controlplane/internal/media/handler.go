package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// RevisionHeader carries the revision that the asking edge has applied.
const RevisionHeader = "Edgewalk-Revision"

// behindWait is how long a request waits for a replica that has not reached the edge's revision.
// Longer only holds a walk up that could ask another replica.
const behindWait = 2 * time.Second

// bodyTimeout is how long the body of a request may still come, which nobody wants: long enough for
// its sender to read the refusal (RFC 9112 9.6).
const bodyTimeout = time.Second

// HandlerConfig says who may read.
type HandlerConfig struct {
	Library *Library
	// Feed is what this replica knows of the records.
	Feed *feed.Feed
	// Store answers for records as they were: the replica's revision may have left an edge's
	// behind.
	Store *store.Store
	// Identities knows the edges that have joined. Nil: there are none.
	Identities *identity.Registry
	// Authorize returns an error unless a caller is an edge, by the values of its Authorization
	// field and whether it has shown a certificate that was verified, and else the context of its
	// request. Nil: anybody may read. It is not asked about edges that have joined.
	Authorize func(ctx context.Context, authorization []string, certificate bool) (context.Context, error)
	// Logger takes what an operator should know. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
}

// Handler serves `GET /media/{account}/{first 16 hex digits of the sha256}/{path}` to edges: the
// bytes that the path stood for at the edge's revision, or those of the same hash, never others.
type Handler struct {
	HandlerConfig
	requests *prometheus.CounterVec
}

// NewHandler returns the handler.
func NewHandler(cfg HandlerConfig) (*Handler, error) {
	h := &Handler{
		HandlerConfig: cfg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_media_requests_total",
			Help: "Requests of edges for media files, by status.",
		}, []string{"code"}),
	}
	if h.Logger == nil {
		h.Logger = slog.Default()
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(h.requests); err != nil {
			return nil, fmt.Errorf("register media metrics: %w", err)
		}
	}
	return h, nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cw := &countingWriter{ResponseWriter: w}
	defer func() { h.requests.WithLabelValues(strconv.Itoa(cw.code)).Inc() }()
	if r.ContentLength != 0 {
		cw.Header().Set("Connection", "close")
		// Its error is that the connection is gone, which the reply finds out too.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		refuse(cw, http.StatusBadRequest, "a request for a file has no body")
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		cw.Header().Set("Allow", "GET, HEAD")
		refuse(cw, http.StatusMethodNotAllowed, "only GET and HEAD")
		return
	}
	pool, err := h.authorize(r)
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		refuse(cw, http.StatusServiceUnavailable, "etcd does not answer, so an edge token that is new here cannot be checked")
		return
	case err != nil:
		cw.Header().Set("WWW-Authenticate", "Bearer")
		refuse(cw, http.StatusUnauthorized, err.Error())
		return
	}
	asked, ok := parseAsked(r)
	if !ok {
		refuse(cw, http.StatusNotFound, "want /media/{account}/{16 hex digits}/{path}")
		return
	}
	if !h.caughtUp(r.Context(), asked.revision) {
		cw.Header().Set("Retry-After", "1")
		refuse(cw, http.StatusServiceUnavailable, "this replica has not reached the edge's revision")
		return
	}
	if pool != "" && !h.Feed.View().In(pool).Has(asked.key.Account) {
		refuse(cw, http.StatusNotFound, "no such file")
		return
	}
	h.serve(cw, r, asked)
}

var errUnauthorized = errors.New("a bearer token is needed, or the certificate of an edge that has joined")

// authorize says whether a request may be made at all, and which pool's accounts it may be about,
// empty for all.
func (h *Handler) authorize(r *http.Request) (pool string, err error) {
	if h.Identities != nil {
		if e, ok, err := h.Identities.Authenticate(r.TLS); ok || err != nil {
			return e.Pool, err
		}
	}
	if h.Authorize == nil {
		return "", nil
	}
	if _, err := h.Authorize(r.Context(), r.Header.Values("Authorization"), false); errors.Is(
		err, auth.ErrUnavailable,
	) {
		return "", err
	} else if err != nil {
		return "", errUnauthorized
	}
	return "", nil
}

func (h *Handler) caughtUp(ctx context.Context, revision int64) bool {
	if revision == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, behindWait)
	defer cancel()
	return h.Feed.WaitRevision(ctx, revision) == nil
}

// asked is what a request names.
type asked struct {
	key      topology.Key
	prefix   string // of the hash, 16 hex digits
	revision int64  // 0 when the request has none
}

// parseAsked takes the path apart as it was sent: an escaped slash is part of a segment, and
// nothing is cleaned away.
func parseAsked(r *http.Request) (asked, bool) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/media/")
	if !ok {
		return asked{}, false
	}
	account, rest, _ := strings.Cut(rest, "/")
	prefix, rest, _ := strings.Cut(rest, "/")
	path, err := url.PathUnescape(rest)
	if err != nil || !isHex(prefix, 16) {
		return asked{}, false
	}
	a := asked{key: topology.Key{Kind: topology.KindMediaFiles, Account: account, ID: path}, prefix: prefix}
	if parsed, err := topology.ParseKey(a.key.String()); err != nil || parsed != a.key {
		return asked{}, false
	}
	if s := r.Header.Get(RevisionHeader); s != "" {
		if a.revision, err = strconv.ParseInt(s, 10, 64); err != nil || a.revision < 0 {
			return asked{}, false
		}
	}
	return a, true
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request, a asked) {
	file, err := h.find(r.Context(), a)
	if err != nil {
		h.refuseError(w, a, err)
		return
	}
	body, err := h.Library.seekable(r.Context(), file.GetSha256(),
		r.Method == http.MethodHead || r.Header.Get("Range") != "")
	if err != nil {
		h.refuseError(w, a, err)
		return
	}
	defer body.Close()
	head := w.Header()
	head.Set("ETag", `"`+file.GetSha256()+`"`)
	head.Set("Content-Type", file.GetContentType())
	if tags := file.GetTags(); len(tags) > 0 {
		head.Set("Cache-Tag", strings.Join(tags, ","))
	}
	http.ServeContent(w, r, "", time.Time{}, body)
	if body.err != nil {
		if r.Context().Err() != nil {
			return // The edge is gone.
		}
		h.Logger.Error("send media file", "account", a.key.Account, "path", a.key.ID, "error", body.err)
		// The head promised more bytes: only a broken connection shows the edge that they are
		// missing.
		panic(http.ErrAbortHandler)
	}
}

func (h *Handler) refuseError(w http.ResponseWriter, a asked, err error) {
	if errors.Is(err, ErrNoBytes) {
		refuse(w, http.StatusNotFound, "no such file")
		return
	}
	h.Logger.Error("read media file", "account", a.key.Account, "path", a.key.ID, "error", err)
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, "the media library cannot be read")
}

// find returns the record that the asked hash stands for: the one in force, else the one of the
// edge's revision. It returns [ErrNoBytes] if the account has no such file, also when another
// account has these bytes.
func (h *Handler) find(ctx context.Context, a asked) (*topologyv1.MediaFile, error) {
	if record, ok := h.Feed.Get(a.key); ok {
		if file := a.match(record); file != nil {
			return file, nil
		}
	}
	if a.revision == 0 {
		return nil, ErrNoBytes
	}
	record, _, err := h.Store.GetAt(ctx, a.key, a.revision)
	if errors.Is(err, store.ErrNotFound) {
		return nil, ErrNoBytes
	}
	if err != nil {
		return nil, err
	}
	if file := a.match(record); file != nil {
		return file, nil
	}
	return nil, ErrNoBytes
}

func (a asked) match(record topology.Record) *topologyv1.MediaFile {
	file := new(topologyv1.MediaFile)
	if proto.Unmarshal(record.Value, file) != nil || !strings.HasPrefix(file.GetSha256(), a.prefix) {
		return nil
	}
	return file
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, code)
}

type countingWriter struct {
	http.ResponseWriter
	code int
}

func (w *countingWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}
