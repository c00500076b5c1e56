package adminsvc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// lookTimeout bounds how long the answer to a write waits for what to warn of.
const lookTimeout = time.Second

// notLooked replaces the warnings about a write that is done, if they cannot be found out.
func notLooked(err error) string {
	return "nobody could look for what is probably not meant: " + toFailure(err).text
}

// endpointWarnings returns, by the ids of endpoints that a write has made so, or would, what is
// allowed and probably not meant: an identifier that hides a folder of the library, and a default
// image or not-found page that the library does not have, or that is too large. The library is read
// once for all of them.
func (s *Service) endpointWarnings(
	ctx context.Context, account string, out outcome, endpoints ...*topologyv1.UrlEndpoint,
) (map[string][]string, error) {
	var paths, folders []string
	for _, e := range endpoints {
		folders = append(folders, e.GetId()+"/")
		for _, named := range namedFiles(e) {
			paths = append(paths, named.path)
		}
	}
	if len(folders) == 0 {
		return nil, nil
	}
	at := out.at
	if out.draft != nil {
		at = out.draft.state.Revision
	}
	if out.committed {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookTimeout)
		defer cancel()
	}
	records, err := s.store.MediaFiles(ctx, account, paths, folders, at)
	switch {
	case err != nil && out.committed:
		return map[string][]string{endpoints[0].GetId(): {notLooked(err)}}, nil
	case err != nil:
		return nil, err
	}
	shadowed := make(map[string]string)
	for path := range records {
		if folder, _, below := strings.Cut(path, "/"); below && (shadowed[folder] == "" || path < shadowed[folder]) {
			shadowed[folder] = path
		}
	}
	warnings := make(map[string][]string)
	for _, e := range endpoints {
		id := e.GetId()
		if text := rules.ShadowWarning(id, shadowed[id]); text != "" {
			warnings[id] = append(warnings[id], text)
		}
		for _, named := range namedFiles(e) {
			if text := named.warning(records); text != "" {
				warnings[id] = append(warnings[id], text)
			}
		}
	}
	return warnings, nil
}

// namedFile is a file of the library that an endpoint names.
type namedFile struct{ what, path string }

func namedFiles(e *topologyv1.UrlEndpoint) (files []namedFile) {
	for _, f := range []namedFile{
		{"default image", e.GetDefaultImage().GetPath()}, {"not-found page", e.GetNotFoundPage()},
	} {
		if f.path != "" {
			files = append(files, f)
		}
	}
	return files
}

// warning says what keeps edges from serving the file, of some records by path; empty if nothing
// does.
func (f namedFile) warning(records map[string]topology.Record) string {
	record, ok := records[f.path]
	if !ok {
		return fmt.Sprintf("%s %q is not in the Media Library: until it is, the endpoint answers with a plain 404", f.what, f.path)
	}
	stored, err := decode[*topologyv1.MediaFile](record)
	if size := stored.Message.GetSizeBytes(); err == nil && size > topology.MaxNamedFile {
		return fmt.Sprintf("%s %q has %d bytes: edges keep %d at most, and answer with a plain 404 instead", f.what, f.path, size, topology.MaxNamedFile)
	}
	return ""
}
