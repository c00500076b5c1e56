package dashboard

import "html/template"

// icons are drawn for a square of 20, with lines of the text's colour.
var icons = map[string]string{
	"overview":      `<path d="M3 16.5h14M5 13V9m4 4V4m4 9V7m4 6v-2"/>`,
	"url-endpoints": `<path d="M8.5 11.5a3.2 3.2 0 0 0 4.6 0l2.6-2.6a3.25 3.25 0 0 0-4.6-4.6l-1 1M11.5 8.5a3.2 3.2 0 0 0-4.6 0l-2.6 2.6a3.25 3.25 0 0 0 4.6 4.6l1-1"/>`,
	"origins":       `<ellipse cx="10" cy="5" rx="6.5" ry="2.5"/><path d="M3.5 5v10c0 1.4 2.9 2.5 6.5 2.5s6.5-1.1 6.5-2.5V5M3.5 10c0 1.4 2.9 2.5 6.5 2.5s6.5-1.1 6.5-2.5"/>`,
	"domains":       `<circle cx="10" cy="10" r="7"/><path d="M3 10h14M10 3c2 2 2.9 4.400 2.900 7s-.9 5-2.900 7c-2-2-2.900-4.400-2.900-7S8 5 10 3Z"/>`,
	"media":         `<rect x="2.500" y="4" width="15" height="12" rx="2"/><circle cx="7" cy="8" r="1.300"/><path d="m3 14 4-3.500 3 2.500 3.500-4 4 4.500"/>`,
	"explain":       `<circle cx="9" cy="9" r="5.500"/><path d="m13.200 13.200 4 4"/>`,
	"purges":        `<path d="M4 6h12M8 6V4h4v2M5.500 6l.8 10.500h7.400L14.500 6M8.500 9v5m3-5v5"/>`,
	"history":       `<path d="M3.500 10a6.500 6.500 0 1 0 2-4.700L3.500 7.200M3.500 3.500v3.700h3.700M10 6.500V10l2.500 1.700"/>`,
	"access":        `<circle cx="6.500" cy="13.500" r="3"/><path d="m8.700 11.300 7.300-7.300m-2.500 2.500 2.500 2.500m-4.700-.3 1.500 1.500"/>`,
	"fleet":         `<rect x="3" y="3.500" width="14" height="5.500" rx="1.500"/><rect x="3" y="11" width="14" height="5.500" rx="1.500"/><path d="M6 6.200h.01M6 13.800h.01"/>`,
	"accounts":      `<circle cx="10" cy="7" r="3.200"/><path d="M3.800 16.500c.7-3 3.200-4.600 6.200-4.600s5.500 1.600 6.200 4.600"/>`,
	"lock":          `<rect x="4.500" y="9" width="11" height="7.500" rx="1.500"/><path d="M7 9V6.500a3 3 0 0 1 6 0V9"/>`,
	"arrow":         `<path d="M4 10h11m-4-4 4 4-4 4"/>`,
	"up":            `<path d="M10 16V4.500m-4.500 4L10 4l4.500 4.500"/>`,
	"down":          `<path d="M10 4v11.500m-4.500-4L10 16l4.500-4.500"/>`,
	"remove":        `<path d="m5.500 5.500 9 9m0-9-9 9"/>`,
	"grip":          `<path d="M7.500 5h.01M12.500 5h.01M7.500 10h.01M12.500 10h.01M7.500 15h.01M12.500 15h.01"/>`,
	"plus":          `<path d="M10 4v12M4 10h12"/>`,
	"copy":          `<rect x="7" y="7" width="9" height="9" rx="1.500"/><path d="M13 7V5.500A1.500 1.500 0 0 0 11.500 4h-6A1.500 1.500 0 0 0 4 5.500v6A1.500 1.500 0 0 0 5.500 13H7"/>`,
	"check":         `<path d="m4 10.500 4 4 8-9"/>`,
	"warn":          `<path d="M10 3 2.500 16.500h15L10 3Zm0 5.500v3.500m0 2.200v.01"/>`,
	"info":          `<circle cx="10" cy="10" r="7"/><path d="M10 9v4.500m0-7v.01"/>`,
	"folder":        `<path d="M2.500 5.500A1.500 1.500 0 0 1 4 4h3.500L9 6h7a1.500 1.500 0 0 1 1.500 1.500v7A1.500 1.500 0 0 1 16 16H4a1.500 1.500 0 0 1-1.500-1.500v-9Z"/>`,
	"file":          `<path d="M5 3h6.500L15.500 7v8.500A1.500 1.500 0 0 1 14 17H5.500A1.500 1.500 0 0 1 4 15.500V4.500A1.500 1.500 0 0 1 5.500 3Zm6 0v4.500h4"/>`,
	"upload":        `<path d="M10 13V4M6 7.500 10 3.500l4 4M3.500 13v2A1.500 1.500 0 0 0 5 16.500h10a1.500 1.500 0 0 0 1.500-1.500v-2"/>`,
	"terminal":      `<path d="m4 6 4 4-4 4m6 0h6"/>`,
	"out":           `<path d="M8 4H5.500A1.500 1.500 0 0 0 4 5.500v9A1.500 1.500 0 0 0 5.500 16H8m-.5-6H16m-3.500-3.500L16 10l-3.500 3.500"/>`,
	"open":          `<path d="M11 4h5v5m0-5-7 7M8.500 5H5.500A1.500 1.500 0 0 0 4 6.500v8A1.500 1.500 0 0 0 5.500 16h8a1.500 1.500 0 0 0 1.500-1.500v-3"/>`,
	"menu":          `<path d="M3 6h14M3 10h14M3 14h14"/>`,
	"chevron":       `<path d="m6 8 4 4 4-4"/>`,
	"web":           `<circle cx="10" cy="10" r="7"/><path d="M3 10h14M10 3c2 2 3 4.500 3 7s-1 5-3 7c-2-2-3-4.500-3-7s1-5 3-7Z"/>`,
}

// icon is a drawing that means nothing without the words beside it.
func icon(name string) template.HTML {
	//nolint:gosec // our own text
	return template.HTML(`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true">` + icons[name] + `</svg>`)
}
