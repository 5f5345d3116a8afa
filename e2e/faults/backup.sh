# shellcheck shell=bash disable=SC2154
# Faults of backups and of the store.

backup_refused() {
  kc create job other --image="$image" -o yaml --dry-run=client -- true | sed 's/^spec:/spec:\n  suspend: true/' | kc apply -f - >/dev/null 2>&1
  backup refused 'pgrail.dev/job: other'
  must await 60 "it is refused" is dbbackup refused Stalled "True NameTaken"
  backup second
  must await 120 "the next one is made" succeeded second
  must await 120 "retention goes on" gone dbbackup first
  must await 60 "retention is healthy" is bsched nightly RetentionHealthy "True Retained"
  kc delete dbbackup refused >/dev/null
  echo "\`NameTaken\`; the next backup succeeds, and retention removes the oldest one"
}

store_down() {
  kc scale deployment/s3 --replicas 0 >/dev/null
  kc wait --for=delete pod -l app=s3 --timeout 60s >/dev/null
  backup during
  must await 60 "its pod runs" runs during-dump
  sleep 15
  must not succeeded during
  kc scale deployment/s3 --replicas 1 >/dev/null
  kc rollout status deployment/s3 --timeout 60s >/dev/null
  must await 300 "the backup succeeds" succeeded during
  echo "a backup that began while the store was down succeeded $(seconds "$awaited") after the store was back"
}
runs() { kc get pods -l "batch.kubernetes.io/job-name=$1" -o 'jsonpath={.items[*].status.phase}' | grep -q .; }

wrong_keys() {
  local good
  good=$(kc get secret s3 -o 'jsonpath={.data.AWS_SECRET_ACCESS_KEY}')
  kc patch secret s3 --type merge -p '{"stringData": {"AWS_SECRET_ACCESS_KEY": "wrong"}}' >/dev/null
  backup denied
  must await 120 "it fails" is_field dbbackup denied .status.phase Failed
  must is dbbackup denied Stalled "True AccessDenied"
  must await 60 "the schedule reports it" is bsched nightly LastBackupSucceeded "False Failed"
  must is bsched nightly BackupFresh "True Fresh"
  kc patch secret s3 --type merge -p "{\"data\": {\"AWS_SECRET_ACCESS_KEY\": \"$good\"}}" >/dev/null
  backup corrected
  must await 120 "the next one succeeds" succeeded corrected
  echo "\`AccessDenied\`, not retried; no good backup was removed; the next one succeeds"
}

dump_lost() {
  local location
  must await 60 "the store was compared" compared
  location=$(field dbbackup corrected .status.location)
  kc exec shell -- rm -r "/data/${location#s3://}"
  backup after-the-loss
  must await 120 "the next one succeeds" succeeded after-the-loss
  must await 120 "the loss is reported" is dbbackup corrected Ready "False Missing"
  local took=$awaited
  must await 30 "an Event reports it" has_event corrected BackupMissing "not in the store"
  echo "\`Ready=False\`, \`Missing\`, $(seconds "$took") after the next run; Event \`BackupMissing\`; the backup no longer counts"
}
compared() { [[ -n $(field bsched nightly .status.storeCheck.time) ]]; }

object_lost() {
  local location
  location=$(field dbbackup after-the-loss .status.location)
  must await 60 "the store was compared" counts_all
  kc delete dbbackup after-the-loss >/dev/null
  backup last
  must await 120 "the next one succeeds" succeeded last
  must await 120 "the dump has an object" recorded "$location"
  echo "the dump stays in the store, and is recorded again as \`Discovered\` after the next run"
}
counts_all() { [[ $(field bsched nightly .status.storeCheck.unrecorded) == 0 && -z $(kc get job nightly-inventory -o name --ignore-not-found) ]]; }
recorded() { kc get dbbackup -o 'jsonpath={range .items[?(@.status.phase=="Discovered")]}{.status.location}{"\n"}{end}' | grep -qx "$1"; }

store_emptied() {
  kc exec shell -- sh -c 'rm -rf /data/backups/*'
  backup fails-or-not
  must await 120 "a new one succeeds" succeeded fails-or-not
  must await 120 "all others are missing" is dbbackup last Ready "False Missing"
  echo "all earlier backups are \`Missing\`; only the new one counts: \`verifiedBackups\` is $(field bsched nightly .status.verifiedBackups)"
}

# The controller of CronJobs is down when a run is due, and until its deadline has passed.
run_missed() {
  local due
  e2e/cluster/component.sh --name "$name" stop controller-manager >/dev/null
  due=$(( $(date -u +%s) / 60 * 60 + 60 ))
  kc apply -f - >/dev/null <<YAML
apiVersion: pgrail.dev/v1alpha1
kind: BackupSchedule
metadata: {name: daily}
spec:
  databaseRef: {name: shop}
  schedule: "$(date -u -d "@$due" '+%-M %-H') * * *"
  startingDeadlineSeconds: 10
  runOnCreate: false
  storage: {url: s3://backups/shop, endpoint: http://s3:9000, region: us-east-1, secretRef: {name: s3}}
YAML
  must await 60 "the schedule is accepted" is bsched daily Ready "True Scheduled"
  must await 300 "the missed run is reported" missed
  local took=$awaited
  must test -n "$(kc get dbbackup -l pgrail.dev/schedule=daily -o name)"
  e2e/cluster/component.sh --name "$name" start controller-manager >/dev/null
  must await 120 "one run makes up for it" is bsched daily LastBackupSucceeded "True Succeeded"
  echo "Event \`RunMissed\` $(seconds "$took") after the schedule was created; one run made up for it"
}
# The operator reconciles a schedule every ten minutes at least; a change of the object is sooner.
missed() {
  kc annotate bsched daily "faults=$(now)" --overwrite >/dev/null
  sleep 5
  has_event daily RunMissed "makes up for it"
}

# The kubelet is down while a dump runs: its pod is deleted, and never ends.
node_lost() {
  kc exec toolbox -- sh -c 'exec psql -X -q "$ADMIN_URL" -c "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(30)"' >/dev/null 2>&1 &
  backup stranded
  must await 60 "the dump runs" dumping stranded-dump
  e2e/cluster/component.sh --name "$name" stop kubelet >/dev/null
  kc delete pod -l batch.kubernetes.io/job-name=stranded-dump --grace-period 1 --wait=false >/dev/null
  must await 420 "it is reported" is dbbackup stranded Stalled "True NodeLost"
  local took=$awaited
  e2e/cluster/component.sh --name "$name" start kubelet >/dev/null
  must await 180 "the node is back" node_ready
  must await 180 "the guard is enforced" guarded
  backup after-the-node
  must await 180 "the next one succeeds" succeeded after-the-node
  echo "\`NodeLost\` $(seconds "$took") after the pod was deleted; the next one succeeds once the node is back"
}
# The dump is the pod's first container: until it ends, the pod is Pending.
dumping() { [[ -n $(kc get pods -l "batch.kubernetes.io/job-name=$1" -o 'jsonpath={.items[*].status.initContainerStatuses[?(@.name=="dump")].state.running.startedAt}') ]]; }
node_ready() { kubectl get nodes -o 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}' | grep -qx True; }
