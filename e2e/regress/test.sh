#!/usr/bin/env bash
# PostgreSQL's own regression tests, in a database with guards: whatever PostgreSQL promises must still hold. Three times:
# without pgrail, with a guard on tables of another schema, and while a guard with a glob over the schema of the tests is
# applied again every half second, with limits that are not reached.
#
#   e2e/regress/test.sh            PGRAIL_TEST_MAJORS: one version, default 18
#
# Differences from the expected output are failures, except those of allowed.tsv, each with its reason. The last line is
# `N passed, N failed`; the differences are kept in target/regress.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/e2e/regress
major=${PGRAIL_TEST_MAJORS:-18}
kept=${CARGO_TARGET_DIR:-$root/target}/regress
program=${PGRAIL_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/pgrail}

if [[ ${1:-} != --with-servers ]]; then
  suite=$("$root/e2e/postgres/regression-suite.sh" "$major")
  export PGRAIL_TEST_MAJORS=$major PGRAIL_TEST_POOLER=no
  exec "$root/e2e/postgres/servers.sh" with "$here/test.sh" --with-servers "$suite"
fi
# shellcheck source=../postgres/lib.sh
source "$root/e2e/postgres/lib.sh"

# The server reads and writes files of the tests; and so does psql, as the same user.
work=${PGRAIL_TEST_CA%/*}/regress
mkdir -p "$work"
cp -r "$2" "$work/suite"
chmod -R a+rX "$work"
directory=${PGRAIL_TEST_CA%/*}/$major
bin=$(cat "$directory/bin")
# pg_regress needs the loader and the libraries of its own suite, as software.sh gives them to the other programs.
pg_regress=("${bin%/bin}/lib/pgxs/src/test/regress/pg_regress")
if [[ -n ${bin%/usr/lib/*} ]]; then
  loader=$(find "${bin%/usr/lib/*}/usr/lib" -maxdepth 2 -path '*-linux-gnu/ld-linux*.so.*' -print -quit)
  pg_regress=("$loader" --library-path "${loader%/*}" "${pg_regress[@]}")
fi
url=${PGRAIL_TEST_SERVERS#*=}
port=$(port_of "$url")
PGPASSWORD=${url#postgres://postgres:}
export PGPASSWORD=${PGPASSWORD%%@*}
sql() { "$bin/psql" -X -q -v ON_ERROR_STOP=1 "$@"; }
# What the tests expect of a server as it comes; the others of our settings do not show.
sql "$url" -c "ALTER SYSTEM SET synchronous_commit = on" -c "SELECT pg_reload_conf()" >/dev/null

create_database() { # NAME: as pg_regress creates it
  sql "$url" -c "CREATE DATABASE $1 TEMPLATE template0"
  local setting
  for setting in "lc_messages TO 'C'" "lc_monetary TO 'C'" "lc_numeric TO 'C'" "lc_time TO 'C'" "bytea_output TO 'hex'" \
    "timezone_abbreviations TO 'Default'"; do
    sql "$url" -c "ALTER DATABASE $1 SET $setting"
  done
}

manifest() { # SCHEMA PROTECT
  cat <<M
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: regress}
spec:
  databaseRef: {name: regress}
  tables: [{schema: $1, name: "*"}]
  protect: [$2]
  limits: {maxRows: 2000000000, maxCascadeRows: 2000000000}
M
}

# The name of the database is in the expected output of several tests.
run_suite() { # NAME
  local out=$work/$1
  mkdir -p "$out/results" "$out/testtablespace"
  give_to_server_user "$out" "$out/results" "$out/testtablespace"
  as_server_user KILL
  (cd "$out" && "${server_user[@]}" "${pg_regress[@]}" --use-existing --dbname=regression --host=127.0.0.1 --port="$port" \
    --user=postgres --bindir="$bin" --inputdir="$work/suite" --outputdir="$out" --dlpath="$work/suite" \
    --schedule="$work/suite/parallel_schedule" --max-concurrent-tests=20) >"$out/log" 2>&1 || true
  rm -rf "${kept:?}/$1"
  mkdir -p "$kept"
  cp -r "$out" "$kept/$1"
  python3 "$here/compare.py" "$1" "$kept/$1" "$here/allowed.tsv"
}

passed=0 failed=0
judge() { # NAME: runs the suite, counts its tests
  local report line
  report=$(run_suite "$1")
  printf '%s\n' "$report"
  line=${report##*$'\n'}
  passed=$((passed + ${line%% *}))
  line=${line#*, }
  failed=$((failed + ${line%% *}))
  sql "$url" -c "DROP DATABASE regression WITH (FORCE)"
  # Roles of the tests that they leave.
  sql "$url" -At -c "SELECT format('DROP ROLE %I', rolname) FROM pg_roles WHERE rolname ~ '^regress'" | sql "$url" || true
}

database_url=${url%/postgres}/regression
create_database regression
judge plain

create_database regression
sql "$database_url" -c "CREATE SCHEMA elsewhere" -c "CREATE TABLE elsewhere.orders (id int PRIMARY KEY)" \
  -c "CREATE TABLE elsewhere.items (id int PRIMARY KEY, order_id int REFERENCES elsewhere.orders ON DELETE CASCADE)"
manifest elsewhere Delete,Truncate,Drop >"$work/guard.yaml"
DATABASE_URL=$database_url "$program" apply -f "$work/guard.yaml"
judge another-schema

create_database regression
manifest public Delete >"$work/guard.yaml"
(
  trap 'exit 0' TERM
  while true; do
    if DATABASE_URL=$database_url "$program" apply -f "$work/guard.yaml" >"$work/apply.out" 2>&1; then
      echo applied
    else
      echo "exit code $?"
      tail -n 3 "$work/apply.out"
    fi
    sleep 0.5
  done
) >"$work/apply.log" 2>&1 &
applying=$!
judge glob-applied-again
kill "$applying"
wait "$applying" 2>/dev/null || true
cp "$work/apply.log" "$kept/apply.log"
echo "guards applied $(grep -c '^applied' "$work/apply.log" || true) times, not applied $(grep -c '^exit code' "$work/apply.log" || true) times (see target/regress/apply.log)"

printf '%s passed, %s failed\n' "$passed" "$failed"
(( failed == 0 && passed > 0 ))
