package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
)

// errorDomain is the domain of every ErrorInfo, that of the admin API.
const errorDomain = "edgewalk"

// Reasons that only requests over HTTP can meet.
const (
	reasonInvalid  = "INVALID_FIELD"
	reasonUnknown  = "UNKNOWN_FIELD"
	reasonTooLarge = "CONTENT_TOO_LARGE"
	reasonRange    = "RANGE_NOT_SATISFIABLE"
)

// statuses are the HTTP statuses of reasons for which that of the code would tell less. Those of
// codes are in https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto.
var statuses = map[string]int{
	"ETAG_MISMATCH":          http.StatusPreconditionFailed,
	"EDGES_PENDING":          http.StatusConflict, // no gateway was late: edges are
	"CONTENT_TIMEOUT":        http.StatusRequestTimeout,
	reasonTooLarge:           http.StatusRequestEntityTooLarge,
	reasonRange:              http.StatusRequestedRangeNotSatisfiable,
	"UNSUPPORTED_MEDIA_TYPE": http.StatusUnsupportedMediaType,
}

// fault is what is wrong with a field of a request, by the name that was typed.
type fault struct{ field, text string }

// invalid is an error about fields of a request.
func invalid(reason string, faults ...fault) error {
	bad := new(errdetails.BadRequest)
	for _, f := range faults {
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: f.field, Description: f.text, Reason: reason,
		})
	}
	text := faults[0].text
	if faults[0].field != "" {
		text = faults[0].field + ": " + text
	}
	if more := len(faults) - 1; more > 0 {
		text += fmt.Sprintf(" (and %d more)", more)
	}
	return withInfo(status.New(codes.InvalidArgument, text), reason, bad)
}

func refused(code codes.Code, reason, text string) error {
	return withInfo(status.New(code, text), reason)
}

func withInfo(s *status.Status, reason string, more ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain}
	detailed, err := s.WithDetails(append([]protoadapt.MessageV1{info}, more...)...)
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}

// Refuse answers a request that no call is made for.
func Refuse(w http.ResponseWriter, r *http.Request, code int, c codes.Code, reason, text string) {
	writeStatus(w, r, code, status.Convert(refused(c, reason, text)))
}

// writeError answers a request that failed.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	s := typed(r, withReason(r.Context(), err))
	code := runtime.HTTPStatusFromCode(s.Code())
	if known, ok := statuses[reasonOf(s)]; ok {
		code = known
	}
	writeStatus(w, r, code, s)
}

func writeStatus(w http.ResponseWriter, r *http.Request, code int, s *status.Status) {
	text, err := marshaler.Marshal(s.Proto())
	if err != nil {
		text = []byte(`{"code": 13, "message": "the error cannot be written"}` + "\n")
	}
	fields := w.Header()
	fields.Del("ETag")
	fields.Set("Content-Type", "application/json")
	switch reason := reasonOf(s); {
	case code == http.StatusUnauthorized && r.Header.Get("Authorization") != "":
		fields.Set("WWW-Authenticate", `Bearer realm="edgewalk", error="invalid_token"`) // RFC 6750 3
	case code == http.StatusUnauthorized:
		fields.Set("WWW-Authenticate", `Bearer realm="edgewalk"`)
	case code == http.StatusServiceUnavailable, reason == "TOO_MANY_REQUESTS":
		fields.Set("Retry-After", "1")
	}
	w.WriteHeader(code)
	// Its error is that nobody reads it.
	_, _ = w.Write(text)
}

// quotedField finds the field in what the gateway says of a parameter.
var quotedField = regexp.MustCompile(`field "([^"]+)"`)

// withReason returns the status of an error. An error without a reason of the admin API gets one by
// its code.
func withReason(ctx context.Context, err error) *status.Status {
	// What is escaped wrongly in a path.
	if wrapped, ok := errors.AsType[*runtime.HTTPStatusError](err); ok {
		err = status.Error(codes.InvalidArgument, wrapped.Err.Error())
	}
	s := status.Convert(err)
	if reasonOf(s) != "" {
		return s
	}
	reason := strings.ToUpper(strings.ReplaceAll(s.Code().String(), " ", "_"))
	switch s.Code() {
	case codes.InvalidArgument: // what the gateway could not read into a field
		if field := quotedField.FindStringSubmatch(s.Message()); field != nil {
			_, text, _ := strings.Cut(s.Message(), ": ")
			return status.Convert(invalid(reasonInvalid, fault{fieldpath.JSON(field[1]), text}))
		}
		reason = reasonInvalid
	case codes.Canceled:
		reason = "CANCELED"
	case codes.DeadlineExceeded:
		reason = "DEADLINE_EXCEEDED"
	case codes.Unavailable:
		reason = "STOPPING" // of this process only its end is between us and it
	case codes.Internal, codes.Unknown:
		if ctx.Err() == nil {
			s = status.New(codes.Internal, s.Message())
		}
		reason = "INTERNAL_ERROR"
	case codes.ResourceExhausted:
		reason = reasonTooLarge
	}
	return status.Convert(withInfo(s, reason))
}

// typed names fields as the request spells them: in lowerCamelCase, and from its content on where
// that is one of the call's fields.
func typed(r *http.Request, s *status.Status) *status.Status {
	body := ""
	if request, ok := r.Context().Value(requestKey{}).(*asked); ok {
		body = request.body
	}
	p := s.Proto() // a copy
	for i, d := range p.GetDetails() {
		bad := new(errdetails.BadRequest)
		if d.UnmarshalTo(bad) != nil {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			v.Field = fieldpath.JSON(strings.TrimPrefix(v.GetField(), body))
		}
		changed, err := anypb.New(bad)
		if err != nil {
			continue
		}
		p.Details[i] = changed
	}
	return status.FromProto(p)
}

func reasonOf(s *status.Status) string {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
