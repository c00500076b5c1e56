// Package contenttype says what a file is by the extension of its path.
//
// The table is fixed, so that every replica and every edge answers alike; the machines' own tables
// differ. What a caller does about a path of no known suffix is the caller's business.
package contenttype

import (
	"net/http"
	"path"
	"strings"
)

// Of returns the media type for a path, false if its extension stands for none. The extension
// counts in any case of letters.
func Of(filePath string) (mediaType string, ok bool) {
	mediaType, ok = extensions[strings.ToLower(path.Ext(filePath))]
	return mediaType, ok
}

// Kept returns the media type of a file whose bytes are replaced; head is the first 512 of the new
// ones. It is the one that the file has, because somebody may have chosen it, unless the path has
// no known suffix and the bytes are of a known kind: that is what has told it, and tells it again.
func Kept(filePath, was string, head []byte) string {
	said := http.DetectContentType(head)
	if _, ok := Of(filePath); ok || said == "application/octet-stream" || said == "text/plain; charset=utf-8" {
		return was
	}
	return said
}

// extensions follows the IANA registry and, where browsers need another name, the WHATWG.
var extensions = map[string]string{
	".7z":          "application/x-7z-compressed",
	".aac":         "audio/aac",
	".ai":          "application/postscript",
	".apng":        "image/apng",
	".atom":        "application/atom+xml",
	".avi":         "video/x-msvideo",
	".avif":        "image/avif",
	".bin":         "application/octet-stream",
	".bmp":         "image/bmp",
	".bz2":         "application/x-bzip2",
	".css":         "text/css; charset=utf-8",
	".csv":         "text/csv; charset=utf-8",
	".doc":         "application/msword",
	".docx":        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	".eot":         "application/vnd.ms-fontobject",
	".eps":         "application/postscript",
	".epub":        "application/epub+zip",
	".flac":        "audio/flac",
	".gif":         "image/gif",
	".glb":         "model/gltf-binary",
	".gltf":        "model/gltf+json",
	".gz":          "application/gzip",
	".heic":        "image/heic",
	".heif":        "image/heif",
	".htm":         "text/html; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/vnd.microsoft.icon",
	".ics":         "text/calendar; charset=utf-8",
	".jfif":        "image/jpeg",
	".jp2":         "image/jp2",
	".jpeg":        "image/jpeg",
	".jpg":         "image/jpeg",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".jsonld":      "application/ld+json",
	".jxl":         "image/jxl",
	".m3u8":        "application/vnd.apple.mpegurl",
	".m4a":         "audio/mp4",
	".m4s":         "video/iso.segment",
	".m4v":         "video/mp4",
	".map":         "application/json",
	".md":          "text/markdown; charset=utf-8",
	".mid":         "audio/midi",
	".mjs":         "text/javascript; charset=utf-8",
	".mkv":         "video/matroska",
	".mov":         "video/quicktime",
	".mp3":         "audio/mpeg",
	".mp4":         "video/mp4",
	".mpd":         "application/dash+xml",
	".mpeg":        "video/mpeg",
	".mpg":         "video/mpeg",
	".oga":         "audio/ogg",
	".ogg":         "audio/ogg",
	".ogv":         "video/ogg",
	".opus":        "audio/ogg",
	".otf":         "font/otf",
	".pdf":         "application/pdf",
	".png":         "image/png",
	".ppt":         "application/vnd.ms-powerpoint",
	".pptx":        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	".psd":         "image/vnd.adobe.photoshop",
	".rar":         "application/vnd.rar",
	".rss":         "application/rss+xml",
	".rtf":         "application/rtf",
	".svg":         "image/svg+xml",
	".svgz":        "image/svg+xml",
	".tar":         "application/x-tar",
	".tgz":         "application/gzip",
	".tif":         "image/tiff",
	".tiff":        "image/tiff",
	".ts":          "video/mp2t",
	".ttf":         "font/ttf",
	".txt":         "text/plain; charset=utf-8",
	".usdz":        "model/vnd.usdz+zip",
	".vtt":         "text/vtt; charset=utf-8",
	".wasm":        "application/wasm",
	".wav":         "audio/wav",
	".weba":        "audio/webm",
	".webm":        "video/webm",
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".woff":        "font/woff",
	".woff2":       "font/woff2",
	".xls":         "application/vnd.ms-excel",
	".xlsx":        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	".xml":         "application/xml",
	".yaml":        "application/yaml",
	".yml":         "application/yaml",
	".zip":         "application/zip",
	".zst":         "application/zstd",
}
