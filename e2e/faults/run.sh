#!/usr/bin/env bash
# run.sh: the faults that a user can cause, on a real node with real pods, seen from outside: kubectl and psql only. Writes the
# table of docs/src/faults.md. Root; half an hour; not part of `make test`.
#   FAULTS="renamed dump_lost"   only these
#   FAULTS_KEEP=1                leaves the node running
# shellcheck disable=SC1090,SC1091
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
cd "$root"
source "$here/lib.sh"
source "$here/guard.sh"
source "$here/backup.sh"
source "$here/cluster.sh"
e2e/cluster/requirements.sh node || exit 77
program=${PGRAIL_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/pgrail}
name=faults-$(( $$ % 100000 )) image=pgrail.dev/pgrail:faults
work=$(mktemp -d "${TMPDIR:-/tmp}/pgrail-faults.XXXXXX")
finish() {
  [[ -n ${FAULTS_KEEP:-} ]] || e2e/cluster/down.sh --name "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
owner=(--owner $$)
[[ -z ${FAULTS_KEEP:-} ]] || owner=()

echo "== a node, PostgreSQL, an S3 server, the operator" >&2
e2e/cluster/up.sh --node --name "$name" "${owner[@]}" >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; exit 1; }
eval "$(e2e/cluster/env.sh --name "$name")"
e2e/cluster/image.sh --name "$name" --tag "$image" --binary "$program" >/dev/null
e2e/cluster/workloads/up.sh --name "$name" "$namespace" postgres s3 >"$work/workloads.log" 2>&1 || { cat "$work/workloads.log" >&2; exit 1; }
"$HELM" upgrade --install pgrail charts/pgrail --namespace pgrail-system --create-namespace --wait --timeout 3m --hide-notes \
  --set image.repository=pgrail.dev/pgrail --set image.tag=faults >/dev/null

random() { openssl rand -hex 16; }
superuser=$(kc get secret postgres-superuser -o 'jsonpath={.data.password}' | base64 -d) app_password=$(random) login_password=$(random)
kc create secret generic toolbox --from-literal=ADMIN_URL="postgres://postgres:$superuser@postgres:5432/shop" \
  --from-literal=SERVER_URL="postgres://postgres:$superuser@postgres:5432/postgres" \
  --from-literal=APP_URL="postgres://shop_app:$app_password@postgres:5432/shop" >/dev/null
kc create secret generic shop-login --from-literal=uri="postgres://pgrail:$login_password@postgres:5432/shop" >/dev/null
sed "s|image: pgrail.dev/.*|image: $image|" demo/toolbox.yaml | kc apply -f - >/dev/null
# A shell with the volume of the S3 server: what another program does to a bucket.
kc apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: shell
      image: $image
      command: [sleep, infinity]
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: s3}}]
YAML
kc wait --for=condition=Ready pod/toolbox pod/shell --timeout 120s >/dev/null
await 60 "PostgreSQL answers" psql_as SERVER_URL "SELECT 1"
psql_as SERVER_URL "CREATE DATABASE shop" >/dev/null
admin "CREATE ROLE shop_owner; CREATE ROLE other_owner; CREATE ROLE shop_app LOGIN PASSWORD '$app_password';
  GRANT CREATE ON DATABASE shop TO shop_owner; GRANT CREATE, USAGE ON SCHEMA public TO shop_owner, other_owner; SET ROLE shop_owner;
  CREATE TABLE users (id int PRIMARY KEY);
  CREATE TABLE orders (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users ON DELETE CASCADE);
  CREATE INDEX ON orders (user_id);
  INSERT INTO users SELECT generate_series(1, 1000); INSERT INTO orders SELECT n, n % 1000 + 1 FROM generate_series(1, 100000) n;
  GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO shop_app;
  GRANT REFERENCES ON orders TO other_owner; ANALYZE users, orders" >/dev/null
grants=$(kc exec toolbox -- pgrail grants --platform plain --database shop --table-owner shop_owner)
admin "$grants" >/dev/null
admin "ALTER ROLE pgrail PASSWORD '$login_password'" >/dev/null
kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: shop}
spec: {connection: {secretRef: {name: shop-login}}, applicationRoles: [shop_app], checkInterval: 5s}
---
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: core}
spec: {databaseRef: {name: shop}, tables: [{schema: public, name: users}], limits: {maxRows: 10, maxCascadeRows: 5000}}
---
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: nightly}
spec:
  databaseRef: {name: shop}
  schedule: "0 2 1 1 *"
  runOnCreate: false
  storage: {url: s3://backups/shop, endpoint: http://s3:9000, region: us-east-1, secretRef: {name: s3}}
  retention: {minKeep: 1, keepLast: 1, keepDaily: 0, keepWeekly: 0, keepMonthly: 0}
YAML
await 90 "the guard is enforced" guarded
must stopped
backup first
await 120 "the first backup" succeeded first

selected() { [[ -z ${FAULTS:-} || " $FAULTS " == *" $1 "* ]]; }
run() { if selected "$1"; then fault - "$2" "$1"; fi; }
run schema_dropped "\`DROP SCHEMA pgrail CASCADE\`"
run trigger_disabled "\`ALTER TABLE users DISABLE TRIGGER ALL\`, while another table cannot be guarded"
run renamed "a guarded table is renamed"
run wrong_secret "the password of pgrail's role is changed, and the Secret later"
run server_down "PostgreSQL is scaled to 0 and back"
run operator_killed "the pod of the operator is deleted without grace in the middle of an installation"
run leader_lost "of two replicas of the operator, the pod of the leader is deleted without grace"
run hostile_tenant "another tenant declares 100 databases on a server that completes every login and answers nothing"
run series_end "a guard is deleted: its metrics"
run bad_input "duplicate selectors, an impossible cron field, an unknown time zone, a link-local endpoint of a store"
run scaled_by_hand "\`kubectl scale\` of the operator, then \`helm upgrade\`"
run backup_refused "a backup that cannot start"
run store_down "the store is down when a backup starts"
run wrong_keys "wrong keys of the store, corrected later"
run dump_lost "another program removes a dump from the store"
run object_lost "the object of a backup is deleted"
run store_emptied "another program empties the bucket"
run run_missed "a run is missed, since the controller manager is down beyond \`startingDeadlineSeconds\`"
run node_lost "the node is lost while a dump runs"

printf '%s\n' "${rows[@]}"
if [[ -z ${FAULTS:-} ]] && (( failed == 0 )); then
  page=docs/src/faults.md
  versions="PostgreSQL $(admin 'SHOW server_version' | cut -d ' ' -f 1), Kubernetes $(kubectl version -o json | sed -n 's/.*"gitVersion": "v\([0-9.]*\).*/\1/p' | tail -n 1)"
  {
    sed '/^<!-- result/,$d' "$page"
    printf '<!-- result: written by e2e/faults/run.sh -->\nRun on %s with %s, and a `checkInterval` of 5 s:\n\n' "$(date -u +%Y-%m-%d)" "$versions"
    printf '| Fault | What was seen |\n| --- | --- |\n'
    printf '%s\n' "${rows[@]}"
  } >"$work/page" && cp "$work/page" "$page"
fi
echo "$passed passed, $failed failed"
(( failed == 0 ))
