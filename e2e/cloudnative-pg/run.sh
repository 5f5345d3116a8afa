#!/usr/bin/env bash
# run.sh: pgrail beside a real CloudNativePG, compiled from its Go module and installed from the manifest of its release, on a real node:
# guards, roles, failover, backups from a standby, a restore into another Cluster, hibernation, and the end of a Cluster. Writes the table
# of docs/src/cloudnative-pg.md. Root; a quarter of an hour; not part of `make test`.
#   CNPG_STEPS="cluster_ready guarded_as_owner"   only these; a step needs those before it that create its objects
#   CNPG_KEEP=1                                   leaves the node running
# shellcheck disable=SC1090,SC1091
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$(dirname "$here")")
cd "$root"
source "$root/e2e/node/lib.sh"
source "$root/e2e/node/guard.sh"
source "$root/e2e/node/backup.sh"
source "$here/cluster.sh"
source "$here/backup.sh"
only=${CNPG_STEPS:-} keep=${CNPG_KEEP:-}
major=18
cloudnative_pg=$(source e2e/cluster/lib.sh; echo "${cloudnative_pg_version#v}")

echo "== a node, CloudNativePG, an S3 server, the operator" >&2
start_node "cnpg-$(( $$ % 100000 ))" pgrail.dev/pgrail:cnpg
tools=$(e2e/cluster/tools.sh cloudnative-pg)
# With its plugin, `kubectl cnpg`.
export PATH=$PATH:$tools
logged postgresql e2e/cluster/image.sh --postgresql "$major" --name "$name"
load_cloudnative_pg
logged storage e2e/cluster/workloads/up.sh --name "$name" storage s3
install_operator
kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/enforce=restricted >/dev/null

run cloudnative_pg_installed "CloudNativePG is installed"
run cluster_ready "a \`Cluster\` of two instances"
run undeclared "a GuardrailPolicy, before the Cluster has a ProtectedDatabase"
run guarded_as_owner "a ProtectedDatabase with the Secret \`shop-app\` that CloudNativePG writes, and a TableGuard"
run standby_refused "a ProtectedDatabase that connects to \`shop-ro\`"
run backup_as_owner "a BackupSchedule with this Secret that reads from the standby (\`host: shop-ro\`)"
run managed_role "a role of its own: \`spec.managed.roles\` and \`pgrail grants\`, as in the book"
run drift_repaired "a trigger is disabled by the owner of the table"
run backup_from_standby "a BackupSchedule with the managed role, that reads from the standby"
run failover "failover: the pod of the primary is deleted without grace"
run drift_repaired "a trigger is disabled on the new primary"
run switchover "switchover: \`kubectl cnpg promote\`"
run restored_elsewhere "a backup is restored into a new Cluster"
run hibernated "the Cluster is hibernated"
run deleted "the Cluster is deleted, and the guard after it"

printf '%s\n' "${rows[@]}"
if [[ -z $only ]] && (( failed == 0 )); then
  write_page docs/src/cloudnative-pg.md Step e2e/cloudnative-pg/run.sh "CloudNativePG $cloudnative_pg, $(cat "$work/versions")"
fi
echo "$passed passed, $failed failed"
(( failed == 0 ))
