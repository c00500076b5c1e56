package kind

import (
	"strings"
	"testing"
)

func FuzzXMLCode(f *testing.F) {
	f.Add([]byte(`<?xml version="1.0"?><Error xmlns="x"><Code> NoSuchKey </Code><Message>&lt;</Message></Error>`))
	f.Add([]byte(`<Error><Code>NoSuchKey</Code>`))
	f.Add([]byte(`<html><Code>NoSuchKey</Code></html>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if code := XMLCode(nil, body); code != "" && (len(code) > 64 || !strings.Contains(string(body), "Error")) {
			t.Errorf("read %q", code)
		}
	})
}
