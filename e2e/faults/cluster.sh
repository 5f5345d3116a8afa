# shellcheck shell=bash disable=SC2154
# Faults of the cluster: other tenants, deleted objects, input that is refused, an installation that is changed by hand.

# A server that completes every login and never answers a statement, and a hundred databases of another tenant on it.
hostile_tenant() {
  local databases=100 from
  kubectl create namespace mallory >/dev/null
  kubectl -n mallory apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: silent, labels: {app: silent}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: silent
      image: $image
      command:
        - perl
        - -MIO::Socket::INET
        - -e
        - |
          # AuthenticationOk, ReadyForQuery, then nothing: whatever is sent is read and not answered.
          my \$server = IO::Socket::INET->new(LocalPort => 5432, Listen => 128, ReuseAddr => 1) or die;
          \$SIG{CHLD} = 'IGNORE';
          while (my \$client = \$server->accept) {
            next if fork;
            my \$buffer;
            sysread \$client, \$buffer, 4096;
            if (length \$buffer == 8) { syswrite \$client, 'N'; sysread \$client, \$buffer, 4096 }
            syswrite \$client, pack('CNNCNC', 82, 8, 0, 90, 5, 73);
            1 while sysread \$client, \$buffer, 4096;
            exit;
          }
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: v1
kind: Service
metadata: {name: silent}
spec: {selector: {app: silent}, ports: [{port: 5432}]}
---
apiVersion: v1
kind: Secret
metadata: {name: login}
stringData: {username: mallory, password: mallory, dbname: shop}
YAML
  kubectl -n mallory wait --for=condition=Ready pod/silent --timeout 60s >/dev/null
  local number
  for (( number = 0; number < databases; number++ )); do
    cat <<YAML
---
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: shop-$number}
spec: {connection: {secretRef: {name: login}, host: silent, tls: {mode: disable}}, checkInterval: 5s}
---
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: shop-$number}
spec: {databaseRef: {name: shop-$number}, tables: [{schema: public, name: users}]}
YAML
  done | kubectl -n mallory apply -f - >/dev/null
  must await 90 "the silent server is in use" tried
  admin "SET ROLE shop_owner; CREATE TABLE late (id int PRIMARY KEY)" >/dev/null
  from=$(now)
  guard_table late shop late
  must await 60 "a guard of another namespace is enforced" is tguard late Enforced "True Verified"
  local enforced=$(( $(now) - from ))
  admin "ALTER TABLE users DISABLE TRIGGER ALL" >/dev/null
  must await 60 "the delete is stopped again" stopped
  local repaired=$awaited
  admin "ALTER TABLE users ENABLE TRIGGER ALL" >/dev/null
  kc delete tguard late --wait=false >/dev/null
  kubectl delete namespace mallory --wait=false >/dev/null
  must await 120 "the namespace is gone" not kubectl get namespace mallory
  local deleted=$awaited
  # Its table is pinned until then.
  must await 60 "the other guard is gone" not kc get tguard late
  admin "DROP TABLE late" >/dev/null
  must await 60 "the guard is enforced" guarded
  echo "a guard of another namespace was \`Enforced\` after $(seconds "$enforced"), a disabled trigger repaired after $(seconds "$repaired"); the namespace of the $databases databases was deleted within $(seconds "$deleted")"
}
tried() { kubectl -n mallory get pgdb -o 'jsonpath={.items[*].status.conditions[?(@.type=="Reachable")].reason}' | grep -q Timeout; }

# What the apiserver's proxy reads of the operator.
metrics() {
  local pod
  pod=$(leader)
  kubectl get --raw "/api/v1/namespaces/pgrail-system/pods/$pod:8080/proxy/metrics"
}
has_series() { metrics | grep -q "^pgrail_.*$1"; }

series_end() {
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: passing}
spec: {databaseRef: {name: shop}, tables: [{schema: public, name: orders}]}
YAML
  must await 60 "the guard is enforced" is tguard passing Enforced "True Verified"
  must await 60 "it has series" has_series '"passing"'
  kc delete tguard passing --wait=false >/dev/null
  must await 60 "the guard is gone" gone tguard passing
  must await 60 "its series are gone" not has_series '"passing"'
  echo "no series of the guard is left $(seconds "$awaited") after the object was gone"
}

refused() { # WORD: standard input is refused with a message that has it, and no <nil>
  local answer
  answer=$(kc apply --dry-run=server -f - 2>&1) && { echo "accepted: $answer" >&2; return 1; }
  [[ $answer == *"$1"* && $answer != *"<nil>"* ]] || { echo "refused, but: $answer" >&2; return 1; }
}

bad_input() {
  must refused tables <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: bad}
spec: {databaseRef: {name: shop}, tables: [{schema: public, name: users}, {schema: public, name: users}]}
YAML
  must refused schedule <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: bad}
spec: {databaseRef: {name: shop}, schedule: "0 25 * * *", storage: {url: s3://backups/shop, secretRef: {name: s3}}}
YAML
  must refused timeZone <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: bad}
spec: {databaseRef: {name: shop}, schedule: "0 2 * * *", timeZone: "not a zone!", storage: {url: s3://backups/shop, secretRef: {name: s3}}}
YAML
  must refused endpoint <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: bad}
spec: {databaseRef: {name: shop}, schedule: "0 2 * * *", storage: {url: s3://backups/shop, endpoint: "http://169.254.169.254", secretRef: {name: s3}}}
YAML
  echo "refused by the apiserver, each with the name of its field"
}

# The operator keeps its pod if it is back within 10 s, and starts anew after that. Guards are in the database, and stay.
apiserver_down() {
  local restarts before after
  restarts=$(operator_restarts) before=$(field tguard core .status.blockedAttempts)
  # Without an apiserver nothing can be run in a pod: this is started before.
  kc exec toolbox -- sh -c 'nohup sh -c "sleep 20; psql -X -q \"\$APP_URL\" -c \"BEGIN; DELETE FROM users; ROLLBACK\"" >/dev/null 2>&1 &'
  e2e/cluster/component.sh --name "$name" stop apiserver >/dev/null
  sleep 30
  e2e/cluster/component.sh --name "$name" start apiserver >/dev/null
  must await 60 "the apiserver answers" kubectl get --raw /readyz
  must await 60 "the delete of that time was stopped" counted $((before + 1))
  admin "ALTER TABLE users DISABLE TRIGGER ALL" >/dev/null
  must await 120 "the delete is stopped again" stopped
  local took=$awaited
  after=$(operator_restarts)
  admin "ALTER TABLE users ENABLE TRIGGER ALL" >/dev/null
  must await 60 "the guard is enforced" guarded
  backup after-the-apiserver
  must await 180 "a backup succeeds" succeeded after-the-apiserver
  echo "deletes are stopped meanwhile; a trigger that was disabled when it was back was repaired $(seconds "$took") later (the operator had exited $((after - restarts)) times: without a Lease it does nothing); a backup succeeds"
}
operator_restarts() { kubectl -n pgrail-system get pods -l app.kubernetes.io/name=pgrail -o 'jsonpath={.items[0].status.containerStatuses[0].restartCount}'; }

scaled_by_hand() {
  kubectl -n pgrail-system scale deployment/pgrail --replicas 2 >/dev/null
  must upgraded
  must test "$(kubectl -n pgrail-system get deployment pgrail -o 'jsonpath={.spec.replicas}')" == 2
  kubectl -n pgrail-system scale deployment/pgrail --replicas 1 >/dev/null
  must await 60 "the guard is enforced" guarded
  echo "the upgrade succeeds and keeps the number of replicas"
}
upgraded() {
  "$HELM" upgrade pgrail charts/pgrail --namespace pgrail-system --wait --timeout 3m --hide-notes --reuse-values --set logLevel=debug >/dev/null
}
