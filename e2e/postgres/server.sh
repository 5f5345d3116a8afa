#!/usr/bin/env bash
# server.sh RUN NAME MAJOR TLS: one PostgreSQL server, a part of a run (e2e/process): creates its data directory
# RUN/NAME/data when there is none, then becomes the server.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
run=$1 name=$2 major=$3 tls=$4
# shellcheck source=/dev/null
source "$run/settings"
directory=$run/$name
data=$directory/data

configure() { # DATA
  cat >>"$1/postgresql.conf" <<CONFIG
listen_addresses = '127.0.0.1'
unix_socket_directories = '$directory'
max_connections = 200
max_prepared_transactions = $([[ $tls == on ]] && echo 0 || echo 20)
wal_level = logical
max_wal_size = 2GB
checkpoint_timeout = 1h
shared_buffers = 128MB
track_counts = on
jit = off
password_encryption = scram-sha-256
logging_collector = off
log_line_prefix = '%m [%p] %u@%d '
log_checkpoints = off
lc_messages = 'C'
timezone = 'UTC'
log_timezone = 'UTC'
ssl = $tls
CONFIG
  [[ $durable == 1 ]] || printf '%s = off\n' fsync full_page_writes synchronous_commit >>"$1/postgresql.conf"
  if [[ $tls == on ]]; then
    printf "ssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n" >>"$1/postgresql.conf"
    cp "$run/server.crt" "$run/server.key" "$1/"
    chmod 600 "$1/server.key"
    give_to_server_user "$1/server.crt" "$1/server.key"
  fi
  cat >"$1/pg_hba.conf" <<'HBA'
# TYPE     DATABASE     USER            ADDRESS    METHOD
local      all          all                        scram-sha-256
hostnossl  all          hba_tls_only    all        reject
hostssl    all          hba_plain_only  all        reject
host       all          hba_rejected    all        reject
host       all          hba_cleartext   all        password
host       all          hba_md5         all        md5
host       all          hba_trust       all        trust
host       all          all             all        scram-sha-256
host       replication  all             all        scram-sha-256
HBA
  [[ $tls == on ]] || sed -i '/^hostssl/d' "$1/pg_hba.conf"
}

# Beside its place, then moved: what is there after a kill is complete.
create() {
  rm -rf "$data.new"
  as_server_user KILL
  "${server_user[@]}" "$bin/initdb" --pgdata="$data.new" --username=postgres --pwfile="$directory/password" \
    --auth=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8 --no-sync || exit 78
  configure "$data.new"
  mv "$data.new" "$data"
}

if [[ ! -e $data ]]; then
  rm -rf "$directory"
  mkdir -p "$directory"
  (umask 077 && cp "$run/password" "$directory/password")
  give_to_server_user "$directory" "$directory/password"
  bin=$(programs_for_server "$major" "$directory")
  printf '%s\n' "$bin" >"$directory/bin"
  create
fi
port=$(own_port "$directory")
# An immediate shutdown when its parent ends: without a checkpoint, but also without shared memory left behind.
as_server_user QUIT
exec "${server_user[@]}" "$(cat "$directory/bin")/postgres" -D "$data" -p "$port"
