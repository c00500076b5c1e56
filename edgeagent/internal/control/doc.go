// Package control keeps an edge's topology in step with a control plane's: it is the client of
// EdgeService.Sync, and it keeps the last good state on disk.
//
// It owns the stream and the order in which steps are applied; the state folder is state's. What a
// step means is route's business; what is purged, cached or asked of origins is nobody's here.
//
// What always holds: a step is applied whole or not at all; the position only goes on along the
// control plane's own chain of revisions, or is replaced by a full state whose digest was checked;
// a step is acknowledged as applied only once it is in route and written to the journal, so that
// kill -9 never undoes an acknowledged step; it is acknowledged as persisted only once it is
// fsynced. What is on disk is never needed: an agent whose folder was deleted or damaged asks for a
// full state.
package control
