# shellcheck shell=bash disable=SC2154
# Steps with the operator's installation, and with what is deleted.

installed() {
  local from pods
  from=$(now)
  kubectl create namespace pgrail-system >/dev/null
  kubectl label namespace pgrail-system pod-security.kubernetes.io/enforce=restricted >/dev/null
  install_operator --set replicas=2
  local took=$(( $(now) - from ))
  must is_field_of_deployment .status.readyReplicas 2
  pods=$(kubectl -n pgrail-system get pods -l app.kubernetes.io/name=pgrail -o name)
  must await 30 "one of them is the leader" grep -q "$(leader)" <<<"$pods"
  echo "two replicas are ready after $(seconds "$took"), in a namespace with the Pod Security Standard \`restricted\`; one holds the Lease"
}
is_field_of_deployment() { [[ $(kubectl -n pgrail-system get deployment pgrail -o "jsonpath={$1}") == "$2" ]]; }

# The login of pgrail for another database of the server.
login_of() { kc get secret shop-login -o 'jsonpath={.data.uri}' | base64 -d | sed "s|/shop\$|/$1|"; }

# A namespace of another team, whose database is on the same server.
namespace_deleted() {
  psql_as SERVER_URL "CREATE DATABASE tenant OWNER shop_owner" >/dev/null
  in_database tenant "SET ROLE shop_owner; CREATE TABLE customers AS SELECT generate_series(1, 100) AS id" >/dev/null
  in_database tenant "$(kc exec toolbox -- pgrail grants --platform plain --database tenant --table-owner shop_owner)" >/dev/null
  kubectl create namespace tenant >/dev/null
  kubectl -n tenant apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {uri: "$(login_of tenant)"}
---
apiVersion: v1
kind: Service
metadata: {name: postgres}
spec: {type: ExternalName, externalName: postgres.$namespace.svc.cluster.local}
YAML
  (namespace=tenant store_keys)
  kubectl -n tenant apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: tenant}
spec: {connection: {secretRef: {name: login}}, checkInterval: 5s}
---
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: customers}
spec: {databaseRef: {name: tenant}, tables: [{schema: public, name: customers}]}
---
apiVersion: pgrail.dev/v1alpha1
kind: GuardExemption
metadata: {name: purge}
spec: {guardRefs: [{name: customers}], role: shop_app, limits: {maxRows: 50}, notAfter: "$(date -u -d '+10 minutes' +%Y-%m-%dT%H:%M:%SZ)", reason: end-to-end test}
---
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: nightly}
spec:
  databaseRef: {name: tenant}
  schedule: "0 2 1 1 *"
  storage: {url: s3://backups/tenant, endpoint: http://s3.storage.svc:9000, region: us-east-1, secretRef: {name: s3}}
YAML
  (namespace=tenant; must await 120 "the guard is enforced" is tguard customers Enforced "True Verified"
    must is gexempt purge Ready "True Active"
    must await 120 "the backup is verified" is bsched nightly BackupFresh "True Fresh")
  kubectl delete namespace tenant --wait=false >/dev/null
  must await 120 "the namespace is gone" not kubectl get namespace tenant
  local took=$awaited left
  left=$(in_database tenant "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'customers'::regclass")
  must test "$left" == 0
  psql_as SERVER_URL "DROP DATABASE tenant WITH (FORCE)" >/dev/null
  echo "gone after $(seconds "$took"), with a database, a guard, an exemption, a schedule and a backup; no trigger is left in the database"
}

leader_killed() {
  local tables=400 installed holder
  holder=$(leader)
  guard_many "$tables"
  must await 120 "the installation has begun" begun
  kubectl -n pgrail-system delete pod "$holder" --force --grace-period=0 >/dev/null 2>&1
  installed=$(with_triggers)
  must test "$installed" -lt "$tables"
  must await 300 "everything is guarded" is tguard many Enforced "True Verified"
  local took=$awaited
  must test "$(with_triggers)" == "$tables"
  must test "$(leader)" != "$holder"
  must stopped "many.t$tables"
  kc delete tguard many >/dev/null
  must test "$(with_triggers)" == 0
  admin "DROP SCHEMA many CASCADE" >/dev/null
  echo "deleted when $installed of $tables tables had a trigger; the other replica had all of them \`Enforced\` $(seconds "$took") later; \`kubectl delete\` of the guard removes all"
}

# What is installed in the database, with the transaction that wrote it.
installation() { admin "SELECT md5(string_agg(concat_ws(' ', oid, xmin, tgenabled), ',' ORDER BY oid)) FROM pg_trigger WHERE NOT tgisinternal"; }

upgraded() {
  local before attempts
  must await 60 "the guard is enforced" guarded
  before=$(installation)
  attempts=$work/attempts
  # Throughout, the delete is tried again and again.
  attempt_again_and_again >"$attempts" 2>/dev/null &
  local prober=$!
  install_operator --reset-then-reuse-values --set logLevel=debug
  must test "$(revision)" == 2
  "$HELM" rollback pgrail 1 --namespace pgrail-system --wait --timeout 3m >/dev/null
  must test "$(revision)" == 3
  must await 60 "there is a leader" leads
  kill "$prober"
  wait "$prober" 2>/dev/null || true
  must not grep -qv stopped "$attempts"
  must await 60 "the guard is enforced" guarded
  must test "$(installation)" == "$before"
  backup after-upgrade
  must await 120 "a backup succeeds" succeeded after-upgrade
  echo "\`helm upgrade\` and \`helm rollback\`: the delete was tried $(wc -l <"$attempts") times meanwhile and stopped each time; no trigger was written again; the next backup succeeds"
}
revision() { "$HELM" history pgrail --namespace pgrail-system -o json | grep -o '"revision":[0-9]*' | tail -n 1 | cut -d : -f 2; }
leads() { kubectl -n pgrail-system get pod "$(leader)"; }

# What each operator has needed since it started, and whether the kernel ended a process for its memory (control groups of either
# version).
memory() {
  local pod limit peak largest=0
  limit=$(kubectl -n pgrail-system get deployment pgrail -o 'jsonpath={.spec.template.spec.containers[0].resources.limits.memory}')
  must test "$limit" == 128Mi
  for pod in $(kubectl -n pgrail-system get pods -l app.kubernetes.io/name=pgrail -o name); do
    must test "$(in_operator "$pod" 'cat memory.max memory/memory.limit_in_bytes 2>/dev/null || true')" == 134217728
    must test "$(in_operator "$pod" 'cat memory.events memory/memory.oom_control 2>/dev/null || true' | awk '$1 == "oom_kill" { print $2 }')" == 0
    peak=$(in_operator "$pod" 'cat /proc/1/status' | awk '$1 == "VmHWM:" { print int($2 / 1024) }')
    must test "$peak" -lt 128
    if (( peak > largest )); then largest=$peak; fi
  done
  must test "$(kubectl -n pgrail-system get pods -l app.kubernetes.io/name=pgrail -o 'jsonpath={.items[*].status.containerStatuses[*].restartCount}')" == "0 0"
  echo "at most $largest MiB were resident in a replica, of the 128 MiB that the chart allows; no process was ended, no container restarted"
}
in_operator() { kubectl -n pgrail-system exec "$1" -- sh -c "cd /sys/fs/cgroup; $2"; }

# In the order of the book. One of the databases does not exist any more.
uninstalled() {
  local left
  psql_as SERVER_URL "CREATE DATABASE dropped OWNER shop_owner" >/dev/null
  in_database dropped "SET ROLE shop_owner; CREATE TABLE customers AS SELECT generate_series(1, 100) AS id" >/dev/null
  in_database dropped "$(kc exec toolbox -- pgrail grants --platform plain --database dropped --table-owner shop_owner)" >/dev/null
  kc create secret generic dropped-login --from-literal=uri="$(login_of dropped)" >/dev/null
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: dropped}
spec: {connection: {secretRef: {name: dropped-login}}, checkInterval: 5s}
YAML
  guard_table dropped dropped customers
  must await 90 "the guard is enforced" is tguard dropped Enforced "True Verified"
  psql_as SERVER_URL "DROP DATABASE dropped WITH (FORCE)" >/dev/null
  kubectl delete tguard --all -A --wait=false >/dev/null
  must await 120 "the guards are gone" none tguard
  local guards=$awaited
  must has_event dropped GuardsLeftBehind ""
  kubectl delete pgdb --all -A --wait=false >/dev/null
  must await 120 "the databases are gone" none pgdb
  left=$(admin "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'pgrail') + (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal) + (SELECT count(*) FROM pg_event_trigger)")
  must test "$left" == 0
  "$HELM" uninstall pgrail --namespace pgrail-system --wait --timeout 3m >/dev/null
  kubectl get crd databasebackups.pgrail.dev >/dev/null
  local backups
  backups=$(kc get dbbackup -o name | wc -l)
  kubectl delete crd -l app.kubernetes.io/name=pgrail --wait=false >/dev/null
  must await 60 "the CRDs are gone" not_any crd
  echo "the guards are deleted within $(seconds "$guards"), also that of a database that was dropped (Event \`GuardsLeftBehind\`); nothing of pgrail is left in the other one; \`helm uninstall\` keeps the CRDs; deleting them deletes $backups backups, too, without an operator"
}
none() { [[ -z $(kubectl get "$1" -A -o name) ]]; }
not_any() { [[ -z $(kubectl get "$1" -l app.kubernetes.io/name=pgrail -o name) ]]; }
