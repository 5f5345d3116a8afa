#!/usr/bin/env bash
# Measures the guard against its bars, on servers of its own that wait for the disk as PostgreSQL does by default.
#
#   e2e/bench.sh               every row: writes docs/src/benchmarks.md with its graphs, and target/bench/*.json
#   e2e/bench.sh ROW...        some of: block single bulk capture install; target/bench/*.json only
#
# Environment: PGRAIL_TEST_MAJORS (default "15 18"); PGRAIL_BENCH_PROFILE (default "release"), cargo's profile of the
# program that measures. Nothing fails because something is slow. Takes about ten minutes, and 2 GB of disk; the machine
# should have nothing else to do.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
profile=${PGRAIL_BENCH_PROFILE:-release}
cargo build --locked --profile "$profile" -p pgrail-bench
case $profile in dev) directory=debug ;; *) directory=$profile ;; esac
PGRAIL_TEST_DURABLE=1 PGRAIL_TEST_POOLER=no \
  exec e2e/postgres/servers.sh with "${CARGO_TARGET_DIR:-$root/target}/$directory/pgrail-bench" "$@"
