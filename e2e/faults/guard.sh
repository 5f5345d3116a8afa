# shellcheck shell=bash disable=SC2154
# Faults of the guard and of its database.

schema_dropped() {
  local before after from
  app "BEGIN; DELETE FROM users; ROLLBACK" >/dev/null || true
  must await 60 "the attempt is counted" counted 1
  before=$(field tguard core .status.blockedAttempts)
  from=$(now)
  admin "DROP SCHEMA pgrail CASCADE" >/dev/null
  must await 60 "the delete is stopped again" stopped
  local took=$awaited
  must await 60 "an Event reports it" has_event core DriftRepaired ""
  must await 60 "the guard is enforced" guarded
  after=$(field tguard core .status.blockedAttempts)
  must test "$after" -ge "$before"
  echo "guarded again after $(seconds "$took"); Event \`DriftRepaired\`; \`blockedAttempts\` not lower"
}
counted() { (( $(field tguard core .status.blockedAttempts) >= $1 )); }

trigger_disabled() {
  local repairs
  admin "SET ROLE other_owner; CREATE TABLE receipts (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE CASCADE)" >/dev/null
  must await 90 "the table that cannot be guarded is named" names receipts
  repairs=$(field tguard core .status.driftRepairs); repairs=${repairs:-0}
  admin "ALTER TABLE users DISABLE TRIGGER ALL" >/dev/null
  must await 60 "the delete is stopped again" stopped
  local took=$awaited
  must await 60 "the repair is counted" repaired "$repairs"
  # The statement has disabled the foreign keys of the table, too.
  must await 60 "the foreign keys are named" foreign_keys_named
  admin "ALTER TABLE users ENABLE TRIGGER ALL; DROP TABLE receipts" >/dev/null
  must await 90 "the guard is enforced" guarded
  echo "repaired after $(seconds "$took"), while \`public.receipts\` of another owner could not be guarded, and was named with its owner; disabled foreign keys are \`Drifted\`, with the remedy"
}
foreign_keys_named() { kc get tguard core -o "jsonpath={.status.tables}" | grep -q "ALTER TABLE public.users ENABLE TRIGGER ALL"; }
names() { kc get tguard core -o 'jsonpath={.status.tables}{.status.conditions}' | grep "$1" | grep -q other_owner; }
repaired() { (( $(field tguard core .status.driftRepairs) > $1 )); }

renamed() {
  admin "ALTER TABLE users RENAME TO customers" >/dev/null
  must stopped customers
  must await 60 "an Event names both" has_event core TableRenamed customers
  must stopped customers
  admin "ALTER TABLE customers RENAME TO users" >/dev/null
  must await 60 "the guard is enforced" guarded
  echo "the delete is stopped under the new name, immediately and later; Event \`TableRenamed\`"
}

wrong_secret() {
  local took next
  next=$(openssl rand -hex 16)
  admin "ALTER ROLE pgrail PASSWORD '$next'" >/dev/null
  admin "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgrail'" >/dev/null
  must await 90 "it is reported" is pgdb shop Reachable "False AuthenticationFailed"
  took=$awaited
  must stopped
  kc patch secret shop-login --type merge -p "{\"stringData\": {\"uri\": \"postgres://pgrail:$next@postgres:5432/shop\"}}" >/dev/null
  must await 90 "it is reachable" reachable
  echo "\`AuthenticationFailed\` after $(seconds "$took"); \`Reachable\` $(seconds "$awaited") after the Secret was corrected; guarded all the time"
}

server_down() {
  local down
  kc scale statefulset/postgres --replicas 0 >/dev/null
  kc wait --for=delete pod/postgres-0 --timeout 60s >/dev/null
  must await 90 "it is reported" unreachable
  down="\`$(field pgdb shop '.status.conditions[?(@.type=="Reachable")].reason')\` after $(seconds "$awaited")"
  kc scale statefulset/postgres --replicas 1 >/dev/null
  must await 90 "PostgreSQL answers" answers
  must stopped
  must await 90 "it is reachable" reachable
  local up=$awaited
  must await 60 "an Event reports it" has_event shop DatabaseRecovered ""
  echo "$down; reachable $(seconds "$up") after PostgreSQL answered; guarded all the time; Events"
}

operator_killed() {
  local tables=2000 installed
  guard_many "$tables"
  must await 120 "the installation has begun" begun
  kubectl -n pgrail-system delete pod -l app.kubernetes.io/name=pgrail --force --grace-period=0 >/dev/null 2>&1
  installed=$(with_triggers)
  must test "$installed" -lt "$tables"
  must await 300 "everything is guarded" is tguard many Enforced "True Verified"
  local took=$awaited
  must test "$(with_triggers)" == "$tables"
  must stopped "many.t$tables"
  echo "deleted when $installed of $tables tables had a trigger; all of them \`Enforced\` $(seconds "$took") later"
}

leader_lost() {
  kubectl -n pgrail-system scale deployment/pgrail --replicas 2 >/dev/null
  kubectl -n pgrail-system rollout status deployment/pgrail --timeout 60s >/dev/null
  local holder
  holder=$(leader)
  kubectl -n pgrail-system delete pod "$holder" --force --grace-period=0 >/dev/null 2>&1
  admin "ALTER TABLE users DISABLE TRIGGER ALL" >/dev/null
  must await 120 "the delete is stopped again" stopped
  local took=$awaited next
  next=$(leader)
  must test "$next" != "$holder"
  admin "ALTER TABLE users ENABLE TRIGGER ALL" >/dev/null
  kubectl -n pgrail-system scale deployment/pgrail --replicas 1 >/dev/null
  must await 60 "the guard is enforced" guarded
  echo "the second replica repaired a disabled trigger $(seconds "$took") after it"
}
