# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by the run.sh of e2e/node, e2e/faults and e2e/cloudnative-pg, after they set $root: a node of their own with pods, waiting,
# comparing, and the rows of a table. Everything is observed with kubectl and psql alone.

namespace=shop
now() { printf '%s\n' "$(( ${EPOCHREALTIME/./} / 1000 ))"; }
seconds() { printf '%d.%d s\n' $(( $1 / 1000 )) $(( $1 % 1000 / 100 )); }

kc() { kubectl -n "$namespace" "$@"; }
field() { kc get "$1" "$2" -o "jsonpath={$3}"; }
# condition KIND NAME TYPE: "True Reason"
condition() { kc get "$1" "$2" -o "jsonpath={.status.conditions[?(@.type=='$3')].status} {.status.conditions[?(@.type=='$3')].reason}"; }
is() { [[ $(condition "$1" "$2" "$3") == "$4" ]]; } # KIND NAME TYPE "STATUS REASON"
message() { kc get "$1" "$2" -o "jsonpath={.status.conditions[?(@.type=='$3')].message}"; }
is_field() { [[ $(field "$1" "$2" "$3") == "$4" ]]; } # KIND NAME PATH VALUE
has_event() { # NAME REASON TEXT
  kc get events --field-selector "involvedObject.name=$1,reason=$2" -o 'jsonpath={range .items[*]}{.message}{"\n"}{end}' | grep -q -- "$3"
}
gone() { ! kc get "$1" "$2" >/dev/null 2>&1; }

psql_as() { # URL-VARIABLE SQL: rows, or the SQLSTATE
  # shellcheck disable=SC2016 # expanded in the pod
  kc exec toolbox -- sh -c 'eval "url=\$$1"; exec psql -X -A -t -q -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$url" -c "$2" 2>&1' \
    sh "$1" "$2" 2>/dev/null
}
admin() { psql_as ADMIN_URL "$1"; }
app() { psql_as APP_URL "$1"; }
# Whether the guard stops the delete of every user. It is never committed.
stopped() { [[ $(attempt "${1:-users}") == stopped ]]; }
# What became of the delete: `stopped` by the guard, `passed`, or `failed` for another reason, such as a server that is down.
attempt() {
  local answer
  if answer=$(app "BEGIN; DELETE FROM ${1:-users}; ROLLBACK"); then
    echo passed
  elif [[ $answer == *PGR01* ]]; then
    echo stopped
  else
    echo failed
  fi
}
attempt_again_and_again() { while :; do attempt; done; }

guarded() { is tguard core Enforced "True Verified"; }
reachable() { [[ $(condition pgdb shop Reachable) == True* ]]; }
unreachable() { [[ $(condition pgdb shop Reachable) == False* ]]; }
answers() { [[ $(admin "SELECT 1") == 1 ]]; }
# A guard on COUNT tables. Its installation takes some seconds for each hundred of them.
guard_many() { # COUNT
  admin "SET ROLE shop_owner; CREATE SCHEMA many" >/dev/null
  admin "DO \$\$ BEGIN SET LOCAL ROLE shop_owner; FOR n IN 1..$1 LOOP EXECUTE format('CREATE TABLE many.t%s AS SELECT generate_series(1, 50) AS id', n); END LOOP; END \$\$" >/dev/null
  admin "GRANT USAGE ON SCHEMA many TO shop_app; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA many TO shop_app" >/dev/null
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: many}
spec: {databaseRef: {name: shop}, tables: [{schema: many, name: "*"}], limits: {maxRows: 10}}
YAML
}
# A guard NAME on one table of a database, for which there is a ProtectedDatabase of the same name.
guard_table() { # NAME DATABASE TABLE
  kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: $1}
spec: {databaseRef: {name: $2}, tables: [{schema: public, name: $3}]}
YAML
}
begun() { (( $(with_triggers) > 0 )); }
with_triggers() {
  admin "SELECT count(DISTINCT tgrelid) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'many'::regnamespace"
}

backup() { # NAME [ANNOTATION [SCHEDULE]]
  kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: DatabaseBackup
metadata: {name: $1, annotations: {${2:-}}}
spec: {scheduleRef: {name: ${3:-nightly}}}
YAML
}
succeeded() { is_field dbbackup "$1" .status.phase Succeeded; }

# await SECONDS WHAT COMMAND...: until the command succeeds. The time that passed is in $awaited, in milliseconds.
await() {
  local limit=$1 what=$2 from; shift 2
  from=$(now)
  until "$@" >/dev/null 2>&1; do
    if (( $(now) - from > limit * 1000 )); then
      awaited=$(( $(now) - from ))
      echo "not within $limit s: $what" >&2
      return 1
    fi
    sleep 0.2
  done
  awaited=$(( $(now) - from ))
}
# Ends the step with what does not hold.
must() { "$@" || { echo "does not hold: $*" >&2; exit 1; }; }
not() { ! "$@"; }

# start_node NAME IMAGE: a node with pgrail's image. It ends with the script, unless $keep is set. The rest of its directory, $work,
# is removed by `end_node`.
start_node() {
  name=$1 image=$2
  e2e/cluster/requirements.sh node || exit 77
  work=$(mktemp -d "${TMPDIR:-/tmp}/pgrail-$name.XXXXXX")
  trap end_node EXIT
  start_cluster
}
start_cluster() {
  local owner=(--owner $$)
  [[ -z ${keep:-} ]] || owner=()
  logged up e2e/cluster/up.sh --node --name "$name" "${owner[@]}"
  eval "$(e2e/cluster/env.sh --name "$name")"
  logged image e2e/cluster/image.sh --name "$name" --tag "$image" --binary "${PGRAIL_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/pgrail}"
}
end_node() {
  [[ -n ${keep:-} ]] || e2e/cluster/down.sh --name "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
# logged WHAT COMMAND...: the output is printed only if the command fails.
logged() {
  local log=$work/$1.log; shift
  "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
}

install_operator() { # ARGUMENT...
  "$HELM" upgrade --install pgrail charts/pgrail --namespace pgrail-system --create-namespace --wait --timeout 3m --hide-notes \
    --set image.repository="${image%:*}" --set image.tag="${image##*:}" "$@" >/dev/null
}
# The pod of the replica that is active.
leader() { kubectl -n pgrail-system get lease -o 'jsonpath={.items[0].spec.holderIdentity}'; }

random() { openssl rand -hex 16; }
# The pod `toolbox`, with psql for a superuser and for the application.
create_toolbox() { # HOST PASSWORD-OF-POSTGRES PASSWORD-OF-SHOP_APP
  kc create secret generic toolbox --from-literal=ADMIN_URL="postgres://postgres:$2@$1:5432/shop" \
    --from-literal=SERVER_URL="postgres://postgres:$2@$1:5432/postgres" \
    --from-literal=APP_URL="postgres://shop_app:$3@$1:5432/shop" >/dev/null
  sed "s|image: pgrail.dev/.*|image: $image|" demo/toolbox.yaml | kc apply -f - >/dev/null
  kc wait --for=condition=Ready pod/toolbox --timeout 120s >/dev/null
  await 60 "PostgreSQL answers" psql_as SERVER_URL "SELECT 1"
}
# The PostgreSQL of e2e/cluster/workloads with a database `shop`, the roles shop_owner and shop_app, the pod `toolbox`, and the login
# of pgrail in the Secret `shop-login`.
create_shop() {
  local superuser grants
  superuser=$(kc get secret postgres-superuser -o 'jsonpath={.data.password}' | base64 -d)
  app_password=$(random) login_password=$(random)
  kc create secret generic shop-login --from-literal=uri="postgres://pgrail:$login_password@postgres:5432/shop" >/dev/null
  create_toolbox postgres "$superuser" "$app_password"
  psql_as SERVER_URL "CREATE DATABASE shop" >/dev/null
  admin "CREATE ROLE shop_owner; CREATE ROLE shop_app LOGIN PASSWORD '$app_password';
    GRANT CREATE ON DATABASE shop TO shop_owner; GRANT CREATE, USAGE ON SCHEMA public TO shop_owner" >/dev/null
  grants=$(kc exec toolbox -- pgrail grants --platform plain --database shop --table-owner shop_owner)
  admin "$grants" >/dev/null
  admin "ALTER ROLE pgrail PASSWORD '$login_password'" >/dev/null
}
create_tables() {
  admin "SET ROLE shop_owner;
    CREATE TABLE users (id int PRIMARY KEY);
    CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
    CREATE INDEX ON orders (user_id);
    INSERT INTO users SELECT generate_series(1, 1000); INSERT INTO orders SELECT n, n % 1000 + 1 FROM generate_series(1, 100000) n;
    GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO shop_app; ANALYZE users, orders" >/dev/null
}

passed=0 failed=0 rows=()
# observe TITLE FUNCTION: runs it; the function prints what was seen, for the table.
observe() {
  local seen status
  printf '\n== %s\n' "$1" >&2
  # Not in a condition, in which errexit has no effect.
  set +e
  seen=$(set -eE; trap 'echo "failed: $BASH_COMMAND (${BASH_SOURCE[0]##*/}, line $LINENO)" >&2' ERR; "$2")
  status=$?
  set -e
  if (( status == 0 )); then
    passed=$((passed + 1))
    rows+=("| $1 | $seen |")
    printf 'ok: %s\n' "$seen" >&2
  else
    failed=$((failed + 1))
    rows+=("| $1 | **failed** |")
    printf 'FAILED: %s\n' "$1" >&2
    kc get pgrail -o wide >&2 || true
    kc get pods >&2 || true
    kc get pgdb,tguard,bsched,dbbackup,gexempt,dbrestore -o 'jsonpath={range .items[*]}{.kind}/{.metadata.name}{range .status.conditions[*]}{"\n   "}{.type}={.status} {.reason}: {.message}{end}{"\n"}{end}' >&2 || true
    kubectl -n pgrail-system logs -l app.kubernetes.io/name=pgrail --tail 15 --prefix >&2 || true
  fi
}

# run FUNCTION TITLE: observes it, unless $only names others.
run() { if [[ -z ${only:-} || " $only " == *" $1 "* ]]; then observe "$2" "$1"; fi; }

versions() {
  echo "PostgreSQL $(psql_as SERVER_URL 'SHOW server_version' | cut -d ' ' -f 1), Kubernetes $(kubectl version -o json | sed -n 's/.*"gitVersion": "v\([0-9.]*\).*/\1/p' | tail -n 1)"
}
# write_page PAGE FIRST-COLUMN SCRIPT VERSIONS: replaces the table of a page.
write_page() {
  {
    sed '/^<!-- result/,$d' "$1"
    printf '<!-- result: written by %s -->\nRun on %s with %s:\n\n' "$3" "$(date -u +%Y-%m-%d)" "$4"
    printf '| %s | What was seen |\n| --- | --- |\n' "$2"
    printf '%s\n' "${rows[@]}"
  } >"$work/page" && cp "$work/page" "$1"
}
