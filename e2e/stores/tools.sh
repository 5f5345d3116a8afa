#!/usr/bin/env bash
# tools.sh: makes sure of the emulator of Azure Blob Storage, and prints the directory of its packages. What it cannot install it
# reports, with exit code 77.
set -euo pipefail
source "$(dirname "$0")/../cluster/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
directory=$cache/tools/azurite-$(cd "$here" && cat package.json package-lock.json | sha256sum | cut -c 1-12)
for program in node npm curl; do command -v "$program" >/dev/null || missing "$program"; done
mkdir -p "$cache/tools"
exec 8>"$directory.lock"
flock 8
if [[ ! -d $directory ]]; then
  say "installing Azurite"
  rm -rf "$directory.new"; mkdir "$directory.new"
  cp "$here"/{package.json,package-lock.json,.npmrc} "$directory.new/"
  (cd "$directory.new" && npm ci --ignore-scripts) >"$directory.log" 2>&1 8>&- ||
    { tail -n 20 "$directory.log" >&2; missing "the packages of e2e/stores/package-lock.json (npm could not install them)"; }
  mv "$directory.new" "$directory"
fi
exec 8>&-
printf '%s\n' "$directory"
