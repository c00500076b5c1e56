package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/edgewalk/edgewalk/internal/duration"
	"github.com/edgewalk/edgewalk/internal/fieldpath"
)

const (
	// maxBody bounds the content of a request for a call. It is the admin API's bound of a message.
	maxBody = 4 << 20
	// maxManifest is what a manifest as text may have.
	maxManifest = 3 << 20
)

// asked is what the reply to a request depends on.
type asked struct {
	method    string
	noneMatch string
	// creates says that the call makes a resource, and does not only check.
	creates bool
	// body is what the paths of fields begin with that are in the content: `origin.`, or nothing.
	body string
}

// checked refuses a request for what its method does not have: what the generated code would pass
// over in silence could be a misspelt validateOnly.
func (h *Handler) checked(next runtime.HandlerFunc) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, vars map[string]string) {
		pattern, _ := runtime.HTTPPattern(r.Context())
		b := h.bindings[r.Method+" "+pattern.String()]
		if b == nil {
			h.noRoute(w, r, http.StatusNotFound)
			return
		}
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			writeError(w, r, invalid(reasonInvalid, fault{"", "the query cannot be read: " + err.Error()}))
			return
		}
		if err := b.checkQuery(query); err != nil {
			writeError(w, r, err)
			return
		}
		body, err := b.readBody(w, r)
		if err == nil {
			body, err = b.checkBody(body, vars)
		}
		if err == nil {
			body, err = b.match(r, query, body)
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		only, _ := strconv.ParseBool(query.Get("validateOnly") + query.Get("validate_only"))
		one := &asked{method: r.Method, noneMatch: r.Header.Get("If-None-Match"), creates: b.creates() && !only}
		if b.body != nil {
			one.body = string(b.body.Name()) + "."
		}
		ctx := context.WithValue(r.Context(), requestKey{}, one)
		call := r.WithContext(ctx)
		call.Body, call.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		call.URL = cloneURL(r.URL, query)
		// The gateway would read a form out of the body.
		call.Header = http.Header{"Content-Type": {"application/json"}}
		if values := r.Header.Values("Authorization"); len(values) > 0 {
			call.Header["Authorization"] = values
		}
		wait(w)
		next(w, call, vars)
	}
}

func cloneURL(u *url.URL, query url.Values) *url.URL {
	clone := *u
	clone.RawQuery = query.Encode()
	return &clone
}

// checkQuery returns an error if a parameter is no field that may be one. It writes durations as
// ProtoJSON has them.
func (b *binding) checkQuery(query url.Values) error {
	var unknown, wrong []fault
	for name, values := range query {
		f, text := b.parameter(name)
		if text != "" {
			unknown = append(unknown, fault{name, text})
			continue
		}
		if len(values) > 1 && !f.IsList() && !f.IsMap() {
			wrong = append(wrong, fault{name, fmt.Sprintf("this is given %d times", len(values))})
			continue
		}
		for i, value := range values {
			text := unfit(f, value)
			if isDuration(f) {
				d, err := duration.Parse(value)
				if err != nil {
					text = err.Error()
				}
				values[i] = duration.JSON(d)
			}
			if text != "" {
				wrong = append(wrong, fault{name, text})
			}
		}
	}
	byField := func(x, y fault) int { return strings.Compare(x.field, y.field) }
	switch {
	case len(unknown) > 0:
		slices.SortFunc(unknown, byField)
		return invalid(reasonUnknown, unknown...)
	case len(wrong) > 0:
		slices.SortFunc(wrong, byField)
		return invalid(reasonInvalid, wrong...)
	}
	return nil
}

func isDuration(f protoreflect.FieldDescriptor) bool {
	return f.Message() != nil && f.Message().FullName() == "google.protobuf.Duration"
}

// parameter returns the field that a parameter is, or says what is wrong with its name.
func (b *binding) parameter(name string) (f protoreflect.FieldDescriptor, wrong string) {
	if b.all {
		return nil, "this takes no parameters: fields are in the content, as JSON"
	}
	d := b.method.Input()
	var path []string
	for part := range strings.SplitSeq(name, ".") {
		if d == nil {
			return nil, "there is no such parameter"
		}
		part, _, _ = strings.Cut(part, "[") // the key of a map
		if f = fieldOf(d, part); f == nil {
			return nil, "there is no such parameter" + fieldpath.Hint(part, b.parameters(d)...)
		}
		path = append(path, string(f.Name()))
		if f == b.body {
			return nil, "this is the content of the request, not a parameter"
		}
		if slices.Contains(b.vars, strings.Join(path, ".")) {
			return nil, "this is in the path, not a parameter"
		}
		d = f.Message()
		if f.IsList() || f.IsMap() {
			d = nil
		}
	}
	return f, ""
}

// parameters are the names of the fields of a message that may be parameters.
func (b *binding) parameters(d protoreflect.MessageDescriptor) (names []string) {
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		if f != b.body && !slices.Contains(b.vars, string(f.Name())) {
			names = append(names, f.JSONName())
		}
	}
	return names
}

func fieldOf(d protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if f := d.Fields().ByJSONName(name); f != nil {
		return f
	}
	return d.Fields().ByName(protoreflect.Name(name))
}

// readBody reads the content of a request for a call.
func (b *binding) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if b.hasBody() {
		if err := mustBe(r, "application/json"); err != nil {
			return nil, err
		}
	}
	body, err := readAll(w, r, maxBody)
	switch {
	case err != nil:
		return nil, err
	case !b.hasBody() && len(body) > 0:
		return nil, invalid(reasonUnknown, fault{"", fmt.Sprintf("a %s has no content here: "+
			"its fields are in the path and the query", r.Method)})
	}
	return bytes.TrimSpace(body), nil
}

// mustBe returns an error if the content is said to be of another type. The type that curl
// sets by default counts as none.
func mustBe(r *http.Request, types ...string) error {
	if err := mustBePlain(r); err != nil {
		return err
	}
	given := r.Header.Get("Content-Type")
	media, _, err := mime.ParseMediaType(given)
	if given == "" || err == nil && (slices.Contains(types, media) || media == formType) {
		return nil
	}
	return refused(codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE",
		fmt.Sprintf("Content-Type %q: send %s", given, strings.Join(types, " or ")))
}

// mustBePlain returns an error if the content is said to be encoded (RFC 9110 8.4).
func mustBePlain(r *http.Request) error {
	encoding := r.Header.Get("Content-Encoding")
	if encoding == "" || strings.EqualFold(encoding, "identity") {
		return nil
	}
	return refused(codes.InvalidArgument, "UNSUPPORTED_MEDIA_TYPE",
		fmt.Sprintf("Content-Encoding %q: send the content as it is", encoding))
}

// formType is what browsers' forms send, and what curl says of any content.
const formType = "application/x-www-form-urlencoded"

// readAll reads the content of a request up to a limit.
func readAll(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, refused(codes.ResourceExhausted, reasonTooLarge,
			fmt.Sprintf("the content has more than %d bytes", limit))
	case err != nil:
		return nil, refused(codes.Canceled, "CANCELED", "the content did not come whole")
	}
	return body, nil
}

// checkBody returns an error unless the content is one whole message of its type, about the
// resource that the path names. It returns the content with durations as ProtoJSON has them.
func (b *binding) checkBody(body []byte, vars map[string]string) ([]byte, error) {
	if !b.hasBody() || len(body) == 0 {
		return body, nil
	}
	tree, err := decodeContent(body)
	if err != nil {
		return nil, err
	}
	fields, ok := tree.(map[string]any)
	if !ok {
		return nil, invalid(reasonInvalid, fault{"", "the content is no JSON object, such as {\"displayName\": \"Acme\"}"})
	}
	c := contentCheck{}
	c.message(b.content(), fields, "")
	switch {
	case len(c.unknown) > 0:
		return nil, invalid(reasonUnknown, c.unknown...)
	case len(c.wrong) > 0:
		return nil, invalid(reasonInvalid, c.wrong...)
	}
	if c.changed {
		if body, err = json.Marshal(fields); err != nil {
			return nil, err
		}
	}
	if err := protojson.Unmarshal(body, dynamicpb.NewMessage(b.content())); err != nil {
		return nil, badField(err)
	}
	for path, value := range vars {
		name := path
		if b.body != nil {
			var inside bool
			if name, inside = strings.CutPrefix(path, string(b.body.Name())+"."); !inside {
				continue
			}
		}
		f := b.content().Fields().ByName(protoreflect.Name(name))
		if f == nil {
			continue
		}
		for _, typed := range []string{f.JSONName(), string(f.Name())} {
			if given, ok := fields[typed].(string); ok && given != "" && given != value {
				return nil, invalid(reasonInvalid,
					fault{typed, fmt.Sprintf("the path is about %q: leave this out, or say the same", value)})
			}
		}
	}
	return body, nil
}

// decodeContent decodes JSON, of which all has to be one value whose objects have no name twice:
// which of the two was meant, nobody knows (RFC 8259 4).
func decodeContent(body []byte) (tree any, err error) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&tree); err != nil {
		return nil, badJSON(body, err)
	}
	if rest := bytes.TrimLeft(body[decoder.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return nil, badJSON(body[:len(body)-len(rest)], errors.New("something comes after its end"))
	}
	tokens := json.NewDecoder(bytes.NewReader(body))
	return tree, uniqueNames(tokens, "")
}

// uniqueNames reads a value, which is JSON, and returns an error if an object in it has a name
// twice.
func uniqueNames(tokens *json.Decoder, path string) error {
	token, err := tokens.Token()
	if err != nil {
		return err
	}
	seen := make(map[string]bool)
	for i := 0; (token == json.Delim('{') || token == json.Delim('[')) && tokens.More(); i++ {
		at := path + "[" + strconv.Itoa(i) + "]"
		if token == json.Delim('{') {
			key, err := tokens.Token()
			if err != nil {
				return err
			}
			name := key.(string)
			if at = strings.TrimPrefix(path+"."+name, "."); seen[name] {
				return invalid(reasonInvalid, fault{at, "it is there twice: drop one of the two"})
			}
			seen[name] = true
		}
		if err := uniqueNames(tokens, at); err != nil {
			return err
		}
	}
	if token == json.Delim('{') || token == json.Delim('[') {
		_, err = tokens.Token()
	}
	return err
}

// contentCheck looks at content as JSON, before protojson does.
type contentCheck struct {
	unknown []fault // what no field is there for
	wrong   []fault
	changed bool // a duration was written as ProtoJSON has it
}

func (c *contentCheck) message(d protoreflect.MessageDescriptor, fields map[string]any, path string) {
	chosen := make(map[protoreflect.FullName]string) // of fields that exclude each other
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f, value := fieldOf(d, name), fields[name]
		at := strings.TrimPrefix(path+"."+name, ".")
		if f == nil {
			var known []string
			for i := range d.Fields().Len() {
				known = append(known, d.Fields().Get(i).JSONName())
			}
			c.unknown = append(c.unknown, fault{at, "there is no such field" + fieldpath.Hint(name, known...)})
			continue
		}
		if value == nil {
			continue
		}
		if one := f.ContainingOneof(); one != nil {
			if other := chosen[one.FullName()]; other != "" {
				c.wrong = append(c.wrong,
					fault{at, fmt.Sprintf("%s and %s exclude each other: drop one of the two", other, name)})
			}
			chosen[one.FullName()] = name
		}
		switch {
		case f.IsMap():
			inner, ok := value.(map[string]any)
			if !ok {
				c.wrong = append(c.wrong, fault{at, "want an object, such as {\"name\": \"value\"}"})
			}
			for key, one := range inner {
				inner[key] = c.single(f.MapValue(), one, at+"["+strconv.Quote(key)+"]")
			}
		case f.IsList():
			list, ok := value.([]any)
			if !ok {
				c.wrong = append(c.wrong, fault{at, "want a list, in brackets"})
			}
			for i, one := range list {
				list[i] = c.single(f, one, at+"["+strconv.Itoa(i)+"]")
			}
		default:
			fields[name] = c.single(f, value, at)
		}
	}
}

// single looks at a value of a field, and returns it as ProtoJSON has it.
func (c *contentCheck) single(f protoreflect.FieldDescriptor, value any, at string) any {
	switch {
	case f.Message() == nil:
		if text := unfit(f, value); text != "" {
			c.wrong = append(c.wrong, fault{at, text})
		}
	case isDuration(f):
		if text, ok := value.(string); ok {
			return c.duration(text, at)
		}
	case f.Message().ParentFile().Package() == "google.protobuf":
	default:
		inner, ok := value.(map[string]any)
		if !ok {
			c.wrong = append(c.wrong, fault{at, "want an object, in braces"})
		}
		c.message(f.Message(), inner, at)
	}
	return value
}

// unfit says why a value cannot be that of a field, empty if it may. Parameters are texts, as
// numbers in JSON may be.
func unfit(f protoreflect.FieldDescriptor, value any) string {
	text, isText := value.(string)
	number, isNumber := value.(json.Number)
	switch kind := f.Kind(); kind {
	case protoreflect.StringKind, protoreflect.BytesKind:
		if !isText {
			return "want a text, in quotes"
		}
	case protoreflect.BoolKind:
		if _, ok := value.(bool); ok {
			break
		}
		if _, err := strconv.ParseBool(text); err != nil {
			return "want true or false"
		}
	case protoreflect.EnumKind:
		var known []string
		for i := range f.Enum().Values().Len() {
			known = append(known, string(f.Enum().Values().Get(i).Name()))
		}
		if _, err := strconv.Atoi(text + number.String()); err != nil && !slices.Contains(known, text) {
			if len(known) > 1 {
				known = known[1:] // The first is what is not specified.
			}
			return "want one of " + strings.Join(known, ", ")
		}
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		if !isText && !isNumber {
			return "want a whole number"
		}
		bits := map[protoreflect.Kind]int{protoreflect.Int32Kind: 32, protoreflect.Int64Kind: 64}[kind]
		_, err := strconv.ParseInt(text+number.String(), 10, bits)
		if errors.Is(err, strconv.ErrRange) {
			return fmt.Sprintf("%s is more than %d bits have", text+number.String(), bits)
		}
		if err != nil { // ProtoJSON takes 1e3 and 2.0.
			float, err := strconv.ParseFloat(text+number.String(), 64)
			if err != nil || float != math.Trunc(float) {
				return "want a whole number"
			}
		}
	}
	return ""
}

func (c *contentCheck) duration(text, at string) string {
	d, err := duration.Parse(text)
	if err != nil {
		c.wrong = append(c.wrong, fault{at, err.Error()})
	}
	as := duration.JSON(d)
	c.changed = c.changed || as != text
	return as
}

// badJSON says where a text stops being JSON.
func badJSON(body []byte, err error) error {
	at := len(body)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		at = int(syntax.Offset)
	}
	before := body[:min(at, len(body))]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n') - 1
	return invalid(reasonInvalid,
		fault{"", fmt.Sprintf("line %d, column %d: this is no JSON: %v", line, max(column, 1), err)})
}

// badField says which value does not fit its field.
func badField(err error) error {
	// The library varies its spaces on purpose
	// (https://pkg.go.dev/google.golang.org/protobuf/encoding/protojson).
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	text = strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
	field := ""
	if _, after, ok := strings.Cut(text, " field "); ok {
		field, _, _ = strings.Cut(after, ":")
	}
	return invalid(reasonInvalid, fault{strings.Trim(field, `"`), text})
}

// match has the call check the etag of If-Match (RFC 9110 13.1.1), as a field of the request.
func (b *binding) match(r *http.Request, query url.Values, body []byte) ([]byte, error) {
	etag, given, err := ifMatch(r, b.creates())
	if err != nil || !given || r.Method == http.MethodGet {
		return body, err
	}
	d := b.method.Input()
	if b.hasBody() {
		d = b.content()
	}
	if d.Fields().ByName("etag") == nil {
		return nil, invalid(reasonInvalid, fault{"", "If-Match has no meaning here: what this is about has no etag"})
	}
	if !b.hasBody() {
		if old := query.Get("etag"); old != "" && old != etag {
			return nil, invalid(reasonInvalid, fault{"etag", "If-Match has another one"})
		}
		query.Set("etag", etag)
		return body, nil
	}
	var fields map[string]json.RawMessage
	if len(body) > 0 {
		if err := json.Unmarshal(body, &fields); err != nil {
			return nil, badJSON(body, err)
		}
	}
	text, err := json.Marshal(etag)
	if err != nil {
		return nil, err
	}
	if old, ok := fields["etag"]; ok {
		if !bytes.Equal(old, text) {
			return nil, invalid(reasonInvalid, fault{"etag", "If-Match has another one"})
		}
		return body, nil
	}
	if fields == nil {
		fields = make(map[string]json.RawMessage)
	}
	fields["etag"] = text
	return json.Marshal(fields)
}

// ifMatch returns the etag that the resource must have, if the request says that it must. That it
// must be there, whatever its etag, goes without saying for a request that creates nothing; the
// calls of others cannot ask for it.
func ifMatch(r *http.Request, creates bool) (etag string, given bool, err error) {
	values := r.Header.Values("If-Match")
	switch any := len(values) == 1 && strings.TrimSpace(values[0]) == "*"; {
	case any && creates:
		return "", false, invalid(reasonInvalid, fault{"", "If-Match: * cannot be had here: give the etag of what is there"})
	case any, len(values) == 0:
		return "", false, nil
	}
	etag = strings.TrimSpace(values[0])
	if len(values) > 1 || len(etag) < 2 || !strings.HasPrefix(etag, `"`) || !strings.HasSuffix(etag, `"`) ||
		strings.Contains(etag[1:len(etag)-1], `"`) {
		return "", false, invalid(reasonInvalid, fault{"", `If-Match: want one etag with its quotes, as the ETag of a reply has it, such as "42"`})
	}
	return etag, true, nil
}

// noneMatch reports whether If-None-Match has an etag, so that there is nothing new (RFC 9110
// 13.1.2).
func noneMatch(field, etag string) bool {
	for one := range strings.SplitSeq(field, ",") {
		one = strings.TrimSpace(one)
		if one == "*" || strings.TrimPrefix(one, "W/") == etag {
			return true
		}
	}
	return false
}
