package admincli

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
	for _, detail := range st.Details() {
		for _, line := range detailLines(detail) {
			if !strings.Contains(st.Message(), line) {
				text.WriteString("\n  " + line)
			}
		}
	}
	return &apiError{text.String(), err}
}

// headline is the first line for a status.
func (c *cli) headline(st *status.Status) string {
	reason := ""
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason = info.Reason
		}
	}
	switch {
	case reason == "" && st.Code() == codes.Unavailable:
		return fmt.Sprintf("no control plane answers at %s (%s)\n  Is it running there? Name another address with --server or EDGEWALK_SERVER.", c.server, st.Message())
	case st.Code() == codes.Unauthenticated:
		return fmt.Sprintf("%s\n  Put the admin token into EDGEWALK_TOKEN.", st.Message())
	case reason == "":
		return fmt.Sprintf("%s (%s)", st.Message(), st.Code())
	default:
		return fmt.Sprintf("%s (%s)", st.Message(), reason)
	}
}

// detailLines returns the lines that a detail adds.
func detailLines(detail any) []string {
	var lines []string
	switch d := detail.(type) {
	case *errdetails.BadRequest:
		for _, v := range d.FieldViolations {
			lines = append(lines, joinPlace(v.Field, v.Description))
		}
	case *errdetails.PreconditionFailure:
		for _, v := range d.Violations {
			lines = append(lines, joinPlace(v.Subject, v.Description))
		}
	}
	return lines
}

func joinPlace(place, text string) string {
	if place == "" {
		return text
	}
	return place + ": " + text
}
