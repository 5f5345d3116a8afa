# shellcheck shell=bash disable=SC2154
# Steps with Clusters of CloudNativePG, and with guards of their databases.

# The image of the operator, as its release makes it: the manager, and a copy for each architecture that the pods of instances run.
load_cloudnative_pg() {
  e2e/cluster/tiny-image.sh --add "operator/manager_$(dpkg --print-architecture)=$tools/manager" \
    "pgrail.dev/cloudnative-pg:$cloudnative_pg" "$tools/manager" >"$work/cloudnative-pg.tar"
  logged load e2e/cluster/load.sh --name "$name" "$work/cloudnative-pg.tar"
  rm "$work/cloudnative-pg.tar"
}

cloudnative_pg_installed() {
  local from
  from=$(now)
  # As it is, except for the image, which is not pulled.
  sed "s|[^ ]*/cloudnative-pg:$cloudnative_pg|pgrail.dev/cloudnative-pg:$cloudnative_pg|; s|imagePullPolicy: Always|imagePullPolicy: IfNotPresent|" \
    "$tools/cnpg.yaml" | kubectl apply --server-side -f - >/dev/null
  must kubectl -n cnpg-system rollout status deployment/cnpg-controller-manager --timeout 180s >/dev/null
  must await 60 "its webhook answers" cluster_accepted
  echo "the manifest of the release $cloudnative_pg, its programs compiled from the Go module; ready after $(seconds $(( $(now) - from )))"
}
cluster_accepted() { cluster probe </dev/null | kc apply --dry-run=server -f -; }

# cluster NAME [INSTANCES DATABASE]: a manifest. The image has no user `postgres` with the ID of CloudNativePG's images, but one with this ID. Standard
# input is added to the managed roles.
cluster() {
  cat <<YAML
apiVersion: postgresql.cnpg.io/v1
kind: Cluster
metadata: {name: $1}
spec:
  instances: ${2:-2}
  imageName: pgrail.dev/postgresql:$major
  postgresUID: 65532
  postgresGID: 65532
  enableSuperuserAccess: true
  bootstrap: {initdb: {database: ${3:-shop}, owner: shop_owner}}
  storage: {size: 1Gi}
  postgresql: {parameters: {log_connections: "on"}}
  managed:
    roles:
      - {name: shop_app, login: true, passwordSecret: {name: shop-application}}
YAML
  cat
}
key_of() { kc get secret "$1" -o "jsonpath={.data.$2}" | base64 -d; } # SECRET KEY
primary() { field cluster "${1:-shop}" .status.currentPrimary; }
standby() { kc get pods -l "cnpg.io/cluster=shop,cnpg.io/instanceRole=replica" -o 'jsonpath={.items[0].metadata.name}'; }
instances_are() { [[ $(field cluster "$1" .status.readyInstances) == "$2" && $(field cluster "$1" .status.phase) == *healthy* ]]; }
# CloudNativePG has carried out the roles as they are now.
roles_reconciled() { [[ $(field cluster "$1" ".status.managedRolesStatus.byStatus.reconciled") == *"$2"* ]]; }

cluster_ready() {
  kc create secret generic shop-application --type kubernetes.io/basic-auth --from-literal=username=shop_app \
    --from-literal=password="$(random)" >/dev/null
  cluster shop </dev/null | kc apply -f - >/dev/null
  must await 300 "two instances are ready" instances_are shop 2
  local took=$awaited keys
  must await 60 "the role of the application is there" roles_reconciled shop shop_app
  keys=$(kc get secret shop-app -o 'go-template={{range $key, $value := .data}}, `{{$key}}`{{end}}')
  must test "$(key_of shop-app uri | sed 's|:[^:@/]*@|:PASSWORD@|')" == "postgresql://shop_owner:PASSWORD@shop-rw.shop:5432/shop"
  create_toolbox shop-rw "$(key_of shop-superuser password)" "$(key_of shop-application password)"
  create_tables
  create_more_tables
  versions >"$work/versions"
  echo "ready after $(seconds "$took"), \`$(primary)\` is the primary; the Secret \`shop-app\` has the keys ${keys#, }; \`uri\` is \`postgresql://shop_owner:PASSWORD@shop-rw.shop:5432/shop\`"
}

undeclared() {
  declare_policy "backups: {required: false}"
  must await 90 "the Cluster is reported" violated Undeclared
  must grep -q "Undeclared:shop/shop:clusters.postgresql.cnpg.io/shop" <<<"$(violations)"
  echo "\`ViolationsFound\`: \`Undeclared\`, \`clusters.postgresql.cnpg.io/shop\`"
}

guarded_as_owner() {
  local seen
  seen=$(guard_enforced shop-app)
  must await 90 "the Cluster is declared" not violated Undeclared
  kubectl delete gpolicy production >/dev/null
  # The owner, with the login of the Secret.
  must test "$(as_owner "BEGIN; DELETE FROM users; ROLLBACK" || true)" == "ERROR:  PGR01"
  must is pgdb shop LeastPrivilege "False TableOwner"
  echo "$seen; the delete of all users is stopped for their owner, too; \`LeastPrivilege\` is \`False\` (\`TableOwner\`); the policy no longer reports the Cluster"
}
as_owner() { # SQL
  # shellcheck disable=SC2016 # expanded in the pod
  key_of shop-app uri | kc exec -i toolbox -- sh -c 'exec psql -X -A -t -q -v ON_ERROR_STOP=1 -v VERBOSITY=sqlstate "$(cat)" -c "$1" 2>&1' sh "$1"
}

standby_refused() {
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: standby}
spec: {connection: {secretRef: {name: shop-app}, host: shop-ro}}
YAML
  must await 60 "the host is refused" is pgdb standby Reachable "False HostNotAllowed"
  kc annotate secret shop-app pgrail.dev/allow-host-override=true >/dev/null
  must await 90 "it is a standby" is pgdb standby Ready "False ReadOnlyServer"
  kc delete pgdb standby >/dev/null
  kc annotate secret shop-app pgrail.dev/allow-host-override- >/dev/null
  echo "\`HostNotAllowed\`, since the Secret contains another host; with the annotation \`pgrail.dev/allow-host-override\` on the Secret: \`ReadOnlyServer\`"
}

# The role as the example declares it, and the privileges as the page of the platforms describes.
managed_role() {
  sed -n 's/^#   //p' examples/cloudnative-pg.yaml | sed 's/\[shop, /[shop_owner, /' >"$work/roles.yaml"
  sed "s/change-me/$(random)/" examples/cloudnative-pg.yaml | kc apply -f - >/dev/null 2>&1
  kc patch cluster shop --type merge --patch-file "$work/roles.yaml" >/dev/null
  must await 60 "the role is there" roles_reconciled shop pgrail
  kc exec toolbox -- pgrail grants --platform cloudnative-pg --database shop --table-owner shop_owner |
    kubectl cnpg -n shop psql shop -- -v ON_ERROR_STOP=1 shop >/dev/null 2>&1
  kc patch pgdb shop --type merge -p '{"spec": {"checkInterval": "5s"}}' >/dev/null
  must await 90 "the database is reached as this role" is pgdb shop LeastPrivilege "True DedicatedRole"
  must is pgdb shop Reachable "True Connected"
  must await 60 "the owner can log in" is tguard core TamperResistant "False OwnerCanDisable"
  must await 60 "both guards are enforced" is tguard everything Enforced "True Verified"
  must await 60 "the guard is enforced" guarded
  must stopped
  # CloudNativePG carries out the roles once more, and resets what its spec does not contain, and that alone.
  admin "GRANT pg_monitor TO pgrail" >/dev/null
  kc patch cluster shop --type json -p '[{"op": "add", "path": "/spec/managed/roles/0/comment", "value": "guards and backups"}]' >/dev/null
  must await 120 "the roles are carried out again" commented
  must await 120 "the other membership is revoked" privileges_are "t pg_read_all_data,shop_owner"
  must await 60 "the guard is enforced" guarded
  kc delete tguard everything >/dev/null
  echo "\`LeastPrivilege\` is \`True\`, \`TamperResistant\` is \`False\` (\`OwnerCanDisable\`: the owner can log in); both guards are \`Enforced\` through \`shop-rw\` with \`verify-full\` and the CA of the Cluster; CloudNativePG revokes a membership that is not declared, and keeps those that are"
}
commented() { [[ $(admin "SELECT shobj_description('pgrail'::regrole, 'pg_authid')") == "guards and backups" ]]; }
privileges_are() {
  [[ $1 == "$(admin "SELECT concat_ws(' ', rolbypassrls, (SELECT string_agg(roleid::regrole::text, ',' ORDER BY roleid::regrole::text) FROM pg_auth_members WHERE member = r.oid))
    FROM pg_roles r WHERE rolname = 'pgrail'")" ]]
}

# while_tried FUNCTION...: runs it while the application tries the delete again and again. The delete never passed, and no check
# reported what is not so: the guards are in the database all the time.
while_tried() {
  local children before after stopped_times
  before=$(field tguard core .status.blockedAttempts)
  attempt_again_and_again >"$work/attempts" 2>/dev/null &
  children=$!
  while :; do condition tguard core Enforced; echo; condition pgdb shop Reachable; echo; done 2>/dev/null >"$work/conditions" &
  children="$children $!"
  # shellcheck disable=SC2064 # those of now
  trap "kill $children 2>/dev/null" EXIT
  "$@"
  must await 90 "the delete is stopped" stopped
  must await 90 "it is reachable" reachable
  must await 90 "the guard is enforced" guarded
  must await 300 "both instances are ready" instances_are shop 2
  # shellcheck disable=SC2086 # words
  kill $children
  trap - EXIT
  must not grep -q passed "$work/attempts"
  stopped_times=$(grep -c stopped "$work/attempts")
  must test "$stopped_times" -gt 3
  must not grep -q "^False \(Drifted\|Installing\|TablesMissing\|NoPrivilege\)" "$work/conditions"
  # A standby can be ahead with sequences, but no attempt is reported that was not one.
  must await 60 "the next attempt is counted" counts_more
  after=$(field tguard core .status.blockedAttempts)
  must test "$after" -ge "$before"
  must test "$after" -le "$(( before + $(wc -l <"$work/attempts") + 60 ))"
  must test "$(admin "SELECT count(*) > 0 FROM pg_stat_activity WHERE usename = 'pgrail'")" == t
}
# Each attempt of this function is one of the sixty above.
counts_more() {
  local before
  before=$(field tguard core .status.blockedAttempts)
  stopped
  sleep 6
  (( $(field tguard core .status.blockedAttempts) > before ))
}
tried() {
  echo "the delete was tried $(wc -l <"$work/attempts") times meanwhile: stopped $(grep -c stopped "$work/attempts") times, no server $(grep -c failed "$work/attempts" || true) times, passed never; $(reported)"
}
# What the samples of `Reachable` were, once each, in order.
reported() {
  awk '/^(True|False|Unknown) (Verified|Drifted)/ { next } NF && $0 != last { printf "%s`%s` (`%s`)", last == "" ? "`Reachable` was " : ", then ", $1, $2; last = $0 }' \
    "$work/conditions"
}
promoted() { [[ $(primary) != "$1" && $(field cluster shop .status.targetPrimary) == "$(primary)" ]]; }

failover() {
  local old
  old=$(primary)
  while_tried primary_killed "$old"
  reads_standby backed_up_as nightly after-failover
  echo "\`$(primary)\` took over $(seconds "$(cat "$work/took")") after \`$old\` was deleted; $(tried); the operator is connected to the new primary; the next backup reads from \`$(standby)\`"
}
primary_killed() {
  kc delete pod "$1" --force --grace-period=0 >/dev/null 2>&1
  must await 180 "the other instance is the primary" promoted "$1"
  echo "$awaited" >"$work/took"
}

switchover() {
  local old
  old=$(primary)
  while_tried promoted_by_hand "$old" "$(standby)"
  echo "\`$(primary)\` took over after $(seconds "$(cat "$work/took")"); $(tried)"
}
promoted_by_hand() {
  kubectl cnpg -n shop promote shop "$2" >/dev/null
  must await 180 "the other instance is the primary" promoted "$1"
  echo "$awaited" >"$work/took"
}

# In the order of the book: a suspended database has no session, for whose end CloudNativePG would wait.
hibernated() {
  kc patch pgdb shop --type merge -p '{"spec": {"suspend": true}}' >/dev/null
  must await 60 "it is suspended" is pgdb shop Ready "Unknown Suspended"
  kc annotate cluster shop --overwrite cnpg.io/hibernation=on >/dev/null
  must await 150 "no instance runs" no_instance
  local ended=$awaited
  must is tguard core Enforced "Unknown Suspended"
  kc annotate cluster shop --overwrite cnpg.io/hibernation=off >/dev/null
  must await 180 "PostgreSQL answers" answers
  must stopped
  kc patch pgdb shop --type merge -p '{"spec": {"suspend": false}}' >/dev/null
  must await 90 "it is reachable" reachable
  must await 60 "the guard is enforced" guarded
  echo "with \`spec.suspend: true\`, the instances ended within $(seconds "$ended"); the delete is stopped as soon as PostgreSQL answers again; \`Enforced\` $(seconds "$awaited") after \`suspend: false\`"
}
no_instance() { [[ -z $(kc get pods -l cnpg.io/cluster=shop -o name) ]]; }

deleted() {
  kc delete cluster shop >/dev/null
  must await 300 "no instance runs" no_instance
  kc delete tguard core --wait=false >/dev/null
  kc delete pgdb shop --wait=false >/dev/null
  must await 120 "the guard is gone" gone tguard core
  local took=$awaited
  must await 60 "the database is gone" gone pgdb shop
  must has_event core GuardsLeftBehind ""
  must test "$(in_phase Succeeded)" -gt 0
  echo "the guard is deleted after $(seconds "$took"), with the Event \`GuardsLeftBehind\`; the $(in_phase Succeeded) backups remain"
}
