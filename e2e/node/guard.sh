# shellcheck shell=bash disable=SC2154
# Steps with guards, exemptions and policies.

declare_shop() { # [SECRET]
  kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: shop}
spec: {connection: {secretRef: {name: ${1:-shop-login}}}, applicationRoles: [shop_app], checkInterval: 5s}
YAML
}
guard_shop() {
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: core}
spec: {databaseRef: {name: shop}, tables: [{schema: public, name: users}, {schema: public, name: orders}], limits: {maxRows: 10, maxCascadeRows: 5000}}
YAML
}

guard_enforced() { # [SECRET]
  local from before
  before=$(digest)
  from=$(now)
  declare_shop "$@"
  guard_shop
  must await 90 "the guard is enforced" guarded
  local took=$(( $(now) - from ))
  must is pgdb shop Ready "True AsDeclared"
  must stopped
  must test "$(app "DELETE FROM users WHERE id = 42" || true)" != ""
  must test "$(digest)" == "$before"
  must test "$(app "BEGIN; DELETE FROM users WHERE id = 7; SELECT count(*) FROM users; ROLLBACK")" == 999
  must await 60 "the attempts are counted" is_field tguard core .status.blockedAttempts 2
  must await 60 "an Event reports them" has_event core BulkDeleteBlocked ""
  echo "\`Enforced\` $(seconds "$took") after \`kubectl apply\`; the delete of all users and that of one user with 40,000 dependent rows are stopped, that of another user is not; \`blockedAttempts\` is 2"
}

window_exhausted() {
  local number deleted=0
  admin "SET ROLE shop_owner; CREATE TABLE visits (id int PRIMARY KEY); INSERT INTO visits SELECT generate_series(1, 2000);
    GRANT SELECT, DELETE ON visits TO shop_app; ANALYZE visits" >/dev/null
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: TableGuard
metadata: {name: visits}
spec:
  databaseRef: {name: shop}
  tables: [{schema: public, name: visits}]
  limits: {maxRows: 10, maxCascadeRows: 10, window: {duration: 1h, maxRows: 20}}
YAML
  must await 60 "the guard is enforced" is tguard visits Enforced "True Verified"
  for (( number = 1; number <= 10; number++ )); do
    [[ $(app "DELETE FROM visits WHERE id BETWEEN $number * 5 AND $number * 5 + 4" || true) == "" ]] || break
    deleted=$(( deleted + 5 ))
  done
  must test "$deleted" == 20
  must await 60 "an Event reports it" has_event visits WindowExhausted ""
  echo "of deletes with 5 rows each, $(( deleted / 5 )) succeed, and the next one is stopped; Event \`WindowExhausted\`"
}

exempted() {
  kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: GuardExemption
metadata: {name: purge}
spec:
  guardRefs: [{name: visits}]
  role: shop_app
  unlimited: true
  notAfter: "$(date -u -d '+30 seconds' +%Y-%m-%dT%H:%M:%SZ)"
  reason: end-to-end test
YAML
  must await 25 "the exemption is active" is gexempt purge Ready "True Active"
  must test "$(app "DELETE FROM visits WHERE id > 1000" || true)" == ""
  must await 60 "it has expired" is_field gexempt purge .status.phase Expired
  must stopped visits
  must is_field gexempt purge .status.usedRows 1000
  must has_event purge ExemptionUsed ""
  echo "1,000 rows are deleted while it is \`Active\`; after \`notAfter\` it is \`Expired\`, the delete is stopped again, \`usedRows\` is 1000"
}

drift_repaired() {
  local trigger
  trigger=$(admin "SELECT quote_ident(tgname) FROM pg_trigger WHERE tgrelid = 'users'::regclass AND NOT tgisinternal ORDER BY tgname LIMIT 1")
  must test -n "$trigger"
  admin "SET ROLE shop_owner; ALTER TABLE users DISABLE TRIGGER $trigger" >/dev/null
  must await 60 "the trigger is enabled" is_enabled "$trigger"
  local took=$awaited
  must stopped
  must await 60 "an Event reports it" has_event core DriftRepaired ""
  echo "enabled again after $(seconds "$took"); Event \`DriftRepaired\`"
}
is_enabled() { [[ $(admin "SELECT tgenabled <> 'D' FROM pg_trigger WHERE tgrelid = 'users'::regclass AND tgname = '${1//\"/}'") == t ]]; }

# The policy `production`, which selects the namespace.
declare_policy() { # [RULES]
  kubectl label namespace "$namespace" environment=production --overwrite >/dev/null
  kubectl apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: GuardrailPolicy
metadata: {name: production}
spec: {namespaceSelector: {matchLabels: {environment: production}}${1:+, $1}}
YAML
}

policy() {
  declare_policy
  must await 90 "the database is compliant" kubectl wait gpolicy/production --for=condition=Compliant --timeout=1s
  kubectl patch gpolicy production --type merge -p '{"spec": {"guards": {"maxLimits": {"maxRows": 5}}}}' >/dev/null
  must await 90 "it is not" violated guards.maxLimits
  kubectl delete gpolicy production >/dev/null
  echo "\`Compliant\` with guard, backup and drill as they are; with a lower \`maxLimits\`, the violation names the rule, the database and the guard"
}
violated() { [[ $(violations) == *"ViolationsFound"*"$1:shop/shop:"* ]]; }
violations() { # with the reason of `Compliant`
  kubectl get gpolicy production -o 'jsonpath={.status.conditions[?(@.type=="Compliant")].reason} {range .status.violations[*]}{.rule}:{.database}:{.object} {end}'
}

secret_rotated() {
  local login_password
  login_password=$(random)
  admin "ALTER ROLE pgrail PASSWORD '$login_password'" >/dev/null
  kc patch secret shop-login --type merge -p "{\"stringData\": {\"uri\": \"postgres://pgrail:$login_password@postgres:5432/shop\"}}" >/dev/null
  admin "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pgrail'" >/dev/null
  admin "SET ROLE shop_owner; CREATE TABLE late (id int PRIMARY KEY)" >/dev/null
  guard_table late shop late
  must await 60 "a new guard is enforced with it" is tguard late Enforced "True Verified"
  local took=$awaited
  # Its own look can still be ahead, if it tried the new password before the Secret had it.
  must await 30 "the database is reachable" is pgdb shop Reachable "True Connected"
  backup after-rotation
  must await 120 "a backup is made with it" succeeded after-rotation
  kc delete tguard late >/dev/null
  admin "DROP TABLE late" >/dev/null
  echo "a new guard is \`Enforced\` with the new password $(seconds "$took") after it was changed; the next backup succeeds"
}
