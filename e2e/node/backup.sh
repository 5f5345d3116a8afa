# shellcheck shell=bash disable=SC2154
# Steps with backups: drills, restores, and a cluster that has nothing left but the store.

# Beside users and orders: what a restore can get wrong. Deleting user 42 removes more than 40,000 rows.
create_more_tables() {
  admin "CREATE EXTENSION citext; SET ROLE shop_owner;
    INSERT INTO orders SELECT n, 42 FROM generate_series(100001, 120000) n;
    CREATE TYPE state AS ENUM ('new', 'paid');
    CREATE TABLE items (order_id int REFERENCES orders ON DELETE CASCADE, n int, price numeric NOT NULL,
      total numeric GENERATED ALWAYS AS (price * n) STORED, state state NOT NULL DEFAULT 'new', PRIMARY KEY (order_id, n));
    INSERT INTO items (order_id, n, price) SELECT id, 1, id % 100 + 0.5 FROM orders;
    CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int REFERENCES users ON DELETE SET NULL, text citext UNIQUE);
    CREATE INDEX ON notes (user_id);
    INSERT INTO notes (user_id, text) SELECT n % 1000 + 1, 'Note ' || n FROM generate_series(1, 2000) n;
    CREATE MATERIALIZED VIEW spending AS SELECT user_id, sum(total) FROM orders JOIN items ON order_id = orders.id GROUP BY user_id;
    GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO shop_app; ANALYZE" >/dev/null
}

# The columns that the rows of the shop are compared by.
all_rows="SELECT 'user ' || u::text AS row FROM users u UNION ALL SELECT 'order ' || o::text FROM orders o
  UNION ALL SELECT 'item ' || i::text FROM items i UNION ALL SELECT 'note ' || n::text FROM notes n"
in_database() { # NAME SQL
  # shellcheck disable=SC2016 # expanded in the pod
  kc exec toolbox -- sh -c 'PGOPTIONS="-c client_min_messages=warning" exec psql -X -A -t -q -v ON_ERROR_STOP=1 "${SERVER_URL%/postgres}/$1" -c "$2"' sh "$1" "$2"
}
# The number of rows of a database, and a digest of their contents.
digest() { in_database "${1:-shop}" "SELECT count(*) || ' ' || md5(string_agg(row, '|' ORDER BY row)) FROM ($all_rows) AS rows"; }

# settled KIND NAME: the operator has carried out the spec as it is now.
settled() { [[ $(field "$1" "$2" .status.observedGeneration) == "$(field "$1" "$2" .metadata.generation)" ]]; }
patch_schedule() { # NAME JSON
  kc patch bsched "$1" --type merge -p "$2" >/dev/null
  await 60 "the schedule $1 is carried out" settled bsched "$1"
}
schedule() { # NAME: standard input is added to its spec
  {
    cat <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: $1}
spec:
  databaseRef: {name: shop}
  schedule: "0 2 1 1 *"
  storage: {url: s3://backups/shop, endpoint: http://s3.storage.svc:9000, region: us-east-1, secretRef: {name: s3}}
  scratch: {size: 1Gi}
  retention: {keepLast: 20}
YAML
    cat
  } | kc apply -f - >/dev/null
}
# The keys of the store, which is not of this namespace.
store_keys() {
  kubectl -n storage get secret s3 -o json | sed 's/"namespace": "storage"/"namespace": "'"$namespace"'"/; /"uid"/d; /"resourceVersion"/d' |
    kc apply -f - >/dev/null
}
backup_of() { kc get dbbackup -l "pgrail.dev/schedule=$1" -o 'jsonpath={.items[0].metadata.name}'; }

backed_up() {
  local name
  store_keys
  schedule nightly <<'YAML'
  verification:
    drill:
      schedule: "0 5 1 1 *"
      queries:
        - {name: users, sql: SELECT count(*) FROM users, expect: "= 1000"}
        - {name: totals, sql: SELECT min(total) > 0 FROM items, expect: t}
YAML
  must await 180 "the first backup is verified" is bsched nightly BackupFresh "True Fresh"
  local took=$awaited
  name=$(backup_of nightly)
  must is dbbackup "$name" Ready "True ReadBack"
  must is_field dbbackup "$name" .status.verification.structure.outcome Restored
  must is bsched nightly Verified "True ReadBack"
  local count
  count=$(digest) count=${count% *}
  must is_field dbbackup "$name" .status.rows "$count"
  echo "$count rows in the store $(seconds "$took") after \`kubectl apply\`, every byte read back, structure restored"
}

# drill JOB SCHEDULE "STATUS REASON": starts a drill as the book says, and waits for its result.
drill() {
  must await 60 "the CronJob of the drills exists" kc get cronjob "$2-drill"
  kc create job "$1" --from="cronjob/$2-drill" >/dev/null
  must await 300 "the drill has ended" is_field bsched "$2" .status.lastDrill.job "$1"
  is bsched "$2" Drilled "$3" || { echo "Drilled: $(condition bsched "$2" Drilled): $(message bsched "$2" Drilled)" >&2; kc logs "job/$1" --all-containers --tail 20 >&2; exit 1; }
}
drilled_all() { # JOB SCHEDULE: every row was restored
  local count
  drill "$1" "$2" "True AllRestored"
  count=$(digest) count=${count% *}
  must is_field bsched "$2" .status.lastDrill.outcome Restored
  must is_field bsched "$2" .status.lastDrill.rows "$count"
  seen="\`AllRestored\`: $count rows in $(field bsched "$2" .status.lastDrillSeconds) s"
}

drilled() {
  local from claim
  from=$(now)
  drilled_all drill-now nightly
  local took=$(( $(now) - from ))
  must is_field bsched nightly '.status.lastDrill.queries[?(@.passed==true)].name' "users totals"
  must is_field dbbackup "$(backup_of nightly)" .status.verification.level Drill
  must has_event nightly DrillSucceeded ""
  claim=$(kc get pvc -o name | grep scratch)
  kc delete job drill-now >/dev/null
  must await 60 "the volume is gone" not kc get "$claim"
  echo "$seen, $(seconds "$took") after \`kubectl create job\`; both queries passed; the volume is deleted with the Job"
}

drill_query_failed() {
  patch_schedule nightly '{"spec": {"verification": {"drill": {"queries": [{"name": "users", "sql": "SELECT count(*) FROM users", "expect": "> 5000"}]}}}}'
  drill drill-query nightly "False QueryFailed"
  must grep -q 1000 <<<"$(message bsched nightly Drilled)"
  must has_event nightly DrillFailed ""
  echo "\`QueryFailed\`: \"$(message bsched nightly Drilled)\""
  patch_schedule nightly '{"spec": {"verification": {"drill": {"queries": [{"name": "users", "sql": "SELECT count(*) FROM users", "expect": "= 1000"}]}}}}'
}

# As OpenShift does: a user ID that no image knows.
drill_any_user() {
  patch_schedule nightly '{"spec": {"podTemplate": {"securityContext": {"runAsUser": 1000770000, "runAsGroup": 1000770000}}}}'
  drilled_all drill-any-user nightly
  backup by-any-user
  must await 180 "a backup as this user" succeeded by-any-user
  must is_field dbbackup by-any-user .status.verification.structure.outcome Restored
  echo "$seen; a backup as this user, with its structural drill, succeeds"
}

drill_other_image() {
  local uid other
  uid=$(kc exec postgres-0 -- id -u postgres)
  patch_schedule nightly "{\"spec\": {\"podTemplate\": {\"securityContext\": {\"runAsUser\": $uid, \"runAsGroup\": null}},
    \"verification\": {\"drill\": {\"image\": \"pgrail.dev/postgresql:18\"}}}}"
  drilled_all drill-other-image nightly
  patch_schedule nightly '{"spec": {"podTemplate": {"securityContext": {"runAsUser": 1000770000}}}}'
  drill drill-no-name nightly "False NotRun"
  other=$(message bsched nightly Drilled)
  must grep -q "initdb: could not look up effective user ID" <<<"$other"
  patch_schedule nightly '{"spec": {"podTemplate": {"securityContext": null}, "verification": {"drill": {"image": null}}}}'
  echo "as the user \`postgres\` of the image ($uid): $seen; as a user without a name in the image: \`NotRun\`, with the error of \`initdb\`"
}

sealed() {
  local name key
  key=$("$(e2e/cluster/tools.sh age)/age-keygen" -o "$work/backup-key.txt" 2>&1 | sed -n 's/^Public key: //p')
  kc create secret generic backup-key --from-file=identity="$work/backup-key.txt" >/dev/null
  schedule sealed <<YAML
  encryption: {ageRecipients: [$key]}
  decryption: {identitySecretRef: {name: backup-key}}
  verification: {drill: {schedule: "0 5 1 1 *"}}
YAML
  must await 180 "the encrypted backup is verified" is bsched sealed BackupFresh "True Fresh"
  name=$(backup_of sealed)
  must is_field dbbackup "$name" .status.encrypted true
  must is_field dbbackup "$name" .status.verification.structure.outcome Restored
  drilled_all drill-sealed sealed
  kc delete secret backup-key >/dev/null
  drill drill-sealed-blind sealed "False NotRun"
  echo "structure restored; $seen; without the private key, the drill is \`NotRun\`"
}

restored() { is_field dbrestore "$1" .status.phase Succeeded; }
# Ends early if it failed, or waits for a user.
restore_succeeds() { # NAME
  must await 240 "the restore ends" restore_ended "$1"
  restored "$1" || { kc get dbrestore "$1" -o 'jsonpath={.status}' >&2; exit 1; }
}
restore_ended() { [[ $(field dbrestore "$1" .status.phase) =~ ^(Succeeded|Failed)$ || $(condition dbrestore "$1" Stalled) == True* ]]; }

one_user_restored() {
  local before after deleted
  before=$(digest)
  must test "$(app "BEGIN; DELETE FROM users WHERE id = 42; COMMIT" || true)" != ""
  must test "$(digest)" == "$before"
  kc delete tguard core >/dev/null
  app "DELETE FROM users WHERE id = 42" >/dev/null
  after=$(digest)
  deleted=$(( ${before% *} - ${after% *} ))
  must test "$deleted" -gt 40000
  kc create secret generic backup-key --from-file=identity="$work/backup-key.txt" >/dev/null
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: DatabaseRestore
metadata: {name: user-42, annotations: {pgrail.dev/allow-in-place: "true"}}
spec:
  source: {scheduleRef: {name: sealed}}
  decryption: {identitySecretRef: {name: backup-key}}
  tables: [{schema: public, name: users, where: "id = 42"}]
  followCascade: true
  target: {databaseRef: {name: shop}, mode: InPlace}
YAML
  restore_succeeds user-42
  must test "$(digest)" == "$before"
  must is_field dbrestore user-42 .status.restoredRows "$deleted"
  guard_shop
  must await 60 "the guard is enforced" guarded
  must stopped
  echo "with the guard, the delete was stopped; without it, it removed $deleted rows; all of them, and $(field dbrestore user-42 .status.restoredLinks) links that it had set to NULL, restored from the encrypted backup in $(field dbrestore user-42 .status.seconds) s: the tables are as before"
}

# Nothing is left but the bucket and the private key: another server, an empty database, the same manifests.
disaster() {
  local before count
  before=$(digest)
  count=$(in_phase Succeeded)
  kubectl delete namespace "$namespace" --wait=false >/dev/null
  must await 180 "the namespace is gone" not kubectl get namespace "$namespace"
  local took=$awaited
  set_up_again
  must await 180 "the backups are recorded" found "$count"
  local listed=$awaited
  recover_both "$before"
  in_database postgres "ALTER DATABASE shop WITH ALLOW_CONNECTIONS false" >/dev/null
  in_database postgres "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('shop', 'recovered')" >/dev/null
  in_database postgres "ALTER DATABASE shop RENAME TO shop_empty" >/dev/null
  in_database postgres "ALTER DATABASE recovered RENAME TO shop" >/dev/null
  in_database shop "GRANT CONNECT ON DATABASE shop TO shop_app; GRANT USAGE ON SCHEMA public TO shop_app; GRANT SELECT, DELETE ON ALL TABLES IN SCHEMA public TO shop_app" >/dev/null
  guard_shop
  must await 90 "the guard is enforced in the restored database" guarded
  must stopped
  echo "the namespace was deleted within $(seconds "$took"); all $count backups were \`Discovered\` $(seconds "$listed") after their schedules were created; one of each, also of the encrypted ones, restored into a new database: ${before% *} rows, the same as before; guarded again"
}
# As the book says: an empty database, and the objects as they were.
set_up_again() {
  logged again e2e/cluster/workloads/up.sh --name "$name" "$namespace" postgres
  create_shop
  admin "ALTER ROLE pgrail CREATEDB" >/dev/null
  store_keys
  kc create secret generic backup-key --from-file=identity="$work/backup-key.txt" >/dev/null
  declare_shop
  schedule nightly <<<'  runOnCreate: false'
  schedule sealed <<<'  runOnCreate: false'
}
recover_both() { # DIGEST
  recover nightly "" recovered
  must test "$(digest recovered)" == "$1"
  recover sealed 'decryption: {identitySecretRef: {name: backup-key}}' recovered_sealed
  must test "$(digest recovered_sealed)" == "$1"
}

# The cluster is ended with everything in it. The bucket, its keys and the private key are outside of it; the bucket is copied from
# one S3 server to another, since that is a workload of the cluster here.
cluster_lost() {
  local lost before count from name_of
  lost=$(cluster_id)
  before=$(digest)
  kubectl -n storage get secret s3 -o json | sed '/"uid"/d; /"resourceVersion"/d' >"$work/store-keys.json"
  cp -a "$(directory_of_store)" "$work/store"
  count=$(find "$work/store/backups/shop/$lost/$namespace"/{nightly,sealed} -name manifest.json | wc -l)
  must test "$count" -gt 1
  e2e/cluster/down.sh --name "$name" >/dev/null 2>&1
  start_cluster
  must test "$(cluster_id)" != "$lost"
  kubectl create namespace storage >/dev/null
  kubectl apply -f "$work/store-keys.json" >/dev/null
  logged storage e2e/cluster/workloads/up.sh --name "$name" storage s3
  cp -a "$work/store/." "$(directory_of_store)"
  installed >/dev/null
  set_up_again
  for name_of in nightly sealed; do
    must await 180 "the lost cluster is named" is bsched "$name_of" ClusterAdopted "False OtherCluster"
    must grep -q "annotate bsched $name_of pgrail.dev/adopt-cluster=$lost" <<<"$(message bsched "$name_of" ClusterAdopted)"
  done
  must found 0
  from=$(now)
  kc annotate bsched nightly sealed "pgrail.dev/adopt-cluster=$lost" >/dev/null
  must await 180 "the backups are recorded" found "$count"
  local listed=$(( $(now) - from ))
  kc wait --for=condition=ClusterAdopted --timeout=60s bsched/nightly bsched/sealed >/dev/null
  recover_both "$before"
  backup after-loss
  must await 180 "a backup of the new cluster succeeds" succeeded after-loss
  must is bsched nightly RetentionHealthy "True Retained"
  must diff -r "$work/store/backups/shop/$lost" "$(directory_of_store)/backups/shop/$lost" >&2
  echo "another cluster has nothing but the bucket and the private key; \`ClusterAdopted\` names the ID of the lost one; all $count backups were \`Discovered\` $(seconds "$listed") after the annotation; one of each schedule, also of the encrypted one, restored into a new database: ${before% *} rows, the same as before; no byte of the lost cluster's directory has changed"
}
cluster_id() { kubectl get namespace kube-system -o 'jsonpath={.metadata.uid}'; }
# Where the node keeps the volume of the S3 server.
directory_of_store() {
  local run
  run=$(source e2e/cluster/lib.sh; run_dir "$name")
  echo "$run/node/volumes/$(kubectl -n storage get pvc s3 -o 'jsonpath={.spec.volumeName}')"
}
in_phase() { kc get dbbackup -o "jsonpath={.items[?(@.status.phase=='$1')].metadata.name}" | wc -w; }
found() { [[ $(in_phase Discovered) == "$1" ]]; }
# `kubectl pgrail adopt`
adopt() {
  ln -sf "$(realpath "${PGRAIL_BIN:-${CARGO_TARGET_DIR:-$root/target}/debug/pgrail}")" "$work/kubectl-pgrail"
  "$work/kubectl-pgrail" adopt "$1" -n "$namespace"
}
recover() { # SCHEDULE SPEC DATABASE: the newest that was found
  local backup
  backup=$(kc get dbbackup -l "pgrail.dev/schedule=$1" --sort-by .status.startTime -o 'jsonpath={.items[-1:].metadata.name}')
  adopt "$backup" >/dev/null
  kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: DatabaseRestore
metadata: {name: ${3//_/-}}
spec:
  source: {backupRef: {name: $backup}}
  target: {databaseRef: {name: shop}, name: $3}
  $2
YAML
  restore_succeeds "${3//_/-}"
}
