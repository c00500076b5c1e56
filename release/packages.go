package main

import (
	"io"
	"io/fs"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

const description = `Self-hosted URL-endpoints
Stable URLs behind which an edge looks for a file in a media library and then in
one storage after the other, and keeps what it found on disk.`

// packages writes a .deb and an .rpm. They install the program, its manuals and units, and start
// nothing: what a machine is to be stands in /etc/edgewalk first.
func (r *release) packages(b build, manuals []string) error {
	for _, format := range []string{"deb", "rpm"} {
		step("%s for %s", format, b.platform)
		info := nfpm.WithDefaults(&nfpm.Info{
			Name: "edgewalk", Platform: b.os, Arch: b.arch, Version: r.version, Release: "1", MTime: r.date,
			Section: "net", Priority: "optional", License: "Apache-2.0",
			Maintainer: "The edgewalk authors <edgewalk@example.com>", Vendor: "edgewalk",
			Homepage:    "https://github.com/edgewalk/edgewalk",
			Description: description,
			Overridables: nfpm.Overridables{
				Contents: r.contents(b, manuals),
				RPM:      nfpm.RPM{BuildHost: "localhost", Group: "System Environment/Daemons"},
				Scripts: nfpm.Scripts{
					PostInstall: filepath.Join(r.root, "deploy/package/postinstall.sh"),
					PreRemove:   filepath.Join(r.root, "deploy/package/preremove.sh"),
					PostRemove:  filepath.Join(r.root, "deploy/package/postremove.sh"),
				},
			},
		})
		packager, err := nfpm.Get(format)
		if err != nil {
			return err
		}
		if err := nfpm.PrepareForPackager(info, format); err != nil {
			return err
		}
		err = writeFile(filepath.Join(r.out, packager.ConventionalFileName(info)),
			func(w io.Writer) error { return packager.Package(info, w) })
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *release) contents(b build, manuals []string) files.Contents {
	at := func(source, destination, kind string, mode fs.FileMode) *files.Content {
		if !filepath.IsAbs(source) {
			source = filepath.Join(r.root, source)
		}
		info := &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: r.date}
		return &files.Content{Source: source, Destination: destination, Type: kind, FileInfo: info}
	}
	content := files.Contents{
		at(b.path, "/usr/bin/edgewalk", files.TypeFile, 0o755),
		{
			Destination: "/etc/edgewalk", Type: files.TypeDir,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: 0o755, MTime: r.date},
		},
		at("deploy/etc/edgeagent.env", "/etc/edgewalk/edgeagent.env", files.TypeConfigNoReplace, 0o644),
		at("deploy/etc/controlplane.env", "/etc/edgewalk/controlplane.env", files.TypeConfigNoReplace, 0o644),
		at("LICENSE", "/usr/share/doc/edgewalk/copyright", files.TypeFile, 0o644),
		at("README.md", "/usr/share/doc/edgewalk/README.md", files.TypeFile, 0o644),
	}
	for _, unit := range []string{
		"edgewalk-controlplane.service", "edgewalk-edgeagent.service", "edgewalk-edgeagent.socket",
		"edgewalk-edgeagent-tls.socket",
	} {
		content = append(content, at("deploy/systemd/"+unit, "/usr/lib/systemd/system/"+unit, files.TypeFile, 0o644))
	}
	for _, page := range manuals {
		content = append(content, at(page, "/usr/share/man/man1/"+filepath.Base(page), files.TypeFile, 0o644))
	}
	return content
}
