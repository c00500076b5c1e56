package topology

import (
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestDefaultImageIsForWhatLooksLikeAnImage(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{
		"/a.jpg": true, "/a.JPEG": true, "/a/b.c/d.webp": true, "/a.svg": true, "/favicon.ico": true, "/a": true,
		"/a.b/c": true, "/a.": true, "/": true, "": true, "/robots.txt": false, "/app.js": false, "/index.html": false,
		"/a.json": false, "/v.mp4": false, "/a.jpg.txt": false, "/.htaccess": false, "/a.woff2": false,
		"/a.unknown": false,
	} {
		for _, tt := range []struct {
			name  string
			image *topologyv1.DefaultImage
			want  bool
		}{
			{"unset", &topologyv1.DefaultImage{Path: "x.png"}, want},
			{"IMAGES", &topologyv1.DefaultImage{Path: "x.png", For: topologyv1.DefaultImage_IMAGES}, want},
			{"ALL", &topologyv1.DefaultImage{Path: "x.png", For: topologyv1.DefaultImage_ALL}, true},
			{"no image", nil, false},
		} {
			e := &Endpoint{DefaultImage: compileDefaultImage(tt.image)}
			if got := e.DefaultImageFor(path) != nil; got != tt.want {
				t.Errorf("%s, %s: stands in %v, want %v", tt.name, path, got, tt.want)
			}
		}
	}
}
