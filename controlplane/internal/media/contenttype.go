package media

import (
	"net/http"

	"github.com/edgewalk/edgewalk/internal/contenttype"
)

// ContentType says what a file is: by the extension of its path, else by its first bytes.
func ContentType(filePath string, head []byte) string {
	if t, ok := contenttype.Of(filePath); ok {
		return t
	}
	return http.DetectContentType(head)
}
