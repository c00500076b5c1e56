// Package defaultimage keeps the default images of endpoints, and their not-found pages, ahead of
// the requests that need them, because what stands in for a missing file has to be there when
// nothing else is.
//
// It owns one folder of whole, verified files and the knowledge of which of them are in use. When
// an image is sent is httpcache's business.
//
// What always holds: an image that an endpoint names, and the Media Library has, is fetched without
// waiting for a request and kept while it is in use, unless it is larger than 1 MiB or finds no
// room; a file is its bytes' SHA-256 or it is not there; what cannot be fetched is tried again.
package defaultimage

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Config of a keeper.
type Config struct {
	// Dir is the folder, made if it is missing. Required.
	Dir string
	// Walker asks the Media Library. Required.
	Walker *walk.Walker
	// MaxBytes bounds the folder; the files that are being fetched come on top. Default 128 MiB.
	MaxBytes int64
	// Occupy is called with the number of bytes by which the folder grows, negative if it shrinks.
	// Optional.
	Occupy func(bytes int64)
	Logger *slog.Logger
}

const defaultMaxBytes = 128 << 20

// Why a file is not kept. It is not asked for again while that reason holds.
var (
	errTooLarge = errors.New("it is larger than 1 MiB")
	errNoRoom   = errors.New("there is no more room, for which --cache-size has to be raised")
)

// prefix is the start of a file's SHA-256, as the account's media set has it.
type prefix = [8]byte

// Keeper keeps images.
type Keeper struct {
	cfg  Config
	wake chan struct{} // Holds one token when there is work.

	mu sync.RWMutex
	// root is the newest topology, by which images are asked for.
	root *route.Root
	// used holds what each account's endpoints name, and uids the uid of each account in it.
	used map[string]map[string]prefix
	uids map[string]string
	// uses holds, per file, where it can be asked for.
	uses map[prefix]map[source]struct{}
	kept map[prefix]*httpcache.Image
	// wanted holds what is in uses and not in kept. Its channel is closed once the file was asked
	// for, or is not wanted any more.
	wanted map[prefix]chan struct{}
	// refused holds what is in uses and is not kept, and why.
	refused map[prefix]error
	// bytes are those of kept.
	bytes int64
	// soon says that something changed for a file in wanted, so that it is asked for at once.
	soon bool
	// running and swept say that Run has begun, and that what earlier runs of the agent left unused
	// is gone.
	running, swept bool
}

// source is the path of an account's Media Library, by the account's id.
type source struct{ account, path string }

// New reads what the folder holds. A folder that cannot be read or written is no error: what there
// is of it is used, and the rest is fetched again.
func New(cfg Config) *Keeper {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	k := &Keeper{
		cfg: cfg, wake: make(chan struct{}, 1), used: map[string]map[string]prefix{}, uids: map[string]string{},
		uses: map[prefix]map[source]struct{}{}, wanted: map[prefix]chan struct{}{}, kept: map[prefix]*httpcache.Image{},
		refused: map[prefix]error{},
	}
	found, err := readFolder(cfg.Dir)
	if err != nil {
		cfg.Logger.Error("the folder of default images cannot be read or written", "dir", cfg.Dir, "err", err)
	}
	for sha, image := range found {
		if k.bytes+image.Length > k.cfg.MaxBytes { // it was larger
			removeFile(cfg.Dir, image, cfg.Logger)
			continue
		}
		k.hold(sha, image)
	}
	return k
}

// hold adds a file.
func (k *Keeper) hold(sha prefix, image *httpcache.Image) {
	k.kept[sha] = k.watch(sha, image)
	k.grow(image.Length)
}

// release is the reverse of hold. Files that found no room may find it now.
func (k *Keeper) release(sha prefix) {
	k.grow(-k.kept[sha].Length)
	delete(k.kept, sha)
	for other, why := range k.refused {
		if why == errNoRoom {
			delete(k.refused, other)
			k.want(other)
		}
	}
}

func (k *Keeper) grow(n int64) {
	k.bytes += n
	if k.cfg.Occupy != nil {
		k.cfg.Occupy(n)
	}
}

// lookupWait bounds how long a request waits for an image that was named a moment ago and is being
// fetched. So a request right after the change gets the image, and none waits when the control
// plane is gone.
const lookupWait = 2 * time.Second

// Lookup returns the image at a path of an account's Media Library, if it is kept. It waits for one
// that was not asked for yet.
func (k *Keeper) Lookup(accountUID, path string) (*httpcache.Image, bool) {
	image, coming := k.find(accountUID, trimSlash(path))
	if coming == nil {
		return image, image != nil
	}
	select {
	case <-coming:
	case <-time.After(lookupWait):
	}
	image, _ = k.find(accountUID, trimSlash(path))
	return image, image != nil
}

// find returns an image that is kept, or a channel that is closed once it was asked for.
func (k *Keeper) find(accountUID, path string) (*httpcache.Image, <-chan struct{}) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	sha, ok := k.used[accountUID][path]
	if !ok {
		return nil, nil
	}
	if image := k.kept[sha]; image != nil || !k.running {
		return image, nil
	}
	return nil, k.wanted[sha]
}

// want records that a file has to be fetched.
func (k *Keeper) want(sha prefix) {
	k.soon = true
	if k.wanted[sha] == nil {
		k.wanted[sha] = make(chan struct{})
	}
}

// asked wakes the requests that wait for a file.
func (k *Keeper) asked(sha prefix) {
	done := k.wanted[sha]
	if done == nil {
		return
	}
	select {
	case <-done:
	default:
		close(done)
	}
}

// watch returns the image with an Open that reports a file that cannot be opened.
func (k *Keeper) watch(sha prefix, image *httpcache.Image) *httpcache.Image {
	open := image.Open
	image.Open = func() (io.ReadCloser, error) {
		body, err := open()
		if err != nil {
			k.lost(sha, image, err)
		}
		return body, err
	}
	return image
}

// lost makes Run fetch an image again whose file can no longer be read.
func (k *Keeper) lost(sha prefix, image *httpcache.Image, err error) {
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return // The fault is in this process, and not in the file.
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[sha] != image {
		return
	}
	k.cfg.Logger.Warn("default image is lost and fetched again", "sha256", image.SHA256, "err", err)
	k.release(sha)
	if len(k.uses[sha]) > 0 {
		k.want(sha)
	}
	k.signal()
}

// signal wakes Run, because there is work.
func (k *Keeper) signal() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Apply records which accounts have changed. It returns at once; Run fetches.
func (k *Keeper) Apply(root *route.Root, touched []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.root = root
	left := map[prefix]struct{}{}
	for _, id := range touched {
		k.forget(id, left)
		if a := root.Account(id); a != nil && !a.Deleting {
			k.take(a)
		}
	}
	k.dropUnused(maps.Keys(left))
	k.sweep()
	// Steps about other accounts come all the time, and do not make what failed likelier to work.
	if k.soon {
		k.soon = false
		k.signal()
	}
}

// sweep removes what earlier runs of the agent left and nobody uses. Before Run begins, the
// topology may be an old one whose later changes are still being read from disk: an image that only
// they name is in use.
func (k *Keeper) sweep() {
	if k.swept || !k.running || k.root == nil {
		return
	}
	k.swept = true
	k.dropUnused(maps.Keys(maps.Clone(k.kept)))
}

// take records what an account's endpoints name and its Media Library has.
func (k *Keeper) take(a *topology.Account) {
	images := map[string]prefix{}
	for path := range a.Named() {
		sha, ok := a.Media.Lookup(path)
		if !ok {
			continue
		}
		images[path] = sha
		if k.uses[sha] == nil {
			k.uses[sha] = map[source]struct{}{}
		}
		k.uses[sha][source{a.ID, path}] = struct{}{}
		if k.kept[sha] == nil && k.refused[sha] == nil {
			k.want(sha)
		}
	}
	if len(images) > 0 {
		k.used[a.UID], k.uids[a.ID] = images, a.UID
	}
}

// forget removes what take recorded for an account, and adds its files to left.
func (k *Keeper) forget(id string, left map[prefix]struct{}) {
	uid := k.uids[id]
	for path, sha := range k.used[uid] {
		delete(k.uses[sha], source{id, path})
		left[sha] = struct{}{}
	}
	delete(k.used, uid)
	delete(k.uids, id)
}

// dropUnused removes the files that no account names any more.
func (k *Keeper) dropUnused(files iter.Seq[prefix]) {
	for sha := range files {
		if len(k.uses[sha]) > 0 {
			continue
		}
		delete(k.uses, sha)
		k.asked(sha)
		delete(k.wanted, sha)
		delete(k.refused, sha)
		if image := k.kept[sha]; image != nil {
			k.release(sha)
			removeFile(k.cfg.Dir, image, k.cfg.Logger)
		}
	}
}

// trimSlash returns a path in the form of the Media Library.
func trimSlash(path string) string { return strings.TrimPrefix(path, "/") }

// maxFetches are under way at a time.
const maxFetches = 4

// Retries of images that could not be fetched begin with the first delay and grow to the last.
const (
	firstDelay = time.Second
	lastDelay  = time.Minute
)

// Run fetches what is wanted until ctx ends. It is called once the topology on disk has been
// applied.
func (k *Keeper) Run(ctx context.Context) error {
	k.mu.Lock()
	k.running = true
	k.sweep()
	k.mu.Unlock()
	delay := firstDelay
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
			delay = firstDelay
		case <-timer.C:
		}
		if k.fetchAll(ctx) {
			delay = firstDelay
			continue
		}
		timer.Reset(delay)
		delay = min(2*delay, lastDelay)
	}
}

// fetchAll tries once for each wanted image, and reports whether none is left.
func (k *Keeper) fetchAll(ctx context.Context) bool {
	k.mu.RLock()
	jobs := make(map[prefix]source, len(k.wanted))
	for sha := range k.wanted {
		for from := range k.uses[sha] {
			jobs[sha] = from
			break
		}
	}
	root := k.root
	k.mu.RUnlock()
	var fetches errgroup.Group
	fetches.SetLimit(maxFetches)
	for sha, from := range jobs {
		fetches.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			image, err := k.fetch(ctx, root, sha, from)
			err = k.keep(sha, image, err)
			switch {
			case err == errTooLarge, err == errNoRoom:
				k.cfg.Logger.Warn("default image is not kept", "account", from.account, "path", from.path, "err", err)
				return nil
			case err != nil:
				k.cfg.Logger.Warn("default image cannot be fetched; trying again", "account", from.account, "path",
					from.path, "err", err)
			}
			return err
		})
	}
	return fetches.Wait() == nil
}

// keep adds a fetched file, unless it is no longer wanted. err is why it could not be fetched; the
// returned error is why it is not kept.
func (k *Keeper) keep(sha prefix, image *httpcache.Image, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked(sha)
	_, wanted := k.wanted[sha]
	if err == nil && wanted && k.bytes+image.Length > k.cfg.MaxBytes {
		err = errNoRoom
	}
	if image != nil && (err != nil || !wanted) {
		removeFile(k.cfg.Dir, image, k.cfg.Logger)
	}
	switch {
	case !wanted:
		return nil
	case err == errTooLarge, err == errNoRoom:
		delete(k.wanted, sha)
		k.refused[sha] = err
	case err == nil:
		delete(k.wanted, sha)
		k.hold(sha, image)
	}
	return err
}

// Refused says why the image at a path of an account's Media Library is not kept, "" if it is or
// will be.
func (k *Keeper) Refused(accountUID, path string) string {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if why := k.refused[k.used[accountUID][trimSlash(path)]]; why != nil {
		return why.Error()
	}
	return ""
}

// fetch asks the Media Library for one file.
func (k *Keeper) fetch(ctx context.Context, root *route.Root, sha prefix, from source) (*httpcache.Image, error) {
	a := root.Account(from.account)
	if a == nil || a.Default() == nil {
		return nil, errors.New("the account is gone")
	}
	request := &walk.Request{
		Target: topology.Target{
			Account: a, Endpoint: a.Default(), Path: "/" + from.path, Object: from.path, ObjectOK: true,
		},
		Revision: root.Revision(),
	}
	result := k.cfg.Walker.From(ctx, request, walk.Supplier{UID: walk.LibraryUID}, walk.Conditions{})
	if result.Kind != walk.Found {
		detail := "the Media Library does not have it"
		if n := len(result.Steps); n > 0 {
			detail = result.Steps[n-1].Detail
		}
		return nil, errors.New(detail)
	}
	defer result.Response.Body.Close()
	if result.Response.Length > topology.MaxNamedFile {
		return nil, errTooLarge
	}
	return writeFile(k.cfg.Dir, sha, result.Response.Header.Get("Content-Type"), result.Response.Body)
}

// Missing returns how many images are wanted and not kept.
func (k *Keeper) Missing() int {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return len(k.wanted)
}

func hexPrefix(sha prefix) string { return hex.EncodeToString(sha[:]) }
