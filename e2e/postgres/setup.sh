#!/usr/bin/env bash
# setup.sh RUN: once the servers of a new run answer, creates their roles and writes their URIs; at the end RUN/ready.
set -Eeuo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
run=$1
# shellcheck source=/dev/null
source "$run/settings"
trap 'touch "$run/failed-setup"' ERR

# pg_ctl's own way: line 8 of postmaster.pid; line 4 is the port.
server_answers() { [[ $(sed -n '8s/ *$//p' "$run/$1/data/postmaster.pid") == ready ]]; }
pooler_answers() { [[ -s $run/$1/port ]] && port_open "$(cat "$run/$1/port")"; }

for name in $majors plain; do
  until_ok "$timeout" server_answers "$name"
  port=$(sed -n 4p "$run/$name/data/postmaster.pid")
  PGPASSWORD=$(cat "$run/password") "$(cat "$run/$name/bin")/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d postgres \
    -v password="$(cat "$run/password")" <"$postgres_dir/roles.sql"
  write_uri "$run/$name" "$port"
done
if [[ $pooler != no ]]; then
  for name in pooler-transaction pooler-session; do
    until_ok "$timeout" pooler_answers "$name"
    write_uri "$run/$name" "$(cat "$run/$name/port")"
  done
fi
touch "$run/ready"
