#!/usr/bin/env bash
# run.sh: the way of a user on a real node with real pods, with kubectl, helm and psql only: installation, guard, backup, drills,
# restores, a cluster that is set up again from the bucket alone, upgrade, uninstallation. Writes the table of
# docs/src/end-to-end.md. Root; a quarter of an hour; not part of `make test`.
#   E2E_STEPS="installed guard_enforced backed_up drilled"   only these; a step needs those before it that create its objects
#   E2E_KEEP=1                                               leaves the node running
# shellcheck disable=SC1090,SC1091
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
cd "$root"
source "$here/lib.sh"
source "$here/guard.sh"
source "$here/backup.sh"
source "$here/operator.sh"
only=${E2E_STEPS:-} keep=${E2E_KEEP:-}

echo "== a node, PostgreSQL, an S3 server" >&2
start_node "e2e-$(( $$ % 100000 ))" pgrail.dev/pgrail:e2e
logged storage e2e/cluster/workloads/up.sh --name "$name" storage s3
logged postgres e2e/cluster/workloads/up.sh --name "$name" "$namespace" postgres
create_shop
create_tables
create_more_tables

nothing_left() {
  e2e/cluster/down.sh --name "$name" >/dev/null 2>&1
  (source e2e/cluster/lib.sh; nothing_left_of "$name" "$link" >&2)
  echo "no process, mount, link, route or control group is left"
}

run installed "\`helm install\` with two replicas"
run guard_enforced "a ProtectedDatabase and a TableGuard"
run backed_up "a BackupSchedule with a drill: its first backup"
run drilled "a full drill, started by hand"
run drill_query_failed "a drill whose query does not return what is expected"
run drill_any_user "a drill as a user that the image does not know"
run drill_other_image "a drill with another image"
run sealed "an encrypted backup and its drill"
run one_user_restored "one user is deleted, and restored with all dependent rows"
run drift_repaired "a trigger is disabled by the owner of the table"
run window_exhausted "a loop of small deletes exceeds the window"
run exempted "a GuardExemption"
run policy "a GuardrailPolicy"
run secret_rotated "the password of pgrail's role is rotated"
run namespace_deleted "a namespace is deleted with everything in it"
run memory "the memory of the operator, until here"
run leader_killed "the leader is killed while it installs a guard"
run upgraded "\`helm upgrade\` and \`helm rollback\`"
run disaster "nothing is left but the bucket and the private key"
run uninstalled "uninstallation"
run cluster_lost "the cluster is ended; another one has nothing but the bucket and the private key"

printf '%s\n' "${rows[@]}"
if [[ -z $only ]] && (( failed == 0 )); then
  write_page docs/src/end-to-end.md Step e2e/node/run.sh "$(versions)"
fi
# After the table, which needs the node.
if [[ -z $keep ]]; then
  link=$(source e2e/cluster/lib.sh; link_of "$name")
  observe "the end of the run" nothing_left
fi
echo "$passed passed, $failed failed"
(( failed == 0 ))
