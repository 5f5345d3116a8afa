#!/usr/bin/env bash
# Measures pgrail against its bars, on servers of its own.
#
#   e2e/bench.sh               every row: writes docs/src/benchmarks.md, docs/src/benchmarks/*.md, their graphs, target/bench/*.json
#   e2e/bench.sh ROW...        some of: block single bulk capture install schema; target/bench/*.json only
#   e2e/bench.sh dump          the agent of backups against pg_dump and pg_restore: writes docs/src/benchmarks/dump.md
#   e2e/bench.sh scale         the operator with up to 1,000 databases: writes docs/src/benchmarks/scale.md
#
# Environment: PGRAIL_TEST_MAJORS (default "15 18", for scale "15 16 17 18", for dump "18"); PGRAIL_BENCH_PROFILE (default
# "release"), cargo's profile of what is measured and what measures; PGRAIL_BENCH_SCALE, numbers of databases,
# and PGRAIL_BENCH_DUMP_MB, sizes of databases (default "100 1000"; needs five times the last of disk), to try instead of writing the page.
# Nothing fails because something is slow. The rows of guards take about ten minutes and 2 GB of disk, dump as much time and 5 GB,
# scale three quarters of an hour, 10 GB of disk and a Kubernetes (e2e/cluster); the machine should have nothing else to do.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
profile=${PGRAIL_BENCH_PROFILE:-release}
case $profile in dev) directory=debug ;; *) directory=$profile ;; esac
binaries=${CARGO_TARGET_DIR:-$root/target}/$directory
# As in the image (deploy/Dockerfile).
export MIMALLOC_PURGE_DELAY=0 MIMALLOC_ALLOW_THP=0

guards() { # on servers that wait for the disk as PostgreSQL does by default
  cargo build --locked --profile "$profile" -p pgrail-bench
  local zabbix
  if zabbix=$(e2e/postgres/schema.sh zabbix); then export PGRAIL_BENCH_ZABBIX=$zabbix/schema.sql; else unset PGRAIL_BENCH_ZABBIX; fi
  PGRAIL_TEST_DURABLE=1 PGRAIL_TEST_POOLER=no e2e/postgres/servers.sh with "$binaries/pgrail-bench" "$@"
}

programs() { cargo build --locked --profile "$profile" -p pgrail-bench -p pgrail --bin pgrail-bench --bin pgrail; }

dump() { # on a server that waits for the disk, as guards
  programs
  PGRAIL_TEST_MAJORS=${PGRAIL_TEST_MAJORS:-18} PGRAIL_TEST_DURABLE=1 PGRAIL_TEST_POOLER=no PGRAIL_BIN=${PGRAIL_BIN:-$binaries/pgrail} \
    e2e/s3/server.sh run e2e/postgres/servers.sh with "$binaries/pgrail-bench" dump
}

scale() {
  programs
  local cluster=bench-$$
  e2e/cluster/up.sh --name "$cluster" --owner $$ >/dev/null
  # shellcheck disable=SC2064 # the name of now
  trap "e2e/cluster/down.sh --name '$cluster'" EXIT
  eval "$(e2e/cluster/env.sh --name "$cluster")"
  PGRAIL_TEST_MAJORS=${PGRAIL_TEST_MAJORS:-15 16 17 18} PGRAIL_TEST_POOLER=no PGRAIL_TEST_KUBECONFIG=$KUBECONFIG \
    PGRAIL_BIN=${PGRAIL_BIN:-$binaries/pgrail} PGRAIL_LOG=${PGRAIL_LOG:-info} \
    e2e/postgres/servers.sh with "$binaries/pgrail-bench" scale
}

case "$*" in
  '') guards; dump; scale ;;
  dump | scale) "$1" ;;
  *) guards "$@" ;;
esac
