#!/usr/bin/env bash
# A throwaway S3 server (versitygw on a temporary directory) for the tests of the backup engine.
#
#   e2e/s3/server.sh up              starts one and prints PGRAIL_TEST_S3="endpoint=... key=... secret=... bucket=... folder=... state=..."
#   e2e/s3/server.sh down [STATE]    ends that server (without STATE, every one that this user started) and removes its data
#   e2e/s3/server.sh install         only builds the server into the cache and prints the path of the program
#   e2e/s3/server.sh run COMMAND...  up, COMMAND with PGRAIL_TEST_S3 in its environment, down
#
# PGRAIL_S3_SIZE=8m puts the data on a tmpfs of that size (needs root): how a full store behaves.
# Two runs share no port and no directory. A server started inside `run` ends with it; what killed runs left is removed by
# the next run.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

install_server() { printf '%s/versitygw\n' "$("$s3_dir/../cluster/tools.sh" versitygw)"; }

answers() { [[ -s $run/port.tried && -s $run/pid/s3 ]] && kill -0 "$(cat "$run/pid/s3")" && port_open "$(cat "$run/port.tried")"; }

up() { # NAME OWNER: a run of its own; its directory in $run, its environment in $line
  local program key secret result=0
  program=$(install_server)
  run=$(run_dir "$1")
  key=pgrail$RANDOM
  secret=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  claim "$run" || die "the run $1 exists already"
  (umask 077 && mkdir -p "$run/data")
  if [[ -n ${PGRAIL_S3_SIZE:-} ]]; then mount -t tmpfs -o "size=$PGRAIL_S3_SIZE" pgrail-s3 "$run/data"; fi
  mkdir -p "$run/data/backups"
  launch "$run" "$s3_dir/parts.sh" "$2" "program=${program@Q}" "key=$key" "secret=$secret"
  unlock_registry
  came_up "$run" 60 answers || result=$?
  if (( result )); then
    tail_logs "$run"
    end_run "$run"
    die "the S3 server did not start"
  fi
  mv "$run/port.tried" "$run/port"
  line="endpoint=http://127.0.0.1:$(cat "$run/port") key=$key secret=$secret bucket=backups folder=$run/data state=$run"
}

case ${1:-} in
  install) install_server ;;
  up)
    up "run-$$" "${PGRAIL_S3_OWNER:-}"
    printf 'PGRAIL_TEST_S3="%s"\n' "$line"
    ;;
  down)
    lock_registry
    if [[ -n ${2:-} ]]; then
      [[ ${2%/*} == "$registry" ]] || die "not the state of a server of this script: $2"
      end_run "$2"
    else
      for run in "$registry"/*/; do
        [[ ! -d $run ]] || end_run "${run%/}"
      done
    fi
    ;;
  run)
    shift
    (( $# )) || die "usage: server.sh run COMMAND..."
    trap '[[ -z ${run:-} ]] || end_run "$run"' EXIT
    trap 'exit 130' INT TERM HUP
    up "run-$$" $$
    result=0
    PGRAIL_S3_OWNER=$$ PGRAIL_TEST_S3=$line "$@" || result=$?
    exit "$result"
    ;;
  *)
    sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
    exit 64
    ;;
esac
