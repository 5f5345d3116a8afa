#!/usr/bin/env bash
# Tests docs/src/reference/errors.md with real drivers: the exception of each Python driver in its table, and its Python
# examples. Installs the drivers with pip into a virtual environment, so it needs a network and is not part of `make test`.
#   docs/drivers.sh             needs target/debug/pgrail (cargo build) and starts a PostgreSQL server (e2e/postgres)
# The last line is `N passed, N failed`.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
if [[ ${1:-} != --with-server ]]; then
  PGRAIL_TEST_MAJORS=18 PGRAIL_TEST_POOLER=no exec e2e/postgres/servers.sh with "$0" --with-server
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --disable-pip-version-check 'psycopg[binary]' psycopg2-binary sqlalchemy django asyncpg

server=${PGRAIL_TEST_SERVERS#18=}
address=${server#*@}
address=${address%/*}
"$PGRAIL_TEST_PG_BIN_18/psql" --quiet --set ON_ERROR_STOP=1 "$server" <<'SQL'
CREATE DATABASE drivers;
CREATE ROLE shop_owner;
CREATE ROLE shop_app LOGIN PASSWORD 'x';
CREATE ROLE pgrail LOGIN PASSWORD 'x' IN ROLE shop_owner;
GRANT CREATE ON DATABASE drivers TO pgrail;
\c drivers
GRANT CREATE ON SCHEMA public TO shop_owner;
SET ROLE shop_owner;
CREATE TABLE users (id int PRIMARY KEY);
CREATE TABLE leads (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE);
INSERT INTO users VALUES (1);
INSERT INTO leads SELECT number, 1 FROM generate_series(1, 5000) AS number;
GRANT ALL ON users, leads TO shop_app;
SQL
cat >"$scratch/guard.yaml" <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: core, namespace: shop}
spec:
  databaseRef: {name: shop}
  tables: [{schema: public, name: users}]
YAML
target/debug/pgrail apply -f "$scratch/guard.yaml" --database-url "postgres://pgrail:x@$address/drivers"
"$scratch/venv/bin/python" docs/drivers.py docs/src/reference/errors.md "postgres://shop_app:x@$address/drivers"
