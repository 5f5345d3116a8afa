#!/usr/bin/env bash
# pooler.sh RUN transaction|session MAJOR: one pgbouncer in front of the server MAJOR, a part of a run (e2e/process).
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
run=$1 mode=$2 major=$3
directory=$run/pooler-$mode

if [[ ! -s $directory/bin ]]; then
  rm -rf "$directory"
  mkdir -p "$directory"
  (umask 077 && printf '"postgres" "%s"\n' "$(cat "$run/password")" >"$directory/users")
  bin=$(programs_for_server pgbouncer "$directory")
  printf '%s\n' "$bin" >"$directory/bin"
fi
until_ok 60 test -s "$run/$major/uri"
port=$(own_port "$directory")
cat >"$directory/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=$(port_of "$(cat "$run/$major/uri")")
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $directory/users
pool_mode = $mode
default_pool_size = 5
server_round_robin = 1
ignore_startup_parameters = extra_float_digits,options
INI
give_to_server_user "$directory" "$directory/pgbouncer.ini" "$directory/users"
printf '%s\n' "$port" >"$directory/port"
as_server_user KILL
exec "${server_user[@]}" "$(cat "$directory/bin")/pgbouncer" "$directory/pgbouncer.ini"
