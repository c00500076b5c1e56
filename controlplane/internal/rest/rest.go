// Package rest is the admin API over HTTP and JSON, below /v1.
//
// Which request is which call stands beside each method in its proto, as google.api.http rules
// (https://google.aip.dev/127); grpc-gateway has generated what turns one into the other. This
// package decides what that leaves open: it refuses what a request has and its method has not,
// maps each error to a status, and carries etags as header fields. Media files, manifests
// as text and the stream of edges are written by hand.
//
// Every call goes to the admin API over the connection within the process, so that who may do what,
// what is valid, and what is audited is decided there alone.
package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/api"
	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Prefix is what every path begins with.
const Prefix = "/v1"

// progress is how long a client may take to send or take the next bytes.
const progress = 30 * time.Second

// Handler serves the API. It is an [http.Handler] for paths at which [Owns] is true.
type Handler struct {
	mux       *runtime.ServeMux
	media     adminv1.MediaServiceClient
	manifests adminv1.ManifestServiceClient
	bindings  map[string]*binding
	admin     *adminsvc.Service
	ended     context.Context
	end       context.CancelFunc
}

// New returns a handler that makes its calls over a connection to an admin API.
func New(conn grpc.ClientConnInterface, admin *adminsvc.Service) (*Handler, error) {
	h := &Handler{
		media: adminv1.NewMediaServiceClient(conn), manifests: adminv1.NewManifestServiceClient(conn),
		bindings: bindings(), admin: admin,
	}
	h.ended, h.end = context.WithCancel(context.Background())
	h.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, marshaler),
		runtime.WithMiddlewares(h.checked),
		runtime.WithForwardResponseOption(forward),
		runtime.WithErrorHandler(func(
			_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter,
			r *http.Request, err error,
		) {
			writeError(w, r, err)
		}),
		runtime.WithRoutingErrorHandler(func(
			_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter,
			r *http.Request, status int,
		) {
			h.noRoute(w, r, status)
		}),
		// Header fields of a request reach no call but by adminconn, and none of a call the reply.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(_ context.Context, r *http.Request) metadata.MD {
			return adminconn.Metadata(r)
		}),
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error{
		over(adminv1.NewAccountServiceClient, adminv1.RegisterAccountServiceHandlerClient),
		over(adminv1.NewOriginServiceClient, adminv1.RegisterOriginServiceHandlerClient),
		over(adminv1.NewUrlEndpointServiceClient, adminv1.RegisterUrlEndpointServiceHandlerClient),
		over(adminv1.NewCustomDomainServiceClient, adminv1.RegisterCustomDomainServiceHandlerClient),
		over(adminv1.NewIssuerServiceClient, adminv1.RegisterIssuerServiceHandlerClient),
		over(adminv1.NewMediaServiceClient, adminv1.RegisterMediaServiceHandlerClient),
		over(adminv1.NewPurgeServiceClient, adminv1.RegisterPurgeServiceHandlerClient),
		over(adminv1.NewFleetServiceClient, adminv1.RegisterFleetServiceHandlerClient),
		over(adminv1.NewEdgeAdminServiceClient, adminv1.RegisterEdgeAdminServiceHandlerClient),
		over(adminv1.NewManifestServiceClient, adminv1.RegisterManifestServiceHandlerClient),
		over(adminv1.NewDiagnosticServiceClient, adminv1.RegisterDiagnosticServiceHandlerClient),
		over(adminv1.NewAuditServiceClient, adminv1.RegisterAuditServiceHandlerClient),
		over(adminv1.NewHistoryServiceClient, adminv1.RegisterHistoryServiceHandlerClient),
		over(adminv1.NewTokenServiceClient, adminv1.RegisterTokenServiceHandlerClient),
	} {
		if err := register(context.Background(), h.mux, conn); err != nil {
			return nil, fmt.Errorf("register REST: %w", err)
		}
	}
	return h, nil
}

// over registers what is generated for a service, with a client of it.
func over[C any](
	client func(grpc.ClientConnInterface) C,
	register func(context.Context, *runtime.ServeMux, C) error,
) func(context.Context, *runtime.ServeMux, grpc.ClientConnInterface) error {
	return func(ctx context.Context, mux *runtime.ServeMux, conn grpc.ClientConnInterface) error {
		return register(ctx, mux, client(conn))
	}
}

// End ends the streams that would go on for ever.
func (h *Handler) End() { h.end() }

// Owns reports whether a path is one of the API.
func Owns(path string) bool {
	rest, ok := strings.CutPrefix(path, Prefix)
	return ok && (rest == "" || rest[0] == '/' || rest[0] == ':')
}

// marshaler writes JSON as https://protobuf.dev/programming-guides/json/ has it: names in
// lowerCamelCase, int64 as strings, fields left out that have no value.
var marshaler = lines{new(runtime.JSONPb)}

// lines writes JSON for people: in lines, and always the same, where the library varies its spaces.
type lines struct{ *runtime.JSONPb }

// Marshal implements [runtime.Marshaler].
func (l lines) Marshal(v any) ([]byte, error) {
	text, err := l.JSONPb.Marshal(v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w = &writer{ResponseWriter: w, control: http.NewResponseController(w)}
	fields := w.Header()
	fields.Set("X-Content-Type-Options", "nosniff")
	fields.Set("Cache-Control", "no-store")
	query, err := url.QueryUnescape(r.URL.RawQuery)
	if err != nil || !utf8.ValidString(query) || !utf8.ValidString(r.URL.Path) {
		writeError(w, r, invalid(reasonInvalid, fault{"", "the path and the query must be UTF-8, percent-encoded"}))
		return
	}
	path := strings.TrimPrefix(r.URL.Path, Prefix+"/")
	if account, file, ok := mediaPath(path); ok && servesBytes(r.Method) {
		h.serveMedia(w, r, account, file)
		return
	}
	if account, ok := applyPath(path); ok && r.Method == http.MethodPost {
		h.apply(w, r, account)
		return
	}
	if account, ok := exportPath(path); ok && r.Method == http.MethodGet && names(r, "application/yaml") {
		h.export(w, r, account)
		return
	}
	if path == "openapi.yaml" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		fields.Set("Content-Type", "application/yaml")
		fields.Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(api.OpenAPI))
		return
	}
	if path == "edges:watch" {
		h.watchEdges(w, r)
		return
	}
	if r.Method == http.MethodHead { // net/http leaves out the body
		get := *r
		get.Method = http.MethodGet
		r = &get
	}
	h.mux.ServeHTTP(w, r)
}

// writer gives each write its time: what is waited for before may take longer than a client that
// takes nothing may.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *writer) Write(p []byte) (int, error) {
	// Its error is that the connection is gone, or has no deadlines: the write finds out.
	_ = w.control.SetWriteDeadline(time.Now().Add(progress))
	return w.ResponseWriter.Write(p)
}

// Unwrap is for [http.ResponseController].
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// wait lets a call take as long as the admin API gives it. A deadline for reads that passes would
// end the request.
func wait(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
}

type requestKey struct{}

// forward adds to the reply of a call what HTTP has fields and statuses for.
func forward(ctx context.Context, w http.ResponseWriter, resp proto.Message) error {
	r, _ := ctx.Value(requestKey{}).(*asked)
	if r == nil {
		return nil
	}
	name, etag := resourceOf(resp)
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	switch {
	case r.method == http.MethodGet && etag != "" && noneMatch(r.noneMatch, etag):
		w.WriteHeader(http.StatusNotModified)
	case r.creates && etag != "" && name != "":
		w.Header().Set("Location", location(name))
		w.WriteHeader(http.StatusCreated)
	case r.creates:
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// writeMessage answers with a message.
func writeMessage(w http.ResponseWriter, r *http.Request, status int, m proto.Message) {
	text, err := marshaler.Marshal(m)
	if err != nil {
		writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// Its error is that nobody reads it.
	_, _ = w.Write(text)
}

// noRoute answers where there is nothing.
func (h *Handler) noRoute(w http.ResponseWriter, r *http.Request, status int) {
	if status != http.StatusMethodNotAllowed {
		Refuse(w, r, http.StatusNotFound, codes.NotFound, "NO_SUCH_PATH",
			fmt.Sprintf("there is nothing at %s: %s/openapi.yaml lists what there is", r.URL.Path, Prefix))
		return
	}
	allowed := w.Header().Get("Allow")
	if allowed == "" {
		allowed = strings.Join(h.allowed(r.URL.Path), ", ")
		w.Header().Set("Allow", allowed)
	}
	Refuse(w, r, status, codes.Unimplemented, "METHOD_NOT_ALLOWED",
		fmt.Sprintf("%s is not for %s but for %s", r.URL.Path, r.Method, allowed))
}

// allowed are the methods that there is something for at a path (RFC 9110 10.2.1), sorted.
func (h *Handler) allowed(path string) (methods []string) {
	for _, b := range h.bindings {
		if b.at.MatchString(path) && !slices.Contains(methods, b.verb) {
			methods = append(methods, b.verb)
		}
	}
	if slices.Contains(methods, http.MethodGet) {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return methods
}
