#!/usr/bin/env bash
# Throwaway PostgreSQL servers for tests, on free loopback ports.
#
#   servers.sh up            starts this run's servers (those already up are kept) and prints their environment
#   servers.sh env           prints the environment again, as `export NAME="value"` lines: eval "$(servers.sh env)"
#   servers.sh down          stops this run's servers and removes its folder
#   servers.sh with CMD …    a run of its own: up, CMD with the environment set, down
#   servers.sh sweep         removes what killed runs left behind (`up` and `with` do it too)
#
# Environment: PGRAIL_RUN names the run (default "default"); two runs at once need two names, `with` makes its own.
#   PGRAIL_TEST_MAJORS      versions, default "15 18"; also 16 (without TLS) and 17
#   PGRAIL_TEST_POOLER=no   leaves the poolers out
#   PGRAIL_TEST_DURABLE=1   commits wait for the disk, as PostgreSQL comes; else nothing does. For measurements.
#
# What is printed:
#   PGRAIL_TEST_SERVERS="15=postgres://postgres:…@127.0.0.1:PORT/postgres 18=…"
#   PGRAIL_TEST_PLAIN_SERVER="18=postgres://…"   a server without TLS, and with two-phase commit
#   PGRAIL_TEST_CA=FILE, PGRAIL_TEST_OTHER_CA=FILE   the authority of the servers' certificates (localhost, 127.0.0.1); one that signed nothing
#   PGRAIL_TEST_PG_BIN_<major>=FOLDER            pg_dump, psql, …
#   PGRAIL_TEST_PGBOUNCER="transaction=postgres://… session=postgres://…"
#
# Login roles for tests of authentication, each with the password of postgres, bound in pg_hba.conf:
#   hba_tls_only, hba_plain_only, hba_cleartext (server asks for the password in clear), hba_md5, hba_rejected, hba_trust
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)"
runs="/tmp/pgrail-$(id -u)/postgres" # short: a socket's path has room for 107 bytes
majors="${PGRAIL_TEST_MAJORS:-15 18}"

say() { printf 'postgres: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# PostgreSQL refuses root. A prefix, not a function: in the background a function would keep a shell alive.
as_server_user=()
if [ "$(id -u)" -eq 0 ]; then
  as_server_user=(setpriv "--reuid=$(id -u nobody)" "--regid=$(id -g nobody)" --clear-groups --)
fi

give_to_server_user() { # PATH…
  [ "$(id -u)" -ne 0 ] || chown nobody: "$@"
}

# When a process began, in the kernel's ticks: with its number, who it is. Nothing for one that is gone or a zombie.
started_at() { awk '{ sub(/.*\) /, "") } $1 !~ /[ZX]/ { print $20 }' "/proc/$1/stat" 2>/dev/null || true; }

# The process of a data folder, if it is alive and really that folder's: numbers are reused.
server_process() { # DATA
  local process
  process="$(head -n 1 "$1/postmaster.pid" 2>/dev/null || true)"
  [[ "$process" =~ ^[0-9]+$ ]] || return 1
  tr '\0' '\n' <"/proc/$process/cmdline" 2>/dev/null | grep -qxF "$1" || return 1
  echo "$process"
}

pooler_process() { # FOLDER
  local process
  process="$(cat "$1/pgbouncer.pid" 2>/dev/null || true)"
  [[ "$process" =~ ^[0-9]+$ ]] || return 1
  tr '\0' '\n' <"/proc/$process/cmdline" 2>/dev/null | grep -qxF "$1/pgbouncer.ini" || return 1
  echo "$process"
}

wait_for_end() { # PROCESS
  timeout 20 tail --pid="$1" -f /dev/null || kill -KILL "$1" 2>/dev/null || true
}

remove_run() { # FOLDER
  local folder="$1" data process
  for data in "$folder"/*/pgbouncer.ini; do
    process="$(pooler_process "${data%/*}")" || continue
    kill -INT "$process" 2>/dev/null || true
    wait_for_end "$process"
  done
  for data in "$folder"/*/data; do
    process="$(server_process "$data")" || continue
    kill -QUIT "$process" 2>/dev/null || true # at once, without a checkpoint: the data goes too
    wait_for_end "$process"
  done
  rm -rf "$folder"
}

# A run that belongs to a command is left over once that command is gone; one that was put up by hand, once
# none of its servers lives.
is_left_over() { # FOLDER
  local folder="$1" owner since data
  if [ -s "$folder/owner" ]; then
    read -r owner since <"$folder/owner"
    [ "$(started_at "$owner")" = "$since" ] && return 1
    return 0
  fi
  for data in "$folder"/*/data; do
    server_process "$data" >/dev/null && return 1
  done
  return 0
}

sweep() {
  local folder
  for folder in "$runs"/*/; do
    folder="${folder%/}"
    [ -d "$folder" ] || continue
    (
      exec 8>"$runs/.$(basename "$folder").lock"
      flock -n 8 || exit 0 # somebody is at it just now
      is_left_over "$folder" || exit 0
      say "removing what the run $(basename "$folder") left behind"
      remove_run "$folder"
    )
  done
}

make_certificates() { # FOLDER
  local folder="$1" name
  for name in ca other-ca; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=pgrail test $name" \
      -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
      -keyout "$folder/$name.key" -out "$folder/$name.crt" 2>/dev/null
  done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" \
    -keyout "$folder/server.key" -out "$folder/server.csr" 2>/dev/null
  openssl x509 -req -in "$folder/server.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -days 30 \
    -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE') \
    -out "$folder/server.crt" 2>/dev/null
}

# The programs, where the server's user can reach them: root's home is usually closed to others.
programs_for_server() { # MAJOR|pgbouncer FOLDER
  local bin below root cache="${PGRAIL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgrail}/postgres"
  bin="$("$here/software.sh" "$1")"
  if ! "${as_server_user[@]}" test -x "$bin"; then
    below="${bin#"$cache/"}"
    root="$cache/${below%%/*}"
    cp -al "$root" "$2/software" 2>/dev/null || { rm -rf "$2/software" && cp -a "$root" "$2/software"; }
    bin="$2/software/${below#*/}"
  fi
  echo "$bin"
}

free_port() {
  local port
  while :; do
    port=$((RANDOM % 12000 + 20000)) # below the range that outgoing connections take theirs from
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

configure() { # DATA SOCKETS TLS
  cat >>"$1/postgresql.conf" <<CONFIG
listen_addresses = '127.0.0.1'
unix_socket_directories = '$2'
max_connections = 200
max_prepared_transactions = $([ "$3" = on ] && echo 0 || echo 20)
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
ssl = $3
CONFIG
  [ "${PGRAIL_TEST_DURABLE:-}" = 1 ] || printf '%s = off\n' fsync full_page_writes synchronous_commit >>"$1/postgresql.conf"
  if [ "$3" = on ]; then
    printf "ssl_cert_file = '%s'\nssl_key_file = '%s'\n" "$1/server.crt" "$1/server.key" >>"$1/postgresql.conf"
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
  [ "$3" = on ] || sed -i '/^hostssl/d' "$1/pg_hba.conf"
}

show_log() { say "the end of $1:"; tail -n 20 "$1" >&2 || true; }

start_server() { # NAME MAJOR TLS: a server in the folder NAME of this run; its URI ends up in NAME/uri
  local folder="$run/$1" data="$run/$1/data" bin port try process
  if [ -s "$folder/uri" ] && server_process "$data" >/dev/null; then return 0; fi
  rm -rf "$folder"
  mkdir -p "$folder"
  bin="$(programs_for_server "$2" "$folder")"
  cp "$run/password" "$folder/password"
  give_to_server_user "$folder" "$folder/password"
  if ! "${as_server_user[@]}" "$bin/initdb" --pgdata="$data" --username=postgres --pwfile="$folder/password" --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8 --no-sync >"$folder/initdb.log" 2>&1; then
    show_log "$folder/initdb.log"
    return 1
  fi
  configure "$data" "$folder" "$3"
  if [ "$3" = on ]; then
    cp "$run/server.crt" "$run/server.key" "$data/"
    chmod 600 "$data/server.key"
    give_to_server_user "$data/server.crt" "$data/server.key"
  fi
  for try in 1 2 3 4 5; do
    port="$(free_port)"
    "${as_server_user[@]}" setsid "$bin/postgres" -D "$data" -p "$port" >"$folder/log" 2>&1 </dev/null 8>&- 9>&- &
    process=$!
    # pg_ctl's own way of waiting: the line "ready" in postmaster.pid, read until the process ends or time is up.
    if wait_until_ready "$data" "$process"; then
      PGPASSWORD="$(cat "$run/password")" "$bin/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U postgres -d postgres \
        -v password="$(cat "$run/password")" >"$folder/psql.log" 2>&1 <"$here/roles.sql" || { show_log "$folder/psql.log"; return 1; }
      printf 'postgres://postgres:%s@127.0.0.1:%s/postgres' "$(cat "$run/password")" "$port" >"$folder/uri"
      return 0
    fi
    grep -q "Address already in use" "$folder/log" || break
    say "port $port was taken meanwhile (try $try)"
  done
  show_log "$folder/log"
  return 1
}

wait_until_ready() { # DATA PROCESS
  local until=$((SECONDS + 60))
  while [ "$SECONDS" -lt "$until" ]; do
    [ "$(sed -n '8s/ *$//p' "$1/postmaster.pid" 2>/dev/null)" = ready ] && return 0
    kill -0 "$2" 2>/dev/null || return 1
    read -r -t 0.02 <> <(:) || true
  done
  return 1
}

start_pooler() { # transaction|session MAJOR: pgbouncer before that server
  local folder="$run/pooler-$1" server port until bin
  if [ -s "$folder/uri" ] && pooler_process "$folder" >/dev/null; then return 0; fi
  rm -rf "$folder"
  mkdir -p "$folder"
  bin="$(programs_for_server pgbouncer "$folder")"
  server="$(cat "$run/$2/uri")"
  server="${server##*127.0.0.1:}"
  printf '"postgres" "%s"\n' "$(cat "$run/password")" >"$folder/users"
  for _ in 1 2 3 4 5; do
    port="$(free_port)"
    cat >"$folder/pgbouncer.ini" <<INI
[databases]
* = host=127.0.0.1 port=${server%%/*}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $folder/users
pool_mode = $1
default_pool_size = 5
server_round_robin = 1
ignore_startup_parameters = extra_float_digits,options
logfile = $folder/log
pidfile = $folder/pgbouncer.pid
INI
    give_to_server_user "$folder/pgbouncer.ini" "$folder/users" "$folder"
    "${as_server_user[@]}" "$bin/pgbouncer" -q -d "$folder/pgbouncer.ini" 8>&- 9>&- >"$folder/start.log" 2>&1 || continue
    until=$((SECONDS + 20))
    while [ "$SECONDS" -lt "$until" ]; do
      if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && pooler_process "$folder" >/dev/null; then
        printf 'postgres://postgres:%s@127.0.0.1:%s/postgres' "$(cat "$run/password")" "$port" >"$folder/uri"
        return 0
      fi
      read -r -t 0.02 <> <(:) || true
    done
  done
  show_log "$folder/log"
  return 1
}

print_environment() {
  local major list="" poolers="" mode
  for major in $majors; do
    [ -s "$run/$major/uri" ] || die "no servers in the run $(basename "$run"): servers.sh up"
    list="$list${list:+ }$major=$(cat "$run/$major/uri")"
  done
  printf 'export PGRAIL_TEST_SERVERS="%s"\n' "$list"
  printf 'export PGRAIL_TEST_PLAIN_SERVER="%s=%s"\n' "${majors##* }" "$(cat "$run/plain/uri")"
  printf 'export PGRAIL_TEST_CA="%s"\nexport PGRAIL_TEST_OTHER_CA="%s"\n' "$run/ca.crt" "$run/other-ca.crt"
  for major in $majors; do
    printf 'export PGRAIL_TEST_PG_BIN_%s="%s"\n' "$major" "$("$here/software.sh" "$major")"
  done
  for mode in transaction session; do
    [ -s "$run/pooler-$mode/uri" ] || continue
    poolers="$poolers${poolers:+ }$mode=$(cat "$run/pooler-$mode/uri")"
  done
  [ -z "$poolers" ] || printf 'export PGRAIL_TEST_PGBOUNCER="%s"\n' "$poolers"
}

start_all() { # [OWNER]
  local major job jobs=()
  mkdir -p "$run"
  chmod 755 "/tmp/pgrail-$(id -u)" "$runs" "$run"
  if [ ! -s "$run/server.crt" ]; then
    (umask 077 && openssl rand -hex 16 | tr -d '\n' >"$run/password")
    make_certificates "$run"
  fi
  [ -z "${1:-}" ] || printf '%s %s\n' "$1" "$(started_at "$1")" >"$run/owner"
  for major in $majors $([ "${PGRAIL_TEST_POOLER:-yes}" = no ] || echo pgbouncer); do
    "$here/software.sh" "$major" >/dev/null &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || die "the software is not complete"; done
  jobs=()
  for major in $majors; do
    start_server "$major" "$major" "$([ "$major" = 16 ] && echo off || echo on)" &
    jobs+=($!)
  done
  start_server plain "${majors##* }" off &
  jobs+=($!)
  for job in "${jobs[@]}"; do wait "$job" || die "a server did not start"; done
  if [ "${PGRAIL_TEST_POOLER:-yes}" != no ]; then
    start_pooler transaction "${majors##* }" || die "the pooler did not start"
    start_pooler session "${majors##* }" || die "the pooler did not start"
  fi
}

main() {
  local command="${1:-}" result=0
  [ "$#" -eq 0 ] || shift
  [ "$command" != with ] || PGRAIL_RUN="with-$$"
  PGRAIL_RUN="${PGRAIL_RUN:-default}"
  [[ "$PGRAIL_RUN" =~ ^[A-Za-z0-9._-]{1,40}$ ]] || die "PGRAIL_RUN may have letters, digits, '.', '_' and '-', at most 40"
  run="$runs/$PGRAIL_RUN"
  mkdir -p "$runs"
  case "$command" in
    up | down | with)
      exec 8>"$runs/.$PGRAIL_RUN.lock"
      flock 8
      ;;
  esac
  case "$command" in
    up)
      sweep
      start_all
      print_environment
      ;;
    env) print_environment ;;
    down)
      remove_run "$run"
      rm -f "$runs/.$PGRAIL_RUN.lock"
      ;;
    with)
      [ "$#" -gt 0 ] || die "usage: servers.sh with COMMAND…"
      sweep
      trap 'remove_run "$run"; rm -f "$runs/.$PGRAIL_RUN.lock"' EXIT
      trap 'exit 130' INT TERM HUP
      start_all $$
      eval "$(print_environment)"
      "$@" 8>&- || result=$?
      exit "$result"
      ;;
    sweep) sweep ;;
    *) die "usage: servers.sh up|env|down|sweep|with COMMAND…" ;;
  esac
}

main "$@"
