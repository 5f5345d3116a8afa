#!/usr/bin/env bash
# tiny-image.sh [--add NAME=FILE]... NAME:TAG PROGRAM [ARGUMENT...]: writes, to standard output, an image archive that
# holds one static program (and those added) and runs it with these arguments, as user 65532.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/root/tmp" "$work/image"
chmod 1777 "$work/root/tmp"
while [[ $1 == --add ]]; do
  install -D -m 755 "${2#*=}" "$work/root/${2%%=*}"
  shift 2
done
image=$1 program=$2
shift 2

# Same input, same bytes: an image that did not change keeps its identity.
pack() { tar --create --numeric-owner --owner=0 --group=0 --mtime=@0 --sort=name --directory "$1" .; }
strings() { local list; list=$(printf ',"%s"' "$@"); printf '[%s]' "${list:1}"; }

install -m 755 "$program" "$work/root/${program##*/}"
pack "$work/root" >"$work/image/layer.tar"
layer=$(sha256sum "$work/image/layer.tar" | cut -d ' ' -f 1)
cat >"$work/image/config.json" <<C
{"architecture": "$(dpkg --print-architecture)", "os": "linux",
 "config": {"User": "65532:65532", "WorkingDir": "/", "Env": ["PATH=/"], "Entrypoint": $(strings "/${program##*/}" "$@")},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
C
printf '[{"Config": "config.json", "RepoTags": ["%s"], "Layers": ["layer.tar"]}]' "$image" >"$work/image/manifest.json"
pack "$work/image"
