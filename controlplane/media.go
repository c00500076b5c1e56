package controlplane

import (
	"context"
	"fmt"
	"os"

	"github.com/edgewalk/edgewalk/controlplane/internal/media"
)

// MediaCopied says what [BackupMedia] or [RestoreMedia] has done.
type MediaCopied = media.Copied

// BackupMedia copies into a folder the bytes of the Media Libraries in cfg.MediaURL, by default the
// folder media of cfg.DataDir, that the folder lacks. The folder is a library then: a control plane
// can be started on it. Nothing is deleted there. A control plane may run meanwhile. progress is
// called with the bytes of each file.
func BackupMedia(ctx context.Context, cfg Config, dir string, progress func(bytes int64)) (MediaCopied, error) {
	cfg.setDefaults()
	return copyMedia(ctx, &cfg, cfg.MediaURL, dir, progress)
}

// RestoreMedia copies back into cfg.MediaURL what [BackupMedia] has copied into a folder.
func RestoreMedia(ctx context.Context, cfg Config, dir string, progress func(bytes int64)) (MediaCopied, error) {
	cfg.setDefaults()
	return copyMedia(ctx, &cfg, dir, cfg.MediaURL, progress)
}

func copyMedia(ctx context.Context, cfg *Config, from, to string, progress func(int64)) (done MediaCopied, err error) {
	// Opening makes a folder, which is not to happen where one is read.
	folder, err := media.Folder(from)
	if err != nil {
		return done, fmt.Errorf("read media library: %w", err)
	}
	if folder != "" {
		if _, err := os.Stat(folder); err != nil {
			return done, fmt.Errorf("there is no media library at %s: give the --data-dir or --media-url of the control plane: %w", folder, err)
		}
	}
	open := func(url string) (*media.Library, error) {
		return media.Open(ctx, media.Config{URL: url, Logger: cfg.Logger})
	}
	source, err := open(from)
	if err != nil {
		return done, err
	}
	defer source.Close()
	target, err := open(to)
	if err != nil {
		return done, err
	}
	defer target.Close()
	if done, err = source.CopyTo(ctx, target, progress); err != nil {
		return done, fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return done, nil
}
