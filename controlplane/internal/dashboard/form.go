package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/fielddoc"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
)

// form is a message of the API as somebody edits it. Its fields are named as in manifests,
// `s3.accessKeyId`.
type form struct {
	page    *page
	message protoreflect.Message
	// New says that the message is not stored yet.
	New    bool
	stored protoreflect.Message // what is there; nil if New
	secret map[string]string    // secrets given in this form, by field, which are not stored yet
	remove map[string]bool      // secrets to be removed, by field
	errors map[string]string    // by field
	// Problem is what is wrong with the whole.
	Problem string

	requestID string // instead of the one that the form was sent with
}

func newForm(p *page, m proto.Message) *form {
	return &form{
		page: p, message: m.ProtoReflect(), New: true, secret: make(map[string]string), remove: make(map[string]bool),
		errors: make(map[string]string),
	}
}

// field is one field of a form.
type field struct {
	Name, Label, Help, Kind string // Kind: text, pem, number, duration, lines, pairs, check, choice, secret
	Value, Placeholder      string
	Checked, Set            bool // of a secret, Checked: it is to be removed
	Options                 []option
	Error                   string
	ID                      string
}

type option struct {
	Value, Label string
	Selected     bool
}

// labels are of fields whose name alone says too little.
var labels = map[string]string{
	"web.baseUrl": "Base URL", "web.forwardHostHeader": "Forward the client's host",
	"web.tlsServerName": "TLS server name", "web.caPem": "CA certificates (PEM)",
	"web.tlsVerify": "Check the certificate", "web.forwardClientIp": "Forward the client's address",
	"web.htmlIsMissing":    "HTML in place of a picture means missing",
	"web.notFoundStatuses": "Statuses that mean missing", "s3.accessKeyId": "Access key ID",
	"s3.endpoint": "Endpoint URL", "s3.percentEncodeKeys": "Keys are percent-encoded", "gcs.endpoint": "Endpoint URL",
	"azureBlob.sasToken": "SAS token", "azureBlob.endpoint": "Endpoint URL", "akeneo.baseUrl": "Base URL",
	"akeneo.clientId": "Client ID", "baseUrlForCanonicalHeader": "Base URL of the canonical link",
	"includeCanonicalHeader": "Send a canonical link", "displayName": "Name for people", "probeKey": "Probe key",
	"timeouts.connect": "Connect timeout", "timeouts.firstByte": "First byte timeout", "timeouts.idle": "Idle timeout",
	"breaker.failures": "Breaker: failures to open", "breaker.maxOpen": "Breaker: longest pause",
	"breaker.disabled": "Breaker: never opens", "cache.defaultTtl": "Default TTL", "cache.browserTtl": "Browser TTL",
	"cache.negativeTtl": "TTL of “no such file”", "cache.query.mode": "Query in the cache key",
	"cache.query.names": "Query parameters", "cache.honorClientNoCache": "Obey no-cache of clients",
	"cors.allowOrigins": "CORS: allowed origins", "responseHeaders.set": "Response headers to set",
	"responseHeaders.remove": "Response headers to remove", "walkHeader": "Tell clients of the walk",
	"defaultImage.status":    "Status of the default image",
	"defaultImage.onFailure": "Also when origins failed", "defaultImage.for": "Stands in for",
	"notFoundPage": "Not-found page", "onInconclusive": "When an origin does not answer", "mode": "Leads to",
	"urlEndpoint": "URL-endpoint",
}

var documented = sync.OnceValues(func() (protoreflect.FileDescriptor, error) {
	return fielddoc.File(context.Background())
})

// help is what the proto says of a field.
func help(f protoreflect.FieldDescriptor) string {
	return strings.TrimSpace(strings.TrimPrefix(fielddoc.Comment(inFile(f)), "Input only."))
}

// helpOfChoices tells what each choice of a field does, named as the list does.
func helpOfChoices(f protoreflect.FieldDescriptor) (text string) {
	for _, choice := range fielddoc.Choices(inFile(f)) {
		text += " " + word(choice.Name) + ": " + choice.Meaning
	}
	return text
}

// inFile is the field where it has comments, which those that are compiled in have not.
func inFile(f protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	file, err := documented()
	if err != nil {
		return f // Without comments it has no help.
	}
	path := []protoreflect.Name{f.Name()}
	var d protoreflect.Descriptor = f.Parent()
	for ; d != d.ParentFile() && d != nil; d = d.Parent() {
		path = append(path, d.Name())
	}
	slices.Reverse(path)
	m := file.Messages().ByName(path[0])
	for _, name := range path[1 : len(path)-1] {
		m = m.Messages().ByName(name)
	}
	return m.Fields().ByName(path[len(path)-1])
}

// lookup follows a name to its field; owner is a message to read from, which may not be there.
func lookup(m protoreflect.Message, name string) (owner protoreflect.Message, f protoreflect.FieldDescriptor) {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		f = m.Descriptor().Fields().ByJSONName(part)
		if i < len(parts)-1 {
			m = m.Get(f).Message()
		}
	}
	return m, f
}

// flagValue is what --set takes for a field; empty where it has no value.
func flagValue(m protoreflect.Message, name string) string {
	owner, f := lookup(m, name)
	if !owner.Has(f) {
		return ""
	}
	switch v := owner.Get(f); kindOf(f) {
	case "lines":
		var items []string
		for i := range v.List().Len() {
			items = append(items, v.List().Get(i).String())
		}
		return strings.Join(items, ",")
	case "pairs":
		pairs := make(map[string]string)
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			pairs[k.String()] = v.String()
			return true
		})
		text, _ := json.Marshal(pairs) // It always has a JSON form.
		return string(text)
	case "duration":
		return duration.String(v.Message().Interface().(*durationpb.Duration).AsDuration())
	case "choice":
		return string(f.Enum().Values().ByNumber(v.Enum()).Name())
	default:
		return v.String()
	}
}

// mutable is lookup for writing.
func mutable(m protoreflect.Message, name string) (owner protoreflect.Message, f protoreflect.FieldDescriptor) {
	parts := strings.Split(name, ".")
	for i, part := range parts {
		f = m.Descriptor().Fields().ByJSONName(part)
		if i < len(parts)-1 {
			m = m.Mutable(f).Message()
		}
	}
	return m, f
}

// protoPath is the path of a name for a field mask.
func protoPath(m protoreflect.Message, name string) string {
	var path []string
	d := m.Descriptor()
	for part := range strings.SplitSeq(name, ".") {
		f := d.Fields().ByJSONName(part)
		path = append(path, string(f.Name()))
		d = f.Message()
	}
	return strings.Join(path, ".")
}

func isSecret(f protoreflect.FieldDescriptor) bool {
	opts, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && opts.GetDebugRedact()
}

// kindOf is how a field is edited.
func kindOf(f protoreflect.FieldDescriptor) string {
	switch {
	case isSecret(f):
		return "secret"
	case f.IsMap():
		return "pairs"
	case f.IsList():
		return "lines"
	case f.Kind() == protoreflect.BoolKind:
		return "check"
	case f.Enum() != nil:
		return "choice"
	case f.Message() != nil:
		return "duration"
	case strings.HasSuffix(string(f.Name()), "_pem"):
		return "pem"
	case f.Kind() == protoreflect.StringKind:
		return "text"
	default:
		return "number"
	}
}

// onByDefault reports whether a field without a value counts as true.
func onByDefault(f protoreflect.FieldDescriptor) bool {
	return f.HasPresence() && strings.Contains(help(f), "Default: true")
}

// Field is a field as it stands, for templates.
func (f *form) Field(name string) field {
	owner, fd := lookup(f.message, name)
	out := field{
		Name: name, ID: "f-" + strings.ReplaceAll(name, ".", "-"), Label: labelOf(name), Help: help(fd),
		Kind: kindOf(fd), Error: f.errors[name],
	}
	if before, after, ok := strings.Cut(out.Help, "Default "); ok && out.Kind == "duration" {
		out.Placeholder, _, _ = strings.Cut(after, ";")
		_ = before
		out.Placeholder, _, _ = strings.Cut(out.Placeholder, ". ")
	}
	v := owner.Get(fd)
	switch out.Kind {
	case "secret":
		out.Set, out.Checked = f.hasSecret(name), f.remove[name]
	case "check":
		out.Checked = v.Bool() || !owner.Has(fd) && onByDefault(fd)
	case "choice":
		values := fd.Enum().Values()
		for i := 1; i < values.Len(); i++ {
			one := values.Get(i)
			out.Options = append(
				out.Options,
				option{
					string(one.Name()), word(string(one.Name())),
					one.Number() == v.Enum() || v.Enum() == 0 && isDefault(out.Help, one),
				},
			)
		}
		out.Help += helpOfChoices(fd)
	case "duration":
		if d, ok := v.Message().Interface().(*durationpb.Duration); ok && owner.Has(fd) {
			out.Value = duration.String(d.AsDuration())
		}
	case "lines":
		var lines []string
		for i := range v.List().Len() {
			lines = append(lines, v.List().Get(i).String())
		}
		out.Value = strings.Join(lines, "\n")
	case "pairs":
		pairs := make(map[string]string)
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			pairs[k.String()] = v.String()
			return true
		})
		for _, k := range slices.Sorted(maps.Keys(pairs)) {
			out.Value += k + ": " + pairs[k] + "\n"
		}
	case "number":
		if owner.Has(fd) {
			out.Value = v.String()
		}
	default:
		out.Value = v.String()
	}
	return out
}

// isDefault reports whether a field's help calls an enum's value its default.
func isDefault(help string, v protoreflect.EnumValueDescriptor) bool {
	return strings.Contains(help, "Default: "+string(v.Name()))
}

// labelOf is what people read for a field.
func labelOf(name string) string {
	if label := labels[name]; label != "" {
		return label
	}
	name = name[strings.LastIndexByte(name, '.')+1:]
	var b strings.Builder
	for i, r := range name {
		switch {
		case i == 0:
			b.WriteRune(r - 'a' + 'A')
		case 'A' <= r && r <= 'Z':
			b.WriteByte(' ')
			b.WriteRune(r - 'A' + 'a')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// word is an enum's value for people.
func word(name string) string {
	return strings.ToUpper(name[:1]) + strings.ToLower(strings.ReplaceAll(name[1:], "_", " "))
}

// hasSecret reports whether a secret is stored, or was given in this form.
func (f *form) hasSecret(name string) bool {
	if f.secret[name] != "" {
		return true
	}
	if f.stored == nil {
		return false
	}
	set := f.stored.Get(f.stored.Descriptor().Fields().ByName("secrets_set")).List()
	for i := range set.Len() {
		if set.Get(i).String() == name {
			return true
		}
	}
	return false
}

// read takes the fields of a form that was sent. What cannot be read is an error of its field.
func (f *form) read(names ...string) {
	for _, name := range names {
		owner, fd := mutable(f.message, name)
		text := strings.TrimSpace(strings.ReplaceAll(f.page.value(name), "\r\n", "\n"))
		kind := kindOf(fd)
		if kind == "secret" {
			f.remove[name] = slices.Contains(f.page.r.PostForm["remove"], name)
			switch {
			case !f.remove[name] && text == "":
				text = f.secret[name]
			case f.remove[name] && text != "":
				f.errors[name] = "type another, or remove the one that is set: not both"
			}
			f.secret[name] = text
		}
		if err := set(owner, fd, kind, text); err != nil {
			f.errors[name] = err.Error()
		}
	}
}

// set gives a field the value that a text spells.
func set(owner protoreflect.Message, fd protoreflect.FieldDescriptor, kind, text string) error {
	owner.Clear(fd)
	if kind == "check" {
		on := text != ""
		if on != onByDefault(fd) {
			owner.Set(fd, protoreflect.ValueOfBool(on))
		}
		return nil
	}
	if text == "" {
		return nil
	}
	switch kind {
	case "choice":
		v := fd.Enum().Values().ByName(protoreflect.Name(text))
		if v == nil {
			return errors.New("choose one of the list")
		}
		if !isDefault(help(fd), v) {
			owner.Set(fd, protoreflect.ValueOfEnum(v.Number()))
		}
	case "duration":
		d, err := duration.Parse(text)
		if err != nil {
			return err
		}
		owner.Set(fd, protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()))
	case "lines":
		list := owner.Mutable(fd).List()
		for line := range strings.SplitSeq(text, "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			v, err := scalar(fd, line)
			if err != nil {
				return err
			}
			list.Append(v)
		}
	case "pairs":
		pairs := owner.Mutable(fd).Map()
		for line := range strings.SplitSeq(text, "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			k, v, ok := strings.Cut(line, ":")
			if !ok {
				return fmt.Errorf("%q has no colon: write a line for each, such as `X-Robots-Tag: noindex`", line)
			}
			pairs.Set(protoreflect.ValueOfString(strings.TrimSpace(k)).MapKey(),
				protoreflect.ValueOfString(strings.TrimSpace(v)))
		}
	default:
		v, err := scalar(fd, text)
		if err != nil {
			return err
		}
		owner.Set(fd, v)
	}
	return nil
}

func scalar(fd protoreflect.FieldDescriptor, text string) (protoreflect.Value, error) {
	switch fd.Kind() {
	case protoreflect.Int32Kind:
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%q is no number", text)
		}
		return protoreflect.ValueOfInt32(int32(n)), nil
	case protoreflect.Int64Kind:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return protoreflect.Value{}, fmt.Errorf("%q is no number", text)
		}
		return protoreflect.ValueOfInt64(n), nil
	default:
		return protoreflect.ValueOfString(text), nil
	}
}

// This is the form, for templates.
func (f *form) This() *form { return f }

// Errors are what is wrong, by field.
func (f *form) Errors() map[string]string { return f.errors }

// Inputs are what the form holds, to be sent again by another. Buttons are not.
func (f *form) Inputs() (all []option) {
	for _, name := range slices.Sorted(maps.Keys(f.page.r.PostForm)) {
		for _, value := range f.page.r.PostForm[name] {
			if name != "do" && name != "add" && name != "request_id" {
				all = append(all, option{Value: value, Label: name})
			}
		}
	}
	return append(all, option{Value: f.RequestID(), Label: "request_id"})
}

// mask names the fields of a form for an update; a secret only where one was given or is removed.
func (f *form) mask(names ...string) (paths []string) {
	for _, name := range names {
		_, fd := lookup(f.message, name)
		if kindOf(fd) != "secret" || f.secret[name] != "" || f.remove[name] {
			paths = append(paths, protoPath(f.message, name))
		}
	}
	return paths
}

// take takes an error of the API: violations stand at their fields, the rest above the form. It
// reports whether the form can show the error, which it can of what its fields may have caused.
func (f *form) take(err error) bool {
	st := status.Convert(err)
	if code := httpStatus(st.Code()); code != 422 && code != 409 && code != 429 && code != 503 {
		return false
	}
	f.Problem = st.Message()
	for _, detail := range st.Details() {
		bad, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			f.errors[fieldpath.Typed(v.GetField())] = v.GetDescription()
		}
	}
	if st.Code() == 10 { // ABORTED
		f.Problem = "Somebody else has changed this meanwhile. Your input is kept here; open the page again to see theirs."
	}
	if infoOf(st).GetReason() == reused { // somebody went back to the form, and changed it
		f.Problem, f.requestID = sentBefore, newRequestID()
	}
	return true
}

// invalid reports whether the form cannot be sent on.
func (f *form) invalid() bool {
	if len(f.errors) > 0 {
		f.Problem = cmp.Or(f.Problem, "Some fields need another look.")
	}
	return len(f.errors) > 0
}

// sealedFor is how long secrets of a form can be used that has gone back to the browser.
const sealedFor = time.Hour

// sealedSecrets is what Sealed seals.
type sealedSecrets struct {
	For     string // the form's address
	Expires int64
	Values  map[string]string
}

// Sealed holds the secrets that were given in this form, so that they need not be typed again. A
// browser cannot read it.
func (f *form) Sealed() (string, error) {
	values := make(map[string]string)
	for name, value := range f.secret {
		if value != "" {
			values[name] = value
		}
	}
	if len(values) == 0 {
		return "", nil
	}
	return f.page.session.sealText("form",
		sealedSecrets{f.page.r.URL.Path, f.page.d.now().Add(sealedFor).Unix(), values})
}

// unseal takes the secrets of Sealed. What is not ours, or too old, gives none: the API then says
// which are missing.
func (f *form) unseal() {
	var s sealedSecrets
	if f.page.session.openText("form", f.page.value("sealed"), &s) && s.For == f.page.r.URL.Path &&
		f.page.d.now().Unix() < s.Expires {
		maps.Copy(f.secret, s.Values)
	}
}

// Etag is that of what was edited.
func (f *form) Etag() string {
	return f.message.Get(f.message.Descriptor().Fields().ByName("etag")).String()
}

// RequestID makes sending a form twice one change.
func (f *form) RequestID() string {
	return cmp.Or(f.requestID, f.page.r.PostFormValue("request_id"), newRequestID())
}

const (
	// reused is the reason of an error: another request had the id.
	reused = "REQUEST_ID_REUSED"
	// sentBefore says so to people.
	sentBefore = "This form was sent before with other values, and those were taken. Send it again if you want these as well."
)

// query is values as the query of an address.
func query(pairs ...string) string {
	values := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// prune clears messages in which nothing is set, so that a field that was looked at is not a
// change.
func prune(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Message() == nil || f.IsList() || f.IsMap() || !m.Has(f) ||
			f.Message().ParentFile().Package() == "google.protobuf" {
			continue
		}
		prune(m.Mutable(f).Message())
		if f.ContainingOneof() == nil && proto.Size(m.Get(f).Message().Interface()) == 0 {
			m.Clear(f)
		}
	}
}
