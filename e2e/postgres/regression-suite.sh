#!/usr/bin/env bash
# regression-suite.sh MAJOR: PostgreSQL's own regression tests of that version, from Debian's source package, and the
# library that they load. Prints the directory: sql/ expected/ data/ parallel_schedule regress.so
set -Eeuo pipefail
trap 'echo "postgres: regression-suite.sh failed at line $LINENO" >&2' ERR
major=$1
cache="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/postgres"
say() { printf 'postgres: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
# shellcheck source=apt.sh
source "$(dirname "${BASH_SOURCE[0]}")/apt.sh"
bin=$("$(dirname "${BASH_SOURCE[0]}")/software.sh" "$major")
# Tests and server must be of one minor version: new messages come with minor releases too.
version=$("$bin/postgres" --version | grep -oE "$major\.[0-9]+" | head -n 1)
directory=$cache/regress-$version
mkdir -p "$cache"
exec 9>"$cache/.lock-regress-$major"
flock 9
if [[ ! -d $directory ]]; then
  command -v gcc >/dev/null || { say "SKIPPED, this machine lacks gcc"; exit 77; }
  archive=$(debian_archive)
  [[ -n $archive ]] || { say "SKIPPED, this machine has no Debian archive among its package sources"; exit 77; }
  work=$directory.part
  for suite in $(suites_of "$major"); do
    rm -rf "$work"
    mkdir -p "$work/debs" "$work/suite"
    apt_of_suite "$work/apt" "$archive" "$suite"
    sed 's/^deb /deb-src /' "$work/apt/sources.list" >"$work/apt/src" && cat "$work/apt/src" >>"$work/apt/sources.list"
    say "reading the package and source lists of Debian $suite"
    apt-get -q update >"$work/log" 2>&1 || { say "Debian $suite could not be read: $(tail -n 1 "$work/log")"; continue; }
    say "downloading the source of PostgreSQL $version"
    (cd "$work/debs" && apt-get -q source --download-only "postgresql-$major" && apt-get -q download "postgresql-server-dev-$major") >"$work/log" 2>&1 ||
      { say "the download failed: $(tail -n 3 "$work/log")"; continue; }
    compgen -G "$work/debs/postgresql-${major}_$version.orig.tar.*" >/dev/null ||
      { say "Debian $suite has another version than $version: $(cd "$work/debs" && echo postgresql-*.orig.tar.*)"; continue; }
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/dev"; done
    tar -C "$work" -xf "$work/debs/postgresql-${major}_$version.orig.tar."* --wildcards "*/src/test/regress/*"
    mv "$work"/postgresql-*/src/test/regress/* "$work/suite/"
    gcc -shared -fPIC -O1 -w -I "$work/dev/usr/include/postgresql/$major/server" -o "$work/suite/regress.so" "$work/suite/regress.c" >"$work/log" 2>&1 ||
      { tail -n 5 "$work/log" >&2; die "regress.c could not be compiled"; }
    mv "$work/suite" "$directory"
    rm -rf "$work"
    break
  done
  [[ -d $directory ]] || die "none of Debian's suites ($(suites_of "$major")) has the source of PostgreSQL $version"
fi
printf '%s\n' "$directory"
