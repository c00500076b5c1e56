package admincli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/internal/connfault"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
)

// apiError is an error of the admin API in words.
type apiError struct {
	text string
	err  error
}

// Error returns the words.
func (e *apiError) Error() string { return e.text }

// Unwrap returns the gRPC error.
func (e *apiError) Unwrap() error { return e.err }

// explainError turns a gRPC error into what a person needs: what was wrong, where, and what to do.
func (c *cli) explainError(err error) error {
	var own *apiError
	if err == nil || errors.As(err, &own) || IsUsage(err) {
		return err
	}
	var grpcErr interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &grpcErr) {
		return err
	}
	st := grpcErr.GRPCStatus()
	// What callers wrapped around the status, such as the name of a file, is kept in front.
	prefix := strings.TrimSuffix(err.Error(), status.FromProto(st.Proto()).Err().Error())
	var text strings.Builder
	text.WriteString(prefix)
	text.WriteString(c.headline(st))
	for _, line := range detailLines(st) {
		text.WriteString("\n  " + line)
	}
	return &apiError{text.String(), err}
}

// reasonOf is what went wrong as the control plane names it, empty if it did not say.
func reasonOf(st *status.Status) string {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.Reason
		}
	}
	return ""
}

// headline is the first line for a status.
func (c *cli) headline(st *status.Status) string {
	reason := reasonOf(st)
	switch {
	case reason == "" && st.Code() == codes.Unavailable:
		return c.unreachable(st.Message())
	case reason == "" && st.Code() == codes.ResourceExhausted:
		return "the request is larger than a control plane takes: do it in parts"
	case reason == "" && st.Code() == codes.Internal && strings.Contains(st.Message(), "invalid UTF-8"):
		return "a name or value is not valid UTF-8"
	case reason == "" && st.Code() == codes.Unimplemented:
		return fmt.Sprintf("what answers at %s is no admin API, or one of another version (%s)\n  Name the address of --admin-addr with --server.", c.server, firstLine(st.Message()))
	case reason == "" && st.Code() == codes.Canceled:
		return "interrupted"
	case st.Code() == codes.Unauthenticated:
		what, _, _ := strings.Cut(st.Message(), ": send `")
		return what + "\n  " + tokenAdvice
	case reason == "PERMISSION_DENIED":
		return st.Message() + " (" + reason + ")\n  edgewalk token whoami tells what your token allows."
	case reason == "":
		return fmt.Sprintf("%s (%s)", st.Message(), st.Code())
	default:
		return fmt.Sprintf("%s (%s)", st.Message(), reason)
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// unreachable says why no connection came about, and what to try.
func (c *cli) unreachable(message string) string {
	cause, kind := connfault.Of(message)
	advice := "Is it running there? Name another address with --server or EDGEWALK_SERVER."
	switch {
	case kind == connfault.NoTLS:
		advice = "It does not speak TLS: leave out https://, --ca and --cert."
	case kind == connfault.Untrusted:
		advice = "Name the CA of its certificate with --ca, and the host that its certificate is for with --server."
	case kind == connfault.NoGRPC:
		advice = "That is no admin API: name the address of --admin-addr with --server."
	case kind == connfault.Silent:
		advice = "It may be another program, or stand still: name the address of --admin-addr with --server."
	case kind == connfault.HungUp && !c.secure():
		advice = "It may ask for TLS: use --ca FILE or --server https://HOST:PORT."
	case kind == connfault.HungUp && c.cert == "":
		advice = "It may ask for a certificate of an authority of its own: use --cert and --key."
	}
	return fmt.Sprintf("no control plane answers at %s (%s)\n  %s", c.server, cause, advice)
}

// detailLines are what the details of a status add to its message.
func detailLines(st *status.Status) []string {
	var lines []string
	add := func(place, text string) { lines = append(lines, strings.TrimPrefix(place+": "+text, ": ")) }
	fields := false
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			fields = true
			for _, v := range d.FieldViolations {
				// The message names the first fault: alone, it needs no list.
				if named := strings.Contains(st.Message(), v.Description) ||
					v.Field != "" && strings.Contains(st.Message(), fieldpath.Typed(v.Field)); !named ||
					len(d.FieldViolations) > 1 {
					add(fieldpath.Typed(v.Field), v.Description)
				}
			}
		case *errdetails.PreconditionFailure:
			for _, v := range d.Violations {
				// Where fields are at fault, which stand in front, they say the same of the
				// resources that they belong to.
				if !fields && !strings.Contains(st.Message(), v.Subject) {
					add(v.Subject, v.Description)
				}
			}
		}
	}
	return lines
}

// fault is an error for programs, in the shape of Google's APIs
// (https://google.aip.dev/193#http11json-representation).
type fault struct {
	Status  string       `json:"status"`
	Message string       `json:"message"`
	Reason  string       `json:"reason,omitempty"`
	Fields  []fieldFault `json:"fields,omitempty"`
}

type fieldFault struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

// WriteError prints why a command failed: in words, or as JSON if --output asks for it.
func WriteError(w io.Writer, err error, output string) {
	if output != "json" {
		fmt.Fprintln(w, "edgewalk:", err)
		return
	}
	f := fault{Status: "FAILED", Message: err.Error()}
	var grpcErr interface{ GRPCStatus() *status.Status }
	switch {
	case IsUsage(err):
		f.Status = "WRONG_USE"
	case errors.As(err, &grpcErr):
		st := grpcErr.GRPCStatus()
		f.Status, f.Reason = code.Code(st.Code()).String(), reasonOf(st)
		for _, detail := range st.Details() {
			if bad, ok := detail.(*errdetails.BadRequest); ok {
				for _, v := range bad.GetFieldViolations() {
					f.Fields = append(f.Fields, fieldFault{fieldpath.Typed(v.GetField()), v.GetDescription()})
				}
			}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(map[string]fault{"error": f}) // There is nobody else to tell.
}
