#!/usr/bin/env bash
# schema.sh NAME...: schemas of other projects for PostgreSQL, with their rows, from Debian's packages, in the cache. Prints for each the
# directory of its files, which psql reads in this order: schema.sql, and those that there are of images.sql and data.sql.
# Installs nothing. What it cannot download it reports, with exit code 77.
#
#   zabbix   Zabbix 6.0, monitoring: 173 tables, with its templates 130,000 rows
#   kea      Kea 2.2, a DHCP server: more than 100 functions, triggers on most tables, few rows
set -Eeuo pipefail
trap 'echo "postgres: schema.sh failed at line $LINENO" >&2' ERR
cache="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/schemas"
suite=bookworm
say() { printf 'postgres: %s\n' "$*" >&2; }
missing() { say "SKIPPED, the schema of $name is not there: $*"; exit 77; }
# shellcheck source=apt.sh
source "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

# Each fills the directory $1 from the unpacked package in $2.
zabbix() {
  local file
  for file in schema images data; do gzip -dc "$2/usr/share/zabbix-server-pgsql/$file.sql.gz" >"$1/$file.sql"; done
}
kea() { cp "$2/usr/share/kea/scripts/pgsql/dhcpdb_create.pgsql" "$1/schema.sql"; }

for name in "$@"; do
  case $name in
    zabbix) package=zabbix-server-pgsql ;;
    kea) package=kea-admin ;;
    *) say "schema.sh: no such schema: $name"; exit 2 ;;
  esac
  directory=$cache/$name-$suite
  mkdir -p "$cache"
  exec 9>"$directory.lock"
  flock 9
  if [[ ! -d $directory ]]; then
    work=$directory.new
    rm -rf "$work"
    mkdir -p "$work/files"
    unpack_package "$suite" "$package" "$work"
    "$name" "$work/files" "$work/root"
    mv "$work/files" "$directory"
    rm -rf "$work"
  fi
  printf '%s\n' "$directory"
done
