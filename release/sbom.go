package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// sbom writes what the binary itself says that it was made from, in CycloneDX 1.6.
func (r *release) sbom(b build, _ []string) error {
	step("list what is in %s", b.platform)
	info, err := buildinfo.ReadFile(b.path)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(b.path)
	if err != nil {
		return err
	}
	bom := cdx.NewBOM()
	bom.SpecVersion, bom.JSONSchema = cdx.SpecVersion1_6, "http://cyclonedx.org/schema/bom-1.6.schema.json"
	sum := sha256.Sum256(text)
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.date.Format(time.RFC3339),
		Component: &cdx.Component{
			BOMRef: "edgewalk", Type: cdx.ComponentTypeApplication, Name: "edgewalk", Version: r.version,
			PackageURL: "pkg:golang/github.com/edgewalk/edgewalk@" + r.version,
			Licenses:   &cdx.Licenses{{License: &cdx.License{ID: "Apache-2.0"}}},
			Hashes:     &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
			Properties: &[]cdx.Property{
				{Name: "commit", Value: r.commit},
				{Name: "platform", Value: b.String()},
				{Name: "go", Value: info.GoVersion},
			},
		},
	}
	components := []cdx.Component{{
		BOMRef: "std", Type: cdx.ComponentTypeLibrary, Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go"),
		PackageURL: "pkg:golang/std@" + strings.TrimPrefix(info.GoVersion, "go"),
	}}
	refs := []string{"std"}
	for _, module := range info.Deps {
		c, err := component(module)
		if err != nil {
			return err
		}
		components, refs = append(components, c), append(refs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: "edgewalk", Dependencies: &refs}}
	return writeFile(r.name(b.platform, ".cdx.json"), func(w io.Writer) error {
		return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	})
}

// component is one module. Its hash is that of go.sum, which is a SHA-256.
func component(module *debug.Module) (cdx.Component, error) {
	if module.Replace != nil {
		module = module.Replace
	}
	purl := "pkg:golang/" + module.Path + "@" + module.Version
	c := cdx.Component{
		BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: module.Path, Version: module.Version, PackageURL: purl,
	}
	sum, ok := strings.CutPrefix(module.Sum, "h1:")
	if !ok {
		return c, fmt.Errorf("module %s has no checksum", module.Path)
	}
	raw, err := base64.StdEncoding.DecodeString(sum)
	if err != nil {
		return c, fmt.Errorf("checksum of %s: %w", module.Path, err)
	}
	c.Properties = &[]cdx.Property{{Name: "go.sum h1", Value: hex.EncodeToString(raw)}}
	return c, nil
}
