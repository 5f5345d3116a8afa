#!/usr/bin/env bash
# clock.sh: libfaketime from Debian's package, in the cache, which shows a program another time than that of the machine. Prints the path
# of the library. Installs nothing. What it cannot download it reports, with exit code 77.
set -Eeuo pipefail
trap 'echo "clock: clock.sh failed at line $LINENO" >&2' ERR
directory="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/libfaketime-bookworm"
say() { printf 'clock: %s\n' "$*" >&2; }
missing() { say "SKIPPED, libfaketime is not there: $*"; exit 77; }
# shellcheck source=postgres/apt.sh
source "$(dirname "${BASH_SOURCE[0]}")/postgres/apt.sh"

mkdir -p "${directory%/*}"
exec 9>"$directory.lock"
flock 9
if [[ ! -d $directory ]]; then
  rm -rf "$directory.new"
  unpack_package bookworm libfaketime "$directory.new"
  mv "$directory.new" "$directory"
fi
library=$(find "$directory/root" -name libfaketime.so.1 -print -quit)
[[ -n $library ]] || missing "the package does not contain it"
printf '%s\n' "$library"
