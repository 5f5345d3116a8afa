#!/usr/bin/env bash
# demo.sh: the main job of pgrail, on a real Kubernetes and a real PostgreSQL with 1.3 million rows. Leaves nothing behind.
#
# As root on Debian or Ubuntu it starts a Kubernetes of its own with real pods. As another user, who cannot run pods, it
# shows the guard on a control plane without nodes, and reports what it leaves out. Or it uses what you have:
#   DEMO_KUBECONFIG    your cluster. Then also:
#   DEMO_IMAGE         pgrail's image, as that cluster can pull it
#   DEMO_DATABASE_URL  optional: your PostgreSQL, as pods reach it, with a login that can create databases and roles.
#                      A database pgrail_demo_... is created for the demo, and dropped at its end.
# DEMO_PROGRAM=FILE uses a pgrail that was built before, instead of building one.
# DEMO_PODS=no does without pods although they are possible.
# DEMO_KEEP=1 leaves everything running and prints how to use it and how to end it.
# shellcheck disable=SC1090,SC1091,SC2034,SC2154
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
cd "$root"
friday=examples/friday
source "$here/lib.sh"

case ${1:-} in
  "") ;;
  -h | --help) sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "demo.sh takes no arguments; see demo.sh --help" >&2; exit 2 ;;
esac

# Everything ends with this script, however it ends.
owner=(--owner $$)
[[ -z ${DEMO_KEEP:-} ]] || owner=()
run=demo-$(( $$ % 100000 ))
work=$(mktemp -d "${TMPDIR:-/tmp}/pgrail-demo.XXXXXX")
logs=$work/logs
mkdir "$logs"

if [[ -n ${DEMO_KUBECONFIG:-} ]]; then
  stage=given
  [[ -n ${DEMO_IMAGE:-} ]] || stop "DEMO_KUBECONFIG is set: DEMO_IMAGE must name pgrail's image as that cluster can pull it"
elif [[ -n ${DEMO_DATABASE_URL:-} ]]; then
  stop "DEMO_DATABASE_URL needs DEMO_KUBECONFIG: the demo's own cluster reaches no database outside"
elif [[ ${DEMO_PODS:-} != no ]] && "$root/e2e/cluster/requirements.sh" node; then
  stage=node
else
  stage=control-plane
fi
source "$here/stage-$([[ $stage == control-plane ]] && echo control-plane || echo pods).sh"

# All that has to be compiled or downloaded starts before anything else. The program is the one of the tests: what is
# compiled here is not compiled again by `make test`.
program=${DEMO_PROGRAM:-${CARGO_TARGET_DIR:-$root/target}/debug/pgrail}
begin_building() { # WITH PODS: yes or nothing
  local parts=(kube) missing
  [[ -n ${DEMO_PROGRAM:-} ]] || parts+=(pgrail)
  if [[ -n $1 ]]; then parts+=(image versitygw); else parts+=(18); fi
  missing=$("$root/e2e/missing.sh" "${parts[@]}")
  if [[ -n $missing ]]; then
    tell "Missing, and now built in the background (times of two idle processors):"
    while read -r line; do tell "   $line"; done <<<"$missing"
  fi
  [[ -n ${DEMO_PROGRAM:-} ]] || begin "pgrail, built from source" cargo build --quiet --locked --package pgrail
  if [[ -n $1 ]]; then
    begin "the S3 server, built from source" "$root/e2e/cluster/tools.sh" versitygw
    begin "Debian with PostgreSQL for the image" "$root/e2e/cluster/image.sh" --postgresql 18 --no-load
  else
    begin "PostgreSQL, downloaded" "$root/e2e/postgres/software.sh" 18
  fi
}
built() { [[ -n ${DEMO_PROGRAM:-} ]] || finished "pgrail, built from source"; }

finish() {
  local status=$?
  trap - EXIT INT TERM
  set +e
  end_begun
  if (( status != 0 && status < 128 )); then
    diagnose "$status"
  fi
  if [[ -n ${DEMO_KEEP:-} ]]; then
    stage_kept
  else
    printf '\n%sCleaning up …%s ' "$dim" "$plain"
    if stage_down >"$logs/clean-up.log" 2>&1; then echo "nothing is left running."; else echo; cat "$logs/clean-up.log"; fi
  fi
  if (( status == 0 )) && [[ -z ${DEMO_KEEP:-} ]]; then rm -rf "$work"; else echo "Logs: $logs"; fi
  exit "$status"
}

# What a person needs first, as far as it exists.
diagnose() {
  printf '\n%sThe demo failed at: %s (exit code %s)%s\n' "$red" "$current_step" "$1" "$plain"
  [[ -n ${KUBECONFIG:-} ]] || return 0
  {
    echo "--- what pgrail reports on its objects"
    kubectl get pgrail -n "$namespace" -o wide
    kubectl get pgrail -n "$namespace" -o jsonpath='{range .items[*]}{range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{"\n"}{end}{end}'
    echo "--- events of the namespace $namespace"
    kubectl get events -n "$namespace" --sort-by=.lastTimestamp | tail -n 20
    echo "--- pods"
    kubectl get pods -A -o wide
    stage_logs
  } 2>&1 | tee "$logs/diagnosis.log" | tail -n 80
  echo "The whole log: $logs/diagnosis.log"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

helm() { command "${HELM:-helm}" "$@"; }
condition() { kubectl get "$1" "$2" -n "$namespace" -o "jsonpath={.status.conditions[?(@.type=='$3')].status}"; }
# await_object SECONDS WHAT KIND NAME FOR: as kubectl wait does, but ends at once when the operator reports that the user
# must fix something, or that it failed.
await_object() {
  local process from ticks=0 state
  from=$(now)
  kubectl wait -n "$namespace" "$3/$4" --for="$5" --timeout="$1s" >"$logs/wait.log" 2>&1 &
  process=$!
  while kill -0 "$process" 2>/dev/null; do
    [[ -z $terminal ]] || printf '\r   %s… %s (%s)%s\e[K' "$dim" "$2" "$(seconds $(( $(now) - from )))" "$plain"
    sleep 0.1
    (( ++ticks % 30 == 0 )) || continue
    state=$(condition "$3" "$4" Stalled)/$(field "$3" "$4" .status.phase)
    if [[ $state == True/* || $state == */Failed ]]; then break; fi
  done
  awaited=$(( $(now) - from ))
  [[ -z $terminal ]] || printf '\r\e[K'
  if kill "$process" 2>/dev/null || ! wait "$process"; then
    stop "$2: not after $(seconds "$awaited")" "$(kubectl get "$3" "$4" -n "$namespace" -o \
      jsonpath='{.status.phase} {.status.message}{range .status.conditions[*]}{"\n"}{.type}={.status} {.reason}: {.message}{end}')"
  fi
}
field() { kubectl get "$1" "$2" -n "$namespace" -o "jsonpath={$3}"; }
rows() {
  sql_admin -Atc "select (select count(*) from users) + (select count(*) from leads) + (select count(*) from conversations)
    + (select count(*) from messages) + (select count(*) from analytics)"
}
thousands() { sed ':again; s/\B[0-9]\{3\}\>/,&/; t again' <<<"$1"; }

echo "${bold}pgrail: the Friday delete${plain}"
tell "On a Friday afternoon one user is deleted. ON DELETE CASCADE deletes 1.3 million rows with it." \
     "Then the same with a guard that stops it, also user by user, and with a backup that was verified."

# A login role for pgrail with only the privileges it needs. The password is set apart from the grants, and quoted by psql.
make_login() { # PASSWORD
  local arguments=(--platform plain --database "$sql_database" --table-owner friday_owner)
  pgrail_grants "${arguments[@]}" >"$work/grants.sql"
  sql_admin <"$work/grants.sql" >"$logs/grants.log" 2>&1 || stop "the SQL of pgrail grants failed:" "$(cat "$logs/grants.log")"
  sql_admin -v password="$1" <<<"ALTER ROLE pgrail PASSWORD :'password'"
  good "a login role for pgrail, not a superuser: pgrail grants ${arguments[*]} | psql"
}

stage_up

step "A database where one delete cascades to 1.3 million rows"
stage_database
before=$(rows)
tell "users -> leads -> conversations -> messages, users -> analytics; every key ON DELETE CASCADE; row level security on."
good "$(thousands "$before") rows, nearly all of them depend on user 42"
tell "Without a guard, as the application's own role, and rolled back:"
sql_app <<'SQL' >"$work/unguarded"
\timing on
BEGIN;
SET LOCAL app.user_id = '42';
DELETE FROM users WHERE id = 42;
ROLLBACK;
SQL
grep -q '^DELETE 1$' "$work/unguarded" || stop "the unguarded delete did not work:" "$(cat "$work/unguarded")"
unguarded=$(awk '/^DELETE 1$/ { getline; print $2 }' "$work/unguarded")
tell "   DELETE FROM users WHERE id = 42;   -- one row, which row level security lets its owner delete" \
     "   DELETE 1"
printf '   %s1,300,001 rows deleted in %s. The server reports "DELETE 1".%s\n' "$red" "$(seconds "${unguarded%.*}")" "$plain"

step "The operator"
stage_operator

step "The guard, from manifest to enforced"
show cat "$friday/guard.yaml"
stage_login
applied=$(now)
database_manifest >"$work/database.yaml"
show kubectl apply -n "$namespace" -f "$work/database.yaml" -f "$friday/guard.yaml"
await_object 60 "the database becomes Ready" pgdb friday condition=Ready
await_object 60 "the guard becomes Enforced" tguard core condition=Enforced
await_object 60 "the guard becomes Ready" tguard core condition=Ready
good "Ready and Enforced $(seconds $(( $(now) - applied ))) after kubectl apply, both together"
show kubectl get pgdb,tguard -n "$namespace"
tell "What one delete can remove through cascades, as the operator found in the catalog (status.blastRadius):"
kubectl get pgdb friday -n "$namespace" -o jsonpath='{range .status.blastRadius[*]}{.table}{"\t"}{.rows}{"\t"}{.rowsAtRisk}{"\t"}{.cascadeTables}{"\n"}{end}' |
  while IFS=$'\t' read -r table rows risk tables; do
    printf '   %-22s %9s rows; %9s more depend on them, tables: %s\n' "$table" "$(thousands "$rows")" "$(thousands "$risk")" "$tables"
  done

step "The Friday delete"
tell "The same statement by the same role in a new session, and once more:"
sql_app <<'SQL' >"$work/guarded" 2>&1 || true
\set VERBOSITY verbose
\timing on
BEGIN;
SET LOCAL app.user_id = '42';
DELETE FROM users WHERE id = 42;
ROLLBACK;
BEGIN;
SET LOCAL app.user_id = '42';
DELETE FROM users WHERE id = 42;
ROLLBACK;
SQL
grep -q 'PGR01' "$work/guarded" || stop "the delete was not stopped by the guard:" "$(cat "$work/guarded")"
awk '/PGR01/ { shown = 1 } /^Time|^LOCATION/ && shown { exit } /^CONTEXT/ { inside = 1 } /^SCHEMA NAME/ { inside = 0 } shown && !inside' "$work/guarded" | fold -s -w 110 | indent
mapfile -t times < <(awk '/PGR01/ { stopped = 1 } /^Time/ && stopped { print $2; stopped = 0 }' "$work/guarded")
after=$(rows)
[[ $after == "$before" ]] || stop "rows are missing: $before before, $after after"
good "stopped after ${times[0]} ms (first statement of a session), ${times[1]} ms (second)"
good "$(thousands "$after") rows, as before: none was deleted"

step "The attempt, on the resource"
await_object 60 "the operator reports the attempts" tguard core jsonpath='{.status.blockedAttempts}'=2
good "reported after $(seconds "$awaited")"
show kubectl get tguard core -n "$namespace"
show kubectl get events -n "$namespace" --field-selector reason=BulkDeleteBlocked \
  -o 'custom-columns=TYPE:.type,REASON:.reason,OBJECT:.involvedObject.name,MESSAGE:.message'

step "An ordinary delete is allowed"
sql_app <<'SQL' >"$work/ordinary" 2>&1
\timing on
BEGIN;
SET LOCAL app.user_id = '7';
DELETE FROM users WHERE id = 7;
COMMIT;
SQL
grep -q '^DELETE 1$' "$work/ordinary" || stop "the ordinary delete was not allowed:" "$(cat "$work/ordinary")"
tell "DELETE FROM users WHERE id = 7;" "DELETE 1"
good "user 7 was deleted, with $(( after - $(rows) - 1 )) rows that depended on it, in $(awk '/^DELETE 1$/ { getline; print $2 }' "$work/ordinary") ms"

step "A loop that deletes one user after the other"
tell "Each DELETE is a transaction of its own, within every limit. The guard's window counts them together:"
for id in $(seq 8 100); do
  [[ $id == 42 ]] || printf "BEGIN; SET LOCAL app.user_id = '%s'; DELETE FROM users WHERE id = %s; COMMIT;\n" "$id" "$id"
done | sql_app -v ON_ERROR_STOP=1 -v VERBOSITY=verbose >"$work/loop" 2>&1 || true
grep -q 'PGR01.*window.maxRows' "$work/loop" || stop "the loop was not stopped by the window:" "$(tail -n 20 "$work/loop")"
awk '/PGR01/ { shown = 1 } /^CONTEXT/ { inside = 1 } /^SCHEMA NAME/ { exit } shown && !inside' "$work/loop" | fold -s -w 110 | indent
good "stopped after $(grep -c '^DELETE 1$' "$work/loop") users"

if [[ $stage == control-plane ]]; then
  loud "Left out: backups. They are made by pods, which this user cannot run. As root, make demo shows them."
else
  step "A backup, made and verified"
  stage_store
  show kubectl apply -n "$namespace" -f "$backup_manifest"
  applied=$(now)
  show kubectl apply -n "$namespace" -f "$friday/backup-now.yaml"
  await_object 180 "dump, upload, read-back" dbbackup before-the-weekend jsonpath='{.status.phase}'=Succeeded
  good "verified $(seconds $(( $(now) - applied ))) after kubectl apply: $(field dbbackup before-the-weekend .status.rows) rows," \
    "$(( $(field dbbackup before-the-weekend .status.sizeBytes) / 1024 )) KiB, $(field dbbackup before-the-weekend .status.verification.level)"
  [[ $(field dbbackup before-the-weekend .status.rows) == "$(rows)" ]] || stop "the dump does not hold the rows of the database"
  await_object 180 "the schedule's own first backup" bsched nightly condition=BackupFresh
  show kubectl get dbbackup -n "$namespace" -o wide
  tell "$(field dbbackup before-the-weekend .status.location)"

  step "A drill: the backup is restored into a temporary server, and every row is counted"
  applied=$(now)
  show kubectl create job drill-now -n "$namespace" --from=cronjob/nightly-drill
  await_object 180 "the drill" bsched nightly condition=Drilled
  good "drilled $(seconds $(( $(now) - applied ))) after kubectl create job: $(field bsched nightly .status.lastDrill.rows) rows of" \
    "$(field bsched nightly .status.lastDrill.tables) tables restored in $(field bsched nightly .status.lastDrillSeconds) s"
  [[ $(field bsched nightly .status.lastDrill.rows) == "$(rows)" ]] || stop "the drill did not restore the rows of the database"
fi

step "Everything that pgrail reports"
show kubectl get pgdb,tguard,bsched,dbbackup,gexempt,dbrestore,gpolicy -n "$namespace" -o wide
tell "The reason of each condition:"
for object in pgdb/friday tguard/core ${backup_manifest:+bsched/nightly}; do
  kubectl get "$object" -n "$namespace" -o jsonpath='{range .status.conditions[*]}{.type}={.status}{"\t"}{.reason}{"\t"}{.message}{"\n"}{end}' |
    while IFS=$'\t' read -r condition reason message; do
      printf '   %-12s %-24s %-18s %s\n' "${object#*/}" "$condition" "$reason" "$message"
    done
done
show kubectl events -n "$namespace" --for tguard/core

printf '\n%sThe demo took %s.%s\n' "$bold" "$(elapsed)" "$plain"
tell "Next:" \
  "  the manifests of this demo      examples/friday/" \
  "  your own database               README.md, examples/minimal.yaml" \
  "  what a guard does not stop      docs/src/bypasses.md" \
  "  the same with everything kept   DEMO_KEEP=1 make demo"
