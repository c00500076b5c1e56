package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/edgewalk/edgewalk/internal/duration"
)

func (s *Service) validateUnary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if m, ok := req.(proto.Message); ok {
		if err := s.validate("", m, protovalidate.WithFilter(requestFilter)); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

func (s *Service) validateStream(
	srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return handler(srv, &validatedStream{ServerStream: stream, service: s})
}

type validatedStream struct {
	grpc.ServerStream
	service *Service
}

func (v *validatedStream) RecvMsg(m any) error {
	if err := v.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		return v.service.validate("", m)
	}
	return nil
}

// requestFilter leaves out what can only be checked later: the resource of an update is whole once
// it is merged with the stored one.
var requestFilter = protovalidate.FilterFunc(func(m protoreflect.Message, d protoreflect.Descriptor) bool {
	f, ok := d.(protoreflect.FieldDescriptor)
	if !ok || f.Message() == nil || f.Message().ParentFile().Package() != "edgewalk.topology.v1" {
		return true
	}
	return m.Descriptor().Fields().ByName("update_mask") == nil
})

// validate checks a message by its annotations. Fields at fault are named below prefix, each once.
func (s *Service) validate(prefix string, m proto.Message, opts ...protovalidate.ValidationOption) error {
	err := s.validator.Validate(m, opts...)
	broken, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return err
	}
	var faults []fieldFault
	for _, v := range broken.Violations {
		fault := fieldFault{
			strings.Trim(prefix+"."+protovalidate.FieldPathString(v.Proto.GetField()), "."), violationText(m, v),
		}
		if last := len(faults) - 1; last >= 0 && faults[last].field == fault.field {
			faults[last] = fault // Of a text that is too short and has another form than wanted, the form says more.
			continue
		}
		faults = append(faults, fault)
	}
	return faulty(kindInvalidField, faults)
}

// forms says in words what each pattern in the protos wants.
var forms = map[string]string{
	"^[a-z0-9][a-z0-9_-]{0,62}$":        "use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit",
	"^[a-z0-9][a-z0-9-]{0,62}$":         "use 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit",
	"^[a-z0-9][a-z0-9._-]{0,62}$":       "use 1 to 63 of a-z, 0-9, ., _ and -, beginning with a letter or digit",
	"^[A-Za-z0-9-]{1,100}$":             "use 1 to 100 of A-Z, a-z, 0-9 and -",
	"^https?://[^\\s@?#\\\\]+$":         "want a URL that begins with http:// or https://, without user, query and fragment",
	"^https?://[^\\s<>?#]+$":            "want a URL that begins with http:// or https://, without query and fragment",
	"^(\\*|https?://[^/\\s]+)$":         "want * or an origin such as https://shop.example.com",
	"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$":     "want the name of a header field, such as X-Api-Key",
	"^[^\\x00-\\x08\\x0a-\\x1f\\x7f]*$": "line breaks and control characters cannot be part of a header field",
	"^[^/]*$":                           "slashes cannot be part of a region",
	"^[^/\\s]+$":                        "slashes and spaces cannot be part of a bucket's name",
	"^[^\\s/]*$":                        "spaces and slashes cannot be part of a key id",
	"^[A-Za-z0-9._\\[\\]:-]+$":          "want a host name or address, with a port or without",
	"^[A-Za-z0-9._-]+$":                 "want a host name",
	"^[a-z0-9-]*$":                      "want a region such as eu-central-1",
	"^[a-z0-9]+$":                       "want the name of a storage account: a-z and 0-9",
	"^[a-z0-9$-]+$":                     "want the name of a container: a-z, 0-9, - and $",
	"^[\\x20-\\x7e]*$":                  "want a media type such as image/png, in ASCII",
	"^[\\x21-\\x2b\\x2d-\\x7e]+$":       "a tag is visible ASCII without commas and spaces",
	"^[0-9a-f]{64}$":                    "want a SHA-256 as 64 of 0-9 and a-f",
}

// violationText says what is wrong with a field of m, in words for people who have not read the
// protos.
func violationText(m proto.Message, v *protovalidate.Violation) string {
	switch v.Proto.GetRuleId() {
	case "string.pattern", "string.min_bytes":
		if text, ok := v.FieldValue.Interface().(string); ok && text == "" {
			return "value is required"
		}
		if form, ok := forms[v.RuleValue.String()]; ok {
			return form
		}
	case "repeated.unique":
		return twice(v.FieldValue.List())
	case "repeated.max_items":
		return fmt.Sprintf("at most %s are allowed, and there are %d", v.RuleValue, v.FieldValue.List().Len())
	case "int32.in":
		return "want " + orList(v.RuleValue.List())
	case "enum.not_in": // Only the zero is ever excluded.
		return "value is required"
	case "required":
		if names := choices(m, v); names != "" {
			return "set exactly one of " + names
		}
	}
	text := v.Proto.GetMessage()
	if strings.HasPrefix(v.Proto.GetRuleId(), "duration.") {
		text = inSeconds.ReplaceAllStringFunc(text, func(seconds string) string {
			d, err := duration.Parse(seconds)
			if err != nil {
				return seconds
			}
			return duration.String(d)
		})
	}
	return cmp.Or(text, v.Proto.GetRuleId())
}

// inSeconds is a duration as protovalidate writes it.
var inSeconds = regexp.MustCompile(`\d+(\.\d+)?s\b`)

// twice names what a list has twice.
func twice(list protoreflect.List) string {
	seen := make(map[string]int)
	for i := range list.Len() {
		item := list.Get(i).String()
		if first, ok := seen[item]; ok {
			return fmt.Sprintf("%q is listed twice, as item %d and %d: drop one of the two", item, first+1, i+1)
		}
		seen[item] = i
	}
	return "something is listed twice: drop one of the two"
}

func orList(list protoreflect.List) string {
	var b strings.Builder
	for i := range list.Len() {
		switch {
		case i == 0:
		case i == list.Len()-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(list.Get(i).String())
	}
	return b.String()
}

// choices are the fields of the oneof that a violation is about, empty if it is about a field.
func choices(m proto.Message, v *protovalidate.Violation) string {
	d := m.ProtoReflect().Descriptor()
	path := v.Proto.GetField().GetElements()
	for _, e := range path {
		f := d.Fields().ByName(protoreflect.Name(e.GetFieldName()))
		switch {
		case f != nil && f.IsMap():
			d = f.MapValue().Message()
		case f != nil:
			d = f.Message()
		}
		if d == nil {
			return ""
		}
	}
	oneof := d.Oneofs().ByName(protoreflect.Name(path[len(path)-1].GetFieldName()))
	if oneof == nil {
		return ""
	}
	var names []string
	for i := range oneof.Fields().Len() {
		names = append(names, oneof.Fields().Get(i).JSONName())
	}
	return strings.Join(names, ", ")
}
