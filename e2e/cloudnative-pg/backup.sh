# shellcheck shell=bash disable=SC2154
# Steps with backups that are read from a standby, and with a restore into another Cluster.

# The connections of dumps that PostgreSQL in this pod has logged.
dumps_in() { kc logs "$1" -c postgres | grep -c 'connection authorized:.*application_name=pgrail-dump' || true; }
more_dumps_in() { (( $(dumps_in "$1") > $2 )); }

# reads_standby COMMAND...: the command takes the backup NAME, which is its last argument; its dump is of the standby only.
reads_standby() {
  local from of_primary
  from=$(dumps_in "$(standby)") of_primary=$(dumps_in "$(primary)")
  "$@"
  must await 30 "the standby has logged the dump" more_dumps_in "$(standby)" "$from"
  must test "$(dumps_in "$(primary)")" == "$of_primary"
  must test -n "$(field dbbackup "${*: -1}" .status.replayLagSeconds)"
}
backed_up_as() { # SCHEDULE NAME
  backup "$2" "" "$1"
  must await 180 "the backup $2 is made" succeeded "$2"
}
has_all_rows() { # BACKUP
  local count
  count=$(digest)
  must is_field dbbackup "$1" .status.rows "${count% *}"
  must is_field dbbackup "$1" .status.verification.structure.outcome Restored
  # Neither is what pgrail itself keeps in unlogged tables.
  must is_field dbbackup "$1" .status.partial false
}

backup_as_owner() {
  store_keys
  schedule as-owner <<'YAML'
  runOnCreate: false
  connection: {secretRef: {name: shop-app}, host: shop-ro}
YAML
  must await 60 "the host is refused" is bsched as-owner Stalled "True HostNotAllowed"
  kc annotate secret shop-app pgrail.dev/allow-host-override=true >/dev/null
  kc annotate bsched as-owner checked=again >/dev/null
  must await 60 "the schedule is accepted" is bsched as-owner Ready "True Scheduled"
  reads_standby backed_up_as as-owner owner
  has_all_rows owner
  must test "$(kc get secret shop-app -o 'jsonpath={.metadata.annotations.pgrail\.dev/allow-host-override}')" == true
  kc delete bsched as-owner >/dev/null
  echo "\`HostNotAllowed\`; with the annotation \`pgrail.dev/allow-host-override\` on the Secret, which CloudNativePG keeps: $(field dbbackup owner .status.rows) rows, structure restored; only \`$(standby)\` logged the connections of the dump"
}

backup_from_standby() {
  schedule nightly <<'YAML'
  runOnCreate: false
  connection:
    secretRef: {name: shop-pgrail}
    host: shop-ro
    database: shop
    tls: {mode: verify-full, caSecretRef: {name: shop-ca, key: ca.crt}}
YAML
  must await 60 "the schedule is accepted" is bsched nightly Ready "True Scheduled"
  reads_standby backed_up_as nightly standby
  has_all_rows standby
  must await 60 "it counts" is bsched nightly BackupFresh "True Fresh"
  echo "no annotation is needed, since this Secret contains no host; $(field dbbackup standby .status.rows) rows over TLS with \`verify-full\`, structure restored; only \`$(standby)\` logged the connections of the dump; replay lag $(field dbbackup standby .status.replayLagSeconds) s"
}

# Another Cluster, with pgrail's role and the roles that own objects and have privileges.
restored_elsewhere() {
  local before source
  before=$(digest)
  backed_up_as nightly before-restore
  cluster spare 1 app <<'YAML' | kc apply -f - >/dev/null
      - {name: pgrail, login: true, createdb: true, bypassrls: true, inRoles: [pg_read_all_data, shop_owner], passwordSecret: {name: shop-pgrail}}
YAML
  must await 300 "the other Cluster is ready" instances_are spare 1
  must await 60 "the role is there" roles_reconciled spare pgrail
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: spare}
spec: {connection: {secretRef: {name: shop-pgrail}, host: spare-rw, database: app, tls: {mode: verify-full, caSecretRef: {name: spare-ca, key: ca.crt}}}, checkInterval: 5s}
---
apiVersion: pgrail.dev/v1alpha1
kind: DatabaseRestore
metadata: {name: elsewhere}
spec:
  source: {backupRef: {name: before-restore}}
  target: {databaseRef: {name: spare}, name: shop}
YAML
  restore_succeeds elsewhere
  must test "$(in_spare "SELECT count(*) || ' ' || md5(string_agg(row, '|' ORDER BY row)) FROM ($all_rows) AS rows")" == "$before"
  must is_field dbrestore elsewhere .status.restoredRows "${before% *}"
  must test "$(in_spare "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")" == 0
  kc apply -f - >/dev/null <<'YAML'
apiVersion: pgrail.dev/v1alpha1
kind: ProtectedDatabase
metadata: {name: restored}
spec: {connection: {secretRef: {name: shop-pgrail}, host: spare-rw, database: shop, tls: {mode: verify-full, caSecretRef: {name: spare-ca, key: ca.crt}}}, checkInterval: 5s}
YAML
  guard_table restored restored users
  must await 90 "the guard is enforced in it" is tguard restored Enforced "True Verified"
  must grep -q PGR01 <<<"$(in_spare "BEGIN; DELETE FROM users; ROLLBACK" 2>&1 || true)"
  kc delete tguard restored >/dev/null
  kc delete pgdb restored spare >/dev/null
  kc delete cluster spare >/dev/null
  echo "${before% *} rows in $(field dbrestore elsewhere .status.seconds) s into the database \`shop\` of the Cluster \`spare\`, the same as before; guarded there"
}
in_spare() { kc exec spare-1 -c postgres -- psql -U postgres -X -A -t -q -v VERBOSITY=verbose -d shop -c "$1"; }
