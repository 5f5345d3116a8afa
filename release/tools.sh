#!/usr/bin/env bash
# tools.sh: makes sure of cargo-cyclonedx, which writes the SBOM, and prints its path. It is built from the crate once, and kept in
# the cache. A second run at the same time waits for the first.
set -euo pipefail
version=0.5.9
cache=${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/tools
directory=$cache/cargo-cyclonedx-$version
mkdir -p "$cache"
exec 8>"$directory.lock"
flock 8
if [[ ! -d $directory ]]; then
  echo "building cargo-cyclonedx $version: about 4 minutes" >&2
  rm -rf "$directory.new"
  # No settings of a build of this repository.
  env -u RUSTC_WORKSPACE_WRAPPER -u CLIPPY_ARGS -u CARGO_TARGET_DIR setpriv --pdeathsig TERM \
    cargo install --quiet --locked --version "$version" --root "$directory.new" cargo-cyclonedx >"$directory.log" 2>&1 8>&- ||
    { tail -n 20 "$directory.log" >&2; echo "building cargo-cyclonedx failed; the whole log is $directory.log" >&2; exit 1; }
  mv "$directory.new" "$directory"
fi
printf '%s\n' "$directory/bin/cargo-cyclonedx"
