#!/usr/bin/env bash
# Generates the Go beside each .proto, or with --check says whether what is
# there is what would be generated. Everything is made in a temporary folder
# first: a proto that does not compile leaves the tree as it was, and a .proto
# that is gone takes its generated Go with it.
set -euo pipefail
cd "$(dirname "$0")/.."

tool() { go tool -modfile=tools/go.mod "$@"; }

# The protos that are not ours come from the module cache, not from a
# registry, at the versions tools/go.mod pins. buf.yaml lists their folder.
fetch() { # MODULE FOLDER FILE...
	local module=$1 folder=$2 dir file
	shift 2
	go mod download -modfile=tools/go.mod "$module"
	dir=$(go list -m -modfile=tools/go.mod -f '{{.Dir}}' "$module")
	for file; do
		mkdir -p ".buf/$(dirname "$file")"
		install -m 644 "$dir/$folder/$file" ".buf/$file"
	done
}

# generated DIR: the paths of the generated files under DIR, NUL-terminated.
generated() { (cd "$1" && find proto -name '*.pb.go' -print0 -o -name '*.pb.gw.go' -print0); }

# refine DIR: the description of the REST API in DIR, of what buf has made of the protos, by
# the Go that has been generated.
refine() { go run ./api/refine "$1" <"$tmp/want/raw/openapi.yaml"; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/want/proto" "$tmp/want/api" "$tmp/have/proto"

fetch github.com/bufbuild/protovalidate proto/protovalidate buf/validate/validate.proto
fetch github.com/google/gnostic cmd/protoc-gen-openapi/examples google/api/annotations.proto google/api/http.proto
case "${1-}" in
--deps-only) ;;
--check)
	tool buf generate -o "$tmp/want"
	generated . | tar -cf - --null -T - | tar -xf - -C "$tmp/have"
	refine "$tmp/want/api"
	if ! (cd "$tmp" && diff -ru have/proto want/proto) || ! diff -u api/openapi.yaml "$tmp/want/api/openapi.yaml" ||
		! diff -u api/reference.html "$tmp/want/api/reference.html"; then
		echo "generated code is stale: run make generate" >&2
		exit 1
	fi
	;;
"")
	tool buf generate -o "$tmp/want"
	generated . | xargs -0 rm -f
	cp -R "$tmp/want/proto/." proto/
	refine api
	;;
*)
	echo "usage: tools/generate.sh [--check | --deps-only]" >&2
	exit 2
	;;
esac
