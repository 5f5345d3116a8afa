#!/usr/bin/env bash
# zabbix.sh: the schema of Zabbix for PostgreSQL, from Debian's package, in the cache. Prints the file. Installs nothing.
set -Eeuo pipefail
trap 'echo "bench: zabbix.sh failed at line $LINENO" >&2' ERR
cache="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/zabbix"
package=zabbix-server-pgsql suite=bookworm
say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "the schema of Zabbix is not there: $*"; exit 1; }
# shellcheck source=../postgres/apt.sh
source "$(dirname "${BASH_SOURCE[0]}")/../postgres/apt.sh"
schema=$cache/schema-$suite.sql
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9
if [[ ! -s $schema ]]; then
  command -v apt-get >/dev/null || die "this machine has no apt-get"
  archive=$(debian_archive)
  [[ -n $archive ]] || die "no Debian archive among this machine's package sources"
  work=$cache/part
  rm -rf "$work"
  mkdir -p "$work/debs"
  apt_of_suite "$work/apt" "$archive" "$suite"
  say "downloading $package of Debian $suite"
  (cd "$work/debs" && apt-get -q update && apt-get -q download "$package") >"$work/log" 2>&1 ||
    die "the download failed: $(tail -n 1 "$work/log")"
  dpkg-deb -x "$work"/debs/*.deb "$work/root"
  gzip -dc "$work/root/usr/share/$package/schema.sql.gz" >"$work/schema.sql" || die "the package has no schema.sql.gz"
  mv "$work/schema.sql" "$schema"
  rm -rf "$work"
fi
printf '%s\n' "$schema"
