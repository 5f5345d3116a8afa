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
source "$root/e2e/node/lib.sh"
source "$here/guard.sh"
source "$here/backup.sh"
source "$here/cluster.sh"
only=${FAULTS:-} keep=${FAULTS_KEEP:-}

echo "== a node, PostgreSQL, an S3 server, the operator" >&2
start_node "faults-$(( $$ % 100000 ))" pgrail.dev/pgrail:faults
logged workloads e2e/cluster/workloads/up.sh --name "$name" "$namespace" postgres s3
install_operator
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
create_shop
create_tables
admin "CREATE ROLE other_owner; GRANT CREATE, USAGE ON SCHEMA public TO other_owner; GRANT REFERENCES ON orders TO other_owner" >/dev/null
kc wait --for=condition=Ready pod/shell --timeout 120s >/dev/null
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

found=$(versions)
run schema_dropped "\`DROP SCHEMA pgrail CASCADE\`"
run trigger_disabled "\`ALTER TABLE users DISABLE TRIGGER ALL\`, while another table cannot be guarded"
run renamed "a guarded table is renamed"
run wrong_secret "the password of pgrail's role is changed, and the Secret later"
run server_down "PostgreSQL is scaled to 0 and back"
run operator_killed "the pod of the operator is deleted without grace in the middle of an installation"
run leader_lost "of two replicas of the operator, the pod of the leader is deleted without grace"
run apiserver_down "the apiserver is down for half a minute"
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
if [[ -z $only ]] && (( failed == 0 )); then
  write_page docs/src/faults.md Fault e2e/faults/run.sh "$found, and a \`checkInterval\` of 5 s"
fi
echo "$passed passed, $failed failed"
(( failed == 0 ))
