package topology

import (
	"path"
	"strings"

	"github.com/edgewalk/edgewalk/internal/contenttype"
)

// DefaultImageFor returns the default image that stands in for a path of the endpoint, nil if none
// does. Unless it is for every path, it is for those that a page may show as a picture, by an
// extension that says so or for want of one: a program that asks for /robots.txt or /app.js is
// better served by a 404.
func (e *Endpoint) DefaultImageFor(filePath string) *DefaultImage {
	image := e.DefaultImage
	if image == nil || !image.ForAll && !looksLikeImage(filePath) {
		return nil
	}
	return image
}

func looksLikeImage(filePath string) bool {
	if extension := path.Ext(filePath); extension == "" || extension == "." {
		return true
	}
	mediaType, _ := contenttype.Of(filePath)
	return strings.HasPrefix(mediaType, "image/")
}
