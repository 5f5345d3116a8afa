#!/usr/bin/env bash
# Throwaway PostgreSQL servers for tests, on free ports of the loopback address.
#
#   servers.sh up            starts this run's servers, or waits for those of a run of that name, and prints their environment
#   servers.sh env           prints the environment again, as `export NAME="value"` lines: eval "$(servers.sh env)"
#   servers.sh down          ends this run and removes its directory
#   servers.sh with CMD ...  a run of its own: up, CMD with the environment set, down
#   servers.sh sweep         removes what killed runs left (`up` and `with` do it too)
#
# Environment: PGRAIL_RUN names the run (default "default"); two runs at once need two names, `with` makes its own.
#   PGRAIL_TEST_MAJORS      versions, default "15 18"; also 16 (whose clients have neither TLS nor zstd) and 17
#   PGRAIL_TEST_POOLER=no   starts no poolers
#   PGRAIL_TEST_DURABLE=1   commits wait for the disk, as by default in PostgreSQL; otherwise nothing does. For measurements.
#   PGRAIL_TEST_TIMEOUT     seconds until the servers must answer, default 120
#
# What is printed:
#   PGRAIL_TEST_SERVERS="15=postgres://postgres:...@127.0.0.1:PORT/postgres 18=..."
#   PGRAIL_TEST_PLAIN_SERVER="18=postgres://..."   a server without TLS, and with two-phase commit
#   PGRAIL_TEST_CA=FILE, PGRAIL_TEST_OTHER_CA=FILE   the CA of the servers' certificates (localhost, 127.0.0.1); one that signed nothing
#   PGRAIL_TEST_PG_BIN_<major>=DIRECTORY         pg_dump, psql, ...
#   PGRAIL_TEST_PGBOUNCER="transaction=postgres://... session=postgres://..."
#
# Login roles for tests of authentication, each with the password of postgres, bound in pg_hba.conf:
#   hba_tls_only, hba_plain_only, hba_cleartext (server asks for the password in clear), hba_md5, hba_rejected, hba_trust
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
majors="${PGRAIL_TEST_MAJORS:-15 18}"
pooler="${PGRAIL_TEST_POOLER:-yes}"
timeout="${PGRAIL_TEST_TIMEOUT:-120}"

make_certificates() { # DIRECTORY
  local directory="$1" name
  for name in ca other-ca; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=pgrail test $name" \
      -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" \
      -keyout "$directory/$name.key" -out "$directory/$name.crt" 2>/dev/null
  done
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=localhost" \
    -keyout "$directory/server.key" -out "$directory/server.csr" 2>/dev/null
  openssl x509 -req -in "$directory/server.csr" -CA "$directory/ca.crt" -CAkey "$directory/ca.key" -CAcreateserial -days 30 \
    -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE') \
    -out "$directory/server.crt" 2>/dev/null
}

# Before a run is claimed: it can take minutes, and others wait for the claim.
install_software() {
  local program job jobs=()
  for program in $majors $([[ $pooler == no ]] || echo pgbouncer); do
    "$postgres_dir/software.sh" "$program" >/dev/null &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || die "the software is not complete"; done
}

start() { # [OWNER]
  local result=0
  install_software
  if claim "$run"; then
    mkdir -p "$run"
    chmod 755 "${registry%/*}" "$registry" "$run"
    (umask 077 && openssl rand -hex 16 | tr -d '\n' >"$run/password" && make_certificates "$run")
    chmod 644 "$run"/*.crt
    launch "$run" "$postgres_dir/parts.sh" "${1:-}" "majors=${majors@Q}" "pooler=${pooler@Q}" "durable=${PGRAIL_TEST_DURABLE:-}" "timeout=$timeout"
    unlock_registry
  else
    [[ " $(sed -n "s/^majors='\(.*\)'/\1/p" "$run/settings") " == " $majors " ]] ||
      die "the run $PGRAIL_RUN has other versions: end it first (servers.sh down), or set another PGRAIL_RUN"
  fi
  came_up "$run" "$timeout" test -e "$run/ready" || result=$?
  (( result == 0 )) && return
  tail_logs "$run"
  (( result == 2 )) && say "the servers did not answer within $timeout s: PGRAIL_TEST_TIMEOUT"
  end_run "$run"
  die "the run $PGRAIL_RUN did not start"
}

print_environment() {
  local major list="" poolers="" mode
  { [[ -e $run/ready ]] && lives "$run"; } || die "the run $PGRAIL_RUN has no servers: servers.sh up"
  # shellcheck source=/dev/null
  source "$run/settings"
  for major in $majors; do list="$list${list:+ }$major=$(cat "$run/$major/uri")"; done
  printf 'export PGRAIL_TEST_SERVERS="%s"\n' "$list"
  printf 'export PGRAIL_TEST_PLAIN_SERVER="%s=%s"\n' "${majors##* }" "$(cat "$run/plain/uri")"
  printf 'export PGRAIL_TEST_CA="%s"\nexport PGRAIL_TEST_OTHER_CA="%s"\n' "$run/ca.crt" "$run/other-ca.crt"
  for major in $majors; do
    printf 'export PGRAIL_TEST_PG_BIN_%s="%s"\n' "$major" "$("$postgres_dir/software.sh" "$major")"
  done
  for mode in transaction session; do
    [[ -s $run/pooler-$mode/uri ]] || continue
    poolers="$poolers${poolers:+ }$mode=$(cat "$run/pooler-$mode/uri")"
  done
  [[ -z $poolers ]] || printf 'export PGRAIL_TEST_PGBOUNCER="%s"\n' "$poolers"
}

command="${1:-}" result=0
(( $# == 0 )) || shift
[[ $command != with ]] || PGRAIL_RUN="with-$$"
PGRAIL_RUN="${PGRAIL_RUN:-default}"
[[ $PGRAIL_RUN =~ ^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$ ]] || die "PGRAIL_RUN is at most 40 letters, digits, '.', '_' and '-'"
run=$(run_dir "$PGRAIL_RUN")
case $command in
  up)
    start
    print_environment
    ;;
  env) print_environment ;;
  down)
    lock_registry
    end_run "$run"
    sweep
    ;;
  with)
    (( $# )) || die "usage: servers.sh with COMMAND..."
    trap 'end_run "$run"' EXIT
    trap 'exit 130' INT TERM HUP
    start $$
    eval "$(print_environment)"
    "$@" || result=$?
    exit "$result"
    ;;
  sweep)
    lock_registry
    sweep
    ;;
  *) die "usage: servers.sh up|env|down|sweep|with COMMAND..." ;;
esac
